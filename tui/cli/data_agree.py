"""``nd data agree``: how far a labeller agrees with labels by hand, and which of its classes to leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.machine_failures import check_torch
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.engine.experiments.agreement import Agreement

_TAKES = (
    "labeller labeller_classes labeller_min labeller_size format grid device batch_size workers skip_bad max_pixels"
)
# Names that are listed; of more it is told how many.
_LISTED = 12


@takes_options(only=_TAKES, first="path")
def agree(
    options: Options,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A data set that is labelled by hand.")],
    least: Annotated[
        float, typer.Option("--min-iou", min=0, max=1, help="Concepts with a lower IoU are to be left out.")
    ] = 0.3,
    images: Annotated[int | None, typer.Option(min=1, help="So many images, spread evenly. Default: all.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the classes for --labeller-classes, without those to be left out."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare the labels of --labeller with labels by hand: IoU, precision and recall of each concept."""
    if options.labeller is None:
        raise WrongUse("nd data agree compares a labeller with labels by hand", "add --labeller NETWORK")
    check_torch()
    from ndissect.engine.experiments.agreement import agreement
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.output import print_json, tell

    measured = agreement(replace(options, data=path), TerminalConsole(), images=images)
    for name, why in measured.skipped:
        tell(f"skipped {name}: {why}")
    if output is not None:
        measured.write_classes(output, least)
    if json:
        print_json(_as_json(measured, least))
    else:
        _print(measured, least)
    if output is not None:
        tell(f"{output}: the classes for --labeller-classes, without {len(measured.poor(least))} to be left out")


def _as_json(measured: Agreement, least: float) -> dict[str, Any]:
    return {
        "labeller": measured.labeller,
        "data": measured.data,
        "images": measured.images,
        "pixels": measured.pixels,
        "agreeing": measured.agreeing,
        "concepts": [
            {
                **asdict(concept),
                "iou": concept.iou,
                "iou_known": concept.iou_known,
                "precision": concept.precision,
                "recall": concept.recall,
            }
            for concept in measured.concepts
        ],
        "leave_out": [concept.name for concept in measured.poor(least)],
        "unjudged": list(measured.unjudged),
        "skipped": [{"image": name, "why": why} for name, why in measured.skipped],
    }


def _print(measured: Agreement, least: float) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_table
    from ndissect.tui.tables.formats import share

    columns = [
        PrintedColumn("concept"),
        PrintedColumn("category"),
        PrintedColumn("images", right=True),
        *(PrintedColumn(name, share, right=True) for name in ("IoU", "IoU known", "precision", "recall")),
    ]
    rows = [
        [c.name, c.category, c.images, *map(_or_nan, (c.iou, c.iou_known, c.precision, c.recall))]
        for c in measured.concepts
    ]
    agreeing = f"{100 * measured.agreeing / measured.pixels:.1f} %" if measured.pixels else "none"
    poor = [concept.name for concept in measured.poor(least)]
    notes = [
        f"{measured.images} images; of the pixels with one of these concepts by hand {agreeing} have it by the "
        "labeller",
        "IoU: a pixel without a label by hand is not the concept; IoU known: it is not judged",
        f"leave out (IoU < {least:g}): {_listed(poor) or 'none'}",
    ]
    if measured.unjudged:
        notes.append(f"not judged, as no image has them by hand: {_listed(measured.unjudged)}")
    print_table(PrintedTable(columns, rows, title=f"{measured.labeller} on {measured.data}", notes=notes))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
