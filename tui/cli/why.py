"""``nd why``: which labelled units made the network say this of an image, and not that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.effect_options import labelled_layer, takes_effect_options
from ndissect.tui.cli.options import ForceOption, JsonOption, complete_layer

if TYPE_CHECKING:
    from ndissect.tui.cli.output import PrintedColumn
    from ndissect.tui.tables.contributions import Contribution, Explained

_FIRST = "files layer class_name versus fast limit output show force json"
# Units in each row of a figure, unless --limit says how many.
_DRAWN = 10


@takes_effect_options(first=_FIRST)
def why(
    request: EffectRequest,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE", help="Image files, or data:NAME for images of the data. Default: those of --class."
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", "-l", help="The layer. Default: the last of the store.", autocompletion=complete_layer),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class. Default: what is predicted.")
    ] = None,
    versus: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Explain the score less that of this class: why not that.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Activation times gradient: one pass, approximate for most networks.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            help="Units that speak for it, and against it; 0 is all. Default: what fits a terminal, else all.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw the image with each unit's mask: FILE.png.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Draw it, and open it in an image viewer.")] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Which labelled units made the network say this of an image, and not that.

    Exact where the class score is linear in the pooled units, as in most networks' last layer: what units add and the
    bias sum to the score. Elsewhere a unit's contribution is the score less the score with that unit set to zero.
    """
    names = files or []
    if not names and class_name is None:
        raise WrongUse(
            "no image is named", "nd why IMAGE..., or nd why --class NAME for the mean of the images of a class"
        )

    from ndissect.engine.experiments.named_images import check_named

    check_named(names)
    picture = _picture(output, names, class_name, show=show, force=force)

    from ndissect.engine.experiments.explain import explain_named
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.tables.contributions import Explained

    explanation = explain_named(
        replace(request, layer=layer), names, TerminalConsole(), class_name=class_name, versus=versus, fast=fast
    )
    with labelled_layer(request.store, explanation.layer) as view:
        explained = Explained(explanation, view)
        if picture is not None:
            _draw(explained, picture, limit)
        if json:
            from ndissect.tui.cli.output import print_json

            print_json({"store": view and str(view.store.path), **explained.to_json()})
        else:
            _print(explained, limit)
    if picture is not None:
        _told(picture, show=show)


def _picture(
    output: Path | None, names: Sequence[str], class_name: str | None, *, show: bool, force: bool
) -> Path | None:
    """Where the figure is written, None for none; what is there already may be replaced."""
    from ndissect.store.files import check_writable
    from ndissect.store.names import safe_name
    from ndissect.tui.cli.output import confirm_replace

    if output is None and not show:
        return None
    if output is None:
        from ndissect.tui.pictures.overlay import drawn_by_nd

        path = Path(safe_name(f"why-{Path(names[0]).stem if names else class_name}", ".png"))
        if drawn_by_nd(path):
            return path
    else:
        path = output
        if path.suffix.lower() != ".png":
            raise WrongUse(f"the figure is a PNG, and {path} does not end so", "for example -o why.png")
    check_writable(path, 0)
    confirm_replace(path, force)
    return path


def _draw(explained: Explained, path: Path, limit: int | None) -> None:
    from ndissect.tui.pictures.explained import draw_explained
    from ndissect.tui.pictures.overlay import save_png

    source = "" if explained.view is None else str(explained.view.store.path)
    figure = draw_explained(explained, _DRAWN if limit is None else limit or len(explained.rows))
    save_png(figure, path, {"Title": explained.title, "Source": source})


def _told(path: Path, *, show: bool) -> None:
    from ndissect.tui.cli.output import tell
    from ndissect.tui.pictures.viewer import open_image

    tell(open_image(path) if show else str(path))


def _print(explained: Explained, limit: int | None) -> None:
    from ndissect.tui.cli.output import PrintedTable, on_terminal, print_table, rows_to_print
    from ndissect.tui.tables.contributions import doubt_lines

    columns = _columns(explained)
    most = rows_to_print(limit, json=False)
    if limit is None and most is not None:
        most //= 2  # there are two tables
    for_it, against = explained.speaking_for(most), explained.speaking_against(most)
    notes = [*doubt_lines([*for_it, *against]), *explained.notes()]
    if not on_terminal():
        rows = [_cells(explained, row) for row in [*for_it, *against]]
        print_table(PrintedTable(columns, rows, title=explained.title, notes=notes), notes_in_logs=True)
        return
    rows = [_cells(explained, row) for row in for_it]
    title = [explained.title, "units that speak for it:" if rows else "no unit speaks for it"]
    print_table(PrintedTable(columns if rows else [], rows, title=title, notes=[] if against else notes))
    if against:
        rows = [_cells(explained, row) for row in against]
        print_table(PrintedTable(columns, rows, title="units that speak against it:", notes=notes))


def _columns(explained: Explained) -> list[PrintedColumn]:
    from ndissect.tui.cli.output import PrintedColumn
    from ndissect.tui.tables.contributions import label_text
    from ndissect.tui.tables.formats import interval, iou

    labels = [
        PrintedColumn("label", lambda said: label_text(*said), parts=("label", "doubt")),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("interval", lambda ends: interval(*ends), right=True, parts=("iou_low", "iou_high"), drop=2),
    ]
    several = len(explained.explanation.images) > 1
    where = [PrintedColumn("where", lambda said: said or "-"), PrintedColumn("area", _percent, right=True, drop=3)]
    spread = [PrintedColumn("95 %", lambda ends: _signed_interval(*ends), right=True, parts=("low", "high"), drop=1)]
    return [
        PrintedColumn("unit", right=True),
        *(labels if explained.view is not None else []),
        PrintedColumn("contribution", _signed, right=True),
        *(spread if several else []),
        PrintedColumn("share", _percent, right=True),
        *([] if several else where if explained.view is not None else where[:1]),
    ]


def _cells(explained: Explained, row: Contribution) -> list[object]:
    labels: list[object] = [(row.label, row.doubt), row.iou, (row.iou_low, row.iou_high)]
    several, view = len(explained.explanation.images) > 1, explained.view
    where: list[object] = [row.where, explained.area(row.unit)]
    return [
        row.unit,
        *(labels if view is not None else []),
        row.contribution,
        *([(row.low, row.high)] if several else []),
        row.share,
        *([] if several else where if view is not None else where[:1]),
    ]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _signed_interval(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    return f"{value:+#.3g}".rstrip(".")
