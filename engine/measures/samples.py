"""Values of units in any number, as plain tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.measures.cells import Cells


@dataclass(frozen=True)
class UnitValues:
    """Values (M,) float32, unit after unit, of which ``count`` (U,) int64 are of each."""

    count: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def of_each(self, of_unit: Tensor) -> Tensor:
        """(M,): for each value what ``of_unit`` (U,) says of its unit."""
        return torch.repeat_interleave(of_unit, self.count, output_size=len(self.value))

    @classmethod
    def above(cls, values: Tensor, limit: Tensor) -> UnitValues:
        """Those of ``values`` (U, n) float32 above ``limit`` (U,), not NaN; the host waits."""
        above = values > limit[:, None]
        return cls(above.sum(1), values[above])


@dataclass(frozen=True)
class CellSamples:
    """The samples of maps that lie in some of their cells (ndissect.engine.measures.cells), each of them once.

    ``shape``: (N, U, h + 1, w + 1), the cells that there are; ``index`` (M,): the places of these; ``corner`` (M,)
    float32: the sample top left of each.
    """

    shape: tuple[int, int, int, int]
    index: Tensor
    corner: Tensor

    @classmethod
    def of(cls, cells: Cells) -> CellSamples:
        """All samples above a limit lie in the cells that have a corner above it."""
        return cls(cells.shape, cells.index, cells.corners[0].clone())  # the other corners may be let go of

    @classmethod
    def joined(cls, several: Sequence[CellSamples]) -> CellSamples:
        """Those of several batches, whose places are then no longer distinct."""
        return cls(several[0].shape, torch.cat([s.index for s in several]), torch.cat([s.corner for s in several]))

    def __len__(self) -> int:
        return len(self.index)

    def units(self) -> Tensor:
        """(M,): the unit of each."""
        _, U, rows, cols = self.shape
        return self.index // (rows * cols) % U

    def samples(self) -> Tensor:
        """(M,): ``corner``, and NaN where it lies in the padding.

        Each sample is the corner top left of exactly one cell, which is neither in the first row nor in the first
        column.
        """
        _, _, rows, cols = self.shape
        place = self.index % (rows * cols)
        return torch.where((place >= cols) & (place % cols > 0), self.corner, torch.nan)
