"""What one forward pass gathers of one layer: its thresholds, its top images, and what may fire.

The maps of some images are taken in three steps, so that the host waits once for all layers, and so that nothing has
changed where memory runs out: look at them, without waiting; read what was counted; prepare what is to be taken. Then
it is taken, which cannot fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.measures.candidates import may_fire, smaller
from ndissect.engine.measures.cells import CellGuess, Cells, CellSearch, Limits, active_cells
from ndissect.engine.measures.enlarged import EnlargedCells
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.measures.quantile import Commit, Quantile
from ndissect.engine.measures.samples import CellSamples
from ndissect.engine.measures.tail import Samples, Tail
from ndissect.engine.measures.tally import upsample_dense
from ndissect.engine.measures.top import Rivals, RivalSearch, TopTracker
from ndissect.store.protocol import Protocol

# Values that are looked at together while no bound is known.
_VALUES_AT_ONCE = 1 << 25
# Cells likewise.
_CELLS_AT_ONCE = 1 << 22
# Cells are kept instead of their pixels where they have so many.
_PIXELS_OF_A_CELL = 16


@dataclass(frozen=True)
class Look:
    """What is known of the maps (N, U, h, w) of some images before the host has read what was counted.

    ``peak``, ``low`` (N, U) float32: each map's largest and least value, NaN where it holds one; ``cells``, ``rivals``:
    what is looked for; ``counts``: scalars on the device, to be read.
    """

    maps: Tensor
    peak: Tensor
    low: Tensor
    cells: CellSearch | None
    rivals: RivalSearch | None
    counts: list[Tensor]


@dataclass(frozen=True)
class Gathered:
    """What is to be taken of the maps of some images: ``take`` takes it for the thresholds.

    ``peak`` (N, U) float32: each map's largest finite value; ``firing``: what may fire, None where that cannot be told;
    ``rivals``: what may be among the top images, None where that was not asked for.
    """

    take: Callable[[], None]
    peak: Tensor
    firing: Cells | Tensor | None
    rivals: Rivals | None


class LayerGatherer:
    """Takes the maps of one layer: for its thresholds into ``quantile``, for its top images into ``top``."""

    def __init__(self, geometry: LayerGeometry, protocol: Protocol, quantile: Quantile, top: TopTracker) -> None:
        self.quantile, self.top = quantile, top
        self._geometry, self._protocol = geometry, protocol
        self._limits: Limits | None = None
        self._guess = CellGuess()
        self._placement: Placement | None = None

    def settle_if_due(self) -> None:
        """Put in order what has come, where that is much."""
        self.quantile.settle_if_due()
        self.top.settle_if_due()

    def look(self, maps: Tensor, images: Sequence[int] | None) -> Look:
        """Look at ``maps`` (N, U, h, w) floating; ``images``: their numbers, None where only values are taken."""
        peak, low = maps.amax((2, 3)).to(torch.float32), maps.amin((2, 3)).to(torch.float32)
        tail, cells = self.quantile.tail, None
        if tail and tail.raised:
            cells = CellSearch(maps, peak, self._at(tail.bound), self._protocol.upsampling, self._guess)
        rivals = None if images is None else self.top.search(maps, peak, low, images)
        counts = [low.amin(), peak.amax()]
        for search in (cells, rivals):
            counts += search.counts if search else ()
        return Look(maps, peak, low, cells, rivals, counts)

    def _at(self, bound: Tensor) -> Limits:
        if self._limits is None or self._limits.limit is not bound:
            self._limits = Limits(bound)
        return self._limits

    def prepared(self, look: Look, counts: Sequence[float]) -> Gathered:
        """What is to be taken of the maps looked at, given what was counted."""
        if not (math.isfinite(counts[0]) and math.isfinite(counts[1])):
            return self._odd(look)
        counted = [int(count) for count in counts[2:]]
        rivals = look.rivals.end(counted[len(counted) - len(look.rivals.counts) :]) if look.rivals else None
        tail, maps = self.quantile.tail, look.maps
        if tail is None:
            return Gathered(self._all_values(maps), look.peak, None, rivals)
        samples: Samples | None = None
        if look.cells is None:
            tail = self._first(tail, maps)
            firing = may_fire(maps, tail.bound, self._protocol.upsampling, look.peak)
        else:
            cells = look.cells.end(counted[: len(look.cells.counts)])
            samples, firing = self._samples(cells, tail.bound), smaller(cells, maps)
        take = self.quantile.prepared_samples(samples, self._count(maps), look.low, look.peak, tail)
        return Gathered(take, look.peak, firing, rivals)

    def _first(self, tail: Tail, maps: Tensor) -> Tail:
        """``tail`` with the values of finite ``maps``, while no bound is known: the first of them give one."""
        if self._protocol.quantile_over == "upsampled" and tail.keeps_cells and self._has_large_cells(tail):
            return self._first_cells(tail, maps)
        start, images = 0, max(1, _VALUES_AT_ONCE // (maps.shape[1] * self._count(maps[:1])))
        while start < len(maps) and not tail.raised:
            tail = tail.with_values(self._values(maps[start : start + images]))
            start += images
        while start < len(maps):  # each time as many as before altogether
            some = maps[start : 2 * start]
            tail.take(self._samples(active_cells(some, tail.bound, self._protocol.upsampling), tail.bound))
            tail.settle()
            start *= 2
        return tail

    def _first_cells(self, tail: Tail, maps: Tensor) -> Tail:
        """``tail`` with the cells of finite ``maps``, while no bound is known."""
        tail, (_, U, h, w) = tail.copy(), maps.shape
        step = max(1, _CELLS_AT_ONCE // (U * (h + 1) * (w + 1)))
        for start in range(0, len(maps), step):
            some = maps[start : start + step]
            tail.take(self._samples(active_cells(some, tail.bound, self._protocol.upsampling), tail.bound))
            tail.settle_if_due()
        if not tail.raised:
            tail.raise_bound()
        return tail

    def _has_large_cells(self, tail: Tail) -> bool:
        return self._placed(tail.bound.device).pixel.shape[1] >= _PIXELS_OF_A_CELL

    def _placed(self, device: torch.device) -> Placement:
        if self._placement is None:
            self._placement = Placement(*self._geometry.axes, device)
        return self._placement

    def _odd(self, look: Look) -> Gathered:
        """The same where a value is not finite."""
        maps, tail = look.maps, self.quantile.tail
        take = self._all_values(maps)
        firing = may_fire(maps, tail.bound, self._protocol.upsampling) if tail else None
        finite = torch.where(torch.isfinite(maps), maps, -torch.inf)
        rivals = self.top.among(maps) if look.rivals else None
        return Gathered(take, finite.amax((2, 3)).to(torch.float32), firing, rivals)

    def _samples(self, cells: Cells, bound: Tensor) -> Samples:
        """All values above ``bound`` (U,), which lie in ``cells``."""
        if self._protocol.quantile_over == "raw":
            return CellSamples.of(cells)
        enlarged = EnlargedCells.of(cells, self._placed(bound.device))
        tail = self.quantile.tail
        return enlarged if tail and tail.keeps_cells else enlarged.values_above(bound)

    def _all_values(self, maps: Tensor) -> Commit:
        """What takes all values of ``maps``; least, largest and odd ones are those of the maps as they are."""
        activations = maps.transpose(0, 1).reshape(maps.shape[1], -1)
        return self.quantile.prepared(self._values(maps), activations)

    def _values(self, maps: Tensor) -> Tensor:
        """(U, n): all values of ``maps`` whose quantile is asked for."""
        if self._protocol.quantile_over == "raw":
            return maps.transpose(0, 1).reshape(maps.shape[1], -1).to(torch.float32)
        rows, cols = self._geometry.axes
        dense = [
            upsample_dense(image[None], rows, cols, self._protocol.upsampling)[0].reshape(maps.shape[1], -1)
            for image in maps
        ]
        return torch.cat(dense, 1)

    def _count(self, maps: Tensor) -> int:
        """How many values ``maps`` (N, U, h, w) have of each unit."""
        if self._protocol.quantile_over == "raw":
            return len(maps) * maps.shape[2] * maps.shape[3]
        rows, cols = self._geometry.axes
        return len(maps) * len(rows.cell) * len(cols.cell)


def prepare(layers: Sequence[LayerGatherer], maps: Sequence[Tensor], images: Sequence[int] | None) -> list[Gathered]:
    """What is to be taken of each layer's maps, for which the host waits once; nothing has been taken."""
    for layer in layers:
        layer.settle_if_due()
    looks = [layer.look(m, images) for layer, m in zip(layers, maps, strict=True)]
    counts = iter(torch.stack([count.double() for look in looks for count in look.counts]).tolist())
    return [
        layer.prepared(look, [next(counts) for _ in look.counts]) for layer, look in zip(layers, looks, strict=True)
    ]
