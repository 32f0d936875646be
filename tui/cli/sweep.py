"""``nd sweep``: what the threshold does to labels. Several quantiles and IoUs from one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.tui.cli.output import PrintedTable
    from ndissect.tui.tables.swept import SweptLayer

_Number = TypeVar("_Number", Fraction, float)

# Moves between categories that are named; --json has them all.
_MOVES = 5


@takes_options(
    without="classes quantile precision decode top null", first="network layers all_convs data quantiles ious plot"
)
def sweep(
    options: Options,
    quantiles: Annotated[
        str, typer.Option(help="Shares of activations above the threshold, in any order: 0.005,5/999.")
    ] = "0.001,0.002,0.005,0.01,0.02,0.05",
    ious: Annotated[str, typer.Option(help="IoUs that a detector must exceed.")] = "0.02,0.04,0.08,0.12,0.16,0.2",
    plot: Annotated[
        Path | None, typer.Option(help="Draw unique detectors and coverage against q: FILE.png or FILE.svg.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """How labels depend on the threshold: several quantiles and IoUs from one forward pass, each exactly.

    A loose threshold gives generic labels, a strict one specific ones. Where --memory does not hold what may fire, a
    second pass counts the rest. Nothing is written but the plot, and Ctrl-C loses what was counted.
    """
    from ndissect.engine.run.network_loader import network_loader

    shares, limits = parse_quantiles(quantiles), parse_ious(ious)
    options.make_protocol()
    network_loader(options)  # a slip is told before torch takes seconds to import
    if plot is not None:
        from ndissect.tui.pictures.figures import check_plot

        check_plot(plot)

    from ndissect.engine.experiments.from_options import sweep_quantiles
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.remarks import mark_lines, protocol_line
    from ndissect.tui.tables.swept import summed_up

    result = sweep_quantiles(options, shares, TerminalConsole())
    dissections, survey, marks = result.sweep.dissections, result.sweep.survey, result.sweep.marks
    swept, what = summed_up(dissections, limits), f"{result.network} on {result.data}"
    protocol_said = f"{protocol_line(dissections[0].protocol)}, and likewise the other q's"
    counted = f"{survey.images} images"
    header = "; ".join([*mark_lines(marks), protocol_said, "no null", "nothing held out", counted])
    if plot is not None:
        _draw(plot, swept, what, header)
    if json:
        from ndissect.store.marks import marks_json
        from ndissect.store.scores import DETECTOR_IOU
        from ndissect.tui.cli.output import print_json

        print_json(
            {
                "network": result.network,
                "data": result.data,
                "images": survey.images,
                "passes": result.sweep.passes,
                "marks": marks_json(marks),
                "header": header,
                "threshold": DETECTOR_IOU,
                "protocols": [d.protocol.to_json() for d in dissections],
                "layers": [layer.to_json() for layer in swept],
            }
        )
        return
    _print(swept, what, header)


def parse_quantiles(text: str) -> list[Fraction]:
    """The shares of ``text``, the loosest first; WrongUse for what is no share, and for the same one twice."""
    from ndissect.store.protocol import parse_share

    return _distinct([parse_share(part.strip(), "--quantiles") for part in text.split(",")], "--quantiles")[::-1]


def parse_ious(text: str) -> list[float]:
    """The IoUs of ``text``, rising; WrongUse for what does not lie between 0 and 1, and for the same one twice."""
    ious = []
    for part in text.split(","):
        try:
            ious.append(float(part))
        except ValueError:
            ious.append(0.0)
        if not 0 < ious[-1] < 1:
            raise WrongUse(f"--ious '{part.strip()}' is no IoU between 0 and 1", "for example 0.02,0.04,0.08")
    return _distinct(ious, "--ious")


def _distinct(values: list[_Number], option: str) -> list[_Number]:
    twice = next((x for x in values if values.count(x) > 1), None)
    if twice is not None:
        raise WrongUse(f"{option} names {float(twice):g} twice", "name each once")
    return sorted(values)


def _draw(path: Path, layers: Sequence[SweptLayer], what: str, header: str) -> None:
    from ndissect.tui.pictures import figures
    from ndissect.tui.pictures.sweep_plot import draw

    figures.save(path, lambda figure: draw(figure, layers, what, header), (9.0, 3.4 * len(layers) + 0.6))


def _print(layers: Sequence[SweptLayer], what: str, header: str) -> None:
    from ndissect.tui.cli.output import emit, on_terminal, print_table, tell

    notes = [*_EXPLAINED, header]
    if not on_terminal():
        print_table(_every_count(layers))
        for layer in layers:
            tell(f"{layer.name}: {_moves_line(layer)}")
        for note in notes:
            tell(note)
        return
    for layer in layers:
        print_table(_by_iou(layer, what))
        emit("\n")
        print_table(_by_category(layer, notes if layer is layers[-1] else [""]))


_EXPLAINED = (
    "detectors/unique per category/unique by best label: distinct winners of each category with that IoU, added up; "
    "distinct labels with that IoU",
    "coverage: share of labelled pixels that the median detector's label covers; changed: of the units that are "
    "detectors here and at the q before, those with another label",
)


def _by_iou(layer: SweptLayer, what: str) -> PrintedTable:
    """Detectors and both counts of unique detectors, for reading: q by IoU."""
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable

    columns = [PrintedColumn("q", lambda q: f"{q:g}")]
    columns += [PrintedColumn(f"IoU > {at.iou:g}", right=True) for at in layer.levels[0].at]
    rows = [
        [level.q, *(f"{a.detectors}/{a.unique_per_category}/{a.unique_best_label}" for a in level.at)]
        for level in layer.levels
    ]
    title = f"{what}, {layer.name}, {layer.units} units: detectors/unique per category/unique by best label"
    return PrintedTable(columns, rows, title=title)


def _by_category(layer: SweptLayer, notes: Sequence[str]) -> PrintedTable:
    """Detectors by category at the usual IoU, coverage, and changes, for reading."""
    from ndissect.store.scores import DETECTOR_IOU
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, count

    categories = list(layer.levels[0].by_category)
    columns = [PrintedColumn("q", lambda q: f"{q:g}")]
    columns += [PrintedColumn(c, count, right=True) for c in categories]
    columns += [PrintedColumn("coverage", _percent, right=True), PrintedColumn("changed", right=True)]
    changed = [None, *(f"{c.changed} of {c.both}" for c in layer.changes)]
    rows = [
        [level.q, *level.by_category.values(), level.coverage, change]
        for level, change in zip(layer.levels, changed, strict=True)
    ]
    title = f"{layer.name}: detectors by the category of their label, IoU > {DETECTOR_IOU}"
    return PrintedTable(columns, rows, title=title, notes=[_moves_line(layer), *notes])


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2g} %"


def _moves_line(layer: SweptLayer) -> str:
    """The most frequent moves between categories, from the loosest quantile to the strictest."""
    moves = [f"{m.start} -> {m.end or 'none'} {m.units}" for m in layer.moves[:_MOVES]]
    more = f", and {len(layer.moves) - _MOVES} kinds more" if len(layer.moves) > _MOVES else ""
    first, last = layer.levels[0], layer.levels[-1]
    moved = sum(m.units for m in layer.moves)
    return (
        f"of {sum(first.by_category.values())} detectors at q {first.q:g}, {moved} have at q {last.q:g} a label of "
        f"another category, or none: {', '.join(moves) or 'no move'}{more}"
    )


def _every_count(layers: Sequence[SweptLayer]) -> PrintedTable:
    """A line for each layer, quantile and IoU, for programs."""
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable

    categories = list(layers[0].levels[0].unique_by_category)
    titles = ["layer", "q", "IoU", "detectors", "unique/cat", "unique/best", *categories, "coverage"]
    rows = [
        [
            layer.name,
            level.q,
            at.iou,
            at.detectors,
            at.unique_per_category,
            at.unique_best_label,
            *at.by_category.values(),
            level.coverage,
        ]
        for layer in layers
        for level in layer.levels
        for at in level.at
    ]
    return PrintedTable([PrintedColumn(title) for title in titles], rows)
