"""The tally's work on a GPU in one kernel: enlarge cells, compare, look labels up, count. Imported where Triton is.

Arithmetic as in ndissect.store.upsampling: float32, each a + w (b - a), and no multiplication joined with the addition
after it, which would round once instead of twice. The launch asks for that: without fusion Triton writes mul.rn and
add.rn, which no later stage may join, and tells ptxas so besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from ndissect.engine.measures.cell_work import CellWork

# Pixels of one program, which is a single warp: sums and maxima then need no shared memory and no waiting.
PIXELS = 256
# The labels of a cell that are counted together before what is left is counted pixel by pixel. Most cells show one to
# three labels of a map; only noise shows more.
ROUNDS = 8
#: How every launch is compiled.
OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}

_SIZES = ["cells", "units", "rows", "cols", "first", "width", "pixels", "columns", "words_each"]


@triton.jit
def _lerp(a, b, w):  # type: ignore[no-untyped-def]
    return a + w * (b - a)


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def count_cells(  # type: ignore[no-untyped-def]
    # Read: Cells, the limits, Placement's tables, LabelBatch.words and the slots. Added to: area, hits.
    index,
    corners,
    limit,
    wy,
    wx,
    pixel_of,
    words,
    group,
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
    R: tl.constexpr,
    S: tl.constexpr,
    LABEL: tl.constexpr,
    BITS: tl.constexpr,
    PER_WORD: tl.constexpr,
    CELLS: tl.constexpr,
    PIXELS: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    """Program (i, j): of CELLS cells from the i-th block, the PIXELS pixels of each from the j-th block."""
    m = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    there = m < cells
    flat = tl.load(index + m, mask=there, other=0)
    which, place = flat // (rows * cols), flat % (rows * cols)
    n, u = (which // units).to(tl.int64), which % units
    a = tl.load(corners + m, mask=there, other=0.0)
    b = tl.load(corners + cells + m, mask=there, other=0.0)
    c = tl.load(corners + 2 * cells.to(tl.int64) + m, mask=there, other=0.0)
    d = tl.load(corners + 3 * cells.to(tl.int64) + m, mask=there, other=0.0)
    # A corner that is not finite takes part in every pixel of its cell, even at weight zero.
    infinity = float("inf")
    finite = (tl.abs(a) < infinity) & (tl.abs(b) < infinity) & (tl.abs(c) < infinity) & (tl.abs(d) < infinity)
    above = tl.load(limit + u)

    p = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    r, s, inside = p // S, p % S, p < R * S
    y = tl.load(wy + (place // cols)[:, None] * R + r[None, :], mask=inside[None, :], other=float("nan"))
    x = tl.load(wx + (place % cols)[:, None] * S + s[None, :], mask=inside[None, :], other=float("nan"))
    left, right = _lerp(a[:, None], c[:, None], y), _lerp(b[:, None], d[:, None], y)
    # Comparisons with NaN are false: of pixels beyond the cell's last, whose weight is NaN, none is hit.
    hit = (_lerp(left, right, x) > above[:, None]) & (there & finite)[:, None]

    per_cell = tl.sum(hit.to(tl.int32), 1)
    image = n + first
    tl.atomic_add(area + image * units + u, per_cell.to(tl.int64), mask=per_cell > 0, sem="relaxed")

    # A cell's pixels lie side by side on the grid, from its first.
    start = n * pixels + tl.load(pixel_of + place.to(tl.int64) * (R * S))
    pixel = start[:, None] + (r * width + s)[None, :]
    bins = hits + (tl.load(group + n, mask=there, other=0) * units + u) * columns
    for k in range(words_each):
        word = tl.load(words + pixel * words_each + k, mask=hit, other=0)
        for i in tl.static_range(PER_WORD):
            label = (word >> (i * BITS)).to(LABEL).to(tl.int32)
            # One addition for all of a cell's pixels of one label: neighbours mostly show the same wall or sky.
            largest = tl.max(label, 1)
            rounds = 0
            while (tl.max(largest, 0) > 0) & (rounds < ROUNDS):
                same = label == largest[:, None]
                tl.atomic_add(
                    bins + largest, tl.sum(same.to(tl.int32), 1).to(tl.int64), mask=largest > 0, sem="relaxed"
                )
                label = tl.where(same, 0, label)
                largest = tl.max(label, 1)
                rounds += 1
            one = tl.full((CELLS, PIXELS), 1, tl.int64)
            tl.atomic_add(bins[:, None] + label, one, mask=label > 0, sem="relaxed")


def constants(R: int, S: int, label_bytes: int, word_bytes: int) -> dict[str, object]:
    """What the kernel is compiled for: cells of up to R x S pixels, and labels of that size in such words."""
    pixels = min(PIXELS, triton.next_power_of_2(R * S))
    return {
        "R": R,
        "S": S,
        "LABEL": {2: tl.int16, 4: tl.int32}[label_bytes],
        "BITS": 8 * label_bytes,
        "PER_WORD": word_bytes // label_bytes,
        "CELLS": PIXELS // pixels,
        "PIXELS": pixels,
        "ROUNDS": ROUNDS,
    }


def launch(work: CellWork, area: Tensor, hits: Tensor) -> None:
    """Add the counts of ``work`` to ``area`` (N U,) and ``hits`` (bins,) int64."""
    cells, labels, at = work.cells, work.labelling.labels, work.at
    _, units, rows, cols = cells.shape
    all_words = labels.words().view(len(labels.pixels), at.pixels, -1)
    R, S = at.wy.shape[1], at.wx.shape[1]
    form = constants(R, S, labels.pixels.element_size(), all_words.element_size())
    grid = (triton.cdiv(len(cells), form["CELLS"]), triton.cdiv(R * S, form["PIXELS"]))
    areas = [area, *(area.new_zeros(area.shape) for _ in work.labelling.row[1:])]  # the same masks: one counts
    for row, slot, counted in zip(work.labelling.row, work.labelling.slot, areas, strict=True):
        words = all_words[row]
        count_cells[grid](
            cells.index.contiguous(),
            cells.corners.contiguous(),
            work.limit.contiguous(),
            at.wy,
            at.wx,
            at.pixel,
            words,
            slot.contiguous(),
            counted,
            hits,
            len(cells),
            units,
            rows,
            cols,
            work.first,
            at.width,
            at.pixels,
            work.columns,
            words.shape[2],
            **form,
            **OPTIONS,
        )
