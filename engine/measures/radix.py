"""Radix selection: two order statistics of many streams, in memory that depends on the number of units alone.

Each pass over the values makes a histogram of the next bits of their pattern, and so narrows down where the two order
statistics are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import Ranks
from ndissect.engine.machine.state import demand_form

#: Bits of a value's pattern.
BITS = 32
_SIGN = 1 << 31


def ordered(values: Tensor) -> Tensor:
    """float32 -> int64 in [0, 2**32): the bit pattern made order-preserving, so that v < w iff its number is less."""
    bits = values.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -1 - bits, bits + _SIGN)


def from_ordered(keys: np.ndarray) -> np.ndarray:
    """The inverse of :func:`ordered`, for numpy arrays."""
    keys = keys.astype(np.int64)
    bits = np.where(keys < _SIGN, -1 - keys, keys - _SIGN)
    return bits.astype(np.int32).view(np.float32)


class RadixSelection:
    """Two order statistics of each unit, narrowed by ``bits`` bits a pass from histograms of their next digit."""

    def __init__(self, units: int, bits: int, device: torch.device) -> None:
        self._units, self._bits, self._device = units, bits, device
        self._shift = BITS - bits
        # Two trackers a unit: the ranks k and k + 1 may part ways at any digit.
        self._prefix = torch.zeros((2, units), dtype=torch.int64, device=device)
        self._rank: np.ndarray | None = None
        self._new_histogram()

    def _new_histogram(self) -> None:
        self._width = min(self._bits, BITS if self._shift >= 0 else self._bits + self._shift)
        self._shift = max(self._shift, 0)
        self._histogram = torch.zeros((2, self._units << self._width), dtype=torch.int64, device=self._device)

    def prepared(self, values: Tensor) -> Callable[[], None]:
        """What takes ``values`` (U, n) float32, NaN passed over; all that may run out of memory is done."""
        u, at = (~torch.isnan(values)).nonzero(as_tuple=True)
        return partial(self.take, self._counts(u, values[u, at]))

    def take(self, counts: Tensor) -> None:
        """Take what was counted of some values."""
        self._histogram += counts

    def counts_of_rows(self, rows: Sequence[Tensor]) -> Tensor:
        """Counts of values of different number for each unit, to be taken."""
        lengths = torch.tensor([len(row) for row in rows])
        return self._counts(torch.repeat_interleave(torch.arange(len(rows)), lengths), torch.cat(list(rows)))

    def _counts(self, u: Tensor, values: Tensor) -> Tensor:
        key = ordered(values)
        digit = (key >> self._shift) & ((1 << self._width) - 1)
        counts = []
        for tracker in range(2):
            inside = (key >> (self._shift + self._width)) == self._prefix[tracker][u]
            bins = (u[inside] << self._width) | digit[inside]
            counts.append(torch.bincount(bins, minlength=self._units << self._width))
        return torch.stack(counts)

    def state(self) -> dict[str, Tensor]:
        rank = np.zeros((2, 0), np.int64) if self._rank is None else self._rank
        place = torch.tensor([self._shift, self._width])
        return {"prefix": self._prefix, "rank": torch.from_numpy(rank), "place": place, "histogram": self._histogram}

    def restore(self, state: dict[str, Tensor]) -> None:
        demand_form(state, {"prefix": self._prefix, "place": torch.zeros(2, dtype=torch.int64)})
        shift, width = state["place"].tolist()
        if not (0 <= shift < BITS and 0 < width <= self._bits):
            raise ValueError(f"digits of {width} bits at {shift}")
        demand_form(state, {"histogram": self._histogram.new_zeros(2, self._units << width)})
        rank = state["rank"].cpu().numpy()
        if rank.shape not in ((2, 0), (2, self._units)) or rank.dtype != np.int64:
            raise ValueError(f"ranks of {rank.shape}")
        self._prefix, self._rank = state["prefix"].to(self._device), rank if rank.shape[1] else None
        self._shift, self._width = shift, width
        self._histogram = state["histogram"].to(self._device)

    def start(self, from_top: list[int], counts: list[int]) -> None:
        k = np.array(from_top, np.int64)
        self._rank = np.stack([k, np.minimum(k + 1, np.maximum(np.array(counts) - 1, 0))])

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
