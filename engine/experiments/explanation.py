"""What ``explain`` gives: how much each unit of a layer adds to the score of a class. Plain data, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ndissect.store.effects import Classes
from ndissect.store.intervals import margin
from ndissect.store.scores import Floats

#: How contributions were computed: in closed form of a linear head; as the score less the score with the unit set to
#: zero, where what follows the layer, or the whole network, was run again; as activation times gradient.
How = Literal["linear head", "tail", "network", "gradient"]
# Blocks of images over which the interval of a mean is taken. Images that follow each other are often alike.
_BLOCKS = 64


@dataclass(frozen=True)
class ExplainedImage:
    """One image and its scores.

    ``name``: as it was given; ``truth``: its class by the data, -1 where that is not known; ``predicted``: the class of
    its largest score; ``explained``: the class whose score is explained. ``score``: of that class, less that of the
    class that it is held against. ``bias``: what the head adds to that score whatever the units do; ``gap``: how far
    contributions and bias together are from it, as a share of the image's largest score; both NaN where the head is not
    linear.
    """

    name: str
    truth: int
    predicted: int
    explained: int
    score: float
    bias: float
    gap: float


@dataclass(frozen=True)
class Closeup:
    """What pictures show of one image: ``pixels`` (H, W, 3) uint8, ``contributions`` (U,) float64, and the layer's
    ``maps`` (U, h, w) float32."""

    pixels: npt.NDArray[np.uint8]
    contributions: Floats
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """What the U units of a layer add to the score of a class, in one image or in the mean of several.

    ``network``: its spec; ``versus``: the class whose score is taken away from that of the explained one, -1 for none;
    ``how``, and ``reason``: why it was not computed in a quicker way, "" where it was. ``contributions`` (U,) float64:
    means over the images; ``low``, ``high`` (U,): their 95 % intervals over images, NaN for a single image. ``exact``:
    contributions and bias sum to the score of every image. ``closeups``: of the first few images; ``notes``: what a
    reader should know of the labels and classes.
    """

    network: str
    layer: str
    classes: Classes
    images: tuple[ExplainedImage, ...]
    versus: int
    how: How
    reason: str
    exact: bool
    contributions: Floats
    low: Floats
    high: Floats
    closeups: tuple[Closeup, ...]
    notes: tuple[str, ...] = ()

    @property
    def explained(self) -> int | None:
        """The class that is explained; None where it is another in each image."""
        classes = {image.explained for image in self.images}
        return classes.pop() if len(classes) == 1 else None

    @property
    def score(self) -> float:
        """The score, in the mean of the images."""
        return float(np.mean([image.score for image in self.images]))

    @property
    def bias(self) -> float:
        """The bias, in the mean of the images; NaN where the head is not linear."""
        return float(np.mean([image.bias for image in self.images]))

    @property
    def gap(self) -> float:
        """The largest gap of an image; NaN where the head is not linear."""
        return max(image.gap for image in self.images)

    @property
    def shares(self) -> Floats:
        """(U,): each contribution as a share of the sum of all; NaN where that sum is not above 0."""
        total = float(self.contributions.sum())
        return self.contributions / total if total > 0 else np.full(len(self.contributions), np.nan)


class MeanOfImages:
    """The mean over images of U numbers each, with a 95 % interval, added up a batch at a time.

    ``images``: how many there will be. Neighbours are put into blocks, of which there are at most 64: the interval is
    the jackknife's over them (ndissect.store.intervals).
    """

    def __init__(self, images: int) -> None:
        self._images, self._blocks = images, min(images, _BLOCKS)
        self._counts = np.zeros(self._blocks)
        self._sums: Floats | None = None
        self._seen = 0

    def add(self, values: Floats) -> None:
        """Take the values of some more images, (n, U) float64."""
        if self._sums is None:
            self._sums = np.zeros((self._blocks, values.shape[1]))
        block = np.arange(self._seen, self._seen + len(values)) * self._blocks // self._images
        np.add.at(self._sums, block, values)
        np.add.at(self._counts, block, 1)
        self._seen += len(values)

    def mean(self) -> tuple[Floats, Floats, Floats]:
        """The mean and both ends of its interval, (U,) each; an interval of NaN where there is but one block."""
        assert self._sums is not None, "no image was added"
        there = self._counts > 0  # images that could not be read are in no block
        sums, counts = self._sums[there], self._counts[there]
        mean = sums.sum(0) / counts.sum()
        if len(counts) < 2:
            return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
        without = (sums.sum(0) - sums) / (counts.sum() - counts)[:, None]
        half = margin((without - mean).T)
        return mean, mean - half, mean + half
