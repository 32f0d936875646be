"""The largest values of each unit, all that a quantile near the top can depend on, kept while values stream by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures.radix import RadixSelection

# Values that are cut back at once; it takes some 12 bytes for each.
_CUT_AT_ONCE = 1 << 23
# Units whose tails are searched at once: a histogram takes a megabyte a unit.
_UNITS_TOGETHER = 64


def tail_length(total: int, q: Fraction) -> int:
    """How many of the largest of ``total`` values can matter to the threshold."""
    return min(total, math.ceil(q * total + Fraction(1, 2)))


class Tail:
    """The ``kept`` largest values of each unit, in a buffer twice as long that is cut back to them whenever it is full.

    What exceeds the unit's bound, its ``kept``-th largest value so far, is rare once the stream has run for a while.
    """

    def __init__(self, units: int, kept: int, device: torch.device) -> None:
        self._kept = kept
        #: No threshold will be below: the ``kept``-th largest value so far, -inf before there are as many.
        self.bound = torch.full((units,), -torch.inf, device=device)
        self._buffer = torch.full((units, 2 * kept), -torch.inf, device=device)
        self._filled = torch.zeros(units, dtype=torch.int64, device=device)
        self._selected: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, values: Tensor) -> None:
        """Take values (U, n) float32; NaN is passed over."""
        u, at = (values > self.bound[:, None]).nonzero(as_tuple=True)
        self._take(u, values[u, at])

    def update_maps(self, maps: Tensor, peak: Tensor) -> None:
        """Take maps (N, U, h, w) float32 with the largest value of each, ``peak`` (N, U); all or none, as _take."""
        some = max(1, self._buffer.shape[1] // (maps.shape[2] * maps.shape[3]))
        if some >= len(maps) or not bool((self.bound == -torch.inf).all()):
            self._take_maps(maps, peak)
            return
        # The first maps of all: as many as fill the buffer give a bound, which spares most of the others.
        before = self.bound, self._filled, self._buffer.clone()
        try:
            for start in range(0, len(maps), some):
                self._take_maps(maps[start : start + some], peak[start : start + some])
        except BaseException:
            self.bound, self._filled, self._buffer = before
            raise

    def _take_maps(self, maps: Tensor, peak: Tensor) -> None:
        u, n = (peak.T > self.bound[:, None]).nonzero(as_tuple=True)
        values = maps[n, u].flatten(1)
        # Unit after unit, as nonzero lists them.
        p, at = (values > self.bound[u, None]).nonzero(as_tuple=True)
        self._take(u[p], values[p, at])

    def _take(self, u: Tensor, values: Tensor) -> None:
        """Put ``values`` of the units ``u``, which rise, into the buffer; all or, out of memory, none of them."""
        fresh = torch.bincount(u, minlength=len(self.bound))
        if len(fresh) and int((self._filled + fresh).max()) <= self._buffer.shape[1]:
            self._put(u, values, fresh)
            return
        before = self.bound, self._filled, self._buffer.clone()
        try:
            while len(u):
                room = self._buffer.shape[1] - self._filled
                rank = self._rank(u, fresh)
                fits = rank < room[u]
                self._put(u[fits], values[fits], torch.minimum(fresh, room))
                self._cut()
                left = ~fits & (values > self.bound[u])
                u, values = u[left], values[left]
                fresh = torch.bincount(u, minlength=len(self.bound))
        except BaseException:
            self.bound, self._filled, self._buffer = before
            raise

    @staticmethod
    def _rank(u: Tensor, fresh: Tensor) -> Tensor:
        """Which of its unit's values each one is, from rising units ``u`` and how many values each has."""
        return torch.arange(len(u), device=u.device) - (fresh.cumsum(0) - fresh)[u]

    def _put(self, u: Tensor, values: Tensor, fresh: Tensor) -> None:
        self._buffer[u, self._filled[u] + self._rank(u, fresh)] = values
        self._filled = self._filled + fresh

    def _cut(self) -> None:
        """Cut rows that hold more than ``kept`` values back to the largest; of those the least is the bound."""
        bound, filled = self.bound.clone(), self._filled.clamp(max=self._kept)
        over = (self._filled > self._kept).nonzero()[:, 0]
        step = max(1, _CUT_AT_ONCE // self._buffer.shape[1])
        for start in range(0, len(over), step):
            rows = over[start : start + step]
            largest = _largest(self._buffer[rows], self._kept)
            self._buffer[rows, : self._kept] = largest
            self._buffer[rows, self._kept :] = -torch.inf
            bound[rows] = largest.amin(1)
        self.bound, self._filled = bound, filled

    def state(self) -> dict[str, Tensor]:
        filled = torch.arange(self._buffer.shape[1], device=self.bound.device) < self._filled[:, None]
        state = {"tail": self._buffer[filled], "filled": self._filled, "bound": self.bound}
        if self._selected is not None:
            state["selected"] = torch.from_numpy(np.stack(self._selected))
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        device, most = self.bound.device, self._buffer.shape[1]
        demand_form(state, {"filled": self._filled, "bound": self.bound})
        if not bool(((state["filled"] >= 0) & (state["filled"] <= most)).all()):
            raise ValueError(f"tails of more than {most} values")
        demand_form(state, {"tail": self._buffer.new_zeros(int(state["filled"].sum()))})
        self._filled, self.bound = state["filled"].to(device), state["bound"].to(device)
        self._buffer.fill_(-torch.inf)
        filled = torch.arange(self._buffer.shape[1], device=device) < self._filled[:, None]
        self._buffer[filled] = state["tail"].to(device)
        if "selected" in state:
            demand_form(state, {"selected": torch.zeros(2, len(self._filled))})
            low, high = state["selected"].cpu().numpy()
            self._selected = low, high

    def start(self, from_top: list[int], counts: Tensor) -> None:
        self._from_top = [int(n) - k for k, n in zip(from_top, counts, strict=True)]

    def end_pass(self, ranks: Ranks) -> bool:
        if ranks.size > 1:
            self._selected = selected([self.state()], self._from_top, ranks)
        return False

    def order_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """x[k] and x[k + 1] (or x[k] again, at the top) of each unit, float32; 0 for a unit without values."""
        if self._selected is not None:
            return self._selected
        low, high = np.zeros(len(self._filled), np.float32), np.zeros(len(self._filled), np.float32)
        for u, (row, filled, from_top) in enumerate(
            zip(self._buffer.cpu().numpy(), self._filled.tolist(), self._from_top, strict=True)
        ):
            if filled:
                k = filled - from_top
                above = min(k + 1, filled - 1)
                values = np.partition(row[:filled], (k, above))
                low[u], high[u] = values[k], values[above]
        return low, high


def _largest(values: Tensor, count: int) -> Tensor:
    """(U, n) -> (U, count): the largest values of each row, in any order."""
    if values.device.type != "cpu":
        return values.topk(count, 1, sorted=False).values
    # numpy selects with vector instructions, several times faster than torch on a CPU.
    return torch.from_numpy(np.partition(values.numpy(), values.shape[1] - count, axis=1)[:, -count:])


def selected(
    tails: Sequence[dict[str, Tensor]], from_top: Sequence[int], ranks: Ranks = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """The ``from_top``-th largest value of each unit, (U,) float32, and the next larger one (or itself, at the top).

    ``tails``: states of :class:`Tail` over different parts of the values; of this process, the others have theirs.
    The tails' histograms add up, so none has to leave its process.
    """
    counts = ranks.sum(torch.stack([tail["filled"] for tail in tails]).sum(0).cpu())
    ends = [torch.cat([torch.zeros(1, dtype=torch.int64), tail["filled"].cpu().cumsum(0)]).tolist() for tail in tails]
    low, high = [], []
    for start in range(0, len(counts), _UNITS_TOGETHER):
        units = range(start, min(start + _UNITS_TOGETHER, len(counts)))
        radix = RadixSelection(len(units), 16, torch.device("cpu"))
        radix.start([max(int(counts[u]) - from_top[u], 0) for u in units], counts[start : units.stop])
        again = True
        while again:
            for tail, end in zip(tails, ends, strict=True):
                radix.update_rows([tail["tail"][end[u] : end[u + 1]].cpu() for u in units])
            again = radix.end_pass(ranks)
        x0, x1 = radix.order_statistics()
        low.append(x0)
        high.append(x1)
    return np.concatenate(low), np.concatenate(high)
