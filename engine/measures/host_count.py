"""Counting a piece of work on the host, in numpy: mask pixels in a row and of the same labels are counted as one.

Between the corners of a cell a row of pixels rises or falls from end to end, in float32 as well, since every step of
the arithmetic is monotonic. So the mask's pixels in a row of a cell are its first ones or its last ones: a start and a
length, found for all pixels at once by counting. Neighbouring pixels mostly show the same wall or sky, so such a span
is soon cut where labels change (ndissect.engine.passes.labels.run_lengths), and what is left to count is a sixth of the
pixels in a layer of 7 x 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.machine.in_order import in_order
from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.plain_count import AddHits
from ndissect.engine.passes.labels import run_lengths

# Pixels of the cells that are looked at together: what is made of them stays in a CPU's caches.
_PIXELS_AT_ONCE = 1 << 22
# Hits that are handed over together.
_BINS_AT_ONCE = 1 << 22

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Spans:
    """Q runs of mask pixels, each in one row of one cell.

    ``image_unit`` (Q,): n U + u; ``pixel`` (Q,) int64: the first, as a place on the grid; ``length`` (Q,) int32: 1 or
    more.
    """

    image_unit: _Array
    pixel: _Array
    length: _Array


def count_on_host(work: CellWork, area: Tensor, add: AddHits) -> None:
    """Add the mask pixels of ``work`` to ``area`` (N U,) int64, and hand the bins of their labels to ``add``.

    By as many threads as torch computes with.
    """
    areas, U = area.numpy(), work.cells.shape[1]
    bins: list[_Array] = []
    times: list[_Array] = []

    def hand_over() -> None:
        if bins:
            add(torch.from_numpy(np.concatenate(bins)), torch.from_numpy(np.concatenate(times)))
            bins.clear()
            times.clear()

    for counted in _in_parts(work):
        np.add.at(areas, counted.image_unit + work.first * U, counted.length)
        bins += counted.bins
        times += counted.times
        if sum(map(len, bins)) > _BINS_AT_ONCE:
            hand_over()
    hand_over()


@dataclass(frozen=True)
class _Counted:
    """Mask pixels of some cells: ``length`` (Q,) of the image and unit ``image_unit`` (Q,) each.

    ``bins``, ``times``: arrays of bins that they count in, and how often.
    """

    image_unit: _Array
    length: _Array
    bins: list[_Array]
    times: list[_Array]


def _in_parts(work: CellWork) -> Iterator[_Counted]:
    """All cells of ``work``, as many at a time as fit the caches, in their order."""
    tables, labels = _Tables(work), _Labels(work)

    def count(start: int) -> _Counted:
        spans = _spans(work, tables, start)
        return labels.count(work, spans)

    starts = range(0, len(work.cells), tables.step)
    threads = min(torch.get_num_threads(), len(starts))
    return in_order(count, starts, threads, 2 * threads) if threads > 1 else map(count, starts)


class _Labels:
    """The labels of ``work`` as arrays, to count spans of mask pixels by."""

    def __init__(self, work: CellWork) -> None:
        labelling = work.labelling
        self._each = labelling.labels.pixels.shape[2]
        self._kind = _numpy_kind(labelling.labels.pixels)
        self._words = labelling.labels.words().numpy()
        runs = run_lengths(labelling.labels) if labelling.runs is None else labelling.runs
        self._runs = runs.numpy().reshape(-1)
        self._rows, self._slots = labelling.row.numpy(), labelling.slot.numpy()
        bins = (int(self._slots.max(initial=0)) + 1) * work.cells.shape[1] * work.columns
        self._bin_kind = np.int32 if bins < 2**31 else np.int64

    def count(self, work: CellWork, spans: _Spans) -> _Counted:
        U = work.cells.shape[1]
        n, u = np.divmod(spans.image_unit, U)
        bins, times = [], []
        for row, slot in zip(self._rows, self._slots, strict=True):
            first_bin = ((slot.take(n) * U + u) * work.columns).astype(self._bin_kind)
            first_pixel = row.take(n) * work.at.pixels + spans.pixel
            for place, length, base in _of_one_label(first_pixel, spans.length, first_bin, self._runs):
                label = self._words.take(place, axis=0).view(self._kind).reshape(-1)
                labelled = np.flatnonzero(label != 0)
                which = labelled // self._each
                bins.append(base.take(which) + label.take(labelled))
                times.append(length.take(which))
        return _Counted(spans.image_unit, spans.length, bins, times)


def _numpy_kind(pixels: Tensor) -> type[np.int16] | type[np.int32]:
    return np.int16 if pixels.dtype == torch.int16 else np.int32


class _Tables:
    """Where cells lie on the label grid, as arrays; ``step``: how many cells are looked at together."""

    def __init__(self, work: CellWork) -> None:
        at = work.at
        self.wy, self.wx = np.ascontiguousarray(at.wy.numpy().T), np.ascontiguousarray(at.wx.numpy().T)
        self.pixels_across = (~np.isnan(self.wx)).sum(0, dtype=np.int32)
        self.first_of_row = np.ascontiguousarray(at.pixel.numpy()[:, :: len(self.wx)])
        self.step = max(1, _PIXELS_AT_ONCE // (len(self.wy) * len(self.wx)))


def _spans(work: CellWork, tables: _Tables, start: int) -> _Spans:
    """The spans of mask pixels in all rows of some cells, the first of them the cell ``start``."""
    (_, U, rows, cols), wx, some = work.cells.shape, tables.wx, slice(start, start + tables.step)
    image_unit, place = np.divmod(work.cells.index[some].numpy(), rows * cols)
    above, corners = work.limit.numpy().take(image_unit % U), work.cells.corners[:, some].numpy()
    a, b, c, d = np.where(np.isfinite(corners), corners, np.float32(np.nan))
    y = tables.wy.take(place // cols, axis=1)
    left, right = _lerp(a, c, y), _lerp(b, d, y)  # (R, cells)
    # No pixel exceeds both ends of its row (ndissect.store.upsampling). Comparisons with NaN are false.
    active = np.flatnonzero(np.maximum(left, right) > above)
    row, cell = np.divmod(active, len(place))
    left, right, place = left.take(active), right.take(active), place.take(cell)
    hit = _lerp(left, right, wx.take(place % cols, axis=1)) > above.take(cell)  # (S, rows)
    length = np.add.reduce(hit.view(np.int8), axis=0, dtype=np.int32)
    there = np.flatnonzero(length)
    length, place = length.take(there), place.take(there)
    rises = right.take(there) > left.take(there)
    skipped = np.where(rises, tables.pixels_across.take(place % cols) - length, 0)
    return _Spans(
        image_unit.take(cell.take(there)).astype(np.int64),
        tables.first_of_row[place, row.take(there)] + skipped,
        length,
    )


def _lerp(a: _Array, b: _Array, weight: _Array) -> _Array:
    with np.errstate(over="ignore", invalid="ignore"):  # a difference may be infinite, and a weight NaN
        return np.asarray(a + weight * (b - a))


def _of_one_label(
    place: _Array, length: _Array, base: _Array, runs: npt.NDArray[np.uint8]
) -> Iterator[tuple[_Array, _Array, _Array]]:
    """Spans cut where the labels change: (place, length, base) of the first parts, of the second parts, and so on."""
    while len(place):
        run = runs.take(place)
        yield place, np.minimum(run, length), base
        longer = np.flatnonzero(length > run)
        run = run.take(longer)
        place, length, base = place.take(longer) + run, length.take(longer) - run, base.take(longer)
