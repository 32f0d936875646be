"""The largest values of enlarged maps, kept as the cells that hold them: a cell is kept instead of all its pixels.

How large the ``kept``-th largest value is, a sample of the pixels tells nearly. Whether enough pixels reach a value a
little below is then counted, which makes it a bound. In the end a narrow range about the order statistics is taken
from the pixels, and what lies above it is only counted. So every result is exact, whatever the sample was.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.measures.enlarged import EnlargedCells
from ndissect.engine.measures.samples import UnitValues

# The bound is raised when there are so many times as many cells as were left the last time, and so many more.
_GROWN, _MORE = 2, 1 << 14
# How far from what a sample tells an order statistic is looked for: a share of its rank, and standard deviations.
_SHARE, _DEVIATIONS = 0.01, 3.0


class CellTail:
    """The cells of ``units`` units that hold each unit's ``kept`` largest pixels.

    ``bound`` (U,) float32: not above the ``kept``-th largest pixel so far, -inf before there are as many. All pixels
    that exceed it are in the cells.
    """

    def __init__(self, units: int, kept: int, device: torch.device) -> None:
        self._kept = kept
        self.bound = torch.full((units,), -torch.inf, device=device)
        self._cells: list[EnlargedCells] = []
        self._left = 0  # cells, when the bound was raised

    def copy(self) -> CellTail:
        """Another with the same cells, which takes more by itself."""
        other = copy.copy(self)
        other._cells = list(self._cells)
        return other

    @property
    def cells(self) -> EnlargedCells:
        """All cells, of which there are some."""
        if len(self._cells) > 1:
            self._cells = [EnlargedCells.joined(self._cells)]
        return self._cells[0]

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(some.nbytes for some in self._cells)

    def __len__(self) -> int:
        return sum(map(len, self._cells))

    def take(self, cells: EnlargedCells) -> None:
        """Take all cells of some maps that may hold a pixel above the bound."""
        if len(cells):
            self._cells.append(cells)

    def raise_if_due(self, most: int) -> None:
        """Raise the bound where many cells have come, or they take more than ``most`` bytes."""
        if len(self) > _GROWN * self._left + _MORE or self.nbytes > most:
            self.raise_bound()

    def raise_bound(self) -> None:
        """Raise the bound to nearly the ``kept``-th largest pixel, and let go of the cells below."""
        if not len(self):
            return
        sample, share = self.cells.sample(self.bound)
        likely = self._likely(sample, np.full(len(self.bound), share * self._kept), 1)
        higher = torch.maximum(likely, self.bound)
        count, holds = self.cells.reaching(higher)
        enough = count >= self._kept
        bound = torch.where(enough, higher, self.bound)
        self._cells = [self.cells.chosen(holds | ~enough.index_select(0, self.cells.units()))]
        self.bound, self._left = bound, len(self)

    def order_statistics(self, from_top: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The ``from_top``-th largest pixel of each unit, (U,) float32, and the next larger (or itself, at the top).

        0 for a unit where that is 0; it is not more than ``kept``, nor than there are pixels.
        """
        ranks = np.array(from_top)
        low, high = np.zeros(len(ranks), np.float32), np.zeros(len(ranks), np.float32)
        if not len(self):
            low[ranks > 0] = high[ranks > 0] = self.bound.cpu().numpy()[ranks > 0]
            return low, high
        sample, share = self.cells.sample(self.bound)
        least = torch.maximum(self._likely(sample, share * ranks, 1), self.bound)
        most = self._likely(sample, share * ranks, -1)
        todo = self._select(ranks, least, most, low, high, ranks > 0)
        if todo.any():  # they lie elsewhere
            chosen = torch.from_numpy(todo).to(self.bound.device)
            least = torch.where(chosen, self.bound, torch.inf)
            self._select(ranks, least, torch.full_like(least, torch.inf), low, high, todo)
        return low, high

    def _likely(self, sample: Sequence[UnitValues], rank: np.ndarray, sign: int) -> Tensor:
        """(U,) float32: what the order statistics of about ``rank`` (U,) from the top of a sample nearly surely reach.

        With a ``sign`` of -1, what they nearly surely do not exceed.
        """
        rank = rank + sign * (_SHARE * rank + _DEVIATIONS * rank**0.5 + 1)
        otherwise = -np.inf if sign > 0 else np.inf
        return _largest_but(sample, np.maximum(rank, 0).astype(np.int64), otherwise).to(self.bound.device)

    def _select(
        self, ranks: np.ndarray, least: Tensor, most: Tensor, low: np.ndarray, high: np.ndarray, which: np.ndarray
    ) -> np.ndarray:
        """Fill in ``low`` and ``high`` of the units ``which`` (U,) bool where they are above ``least``, not ``most``.

        Those of them that do not, (U,) bool, are left. What is not above the bound equals it.
        """
        above, inside = self.cells.between(least, most)
        exceed = above.cpu().numpy()
        beyond = exceed - inside.count.cpu().numpy()
        bound = self.bound.cpu().numpy()
        outside = (beyond >= np.maximum(ranks - 1, 1)) | ((exceed < ranks) & (least.cpu().numpy() > bound))
        left: np.ndarray = which & outside
        for u, of_unit in enumerate(_of_units(inside)):
            if which[u] and not left[u]:
                values = np.sort(of_unit)[::-1]
                for rank, result in ((ranks[u], low), (max(ranks[u] - 1, 1), high)):
                    # As many as are kept reach the bound.
                    result[u] = values[rank - 1 - beyond[u]] if rank <= exceed[u] else bound[u]
        return left


def _of_units(values: UnitValues) -> list[np.ndarray]:
    """The values of each unit."""
    ends, value = np.cumsum(values.count.cpu().numpy()).tolist(), values.value.cpu().numpy()
    return [value[start:end] for start, end in pairwise([0, *ends])]


def _largest_but(several: Sequence[UnitValues], rank: np.ndarray, otherwise: float) -> Tensor:
    """(U,) float32: the ``rank``-th largest (U,) of each unit's values, or ``otherwise`` where there is none."""
    largest = np.full(len(rank), otherwise, np.float32)
    for u, parts in enumerate(zip(*map(_of_units, several), strict=True)):
        of_unit = np.concatenate(parts)
        if 0 < rank[u] <= len(of_unit):
            at = len(of_unit) - rank[u]
            largest[u] = np.partition(of_unit, at)[at]
    return torch.from_numpy(largest)
