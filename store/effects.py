"""What ablations of a layer's units do to a network's predictions, by class, and what a linear head makes of the units.

Bau et al., PNAS 2020; docs/method.md, section 7.5. An ablation is a set of units that are taken away together at the
layer's output. What is kept are counts of images, from which recall and balanced accuracy follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import Ints
from ndissect.store.scores import Floats

#: What stands in the place of a unit that is taken away: zero; its mean over all images and places; its map in another
#: image.
By = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Classes:
    """The K outputs of a network: ``names``, numbers as text where nothing names them; ``source``: who named them, in
    words that follow "named by" (``the network``, ``classes.txt``)."""

    names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Head:
    """A head that is linear after pooling: scores = bias + weight @ (mean over places of the layer's maps).

    ``weight`` (K, U) float32; ``bias`` (K,) float32.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Effects:
    """E ablations of one layer, each a set of its units, over images of K classes in g splits.

    ``units``: of each ablation, rising, never empty. ``splits``: ``("train", "val")`` or ``("all",)``: ablations are
    ranked on the first and reported on the last. Counts of images, int64, of class k: ``images`` (g, K): those that are
    of it; ``hits`` (g, K): those of them that are predicted so; ``false`` (g, K): those of other classes that are
    predicted so. The same without the units: ``hits_without``, ``false_without`` (g, E, K). ``score`` (g, K) and
    ``score_without`` (g, E, K), float32: the mean score of k over the images of k; NaN without an image.
    ``low``, ``high`` (g, E, K) float32: a 95 % interval over image blocks of the change of the balanced accuracy.

    ``origin``, JSON values: ``by`` (:data:`By`); ``truth``: ``images`` or ``prediction`` (the network's own predictions
    stand for the classes: recall before is 1); ``data``: name and digest of the images; ``network``: spec and weights
    digest; ``command``; ``how``: ``linear head``, ``tail`` or ``network``, what was run for an ablation.
    """

    units: tuple[tuple[int, ...], ...]
    splits: tuple[str, ...]
    images: Ints
    hits: Ints
    false: Ints
    hits_without: Ints
    false_without: Ints
    score: npt.NDArray[np.float32]
    score_without: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    origin: Mapping[str, Any]

    @property
    def recall(self) -> Floats:
        """(g, K): the share of a class's images that are predicted so; NaN without an image."""
        return recall(self.hits, self.images)

    @property
    def recall_without(self) -> Floats:
        """(g, E, K): the same without the units."""
        return recall(self.hits_without, self.images[:, None])

    @property
    def balanced_accuracy(self) -> Floats:
        """(g, K): balanced accuracy of each class with all units; NaN without an image."""
        return balanced_accuracy(self.hits, self.false, self.images)

    @property
    def balanced_accuracy_without(self) -> Floats:
        """(g, E, K): the same without the units."""
        return balanced_accuracy(self.hits_without, self.false_without, self.images[:, None])

    @property
    def change(self) -> Floats:
        """(g, E, K): the balanced accuracy without the units less that with all: below 0 where the class needs them."""
        return self.balanced_accuracy_without - self.balanced_accuracy[:, None]

    def single(self) -> Ints:
        """The rows of the ablations of one unit each, in the order of their units."""
        alone = [(units[0], row) for row, units in enumerate(self.units) if len(units) == 1]
        return np.array([row for _, row in sorted(alone)], np.int64)


def recall(hits: Ints, images: Ints) -> Floats:
    """``hits / images``; NaN without an image."""
    return _share(hits, images)


def balanced_accuracy(hits: Ints, false: Ints, images: Ints) -> Floats:
    """(recall + true-negative rate) / 2 of each class over the whole set: (..., K) each.

    The true-negative rate is 1 - ``false`` / images of other classes. NaN for a class without an image, or where all
    images are of the class.
    """
    others = images.sum(-1, keepdims=True) - images
    return np.asarray((recall(hits, images) + 1 - _share(false, others)) / 2)


def _share(part: Ints, whole: Ints) -> Floats:
    """``part / whole``; NaN where there is nothing."""
    nothing = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))
