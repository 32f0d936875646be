"""The cells of activation maps that may hold mask pixels: all that counting needs of a map.

A map padded by one sample on each side (ndissect.store.upsampling) is a grid of cells with a sample at each corner. A
linear interpolation never exceeds its largest corner, so a cell without a corner above T holds no mask pixel. By
definition about half a percent of locations lie above T: the other cells are never looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.measures import cell_search
from ndissect.store.upsampling import Upsampling

# Cells that are looked at together: what is made of them on the way is bounded to some hundred MB.
_CELLS_AT_ONCE = 1 << 22


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
        unit = (self.index // (self.shape[2] * self.shape[3])) % self.shape[1]
        fires = (self.corners > limit[unit]).any(0)
        return Cells(self.shape, self.index[fires], self.corners[:, fires])

    def to(self, device: torch.device) -> Cells:
        """The same cells on ``device``."""
        return Cells(self.shape, self.index.to(device), self.corners.to(device))


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
    shape = N, U, h + 1, w + 1
    by_kernel = cell_search.active(maps, limit, upsampling, partial(_search, upsampling=upsampling))
    index, corners = by_kernel[:2] if by_kernel is not None else _search(maps, limit, upsampling, peak)
    small = N * U * (h + 1) * (w + 1) < 2**31
    return Cells(shape, index.to(torch.int32) if small else index, corners)


def _search(maps: Tensor, limit: Tensor, upsampling: Upsampling, peak: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(index, corners) of the active cells."""
    _, _, h, w = maps.shape
    peak = maps.amax((2, 3)) if peak is None else peak
    if upsampling == "half-pixel-zero":
        peak = torch.maximum(peak, torch.zeros_like(peak))
    # Most maps lie below their limit as a whole. A comparison with NaN is false: those are looked at.
    n, u = (~(peak <= limit)).nonzero(as_tuple=True)
    cells = (h + 1) * (w + 1)
    step = max(1, _CELLS_AT_ONCE // cells)
    parts = [_active(maps, limit, upsampling, n[s : s + step], u[s : s + step]) for s in range(0, len(n), step)]
    index = torch.cat([i for i, _ in parts]) if parts else torch.zeros(0, dtype=torch.int64, device=maps.device)
    corners = torch.cat([c for _, c in parts], 1) if parts else torch.zeros((4, 0), device=maps.device)
    return index, corners


def _active(maps: Tensor, limit: Tensor, upsampling: Upsampling, n: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(index, corners) of the active cells of the maps (n, u)."""
    padded = pad_maps(maps[n, u].to(torch.float32)[None], upsampling)[0]
    fires = padded > limit[u, None, None]
    either = fires[:, :-1] | fires[:, 1:]
    hit = (either[..., :-1] | either[..., 1:]).reshape(-1).nonzero()[:, 0]
    rows, cols = padded.shape[1] - 1, padded.shape[2] - 1
    which, place = hit // (rows * cols), hit % (rows * cols)
    # Of cell (i, j) the top left corner is sample (i, j) of the padded map, which has one more column than cells.
    corner = which * ((rows + 1) * (cols + 1)) + place + place // cols
    flat = padded.reshape(-1)
    corners = torch.stack([flat[corner + step] for step in (0, 1, cols + 1, cols + 2)])
    return (n * maps.shape[1] + u)[which] * (rows * cols) + place, corners
