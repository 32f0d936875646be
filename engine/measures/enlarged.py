"""The values of enlarged maps that exceed a bound, found without enlarging most of the maps."""

from __future__ import annotations

import torch

from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.label_grid import Placement, enlarge
from ndissect.engine.measures.tail import UnitValues

# Values that are interpolated at once, on a GPU and (to stay in its caches) on a CPU.
_PIXELS_AT_ONCE = (1 << 24, 1 << 20)


def enlarged_above(cells: Cells, bound: torch.Tensor, at: Placement) -> UnitValues:
    """The pixels above their unit's ``bound`` (U,) of maps whose ``cells`` hold all those with a corner above it.

    A pixel lies in one cell, and does not exceed the largest of its corners. The host waits.
    """
    _, U, rows, cols = cells.shape
    step = max(1, _PIXELS_AT_ONCE[bound.device.type == "cpu"] // at.pixel.shape[1])
    order = (cells.index // (rows * cols) % U).to(torch.int32).argsort(stable=True)  # unit after unit
    count, values = torch.zeros(U, dtype=torch.int64, device=bound.device), [bound.new_zeros(0)]
    for start in range(0, len(cells), step):
        some = order[start : start + step]
        index = cells.index.index_select(0, some).long()
        place, unit = index % (rows * cols), index // (rows * cols) % U
        wy, wx = at.wy.index_select(0, place // cols), at.wx.index_select(0, place % cols)
        value = enlarge(cells.corners.index_select(1, some), wy, wx)
        above = value > bound.index_select(0, unit)[:, None, None]  # false where a cell has fewer pixels
        values.append(value[above])
        count.index_add_(0, unit, above.sum((1, 2)))
    return UnitValues(count, torch.cat(values))
