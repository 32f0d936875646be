"""How a layer's cells lie on the label grid, and the pixels that they enlarge to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ndissect.store.upsampling import Axis


def finite_or_nan(values: Tensor) -> Tensor:
    """``values`` with infinities made NaN: whatever is interpolated from a non-finite sample is above no threshold."""
    return torch.where(torch.isfinite(values), values, torch.nan)


class Placement:
    """How a layer's cells lie on the label grid, as tables for look-ups on ``device``.

    Along each axis a cell covers up to R (or S) target pixels. ``wy`` (h + 1, R), ``wx`` (w + 1, S): their weights, NaN
    beyond a cell's last pixel; ``pixel`` ((h + 1) (w + 1), R S): each cell's target pixels as places on the grid, of
    ``pixels`` altogether, ``width`` in a row.
    """

    def __init__(self, rows: Axis, cols: Axis, device: torch.device | str = "cpu") -> None:
        self.width = len(cols.cell)
        self.pixels = len(rows.cell) * self.width
        y, wy = _blocks(rows)
        x, wx = _blocks(cols)
        pixel = y[:, None, :, None] * self.width + x[None, :, None, :]
        self.wy, self.wx = torch.from_numpy(wy).to(device), torch.from_numpy(wx).to(device)
        self.pixel = torch.from_numpy(pixel.reshape(-1, y.shape[1] * x.shape[1])).to(device)

    def sizes(self) -> Tensor:
        """((h + 1) (w + 1),) int64: how many target pixels each cell has."""
        high, wide = (~self.wy.isnan()).sum(1), (~self.wx.isnan()).sum(1)
        return (high[:, None] * wide).view(-1)

    def thinned(self, step: int) -> Iterator[Placement]:
        """The same cells with every ``step``-th row and column of their pixels: once for each that can be the first."""
        pixel = self.pixel.view(-1, self.wy.shape[1], self.wx.shape[1])
        for y, x in product(range(step), repeat=2):
            other = copy.copy(self)
            other.wy, other.wx = self.wy[:, y::step], self.wx[:, x::step]
            other.pixel = pixel[:, y::step, x::step].flatten(1)
            yield other


def _blocks(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Target pixels of each cell of an axis and their weights, as rows padded with 0 and NaN: (n + 1, longest)."""
    per_cell = np.bincount(axis.cell, minlength=len(axis.positions) + 1)
    target = np.zeros((len(per_cell), int(per_cell.max())), np.int64)
    weight = np.full(target.shape, np.nan, np.float32)
    place = np.arange(len(axis.cell)) - (np.cumsum(per_cell) - per_cell)[axis.cell]
    target[axis.cell, place] = np.arange(len(axis.cell))
    weight[axis.cell, place] = axis.weight
    return target, weight


def enlarge(corners: Tensor, wy: Tensor, wx: Tensor) -> Tensor:
    """(M, R, S) float32: the pixels of M cells, rows first, from ``corners`` (4, M); NaN where a weight is NaN."""
    a, b, c, d = finite_or_nan(corners)[:, :, None]
    left = a + wy * (c - a)
    right = b + wy * (d - b)
    pixels: Tensor = left[:, :, None] + wx[:, None, :] * (right - left)[:, :, None]
    return pixels
