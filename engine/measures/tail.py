"""The largest values of each unit, all that a quantile near the top can depend on, kept while values stream by."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures.cell_tail import CellTail
from ndissect.engine.measures.enlarged import EnlargedCells
from ndissect.engine.measures.guess import places
from ndissect.engine.measures.radix import RadixSelection
from ndissect.engine.measures.samples import CellSamples, UnitValues

# Values that are cut back at once; it takes some 12 bytes for each.
_CUT_AT_ONCE = 1 << 23
# Values wait until they are so many times those that are kept, but not more than so many.
_WAITING_SHARE, _WAITING = 2, 1 << 22
# The buffer is cut, and the bound raised, when so large a share of what is kept has come since.
_FRESH_SHARE = 0.25
# Units whose tails are searched at once: a histogram takes a megabyte a unit.
_UNITS_TOGETHER = 64
# Bytes that cells may take for each value that is kept: as many as the buffer would.
_CELL_BYTES = 8
# Rows are mostly their least value where, of about so many of their values, less than this share is above it.
_LOOKED_AT, _SPARSE = 64, 0.1
# Pixels of cells that are enlarged at once where the values themselves are needed.
_PIXELS_AT_ONCE = 1 << 24


def tail_length(total: int, q: Fraction) -> int:
    """How many of the largest of ``total`` values can matter to the threshold."""
    return min(total, math.ceil(q * total + Fraction(1, 2)))


#: Values of which some wait to be put into a tail.
Samples = UnitValues | CellSamples | EnlargedCells


class Tail:
    """The ``kept`` largest values of each unit, in a buffer twice as long that is cut back to them now and then.

    What exceeds the unit's bound, its ``kept``-th largest value so far, is rare once the stream has run for a while.
    Values wait in a list until there are enough of them, or somebody asks: taking them costs the host nothing.

    As long as there are cells of enlarged maps alone, those are kept instead of their pixels, and there is no buffer.
    """

    def __init__(self, units: int, kept: int, device: torch.device) -> None:
        self._kept = kept
        self._cells: CellTail | None = CellTail(units, kept, device)
        #: No threshold will be below: the ``kept``-th largest value some time ago, -inf before there were as many.
        self.bound = torch.full((units,), -torch.inf, device=device)
        #: Whether a bound is above -inf.
        self.raised = False
        self._made: torch.Tensor | None = None  # the buffer
        self._filled = torch.zeros(units, dtype=torch.int64, device=device)
        self._short = False  # whether rows may lack values that equal the bound
        self._fresh = 0  # values that came into the buffer since it was cut
        self._waiting: list[Samples] = []
        self._selected: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def _buffer(self) -> Tensor:
        if self._made is None:
            self._made = torch.full((len(self.bound), 2 * self._kept), -torch.inf, device=self.bound.device)
        return self._made

    @property
    def keeps_cells(self) -> bool:
        """Whether cells are kept instead of their pixels."""
        return self._cells is not None and not self._waiting

    def copy(self) -> Tail:
        """Another with the same values, which takes more by itself."""
        other = copy.copy(self)
        other._waiting = list(self._waiting)
        other._cells = None if self._cells is None else self._cells.copy()
        other._made = None if self._made is None else self._made.clone()
        return other

    def prepared(self, values: Tensor) -> Callable[[], None]:
        """What takes ``values`` (U, n) float32, NaN passed over; all that may run out of memory is done."""
        return partial(self.take, UnitValues.above(values, self.bound))

    def with_values(self, values: Tensor) -> Tail:
        """Another, which has these finite values (U, n) float32 as well, and a bound where they are enough for one."""
        other = self.copy()
        other.settle()
        if values.shape[1] < self._kept:
            other.take(UnitValues.above(values, other.bound))
            other.settle()
            return other
        # The -inf of an empty buffer are no values, and would hide how few of a row's differ.
        largest = _largest(values if other._made is None else torch.cat([other._buffer, values], 1), self._kept)
        other._buffer.fill_(-torch.inf)[:, : self._kept] = largest
        other._filled = torch.full_like(self._filled, self._kept)
        other.bound, other._fresh, other.raised = largest.amin(1), 0, True
        return other

    def take(self, values: Samples) -> None:
        """Take all values of some maps that are above the bound, and any others."""
        if isinstance(values, EnlargedCells) and self._cells is not None and not self._waiting:
            self._cells.take(values)
        elif len(values):
            self._waiting.append(values)

    def raise_bound(self) -> None:
        """Raise the bound by the cells that are kept, as far as they allow."""
        if self._cells is not None:
            self._cells.raise_bound()
            self._bound_of_cells(self._cells)

    def _bound_of_cells(self, cells: CellTail) -> None:
        if self.bound is not cells.bound:
            self.bound = cells.bound
            self.raised = bool((self.bound > -torch.inf).any())

    def settle_if_due(self) -> None:
        """Put what waits into the buffer where it is much, and raise the bound where many cells have come."""
        if self._cells is not None:
            most = _CELL_BYTES * len(self.bound) * self._kept
            self._cells.raise_if_due(most)
            self._bound_of_cells(self._cells)
            if self._waiting or self._cells.nbytes > most:
                self.settle()
        waiting = sum(map(len, self._waiting))
        if waiting > min(_WAITING_SHARE * len(self.bound) * self._kept, _WAITING):
            self.settle()

    def settle(self) -> None:
        """Put what waits into the buffer, and raise the bound where enough has come.

        Out of memory half-way, what is not in the buffer still waits.
        """
        if self._cells is not None:
            parts = self._cells.cells.parts(_PIXELS_AT_ONCE) if len(self._cells) else []
            self._waiting, self._cells, self._short = [*self._waiting, *parts], None, self.raised
        samples = [s for s in self._waiting if isinstance(s, CellSamples)]
        if samples:
            others = [s for s in self._waiting if not isinstance(s, CellSamples)]
            self._waiting = [self._sorted(CellSamples.joined(samples)), *others]
        while self._waiting:
            values = self._waiting[0]
            if isinstance(values, EnlargedCells):
                self._waiting[0] = values = values.values_above(self.bound)
            assert isinstance(values, UnitValues)
            self._put(values)
            if self._fresh >= len(self.bound) * self._kept * _FRESH_SHARE:
                self._cut()
        if self._short:
            self._fill_up()

    def _sorted(self, samples: CellSamples) -> UnitValues:
        """The samples above the bound, unit after unit."""
        u, values = samples.units(), samples.samples()
        above = values > self.bound.index_select(0, u)
        count = torch.zeros_like(self._filled).index_add_(0, u, above.long())
        (at,) = places(above)
        order = u.index_select(0, at).to(torch.int32).argsort(stable=True)
        return UnitValues(count, values.index_select(0, at.index_select(0, order)))

    def _put(self, values: UnitValues) -> None:
        """Put the first that waits into the buffer, or as many of its values as fit, after which it is cut."""
        width, filled, count = self._buffer.shape[1], self._filled, values.count
        before, units = count.cumsum(0) - count, torch.arange(len(filled), device=filled.device)
        rank, rest = torch.arange(len(values), device=filled.device), None
        place = rank + values.of_each(filled + units * width - before)
        most = int((filled + count).amax())
        if most <= width:
            self._buffer.view(-1).index_copy_(0, place, values.value)
            self._filled, self._waiting = filled + count, self._waiting[1:]
            self._fresh += len(values)
            return
        fits = rank < values.of_each(before + width - filled)
        some = torch.minimum(count, width - filled)
        rest = UnitValues(count - some, values.value[~fits])
        self._buffer.view(-1).index_copy_(0, place[fits], values.value[fits])
        self._filled, self._waiting = filled + some, [rest, *self._waiting[1:]]
        self._cut()
        above = rest.value > rest.of_each(self.bound)
        count = torch.zeros_like(filled).index_add_(0, rest.of_each(units), above.long())
        self._waiting = [UnitValues(count, rest.value[above]), *self._waiting[1:]]

    def _cut(self) -> None:
        """Cut each row back to its ``kept`` largest values, of which the least is the bound.

        A row with fewer is filled up with its bound, which as many values reach, or with -inf before there is one: that
        lies below all others and so changes no rank from the top.
        """
        bound, step = [], max(1, _CUT_AT_ONCE // self._buffer.shape[1])
        for start in range(0, len(self._buffer), step):
            rows = self._buffer[start : start + step]
            least = self.bound[start : start + step, None]
            largest = _largest(rows, self._kept).maximum(least)
            bound.append(largest.amin(1))
            rows[:, : self._kept] = largest
            rows[:, self._kept :] = -torch.inf
        self.bound, self._filled, self._fresh = torch.cat(bound), torch.full_like(self._filled, self._kept), 0
        self.raised = self.raised or bool((self.bound > -torch.inf).any())

    def _fill_up(self) -> None:
        """Make what lacks in rows, and what is below, equal to their bound, which ``kept`` values of each reach."""
        filled = torch.where(self.bound > -torch.inf, self._filled.clamp(min=self._kept), self._filled)
        there = torch.arange(self._buffer.shape[1], device=self.bound.device) < filled[:, None]
        self._buffer.copy_(torch.where(there, self._buffer.maximum(self.bound[:, None]), self._buffer))
        self._filled, self._short = filled, False

    def state(self) -> dict[str, Tensor]:
        if self._cells is not None and not self._waiting and len(self._cells):
            other = self.copy()  # this one goes on with its cells
            other.settle()
            return other.state()
        self.settle()
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
        self.raised = bool((self.bound > -torch.inf).any())
        self._waiting, self._fresh, self._cells, self._short = [], int(self._filled.sum()), None, False
        self._buffer.fill_(-torch.inf)
        filled = torch.arange(self._buffer.shape[1], device=device) < self._filled[:, None]
        self._buffer[filled] = state["tail"].to(device)
        if "selected" in state:
            demand_form(state, {"selected": torch.zeros(2, len(self._filled))})
            low, high = state["selected"].cpu().numpy()
            self._selected = low, high

    def start(self, from_top: list[int], counts: list[int]) -> None:
        self._from_top = [n - k for k, n in zip(from_top, counts, strict=True)]

    def end_pass(self, ranks: Ranks) -> bool:
        if not self.keeps_cells:
            self.settle()
        if ranks.size > 1:
            self._selected = selected([self.state()], self._from_top, ranks)
        return False

    def order_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """x[k] and x[k + 1] (or x[k] again, at the top) of each unit, float32; 0 for a unit without values."""
        if self._selected is not None:
            return self._selected
        if self.keeps_cells and self._cells is not None and len(self._cells):
            low, high = self._cells.order_statistics(self._from_top)
            self._bound_of_cells(self._cells)
            return low, high
        self.settle()
        low, high = np.zeros(len(self._filled), np.float32), np.zeros(len(self._filled), np.float32)
        rows, ranks = self._buffer.cpu().numpy(), np.array(self._from_top)
        # What is not filled is -inf, below all values, so that a rank from the top is a place in the whole row.
        width, step = rows.shape[1], max(1, _CUT_AT_ONCE // rows.shape[1])
        for rank in np.unique(ranks[ranks > 0]).tolist():
            units = np.flatnonzero(ranks == rank)
            k, above = width - rank, min(width - rank + 1, width - 1)
            for start in range(0, len(units), step):
                some = units[start : start + step]
                values = np.partition(rows[some], (k, above), axis=1)
                low[some], high[some] = values[:, k], values[:, above]
        return low, high


def _largest(values: Tensor, count: int) -> Tensor:
    """(U, n) -> (U, count): the largest values of each row, none of which is NaN, in any order."""
    if values.device.type != "cpu":
        return values.topk(count, 1, sorted=False).values
    rows = values.numpy()
    least = rows.min(1, keepdims=True)
    if count and (rows[:, :: max(1, rows.shape[1] // _LOOKED_AT)] > least).mean() < _SPARSE:
        return torch.from_numpy(_largest_of_few(rows, least, count))
    # numpy selects with vector instructions, several times faster than torch on a CPU.
    return torch.from_numpy(np.partition(rows, rows.shape[1] - count, axis=1)[:, -count:])


def _largest_of_few(
    rows: npt.NDArray[np.float32], least: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.float32]:
    """The same of rows most of whose values are the ``least`` (U, 1) of their row: units that seldom fire."""
    above = rows > least
    many = above.sum(1)
    largest = np.repeat(least, count, axis=1)
    enough = np.flatnonzero(many >= count)
    largest[enough] = np.partition(rows[enough], rows.shape[1] - count, axis=1)[:, -count:]
    above[enough], many[enough] = False, 0
    place = np.arange(many.sum()) - np.repeat(many.cumsum() - many, many)
    largest[np.repeat(np.arange(len(rows)), many), place] = rows[above]
    return largest


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
        radix.start([max(int(counts[u]) - from_top[u], 0) for u in units], counts[start : units.stop].tolist())
        again = True
        while again:
            for tail, end in zip(tails, ends, strict=True):
                radix.take(radix.counts_of_rows([tail["tail"][end[u] : end[u + 1]].cpu() for u in units]))
            again = radix.end_pass(ranks)
        x0, x1 = radix.order_statistics()
        low.append(x0)
        high.append(x1)
    return np.concatenate(low), np.concatenate(high)
