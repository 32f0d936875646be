"""The figure of an explanation: an image, then the image with the mask of each unit that adds most (PAMI)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, SUBTITLE_SIZE, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, write
from ndissect.tui.pictures.overlay import Panel, draw_panel
from ndissect.tui.tables.contributions import Contribution, Explained
from ndissect.tui.tables.doubts import doubted
from ndissect.tui.tables.where_in_image import SHARE_OF_PEAK, mask_of

if TYPE_CHECKING:
    from ndissect.engine.experiments.explanation import Closeup

#: Units beside an image, in a row.
ACROSS = 5
_SIDE = 168
# Units of one image that are drawn, however many are asked for.
_MOST = 50
_LINES = 3  # below a panel


@dataclass(frozen=True)
class Row:
    """A row of the figure: ``heading`` above it; the image alone, ``first``, where it begins with that; units."""

    heading: str
    first: tuple[Panel, Sequence[str]] | None
    units: Sequence[tuple[Panel, Sequence[str]]]


def draw_explained(explained: Explained, units: int = 10) -> Image.Image:
    """The figure: of one image its first ``units`` units, those that speak for the class held against it below them; of
    several images the five best of each in a row of its own, for the first few images."""
    e = explained.explanation
    rows: list[Row] = []
    if len(e.images) == 1:
        closeup = e.closeups[0]
        image = _image(explained, 0, closeup)
        said = explained.speaking_for(min(units, _MOST))
        heading = f"for {explained.name(e.images[0].explained)}"
        for start in range(0, max(len(said), 1), ACROSS):
            some = [_unit(explained, row, closeup) for row in said[start : start + ACROSS]]
            rows.append(Row(heading if start == 0 else "", image if start == 0 else None, some))
        if e.versus >= 0:
            against = explained.speaking_against(min(units, ACROSS))
            some = [_unit(explained, row, closeup) for row in against]
            rows.append(Row(f"for {explained.name(e.versus)}", None, some))
    else:
        for i, closeup in enumerate(e.closeups):
            own = _of_image(explained, closeup)[:ACROSS]
            rows.append(Row("", _image(explained, i, closeup), [_unit(explained, row, closeup) for row in own]))
    return _sheet(explained, rows)


def _of_image(explained: Explained, closeup: Closeup) -> list[Contribution]:
    """The units that add most to the score of one of several images, with what they add there."""
    known = {row.unit: row for row in explained.rows}
    total = float(closeup.contributions.sum())
    order = np.argsort(-closeup.contributions, kind="stable")
    return [
        replace(known[u], contribution=value, share=value / total if total > 0 else math.nan)
        for u, value in ((int(u), float(closeup.contributions[u])) for u in order)
        if value > 0
    ]


def _image(explained: Explained, number: int, closeup: Closeup) -> tuple[Panel, list[str]]:
    image = explained.explanation.images[number]
    predicted, truth = explained.name(image.predicted), "" if image.truth < 0 else explained.name(image.truth)
    said = [image.name, f"predicted: {predicted}", f"truth: {truth}" if truth else ""]
    return Panel(closeup.pixels, np.ones((1, 1), bool), None, image.name), said


def _unit(explained: Explained, row: Contribution, closeup: Closeup) -> tuple[Panel, list[str]]:
    mask = mask_of(row.unit, closeup.maps[row.unit], explained.view)
    label = doubted(row.label, row.doubt) if explained.view is not None else ""
    iou = f"  IoU {row.iou:.3f}" if row.label and not math.isnan(row.iou) else ""
    adds = f"{row.contribution:+.3g}" + ("" if math.isnan(row.share) else f"  {100 * row.share:.0f} %")
    adds += "" if mask.any() else "  nowhere above"
    lines = [label, f"unit {row.unit}{iou}", adds] if label else [f"unit {row.unit}", adds]
    return Panel(closeup.pixels, mask, None, f"unit {row.unit}"), lines


def _sheet(explained: Explained, rows: Sequence[Row]) -> Image.Image:
    width = (ACROSS + 1) * (_SIDE + GAP) - GAP
    drawn = [[draw_panel(panel, _SIDE) for panel, _ in _panels(row)] for row in rows]
    heights = [max((image.height for image in images), default=0) for images in drawn]
    below = _LINES * line_height(CAPTION_SIZE) + 2 * GAP
    headings = [line_height(SUBTITLE_SIZE) if row.heading else 0 for row in rows]
    height = sum(heights) + sum(headings) + below * len(rows)
    made = headed_sheet(explained.title, _subtitle(explained), width, height)
    sheet, pen, y = made.picture, made.pen, made.top
    for row, images, tall, heading in zip(rows, drawn, heights, headings, strict=True):
        if row.heading:
            write(
                pen, (MARGIN + _SIDE + GAP, y), shorten(row.heading, SUBTITLE_SIZE, width - _SIDE), SUBTITLE_SIZE, INK
            )
            y += heading
        for i, (image, (_, lines)) in enumerate(zip(images, _panels(row), strict=True)):
            x = MARGIN + (i + (row.first is None)) * (_SIDE + GAP)
            sheet.paste(image, (x, y))
            for k, line in enumerate(lines):
                at = (x, y + tall + 4 + k * line_height(CAPTION_SIZE))
                write(pen, at, shorten(line, CAPTION_SIZE, _SIDE), CAPTION_SIZE, INK if k == 0 else FAINT)
        if not row.units:
            write(pen, (MARGIN + _SIDE + GAP, y), "no unit speaks for it", CAPTION_SIZE, FAINT)
        y += tall + below
    return sheet


def _panels(row: Row) -> list[tuple[Panel, Sequence[str]]]:
    return [*([row.first] if row.first else []), *row.units]


def _subtitle(explained: Explained) -> list[str]:
    bright = (
        f"bright: activation above {SHARE_OF_PEAK:g} of the map's range, for want of a store with thresholds"
        if explained.view is None
        else "bright: activation above the unit's own threshold"
    )
    e = explained.explanation
    first = f"the first {len(e.closeups)} images, " if len(e.images) > len(e.closeups) else ""
    rows = [f"{first}a row for each, with the units that add most there"] if len(e.images) > 1 else []
    below = "below: the unit's label, with ? where it is not to be trusted, its contribution and share"
    return [explained.how, *rows, f"{bright}; {below}"]
