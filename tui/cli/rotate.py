"""``nd rotate``: is it the units that mean something, or any direction? A layer dissected in rotated bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import WrongUse
from ndissect.store.names import quoted
from ndissect.tui.cli.dissect import loading
from ndissect.tui.cli.network_options import (
    AnywayOption,
    BatchOption,
    DataOption,
    DeviceOption,
    MaxWeightsOption,
    MeanOption,
    MinImagesOption,
    NetworkArgument,
    PartialOption,
    ProtocolOption,
    QuantileOption,
    SizeOption,
    SkipBadOption,
    StdOption,
    WeightsOption,
    WorkersOption,
)
from ndissect.tui.cli.options import ForceOption, JsonOption, MaxPixelsOption

if TYPE_CHECKING:
    from ndissect.engine.experiments.rotate import Rotated
    from ndissect.engine.networks.layers import LayerInfo
    from ndissect.engine.networks.resolve import Network
    from ndissect.store.protocol import Protocol
    from ndissect.tui.tables.rotated import AtAlpha

# More bases would be a slip of the step.
_MOST_ALPHAS = 1000


def rotate(
    network: NetworkArgument = "demo",
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="One layer. Default: the last that nd dissect would take.")
    ] = None,
    data: DataOption = None,
    alphas: Annotated[str, typer.Option(help="START:STOP:STEP, or a list such as 0,0.5,1; all in [0, 1].")] = "0:1:0.1",
    seeds: Annotated[int, typer.Option(min=1, help="Random rotations.")] = 3,
    images: Annotated[int | None, typer.Option(min=1, help="So many images, spread evenly. Default: all.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw unique detectors against alpha: FILE.png or FILE.svg.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a CSV file with a line for each basis.")
    ] = None,
    force: ForceOption = False,
    protocol: ProtocolOption = "netdissect",
    quantile: QuantileOption = None,
    min_images: MinImagesOption = 0,
    weights: WeightsOption = None,
    partial: PartialOption = False,
    anyway: AnywayOption = False,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE[,GPU]", help="For activations and counts: 8GB. Default: half of what is free."),
    ] = None,
    batch_size: BatchOption = 0,
    workers: WorkersOption = 0,
    skip_bad: SkipBadOption = False,
    max_pixels: MaxPixelsOption = None,
    max_weights: MaxWeightsOption = None,
    json: JsonOption = False,
) -> None:
    """Dissect a layer in bases Q^alpha between its own (0) and random ones (1): do concepts lie along units?

    The activations are computed once. Unique detectors that fall as alpha grows say that the units themselves are
    special; the rotated network predicts the same, which is checked.
    """
    from ndissect.store.files import check_writable
    from ndissect.store.protocol import make_protocol
    from ndissect.tui.cli.output import confirm_replace, tell

    chosen_alphas = parse_alphas(alphas)
    chosen = make_protocol(protocol, q=quantile, min_images=min_images)
    load = loading(network, weights, partial, size, mean, std, max_weights)
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
    if output is not None:
        check_writable(output, 0)
        confirm_replace(output, force)

    from ndissect.engine.data.subset import spread
    from ndissect.engine.experiments.rotate import rotate as dissect_rotated
    from ndissect.engine.machine.device import choose_device
    from ndissect.engine.machine.memory import budget
    from ndissect.engine.run.settings import Settings
    from ndissect.tui.cli.progress import show_progress
    from ndissect.tui.cli.running import image_size, open_dataset

    dataset = open_dataset(data, max_pixels)
    if images is not None:
        dataset = spread(dataset, images)
    on = choose_device(device)
    loaded = load()
    info = _the_layer(loaded, layer, image_size(dataset))
    for note in loaded.notes:
        tell(f"note: {note}")
    bases = sum(1 if a == 0 else seeds for a in chosen_alphas)
    tell(f"{loaded.spec} on {dataset.name}: {len(dataset)} images, {info.name}, {info.units} units, {bases} bases")
    settings = Settings(
        on,
        batch_size,
        workers,
        skip_bad=skip_bad,
        memory=budget(memory, on),
        anyway=anyway,
    )
    with show_progress() as progress:
        found = dissect_rotated(
            loaded, dataset, info, chosen, settings, progress, alphas=chosen_alphas, seeds=seeds
        )  # fmt: skip
    for name, why in found.skipped:
        tell(f"skipped {name}: {why}")
    header = _header(chosen, found, seeds)
    if output is not None:
        _write_csv(output, found, f"{loaded.spec} {found.layer} on {dataset.name}; {header}")
    if plot is not None:
        _draw(plot, found, f"{loaded.name} {found.layer} on {dataset.name}", header)
    _tell_found(found, loaded.spec, chosen, header, json)


def parse_alphas(text: str) -> list[float]:
    """The alphas that ``START:STOP:STEP`` or a list means, rising, each once; WrongUse for what is none in [0, 1]."""
    wrong = WrongUse(f"--alphas '{text}' means no alphas", "write START:STOP:STEP such as 0:1:0.1, or a list: 0,0.5,1")
    try:
        numbers = [float(part) for part in text.replace(":", ",").split(",")]
    except ValueError:
        raise wrong from None
    if ":" in text:
        if len(numbers) != 3 or "," in text or not (numbers[2] > 0 and numbers[1] >= numbers[0]):
            raise wrong
        start, stop, step = numbers
        if (stop - start) / step > _MOST_ALPHAS:
            raise WrongUse(f"--alphas '{text}' means more than {_MOST_ALPHAS} alphas", "take a larger step")
        # The end belongs to it, though rounding may have carried the last step a little beyond.
        numbers = [round(start + k * step, 10) for k in range(int((stop - start) / step + 1e-6) + 1)]
    outside = [a for a in numbers if not 0 <= a <= 1]
    if outside:
        raise WrongUse(
            f"--alphas '{text}': {outside[0]:g} is not in [0, 1]", "0 is the layer's own basis, 1 a random one"
        )
    return sorted(set(numbers))


def _the_layer(network: Network, pattern: str | None, size: tuple[int, int]) -> LayerInfo:
    from ndissect.engine.networks.layers import default_layers, list_layers, match_layers

    infos = list_layers(network, size)
    names = match_layers([pattern], infos) if pattern else default_layers(infos)[-1:]
    if len(names) != 1:
        listed = ", ".join(names[:6]) + " ..." * (len(names) > 6)
        raise WrongUse(
            f"one layer is rotated, '{pattern}' means {len(names)}: {listed}", f"name one: -l {quoted(names[-1])}"
        )
    return next(info for info in infos if info.name == names[0])


def _header(protocol: Protocol, found: Rotated, seeds: int) -> str:
    from ndissect.store.scores import DETECTOR_IOU
    from ndissect.tui.tables.remarks import mark_lines, protocol_line

    against = f"detectors: IoU > {DETECTOR_IOU}; no null; nothing held out"
    of = f"{found.images} images, {seeds} random rotation{'s' * (seeds > 1)}"
    return "; ".join([*mark_lines(found.marks), protocol_line(protocol), against, of])


def _tell_found(found: Rotated, spec: str, protocol: Protocol, header: str, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table
    from ndissect.tui.tables.remarks import UNIQUE
    from ndissect.tui.tables.rotated import BEST_LABEL, DETECTORS, PER_CATEGORY, at_alphas, basis_json

    rows = at_alphas(found.found)
    if json:
        value = {
            "network": spec,
            "layer": found.layer,
            "units": found.units,
            "images": found.images,
            "protocol": protocol.to_json(),
            "header": header,
            "marks": marks_json(found.marks),
            "bases": [basis_json(f) for f in found.found],
            "alphas": [asdict(row) for row in rows],
            "check": None if found.check is None else asdict(found.check),
        }
        print_json(value)
        return
    columns = [
        PrintedColumn("alpha", lambda a: f"{a:g}"),
        PrintedColumn("seeds", right=True),
        *(
            PrintedColumn(title, lambda x: f"{x:.1f}", right=True)
            for title in ("detectors", "unique/cat", "±cat", "unique/best", "±best", *rows[0].by_category)
        ),
    ]
    lines = [_line(row, DETECTORS, PER_CATEGORY, BEST_LABEL) for row in rows]
    checked = f"check: {found.layer} {found.check}" if found.check else "check: none, the network gives no scores"
    notes = [f"means over seeds, ±: their standard deviation; {UNIQUE}", header, checked]
    title = f"{spec} {found.layer}, {found.units} units"
    print_table(PrintedTable(columns, lines, title=title, notes=notes), notes_in_logs=True)


def _line(row: AtAlpha, detectors: str, per_category: str, best_label: str) -> list[float]:
    both: Sequence[float] = [x for name in (per_category, best_label) for x in asdict(row.counts[name]).values()]
    categories = [spread.mean for spread in row.by_category.values()]
    return [row.alpha, row.seeds, row.counts[detectors].mean, *both, *categories]


def _write_csv(path: Path, found: Rotated, header: str) -> None:
    import csv

    from ndissect.store.files import atomic
    from ndissect.tui.tables.rotated import basis_json

    rows = [basis_json(f) for f in found.found]
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {header}\n")
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(path: Path, found: Rotated, title: str, header: str) -> None:
    from ndissect.tui.pictures import figures
    from ndissect.tui.pictures.rotation_plot import draw
    from ndissect.tui.tables.rotated import at_alphas

    rows = at_alphas(found.found)
    figures.save(path, lambda figure: draw(figure, rows, f"{title}, {found.units} units", header))
