"""Looking for active cells and counting them in one pass over the maps, in one launch. Imported where Triton is.

A program looks at the cells of a tile and mostly ends there: few have a corner above the limit. Of those that have one
it takes as many neighbours as make up its row of pixels, the last first: one cell of 16 x 16 pixels, or 64 of 2 x 2,
which are a row of cells of layer1 of ResNet-18. All are of one map, so that image, unit and limit are the program's and
not the pixel's. Their corners are loaded once more, from the cache, rather than taken from the lanes that have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from ndissect.engine.measures.fused_kernel import OPTIONS, PIXELS, ROUNDS, count_labels, label_constants, pixels_above
from ndissect.engine.measures.map_tiles import cells_of_tile, corners_of, first_of_tile, tiles_of

if TYPE_CHECKING:
    from torch import Tensor

    from ndissect.engine.measures.map_work import MapWork

_SIZES = ["count", "units", "h", "w", "down", "across", "width", "pixels", "columns", "words_each", "ways", "images"]
_TABLES = ["maps", "limit", "wy", "wx", "pixel_of", "words", "row_of", "slot_of", "area", "hits"]


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_TABLES)  # type: ignore[untyped-decorator]
def count_maps(  # type: ignore[no-untyped-def]
    # Read: maps, the limits, Placement's tables, LabelBatch.words, Labelling's row and slot. Added to: area, hits.
    maps,
    limit,
    wy,
    wx,
    pixel_of,
    words,
    row_of,
    slot_of,
    area,
    hits,
    count,
    units,
    h,
    w,
    down,
    across,
    width,
    pixels,
    columns,
    words_each,
    ways,
    images,
    R: tl.constexpr,
    S: tl.constexpr,
    MAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ZERO: tl.constexpr,
    CELLS: tl.constexpr,
    EACH: tl.constexpr,
    BLOCKS: tl.constexpr,
    LABEL: tl.constexpr,
    BITS: tl.constexpr,
    PER_WORD: tl.constexpr,
    ROUNDS: tl.constexpr,
    INTEGER: tl.constexpr,
):
    """Program i: of the cells of tile i the active ones, in groups of CELLS with up to EACH x BLOCKS pixels."""
    first_map, first_row, first_col = first_of_tile(tl.program_id(0), down, across, MAPS, ROWS, COLS)
    _, _, _, _, _, _, _, active = cells_of_tile(
        maps, limit, count, units, h, w, first_map, first_row, first_col, MAPS, ROWS, COLS, ZERO
    )
    left = tl.where(active, tl.arange(0, MAPS * ROWS * COLS), -1)
    last = tl.max(left, 0)
    q = tl.arange(0, CELLS * EACH)
    while last >= 0:
        start = last // CELLS * CELLS
        k = first_map + start // (ROWS * COLS)
        n = k // units
        u = k - n * units
        g = start
        if CELLS > 1:
            g = g + q // EACH
        row = first_row + g // COLS % ROWS
        col = first_col + g % COLS
        there = (row <= h) & (col <= w)
        a, b, c, d = corners_of(maps + k.to(tl.int64) * (h * w), row, col, h, w, there, ZERO)
        above = tl.load(limit + u)
        # Nothing counts in cells that are not active, nor in what lies beyond the map's last and stands for those.
        above = tl.where((a > above) | (b > above) | (c > above) | (d > above), above, float("nan"))
        above = tl.where(there, above, float("nan"))
        row, col = tl.minimum(row, h), tl.minimum(col, w)
        # A cell's pixels lie side by side on the grid, from its first.
        first_pixel = tl.load(pixel_of + (row * (w + 1) + col) * (R * S)).to(tl.int32)
        for block in range(BLOCKS):
            p = block * EACH + q % EACH
            r = p // S
            s = p - r * S
            y = tl.load(wy + row * R + r, mask=p < R * S, other=float("nan"))
            x = tl.load(wx + col * S + s, mask=p < R * S, other=float("nan"))
            hit = pixels_above(a, b, c, d, y, x, above)
            per_map = tl.sum(hit.to(tl.int32), 0)
            if per_map > 0:
                tl.atomic_add(area + k, per_map.to(tl.int64), sem="relaxed")
                count_labels(
                    words,
                    row_of,
                    slot_of,
                    hits,
                    n,
                    u,
                    first_pixel + r * width + s,
                    hit,
                    units,
                    pixels,
                    columns,
                    words_each,
                    ways,
                    images,
                    LABEL,
                    BITS,
                    PER_WORD,
                    ROUNDS,
                    INTEGER,
                )
        left = tl.where(left < start, left, -1)
        last = tl.max(left, 0)


def constants(R: int, S: int, cells: int) -> dict[str, object]:
    """How many cells of up to R x S pixels, of ``cells`` that a tile has of a map, are counted together."""
    together = max(1, min(PIXELS // max(4, triton.next_power_of_2(R * S)), cells))
    each = PIXELS // together
    return {"R": R, "S": S, "CELLS": together, "EACH": each, "BLOCKS": triton.cdiv(R * S, each), "ROUNDS": ROUNDS}


def launch(work: MapWork, area: Tensor, hits: Tensor) -> None:
    """Add the counts of ``work`` to ``area`` (N U,) and ``hits`` (bins,) int64. Allocates nothing that is large."""
    labels, at, maps = work.labelling.labels, work.at, work.maps.contiguous()
    images, units, h, w = maps.shape
    words, tiles = labels.words(), tiles_of(maps)
    R, S = at.wy.shape[1], at.wx.shape[1]
    wide = max(words.numel(), hits.numel(), area.numel()) >= 2**31
    count_maps[(tiles.count,)](
        maps,
        work.limit.contiguous(),
        at.wy,
        at.wx,
        at.pixel,
        words,
        work.labelling.row.contiguous(),
        work.labelling.slot.contiguous(),
        area,
        hits,
        images * units,
        units,
        h,
        w,
        tiles.down,
        tiles.across,
        at.width,
        at.pixels,
        work.columns,
        words.shape[1],
        *work.labelling.row.shape,
        ZERO=work.upsampling == "half-pixel-zero",
        INTEGER=tl.int64 if wide else tl.int32,
        **tiles.constants,
        **constants(R, S, tiles.ROWS * tiles.COLS),
        **label_constants(labels.pixels.element_size(), words.element_size()),
        **OPTIONS,
    )
