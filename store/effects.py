"""What ablations of a layer's units do to a network's predictions, by class, and what a linear head makes of the units.

Bau et al., PNAS 2020; docs/method.md, section 7.5. An ablation is a set of units that are taken away together at the
layer's output. What is kept are counts of images, from which recall and balanced accuracy follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import Ints
from ndissect.store.scores import Floats

#: What stands in the place of a unit that is taken away: zero; its mean over all images and places; its map in another
#: image.
By = Literal["zero", "mean", "resample"]
#: The fields of :class:`Effects` that have an entry for each ablation, (g, E, K).
BY_ABLATION = ("hits_without", "false_without", "score_without", "low", "high")


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

    def change_by(self, row: int | Ints, split: int = -1) -> Floats:
        """:attr:`change` of one ablation, (K,), or of several, (n, K), on one split, by default the last."""
        images = self.images[split]
        before = balanced_accuracy(self.hits[split], self.false[split], images)
        return balanced_accuracy(self.hits_without[split, row], self.false_without[split, row], images) - before

    def single(self) -> Ints:
        """The rows of the ablations of one unit each, in the order of their units."""
        alone = [(units[0], row) for row, units in enumerate(self.units) if len(units) == 1]
        return np.array([row for _, row in sorted(alone)], np.int64)

    def numbered(self, unit: int) -> int | None:
        """The row of the ablation of ``unit`` alone; None where it was not ablated alone."""
        return next((row for row, units in enumerate(self.units) if units == (unit,)), None)


def ranked(accuracy: Floats, score: Floats) -> Ints:
    """The order of n ablations, or of n classes, those first where most is lost: by the balanced accuracy that is left,
    or its change, of equals by the mean score, of equals as they stand. (n,) or (n, K), each column by itself.
    """
    return np.asarray(np.lexsort((score, accuracy), axis=0))


def needed_most(effects: Effects, k: int) -> Ints:
    """The rows of the ablations of one unit each, those first that class ``k`` needs most.

    Ranked on the first split by the balanced accuracy that is left without the unit, then by the change of the mean
    score, then by unit. Empty for a class without an image there.
    """
    rows = effects.single()
    change = effects.change_by(rows, 0)[:, k]
    if np.isnan(change).any():
        return rows[:0]
    return np.asarray(rows[ranked(change, _score_change(effects, rows)[:, k])])


def needed_by_class(effects: Effects) -> Ints:
    """(n, K): for each class what :func:`needed_most` gives, of all classes at once; of no meaning without an image."""
    rows = effects.single()
    return np.asarray(rows[ranked(effects.change_by(rows, 0), _score_change(effects, rows))])


def hurt_most(effects: Effects, row: int) -> Ints:
    """The classes with images, those first whose balanced accuracy falls most by the ablation ``row``.

    Ranked on the first split, as :func:`needed_most`.
    """
    change = effects.change_by(row, 0)
    order = ranked(change, _score_change(effects, row))
    return np.asarray(order[~np.isnan(change[order])])


def _score_change(effects: Effects, row: int | Ints) -> Floats:
    """The change of the mean score of each class on the first split; infinite where it is not known: last of equals."""
    change = effects.score_without[0, row].astype(np.float64) - effects.score[0]
    return np.where(np.isnan(change), np.inf, change)


def random_unit(effects: Effects) -> Floats:
    """(g, K): how the balanced accuracy changes by a unit chosen at random: the mean over all that were ablated alone.

    NaN without an image, and where no unit was ablated alone.
    """
    rows = effects.single()
    if not len(rows):
        return np.full(effects.images.shape, np.nan)
    return np.stack([effects.change_by(rows, split).mean(0) for split in range(len(effects.splits))])


def speaks_for(head: Head, unit: int) -> Floats:
    """(K,) float64: how much more the unit adds to each class's score than to the mean of all, by its weight.

    Above 0: it speaks for the class; below: against it. A weight that all classes share changes no prediction.
    """
    weight = head.weight[:, unit].astype(np.float64)
    return np.asarray(weight - weight.mean()) if len(weight) else weight


def without_repeats(effects: Effects) -> Effects:
    """The same with every ablation once, the last of equal ones, by the number of units and then by the units."""
    last = {units: row for row, units in enumerate(effects.units)}
    return rows_of(effects, [last[units] for units in sorted(last, key=lambda units: (len(units), units))])


def rows_of(effects: Effects, rows: Sequence[int]) -> Effects:
    """The ablations at these rows alone."""
    at = np.asarray(rows, np.int64)
    arrays: dict[str, Any] = {name: getattr(effects, name)[:, at] for name in BY_ABLATION}
    return replace(effects, units=tuple(effects.units[row] for row in rows), **arrays)


def comparable(old: Effects, new: Effects) -> bool:
    """Whether ablations of both can stand side by side.

    They can where what was predicted with all units is the same, on the same images, and by, truth, data and network of
    their origins are equal.
    """
    same = all(np.array_equal(getattr(old, name), getattr(new, name)) for name in ("images", "hits", "false"))
    agree = all(old.origin.get(key) == new.origin.get(key) for key in ("by", "truth", "data", "network"))
    return same and agree and old.splits == new.splits


def merged(old: Effects, new: Effects) -> Effects:
    """``new``, with the ablations of ``old`` that are not among them where both are :func:`comparable`; else ``new``
    alone."""
    if not comparable(old, new):
        return without_repeats(new)
    joined: dict[str, Any] = {name: np.concatenate([getattr(old, name), getattr(new, name)], 1) for name in BY_ABLATION}
    return without_repeats(replace(new, units=old.units + new.units, **joined))


def agreed(known: Classes | None, given: Classes) -> Classes | None:
    """The classes of which both are names: ``known``, or ``given`` where those are only numbers; None where they are
    of different networks."""
    if known is None:
        return given
    if len(known.names) != len(given.names):
        return None
    if known.names == given.names or given.names == _numbers(given):
        return known
    return given if known.names == _numbers(known) else None


def _numbers(classes: Classes) -> tuple[str, ...]:
    return tuple(map(str, range(len(classes.names))))


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
