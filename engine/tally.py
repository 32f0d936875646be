"""Counting, exactly: mask pixels by unit and concept, with work in proportion to what fires.

A linear interpolation never exceeds its largest corner, so a cell of the padded map without a corner above T holds no
mask pixel (ndissect.store.upsampling says why this holds in float32 too). By definition about half a percent of
locations lie above T: only the cells around those are enlarged, compared, and looked up in the label maps.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.labels import LabelBatch
from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.upsampling import Axis, Upsampling

# Interpolated values, and cells, that are held at once: they bound the tally's memory to a few hundred MB.
_PIXELS_AT_ONCE = 1 << 22
_CELLS_AT_ONCE = 1 << 22
# Up to this many bins, counting into all of them is cheaper than sorting the hits.
_DENSE_BINS = 1 << 20


def compare_at(threshold: Tensor) -> Tensor:
    """(U,) float32: the largest float32 not above each float64 threshold. For float32 v: v > T iff v > this."""
    single = threshold.to(torch.float32)
    below = torch.nextafter(single, torch.full_like(single, -torch.inf))
    return torch.where(single.to(torch.float64) > threshold, below, single)


def finite_or_nan(values: Tensor) -> Tensor:
    """``values`` with infinities made NaN: whatever is interpolated from a non-finite sample is above no threshold."""
    return torch.where(torch.isfinite(values), values, torch.nan)


def pad_maps(maps: Tensor, upsampling: Upsampling) -> Tensor:
    """(N, U, h, w) -> (N, U, h + 2, w + 2), as ndissect.store.upsampling.pad_map."""
    if upsampling == "half-pixel-zero":
        return F.pad(maps, (1, 1, 1, 1))
    return F.pad(maps, (1, 1, 1, 1), mode="replicate")


def upsample_dense(maps: Tensor, rows: Axis, cols: Axis, upsampling: Upsampling) -> Tensor:
    """(N, U, h, w) -> (N, U, H, W) float32: for quantiles over enlarged maps, where every pixel counts."""
    p = pad_maps(finite_or_nan(maps.to(torch.float32)), upsampling)

    def lerp(p: Tensor, axis: Axis, dim: int) -> Tensor:
        cell = torch.from_numpy(axis.cell).to(p.device)
        weight = torch.from_numpy(axis.weight).to(p.device)
        a, b = p.index_select(dim, cell), p.index_select(dim, cell + 1)
        return a + weight.view(-1, *[1] * (p.ndim - 1 - dim)) * (b - a)

    return lerp(lerp(p, rows, 2), cols, 3)


class _Blocks:
    """Along one axis, the target pixels of each cell as rows of a rectangular table, padded with weight NaN."""

    def __init__(self, axis: Axis, cells: int, device: torch.device) -> None:
        per_cell = np.bincount(axis.cell, minlength=cells)
        self.longest = int(per_cell.max())
        target = np.zeros((cells, self.longest), np.int64)
        weight = np.full((cells, self.longest), np.nan, np.float32)
        place = np.arange(len(axis.cell)) - (np.cumsum(per_cell) - per_cell)[axis.cell]
        target[axis.cell, place] = np.arange(len(axis.cell))
        weight[axis.cell, place] = axis.weight
        self.target = torch.from_numpy(target).to(device)
        self.weight = torch.from_numpy(weight).to(device)


class Tally:
    """Counts of one layer over any number of batches: I(u, c) and A(u), by image group."""

    def __init__(
        self, units: int, concepts: int, categories: int, groups: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self._device = torch.device(device)
        # Column 0 gathers the unlabelled pixels; it is dropped in the end, so that none has to be left out on the way.
        self._intersection = torch.zeros((groups, units, concepts + 1), dtype=torch.int64, device=self._device)
        self._area = torch.zeros((groups, units), dtype=torch.int64, device=self._device)
        self._in_category = torch.zeros((groups, units, categories), dtype=torch.int64, device=self._device)

    def add(
        self, maps: Tensor, threshold: Tensor, rows: Axis, cols: Axis, upsampling: Upsampling, labels: LabelBatch
    ) -> None:
        """Count N images: ``maps`` (N, U, h, w) floating, ``threshold`` (U,) float64.

        A mask pixel is an enlarged value strictly above its unit's threshold. Nothing is added if this fails half-way
        for want of memory.
        """
        N, U, h, w = maps.shape
        limit = compare_at(threshold).to(self._device)
        padded = pad_maps(maps.to(torch.float32), upsampling)
        blocks = _Blocks(rows, h + 1, self._device), _Blocks(cols, w + 1, self._device)
        area = torch.zeros(N * U, dtype=torch.int64, device=self._device)
        hits = _Hits(self._intersection.numel(), self._device)
        # A few images at a time, so that memory stays bounded even where nearly everything fires.
        step = max(1, _CELLS_AT_ONCE // (U * (h + 1) * (w + 1)))
        for start in range(0, N, step):
            self._add_images(padded, slice(start, start + step), limit, blocks, labels, area, hits)
        self._commit(area.view(N, U), hits, labels)

    def _add_images(
        self,
        padded: Tensor,
        images: slice,
        limit: Tensor,
        blocks: tuple[_Blocks, _Blocks],
        labels: LabelBatch,
        area: Tensor,
        hits: _Hits,
    ) -> None:
        """Count a few images into ``area`` (N U,) and ``hits``, by flat index of the intersection."""
        N, U, H2, W2 = padded.shape
        n, u, i, j = _active_cells(padded[images], limit)
        n = n + images.start
        flat, corner = padded.reshape(-1), ((n * U + u) * H2 + i) * W2 + j
        flat_labels = labels.maps.reshape(-1)
        by_row, by_col = blocks
        step = max(1, _PIXELS_AT_ONCE // (by_row.longest * by_col.longest))
        for s in range(0, len(n), step):
            cells = slice(s, s + step)
            value = _enlarge(flat, corner[cells], W2, by_row.weight[i[cells]], by_col.weight[j[cells]])
            k, r, c = (value > limit[u[cells]][:, None, None]).nonzero(as_tuple=True)
            k = k + s
            y, x = by_row.target[i[k], r], by_col.target[j[k], c]
            area += torch.bincount(n[k] * U + u[k], minlength=N * U)
            base = (labels.group[n[k]] * U + u[k]) * self._intersection.shape[2]
            M, H, W = labels.maps.shape[1:]
            pixel = (n[k] * M * H + y) * W + x
            for m in range(M):
                hits.add(base + flat_labels[pixel + m * H * W])

    def _commit(self, area: Tensor, hits: _Hits, labels: LabelBatch) -> None:
        hits.add_to(self._intersection.view(-1))
        self._area.index_add_(0, labels.group, area)
        for k in range(self._in_category.shape[2]):
            self._in_category[:, :, k].index_add_(0, labels.group, area * labels.present[:, k, None])
        units = torch.arange(area.shape[1], device=self._device)
        for level in labels.image_level.T:
            where = (labels.group[:, None], units[None, :], level.long()[:, None])
            self._intersection.index_put_(where, area, accumulate=True)

    def counts(self) -> LayerCounts:
        """What was counted so far."""
        return LayerCounts(
            self._intersection[:, :, 1:].contiguous().cpu().numpy(),
            self._area.cpu().numpy().copy(),
            self._in_category.cpu().numpy().copy(),
        )


def _active_cells(padded: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices (image, unit, row, column) of the cells of the padded maps that have a corner above the limit."""
    fires = padded > limit[None, :, None, None]
    either = fires[:, :, :-1] | fires[:, :, 1:]
    n, u, i, j = (either[..., :-1] | either[..., 1:]).nonzero(as_tuple=True)
    return n, u, i, j


def _enlarge(flat: Tensor, corner: Tensor, stride: int, wy: Tensor, wx: Tensor) -> Tensor:
    """(M, R, C) float32: the pixels of M cells, rows first; NaN where a cell has fewer than R rows or C columns."""
    a, b, c, d = (
        finite_or_nan(flat[corner + step])[:, None] for step in (0, 1, stride, stride + 1)
    )  # the four corners
    left = a + wy * (c - a)
    right = b + wy * (d - b)
    return left[:, :, None] + wx[:, None, :] * (right - left)[:, :, None]


class _Hits:
    """How often each of ``bins`` indices was hit: an array where there are few bins, else the distinct indices."""

    def __init__(self, bins: int, device: torch.device) -> None:
        self._bins = bins
        few = bins <= _DENSE_BINS
        self._dense = torch.zeros(bins, dtype=torch.int64, device=device) if few else None
        self._sparse: list[tuple[Tensor, Tensor]] = []

    def add(self, index: Tensor) -> None:
        if self._dense is not None:
            self._dense += torch.bincount(index, minlength=self._bins)
            return
        self._sparse.append(torch.unique(index, return_counts=True))
        if sum(len(distinct) for distinct, _ in self._sparse) > _CELLS_AT_ONCE:
            distinct, inverse = torch.unique(torch.cat([i for i, _ in self._sparse]), return_inverse=True)
            count = torch.zeros_like(distinct).index_add_(0, inverse, torch.cat([c for _, c in self._sparse]))
            self._sparse = [(distinct, count)]

    def add_to(self, counts: Tensor) -> None:
        if self._dense is not None:
            counts += self._dense
        for distinct, count in self._sparse:
            counts.index_add_(0, distinct, count)


class ConceptTally:
    """What the labels alone hold, by image group: C(c) in pixels, and the images that hold c."""

    def __init__(self, concepts: int, groups: int = 1, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._area = torch.zeros((groups, concepts + 1), dtype=torch.int64, device=self._device)
        self._images = torch.zeros((groups, concepts + 1), dtype=torch.int64, device=self._device)

    def add(self, labels: LabelBatch) -> None:
        """Count N images' labels."""
        N, (H, W), C1 = len(labels.maps), labels.maps.shape[-2:], self._area.shape[1]
        image = torch.arange(N, device=self._device)[:, None]
        pixels = (image * C1 + labels.maps.view(N, -1)).view(-1)
        area = torch.bincount(pixels, minlength=N * C1).view(N, C1)
        whole = (image * C1 + labels.image_level).view(-1).long()
        area.view(-1).index_add_(0, whole, torch.full_like(whole, H * W))
        self._area.index_add_(0, labels.group, area)
        self._images.index_add_(0, labels.group, (area > 0).long())

    def counts(self) -> ConceptCounts:
        """What was counted so far."""
        return ConceptCounts(self._area[:, 1:].cpu().numpy().copy(), self._images[:, 1:].cpu().numpy().copy())
