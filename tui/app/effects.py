"""What units do to the network's classes, of one layer of an open store: arrays that the tables of classes share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ndissect.store.effects import Effects, balanced_accuracy, recall
from ndissect.store.layer_view import LayerView
from ndissect.tui.tables.doubts import doubts
from ndissect.tui.tables.effects import Singles, effects_notes, singles

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Classes that a unit's page names as those that it speaks for, and as many that it speaks against.
SPOKEN = 3


class ClassEffects:
    """What each of the U units of a layer does to K classes, taken away alone, and what a linear head makes of it.

    What is not known is NaN: where the layer has no effects or no head, of a unit that was not taken away, of a class
    without images. Everything is read when this is made, and computed when it is asked for.
    """

    def __init__(self, view: LayerView, classes: int) -> None:
        self.layer, self.units, self.classes = view.name, view.units, classes
        self.effects, self.head = view.effects, view.head
        #: Why each unit's label is not to be trusted, "" where it is.
        self.doubts = doubts(view)

    @cached_property
    def _singles(self) -> Singles | None:
        return None if self.effects is None else singles(self.effects)

    def _spread(self, name: str) -> Floats:
        """(U, K): a field of Singles, by unit."""
        spread = np.full((self.units, self.classes), np.nan)
        if self._singles is not None:
            spread[self._singles.units] = getattr(self._singles, name)
        return spread

    @cached_property
    def change(self) -> Floats:
        """(U, K): how the balanced accuracy changes without the unit."""
        return self._spread("change")

    @cached_property
    def low(self) -> Floats:
        """(U, K): where the interval of that begins."""
        return self._spread("low")

    @cached_property
    def high(self) -> Floats:
        """(U, K): where it ends."""
        return self._spread("high")

    @property
    def recall(self) -> Floats:
        """(U, K): how the recall changes."""
        return self._spread("recall")

    @property
    def score(self) -> Floats:
        """(U, K): how the mean score changes."""
        return self._spread("score")

    @property
    def needs(self) -> Bools:
        """(U, K): whether the class needs the unit: it is worse without it, the whole interval lies below 0."""
        return self.high < 0

    @cached_property
    def speaks(self) -> Floats:
        """(U, K): how much more the unit adds to the class's score than to the mean of all, by the head's weights."""
        if self.head is None:
            return np.full((self.units, self.classes), np.nan)
        weight = self.head.weight.T.astype(np.float64)
        return np.asarray(weight - weight.mean(1, keepdims=True))

    @cached_property
    def speaks_for(self) -> Bools:
        """(U, K): whether the class is one of those that the unit's page names as spoken for."""
        named = np.zeros((self.units, self.classes), bool)
        first = np.argsort(-self.speaks, axis=1, kind="stable")[:, :SPOKEN]
        np.put_along_axis(named, first, np.take_along_axis(self.speaks, first, 1) > 0, axis=1)
        return named

    @property
    def tied(self) -> Bools:
        """(U, K): whether the class needs the unit, or the unit speaks for it."""
        return self.needs | self.speaks_for

    @cached_property
    def rank(self) -> tuple[Floats, Floats]:
        """(U, K) each, the lowest first: what the units of a class are ranked by, and what among equal ones. That is
        the change and that of the score, in the split that ranks; without effects how much they speak against it."""
        if self.effects is None:
            return -self.speaks, -self.speaks
        change, score = (self._spread(name) for name in ("rank", "rank_score"))
        return np.where(np.isnan(change), np.inf, change), np.where(np.isnan(score), np.inf, score)

    def strength(self, unit: int, output: int) -> float:
        """What a unit does to a class in one number: the change without it; without effects, how it speaks for it."""
        return float(self.speaks[unit, output] if self.effects is None else self.change[unit, output])

    @property
    def sets(self) -> dict[tuple[int, ...], int]:
        """The sets of several units that were taken away together, with their rows in ``effects``."""
        sets = enumerate(self.effects.units) if self.effects is not None else ()
        return {units: row for row, units in sets if len(units) > 1}


def before(effects: Effects) -> tuple[Floats, Floats, Floats]:
    """Images, balanced accuracy and recall of each class with all units, (K,) each, in the split that is reported."""
    images, hits, false = (x[-1] for x in (effects.images, effects.hits, effects.false))
    return images.astype(np.float64), balanced_accuracy(hits, false, images), recall(hits, images)


def notes(views: Sequence[LayerView]) -> list[str]:
    """What every table of effects says of them: in short which images and whose classes they are, then all."""
    short = list(dict.fromkeys(_short(view.effects) for view in views if view.effects is not None))
    return [*short, *effects_notes(views)] or ["by the weights of the linear head"]


def _short(effects: Effects) -> str:
    split, count = effects.splits[-1], int(effects.images[-1].sum())
    images = f"{count:,} image{'' if count == 1 else 's'}" + ("" if split == "all" else f" of {split}")
    predicted = effects.origin.get("truth") == "prediction"
    return f"{images}, {'classes by prediction alone' if predicted else 'classes of the images'}"
