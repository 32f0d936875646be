"""The images in which each unit peaks highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.quantile import from_ordered, ordered

_LAST = 2**32 - 1
_SIGN = 2**31
_NONE = -(2**63)


class TopTracker:
    """Keeps, for each unit, the ``count`` images with the highest spatial maximum, and their maps.

    Among equal peaks the image earlier in the data set wins, so the result does not depend on batches or order.
    Non-finite activations are passed over.
    """

    def __init__(self, units: int, count: int, map_size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self._count = count
        # One signed 64-bit key orders everything: the peak's order-preserving pattern above, the image below.
        self._keys = torch.full((units, count), _NONE, dtype=torch.int64, device=device)
        self._maps = torch.zeros((units, count, *map_size), device=device)

    def update(self, maps: Tensor, images: Tensor) -> None:
        """Take ``maps`` (N, U, h, w) of the images numbered ``images`` (N,) int64 in the data set."""
        maps = maps.to(torch.float32)
        peaks = maps.amax((2, 3)).T.contiguous()
        if not bool(torch.isfinite(peaks).all()):
            peaks = torch.where(torch.isfinite(maps), maps, -torch.inf).amax((2, 3)).T.contiguous()
        keys = ((ordered(peaks) - _SIGN) << 32) | (_LAST - images.to(peaks.device))
        keys = torch.where(torch.isfinite(peaks), keys, _NONE)
        best = torch.cat([self._keys, keys], 1).topk(self._count, 1)
        fresh = best.indices >= self._count
        units = torch.arange(len(peaks), device=peaks.device)[:, None].expand_as(best.indices)
        kept = self._maps[units, best.indices.clamp(max=self._count - 1)]
        kept[fresh] = maps[best.indices[fresh] - self._count, units[fresh]]
        self._keys, self._maps = best.values, kept

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Image numbers (U, count), -1 for none; their peaks, and the raw maps (U, count, h, w)."""
        keys = self._keys.cpu().numpy()
        none = keys == _NONE
        image = np.where(none, -1, _LAST - (keys & _LAST))
        peak = np.where(none, np.float32(np.nan), from_ordered((keys >> 32) + _SIGN))
        return image, peak.astype(np.float32), self._maps.cpu().numpy()
