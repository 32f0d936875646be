"""Pictures that a generator draws, in rows: as they are, and without more and more of the best units for a concept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ndissect.tui.pictures.headed_sheet import CAPTION_SIZE, FAINT, GAP, INK, MARGIN, SUBTITLE_SIZE, headed_sheet
from ndissect.tui.pictures.lettering import line_height, shorten, write
from ndissect.tui.pictures.overlay import Panel, draw_panel
from ndissect.tui.tables.formats import share, signed
from ndissect.tui.tables.removed import RemovalReport

_SIDE = 132
# Of the numbers of samples, at the left.
_NAMES = 84


def removal_sheet(report: RemovalReport) -> Image.Image:
    """The sheet: a row a sample, a column for the picture as it is and for each number of units that is removed.

    Below each picture stands its own share of the concept's pixels; above each column the mean over all samples.
    """
    removal, shares = report.removal, report.rows
    columns = 1 + len(shares)
    width = max(_NAMES + columns * (_SIDE + GAP), 4 * (_SIDE + GAP)) - GAP
    heads = [("before", f"mean {share(report.before)}")]
    heads += [(f"without {len(s.units)}", f"mean {share(s.after)} ({signed(s.change)})") for s in shares]
    line = line_height(CAPTION_SIZE)
    top, tall = 2 * line + 4, _SIDE + line + GAP
    told = [
        f"pixels that are {report.label} in each picture; the first samples that show any of it",
        *report.notes(),
    ]
    below = top + tall * len(removal.pictures)
    empty = "" if removal.pictures else f"No sample shows {report.label}."
    made = headed_sheet(report.title, told, width, below, empty=empty)
    sheet, pen, y = made.picture, made.pen, made.top
    if not removal.pictures:
        return sheet
    for column, lines in enumerate(heads):
        for i, text in enumerate(lines):
            at = (_left(column), y + i * line)
            write(pen, at, shorten(text, CAPTION_SIZE, _SIDE), CAPTION_SIZE, FAINT if i else INK)
    y += top
    for row in removal.pictures:
        write(pen, (MARGIN, y), "sample", CAPTION_SIZE, FAINT)
        write(pen, (MARGIN, y + line), str(row.sample), SUBTITLE_SIZE, INK)
        for column, (picture, own) in enumerate(zip(row.pictures, row.shares.tolist(), strict=True)):
            drawn = draw_panel(Panel(picture, np.ones((1, 1), bool), None, ""), _SIDE)
            sheet.paste(drawn, (_left(column), y))
            write(pen, (_left(column), y + drawn.height + 2), share(own), CAPTION_SIZE, INK)
        y += tall
    return sheet


def _left(column: int) -> int:
    return MARGIN + _NAMES + column * (_SIDE + GAP)
