"""The images in which each unit peaks highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures.guess import Guess, first_places, places

# Maps wait until they are so many times those that are kept.
_WAITING_SHARE = 2
# Of so many units, most of which may be silent in a batch, it is worth to look which maps are zero throughout.
_MANY_UNITS = 4096
_LEAST_ABOVE_ZERO = float(np.nextafter(np.float32(0), np.float32(1)))


@dataclass(frozen=True)
class Top:
    """``image`` (U, n) int64: numbers in the data set, -1 for none; their ``peak``; ``maps`` (U, n, h, w) raw."""

    image: npt.NDArray[np.int64]
    peak: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rivals:
    """Some maps of a batch that may be among the highest.

    ``count``: how many; ``image``, ``unit`` (P,) int64: the first of these are the image of the batch and the unit of
    each, the others are -1; ``maps`` (P, h, w) floating.
    """

    count: int
    image: Tensor
    unit: Tensor
    maps: Tensor

    @classmethod
    def at(cls, maps: Tensor, places: tuple[Tensor, ...], count: int | None = None) -> Rivals:
        """Those of ``maps`` (N, U, h, w) at these images and units, of which the first ``count`` count, all without."""
        image, unit = places
        return cls(len(unit) if count is None else count, image, unit, maps[image, unit])


class RivalSearch:
    """A search for the maps of a batch that may be among the highest, which does not wait to know how many there are.

    It makes room for as many as are likely. ``counts``: how many there are, a scalar (float64) on the device, which the
    host reads together with others and gives to :meth:`end`. Where nothing can be guessed the host waits, and there is
    nothing to read.
    """

    def __init__(self, maps: Tensor, above: Tensor, guess: Guess) -> None:
        self._above, self._maps, self._guess = above, maps, guess
        self.counts: tuple[Tensor, ...] = ()
        room = guess.room(len(maps), above.numel())
        if room is not None:
            self._rivals = Rivals.at(maps, first_places(above, room), 0)
            self.counts = (above.sum(dtype=torch.float64),)

    def end(self, counts: Sequence[int]) -> Rivals:
        """The maps, given what was counted; where there are more than was guessed they are looked for again."""
        if counts and counts[0] <= len(self._rivals.unit):
            rivals = replace(self._rivals, count=counts[0])
        else:
            rivals = Rivals.at(self._maps, places(self._above))
        self._guess.learn(rivals.count, len(self._maps))
        return rivals


class TopTracker:
    """Keeps, for each unit, the ``count`` images with the highest spatial maximum, and their maps.

    Among equal peaks, common where an activation saturates (ReLU6), the higher mean activation wins, then the image
    earlier in the data set: the result does not depend on batches or order. Non-finite activations are passed over.

    Maps that may be among the highest wait until there are enough of them, or somebody asks.
    """

    def __init__(self, units: int, count: int, map_size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self._count = count
        self._peak = torch.full((units, count), -torch.inf, device=device)
        self._mean = torch.full((units, count), -torch.inf, device=device)
        self._image = torch.full((units, count), -1, dtype=torch.int64, device=device)
        self._maps = torch.zeros((units, count, *map_size), device=device)
        # (U,): maps of later images than the latest so far are among the highest only with such a peak; None before
        # any are kept.
        self._limit: Tensor | None = None
        self._latest = -1
        self._waiting: list[tuple[Rivals, list[int]]] = []
        self._guess = Guess()

    def update(self, maps: Tensor, images: Sequence[int]) -> None:
        """Take ``maps`` (N, U, h, w) of the images numbered ``images`` in the data set."""
        self.settle_if_due()
        self.take(self.among(maps), images)

    def search(self, maps: Tensor, peak: Tensor, low: Tensor, images: Sequence[int]) -> RivalSearch:
        """The search for what :meth:`take` is to be given of finite ``maps``.

        ``peak``, ``low`` (N, U): their largest and least values.
        """
        limit = self._limit if min(images) > self._latest else self._peak[:, -1]
        if limit is not None:
            return RivalSearch(maps, peak >= limit, self._guess)
        # Those of this batch that are beaten by others of it need not be taken.
        rivals = peak >= peak.topk(min(self._count, len(peak)), 0).values[-1]
        if peak.shape[1] >= _MANY_UNITS and list(images) == sorted(
            images
        ):  # of maps that are zero throughout the first come before the others
            zero = (peak == 0) & (low == 0)
            rivals &= zero.cumsum(0) * zero <= self._count
        return RivalSearch(maps, rivals, self._guess)

    def among(self, maps: Tensor) -> Rivals:
        """What :meth:`take` is to be given of any ``maps``; the host waits."""
        peak = _finite(maps.to(torch.float32)).amax((2, 3))
        return Rivals.at(maps, places(torch.isfinite(peak) & (peak >= self._peak[:, -1])))

    def take(self, rivals: Rivals, images: Sequence[int]) -> None:
        """Take maps of the images numbered ``images``. This cannot fail for want of memory."""
        if rivals.count:
            self._waiting.append((rivals, list(images)))
        self._latest = max(self._latest, *images)

    def settle_if_due(self) -> None:
        """Choose the highest of what waits where that is much."""
        waiting = sum(rivals.count for rivals, _ in self._waiting)
        if waiting and (self._limit is None or waiting > _WAITING_SHARE * self._peak.numel()):
            self.settle()

    def settle(self) -> None:
        """Choose the highest of what waits and what is kept. Out of memory half-way, nothing has changed."""
        if not self._waiting:
            return
        several = [rivals for rivals, _ in self._waiting]
        maps = torch.cat([rivals.maps.to(torch.float32) for rivals in several])
        unit = torch.cat([rivals.unit for rivals in several])
        numbers = torch.tensor([n for _, images in self._waiting for n in images], device=self._peak.device)
        starts = accumulate((len(images) for _, images in self._waiting), initial=0)
        image = numbers[torch.cat([rivals.image + start for rivals, start in zip(several, starts, strict=False)])]
        finite = _finite(maps)
        peak = finite.amax((1, 2))
        # In float64 before it is rounded: a GPU adds up in an order that depends on how many maps there are.
        mean = finite.clamp_(min=-torch.finfo(torch.float32).max).mean((1, 2), dtype=torch.float64).to(torch.float32)
        self._keep_best(unit, peak, mean, image, maps)
        self._waiting = []

    def _keep_best(self, unit: Tensor, peak: Tensor, mean: Tensor, image: Tensor, maps: Tensor) -> None:
        """Of what is kept and of these maps (P, h, w) keep the best of each unit; ``unit`` (P,), -1 for none."""
        units, device = len(self._peak), self._peak.device
        unit = torch.cat(
            [torch.arange(units, device=device).repeat_interleave(self._count, output_size=self._peak.numel()), unit]
        )
        peak, mean = torch.cat([self._peak.view(-1), peak]), torch.cat([self._mean.view(-1), mean])
        image = torch.cat([self._image.view(-1), image])
        order = image.argsort(stable=True)
        for key, falling in ((mean, True), (peak, True), (unit, False)):
            order = order[key[order].argsort(stable=True, descending=falling)]  # the last counts most
        first = torch.searchsorted(unit[order], torch.arange(units, device=device))
        best = order[first[:, None] + torch.arange(self._count, device=device)]
        maps = torch.cat([self._maps.flatten(0, 1), maps])[best]
        self._peak, self._mean, self._image, self._maps = peak[best], mean[best], image[best], maps
        least, mean = self._peak[:, -1], self._mean[:, -1]
        # Where the last that is kept is zero throughout, another such map, of a later image, cannot take its place.
        self._limit = torch.where((least == 0) & (mean == 0), _LEAST_ABOVE_ZERO, least)

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` and :meth:`merge` need."""
        self.settle()
        return {"peak": self._peak, "mean": self._mean, "image": self._image, "maps": self._maps}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tracker of the same size."""
        demand_form(state, self.state())
        device = self._peak.device
        self._peak, self._mean = state["peak"].to(device), state["mean"].to(device)
        self._image, self._maps = state["image"].to(device), state["maps"].to(device)
        self._limit, self._latest = self._peak[:, -1], int(self._image.max())

    def merge(self, state: dict[str, Tensor]) -> None:
        """Take what another tracker keeps of other images."""
        demand_form(state, self.state())
        there = {name: t.to(self._peak.device) for name, t in state.items()}
        units = torch.arange(len(self._peak), device=self._peak.device).repeat_interleave(self._count)
        peak, mean, image = (there[name].view(-1) for name in ("peak", "mean", "image"))
        self._keep_best(units, peak, mean, image, there["maps"].flatten(0, 1))
        self._latest = max(self._latest, int(image.max()))

    def result(self, ranks: Ranks = ALONE) -> Top:
        """The top images of all processes."""
        self.settle()
        everyone = self
        if ranks.size > 1:
            everyone = TopTracker(len(self._peak), self._count, (self._maps.shape[2], self._maps.shape[3]))
            mine = {name: t.cpu() for name, t in self.state().items()}
            for state in ranks.gather(mine):
                everyone.merge(state)
        image, peak = everyone._image.cpu().numpy(), everyone._peak.cpu().numpy()
        return Top(image, np.where(image < 0, np.float32(np.nan), peak), everyone._maps.cpu().numpy())


def _finite(maps: Tensor) -> Tensor:
    """``maps`` with -inf for what is not finite."""
    return torch.where(torch.isfinite(maps), maps, -torch.inf)
