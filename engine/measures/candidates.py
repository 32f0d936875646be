"""What may fire, kept from the first forward pass so that masks need no second one.

No threshold will be below the bound that its quantile knows so far (ndissect.engine.measures.quantile), so the cells
with a corner above the bound hold every mask pixel. The bound rises while images stream by, and what lies below it
goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.cells import Cells, active_cells
from ndissect.engine.passes.labels import LabelBatch
from ndissect.store.upsampling import Upsampling

# Pieces are cut back to the bound when they have grown by this factor since the last time.
_GROWN = 1.5
# And only where they take this many bytes.
_WORTH = 64 << 20
# Once images are left out, pieces are cut again when they have grown by this factor.
_WORTH_CUTTING = 1.02


@dataclass
class CandidateBatch:
    """What may fire in the images numbered ``images``: of each layer its cells, or the maps (N, U, h, w) as a whole.

    ``labels``: of these images, None where they have to be read again; ``saved``: it lies on the disk as well.
    """

    images: list[int]
    layers: list[Cells | Tensor]
    labels: LabelBatch | None = None
    saved: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(layer.nbytes for layer in self.layers) + (self.labels.nbytes if self.labels else 0)

    @property
    def device(self) -> torch.device:
        first = self.layers[0]
        return first.index.device if isinstance(first, Cells) else first.device

    def to(self, device: torch.device) -> CandidateBatch:
        """The same piece on ``device``."""
        labels = self.labels.to(device) if self.labels else None
        return CandidateBatch(self.images, [layer.to(device) for layer in self.layers], labels, self.saved)


def may_fire(maps: Tensor, bound: Tensor, upsampling: Upsampling, peak: Tensor | None = None) -> Cells | Tensor:
    """Of ``maps`` (N, U, h, w) the cells with a corner above ``bound`` (U,), or the maps where that is smaller."""
    if bool((bound == -torch.inf).all()):
        return maps.to(torch.float32).clone()
    cells = active_cells(maps, bound, upsampling, peak)
    return cells if cells.nbytes < 4 * maps.numel() else maps.to(torch.float32).clone()


def _cut(layer: Cells | Tensor, bound: Tensor, upsampling: Upsampling) -> Cells | Tensor:
    if isinstance(layer, Cells):
        return layer.above(bound.to(layer.index.device))
    return may_fire(layer, bound.to(layer.device), upsampling)


class Candidates:
    """The pieces of a run, on its device while the budget there lasts, then on the host.

    ``full``: images had to be left out, which then need a second forward pass; ``labelled``: no labels had to.
    """

    def __init__(self, budget: Budget, device: torch.device, upsampling: Upsampling) -> None:
        self.pieces: list[CandidateBatch] = []
        self.full, self.labelled = False, True
        self._budget, self._upsampling = budget, upsampling
        self._places = tuple(dict.fromkeys((device, torch.device("cpu"))))
        self._taken = dict.fromkeys((place.type for place in self._places), 0)
        self._cut_to = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken, on host and device."""
        return sum(self._taken.values())

    def images(self) -> set[int]:
        """The images that are kept."""
        return {image for piece in self.pieces for image in piece.images}

    def add(self, piece: CandidateBatch, bounds: Sequence[Tensor]) -> None:
        """Keep ``piece`` if there is room; ``bounds``: of each layer (U,), below which nothing need be kept."""
        if self.nbytes + piece.nbytes > max(_GROWN * self._cut_to, _WORTH):
            self.cut(bounds)
        if self._put(piece):
            return
        if not self.full or self.nbytes > _WORTH_CUTTING * self._cut_to:  # else hardly anything can have sunk below
            self.cut(bounds)
            if self._put(piece):
                return
        self.labelled = False  # labels can be read again, activations cannot
        for there in (*self.pieces, piece):
            there.labels = None
        self._count()
        self.full = not self._put(piece) or self.full

    def restore(self, pieces: Iterable[CandidateBatch], bounds: Sequence[Tensor]) -> None:
        """Take the pieces that were saved."""
        for piece in pieces:
            self.add(piece, bounds)

    def _put(self, piece: CandidateBatch) -> bool:
        for place in self._places:
            if self._taken[place.type] + piece.nbytes <= self._budget.on(place):
                piece = piece if piece.device.type == place.type else piece.to(place)
                self.pieces.append(piece)
                self._taken[place.type] += piece.nbytes
                return True
        return False

    def cut(self, bounds: Sequence[Tensor]) -> None:
        """Let go of what no longer can fire."""
        for piece in self.pieces:
            piece.layers = [
                _cut(layer, bound, self._upsampling) for layer, bound in zip(piece.layers, bounds, strict=True)
            ]
        self._count()
        self._cut_to = self.nbytes

    def _count(self) -> None:
        self._taken = dict.fromkeys(self._taken, 0)
        for piece in self.pieces:
            self._taken[piece.device.type] += piece.nbytes
