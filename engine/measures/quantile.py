"""Exact streaming thresholds: the Hazen quantile of every unit over all images and locations.

The threshold lies between two neighbouring order statistics near the top of each unit's values. With the number of
values known beforehand, so is how many of the largest can matter, K of n: about q n. While values stream by, a unit
that already holds K values never again needs one that does not exceed the K-th: one pass, with about half a percent
of the values in memory. Where even that is more than the budget, a radix selection narrows the two order statistics
down by some bits of their pattern each pass, in memory that depends on the number of units alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.passes.extremes import Extremes
from ndissect.store.model import UnitStatistics

#: Bytes that thresholds may take, unless told otherwise.
BUDGET = 2 << 30
# Values that are cut back at once; it takes some 12 bytes for each.
_CUT_AT_ONCE = 1 << 23
# Units whose tails are searched at once: a histogram takes a megabyte a unit.
_UNITS_TOGETHER = 64
_BITS = 32
_SIGN = 1 << 31


def hazen_position(n: int, q: Fraction) -> tuple[int, float]:
    """(k, f): the threshold is x[k] + f (x[k + 1] - x[k]) of n sorted values; exact in rational arithmetic."""
    position = min(max((1 - q) * n - Fraction(1, 2), Fraction(0)), Fraction(n - 1))
    k = math.floor(position)
    return k, float(position - k)


def ordered(values: Tensor) -> Tensor:
    """float32 -> int64 in [0, 2**32): the bit pattern made order-preserving, so that v < w iff its number is less."""
    bits = values.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -1 - bits, bits + _SIGN)


def from_ordered(keys: np.ndarray) -> np.ndarray:
    """The inverse of :func:`ordered`, for numpy arrays."""
    keys = keys.astype(np.int64)
    bits = np.where(keys < _SIGN, -1 - keys, keys - _SIGN)
    return bits.astype(np.int32).view(np.float32)


class Quantile:
    """The exact quantile of ``units`` streams of at most ``total`` values each; ``q`` is the share above.

    Feed every batch to :meth:`update` and end the pass; while :meth:`end_pass` says so, feed all the batches again.
    ``passes`` says how many passes over the data it takes: one within ``budget`` bytes, else two or three.
    """

    def __init__(
        self, units: int, total: int, q: Fraction, device: torch.device | str = "cpu", budget: int = BUDGET
    ) -> None:
        self._q, self._device, self._units = q, torch.device(device), units
        self._select: _Tail | _Radix
        if self.one_pass_bytes(units, total, q) <= budget:
            self._select = _Tail(units, _tail_length(total, q), self._device)
            self.passes = 1
        else:
            bits = 16 if 16 * units * 2**16 <= budget else 11
            self._select = _Radix(units, bits, self._device)
            self.passes = math.ceil(_BITS / bits)
        self._first_pass = True
        self._values = torch.zeros(units, dtype=torch.int64, device=self._device)
        self._nan, self._inf = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._min = torch.full((units,), torch.inf, device=self._device)
        self._max = torch.full((units,), -torch.inf, device=self._device)

    @staticmethod
    def one_pass_bytes(units: int, total: int, q: Fraction) -> int:
        """The bytes that one pass takes: two tails of each unit's values, of four bytes each."""
        return 4 * 2 * units * _tail_length(total, q)

    def update(self, values: Tensor, activations: Tensor | None = None) -> None:
        """Take ``values`` (U, n) floating, in any order and cut; NaN and infinities are counted and left out.

        Where the values are not the activations themselves but maps made of them, ``activations`` (U, m) says what
        is counted as NaN, infinite, smallest and largest.
        """
        if not values.shape[1]:
            return
        values = values.to(torch.float32)
        raw = values if activations is None else activations.to(torch.float32)
        low, high = raw.aminmax(dim=1)  # NaN and infinities show in these
        whole = bool((torch.isfinite(low) & torch.isfinite(high)).all())
        # All that may run out of memory comes before the first change, so that a failed update can be repeated.
        seen = [
            torch.full_like(self._values, values.shape[1]),
            torch.zeros_like(self._nan),
            torch.zeros_like(self._inf),
        ]
        if not whole:
            finite = torch.isfinite(raw)
            low = torch.where(finite, raw, torch.inf).amin(1)
            high = torch.where(finite, raw, -torch.inf).amax(1)
            values = torch.where(torch.isfinite(values), values, torch.nan)
            seen = [(~torch.isnan(values)).sum(1), torch.isnan(raw).sum(1), torch.isinf(raw).sum(1)]
        least, most = torch.minimum(self._min, low), torch.maximum(self._max, high)
        self._select.update(values)
        if self._first_pass:
            self._min, self._max = least, most
            for total, new in zip((self._values, self._nan, self._inf), seen, strict=True):
                total.add_(new)

    def update_maps(self, maps: Tensor, extremes: Extremes) -> None:
        """Take maps (N, U, h, w) floating, of which ``extremes`` are known: the same as :meth:`update`, and faster."""
        if not (extremes.clean and isinstance(self._select, _Tail)):
            self.update(maps.transpose(0, 1).reshape(maps.shape[1], -1))
            return
        N, _, h, w = maps.shape
        least = torch.minimum(self._min, extremes.low.amin(0))
        most = torch.maximum(self._max, extremes.peak.amax(0))
        self._select.update_maps(maps.to(torch.float32), extremes.peak)
        self._min, self._max = least, most
        self._values += N * h * w

    @property
    def bound(self) -> Tensor | None:
        """(U,) float32: no threshold will be below; None where one pass is not enough to know."""
        return self._select.bound if isinstance(self._select, _Tail) else None

    def so_far(self) -> UnitStatistics:
        """The result if no more values came; only where one pass is enough."""
        self._start()
        return self.result()

    def _start(self) -> None:
        self._select.start([hazen_position(int(n), self._q)[0] if n else 0 for n in self._values], self._values)

    def end_pass(self, ranks: Ranks = ALONE) -> bool:
        """True when all the values must be fed once more; ``ranks``: other processes took the other values."""
        if self._first_pass:
            self._first_pass = False
            for total in (self._values, self._nan, self._inf):
                ranks.sum(total)
            ranks.least(self._min)
            ranks.most(self._max)
            self._start()
        return self._select.end_pass(ranks)

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here."""
        mine = {"values": self._values, "nan": self._nan, "inf": self._inf, "min": self._min, "max": self._max}
        return mine | {"first_pass": torch.tensor(self._first_pass)} | self._select.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another quantile of the same units, total and budget; ValueError for others."""
        mine = self.state()
        demand_form(state, {name: mine[name] for name in ("values", "nan", "inf", "min", "max", "first_pass")})
        for tensor, name in zip((self._values, self._nan, self._inf), ("values", "nan", "inf"), strict=True):
            tensor.copy_(state[name])
        self._min, self._max = state["min"].to(self._device), state["max"].to(self._device)
        self._first_pass = bool(state["first_pass"])
        self._select.restore(state)
        if not self._first_pass and isinstance(self._select, _Tail):
            self._start()

    def result(self) -> UnitStatistics:
        """Thresholds, NaN for a unit without a finite value, and what else the values say of the units."""
        extremes = self._nan, self._inf, self._min, self._max
        return _statistics(self._q, self._select.order_statistics(), self._values, *extremes)


def merged(states: Sequence[dict[str, Tensor]], q: Fraction) -> UnitStatistics:
    """What the quantiles say together whose ``states``, after one pass each, are given."""
    values, nan, inf = (torch.stack([s[name] for s in states]).sum(0) for name in ("values", "nan", "inf"))
    least = torch.stack([s["min"] for s in states]).amin(0)
    most = torch.stack([s["max"] for s in states]).amax(0)
    from_top = [int(n) - hazen_position(int(n), q)[0] if n else 0 for n in values]
    return _statistics(q, selected(states, from_top), values, nan, inf, least, most)


def _statistics(q: Fraction, found: tuple[np.ndarray, np.ndarray], *sums: Tensor) -> UnitStatistics:
    """The statistics of units whose two order statistics are ``found``; ``sums``: values, NaN, inf, min, max."""
    low, high = found
    n, nan, inf, minimum, maximum = (t.cpu().numpy() for t in sums)
    f = np.array([hazen_position(int(v), q)[1] if v else np.nan for v in n])
    x0, x1 = low.astype(np.float64), high.astype(np.float64)
    threshold = np.where(f == 0, x0, x0 + f * (x1 - x0))
    none = n == 0
    return UnitStatistics(
        threshold=np.where(none, np.nan, threshold),
        dead=none | (minimum == maximum) | (maximum <= 0),
        nan=nan,
        inf=inf,
        minimum=np.where(none, np.float32(np.nan), minimum),
        maximum=np.where(none, np.float32(np.nan), maximum),
    )


def _tail_length(total: int, q: Fraction) -> int:
    """How many of the largest of ``total`` values can matter to the threshold."""
    return min(total, math.ceil(q * total + Fraction(1, 2)))


class _Tail:
    """The ``kept`` largest values of each unit, in a buffer twice as long that is cut back to them whenever it is full.

    What exceeds the unit's bound, its ``kept``-th largest value so far, is rare once the stream has run for a while.
    """

    def __init__(self, units: int, kept: int, device: torch.device) -> None:
        self._kept = kept
        #: No threshold will be below: the ``kept``-th largest value so far, -inf before there are as many.
        self.bound = torch.full((units,), -torch.inf, device=device)
        self._buffer = torch.full((units, 2 * kept), -torch.inf, device=device)
        self._filled = torch.zeros(units, dtype=torch.int64, device=device)
        self._found: tuple[np.ndarray, np.ndarray] | None = None

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
        found = {} if self._found is None else {"found": torch.from_numpy(np.stack(self._found))}
        return {"tail": self._buffer[filled], "filled": self._filled, "bound": self.bound} | found

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
        if "found" in state:
            demand_form(state, {"found": torch.zeros(2, len(self._filled))})
            low, high = state["found"].cpu().numpy()
            self._found = low, high

    def start(self, from_top: list[int], counts: Tensor) -> None:
        self._from_top = [int(n) - k for k, n in zip(from_top, counts, strict=True)]

    def end_pass(self, ranks: Ranks) -> bool:
        if ranks.size > 1:
            self._found = selected([self.state()], self._from_top, ranks)
        return False

    def order_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """x[k] and x[k + 1] (or x[k] again, at the top) of each unit, float32; 0 for a unit without values."""
        if self._found is not None:
            return self._found
        low, high = np.zeros(len(self._filled), np.float32), np.zeros(len(self._filled), np.float32)
        for u, (row, filled, from_top) in enumerate(
            zip(self._buffer.cpu().numpy(), self._filled.tolist(), self._from_top, strict=True)
        ):
            if filled:
                k = filled - from_top
                above = min(k + 1, filled - 1)
                found = np.partition(row[:filled], (k, above))
                low[u], high[u] = found[k], found[above]
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

    ``tails``: states of :class:`_Tail` over different parts of the values; of this process, the others have theirs.
    The tails' histograms add up, so none has to leave its process.
    """
    counts = ranks.sum(torch.stack([tail["filled"] for tail in tails]).sum(0).cpu())
    ends = [torch.cat([torch.zeros(1, dtype=torch.int64), tail["filled"].cpu().cumsum(0)]).tolist() for tail in tails]
    low, high = [], []
    for start in range(0, len(counts), _UNITS_TOGETHER):
        units = range(start, min(start + _UNITS_TOGETHER, len(counts)))
        radix = _Radix(len(units), 16, torch.device("cpu"))
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


class _Radix:
    """Two order statistics of each unit, narrowed by ``bits`` bits a pass from histograms of their next digit."""

    def __init__(self, units: int, bits: int, device: torch.device) -> None:
        self._units, self._bits, self._device = units, bits, device
        self._shift = _BITS - bits
        # Two trackers a unit: the ranks k and k + 1 may part ways at any digit.
        self._prefix = torch.zeros((2, units), dtype=torch.int64, device=device)
        self._rank: np.ndarray | None = None
        self._new_histogram()

    def _new_histogram(self) -> None:
        self._width = min(self._bits, _BITS if self._shift >= 0 else self._bits + self._shift)
        self._shift = max(self._shift, 0)
        self._histogram = torch.zeros((2, self._units << self._width), dtype=torch.int64, device=self._device)

    def update(self, values: Tensor) -> None:
        u, at = (~torch.isnan(values)).nonzero(as_tuple=True)
        self._count(u, values[u, at])

    def update_rows(self, rows: Sequence[Tensor]) -> None:
        """Take values of different number for each unit."""
        lengths = torch.tensor([len(row) for row in rows])
        self._count(torch.repeat_interleave(torch.arange(len(rows)), lengths), torch.cat(list(rows)))

    def _count(self, u: Tensor, values: Tensor) -> None:
        key = ordered(values)
        digit = (key >> self._shift) & ((1 << self._width) - 1)
        found = []
        for tracker in range(2):
            inside = (key >> (self._shift + self._width)) == self._prefix[tracker][u]
            bins = (u[inside] << self._width) | digit[inside]
            found.append(torch.bincount(bins, minlength=self._units << self._width))
        self._histogram += torch.stack(found)

    def state(self) -> dict[str, Tensor]:
        rank = np.zeros((2, 0), np.int64) if self._rank is None else self._rank
        place = torch.tensor([self._shift, self._width])
        return {"prefix": self._prefix, "rank": torch.from_numpy(rank), "place": place, "histogram": self._histogram}

    def restore(self, state: dict[str, Tensor]) -> None:
        demand_form(state, {"prefix": self._prefix, "place": torch.zeros(2, dtype=torch.int64)})
        shift, width = state["place"].tolist()
        if not (0 <= shift < _BITS and 0 < width <= self._bits):
            raise ValueError(f"digits of {width} bits at {shift}")
        demand_form(state, {"histogram": self._histogram.new_zeros(2, self._units << width)})
        rank = state["rank"].cpu().numpy()
        if rank.shape not in ((2, 0), (2, self._units)) or rank.dtype != np.int64:
            raise ValueError(f"ranks of {rank.shape}")
        self._prefix, self._rank = state["prefix"].to(self._device), rank if rank.shape[1] else None
        self._shift, self._width = shift, width
        self._histogram = state["histogram"].to(self._device)

    def start(self, from_top: list[int], counts: Tensor) -> None:
        k = np.array(from_top, np.int64)
        self._rank = np.stack([k, np.minimum(k + 1, np.maximum(counts.cpu().numpy() - 1, 0))])

    def end_pass(self, ranks: Ranks) -> bool:
        assert self._rank is not None
        histogram = ranks.sum(self._histogram).view(2, self._units, -1).cpu().numpy()
        below = np.cumsum(histogram, 2)
        digit = (below <= self._rank[:, :, None]).sum(2)
        digit = np.minimum(digit, histogram.shape[2] - 1)
        before = np.where(digit > 0, np.take_along_axis(below, np.maximum(digit - 1, 0)[:, :, None], 2)[:, :, 0], 0)
        self._rank = self._rank - before
        self._prefix = (self._prefix << self._width) | torch.from_numpy(digit).to(self._device)
        if self._shift == 0:
            return False
        self._shift -= self._bits
        self._new_histogram()
        return True

    def order_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """x[k] and x[k + 1] of each unit, float32."""
        keys = self._prefix.cpu().numpy()
        return from_ordered(keys[0]), from_ordered(keys[1])
