"""``nd paint``: concepts painted into a generator's pictures, and out of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.edit_words import TypedEdit, typed_edits
from ndissect.tui.cli.generator_options import FIELDS, store_and_layer
from ndissect.tui.cli.options import ForceOption, JsonOption, StoreOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.engine.experiments.edits import Edit, EditList
    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.engine.experiments.paint import Painted, Painter

_FIRST = "place store sample layer add remove region strength edits units to before force show json pictures"
# Units that draw a concept, where neither the command nor the file of edits says how many.
_UNITS = 20


class Pictures(StrEnum):
    """How the picture is shown in the terminal."""

    AUTO = "auto"
    KITTY = "kitty"
    SIXEL = "sixel"
    ITERM = "iterm"
    BLOCKS = "blocks"


@takes_options(only=FIELDS, first=_FIRST)
def paint(
    options: Options,
    place: Annotated[
        str | None,
        typer.Argument(metavar="STORE[:LAYER]", help="A generator's store, and the layer whose map is edited."),
    ] = None,
    store: StoreOption = None,
    sample: Annotated[int | None, typer.Option(min=0, metavar="N", help="The sample to paint on. Default: 0.")] = None,
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="The layer. Default: the store's last.")] = None,
    add: Annotated[
        list[str] | None, typer.Option(metavar="CONCEPT", help="Add it in the --region that follows; repeatable.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="CONCEPT", help="Remove it in the --region that follows; repeatable.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="Of the --add or --remove before it: top,left,bottom,right in cells of the layer's map, from 0, all"
            " four included; all; or a mask image of any size, white in the region.",
        ),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S", help="Of the --add or --remove before it: 1 sets the units, 0.5 goes half of the way."
        ),
    ] = None,
    edits: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Edits as nd paint saves them in the terminal; made first.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Units that draw a concept, the best by IoU. Default: 20.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG. Default: a file of the cache, drawn anew each time.")
    ] = None,
    before: Annotated[bool, typer.Option("--before", help="Show the picture before the edits beside it.")] = False,
    force: ForceOption = False,
    show: Annotated[bool, typer.Option("--open", help="Open the picture in an image viewer.")] = False,
    json: JsonOption = False,
    pictures: Annotated[
        Pictures,
        typer.Option(help="How the terminal shows the picture. Default: as it is likely to know."),
    ] = Pictures.AUTO,
    serve: Annotated[bool, typer.Option("--serve", hidden=True)] = False,
) -> None:
    """Paint concepts into a generator's pictures and out of them, in cells of a layer's map.

    Without edits it opens in the terminal. Edits are made in the order in which they stand.
    """
    from ndissect.engine.experiments.edits import EditList, read_edits
    from ndissect.tui.cli import machine_failures

    path, named = store_and_layer(place, store)
    saved = read_edits(edits) if edits is not None else EditList(())
    layer = layer or named or saved.layer
    sample = sample if sample is not None else saved.sample or 0
    typed = _typed(add, remove, region, strength)
    painted = bool(typed or edits is not None)
    if not painted and not serve:
        if to is None and not (json or show or before):
            _in_terminal(path, sample, pictures)
        raise WrongUse(
            "there is nothing to paint", f"--add CONCEPT --region 3,4,6,9; nd sample draws sample {sample} as it is"
        )
    if pictures != "auto" and not serve:
        raise WrongUse("--pictures is for painting in the terminal", "leave it out, or leave out the edits")
    machine_failures.check_torch()
    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.tui.cli.console import TerminalConsole

    request = GeneratorRequest(path, layer, options)
    many = units or saved.units or _UNITS
    if serve:
        from ndissect.engine.experiments.painting_process import serve as answer

        answer(request, TerminalConsole(), many)
        return
    target = _target(path, sample, to, force=force)
    _paint(request, sample, saved, typed, many, target, before=before, json=json)
    if show:
        from ndissect.tui.cli.drawn_pictures import show_picture

        show_picture(target)


def _typed(
    add: list[str] | None, remove: list[str] | None, region: list[str] | None, strength: list[float] | None
) -> list[TypedEdit]:
    """The edits of the command line, in their order, which is that of its words."""
    typed = typed_edits(sys.argv[2:])
    counts = [sum(e.action == action for e in typed) for action in ("add", "remove")]
    if counts != [len(add or ()), len(remove or ())] or len(typed) != len(region or ()):
        raise WrongUse("the edits are not understood", "write --add tree --region 3,4,6,9, and no value like an option")
    del strength
    return typed


def _in_terminal(store: Path, sample: int, pictures: Pictures) -> None:
    """Open the painting in the terminal; does not return. WrongUse where there is none, NDError where it cannot draw
    as ``pictures`` says."""
    from ndissect.tui.cli.browse import check_terminal

    check_terminal("nd paint", "nd paint STORE --add CONCEPT --region 3,4,6,9 -o x.png needs none")
    paint_in_terminal = import_module("ndissect.tui.app.painting").paint_in_terminal
    from ndissect.tui.cli.output import emit_line
    from ndissect.tui.pictures.graphics import choose_protocol

    protocol = choose_protocol(pictures.value, os.environ)
    command = [sys.executable, "-P", "-m", "ndissect.tui.cli", *sys.argv[1:], "--serve"]
    unicode = (sys.stderr.encoding or "").lower().replace("-", "").startswith("utf")
    how = {"ious": _ious(store), "unicode": unicode, "protocol": protocol}
    left, code = paint_in_terminal(store, sample, command, **how)
    for line in left:
        emit_line(line)
    raise typer.Exit(code)


def _target(store: Path, sample: int, to: Path | None, *, force: bool) -> Path:
    from ndissect.tui.cli.drawn_pictures import picture_path

    return picture_path(to, store, f"painted-{sample}", force=force)


def _paint(
    request: GeneratorRequest,
    sample: int,
    saved: EditList,
    typed: Sequence[TypedEdit],
    units: int,
    target: Path,
    *,
    before: bool,
    json: bool,
) -> None:
    """Write the picture, and tell what changed."""
    import numpy as np

    from ndissect.engine.experiments.edits import Edit
    from ndissect.engine.experiments.paint import open_painter
    from ndissect.engine.experiments.picture_files import sheet, write_picture
    from ndissect.engine.experiments.regions import region_cells
    from ndissect.tui.cli import output
    from ndissect.tui.cli.console import TerminalConsole

    with open_painter(request, TerminalConsole(), units) as painter:
        edits = list(saved.edits)
        for edit in typed:
            cells = region_cells(edit.region, painter.map_size, painter.layer)
            edits.append(Edit(edit.concept, edit.action, cells, edit.strength))
        plain = painter.sample(sample)
        painted = painter.paint(edits)
        picture = sheet(np.stack([plain, painted.picture]), 2) if before else painted.picture
        write_picture(target, picture)
        if json:
            output.print_json(_json(painter, painted, edits, target))
        else:
            _print(painter, painted, edits, target)


def _json(painter: Painter, painted: Painted, edits: Sequence[Edit], target: Path) -> dict[str, Any]:
    """What is printed with --json; it can be given to --edits."""
    said = {"store": painter.generated.store, "sample": painter.number, "layer": painter.layer, "units": painter.units}
    return {
        **said,
        "map_size": list(painter.map_size),
        "picture_size": list(painter.picture_size),
        "path": target,
        **painted.to_json(),
        "best_units": {e.concept: painter.best_units(e.concept) for e in edits},
        "edits": [edit.to_json() for edit in edits],
        "notes": list(painter.notes),
    }


def _print(painter: Painter, painted: Painted, edits: Sequence[Edit], target: Path) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_table

    columns = [
        PrintedColumn("concept"),
        PrintedColumn("before", right=True),
        PrintedColumn("after", right=True),
        PrintedColumn("change", lambda change: f"{change:+d}" if change else "0", right=True),
    ]
    rows = [[c.concept, c.before, c.after, c.after - c.before] for c in painted.concepts]
    count = f"{len(edits)} edit{'' if len(edits) == 1 else 's'}"
    pixels = painter.picture_size[0] * painter.picture_size[1]
    title = (
        f"sample {painter.number} of {painter.generated.store.name}, {count} of {painter.layer}: pixels of {pixels:,}"
    )
    notes = [
        f"in the edited cells {painted.changed_inside:,} of {painted.pixels_inside:,} pixels changed",
        f"outside of them {painted.changed_outside:,} of {painted.pixels_outside:,}"
        + (f", by up to {painted.largest_outside} of 255 levels" if painted.changed_outside else ""),
        *painter.notes,
        f"the picture: {target}",
    ]
    print_table(PrintedTable(columns, rows, title=title, notes=notes), notes_in_logs=True)


def _ious(store: Path) -> dict[str, float]:
    """Of each concept of the store the IoU of its best unit, in whichever layer."""
    import numpy as np

    from ndissect.store.reader import Store

    best: dict[str, float] = {}
    with Store(store) as opened:
        views = [opened.layer(name) for name in opened.layer_names]
        for row, name in enumerate(opened.concepts.name):
            ious = [float(np.nanmax(view.concept_ious(row), initial=0.0)) for view in views]
            best[name] = max([best.get(name, 0.0), *ious])
    return best
