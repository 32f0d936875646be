"""The cells of activation maps that may hold mask pixels: all that counting needs of a map.

A map padded by one sample on each side (ndissect.store.upsampling) is a grid of cells with a sample at each corner. A
linear interpolation never exceeds its largest corner, so a cell without a corner above T holds no mask pixel. By
definition about half a percent of locations lie above T: the other cells are never looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.measures import cell_search
from ndissect.engine.measures.guess import Guess, first_places, places
from ndissect.store.upsampling import Upsampling

# Cells that are looked at together, on a GPU and on a CPU: what is made of them on the way is bounded to some hundred
# MB.
_CELLS_AT_ONCE = (1 << 26, 1 << 24)


@dataclass(frozen=True)
class Cells:
    """M cells of N images' maps.

    ``shape``: (N, U, h + 1, w + 1), the cells that there are; ``index`` (M,) int32, or int64 where they are that many:
    flat places in it, rising; ``corners`` (4, M) float32: the samples top left, top right, bottom left, bottom right.
    """

    shape: tuple[int, int, int, int]
    index: Tensor
    corners: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return self.index.nbytes + self.corners.nbytes

    def above(self, limit: Tensor) -> Cells:
        """Those with a corner above their unit's limit; ``limit`` (U,) float32."""
        return all_above([self], limit)[0]

    def of_images(self, images: slice) -> Cells:
        """Those of some images that follow one another; the host waits for another device."""
        a_image = math.prod(self.shape[1:])
        first, end, _ = images.indices(self.shape[0])
        at = slice(*np.searchsorted(self.index.cpu().numpy(), (first * a_image, end * a_image)).tolist())
        return Cells((end - first, *self.shape[1:]), self.index[at] - first * a_image, self.corners[:, at])

    def to(self, device: torch.device) -> Cells:
        """The same cells on ``device``."""
        return Cells(self.shape, self.index.to(device), self.corners.to(device))


def all_above(several: Sequence[Cells], limit: Tensor) -> list[Cells]:
    """Of each of ``several``, of one layer and on one device, those with a corner above their unit's limit (U,)."""
    _, U, rows, cols = several[0].shape
    index, corners = torch.cat([cells.index for cells in several]), torch.cat([cells.corners for cells in several], 1)
    unit = index // (rows * cols) % U
    fires = (corners > limit.index_select(0, unit)).any(0)
    ends = torch.tensor([0, *accumulate(map(len, several))], device=index.device)
    before = F.pad(fires.cumsum(0), (1, 0)).index_select(0, ends).tolist()  # so many fire in those before
    (at,) = first_places(fires, before[-1])
    index, corners = index.index_select(0, at), corners.index_select(1, at)
    return [
        Cells(cells.shape, index[start:end].to(cells.index.dtype), corners[:, start:end])
        for cells, (start, end) in zip(several, pairwise(before), strict=True)
    ]


def pad_maps(maps: Tensor, upsampling: Upsampling) -> Tensor:
    """(N, U, h, w) -> (N, U, h + 2, w + 2), as ndissect.store.upsampling.pad_map."""
    if upsampling == "half-pixel-zero":
        return F.pad(maps, (1, 1, 1, 1))
    return F.pad(maps, (1, 1, 1, 1), mode="replicate")


def active_cells(maps: Tensor, limit: Tensor, upsampling: Upsampling, peak: Tensor | None = None) -> Cells:
    """The cells of ``maps`` (N, U, h, w) floating with a corner above ``limit`` (U,) float32.

    ``peak`` (N, U): the maps' largest values where they are known, NaN where a map holds one.
    """
    N, U, h, w = maps.shape
    given = cell_search.active(maps, limit, upsampling, partial(_search, upsampling=upsampling))
    index, corners = given[:2] if given is not None else _search(maps, limit, upsampling, peak)
    return Cells((N, U, h + 1, w + 1), index, corners)


def _search(maps: Tensor, limit: Tensor, upsampling: Upsampling, peak: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Index and corners of the active cells, by plain operations."""
    N, U, h, w = maps.shape
    peak = maps.amax((2, 3)) if peak is None else peak
    n, u = places(_above(peak, limit, upsampling))
    cells = (h + 1) * (w + 1)
    step = max(1, _CELLS_AT_ONCE[maps.device.type == "cpu"] // cells)
    parts = []
    for start in range(0, len(n), step):
        images, units = n[start : start + step], u[start : start + step]
        chosen = maps[images, units].to(torch.float32)
        (hit,) = places(_active(chosen, limit[units], upsampling))
        parts.append(_index_and_corners(chosen, images * U + units, hit, upsampling))
    index = torch.cat([i for i, _ in parts]) if parts else n
    corners = torch.cat([c for _, c in parts]) if parts else torch.zeros((0, 4), device=maps.device)
    return index.to(_kind(N, U, cells)), corners.T.contiguous()


class Limits:
    """``limit`` (U,) float32 of U units; ``extended`` (U + 1,): and one that nothing exceeds, for what is no map."""

    def __init__(self, limit: Tensor) -> None:
        self.limit = limit
        self.extended = torch.cat([limit, limit.new_full((1,), torch.inf)])


class CellSearch:
    """A search for the active cells of ``maps`` (N, U, h, w) that does not wait to know how many there are.

    It makes room for as many as are likely, judged by the searches before. ``counts``: of the active cells and, where
    plain operations look for them, of the maps that hold one: scalars on the device. The host reads them together with
    others, and gives them to :meth:`end`. Where nothing can be guessed the host waits, and there is nothing to read.

    ``peak`` (N, U): the maps' largest values.
    """

    def __init__(self, maps: Tensor, peak: Tensor, limits: Limits, upsampling: Upsampling, guess: CellGuess) -> None:
        N, U, h, w = maps.shape
        self._maps, self._peak, self._limits, self._upsampling, self._guess = maps, peak, limits, upsampling, guess
        self.counts: tuple[Tensor, ...] = ()
        self._rooms: tuple[int, ...] = ()
        room = guess.cells.room(N, N * U * (h + 1) * (w + 1))
        if room is None or room > _CELLS_AT_ONCE[maps.device.type == "cpu"]:
            return
        plainly = partial(_search, upsampling=upsampling)
        given = cell_search.active(maps, limits.limit, upsampling, plainly, room)
        if given is not None:
            self._index, self._corners, count = given
            self.counts, self._rooms = (count,), (room,)
        else:
            self._look_plainly(room)

    def _look_plainly(self, room: int) -> None:
        N, U, h, w = self._maps.shape
        for_maps = self._guess.maps.room(N, N * U)
        if for_maps is None or for_maps * (h + 1) * (w + 1) > _CELLS_AT_ONCE[self._maps.device.type == "cpu"]:
            return
        above = _above(self._peak, self._limits.limit, self._upsampling)
        n, u = first_places(above, for_maps)  # -1 where there are fewer: the last map, at a limit beyond all
        chosen = self._maps[n, u].to(torch.float32)
        active = _active(chosen, self._limits.extended[u], self._upsampling)
        (hit,) = first_places(active, room, fill=0)
        index, corners = _index_and_corners(chosen, torch.add(u, n, alpha=U), hit, self._upsampling)
        self._index, self._corners = index, corners.T
        self.counts = active.sum(dtype=torch.float64), above.sum(dtype=torch.float64)
        self._rooms = room, for_maps

    def end(self, counts: Sequence[int]) -> Cells:
        """The active cells, given what was counted; where there are more than was guessed they are looked for again."""
        N, U, h, w = self._maps.shape
        if counts and all(count <= room for count, room in zip(counts, self._rooms, strict=True)):
            # Copies, which let go of what the guess was too large by.
            index = self._index[: counts[0]].to(_kind(N, U, (h + 1) * (w + 1)), copy=True)
            corners = self._corners[:, : counts[0]].clone(memory_format=torch.contiguous_format)
            cells = Cells((N, U, h + 1, w + 1), index, corners)
        else:
            cells = active_cells(self._maps, self._limits.limit, self._upsampling, self._peak)
            maps = counts[1:] or (int(_above(self._peak, self._limits.limit, self._upsampling).sum()),)
            counts = len(cells), *maps
        self._guess.learn(N, *counts)
        return cells


class CellGuess:
    """How many ``maps`` and ``cells`` of a layer are likely to be active in the next images."""

    def __init__(self) -> None:
        self.maps, self.cells = Guess(), Guess()

    def learn(self, images: int, cells: int, maps: int | None = None) -> None:
        """So many were active in so many images; None where nobody counted them."""
        self.cells.learn(cells, images)
        if maps is not None:
            self.maps.learn(maps, images)


def _kind(N: int, U: int, cells: int) -> torch.dtype:
    return torch.int32 if N * U * cells < 2**31 else torch.int64


def _above(peak: Tensor, limit: Tensor, upsampling: Upsampling) -> Tensor:
    """(N, U) bool: the maps that may exceed their limit. Most lie below it as a whole."""
    if upsampling == "half-pixel-zero":
        peak = peak.clamp(min=0)
    return (peak <= limit).logical_not_()  # a comparison with NaN is false: those are looked at


def _active(chosen: Tensor, limits: Tensor, upsampling: Upsampling) -> Tensor:
    """At least (m (h + 1) (w + 1),) bool, and false beyond: which cells of maps (m, h, w) exceed ``limits`` (m,)."""
    _, h, w = chosen.shape
    # With a row above each map and a column before it, where nothing fires, a cell's corners lie 0, 1, w + 1 and w + 2
    # places further on: those beyond a map's last column or row are in what is before the next. A padding that
    # repeats a map's edge fires where the edge does, so it need not be there.
    fires = F.pad(chosen > limits.view(-1, 1, 1), (1, 0, 1, 0, 0, 1)).view(-1)
    beside = fires[1:] | fires[:-1]
    active = beside[w + 1 :] | beside[: -(w + 1)]
    if upsampling == "half-pixel-zero":
        around = _corner_places(h, w, chosen.device)[1].any(1) & (limits < 0).view(-1, 1)
        active = active[: around.numel()] | around.view(-1)
    return active


def _index_and_corners(chosen: Tensor, which: Tensor, hit: Tensor, upsampling: Upsampling) -> tuple[Tensor, Tensor]:
    """(index, corners) of the cells ``hit`` (M,) of the maps ``chosen`` (m, h, w), which are the maps ``which`` of all.

    ``corners`` is (M, 4).
    """
    _, h, w = chosen.shape
    cells = (h + 1) * (w + 1)
    row, place = hit // cells, hit % cells
    offset, outside = _corner_places(h, w, chosen.device)
    sample = torch.add(offset.index_select(0, place), row[:, None], alpha=h * w)
    corners = chosen.take(sample)
    if upsampling == "half-pixel-zero":
        corners = corners.masked_fill_(outside.index_select(0, place), 0)
    return torch.add(place, which.index_select(0, row), alpha=cells), corners


@lru_cache(maxsize=64)
def _corner_places(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cells, 4): where in a map each cell's corners lie, at its edge for those in the padding; which of them are."""
    y = torch.arange(-1, h)[:, None] + torch.tensor([0, 0, 1, 1])[:, None, None]
    x = torch.arange(-1, w)[None, :] + torch.tensor([0, 1, 0, 1])[:, None, None]
    outside = (y < 0) | (y >= h) | (x < 0) | (x >= w)
    place = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    return place.view(4, -1).T.contiguous().to(device), outside.view(4, -1).T.contiguous().to(device)
