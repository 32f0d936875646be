"""The tally's work on a GPU in one kernel: enlarge cells, compare, look labels up, count. Imported where Triton is.

Arithmetic as in ndissect.store.upsampling: float32, each a + w (b - a), and no multiplication joined with the addition
after it, which would round once instead of twice. The launch asks for that: without fusion Triton writes mul.rn and
add.rn, which no later stage may join, and tells ptxas so besides.

A program is one warp with its pixels in a row, a few a lane, and all that it holds lies in that one layout.
A table of cells x pixels, with sums along one axis, would be moved between layouts through shared memory: compiled for
cells of 4 x 4 pixels that was three moves and a barrier in each round of counting labels, which is where layer2 of
ResNet-18 lost to the plain tally. In a row a sum over all pixels is an instruction of the warp, and what differs from
cell to cell is looked up once for each pixel, from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from ndissect.engine.measures.cell_work import CellWork

# From this many pixels on a cell has a program of its own, or several of PIXELS each: what is looked up for a cell is
# then looked up once. Of smaller cells a program has as many as make SMALL_PIXELS: each of its pixels takes registers
# for its cell's corners, and with 256 no more than 16 warps would fit a multiprocessor.
LARGE, PIXELS, SMALL_PIXELS = 64, 256, 128
# The labels of a large cell that are counted together before what is left is counted pixel by pixel. Most cells show
# one to three labels of a map; only noise shows more.
ROUNDS = 8
#: How every launch is compiled.
OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}

SIZES = ["cells", "units", "rows", "cols", "first", "width", "pixels", "columns", "words_each", "ways", "images"]
TABLES = ["index", "corners", "limit", "wy", "wx", "pixel_of", "words", "row", "slot", "area", "hits"]


@triton.jit
def lerp(a, b, w):  # type: ignore[no-untyped-def]
    return a + w * (b - a)


@triton.jit
def pixels_above(a, b, c, d, y, x, above):  # type: ignore[no-untyped-def]
    """Whether pixels at the weights y and x between corners exceed ``above``.

    A corner that is not finite takes part in every pixel of its cell, even at weight zero. Comparisons with NaN are
    false: of pixels beyond a cell's last, whose weight is NaN, none is above, and none is above NaN.
    """
    infinity = float("inf")
    finite = (tl.abs(a) < infinity) & (tl.abs(b) < infinity) & (tl.abs(c) < infinity) & (tl.abs(d) < infinity)
    return lerp(lerp(a, c, y), lerp(b, d, y), x) > tl.where(finite, above, float("nan"))


@triton.jit  # type: ignore[untyped-decorator]
def count_labels(  # type: ignore[no-untyped-def]
    words,
    row,
    slot,
    hits,
    n,
    u,
    pixel,
    hit,
    units,
    pixels,
    columns,
    words_each,
    ways,
    images,
    LABEL: tl.constexpr,
    BITS: tl.constexpr,
    PER_WORD: tl.constexpr,
    ROUNDS: tl.constexpr,
    INTEGER: tl.constexpr,
):
    """Add the pixels where ``hit`` to their labels' bins, in every way of labelling image n.

    ``n``, ``u``: of each pixel; or one for all, and then equal labels are put together in up to ROUNDS rounds: one
    addition for all of a cell's pixels of one label, since neighbours mostly show the same wall or sky. Where each
    pixel has its own, at four or sixteen pixels a cell, additions pixel by pixel are fewer instructions than rounds
    would be, and none waits for an answer.
    """
    for way in range(ways):
        of = tl.load(row + way * images + n).to(INTEGER) * pixels + pixel
        bins = hits + (tl.load(slot + way * images + n).to(INTEGER) * units + u) * columns
        for k in range(words_each):
            word = tl.load(words + of * words_each + k, mask=hit, other=0)
            for i in tl.static_range(PER_WORD):
                label = (word >> (i * BITS)).to(LABEL).to(tl.int32)
                if ROUNDS > 0:
                    largest = tl.max(label, 0)
                    rounds = 0
                    while (largest > 0) & (rounds < ROUNDS):
                        same = label == largest
                        tl.atomic_add(bins + largest, tl.sum(same.to(tl.int32), 0).to(tl.int64), sem="relaxed")
                        label = tl.where(same, 0, label)
                        largest = tl.max(label, 0)
                        rounds += 1
                    if largest > 0:
                        tl.atomic_add(bins + label, (label > 0).to(tl.int64), mask=label > 0, sem="relaxed")
                else:
                    tl.atomic_add(bins + label, (label > 0).to(tl.int64), mask=label > 0, sem="relaxed")


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=TABLES)  # type: ignore[untyped-decorator]
def count_cells(  # type: ignore[no-untyped-def]
    # Read: Cells, the limits, Placement's tables, LabelBatch.words, Labelling's row and slot. Added to: area, hits.
    index,
    corners,
    limit,
    wy,
    wx,
    pixel_of,
    words,
    row,
    slot,
    area,
    hits,
    cells,
    units,
    rows,
    cols,
    first,
    width,
    pixels,
    columns,
    words_each,
    ways,
    images,
    R: tl.constexpr,
    S: tl.constexpr,
    LABEL: tl.constexpr,
    BITS: tl.constexpr,
    PER_WORD: tl.constexpr,
    CELLS: tl.constexpr,
    PIXELS: tl.constexpr,
    ROUNDS: tl.constexpr,
    INTEGER: tl.constexpr,
):
    """Program (i, j): of CELLS cells from the i-th block, the PIXELS pixels of each from the j-th block."""
    q = tl.arange(0, CELLS * PIXELS)
    m = tl.program_id(0).to(INTEGER) * CELLS
    if CELLS > 1:
        m = m + q // PIXELS
    there = m < cells
    flat = tl.load(index + m, mask=there, other=0).to(INTEGER)
    map_of = flat // (rows * cols)
    place = (flat - map_of * (rows * cols)).to(tl.int32)
    n = map_of // units
    u = map_of - n * units
    i = place // cols
    j = place - i * cols
    a = tl.load(corners + m, mask=there, other=0.0)
    b = tl.load(corners + cells.to(INTEGER) + m, mask=there, other=0.0)
    c = tl.load(corners + 2 * cells.to(INTEGER) + m, mask=there, other=0.0)
    d = tl.load(corners + 3 * cells.to(INTEGER) + m, mask=there, other=0.0)

    p = tl.program_id(1) * PIXELS + q % PIXELS
    r = p // S
    s = p - r * S
    y = tl.load(wy + i * R + r, mask=p < R * S, other=float("nan"))
    x = tl.load(wx + j * S + s, mask=p < R * S, other=float("nan"))
    hit = pixels_above(a, b, c, d, y, x, tl.load(limit + u, mask=there, other=float("nan")))

    # A cell's pixels lie side by side on the grid, from its first.
    pixel = tl.load(pixel_of + place * (R * S)).to(tl.int32) + r * width + s
    if CELLS == 1:
        count = tl.sum(hit.to(tl.int32), 0)
        any_hit = count > 0
        if any_hit:
            tl.atomic_add(area + (map_of + first * units), count.to(tl.int64), sem="relaxed")
    else:
        # Cells come in order: a program has few maps, and one addition for each.
        of_map = tl.where(hit, map_of + first * units, -1)
        largest = tl.max(of_map, 0)
        any_hit = largest >= 0
        while largest >= 0:
            same = of_map == largest
            tl.atomic_add(area + largest, tl.sum(same.to(tl.int32), 0).to(tl.int64), sem="relaxed")
            of_map = tl.where(same, -1, of_map)
            largest = tl.max(of_map, 0)
    if any_hit:
        count_labels(
            words,
            row,
            slot,
            hits,
            n,
            u,
            pixel,
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


def constants(R: int, S: int, label_bytes: int, word_bytes: int, wide: bool = False) -> dict[str, object]:
    """What the kernel is compiled for: cells of up to R x S pixels, and labels of that size in such words.

    ``wide``: some place in some table is beyond 2^31.
    """
    size = max(4, triton.next_power_of_2(R * S))
    cells = max(1, SMALL_PIXELS // size) if size < LARGE else 1
    return {
        "R": R,
        "S": S,
        "CELLS": cells,
        "PIXELS": min(size, PIXELS),
        "ROUNDS": ROUNDS if cells == 1 else 0,
        "INTEGER": tl.int64 if wide else tl.int32,
        **label_constants(label_bytes, word_bytes),
    }


def label_constants(label_bytes: int, word_bytes: int) -> dict[str, object]:
    """How labels of that size lie in such words."""
    return {
        "LABEL": {2: tl.int16, 4: tl.int32}[label_bytes],
        "BITS": 8 * label_bytes,
        "PER_WORD": word_bytes // label_bytes,
    }


def launch(work: CellWork, area: Tensor, hits: Tensor) -> None:
    """Add the counts of ``work`` to ``area`` (N U,) and ``hits`` (bins,) int64. Allocates nothing that is large."""
    cells, labels, at = work.cells, work.labelling.labels, work.at
    images, units, rows, cols = cells.shape
    words = labels.words()
    R, S = at.wy.shape[1], at.wx.shape[1]
    places = (images * units * rows * cols, 4 * len(cells), words.numel(), hits.numel(), area.numel())
    form = constants(R, S, labels.pixels.element_size(), words.element_size(), max(places) >= 2**31)
    grid = (triton.cdiv(len(cells), form["CELLS"]), triton.cdiv(R * S, form["PIXELS"]))
    count_cells[grid](
        cells.index.contiguous(),
        cells.corners.contiguous(),
        work.limit.contiguous(),
        at.wy,
        at.wx,
        at.pixel,
        words,
        work.labelling.row.contiguous(),
        work.labelling.slot.contiguous(),
        area,
        hits,
        len(cells),
        units,
        rows,
        cols,
        work.first,
        at.width,
        at.pixels,
        work.columns,
        words.shape[1],
        *work.labelling.row.shape,
        **form,
        **OPTIONS,
    )
