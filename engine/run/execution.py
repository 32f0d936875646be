"""A request carried out: the network is loaded, its layers are counted, and what was counted is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.made_labels import MadeLabels
from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.geometry.layer_geometry import LayerGeometry, geometries_json
from ndissect.engine.machine import torchrun
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import choose_device
from ndissect.engine.machine.memory import high_water
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import Ranks, join
from ndissect.engine.networks.layers import LayerInfo, maps_made
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.decoding import can_decode
from ndissect.engine.run.data_source import open_named
from ndissect.engine.run.dissect import dissect, gather_part
from ndissect.engine.run.drift import Drift, departures, exact_enough, measure_drift
from ndissect.engine.run.existing import asked_for
from ndissect.engine.run.from_store import options_json
from ndissect.engine.run.generated import demand_labels, demand_no_latents, is_generator, open_samples
from ndissect.engine.run.labelling import label_images
from ndissect.engine.run.live_progress import LiveProgress
from ndissect.engine.run.merge import Shard, parse_shard
from ndissect.engine.run.preparation import choose_layers, describe_layers, make_settings
from ndissect.engine.run.provenance import identity, labels_made, origin_of_labels, provenance
from ndissect.engine.run.publishing import Publish
from ndissect.engine.run.request import Request, Written
from ndissect.engine.run.saved_run import SavedRun
from ndissect.engine.run.settings import THREADS, Outcome, Settings
from ndissect.store.errors import NDError
from ndissect.store.files import SUFFIX, check_writable, human_bytes
from ndissect.store.limits import check_plan
from ndissect.store.live import RunWriter
from ndissect.store.model import Dissection
from ndissect.store.names import quoted, safe_name
from ndissect.store.paused import saved_folder
from ndissect.store.writer import estimated_size, write_store

# Seconds from which the final report names what was done.
_SHOWN = 0.05


def execute(request: Request, dataset: ConceptDataset | None, asked: dict[str, Any]) -> Written | None:
    """The store of ``request``, as ndissect.engine.run.to_store.dissect_to_store describes it.

    ``dataset``: None for what may be a generator, which draws its own; ``asked``: what finds the store again, to which
    this adds what the loaded network says of itself.
    """
    with join() as ranks:
        return _execute(request, dataset, asked, ranks)


def _execute(request: Request, dataset: ConceptDataset | None, asked: dict[str, Any], ranks: Ranks) -> Written | None:
    options, console, first = request.options, request.console, ranks.rank == 0
    shard = parse_shard(request.shard) if request.shard else None
    device = choose_device(options.device, torchrun.local_rank())
    network = request.load()
    if is_generator(options, network):
        samples = open_samples(options, network, request.as_generator(), device, console if first else Console())
        network, dataset, request.protocol = samples.generator.network, samples.dataset, samples.protocol
        asked |= asked_for(options, request.protocol, dataset)
    else:
        demand_no_latents(options, network)
        if dataset is None:
            dataset = open_named(options, console)
            asked |= asked_for(options, request.protocol, dataset)
        dataset = label_images(options, dataset, request.protocol, device, console if first else Console())
    if options.may_draw or not options.names_its_network:
        asked |= {"digest": network.digest, "code": network.origin.get("sha256"), "made": labels_made(dataset)}
        if there := request.existing(asked):
            return request.already(there)
        if first:
            request.confirm_output()
    layers = choose_layers(options, network, dataset, console.tell if first else None)
    path = request.output or Path(_store_name(network, dataset))
    needed = _check_output(request, path, layers, dataset, first=first)
    if first:
        for note in network.notes:
            console.note(note)
        what = f"{len(dataset)} images, {describe_layers(layers)}, on {device}"
        shared = f", {ranks.size} processes" if ranks.size > 1 else ""
        console.tell(f"{network.spec} on {dataset.name}: {what}{shared}{f', shard {shard}' if shard else ''}")
    settings, drift = _settled(request, network, dataset, layers, make_settings(options, device, console, ranks), ranks)
    names = [layer.name for layer in layers]
    key = identity(network, dataset, names, request.protocol, settings, maps_made(layers))
    key |= {"processes": ranks.size} | ({"shard": str(shard)} if shard else {})
    with _saving(request, path, key, needed, ranks, shard) as saved:
        if isinstance(dataset, MadeLabels):
            dataset.keep_in(saved.labels_file)
        execution = Execution(
            request=request,
            path=path,
            network=network,
            dataset=dataset,
            layers=layers,
            settings=settings,
            ranks=ranks,
            saved=saved,
            drift=drift,
            needed=needed,
            asked=asked,
        )
        if shard is not None:
            execution.run_shard(shard)
            return None
        if first:
            return execution.run()
        execution.run_beside()
        return None


def _store_name(network: Network, dataset: ConceptDataset) -> str:
    """``resnet18-broden1_224.nd.h5``; the demo network on the demo data is ``demo.nd.h5``."""
    data = "demo" if dataset.name.startswith("demo-") else dataset.name
    return safe_name(network.name if network.name == data else f"{network.name}-{data}", SUFFIX)


def _check_output(
    request: Request, path: Path, layers: Sequence[LayerInfo], dataset: ConceptDataset, *, first: bool
) -> int:
    """The bytes that the store will take, about; NDError where it cannot be written, or no reader would take it."""
    top = request.options.top
    units = [layer.units or 0 for layer in layers]
    sizes = [layer.map_size or (0, 0) for layer in layers]
    check_plan(
        layers=[layer.name for layer in layers],
        units=units,
        map_sizes=sizes,
        concepts=dataset.concepts,
        grid=request.protocol.grid or dataset.grid,
        top=top,
        images=dataset.names,
    )
    needed = estimated_size(units, sizes, len(dataset.concepts), top, len(dataset))
    if first:
        check_writable(path, needed)
        if request.output is None:  # else that was agreed on before the network was loaded
            request.confirm(path)
    return needed


@contextlib.contextmanager
def _saving(
    request: Request, path: Path, key: dict[str, Any], needed: int, ranks: Ranks, shard: Shard | None
) -> Iterator[SavedRun]:
    """What the run has counted, kept on the disk for as long as the block takes."""
    folder = shard.folder(path) if shard else saved_folder(path)
    saved = SavedRun(folder, key, ranks.rank, needed, target=path, command=request.console.goes_on)
    request.saved = saved
    if ranks.rank > 0:
        ranks.gather(None)  # the first process has the folder ready, and holds it
        yield saved
        return
    with saved.held(restart=request.restart):
        ranks.gather(None)
        yield saved


def _settled(
    request: Request,
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    settings: Settings,
    ranks: Ranks,
) -> tuple[Settings, list[Drift]]:
    """The settings to run with, and what departs from an exact run, which the first process measures and tells.

    ``--decode auto`` is settled here: JPEGs are decoded on the GPU if that is exact enough, for all processes alike.
    """
    console, gpu = request.console, None
    if request.options.decode == "auto":
        gpu = on_gpu(settings.device)
        settings = replace(settings, jpeg_on=gpu)
    departing = departures(settings, dataset)
    drift = measure_drift(network, dataset, layers, request.protocol, departing) if ranks.rank == 0 else []
    for d in drift:
        console.tell(str(d))
    if gpu is not None:
        exact = bool(ranks.gather(exact_enough(d for d in drift if d.decoder != THREADS))[0])
        settings = replace(settings, jpeg_on=gpu if exact else None)
        if ranks.rank == 0:
            console.tell(f"JPEGs are decoded on {gpu if exact else 'the CPU: the GPU changes too much'}")
    return settings, drift


def on_gpu(device: torch.device) -> torch.device | None:
    """Where a GPU decodes JPEGs, None where there is none, or no decoder for it."""
    return device if device.type == "cuda" and can_decode(device) else None


@dataclass(frozen=True)
class Execution:
    """A dissection with all that it takes, ready to be run: as a whole, as a shard, or beside other processes.

    ``path``: the store that it writes; ``drift``: what departs from an exact run; ``needed``: bytes that the store will
    take, about; ``asked``: what finds it again.
    """

    request: Request
    path: Path
    network: Network
    dataset: ConceptDataset
    layers: Sequence[LayerInfo]
    settings: Settings
    ranks: Ranks
    saved: SavedRun
    drift: Sequence[Drift]
    needed: int
    asked: dict[str, Any]

    @property
    def console(self) -> Console:
        """Who started it."""
        return self.request.console

    def run(self) -> Written:
        """The store, written."""
        names = [(layer.name, layer.units or 0) for layer in self.layers]
        with RunWriter(self.path, self.console.command, names, room=self.needed, note=self.console.note) as live:
            with self.console.progress() as shown, self.console.saving_first():
                progress = LiveProgress(shown, live)
                outcome = self._dissect(progress, self._publishing(live) if self.ranks.size == 1 else None)
            assert outcome.dissection is not None
            if isinstance(self.dataset, LabelledSamples):
                self.console.note(demand_labels(self.dataset, outcome.survey))
            progress.busy("writing")
            live.make_room()
            since = time.perf_counter()
            try:
                write_store(self.path, replace(outcome.dissection, provenance=self._record(outcome)))
            except NDError as e:
                if self.saved.phases():
                    e.hint += "; what was counted is saved: the same command goes on"
                raise
            outcome.seconds["write"] = round(time.perf_counter() - since, 3)
        self.saved.remove()
        self._tell_end(self.path, outcome)
        return Written(self.path)

    def run_beside(self) -> None:
        """The part of a process that is not the first of several."""
        with self.console.saving_first():
            self._dissect(Progress(), None)

    def _dissect(self, progress: Progress, publish: Publish | None) -> Outcome:
        return dissect(
            self.network,
            self.dataset,
            self.layers,
            self.request.protocol,
            self.settings,
            progress,
            publish,
            saved=self.saved,
            ranks=self.ranks,
        )

    def run_shard(self, shard: Shard) -> None:
        """One part of the images, left for ``nd merge``; nothing where it is whole already."""

        def record(outcome: Outcome, geometries: Sequence[LayerGeometry]) -> dict[str, Any]:
            return {
                "places": geometries_json(geometries),
                "top": self.settings.top,
                "null": self.settings.null,
                "provenance": self._record(outcome),
            }

        if self.saved.whole():
            self.console.tell(f"{self.saved.folder} is whole already; nd merge puts the shards together")
            return
        with self.console.progress() as progress, self.console.saving_first():
            outcome = gather_part(
                self.network,
                self.dataset,
                self.layers,
                self.request.protocol,
                self.settings,
                progress,
                saved=self.saved,
                part=shard.part(len(self.dataset)),
                record=record,
            )
        self._tell_end(self.saved.folder, outcome)
        self.console.tell(f"when all are there: nd merge {quoted(self.path)}")

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        """Where the numbers come from."""
        record = provenance(
            self.network, self.dataset, self.layers, outcome, self.settings, self.console.command, self.request.started
        )
        record["run"] |= {"elapsed": round(outcome.before + time.time() - self.request.started, 3)}
        record["run"] |= {"processes": self.ranks.size, "drift": [d.to_json() for d in self.drift]}
        record["data"] |= {"format": self.request.options.format}
        if isinstance(self.dataset, LabelledSamples):
            record |= {"generator": self.dataset.record}
        return record | {"asked": self.asked, "options": options_json(self.request.options)}

    def _publishing(self, live: RunWriter) -> Publish:
        """Shows results so far with what a title needs of their origin; the rest of it is known at the end."""
        network, dataset = self.network, self.dataset
        origin = {
            "command": self.console.command,
            "network": {"spec": network.spec, "name": network.name},
            "data": {
                "name": dataset.name,
                "path": str(dataset.root),
                "images": len(dataset),
                **origin_of_labels(dataset),
            },
        }

        def publish(dissection: Dissection, images: int) -> None:
            live.publish(replace(dissection, provenance={**origin, **dissection.provenance}), images)

        return publish

    def _tell_end(self, path: Path, outcome: Outcome) -> None:
        """Where the time went, and what it took."""
        tell = self.console.tell
        size = sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
        whole = outcome.before + time.time() - self.request.started
        parts = ", ".join(f"{what} {s:.1f} s" for what, s in outcome.seconds.items() if s >= _SHOWN)
        tell(f"{path} ({human_bytes(size)}) in {whole:.1f} s" + (f": {parts}" if parts else ""))
        peak = high_water(self.settings.device)
        gpu = f", {human_bytes(peak.gpu)} on the GPU" if peak.gpu else ""
        passes = f"{outcome.passes:.3g} forward pass{'es' * (outcome.passes != 1)}"
        tell(f"{outcome.survey.images} images, {passes}, at most {human_bytes(peak.host)} of memory{gpu}")
        for name, why in outcome.survey.skipped:
            tell(f"skipped {name}: {why}")
