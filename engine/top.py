"""The images in which each unit peaks highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class TopTracker:
    """Keeps, for each unit, the ``count`` images with the highest spatial maximum, and their maps.

    Among equal peaks, common where an activation saturates (ReLU6), the higher mean activation wins, then the image
    earlier in the data set: the result does not depend on batches or order. Non-finite activations are passed over.
    """

    def __init__(self, units: int, count: int, map_size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self._count = count
        self._peak = torch.full((units, count), -torch.inf, device=device)
        self._mean = torch.full((units, count), -torch.inf, device=device)
        self._image = torch.full((units, count), -1, dtype=torch.int64, device=device)
        self._maps = torch.zeros((units, count, *map_size), device=device)

    def update(self, maps: Tensor, images: Tensor) -> None:
        """Take ``maps`` (N, U, h, w) of the images numbered ``images`` (N,) int64 in the data set."""
        maps = maps.to(torch.float32)
        peak, finite = maps.amax((2, 3)).T, maps
        if not bool(torch.isfinite(peak).all()):
            finite = torch.where(torch.isfinite(maps), maps, -torch.inf)
            peak = finite.amax((2, 3)).T
        rival = (peak >= self._peak[:, -1:]) & torch.isfinite(peak)
        units = rival.any(1).nonzero()[:, 0]
        if not len(units):
            return
        numbers = images.to(peak.device).expand(len(units), -1)
        means = finite[:, units].clamp(min=-torch.finfo(torch.float32).max).mean((2, 3)).T
        all_peaks = torch.cat([self._peak[units], torch.where(rival[units], peak[units], -torch.inf)], 1)
        all_means = torch.cat([self._mean[units], means], 1)
        all_images = torch.cat([self._image[units], torch.where(rival[units], numbers, -1)], 1)

        order = all_images.argsort(1)
        for key in (all_means, all_peaks):  # the last sort counts most; each keeps the order of equals
            order = order.gather(1, key.gather(1, order).argsort(dim=1, descending=True, stable=True))
        order = order[:, : self._count]
        kept = self._maps[units[:, None], order.clamp(max=self._count - 1)]
        fresh = order >= self._count
        kept[fresh] = maps[order[fresh] - self._count, units[:, None].expand_as(order)[fresh]]
        self._peak[units], self._mean[units] = all_peaks.gather(1, order), all_means.gather(1, order)
        self._image[units], self._maps[units] = all_images.gather(1, order), kept

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Image numbers (U, count), -1 for none; their peaks, and the raw maps (U, count, h, w)."""
        image, peak = self._image.cpu().numpy(), self._peak.cpu().numpy()
        return image, np.where(image < 0, np.float32(np.nan), peak), self._maps.cpu().numpy()
