"""The picture in the pixels of the terminal: where it stands, enlarged, and the marks that are drawn into it.

Marks are black beside white, so that they are seen on every picture, and differ by their shape: the cursor is a closed
frame, selected cells lie in a dashed one, edited cells have a notch in a corner.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ndissect.tui.app.painting_cells import Placement
from ndissect.tui.app.painting_edits import Cell

#: What an array of marks holds.
NOTHING, BLACK, WHITE = 0, 1, 2
# Enlarged so much, pixels are shown as squares; below, squares would be of two sizes, which is seen.
_SQUARES = 4


@dataclass(frozen=True)
class PixelPlacement(Placement):
    """As ``Placement``, over terminal cells of ``cell`` = (width, height) pixels; the picture fills all of them."""

    cell: tuple[int, int] = (10, 20)

    @property
    def boxes(self) -> bool:
        """False: cells of the map end anywhere inside of the terminal's."""
        return False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.columns * self.cell[0], self.lines * self.cell[1]

    @property
    def finest(self) -> PixelPlacement:
        """The same place in at most 1,024 pixels, or few more, a side: for terminals that scale pictures."""
        halved = self
        while max(halved.size) > 1024 and min(halved.cell) > 7:
            halved = PixelPlacement(self.grid, self.columns, self.lines, (halved.cell[0] // 2, halved.cell[1] // 2))
        return halved


def place_pixels(
    grid: tuple[int, int], size: tuple[int, int], columns: int, lines: int, cell: tuple[int, int]
) -> PixelPlacement:
    """A picture of ``size`` = (width, height) as large as ``columns`` x ``lines`` cells of the terminal have room for.

    Its sides are those that are whole cells and come nearest to its own shape.
    """
    aspect = size[0] / size[1] * cell[1] / cell[0]  # columns a line
    high = max(min(lines, int(columns / aspect)), 1)
    return PixelPlacement(grid, max(min(round(high * aspect), columns), 1), high, cell)


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """``picture`` in ``size``: its own pixels as squares where it becomes much larger, else smooth."""
    squares = min(size[0] / picture.width, size[1] / picture.height) >= _SQUARES
    return picture.resize(size, Image.Resampling.NEAREST if squares else Image.Resampling.LANCZOS)


def few_colors(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As ``enlarged``, with a palette of which 254 and 255 are black and white for marks."""
    squares = min(size[0] / picture.width, size[1] / picture.height) >= _SQUARES
    small = picture if squares else enlarged(picture, size)
    few = small.quantize(254, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = (few.getpalette() or [])[: 3 * 254]
    few.putpalette([*palette, *[0] * (3 * 254 - len(palette)), 0, 0, 0, 255, 255, 255])
    return few.resize(size, Image.Resampling.NEAREST)


def marks(
    size: tuple[int, int], grid: tuple[int, int], cursor: Cell, selected: Set[Cell], edited: Set[Cell]
) -> np.ndarray:
    """(height, width) uint8 of a picture of ``size`` = (width, height): ``NOTHING``, or the colour of a mark."""
    (width, height), (rows, columns) = size, grid
    ink = np.zeros((height, width), np.uint8)
    tall, wide = height / rows, width / columns
    small = max(int(min(tall, wide)), 1)
    thick = max(1, min(3, small // 16))
    for cell in edited:
        top, left, bottom, right = box(size, grid, cell)
        _notch(ink[top:bottom, left:right], 4 * thick + max(3, small // 6), thick)
    if selected:
        inside = np.zeros(grid, bool)
        inside[tuple(np.array(sorted(selected)).T)] = True
        rows_at, columns_at = np.arange(height) * rows // height, np.arange(width) * columns // width
        rim = _rim(inside[rows_at][:, columns_at], max(1, min(2 * thick, small // 3)))
        _dash(ink, rim, thick)
    top, left, bottom, right = box(size, grid, cursor)
    line = max(2, thick) if min(size) >= 200 else thick  # on a large picture a thin frame is hard to find
    outside = max(0, 3 * line - small // 4)  # around a small cell, not inside of it
    frame = [top - outside, left - outside, bottom + outside, right + outside]
    below = ink.copy()
    for color in (BLACK, WHITE, BLACK):
        _inside(ink, frame)[...] = color
        frame = [frame[0] + line, frame[1] + line, frame[2] - line, frame[3] - line]
    _inside(ink, frame)[...] = _inside(below, frame)
    if cursor in selected:  # dashes inside of the frame, which is above those of its cell
        within = np.zeros(ink.shape, bool)
        _inside(within, frame)[...] = True
        _dash(ink, _rim(within, max(1, min(2 * thick, small // 4))), thick)
    return ink


def box(size: tuple[int, int], grid: tuple[int, int], cell: Cell) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in pixels of a cell of the map, ends not included, at least one pixel large."""
    top, bottom = (-(-i * size[1] // grid[0]) for i in (cell[0], cell[0] + 1))
    left, right = (-(-i * size[0] // grid[1]) for i in (cell[1], cell[1] + 1))
    top, left = min(top, size[1] - 1), min(left, size[0] - 1)
    return top, left, max(bottom, top + 1), max(right, left + 1)


def _inside(pixels: np.ndarray, frame: list[int]) -> np.ndarray:
    top, left, bottom, right = (max(i, 0) for i in frame)
    return pixels[top:bottom, left:right]


def _rim(inside: np.ndarray, thick: int) -> np.ndarray:
    """The pixels of ``inside`` that are at most ``thick`` from one that is not; beyond the picture none is."""
    core = np.pad(inside, 1)
    for _ in range(thick):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    return np.asarray(inside & ~core[1:-1, 1:-1])


def _dash(ink: np.ndarray, where: np.ndarray, thick: int) -> None:
    y, x = np.nonzero(where)
    ink[y, x] = np.where((x + y) // (3 + 2 * thick) % 2, BLACK, WHITE)


def _notch(cell: np.ndarray, side: int, edge: int) -> None:
    """A white triangle with a black edge in the upper left corner."""
    away = np.add.outer(np.arange(cell.shape[0]), np.arange(cell.shape[1]))
    cell[away <= side] = BLACK
    cell[away < side - edge] = WHITE
