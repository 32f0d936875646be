"""How programs of a GPU share the cells of whole maps: in tiles, in order. Imported where Triton is.

A tile has rows and columns of cells in powers of two, so that a cell's place in it is known without a division, and
holds several small maps, or some rows of a large one: maps of 7 x 7 samples have 8 x 8 cells and come eight to a tile,
those of 56 x 56 have 57 x 57 and come in strips of eight rows of 64. Tiles, and cells in a tile, are in rising order of
the cells' flat places.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

# Cells of one tile, which is one warp's work: sixteen a lane, so that there is much to wait for at once.
TILE = 512


@dataclass(frozen=True)
class Tiles:
    """Tiles of MAPS x ROWS x COLS cells over maps of ``rows`` x ``cols`` cells, ``down`` x ``across`` to a map."""

    MAPS: int
    ROWS: int
    COLS: int
    down: int
    across: int
    count: int

    @property
    def constants(self) -> dict[str, object]:
        """What kernels are compiled for."""
        return {"MAPS": self.MAPS, "ROWS": self.ROWS, "COLS": self.COLS}


def tiles_of(maps: Tensor) -> Tiles:
    """The tiles over ``maps`` (N, U, h, w)."""
    N, U, h, w = maps.shape
    COLS = min(TILE, triton.next_power_of_2(w + 1))
    ROWS = min(TILE // COLS, triton.next_power_of_2(h + 1))
    MAPS = TILE // (ROWS * COLS)
    down, across = triton.cdiv(h + 1, ROWS), triton.cdiv(w + 1, COLS)
    return Tiles(MAPS, ROWS, COLS, down, across, triton.cdiv(N * U, MAPS) * down * across)


@triton.jit  # type: ignore[untyped-decorator]
def sample(maps, y, x, h, w, there, ZERO: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sample (y, x), from -1 to h or w, of the padded map that begins at ``maps``, as float32."""
    if ZERO:
        there = there & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    else:
        y = tl.minimum(tl.maximum(y, 0), h - 1)
        x = tl.minimum(tl.maximum(x, 0), w - 1)
    return tl.load(maps + (y * w + x), mask=there, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def corners_of(maps, row, col, h, w, there, ZERO: tl.constexpr):  # type: ignore[no-untyped-def]
    """The corners of cells (row, col): top left, top right, bottom left, bottom right."""
    a = sample(maps, row - 1, col - 1, h, w, there, ZERO)
    b = sample(maps, row - 1, col, h, w, there, ZERO)
    c = sample(maps, row, col - 1, h, w, there, ZERO)
    d = sample(maps, row, col, h, w, there, ZERO)
    return a, b, c, d


@triton.jit  # type: ignore[untyped-decorator]
def first_of_tile(  # type: ignore[no-untyped-def]
    tile, down, across, MAPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """The first map, row and column of a tile."""
    strips = down * across
    maps = tile // strips
    strip = tile - maps * strips
    return maps * MAPS, strip // across * ROWS, strip % across * COLS


@triton.jit  # type: ignore[untyped-decorator]
def cells_of_tile(  # type: ignore[no-untyped-def]
    maps,
    limit,
    count,
    units,
    h,
    w,
    first_map,
    first_row,
    first_col,
    MAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ZERO: tl.constexpr,
):
    """Of each cell of a tile: its map, row, column, corners, and whether one of those exceeds its unit's limit."""
    t = tl.arange(0, MAPS * ROWS * COLS)
    row = first_row + t // COLS % ROWS
    col = first_col + t % COLS
    k = first_map
    if MAPS > 1:
        k = k + t // (ROWS * COLS)
    there = (k < count) & (row <= h) & (col <= w)
    above = tl.load(limit + k % units)
    a, b, c, d = corners_of(maps + k.to(tl.int64) * (h * w), row, col, h, w, there, ZERO)
    active = ((a > above) | (b > above) | (c > above) | (d > above)) & there
    return k, row, col, a, b, c, d, active
