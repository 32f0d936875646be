"""Attacked images before and after, with what changed and the masks of the units that both classes need most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, PAPER, SUBTITLE_SIZE, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, write
from ndissect.tui.pictures.overlay import Panel, Pixels, draw_panel
from ndissect.tui.tables.attacked import AttackReport
from ndissect.tui.tables.formats import with_iou

if TYPE_CHECKING:
    from ndissect.engine.experiments.attack import Pair

_SIDE = 132
#: The largest change of a pixel is drawn as a change of so much, on grey.
_SHOWN = 0.5


@dataclass(frozen=True)
class _Cell:
    """A picture and the lines below it."""

    picture: Image.Image
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        """Of both, in pixels."""
        return self.picture.height + len(self.lines) * line_height(CAPTION_SIZE)


def attack_sheet(report: AttackReport) -> Image.Image:
    """The sheet: two rows an image, before and after; beside them the change, amplified, and each unit's mask.

    Without labels, or of maps of another size than theirs, there are no masks.
    """
    a = report.attacked
    blocks = [(_heading(report, pair), _rows(report, pair)) for pair in a.pairs]
    across = max((len(rows[0]) for _, rows in blocks), default=4)
    width = max(across * (_SIDE + GAP) - GAP, 4 * (_SIDE + GAP))
    told = [report.success, a.how, *_legend(report)]
    tall = [[max(cell.height for cell in row) + GAP for row in rows] for _, rows in blocks]
    heading = line_height(SUBTITLE_SIZE) + 4
    below = sum(heading + sum(rows) + GAP for rows in tall)
    made = headed_sheet(report.title, told, width, below, empty="" if blocks else "No image reaches the target.")
    sheet, pen, y = made.picture, made.pen, made.top
    for (text, rows), heights in zip(blocks, tall, strict=True):
        write(pen, (MARGIN, y), shorten(text, SUBTITLE_SIZE, width), SUBTITLE_SIZE, INK)
        y += heading
        for row, high in zip(rows, heights, strict=True):
            for column, cell in enumerate(row):
                x = MARGIN + column * (_SIDE + GAP)
                sheet.paste(cell.picture, (x, y))
                for i, line in enumerate(cell.lines):
                    at = (x, y + cell.picture.height + 2 + i * line_height(CAPTION_SIZE))
                    write(pen, at, shorten(line, CAPTION_SIZE, _SIDE), CAPTION_SIZE, INK if i == 0 else FAINT)
            y += high
        y += GAP
    return sheet


def _heading(report: AttackReport, pair: Pair) -> str:
    a, i = report.attacked, pair.number
    names = a.classes.names
    kept = "" if a.reached_8bit is None else f", {'kept' if a.reached_8bit[i] else 'lost'} in 8 bits"
    was = f"{names[int(a.truth[i])]}, taken for {names[int(a.predicted[i])]}"
    return f"{a.names[i]}: {was} before, for {report.target} after; L2 {a.distance[i]:.3g}{kept}"


def _legend(report: AttackReport) -> list[str]:
    if report.view is None:
        return ["no store: units have no thresholds, so that there are no masks"]
    return ["units: those that the target needs most, then those that the image's class does; bright: above threshold"]


def _rows(report: AttackReport, pair: Pair) -> tuple[list[_Cell], list[_Cell]]:
    """The cells before and after."""
    before, after = _pixels(pair.before), _pixels(pair.after)
    change = pair.after - pair.before
    largest = float(np.abs(change).max())
    amplified = _pixels(0.5 + change * (_SHOWN / largest if largest > 0 else 0))
    blank = Image.new("RGB", _plain(before).size, PAPER)
    upper = [_Cell(_plain(before), ("before",)), _Cell(_plain(amplified), _amplified(largest))]
    lower = [_Cell(_plain(after), ("after",)), _Cell(blank, ())]
    for at, unit in enumerate(pair.units):
        was, now = pair.maps_before[at], pair.maps_after[at]
        label, iou = report.label(unit)
        lines = (f"unit {unit}", f"of {_needed_by(report, pair, unit)}", with_iou(label, iou), f"peak {_peak(was)}")
        upper.append(_Cell(_masked(report, unit, before, was), lines))
        moved = f"peak {_peak(now)} ({float(now.max() - was.max()):+.3g})"
        lower.append(_Cell(_masked(report, unit, after, now), (moved,)))
    return upper, lower


def _amplified(largest: float) -> tuple[str, ...]:
    return (
        ("change, amplified", f"{_SHOWN / largest:.3g} times", f"at most {largest:.3f}")
        if largest > 0
        else ("no change",)
    )


def _needed_by(report: AttackReport, pair: Pair, unit: int) -> str:
    a = report.attacked
    own = int(a.truth[pair.number])
    classes = [k for k in (a.target, own) if unit in a.important.units.get(k, ())]
    return " and ".join(a.classes.names[k] for k in classes)


def _masked(report: AttackReport, unit: int, image: Pixels, values: npt.NDArray[np.float32]) -> Image.Image:
    """The image, what lies outside of the unit's mask darkened; the whole image where there is no threshold."""
    view = report.view
    if view is None or view.map_size is None or tuple(view.map_size) != values.shape:
        return _plain(image)
    return draw_panel(Panel(image, view.mask(unit, values), None, ""), _SIDE)


def _plain(image: Pixels) -> Image.Image:
    return draw_panel(Panel(image, np.ones((1, 1), bool), None, ""), _SIDE)


def _pixels(image: npt.NDArray[np.float32]) -> Pixels:
    """(h, w, 3) uint8 of (3, h, w) in [0, 1]."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _peak(values: npt.NDArray[np.float32]) -> str:
    return f"{float(values.max()):.3g}"
