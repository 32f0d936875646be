"""One ``nd dissect``, from the request to the summary: check first, count, write, say what comes next."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import SUFFIX, check_writable, find_store, human_bytes
from ndissect.store.protocol import Protocol
from ndissect.tui.cli import output
from ndissect.tui.cli.output import Table, tell

if TYPE_CHECKING:
    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.engine.dissect import Publish
    from ndissect.engine.layers import LayerInfo
    from ndissect.engine.networks.resolve import Network
    from ndissect.store.live import RunWriter
    from ndissect.store.model import Dissection


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    network: str
    layers: tuple[str, ...]
    all_convs: bool
    data: str | None
    output: Path | None
    force: bool
    device: str
    batch: int
    workers: int
    top: int
    skip_bad: bool


class Stopped(NDError):
    """A run ended from outside: by Ctrl-C, or by a signal as batch systems send it when the time is up."""

    def __init__(self, by: signal.Signals) -> None:
        how = "" if by == signal.SIGINT else f" by {by.name}"
        super().__init__(f"stopped{how}; nothing was written", f"start again: {command()}")
        self.exit_code = 128 + by


class _Signalled(KeyboardInterrupt):
    """Another signal than Ctrl-C, taken in the same way: whatever is being written is taken back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def dissect(request: Request, protocol: Protocol, load: Callable[[], Network], json: bool) -> None:
    """Run the request and print its summary; Stopped after Ctrl-C or SIGTERM, which leave no file behind."""
    try:
        with _signals():
            path = _dissect(request, protocol, load)
    except _Signalled as e:
        raise Stopped(e.signal) from None
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT) from None
    _summary(path, json)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a lost connection, end the block with _Signalled; one that is ignored (nohup) stays so."""

    def stop(number: int, frame: object) -> None:
        raise _Signalled(number)

    taken = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) == signal.SIG_DFL]
    for s in taken:
        signal.signal(s, stop)
    try:
        yield
    finally:
        for s in taken:
            signal.signal(s, signal.SIG_DFL)


def command() -> str:
    """The command line as it was typed, ready to be typed again."""
    return shlex.join(["nd", *sys.argv[1:]])


def _dissect(request: Request, protocol: Protocol, load: Callable[[], Network]) -> Path:
    started = time.time()
    if request.output is not None:  # what can be refused at once is refused before torch is imported
        check_writable(request.output, 0)
        output.confirm_replace(request.output, request.force)
    dataset = _dataset(request.data)
    from ndissect.engine.device import choose_device
    from ndissect.engine.dissect import Settings, dissect
    from ndissect.engine.layers import list_layers
    from ndissect.engine.provenance import provenance
    from ndissect.store.live import RunWriter
    from ndissect.store.writer import write_store
    from ndissect.tui.cli.progress import LiveProgress, show_progress

    device = choose_device(request.device)
    network = load()
    for note in network.notes:
        tell(f"note: {note}")
    layers = _choose(request, list_layers(network, _image_size(dataset)))
    path = request.output or Path(_store_name(network, dataset))
    needed = _check_output(path, request, layers, dataset)
    tell(f"{network.spec} on {dataset.name}: {len(dataset)} images, {_layer_list(layers)}, on {device}")
    settings = Settings(device, request.batch, request.workers, request.top, request.skip_bad)
    names = [(layer.name, layer.units or 0) for layer in layers]
    with RunWriter(path, command(), names, room=needed, note=lambda text: tell(f"note: {text}")) as live:
        with show_progress() as shown:
            progress = LiveProgress(shown, live)
            publish = _publishing(live, network, dataset)
            outcome = dissect(network, dataset, layers, protocol, settings, progress, publish)
        progress.busy("writing")
        live.make_room()
        record = provenance(network, dataset, outcome, device, command(), started)
        write_store(path, replace(outcome.dissection, provenance=record))
    seconds = ", ".join(f"{phase} {s:.1f} s" for phase, s in outcome.seconds.items())
    tell(f"{path} ({human_bytes(path.stat().st_size)}) in {time.time() - started:.1f} s: {seconds}")
    for name, why in outcome.survey.skipped:
        tell(f"skipped {name}: {why}")
    return path


def _publishing(live: RunWriter, network: Network, dataset: ConceptDataset) -> Publish:
    """Shows results so far with what a title needs of their origin; the rest of it is known at the end."""
    origin = {
        "command": command(),
        "network": {"spec": network.spec, "name": network.name},
        "data": {"name": dataset.name, "path": str(dataset.root), "images": len(dataset)},
    }

    def publish(dissection: Dissection, images: int) -> None:
        live.publish(replace(dissection, provenance={**origin, **dissection.provenance}), images)

    return publish


def _store_name(network: Network, dataset: ConceptDataset) -> str:
    """``resnet18-broden1_224.nd.h5``; the demo network on the demo data is ``demo.nd.h5``."""
    data = "demo" if dataset.name.startswith("demo-") else dataset.name
    return f"{network.name}{SUFFIX}" if network.name == data else f"{network.name}-{data}{SUFFIX}"


def _dataset(name: str | None) -> ConceptDataset:
    from ndissect.engine.data.broden import find_dataset
    from ndissect.engine.data.packed import open_data

    if name is not None and (name != "demo" or Path(name).is_dir()):
        return open_data(find_dataset(name), note=lambda text: tell(f"note: {text}"))
    from ndissect.engine.demo import scenes
    from ndissect.tui.cli.progress import show_progress

    with show_progress() as progress:
        folder = scenes.ensure(progress=progress.step("making the demo's images"))
    return open_data(folder, note=lambda text: tell(f"note: {text}"))


def _choose(request: Request, infos: list[LayerInfo]) -> list[LayerInfo]:
    from ndissect.engine.layers import default_layers, match_layers

    named = request.layers or request.all_convs
    names = match_layers(request.layers, infos, request.all_convs) if named else default_layers(infos)
    return [info for info in infos if info.name in set(names)]


def _image_size(dataset: ConceptDataset) -> tuple[int, int]:
    """The size of the first image that can be read; what is wrong with those before it, the reading tells later."""
    for index in range(min(len(dataset), 100)):
        with contextlib.suppress(NDError):
            height, width = dataset.read(index).image.shape[:2]
            return height, width
    return 224, 224


def _check_output(
    path: Path,
    request: Request,
    layers: Sequence[LayerInfo],
    dataset: ConceptDataset,
) -> int:
    """The bytes that the store will take, about; NDError where it cannot be written."""
    from ndissect.store.writer import estimated_size

    units = [layer.units or 0 for layer in layers]
    sizes = [layer.map_size or (0, 0) for layer in layers]
    needed = estimated_size(units, sizes, len(dataset.concepts), request.top, len(dataset))
    check_writable(path, needed)
    if request.output is None:
        output.confirm_replace(path, request.force)
    return needed


def _layer_list(layers: Sequence[LayerInfo]) -> str:
    if not layers:
        raise WrongUse("no layer was chosen", "nd layers NETWORK lists them")
    names = [layer.name for layer in layers]
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({listed}), {sum(x.units or 0 for x in layers)} units"


def _summary(path: Path, json: bool) -> None:
    from ndissect.store.concepts import report_order
    from ndissect.store.reader import Store
    from ndissect.tui.cli.look import layers_json, layers_table
    from ndissect.tui.views import UNIQUE, UNITS_FROM_0, best_unit, cautions, protocol_line

    with Store(find_store(path)) as store:
        views = [store.layer(name) for name in store.layer_names]
        if json:
            output.print_json(layers_json(store, views))
            return
        columns, rows = layers_table(views, report_order(store.concepts.categories))
        last = views[-1]
        notes = [
            UNIQUE,
            f"{UNITS_FROM_0}; {protocol_line(store.protocol)}",
            *cautions(views),
            f"next: nd inspect {last.name}    nd overlay {last.name}:{best_unit(last)[0] or 0}",
        ]
        output.print_table(Table(columns, rows, notes=notes))
        if not output.on_terminal():  # tables in pipes have no notes, but what comes next belongs in every log
            for note in notes:
                tell(note)
