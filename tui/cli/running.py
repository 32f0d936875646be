"""One ``nd dissect``, from the request to the summary: check first, count, write, say what comes next."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import SUFFIX, check_writable
from ndissect.store.names import safe_name
from ndissect.store.protocol import Protocol
from ndissect.tui.cli import finished, output
from ndissect.tui.cli.job import Job, going_on
from ndissect.tui.cli.output import tell
from ndissect.tui.cli.stopping import Signalled, Stopped, Stopper

if TYPE_CHECKING:
    import torch

    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.engine.machine.ranks import Ranks
    from ndissect.engine.networks.layers import LayerInfo
    from ndissect.engine.networks.resolve import Network
    from ndissect.engine.run.drift import Drift
    from ndissect.engine.run.merge import Shard
    from ndissect.engine.run.saved_run import SavedRun
    from ndissect.engine.run.settings import Settings


@dataclass(frozen=True)
class Request:
    """What the user asked for; ``asked``: the part of it that decides the numbers, for finding them again."""

    network: str
    layers: tuple[str, ...]
    all_convs: bool
    data: str | None
    output: Path | None
    force: bool
    restart: bool
    device: str
    precision: str
    memory: str | None
    batch: int
    workers: int
    top: int
    skip_bad: bool
    max_pixels: int | None
    decode: str
    shard: str | None
    null: int | None
    quiet: bool
    anyway: bool
    asked: dict[str, Any]


def dissect(request: Request, protocol: Protocol, load: Callable[[], Network], json: bool) -> None:
    """Run the request and print its summary; Stopped after Ctrl-C or SIGTERM, with what was counted saved."""
    stopper = Stopper()
    run = _Run(request, protocol, load, stopper)
    try:
        with stopper.listening():
            path = run.run()
    except Signalled as e:
        raise Stopped(e.signal, *run.left_behind()) from None
    if path is not None and not request.quiet:
        finished.summary(path, json)


def _others() -> bool:
    """Whether this is a process of ``torchrun`` that need not speak: another one does."""
    return "WORLD_SIZE" in os.environ and os.environ.get("RANK", "0") != "0"


class _Run:
    """A request on its way to a store."""

    def __init__(self, request: Request, protocol: Protocol, load: Callable[[], Network], stopper: Stopper) -> None:
        self.request, self.protocol, self.load, self.stopper = request, protocol, load, stopper
        self.started = time.time()
        self.saved: SavedRun | None = None

    def left_behind(self) -> tuple[str, str]:
        """What there is of a run that was stopped, and what to do."""
        if self.saved is not None and self.saved.phases():
            how = " (started as before: by as many processes)" if "WORLD_SIZE" in os.environ else ""
            return "what was counted is saved", f"go on: {shlex.join(going_on())}{how}"
        return "nothing was written", f"start again: {shlex.join(going_on())}"

    def run(self) -> Path | None:
        """The store, written; None for a shard, and for all but one of several processes."""
        request = self.request
        if request.output is not None:  # what can be refused at once is refused before torch is imported
            check_writable(request.output, 0)
        dataset = open_dataset(request.data, request.max_pixels)
        asked = request.asked | {"version": version("ndissect"), "data": dataset.tables_digest()}
        there = self._finished(asked)
        if there is not None and self._by_name:
            return self._already(there)
        if there is None and request.output is not None and not request.shard:
            output.confirm_replace(request.output, request.force)
        from ndissect.engine.machine.ranks import expected, join

        if request.shard and expected() > 1:
            raise WrongUse("--shard cuts the work into jobs of their own, torchrun shares one", "use one of them")
        with join() as ranks:
            return self._together(dataset, asked, ranks)

    @property
    def _by_name(self) -> bool:
        """Whether the network is the same whenever it is called so; one's own code and weights may have changed."""
        named = self.request.network == "demo" or self.request.network.startswith("torchvision:")
        return named and self.request.asked["weights"] is None

    def _finished(self, asked: dict[str, Any]) -> Path | None:
        """The store that holds what is asked for already; None where there is none, or with --force."""
        return (
            None
            if self.request.force or self.request.shard
            else finished.find(self.request.output, asked, self.request.anyway)
        )

    def _already(self, there: Path) -> Path | None:
        if _others():
            return None
        if not self.request.quiet:
            tell(f"{there} holds this dissection already, nothing was run; --force runs it again")
        return there

    def _together(self, dataset: ConceptDataset, asked: dict[str, Any], ranks: Ranks) -> Path | None:
        from ndissect.engine.machine.device import choose_device
        from ndissect.engine.machine.ranks import local_rank
        from ndissect.engine.networks.layers import list_layers
        from ndissect.engine.run.merge import parse_shard

        request, first = self.request, ranks.rank == 0
        shard = parse_shard(request.shard) if request.shard else None
        device = choose_device(request.device, local_rank())
        network = self.load()
        if not self._by_name:
            asked |= {"digest": network.digest, "code": network.origin.get("sha256")}
            if there := self._finished(asked):
                return self._already(there)
            if request.output is not None and not request.shard and first:
                output.confirm_replace(request.output, request.force)
        layers = _choose(request, list_layers(network, image_size(dataset)))
        path = request.output or Path(_store_name(network, dataset))
        needed = self._check_output(path, layers, dataset, ranks)
        if first:
            for note in network.notes:
                tell(f"note: {note}")
            what = f"{len(dataset)} images, {layer_list(layers)}, on {device}"
            shared = f", {ranks.size} processes" if ranks.size > 1 else ""
            tell(f"{network.spec} on {dataset.name}: {what}{shared}{f', shard {shard}' if shard else ''}")
        settings = self._settings(device, ranks)
        key = self._key(network, dataset, layers, settings, ranks, shard)
        with self._saving(path, key, needed, ranks, shard) as saved:
            job = Job(
                *(path, network, dataset, layers, self.protocol, settings, ranks, saved),
                drift=self._drift(network, dataset, layers, settings) if first else [],
                needed=needed,
                asked=asked,
                started=self.started,
                politely=self.stopper.politely,
            )
            if shard is not None:
                job.run_shard(shard)
                return None
            if first:
                return job.run()
            job.run_beside()
            return None

    def _settings(self, device: torch.device, ranks: Ranks) -> Settings:
        from ndissect.engine.machine.memory import budget
        from ndissect.engine.run.settings import Settings

        r = self.request
        return Settings(
            device,
            r.batch,
            r.workers,
            r.top,
            r.skip_bad,
            memory=budget(r.memory, device, ranks.size),
            precision=r.precision,  # type: ignore[arg-type]
            jpeg_on=_decoder(r.decode, device),
            stop=self.stopper.asked,
            null=r.null,
            anyway=r.anyway,
        )

    def _key(
        self,
        network: Network,
        dataset: ConceptDataset,
        layers: Sequence[LayerInfo],
        settings: Settings,
        ranks: Ranks,
        shard: Shard | None,
    ) -> dict[str, Any]:
        """What a saved run must agree with, to go on with it."""
        from ndissect.engine.run.provenance import identity

        key = identity(network, dataset, [layer.name for layer in layers], self.protocol, settings)
        key |= {"processes": ranks.size}
        return key | {"shard": str(shard)} if shard else key

    @contextlib.contextmanager
    def _saving(
        self, path: Path, key: dict[str, Any], needed: int, ranks: Ranks, shard: Shard | None
    ) -> Iterator[SavedRun]:
        from ndissect.engine.run.saved_run import SavedRun
        from ndissect.store.paused import saved_folder

        folder = shard.folder(path) if shard else saved_folder(path)
        self.saved = SavedRun(folder, key, ranks.rank, needed, target=path, command=going_on())
        if ranks.rank > 0:
            ranks.gather(None)  # the first process has the folder ready, and holds it
            yield self.saved
            return
        with self.saved.held(restart=self.request.restart):
            ranks.gather(None)
            yield self.saved

    def _check_output(self, path: Path, layers: Sequence[LayerInfo], dataset: ConceptDataset, ranks: Ranks) -> int:
        """The bytes that the store will take, about; NDError where it cannot be written, or no reader would take it."""
        from ndissect.store.limits import check_plan
        from ndissect.store.writer import estimated_size

        units = [layer.units or 0 for layer in layers]
        sizes = [layer.map_size or (0, 0) for layer in layers]
        check_plan(
            layers=[layer.name for layer in layers],
            units=units,
            map_sizes=sizes,
            concepts=dataset.concepts,
            grid=self.protocol.grid or dataset.grid,
            top=self.request.top,
            images=dataset.names,
        )
        needed = estimated_size(units, sizes, len(dataset.concepts), self.request.top, len(dataset))
        if ranks.rank == 0:
            check_writable(path, needed)
            if self.request.output is None and not self.request.shard:
                output.confirm_replace(path, self.request.force)
        return needed

    def _drift(
        self, network: Network, dataset: ConceptDataset, layers: Sequence[LayerInfo], settings: Settings
    ) -> list[Drift]:
        """What the chosen precision changes, which is told; nothing where it is float32."""
        if settings.precision == "fp32":
            return []
        from ndissect.engine.run.drift import measure_drift

        drift = measure_drift(network, dataset, layers, self.protocol, settings)
        for d in drift:
            tell(str(d))
        return drift


def _decoder(name: str, device: torch.device) -> torch.device | None:
    """Where JPEGs are decoded a batch at a time; None: in threads."""
    if name == "gpu" and device.type != "cuda":
        raise WrongUse(f"--decode gpu needs a CUDA device, this run is on {device}", "leave it out")
    return device if name == "gpu" else None


def _store_name(network: Network, dataset: ConceptDataset) -> str:
    """``resnet18-broden1_224.nd.h5``; the demo network on the demo data is ``demo.nd.h5``."""
    data = "demo" if dataset.name.startswith("demo-") else dataset.name
    return safe_name(network.name if network.name == data else f"{network.name}-{data}", SUFFIX)


def open_dataset(name: str | None, max_pixels: int | None = None) -> ConceptDataset:
    """The data set that ``--data`` names, packed or not; by itself the demo's, which is made where it is missing."""
    from ndissect.engine.data import formats
    from ndissect.engine.demo.named import find_named
    from ndissect.tui.cli.progress import show_progress

    with show_progress() as progress:
        folder = find_named(name, progress.step("making the demo's images"))
    return formats.open_dataset(folder, lambda text: tell(f"note: {text}"), max_pixels)


def _choose(request: Request, infos: list[LayerInfo]) -> list[LayerInfo]:
    return choose_layers(request.layers, request.all_convs, infos)


def choose_layers(patterns: Sequence[str], all_convs: bool, infos: list[LayerInfo]) -> list[LayerInfo]:
    """The layers that are asked for, or those that are taken unasked; WrongUse for a pattern that matches none."""
    from ndissect.engine.networks.layers import default_layers, match_layers

    named = patterns or all_convs
    names = match_layers(patterns, infos, all_convs) if named else default_layers(infos)
    return [info for info in infos if info.name in set(names)]


def image_size(dataset: ConceptDataset) -> tuple[int, int]:
    """The size of the first image that can be read; what is wrong with those before it, the reading tells later."""
    for index in range(min(len(dataset), 100)):
        with contextlib.suppress(NDError):
            height, width = dataset.read(index).image.shape[:2]
            return height, width
    return 224, 224


def layer_list(layers: Sequence[LayerInfo]) -> str:
    """``2 layers (layer3, layer4), 384 units``; WrongUse where there is none."""
    if not layers:
        raise WrongUse("no layer was chosen", "nd layers NETWORK lists them")
    names = [layer.name for layer in layers]
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({listed}), {sum(x.units or 0 for x in layers)} units"
