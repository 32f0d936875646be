"""What a data set holds, summed up while its images are read: usable images, what is wrong with others, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import State, as_tensor, demand_form, from_tensor
from ndissect.engine.passes.loader import Batch
from ndissect.store.counts import ConceptCounts


@dataclass(frozen=True)
class DataSummary:
    """What all images and labels of a data set hold.

    ``images``: how many can be used; ``skipped``: (name, reason) of the others; ``digest``: of the names and bytes of
    all that was read, the same for any order.
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    concepts: ConceptCounts
    digest: str


class DataSurvey:
    """Sums up what images and labels hold, while they are read."""

    def __init__(self, concepts: int) -> None:
        # Of column 0, "no concept", the number of images is that of all images.
        self._area = np.zeros((1, concepts + 1), np.int64)
        self._holding = np.zeros((1, concepts + 1), np.int64)
        self.images = 0
        self.bad: list[tuple[int, str]] = []
        self._digest = 0

    def add(self, batch: Batch) -> None:
        """Take a batch."""
        area = batch.area.numpy()
        self._area += area.sum(0)
        self._holding += (area > 0).sum(0)
        self._holding[:, 0] += len(batch)
        self.images += len(batch)
        self.bad += [(number, error.message) for number, error in batch.bad]
        self._digest = (self._digest + batch.digest) % 2**128

    def state(self) -> State:
        """All that :meth:`restore` needs to go on from here."""
        record = {"images": self.images, "bad": self.bad, "digest": f"{self._digest:x}"}
        return {"record": as_tensor(record)} | self._totals()

    def _totals(self) -> State:
        return {"area": torch.from_numpy(self._area), "images": torch.from_numpy(self._holding)}

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another survey."""
        self.images, self.bad, self._digest = 0, [], 0
        self._area[:], self._holding[:] = 0, 0
        self.merge(state)

    def merge(self, state: State) -> None:
        """Take what another survey has of other images."""
        record = from_tensor(state["record"])
        demand_form(state, self._totals())
        self.images += record["images"]
        self.bad += [(int(n), str(why)) for n, why in record["bad"]]
        self._digest = (self._digest + int(record["digest"], 16)) % 2**128
        for name, mine in self._totals().items():
            mine.add_(state[name].cpu())

    def summary(self, names: Sequence[str], ranks: Ranks = ALONE) -> DataSummary:
        """What all processes have read; ``names``: of all images."""
        everyone = ranks.gather((self.images, self.bad, self._digest))
        area, holding = (ranks.sum(total.clone()).numpy() for total in self._totals().values())
        bad = sorted(one for _, some, _ in everyone for one in some)
        return DataSummary(
            images=sum(images for images, _, _ in everyone),
            skipped=tuple((names[number], why) for number, why in bad),
            concepts=ConceptCounts(area[:, 1:].copy(), holding[:, 1:].copy()),
            digest=f"{sum(digest for _, _, digest in everyone) % 2**128:032x}",
        )
