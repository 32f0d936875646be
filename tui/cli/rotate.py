"""``nd rotate``: is it the units that mean something, or any direction? A layer dissected in rotated bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import ForceOption, JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.engine.experiments.rotate import Rotated
    from ndissect.store.protocol import Protocol
    from ndissect.tui.tables.rotated import AtAlpha

# More bases would be a slip of the step.
_MOST_ALPHAS = 1000


@takes_options(
    without="classes layers all_convs quantile_over upsampling grid union maps precision decode top null",
    first="network layer data alphas seeds images plot output force",
    texts={"memory": "For activations and counts: 8GB. Default: half of what is free."},
)
def rotate(
    options: Options,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="One layer. Default: the last that nd dissect would take.")
    ] = None,
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
    json: JsonOption = False,
) -> None:
    """Dissect a layer in bases Q^alpha between its own (0) and random ones (1): do concepts lie along units?

    The activations are computed once. Unique detectors that fall as alpha grows say that the units themselves are
    special; the rotated network predicts the same, which is checked.
    """
    from ndissect.engine.run.network_loader import network_loader
    from ndissect.store.files import check_writable
    from ndissect.tui.cli.output import confirm_replace

    chosen_alphas = parse_alphas(alphas)
    protocol = options.make_protocol()
    network_loader(options)  # a slip is told before a person is asked, and before torch takes seconds to import
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)
    if output is not None:
        check_writable(output, 0)
        confirm_replace(output, force)

    from ndissect.engine.experiments.from_options import rotate_layer
    from ndissect.tui.cli.console import TerminalConsole

    options = replace(options, layers=(layer,) if layer else ())
    result = rotate_layer(options, chosen_alphas, TerminalConsole(), seeds=seeds, images=images)
    rotated = result.rotated
    header = _header(protocol, rotated, seeds)
    if output is not None:
        _write_csv(output, rotated, f"{result.network} {rotated.layer} on {result.data}; {header}")
    if plot is not None:
        _draw(plot, rotated, f"{result.name} {rotated.layer} on {result.data}", header)
    _print(rotated, result.network, protocol, header, json)


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


def _header(protocol: Protocol, rotated: Rotated, seeds: int) -> str:
    from ndissect.store.scores import DETECTOR_IOU
    from ndissect.tui.tables.remarks import mark_lines, protocol_line

    against = f"detectors: IoU > {DETECTOR_IOU}; no null; nothing held out"
    of = f"{rotated.images} images, {seeds} random rotation{'s' * (seeds > 1)}"
    return "; ".join([*mark_lines(rotated.marks), protocol_line(protocol), against, of])


def _print(rotated: Rotated, spec: str, protocol: Protocol, header: str, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table
    from ndissect.tui.tables.remarks import UNIQUE
    from ndissect.tui.tables.rotated import BEST_LABEL, DETECTORS, PER_CATEGORY, at_alphas, basis_json

    rows = at_alphas(rotated.bases)
    if json:
        value = {
            "network": spec,
            "layer": rotated.layer,
            "units": rotated.units,
            "images": rotated.images,
            "protocol": protocol.to_json(),
            "header": header,
            "marks": marks_json(rotated.marks),
            "bases": [basis_json(f) for f in rotated.bases],
            "alphas": [asdict(row) for row in rows],
            "check": None if rotated.check is None else asdict(rotated.check),
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
    checked = f"check: {rotated.layer} {rotated.check}" if rotated.check else "check: none, the network gives no scores"
    notes = [f"means over seeds, ±: their standard deviation; {UNIQUE}", header, checked]
    title = f"{spec} {rotated.layer}, {rotated.units} units"
    print_table(PrintedTable(columns, lines, title=title, notes=notes), notes_in_logs=True)


def _line(row: AtAlpha, detectors: str, per_category: str, best_label: str) -> list[float]:
    both: Sequence[float] = [x for name in (per_category, best_label) for x in asdict(row.counts[name]).values()]
    categories = [spread.mean for spread in row.by_category.values()]
    return [row.alpha, row.seeds, row.counts[detectors].mean, *both, *categories]


def _write_csv(path: Path, rotated: Rotated, header: str) -> None:
    import csv

    from ndissect.store.files import atomic
    from ndissect.tui.tables.rotated import basis_json

    rows = [basis_json(f) for f in rotated.bases]
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {header}\n")
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(path: Path, rotated: Rotated, title: str, header: str) -> None:
    from ndissect.tui.pictures import figures
    from ndissect.tui.pictures.rotation_plot import draw
    from ndissect.tui.tables.rotated import at_alphas

    rows = at_alphas(rotated.bases)
    figures.save(path, lambda figure: draw(figure, rows, f"{title}, {rotated.units} units", header))
