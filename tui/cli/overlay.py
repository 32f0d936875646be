"""``nd overlay``: a unit's top images with their masks, as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import ForceOption, JsonOption, StoreOption, complete_layer


def overlay(
    unit: Annotated[
        str,
        typer.Argument(metavar="LAYER:UNIT", help="A unit, counted from 0: layer4:17.", autocompletion=complete_layer),
    ],
    store: StoreOption = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG. Default: LAYER-UNIT.png here, drawn anew each time.")
    ] = None,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="How many of the top images.")] = 10,
    truth: Annotated[bool, typer.Option("--truth", help="Show the true mask of the unit's label beside each.")] = False,
    concept: Annotated[str | None, typer.Option(help="With --truth: this concept instead of the unit's label.")] = None,
    effect: Annotated[
        bool, typer.Option("--effect", help="Instead, a sample of a generator with the unit and without it.")
    ] = False,
    force: ForceOption = False,
    show: Annotated[bool, typer.Option("--open", help="Open it in an image viewer.")] = False,
    json: JsonOption = False,
) -> None:
    """Draw a unit's top images, what lies outside its mask darkened.

    With --effect what a generator draws without the unit, where that was measured. Needs nothing but the store."""
    from ndissect.store.files import find_store
    from ndissect.store.names import safe_name
    from ndissect.store.reader import Store
    from ndissect.tui.cli import output
    from ndissect.tui.pictures import overlay as drawing
    from ndissect.tui.pictures import sheets

    layer, _, number = unit.rpartition(":")
    if not layer or not number.isdigit():
        raise WrongUse(f"'{unit}' names no unit", "write LAYER:UNIT, for example layer4:17")
    if effect and (truth or concept is not None):
        raise WrongUse("--effect shows pictures without masks, and --truth masks", "leave one of them out")
    path = to or Path(safe_name(f"{layer}-{number}{'-effect' if effect else ''}", ".png"))
    if to is not None or not drawing.drawn_by_nd(path):
        output.confirm_replace(path, force)
    with Store(find_store(store)) as opened:
        view = opened.layer(layer)
        if effect:
            sheet = sheets.effect_sheet(view, int(number))
        else:
            with_truth = truth or concept is not None
            sheet = sheets.unit_sheet(view, int(number), images=images, truth=with_truth, concept=concept)
        drawing.save_png(sheet.image, path, {"Title": sheet.title, "Source": str(opened.path)})
    if json:
        output.print_json({"path": str(path), "layer": layer, "unit": int(number), "title": sheet.title})
    else:
        output.emit_line(str(path))
    if show:
        from ndissect.tui.pictures.viewer import open_image

        output.tell(open_image(path))
