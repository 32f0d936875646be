"""The images in which each unit peaks highest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.passes.extremes import Extremes
from ndissect.engine.passes.extremes import extremes as find_extremes


@dataclass(frozen=True)
class Top:
    """``image`` (U, n) int64: numbers in the data set, -1 for none; their ``peak``; ``maps`` (U, n, h, w) raw."""

    image: npt.NDArray[np.int64]
    peak: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]


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

    def update(self, maps: Tensor, images: Tensor, extremes: Extremes | None = None) -> None:
        """Take ``maps`` (N, U, h, w) of the images numbered ``images`` (N,) int64 in the data set.

        ``extremes``: of the maps, where they are known.
        """
        known = extremes or find_extremes(maps)
        peak, finite = known.peak.T, maps
        if not known.clean:
            maps = maps.to(torch.float32)
            finite = torch.where(torch.isfinite(maps), maps, -torch.inf)
            peak = finite.amax((2, 3)).T
        rival = (peak >= self._peak[:, -1:]) & torch.isfinite(peak)
        units = rival.any(1).nonzero()[:, 0]
        if not len(units):
            return
        numbers = images.to(peak.device).expand(len(units), -1)
        means = finite[:, units].to(torch.float32).clamp(min=-torch.finfo(torch.float32).max).mean((2, 3)).T
        all_peaks = torch.cat([self._peak[units], torch.where(rival[units], peak[units], -torch.inf)], 1)
        all_means = torch.cat([self._mean[units], means], 1)
        all_images = torch.cat([self._image[units], torch.where(rival[units], numbers, -1)], 1)

        def maps_of(order: Tensor) -> Tensor:
            best = self._maps[units[:, None], order.clamp(max=self._count - 1)]
            fresh = order >= self._count
            taken = maps[order[fresh] - self._count, units[:, None].expand_as(order)[fresh]]
            best[fresh] = taken.to(torch.float32)
            return best

        self._keep_best(units, all_peaks, all_means, all_images, maps_of)

    def _keep_best(
        self, units: Tensor, peaks: Tensor, means: Tensor, images: Tensor, maps_of: Callable[[Tensor], Tensor]
    ) -> None:
        """Of each unit's candidates (units, n) keep the best; ``maps_of`` gives the maps of those chosen."""
        order = images.argsort(1)
        for key in (means, peaks):  # the last sort counts most; each keeps the order of equals
            order = order.gather(1, key.gather(1, order).argsort(dim=1, descending=True, stable=True))
        order = order[:, : self._count]
        maps = maps_of(order)
        self._peak[units], self._mean[units] = peaks.gather(1, order), means.gather(1, order)
        self._image[units], self._maps[units] = images.gather(1, order), maps

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` and :meth:`merge` need."""
        return {"peak": self._peak, "mean": self._mean, "image": self._image, "maps": self._maps}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tracker of the same size."""
        demand_form(state, self.state())
        for name, mine in self.state().items():
            mine.copy_(state[name])

    def merge(self, state: dict[str, Tensor]) -> None:
        """Take what another tracker keeps of other images."""
        demand_form(state, self.state())
        there = {name: t.to(self._peak.device) for name, t in state.items()}
        self._keep_best(
            torch.arange(len(self._peak), device=self._peak.device),
            torch.cat([self._peak, there["peak"]], 1),
            torch.cat([self._mean, there["mean"]], 1),
            torch.cat([self._image, there["image"]], 1),
            lambda order: torch.cat([self._maps, there["maps"]], 1)[torch.arange(len(order))[:, None], order],
        )

    def result(self, ranks: Ranks = ALONE) -> Top:
        """The top images of all processes."""
        everyone = self
        if ranks.size > 1:
            everyone = TopTracker(len(self._peak), self._count, (self._maps.shape[2], self._maps.shape[3]))
            mine = {name: t.cpu() for name, t in self.state().items()}
            for state in ranks.gather(mine):
                everyone.merge(state)
        image, peak = everyone._image.cpu().numpy(), everyone._peak.cpu().numpy()
        return Top(image, np.where(image < 0, np.float32(np.nan), peak), everyone._maps.cpu().numpy())
