"""A picture as cells of a terminal, with the cursor and the selected cells of the layer's map marked in them.

Two pixels stand in a cell, one above the other. Marks are characters of their own shapes, black or white, whichever
stands out from the picture below them: they are seen on every picture and need no colour.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from ndissect.tui.app.painting_edits import Cell
from ndissect.tui.app.strips import PLAIN

# From dark to light, for terminals without colours.
_SHADES = " .:-=+*#%@"
# A layout whose cells of the map are all of the same size is taken where the picture becomes at most so much smaller.
_EVEN = 0.75
_REVERSED = PLAIN + Style(reverse=True, bold=True)
_BOLD = PLAIN + Style(bold=True)


@dataclass(frozen=True)
class Marks:
    """The characters of marks: corners of a box from the upper left by row, its ends where it is one line high."""

    cursor: str
    selected: str
    both: str
    below: str
    beside: str
    half: str


UNICODE_MARKS = Marks("┏┓┗┛", "┌┐└┘", "•", "▾", "▸", "▀")
ASCII_MARKS = Marks("####", "++++", "*", "v", ">", " ")
# In one line: (left, right) of the cursor's cell, of a selected one, of one that is both.
_ENDS = ("[]", "()", "{}")
# Where a cell of the map is smaller than one of the terminal: in its upper or lower half.
_POINTS = {"cursor": ("^", "v"), "selected": ("'", ".")}


@dataclass(frozen=True)
class Placement:
    """A picture over ``columns`` x ``lines`` cells of the terminal; the layer's map has ``grid`` = (rows, columns)."""

    grid: tuple[int, int]
    columns: int
    lines: int

    @property
    def boxes(self) -> bool:
        """Whether each cell of the map has a box of at least two columns and a line."""
        return self.lines >= self.grid[0] and self.columns >= 2 * self.grid[1]

    def box(self, cell: Cell) -> tuple[int, int, int, int]:
        """Returns (top, left, bottom, right) of a cell of the map, ends not included."""
        (row, column), (rows, columns) = cell, self.grid
        top, bottom = (i * self.lines // rows for i in (row, row + 1))
        left, right = (i * self.columns // columns for i in (column, column + 1))
        return top, left, bottom, right

    def point(self, cell: Cell) -> tuple[int, int, int]:
        """Returns (line, column, half) of the middle of a cell of the map; half: 0 upper, 1 lower."""
        pixel = (2 * cell[0] + 1) * self.lines // self.grid[0]
        column = (2 * cell[1] + 1) * self.columns // (2 * self.grid[1])
        return pixel // 2, column, pixel % 2

    def cell_at(self, line: int, column: int) -> Cell:
        """The cell of the map that is drawn at ``line``, ``column``; the nearest one outside of the picture."""
        rows, columns = self.grid
        if self.boxes:
            row, across = (line + 1) * rows - 1, (column + 1) * columns - 1
            row, across = row // self.lines, across // self.columns
        else:
            row, across = (2 * line + 1) * rows // (2 * self.lines), (2 * column + 1) * columns // (2 * self.columns)
        return min(max(row, 0), self.grid[0] - 1), min(max(across, 0), self.grid[1] - 1)


def place(grid: tuple[int, int], size: tuple[int, int], columns: int, lines: int) -> Placement:
    """A picture of ``size`` = (width, height) as large as ``columns`` x ``lines`` have room for, its pixels square.

    A cell of the terminal is taken to be twice as high as wide.
    """
    aspect = size[0] / size[1]
    most = max(min(float(lines), columns / aspect / 2), 1.0)
    even = int(most) // grid[0] * grid[0]
    high = even if even >= _EVEN * most else int(most)
    wide = round(2 * high * aspect)
    if high == even and wide >= grid[1]:
        wide = wide // grid[1] * grid[1]
    return Placement(grid, max(min(wide, columns), 1), high)


def pixels(picture: Image.Image, placement: Placement) -> np.ndarray:
    """``picture`` as (2 lines, columns, 3) uint8: its own pixels where there is room, means where there is not."""
    to = (placement.columns, 2 * placement.lines)
    larger = to[0] >= picture.width and to[1] >= picture.height
    way = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.asarray(picture.convert("RGB").resize(to, way))


def draw(
    shown: np.ndarray,
    placement: Placement,
    cursor: Cell | None,
    selected: Set[Cell],
    *,
    unicode: bool = True,
    colors: bool = True,
) -> list[Strip]:
    """Returns the lines of ``shown`` (as ``pixels`` gives it) with the marks on it; a ruler on top and on the left.

    ``cursor`` None: without any marks.
    """
    characters = UNICODE_MARKS if unicode else ASCII_MARKS
    marked = _marks(placement, cursor, selected, characters) if cursor is not None else {}
    at = placement.point(cursor) if cursor is not None else (-1, -1, 0)
    if cursor is not None and placement.boxes:
        top, left, bottom, right = placement.box(cursor)
        at = ((top + bottom - 1) // 2, (left + right - 1) // 2, 0)
    ruler = "".join(characters.below if column == at[1] else " " for column in range(placement.columns))
    strips = [Strip([Segment(" " + ruler, _BOLD)], placement.columns + 1)]
    means = shown.reshape(placement.lines, 2, placement.columns, 3).mean(1).astype(np.uint8)
    for line in range(placement.lines):
        segments = [Segment(characters.beside if line == at[0] else " ", _BOLD)]
        for column in range(placement.columns):
            character, reversed_ = marked.get((line, column), ("", False))
            mean = tuple(means[line, column].tolist())
            if not colors:
                shade = _SHADES[sum(mean) * len(_SHADES) // (3 * 256)]
                style = _REVERSED if reversed_ else _BOLD if character else PLAIN
                segments.append(Segment(character or shade, style))
            elif character:
                segments.append(Segment(character, _mark_style(mean, reversed_)))
            elif unicode:
                upper, lower = (tuple(shown[2 * line + half, column].tolist()) for half in (0, 1))
                segments.append(Segment(characters.half, _style(upper, lower)))
            else:
                segments.append(Segment(characters.half, _style(mean, mean)))
        strips.append(Strip(Segment.simplify(segments), placement.columns + 1))
    return strips


def _marks(
    placement: Placement, cursor: Cell, selected: Set[Cell], characters: Marks
) -> dict[tuple[int, int], tuple[str, bool]]:
    """By (line, column) of the terminal the mark that stands there, and whether black and white change places."""
    marks: dict[tuple[int, int], tuple[str, bool]] = {}
    for cell in [*sorted(selected - {cursor}), cursor]:  # the cursor last: it is above all others
        here = cell == cursor
        if not placement.boxes:
            line, column, half = placement.point(cell)
            mark = _POINTS["cursor" if here else "selected"][half]
            if not here and marks.get((line, column), (mark, False))[0] != mark:
                mark = ":"  # both halves
            marks[line, column] = mark, here
            continue
        top, left, bottom, right = placement.box(cell)
        corners = [(top, left), (top, right - 1), (bottom - 1, left), (bottom - 1, right - 1)]
        both = here and cell in selected
        if bottom - top == 1:
            ends = _ENDS[2 if both else 0 if here else 1]
            corners, drawn = corners[:2], ends
        else:
            drawn = characters.cursor if here else characters.selected
            if both:
                marks[(top + bottom - 1) // 2, (left + right - 1) // 2] = characters.both, False
        marks |= {corner: (mark, here) for corner, mark in zip(corners, drawn, strict=True)}
    return marks


@lru_cache(1 << 14)
def _style(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> Style:
    return Style.from_color(Color.from_rgb(*upper), Color.from_rgb(*lower))


@lru_cache(1 << 12)
def _mark_style(below: tuple[int, int, int], reversed_: bool) -> Style:
    """A mark over the colour ``below``, in black or white; ``reversed_``: on a ground of these."""
    light = 0.299 * below[0] + 0.587 * below[1] + 0.114 * below[2] > 128
    ink, paper = ((0, 0, 0), (255, 255, 255)) if light else ((255, 255, 255), (0, 0, 0))
    if reversed_:
        return Style.from_color(Color.from_rgb(*paper), Color.from_rgb(*ink)) + Style(bold=True)
    return Style.from_color(Color.from_rgb(*ink), Color.from_rgb(*below)) + Style(bold=True)
