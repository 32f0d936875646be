"""Counting a piece of work in plain PyTorch, pixel by pixel, on any device: what the faster forms are compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.label_grid import enlarge

# Interpolated values that are held at once.
_PIXELS_AT_ONCE = 1 << 24

#: Takes bins (M,) int32 or int64, flat places in a tally's intersection, and how often each is hit (M,).
AddHits = Callable[[Tensor, Tensor], None]


def count_plainly(work: CellWork, area: Tensor, add: AddHits) -> None:
    """Add the mask pixels of ``work`` to ``area`` (N U,) int64, and hand the bins that they hit to ``add``.

    Where a pixel has no label, column 0 of its unit is hit.
    """
    cells, limit, at, (_, U, rows, cols) = work.cells, work.limit, work.at, work.cells.shape
    labels, ways = work.labelling.labels, list(zip(work.labelling.row, work.labelling.slot, strict=True))
    words = labels.words()
    step = max(1, _PIXELS_AT_ONCE // at.pixel.shape[1])
    one = torch.ones((), dtype=torch.int64, device=limit.device)
    for s in range(0, len(cells), step):
        index = cells.index[s : s + step].long()
        image, place = index // (rows * cols), index % (rows * cols)
        n, u = image // U, image % U
        value = enlarge(cells.corners[:, s : s + step], at.wy[place // cols], at.wx[place % cols])
        mask = (value > limit[u][:, None, None]).view(len(index), -1)
        area.index_add_(0, image + work.first * U, mask.sum(1))
        cell, pixel = mask.nonzero(as_tuple=True)
        spot, n, u = at.pixel[place[cell], pixel], n[cell], u[cell]
        for row, slot in ways:
            label = words[row[n] * at.pixels + spot].view(labels.pixels.dtype).view(len(cell), labels.pixels.shape[2])
            bins = (((slot[n] * U + u) * work.columns)[:, None] + label).view(-1)
            add(bins, one.expand(len(bins)))
