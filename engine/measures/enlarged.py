"""The values of enlarged maps, found without enlarging most of the maps.

Most cells (ndissect.engine.measures.cells) lie below what is asked for. Of the others the pixels are made row after
row and looked at in a CPU's caches: counted, or taken where they are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.guess import places
from ndissect.engine.measures.label_grid import Placement, enlarge
from ndissect.engine.measures.samples import UnitValues

# Values that are interpolated at once, on a GPU and (to stay in its caches) on a CPU.
_PIXELS_AT_ONCE = (1 << 24, 1 << 20)
# Rows of cells that are looked at together, likewise.
_ROWS_AT_ONCE = (1 << 22, 1 << 16)
# A sample is made of so many cells, and has every so many-th row and column of each.
_SAMPLED_CELLS, _SAMPLED = 1 << 18, 4


@dataclass(frozen=True)
class EnlargedCells:
    """The pixels of M cells of maps of finite values, none of them made yet.

    ``cells``: of any images, as if they were of one: their places are neither in order nor distinct; ``at``: how they
    lie on the label grid.
    """

    cells: Cells
    at: Placement

    @classmethod
    def of(cls, cells: Cells, at: Placement) -> EnlargedCells:
        """The pixels of ``cells``."""
        _, U, rows, cols = cells.shape
        index = cells.index % (U * rows * cols)
        return cls(Cells((1, U, rows, cols), index, cells.corners), at)

    @classmethod
    def joined(cls, several: Sequence[EnlargedCells]) -> EnlargedCells:
        """Those of several batches."""
        index = torch.cat([some.cells.index for some in several])
        corners = torch.cat([some.cells.corners for some in several], 1)
        return cls(Cells(several[0].cells.shape, index, corners), several[0].at)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return self.cells.nbytes

    def parts(self, pixels: int) -> list[EnlargedCells]:
        """The same in parts of about so many ``pixels``."""
        step = max(1, pixels // self.at.pixel.shape[1])
        return [self._some(slice(start, start + step)) for start in range(0, len(self), step)]

    def _some(self, which: slice) -> EnlargedCells:
        cells = self.cells
        return EnlargedCells(Cells(cells.shape, cells.index[which], cells.corners[:, which]), self.at)

    def values_above(self, limit: Tensor) -> UnitValues:
        """All pixels above their unit's ``limit`` (U,); the host waits."""
        return enlarged_above(self.cells, limit, self.at)

    def sample(self, limit: Tensor) -> tuple[list[UnitValues], float]:
        """(values, share): of about that share of all pixels those above ``limit`` (U,); the host waits."""
        count, values = min(len(self), _SAMPLED_CELLS), []
        drawn = np.random.default_rng(0).integers(0, len(self), count)
        for which, at in zip(np.array_split(drawn, _SAMPLED**2), self.at.thinned(_SAMPLED), strict=True):
            some = torch.from_numpy(which).to(limit.device)
            cells = self.cells.index.index_select(0, some), self.cells.corners.index_select(1, some)
            values.append(enlarged_above(Cells(self.cells.shape, *cells), limit, at))
        return values, count / len(self) / _SAMPLED**2

    def reaching(self, limit: Tensor) -> tuple[Tensor, Tensor]:
        """(U,) int64: not more pixels than reach ``limit`` (U,), and all that exceed it; (M,) bool: the cells of these.

        The host waits.
        """
        cells, unit = self.cells, self.units()
        least = limit.index_select(0, unit)
        # No pixel lies below all the corners of its cell (ndissect.store.upsampling).
        whole = cells.corners.amin(0) >= least
        (others,) = places((cells.corners.amax(0) > least).logical_and_(~whole))
        count = self.at.sizes().index_select(0, cells.index % len(self.at.pixel)) * whole
        for cell, pixels in _rows_above(cells, others, limit, self.at):
            count.index_add_(0, cell, _number(pixels > least.index_select(0, cell)))
        return torch.zeros(len(limit), dtype=torch.int64, device=limit.device).index_add_(0, unit, count), count > 0

    def chosen(self, which: Tensor) -> EnlargedCells:
        """Those ``which`` (M,) bool; the host waits."""
        (some,), cells = places(which), self.cells
        return EnlargedCells(
            Cells(cells.shape, cells.index.index_select(0, some), cells.corners.index_select(1, some)), self.at
        )

    def units(self) -> Tensor:
        """(M,): the unit of each cell."""
        return self.cells.index // (self.cells.shape[2] * self.cells.shape[3])

    def between(self, low: Tensor, high: Tensor) -> tuple[Tensor, UnitValues]:
        """(U,) int64: how many pixels exceed ``low`` (U,), and those of them that do not exceed ``high`` (U,).

        The host waits.
        """
        count = torch.zeros(len(low), dtype=torch.int64, device=low.device)
        inside, values, units = torch.zeros_like(count), [low.new_zeros(0)], [count[:0]]
        unit_of = self.units()
        (some,) = places(self.cells.corners.amax(0) > low.index_select(0, unit_of))
        for cell, pixels in _rows_above(self.cells, some, low, self.at):
            unit = unit_of.index_select(0, cell).long()
            above = pixels > low.index_select(0, unit)
            count.index_add_(0, unit, _number(above))
            (wanted,) = places(above.logical_and_(pixels <= high.index_select(0, unit)).view(-1))
            values.append(pixels.view(-1).index_select(0, wanted))
            units.append(unit.index_select(0, wanted % len(unit)))
        of_unit = torch.cat(units)
        inside.index_add_(0, of_unit, torch.ones_like(of_unit))
        order = of_unit.to(torch.int32).argsort(stable=True)
        return count, UnitValues(inside, torch.cat(values).index_select(0, order))


def enlarged_above(cells: Cells, bound: Tensor, at: Placement) -> UnitValues:
    """The pixels above their unit's ``bound`` (U,) of maps whose ``cells`` hold all those with a corner above it.

    A pixel lies in one cell, and does not exceed the largest of its corners. The host waits.
    """
    _, U, rows, cols = cells.shape
    step = max(1, _PIXELS_AT_ONCE[bound.device.type == "cpu"] // max(1, at.pixel.shape[1]))
    order = (cells.index // (rows * cols) % U).to(torch.int32).argsort(stable=True)  # unit after unit
    count, values = torch.zeros(U, dtype=torch.int64, device=bound.device), [bound.new_zeros(0)]
    for start in range(0, len(cells), step):
        some = order[start : start + step]
        index = cells.index.index_select(0, some).long()
        place, unit = index % (rows * cols), index // (rows * cols) % U
        wy, wx = at.wy.index_select(0, place // cols), at.wx.index_select(0, place % cols)
        value = enlarge(cells.corners.index_select(1, some), wy, wx)
        above = value > bound.index_select(0, unit)[:, None, None]  # false where a cell has fewer pixels
        values.append(value[above])
        count.index_add_(0, unit, above.sum((1, 2)))
    return UnitValues(count, torch.cat(values))


def _number(true: Tensor) -> Tensor:
    """(S, m) bool -> (m,) int64: how many are true in each column."""
    return true.sum(0, dtype=torch.int8 if len(true) < 128 else torch.int32).long()


def _rows_above(cells: Cells, some: Tensor, limit: Tensor, at: Placement) -> Iterator[tuple[Tensor, Tensor]]:
    """All rows of pixels of ``some`` (M,) of the cells that may hold one above ``limit`` (U,): (cell, pixels).

    Some cells at a time. ``cell`` (m,) int64: each row's cell; ``pixels`` (S, m) float32, with NaN where a cell has
    fewer. The arithmetic is that of :func:`enlarge`. The host waits.
    """
    _, _, rows, cols = cells.shape
    wy, wx = at.wy.T.contiguous(), at.wx.T.contiguous()
    step = max(1, _ROWS_AT_ONCE[wy.device.type == "cpu"] // len(wy))
    for start in range(0, len(some), step):
        which = some[start : start + step]
        index = cells.index.index_select(0, which)
        unit, place = index // (rows * cols), index % (rows * cols)
        a, b, c, d = cells.corners.index_select(1, which)
        y, col = wy.index_select(1, place // cols), place % cols
        left, right = (c - a).mul(y).add_(a), (d - b).mul(y).add_(b)
        # No pixel exceeds both ends of its row.
        (active,) = places((torch.maximum(left, right) > limit.index_select(0, unit)).view(-1))
        left, right, cell = left.view(-1)[active], right.view(-1)[active], active % len(which)
        x = wx.index_select(1, col.index_select(0, cell))
        yield which.index_select(0, cell), x.mul_(right - left).add_(left)
