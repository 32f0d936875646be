"""White sheets with a title and what is said of it at their top, for pictures that are drawn below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ndissect.tui.pictures.lettering import line_height, wrap, write

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (24, 24, 24)
FAINT: Colour = (96, 96, 96)
MARGIN, GAP = 24, 12
TITLE_SIZE, SUBTITLE_SIZE, CAPTION_SIZE = 22, 14, 12


@dataclass(frozen=True)
class HeadedSheet:
    """A ``picture`` with the ``pen`` that writes on it; ``top``: where what is drawn below the head begins, in pixels
    from the upper edge. Its left edge is at ``MARGIN``."""

    picture: Image.Image
    pen: ImageDraw.ImageDraw
    top: int


def headed_sheet(title: str, told: Sequence[str], width: int, below: int, *, empty: str = "") -> HeadedSheet:
    """A sheet with ``title``, the lines ``told`` of it, and ``below`` pixels for what is drawn; both wrap at ``width``.

    ``empty``: what is said where there is nothing to draw.
    """
    head = [(line, TITLE_SIZE, INK) for line in wrap(title, TITLE_SIZE, width)]
    head += [(line, SUBTITLE_SIZE, FAINT) for text in told for line in wrap(text, SUBTITLE_SIZE, width)]
    head += [(empty, SUBTITLE_SIZE, INK)] if empty else []
    height = 2 * MARGIN + sum(line_height(size) for _, size, _ in head) + GAP + below
    picture = Image.new("RGB", (width + 2 * MARGIN, height), PAPER)
    pen = ImageDraw.Draw(picture)
    y = MARGIN
    for line, size, colour in head:
        write(pen, (MARGIN, y), line, size, colour)
        y += line_height(size)
    return HeadedSheet(picture, pen, y + GAP)
