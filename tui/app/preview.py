"""Top images inside of the terminal, by the textual-image extra: kitty and sixel graphics, else half-block cells."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import cast

from PIL import Image
from textual.widget import Widget

from ndissect.store.errors import NDError
from ndissect.store.layer_view import LayerView
from ndissect.tui.pictures.headed_sheet import PAPER
from ndissect.tui.pictures.overlay import draw_panel
from ndissect.tui.pictures.sheets import unit_panels

# Pixels of an image's longer side as it is handed to the terminal, which scales it.
_SIDE = 224
_GAP = 8


def image_widget() -> Callable[[Image.Image], Widget]:
    """What makes a widget of a picture. NDError where the extra is not installed.

    The library asks the terminal what it can draw when it is imported: the UI must not be reading keys meanwhile.
    """
    # Where a terminal does not answer, the library logs tracebacks, which would land on the screen.
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)
    try:
        module = importlib.import_module("textual_image.widget")
    except ImportError as e:
        raise NDError(
            "previews in the terminal need the package textual-image",
            "pip install 'ndissect[preview]'; o opens a viewer",
        ) from e
    return cast(Callable[[Image.Image], Widget], module.Image)


def strip_of_images(view: LayerView, unit: int, columns: int, lines: int) -> Image.Image:
    """As many of the unit's top images with their masks, side by side, as ``columns`` x ``lines`` cells have room for.

    A cell is taken to be twice as high as wide. Raises NDError where the store holds no images.
    """
    count = max(1, columns // (2 * lines))
    drawn = [draw_panel(panel, _SIDE) for panel in unit_panels(view, unit, images=count)]
    width = sum(p.width for p in drawn) + _GAP * (len(drawn) - 1)
    picture = Image.new("RGB", (max(width, 1), max((p.height for p in drawn), default=1)), PAPER)
    x = 0
    for panel in drawn:
        picture.paste(panel, (x, 0))
        x += panel.width + _GAP
    return picture
