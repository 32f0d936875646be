"""One ``nd dissect``, from the request to the summary: check first, count, write, say what comes next."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import SUFFIX, check_writable, find_store, human_bytes
from ndissect.store.protocol import Protocol
from ndissect.tui.cli import output
from ndissect.tui.cli.output import Column, Table, tell

if TYPE_CHECKING:
    from ndissect.engine.data.dataset import ConceptDataset
    from ndissect.engine.layers import LayerInfo
    from ndissect.engine.networks.resolve import Network


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
    """Ctrl-C during a run."""

    exit_code = 130


def dissect(request: Request, protocol: Protocol, load: Callable[[], Network], json: bool) -> None:
    """Run the request and print its summary; Stopped after Ctrl-C, which leaves no file behind."""
    try:
        path = _dissect(request, protocol, load)
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was written", f"start again: {command()}") from None
    _summary(path, json)


def command() -> str:
    """The command line as it was typed, ready to be typed again."""
    return shlex.join(["nd", *sys.argv[1:]])


def _dissect(request: Request, protocol: Protocol, load: Callable[[], Network]) -> Path:
    from ndissect.engine.device import choose_device
    from ndissect.engine.dissect import Settings, dissect, with_provenance
    from ndissect.engine.layers import default_layers, list_layers, match_layers
    from ndissect.engine.provenance import provenance
    from ndissect.store.writer import estimated_size, write_store
    from ndissect.tui.cli.progress import show_progress

    started = time.time()
    if request.output is not None:  # what can be refused at once is refused before torch loads a network
        check_writable(request.output, 0)
        output.confirm_replace(request.output, request.force)
    device = choose_device(request.device)
    with show_progress() as progress:
        dataset = _dataset(request.data, progress)
        network = load()
        for note in network.notes:
            tell(f"note: {note}")
        first = dataset.read(0) if len(dataset) else None
        infos = list_layers(network, first.image.shape[:2] if first else (224, 224))
        names = (
            match_layers(request.layers, infos, request.all_convs)
            if request.layers or request.all_convs
            else default_layers(infos)
        )
        chosen = [info for info in infos if info.name in set(names)]
        path = request.output or Path(f"{network.name}-{dataset.name}{SUFFIX}")
        _check_output(path, request, chosen, dataset, estimated_size)
        settings = Settings(device, request.batch, request.workers, request.top, request.skip_bad)
        tell(f"{network.spec} on {dataset.name}: {len(dataset)} images, {_layer_list(chosen)}, on {device}")
        outcome = dissect(network, dataset, chosen, protocol, settings, progress)
    record = provenance(network, dataset, outcome, device, command(), started)
    write_store(path, with_provenance(outcome.dissection, record))
    seconds = ", ".join(f"{phase} {s:.1f} s" for phase, s in outcome.seconds.items())
    tell(f"{path} ({human_bytes(path.stat().st_size)}) in {time.time() - started:.1f} s: {seconds}")
    for name, why in outcome.survey.skipped:
        tell(f"skipped {name}: {why}")
    return path


def _dataset(name: str | None, progress: Any) -> ConceptDataset:
    from ndissect.engine.data.broden import find_dataset, open_dataset

    if name is not None and name != "demo":
        return open_dataset(find_dataset(name))
    from ndissect.engine.demo import scenes

    return open_dataset(scenes.ensure(progress=progress.step("making the demo's images")))


def _check_output(
    path: Path,
    request: Request,
    layers: Sequence[LayerInfo],
    dataset: ConceptDataset,
    estimated_size: Callable[..., int],
) -> None:
    units = [layer.units or 0 for layer in layers]
    sizes = [layer.map_size or (0, 0) for layer in layers]
    check_writable(path, estimated_size(units, sizes, len(dataset.concepts), request.top, len(dataset)))
    if request.output is None:
        output.confirm_replace(path, request.force)


def _layer_list(layers: Sequence[LayerInfo]) -> str:
    if not layers:
        raise WrongUse("no layer was chosen", "nd layers NETWORK lists them")
    names = [layer.name for layer in layers]
    listed = ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({listed}), {sum(x.units or 0 for x in layers)} units"


def _summary(path: Path, json: bool) -> None:
    from ndissect.store.concepts import report_order
    from ndissect.store.reader import Store
    from ndissect.tui.views import best_unit, protocol_line, summary_lines

    with Store(find_store(path)) as store:
        views = [store.layer(name) for name in store.layer_names]
        if json:
            value = [{"layer": v.name, "summary": v.summary()} for v in views]
            output.print_json({"store": str(path), "protocol": store.protocol.to_json(), "layers": value})
            return
        categories = report_order(store.concepts.categories)
        columns = [
            Column("layer"),
            Column("units", right=True),
            Column("detectors", right=True),
            Column("unique", right=True),
            *(Column(c, output.count, right=True) for c in categories),
            Column("best unit"),
        ]
        rows = []
        for view in views:
            s = view.summary()
            u, label, value_ = best_unit(view)
            best = "-" if u is None else f"{u} {label} {value_:.2f}"
            by = [s["by_category"][c] for c in categories]
            rows.append([view.name, s["units"], s["detectors"], s["unique_per_category"], *by, best])
        notes = [protocol_line(store.protocol)]
        notes += summary_lines(views[-1])[2:]
        last = views[-1].name
        notes.append(f"next: nd inspect {last}    nd overlay {last}:{best_unit(views[-1])[0] or 0}")
        output.print_table(Table(columns, rows, notes=notes))
