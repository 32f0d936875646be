"""A piece of the tally's work: cells to enlarge, compare and count, as every form of the tally takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.passes.labels import Labelling


@dataclass(frozen=True)
class CellWork:
    """Cells to count: of images that ``labelling`` is of, the first of which is image ``first`` of the batch.

    ``limit`` (U,) float32: a pixel counts if it is above its unit's; ``columns``: bins of a unit and slot, the labels
    and "no label".
    """

    cells: Cells
    limit: Tensor
    labelling: Labelling
    at: Placement
    first: int
    columns: int
