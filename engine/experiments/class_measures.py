"""How well a network tells one class from the others, with and without units of a layer, and how sure that is.

Intervals are of the change that a removal makes. The same images are looked at before and after, so the change is much
surer than either of the two numbers. Each block of images is left out in turn (ndissect.store.intervals).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import BLOCKS
from ndissect.store.intervals import margin
from ndissect.store.scores import Floats


@dataclass(frozen=True)
class Measured:
    """A number, and the ends of a 95 % interval around it; NaN or infinite where nothing is known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassMeasures:
    """E ablations measured on the images of one class and on those of all others.

    ``value`` (3, E) float64: balanced accuracy, recall, and the mean score of the class over its images; ``margin``
    (3, E) float64: half the width of a 95 % interval of its change from the whole network's, infinite where a single
    block holds all images of the class, or of the others.
    """

    value: Floats
    margin: Floats

    def at(self, row: int) -> tuple[Measured, Measured, Measured]:
        """Balanced accuracy, recall and mean score of one ablation."""
        return with_margins(self.value[:, row], self.margin[:, row])


def with_margins(value: Floats, margin: Floats) -> tuple[Measured, Measured, Measured]:
    """Balanced accuracy, recall and mean score (3,) with intervals of so much on both sides; shares stay in [0, 1]."""
    balanced, recall, score = zip(value.tolist(), margin.tolist(), strict=True)
    return _share(*balanced), _share(*recall), Measured(score[0], score[0] - score[1], score[0] + score[1])


def _share(value: float, margin: float) -> Measured:
    if math.isnan(margin):
        return Measured(value, margin, margin)
    return Measured(value, max(value - margin, 0.0), min(value + margin, 1.0))


def measure_class(
    class_number: int,
    truth: npt.NDArray[np.integer],
    block: npt.NDArray[np.int64],
    plain: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]],
    without: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]],
) -> ClassMeasures:
    """The class measured in each of E ablations of N images.

    ``truth`` (N,): the class of each image; ``block`` (N,): its image block; ``plain``: what the whole network predicts
    (N,), and the score of the image's own class (N,); ``without``: the same in each ablation, (N, E) and (N, E).
    Without an image of the class all values are NaN; where all images are of it, the balanced accuracy.
    """
    before = _left_out(class_number, truth, block, plain[0][:, None], plain[1][:, None])
    after = _left_out(class_number, truth, block, *without)
    value = after[..., 0]
    with np.errstate(invalid="ignore"):
        change = (after - before)[..., 1:] - (after - before)[..., :1]
        half = margin(change)
    # Where a single block holds all images of the class, nothing can be said without it.
    half[~np.isfinite(half) & ~np.isnan(value)] = np.inf
    return ClassMeasures(value, half)


def _left_out(
    class_number: int,
    truth: npt.NDArray[np.integer],
    block: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int32],
    score: npt.NDArray[np.float32],
) -> Floats:
    """(3, E, 1 + BLOCKS): the measures over all images, then without each block; predictions and scores (N, E)."""
    own = truth == class_number
    said = predicted == class_number
    images, others = _less_each(own[:, None], block), _less_each(~own[:, None], block)
    hits, false = _less_each(own[:, None] & said, block), _less_each(~own[:, None] & said, block)
    scores = _less_each(np.where(own[:, None], score.astype(np.float64), 0.0), block)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hits / images
        return np.stack([(recall + 1 - false / others) / 2, recall, scores / images])


def _less_each(counted: npt.NDArray[np.bool_] | Floats, block: npt.NDArray[np.int64]) -> Floats:
    """(E, 1 + BLOCKS): the sum of ``counted`` (N, E) over all images, then less those of each block."""
    by_block = np.zeros((BLOCKS, counted.shape[1]))
    np.add.at(by_block, block, counted)
    total = by_block.sum(0)
    return np.vstack([total, total - by_block]).T
