"""A piece of the tally's work before any cell of it was looked for: whole maps, for the kernel that does both."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.passes.labels import Labelling
from ndissect.store.upsampling import Upsampling


@dataclass(frozen=True)
class MapWork:
    """Maps (N, U, h, w) floating to count, of the images that ``labelling`` is of.

    ``limit`` (U,) float32: a pixel counts if it is above its unit's; ``columns``: bins of a unit and slot, the labels
    and "no label".
    """

    maps: Tensor
    limit: Tensor
    upsampling: Upsampling
    labelling: Labelling
    at: Placement
    columns: int

    def cells(self) -> CellWork:
        """The same work, of the maps' active cells."""
        cells = active_cells(self.maps, self.limit, self.upsampling)
        return CellWork(cells, self.limit, self.labelling, self.at, 0, self.columns)

    def first_images(self, count: int) -> MapWork:
        """Of the first images alone."""
        few = slice(0, count)
        return MapWork(self.maps[few], self.limit, self.upsampling, self.labelling[few], self.at, self.columns)
