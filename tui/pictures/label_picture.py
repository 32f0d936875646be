"""Images with their label maps: every concept tinted in a colour of its own, numbered, and named below.

Everything here is plain data in, picture out: no data set. The colours can be told apart by colour-blind readers
(Okabe and Ito); the numbers can be by everyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, PAPER, Colour, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, wrap, write, written_width
from ndissect.tui.pictures.overlay import HAIRLINE, MIN_TEXT_WIDTH, Mask, Pixels, enlarge, outline

#: Okabe and Ito's colours, without their black: https://jfly.uni-koeln.de/color/
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (153, 153, 153),
)  # fmt: skip

#: How much of a tinted pixel is the colour.
TINT = 0.5
_SWATCH = 12


@dataclass(frozen=True)
class NamedMask:
    """A concept in an image: its ``name``, and ``mask`` (h, w) bool: where it is, at any resolution."""

    name: str
    mask: Mask


@dataclass(frozen=True)
class LabelPanel:
    """An image once: ``image`` (H, W, 3) uint8 RGB, with some ``masks`` tinted; ``heading``: one line above it."""

    heading: str
    image: Pixels
    masks: Sequence[NamedMask]


def label_sheet(
    panels: Sequence[LabelPanel], title: str, subtitle: str = "", *, columns: int = 3, side: int = 400
) -> Image.Image:
    """All panels as one RGB picture, ``columns`` a row, each with the names of its concepts below, the largest first.

    As many concepts of a panel are tinted as there are COLOURS; the others are named without one.
    """
    drawn = [_draw_panel(panel, side) for panel in panels]
    across = max(1, min(columns, len(drawn)))
    rows = [drawn[start : start + across] for start in range(0, len(drawn), across)]
    width = max(across * side + (across - 1) * GAP, MIN_TEXT_WIDTH)
    below = sum(max(picture.height for picture in row) + GAP for row in rows)
    made = headed_sheet(title, [subtitle], width, below, empty="" if panels else "No label maps to show.")
    sheet, y = made.picture, made.top
    for row in rows:
        for column, picture in enumerate(row):
            sheet.paste(picture, (MARGIN + column * (side + GAP), y))
        y += max(picture.height for picture in row) + GAP
    return sheet


def _draw_panel(panel: LabelPanel, side: int) -> Image.Image:
    """Heading, image and names in a picture ``side`` pixels wide."""
    masks = sorted((m for m in panel.masks if m.mask.any()), key=lambda m: -float(m.mask.mean()))
    tinted, others = masks[: len(COLOURS)], masks[len(COLOURS) :]
    H, W = panel.image.shape[:2]
    scale = side / max(H, W)
    width, height = max(1, round(W * scale)), max(1, round(H * scale))
    image = np.asarray(Image.fromarray(panel.image).resize((width, height), Image.Resampling.LANCZOS))
    drawn = Image.fromarray(_tint(image, [enlarge(m.mask, height, width) for m in tinted]))
    pen = ImageDraw.Draw(drawn)
    for number, named in enumerate(tinted, 1):
        _number(pen, enlarge(named.mask, height, width), number)

    lines = [f"{number}  {m.name}  {_share(m.mask)}" for number, m in enumerate(tinted, 1)]
    rest = wrap("and " + ", ".join(f"{m.name} {_share(m.mask)}" for m in others), CAPTION_SIZE, side) if others else []
    step = line_height(CAPTION_SIZE)
    top = step if panel.heading else 0
    whole = Image.new("RGB", (side, top + height + 4 + step * (len(lines) + len(rest))), PAPER)
    pen = ImageDraw.Draw(whole)
    if panel.heading:
        write(pen, (0, 0), shorten(panel.heading, CAPTION_SIZE, side), CAPTION_SIZE, INK)
    whole.paste(drawn, (0, top))
    y = top + height + 4
    for line, colour in zip(lines, COLOURS, strict=False):
        pen.rectangle((0, y + 2, _SWATCH, y + 2 + _SWATCH), fill=colour, outline=HAIRLINE)
        write(pen, (_SWATCH + 6, y), shorten(line, CAPTION_SIZE, side - _SWATCH - 6), CAPTION_SIZE, INK)
        y += step
    for line in rest:
        write(pen, (0, y), line, CAPTION_SIZE, FAINT)
        y += step
    return whole


def _tint(image: Pixels, masks: Sequence[Mask]) -> Pixels:
    """``image`` (H, W, 3) with the ``masks`` (H, W) in their colours, the largest first, and lines around them."""
    out = image.astype(np.float32)
    for mask, colour in zip(masks, COLOURS, strict=False):
        out[mask] = (1 - TINT) * out[mask] + TINT * np.array(colour, np.float32)
    drawn = np.rint(out).astype(np.uint8)
    for mask, colour in zip(masks, COLOURS, strict=False):
        outline(drawn, mask, colour)
    return drawn


def _number(pen: ImageDraw.ImageDraw, mask: Mask, number: int) -> None:
    """Write ``number`` on a plate inside the mask, near its middle."""
    places = np.argwhere(mask)
    middle = places[np.abs(places - places.mean(0)).sum(1).argmin()]
    text, pad = str(number), 2
    width = round(written_width(text, CAPTION_SIZE))
    y, x = int(middle[0]) - CAPTION_SIZE // 2, int(middle[1]) - width // 2
    x = min(max(x, pad), max(pad, mask.shape[1] - width - pad))
    y = min(max(y, pad), max(pad, mask.shape[0] - CAPTION_SIZE - 2 * pad))
    pen.rectangle((x - pad, y - pad, x + width + pad, y + CAPTION_SIZE + pad), fill=PAPER, outline=HAIRLINE)
    write(pen, (x, y - 1), text, CAPTION_SIZE, INK)


def _share(mask: Mask) -> str:
    share = 100 * float(mask.mean())
    return f"{share:.0f} %" if share >= 1 else f"{share:.2g} %"
