"""What may fire, kept from the first forward pass so that masks need no second one.

No threshold will be below the bound that its quantile knows so far (ndissect.engine.measures.quantile), so the cells
with a corner above the bound hold every mask pixel. The bound rises while images stream by, and what lies below it
goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.cells import Cells, active_cells, all_above
from ndissect.engine.measures.label_store import LabelStore
from ndissect.engine.passes.labels import LabelBatch
from ndissect.store.upsampling import Upsampling

# Cells that are looked at together when batches are cut.
_CUT_AT_ONCE = 1 << 22
# Batches are cut back to the bound when they have grown by this factor since the last time.
_GROWN = 1.5
# And only where they take this many bytes.
_WORTH = 64 << 20
# Once images are left out, batches are cut again when they have grown by this factor.
_WORTH_CUTTING = 1.02


@dataclass
class CandidateBatch:
    """What may fire in the images numbered ``images``: of each layer its cells, or the maps (N, U, h, w) as a whole.

    ``saved``: it lies on the disk as well.
    """

    images: list[int]
    layers: list[Cells | Tensor]
    saved: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def device(self) -> torch.device:
        first = self.layers[0]
        return first.index.device if isinstance(first, Cells) else first.device

    def to(self, device: torch.device) -> CandidateBatch:
        """The same batch on ``device``."""
        return CandidateBatch(self.images, [layer.to(device) for layer in self.layers], self.saved)


def smaller(cells: Cells, maps: Tensor) -> Cells | Tensor:
    """``cells``, or the ``maps`` (N, U, h, w) that they are of, as float32, where those are smaller."""
    return cells if cells.nbytes < 4 * maps.numel() else maps.to(torch.float32).clone()


def may_fire(maps: Tensor, bound: Tensor, upsampling: Upsampling, peak: Tensor | None = None) -> Cells | Tensor:
    """Of ``maps`` (N, U, h, w) the cells with a corner above ``bound`` (U,), or the maps where that is smaller."""
    if bool((bound == -torch.inf).all()):
        return maps.to(torch.float32).clone()
    return smaller(active_cells(maps, bound, upsampling, peak), maps)


def _cut(layers: Sequence[Cells | Tensor], bound: Tensor, upsampling: Upsampling) -> list[Cells | Tensor]:
    """What may fire above ``bound`` (U,) of what some batches hold of one layer; many cells are looked at together."""
    left: dict[int, Cells | Tensor] = {}
    groups: dict[tuple[torch.device, int], list[int]] = {}
    seen = 0
    for n, layer in enumerate(layers):
        if isinstance(layer, Cells):
            seen += len(layer)
            groups.setdefault((layer.index.device, seen // _CUT_AT_ONCE), []).append(n)
        else:
            left[n] = may_fire(layer, bound.to(layer.device), upsampling)
    for (device, _), numbers in groups.items():
        some = [layer for layer in map(layers.__getitem__, numbers) if isinstance(layer, Cells)]
        left |= zip(numbers, all_above(some, bound.to(device)), strict=True)
    return [left[n] for n in range(len(layers))]


class Candidates:
    """What may fire in the images of a run, batch by batch: on its device while the budget there lasts, then on the
    host.

    ``labels``: of the same images, as long as memory suffices for all of them; ``images``: how many are expected.
    ``full``: images had to be left out, which then need a second forward pass; ``labelled``: no labels had to.
    """

    def __init__(self, budget: Budget, device: torch.device, upsampling: Upsampling, images: int = 0) -> None:
        self.batches: list[CandidateBatch] = []
        self.labels = LabelStore()
        self.full, self.labelled = False, True
        self._budget, self._upsampling, self._expected = budget, upsampling, images
        self._devices = tuple(dict.fromkeys((device, torch.device("cpu"))))
        self._taken = dict.fromkeys((device.type for device in self._devices), 0)  # by batches
        self._cut_to = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken, on host and device."""
        return self._in_batches + self.labels.nbytes

    @property
    def _in_batches(self) -> int:
        """Bytes that a cut can let go of."""
        return sum(self._taken.values())

    def images(self) -> set[int]:
        """The images that are kept."""
        return {image for batch in self.batches for image in batch.images}

    def add(self, batch: CandidateBatch, bounds: Sequence[Tensor], labels: LabelBatch | None = None) -> None:
        """Keep ``batch`` if there is room; ``bounds``: of each layer (U,), below which nothing need be kept.

        ``labels``: of its images, None where they are to be read again.
        """
        labels = labels if self.labelled else None
        if self._in_batches + batch.nbytes > max(_GROWN * self._cut_to, _WORTH):
            self.cut(bounds)
        if self._put(batch, labels):
            return
        if (
            not self.full or self._in_batches > _WORTH_CUTTING * self._cut_to
        ):  # else hardly anything can have sunk below
            self.cut(bounds)
            if self._put(batch, labels):
                return
        self.labelled = False  # labels can be read again, activations cannot
        self.labels.clear()
        self.full = not self._put(batch, None) or self.full

    def restore(
        self,
        batches: Iterable[CandidateBatch],
        bounds: Sequence[Tensor],
        read: Callable[[Sequence[int]], LabelBatch] | None = None,
    ) -> None:
        """Take the batches that were saved; ``read``: gives the labels of such images, None where none are wanted."""
        for batch in batches:
            self.add(batch, bounds, read(batch.images) if read and self.labelled else None)

    def clear(self) -> None:
        """Let go of everything, after it was counted."""
        self.batches.clear()
        self.labels.clear()
        self._count()

    def _put(self, batch: CandidateBatch, labels: LabelBatch | None) -> bool:
        store = self._store(labels) if labels else self.labels
        if store is None:
            return False
        for device in self._devices:
            more = store.needs(labels) - self.labels.nbytes if labels and store.device.type == device.type else 0
            if batch.nbytes + more <= self._room(device):
                batch = batch if batch.device.type == device.type else batch.to(device)
                self.batches.append(batch)
                self._taken[device.type] += batch.nbytes
                if labels:
                    store.add(batch.images, labels)
                    self.labels = store
                return True
        return False

    def _store(self, labels: LabelBatch) -> LabelStore | None:
        """The store that has room for ``labels``: on the device if all that are expected fit there; else None."""
        for device in self._devices:
            store = self.labels
            if not len(store):
                fit = self._room(device) // LabelStore(device).needs(labels) * len(labels.pixels)
                store = LabelStore(device, self._expected if device.type != "cpu" else min(self._expected, fit))
            if store.needs(labels) - self.labels.nbytes <= self._room(store.device):
                return store
        return None

    def _room(self, device: torch.device) -> int:
        labels = self.labels.nbytes if self.labels.device.type == device.type else 0
        return self._budget.on(device) - self._taken[device.type] - labels

    def cut(self, bounds: Sequence[Tensor]) -> None:
        """Let go of what no longer can fire."""
        for i, bound in enumerate(bounds):
            left = _cut([batch.layers[i] for batch in self.batches], bound, self._upsampling)
            for batch, layer in zip(self.batches, left, strict=True):
                batch.layers[i] = layer
        self._count()
        self._cut_to = self._in_batches

    def _count(self) -> None:
        self._taken = dict.fromkeys(self._taken, 0)
        for batch in self.batches:
            self._taken[batch.device.type] += batch.nbytes
