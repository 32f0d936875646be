"""Hits of a tally's bins, until they are added to it as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

# Up to this many bins there is a table of them all: on a CPU while it stays in the caches, on a GPU 1 GB.
_TABLE_BINS = {"cpu": 1 << 20, "cuda": 1 << 27}
# Hits that are held before equal ones are put together.
_HITS_AT_ONCE = 1 << 25


def has_table(bins: int, device: torch.device) -> bool:
    """Whether hits of so many bins are counted in a table as they come, and need not be held."""
    return bins <= _TABLE_BINS[device.type]


class Hits:
    """How often each of ``bins`` bins was hit."""

    def __init__(self, bins: int, device: torch.device) -> None:
        self._bins, self._device = bins, device
        self._counts: Tensor | None = None
        self._held: list[tuple[Tensor, Tensor]] = []  # bins, and how often: where there is no table
        self._room = _HITS_AT_ONCE

    def table(self) -> Tensor | None:
        """The counts themselves (bins,) int64, to add to; None where they are too many to hold once more."""
        if self._counts is None and has_table(self._bins, self._device):
            self._counts = torch.zeros(self._bins, dtype=torch.int64, device=self._device)
        return self._counts

    def add(self, bins: Tensor, times: Tensor) -> None:
        """Take hits of ``bins`` (M,) int32 or int64, each so many ``times`` (M,)."""
        table = self.table()
        if table is not None:
            _add((bins, times), table)
            return
        self._held.append((bins, times))
        self._room -= len(bins)
        if self._room < 0:
            distinct, which = torch.unique(torch.cat([b for b, _ in self._held]), return_inverse=True)
            counts = torch.zeros(len(distinct), dtype=torch.int64, device=self._device)
            _add((which, torch.cat([t for _, t in self._held])), counts)
            self._held, self._room = [(distinct, counts)], max(_HITS_AT_ONCE, len(distinct))

    def add_to(self, counts: Tensor) -> None:
        """Add all of them to ``counts`` (bins,) int64."""
        if self._counts is not None:
            counts += self._counts
        for held in self._held:
            _add(held, counts)


def _add(hits: tuple[Tensor, Tensor], counts: Tensor) -> None:
    counts.index_add_(0, hits[0], hits[1].to(counts.dtype))
