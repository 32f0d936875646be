"""Exact streaming thresholds: the Hazen quantile of every unit over all images and locations.

The threshold lies between two neighbouring order statistics near the top of each unit's values. With the number of
values known beforehand, so is how many of the largest can matter, K of n: about q n. While values stream by, a unit
that already holds K values never again needs one that does not exceed the K-th: one pass, with about half a percent
of the values in memory. Where even that is more than the budget, a radix selection narrows the two order statistics
down by some bits of their pattern each pass, in memory that depends on the number of units alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures.radix import BITS, RadixSelection
from ndissect.engine.measures.tail import Samples, Tail, selected, tail_length
from ndissect.store.model import UnitStatistics

#: Takes what was prepared, and cannot fail half-way for want of memory.
Commit = Callable[[], None]

# Batches whose extremes are put together at once.
_EXTREMES_AT_ONCE = 16

#: Bytes that thresholds may take, unless told otherwise.
BUDGET = 2 << 30


@lru_cache(maxsize=64)  # nearly all units have had as many values
def hazen_position(n: int, q: Fraction) -> tuple[int, float]:
    """(k, f): the threshold is x[k] + f (x[k + 1] - x[k]) of n sorted values; exact in rational arithmetic."""
    position = min(max((1 - q) * n - Fraction(1, 2), Fraction(0)), Fraction(n - 1))
    k = math.floor(position)
    return k, float(position - k)


class Quantile:
    """The exact quantile of ``units`` streams of at most ``total`` values each; ``q`` is the share above.

    Feed every batch to :meth:`update` and end the pass; while :meth:`end_pass` says so, feed all the batches again.
    ``passes`` says how many passes over the data it takes: one within ``budget`` bytes, else two or three.
    """

    def __init__(
        self, units: int, total: int, q: Fraction, device: torch.device | str = "cpu", budget: int = BUDGET
    ) -> None:
        self._q, self._device, self._units = q, torch.device(device), units
        self._select: Tail | RadixSelection
        if self.one_pass_bytes(units, total, q) <= budget:
            self._select = Tail(units, tail_length(total, q), self._device)
            self.passes = 1
        else:
            bits = 16 if 16 * units * 2**16 <= budget else 11
            self._select = RadixSelection(units, bits, self._device)
            self.passes = math.ceil(BITS / bits)
        self._first_pass = True
        self._values = torch.zeros(units, dtype=torch.int64, device=self._device)
        # Values that every unit has had beside those, and the least and the largest of each of their maps.
        self._finite, self._extremes = 0, list[tuple[Tensor, Tensor]]()
        self._nan, self._inf = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._min = torch.full((units,), torch.inf, device=self._device)
        self._max = torch.full((units,), -torch.inf, device=self._device)

    @staticmethod
    def one_pass_bytes(units: int, total: int, q: Fraction) -> int:
        """The bytes that one pass takes: two tails of each unit's values, of four bytes each."""
        return 4 * 2 * units * tail_length(total, q)

    @property
    def tail(self) -> Tail | None:
        """The largest values of each unit, which tell what may exceed its threshold; None where one pass is too few."""
        return self._select if isinstance(self._select, Tail) else None

    @property
    def bound(self) -> Tensor | None:
        """(U,) float32: no threshold will be below; None where one pass is not enough to know."""
        return self.tail.bound if self.tail else None

    def update(self, values: Tensor, activations: Tensor | None = None) -> None:
        """Take ``values`` (U, n) floating, in any order and cut; NaN and infinities are counted and left out.

        Where the values are not the activations themselves but maps made of them, ``activations`` (U, m) says what
        is counted as NaN, infinite, smallest and largest.
        """
        if not values.shape[1]:
            return
        self.settle_if_due()
        self.prepared(values, activations)()

    def settle_if_due(self) -> None:
        """Put in order what has come, where that is much."""
        if self.tail:
            self.tail.settle_if_due()
        if len(self._extremes) >= _EXTREMES_AT_ONCE:
            self._add_up()

    def prepared(self, values: Tensor, activations: Tensor | None = None) -> Commit:
        """What takes the values as :meth:`update` does; all that may run out of memory is done."""
        values = values.to(torch.float32)
        raw = values if activations is None else activations.to(torch.float32)
        low, high = raw.amin(1), raw.amax(1)  # NaN and infinities show in these
        nan, inf = torch.zeros_like(self._nan), torch.zeros_like(self._inf)
        count = torch.full_like(self._values, values.shape[1])
        if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
            finite = torch.isfinite(raw)
            low = torch.where(finite, raw, torch.inf).amin(1)
            high = torch.where(finite, raw, -torch.inf).amax(1)
            values = torch.where(torch.isfinite(values), values, torch.nan)
            count, nan, inf = (~torch.isnan(values)).sum(1), torch.isnan(raw).sum(1), torch.isinf(raw).sum(1)
        select = self._select.prepared(values)

        def commit() -> None:
            select()
            if self._first_pass:
                self._extremes.append((low[None], high[None]))
                for total, new in zip((self._values, self._nan, self._inf), (count, nan, inf), strict=True):
                    total.add_(new)

        return commit

    def prepared_samples(self, samples: Samples | None, count: int, low: Tensor, high: Tensor, tail: Tail) -> Commit:
        """What takes ``count`` finite values of each unit, of which ``samples`` are all that exceed the bound.

        ``low``, ``high`` (N, U) float32: the least and the largest of each map; ``tail``: the one that takes them, this
        quantile's or a copy with more values, which is to take its place.
        """

        def commit() -> None:
            self._select = tail
            if samples is not None:
                tail.take(samples)
            self._extremes.append((low, high))
            self._finite += count

        return commit

    def so_far(self) -> UnitStatistics:
        """The result if no more values came; only where one pass is enough."""
        self._start()
        return self.result()

    def _start(self) -> None:
        self._add_up()
        counts = self._values.tolist()
        self._select.start([hazen_position(n, self._q)[0] if n else 0 for n in counts], counts)

    def _add_up(self) -> None:
        """Count those values of which all units have had as many, and their extremes."""
        self._values += self._finite
        self._finite = 0
        if self._extremes:
            self._min = torch.cat([self._min[None], *(low for low, _ in self._extremes)]).amin(0)
            self._max = torch.cat([self._max[None], *(high for _, high in self._extremes)]).amax(0)
            self._extremes = []

    def end_pass(self, ranks: Ranks = ALONE) -> bool:
        """True when all the values must be fed once more; ``ranks``: other processes took the other values."""
        if self._first_pass:
            self._first_pass = False
            self._add_up()
            for total in (self._values, self._nan, self._inf):
                ranks.sum(total)
            ranks.least(self._min)
            ranks.most(self._max)
            self._start()
        return self._select.end_pass(ranks)

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here."""
        self._add_up()
        mine = {"values": self._values, "nan": self._nan, "inf": self._inf, "min": self._min, "max": self._max}
        return mine | {"first_pass": torch.tensor(self._first_pass)} | self._select.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another quantile of the same units, total and budget; ValueError for others."""
        mine = self.state()
        demand_form(state, {name: mine[name] for name in ("values", "nan", "inf", "min", "max", "first_pass")})
        for tensor, name in zip((self._values, self._nan, self._inf), ("values", "nan", "inf"), strict=True):
            tensor.copy_(state[name])
        self._min, self._max = state["min"].to(self._device), state["max"].to(self._device)
        self._first_pass, self._finite, self._extremes = bool(state["first_pass"]), 0, []
        self._select.restore(state)
        if not self._first_pass and isinstance(self._select, Tail):
            self._start()

    def result(self) -> UnitStatistics:
        """Thresholds, NaN for a unit without a finite value, and what else the values say of the units."""
        low, high = self._select.order_statistics()
        return _statistics(
            self._q, low, high, values=self._values, nan=self._nan, inf=self._inf, minimum=self._min, maximum=self._max
        )


def merged(states: Sequence[dict[str, Tensor]], q: Fraction) -> UnitStatistics:
    """What the quantiles say together whose ``states``, after one pass each, are given."""
    values, nan, inf = (torch.stack([s[name] for s in states]).sum(0) for name in ("values", "nan", "inf"))
    least = torch.stack([s["min"] for s in states]).amin(0)
    most = torch.stack([s["max"] for s in states]).amax(0)
    from_top = [n - hazen_position(n, q)[0] if n else 0 for n in values.tolist()]
    low, high = selected(states, from_top)
    return _statistics(q, low, high, values=values, nan=nan, inf=inf, minimum=least, maximum=most)


def _statistics(
    q: Fraction,
    low: np.ndarray,
    high: np.ndarray,
    *,
    values: Tensor,
    nan: Tensor,
    inf: Tensor,
    minimum: Tensor,
    maximum: Tensor,
) -> UnitStatistics:
    """The statistics of units whose two order statistics are ``low`` and ``high``; all (U,), counts int64."""
    n, least, most = values.cpu().numpy(), minimum.cpu().numpy(), maximum.cpu().numpy()
    f = np.array([hazen_position(int(v), q)[1] if v else np.nan for v in n])
    x0, x1 = low.astype(np.float64), high.astype(np.float64)
    threshold = np.where(f == 0, x0, x0 + f * (x1 - x0))
    none = n == 0
    return UnitStatistics(
        threshold=np.where(none, np.nan, threshold),
        dead=none | (least == most) | (most <= 0),
        nan=nan.cpu().numpy(),
        inf=inf.cpu().numpy(),
        minimum=np.where(none, np.float32(np.nan), least),
        maximum=np.where(none, np.float32(np.nan), most),
    )
