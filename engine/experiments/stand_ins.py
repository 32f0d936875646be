"""What stands in the place of a unit that is taken away: zero, its mean, or its map in another image.

The other image is that before it in one random order of all images that are asked for, which is the same at every run:
so each image has one fixed partner, whatever the size of the batches, and the maps of one pass suffice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.machine.device import computing
from ndissect.engine.networks.capture import Capture
from ndissect.store.effects import By

_SEED = 0


class StandIns:
    """What takes the place of the units of the layer of ``c`` in ``images``, batch after batch.

    ``order``: the places of ``images`` in the order in which they must go through the network. ``previous``: the maps
    of the last image of the batch before, None where no map stands in; put back, a batch may come once more.
    """

    def __init__(self, c: Classified, images: Sequence[int], by: By) -> None:
        self.order = list(range(len(images)))
        self._c, self._by = c, by
        self._constant: Tensor | None = None
        self.previous: Tensor | None = None
        if by == "resample":
            self.order = np.random.default_rng(_SEED).permutation(len(images)).tolist()

    def begin(self, before: Sequence[int]) -> None:
        """Get ready for the first batch; ``before``: the images before it in the order, as in a circle, last first."""
        if self._by == "resample":
            self.previous = _maps_of_first(self._c, before)
        else:
            mean = unit_means(self._c) if self._by == "mean" else torch.zeros(self._c.layer.units)
            self._constant = mean.to(self._c.settings.device)[None, :, None, None]

    def of(self, maps: Tensor) -> Tensor:
        """What stands in the place of ``maps`` (N, U, h, w) of the next batch: as many, or (1, U, 1, 1) for all."""
        if self._constant is not None:
            return self._constant.to(maps.dtype)
        assert self.previous is not None
        stand_in = torch.cat([self.previous, maps[:-1]])
        self.previous = maps[-1:].clone()
        return stand_in


def unit_means(c: Classified) -> Tensor:
    """(U,) float32: the mean of each unit of the layer over all places of the images of the first split, by a pass of
    its own that ends at the layer."""
    images = [i for i in c.images if c.split[i] == 0] or c.images
    total, seen = torch.zeros(c.layer.units, dtype=torch.float64), 0
    c.progress.start("means of units", len(images))
    with _capturing(c) as capture, computing(c.settings.precision, c.settings.device):
        for batch in c.batches(images):
            if not len(batch):
                continue
            capture.run(c.inputs(batch))
            total += capture[c.layer.name].flatten(2).mean(2, dtype=torch.float32).double().sum(0).cpu()
            seen += len(batch)
            c.progress.advance(len(batch))
            stop = c.settings.stop()
            if stop is not None:
                raise stop
    return (total / max(seen, 1)).float()


def _maps_of_first(c: Classified, images: Sequence[int]) -> Tensor:
    """(1, U, h, w): the maps of the first of ``images`` that can be read."""
    with _capturing(c) as capture:
        for image in images:
            for batch in c.batches([image]):
                if len(batch):
                    capture.run(c.inputs(batch))
                    return capture[c.layer.name]
    raise AssertionError("an image of the batches that follow can be read")


def _capturing(c: Classified) -> Capture:
    return Capture(c.network.module, [c.layer.name], {c.layer.name: c.tap})
