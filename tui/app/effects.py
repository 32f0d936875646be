"""What units do to the network's classes, of one layer of an open store: arrays that the tables of classes share."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from ndissect.store.effects import Effects, Head, balanced_accuracy, recall

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Classes that a unit's page names as those that it speaks for, and as many that it speaks against.
SPOKEN = 3


class Changes:
    """What n ablations do to K classes, in one split of ``effects``: the last, which is reported, or 0, which ranks.

    ``rows`` (n,): which of its ablations; -1 for one of which nothing is known: its numbers are NaN, as are those of a
    class without images. All are (n, K), what holds without the units less what holds with all, made when asked for.
    """

    def __init__(self, effects: Effects, rows: npt.NDArray[np.int64], split: int = -1) -> None:
        self._effects, self._rows, self._split = effects, rows, split

    @cached_property
    def accuracy(self) -> Floats:
        """Of the balanced accuracy."""
        return self._known(self._effects.change_by(self._rows, self._split))

    @cached_property
    def recall(self) -> Floats:
        """Of the recall."""
        e, g = self._effects, self._split
        without = recall(e.hits_without[g, self._rows], e.images[g][None])
        return self._known(without - recall(e.hits[g], e.images[g]))

    @cached_property
    def score(self) -> Floats:
        """Of the mean score."""
        e, g = self._effects, self._split
        return self._known(e.score_without[g, self._rows].astype(np.float64) - e.score[g])

    @cached_property
    def low(self) -> Floats:
        """Where the interval of the change of the balanced accuracy begins."""
        return self._known(self._effects.low[self._split, self._rows].astype(np.float64))

    @cached_property
    def high(self) -> Floats:
        """Where it ends."""
        return self._known(self._effects.high[self._split, self._rows].astype(np.float64))

    def _known(self, values: Floats) -> Floats:
        values[self._rows < 0] = np.nan
        return values

    @property
    def needs(self) -> Bools:
        """Whether the class is worse without the units: its whole interval lies below 0."""
        return self.high < 0

    @cached_property
    def order(self) -> tuple[Floats, Floats]:
        """What ablations and classes are ranked by: the change, among equal ones that of the score; unknown is last."""
        change, score = (np.where(np.isnan(x), np.inf, x) for x in (self.accuracy, self.score))
        return change, score

    def first(self, axis: Literal[0, 1]) -> npt.NDArray[np.intp]:
        """The first of that order: of each class the ablation (``axis`` 0), or of each ablation the class (1)."""
        change, score = self.order
        equal = change == change.min(axis, keepdims=True, initial=np.inf)
        return np.asarray(np.where(equal, score, np.inf).argmin(axis))


def before(effects: Effects) -> tuple[Floats, Floats, Floats]:
    """Images, balanced accuracy and recall of each class with all units, (K,) each, in the split that is reported."""
    images, hits, false = (x[-1] for x in (effects.images, effects.hits, effects.false))
    return images.astype(np.float64), balanced_accuracy(hits, false, images), recall(hits, images)


class ClassEffects:
    """What each of a layer's ``units`` does to K classes, taken away alone, and what its head makes of it.

    ``effects`` and ``head`` are as the store has them; either may be None. Where a unit was not taken away, its row is
    one of NaN. Ranked is in the first split, told is what holds in the last.
    """

    def __init__(self, layer: str, units: int, effects: Effects | None, head: Head | None) -> None:
        self.layer, self.units, self.effects, self.head = layer, units, effects, head

    @cached_property
    def classes(self) -> int:
        """K."""
        if self.effects is not None:
            return int(self.effects.images.shape[1])
        return 0 if self.head is None else len(self.head.bias)

    @cached_property
    def singles(self) -> Changes:
        """(U, K): what taking each unit alone away does, as it is reported; only where there are effects."""
        return self._singles(-1)

    @cached_property
    def ranking(self) -> Changes:
        """(U, K): the same in the split that ranks."""
        return self._singles(0)

    def _singles(self, split: int) -> Changes:
        assert self.effects is not None
        row = np.full(self.units, -1)
        singles = self.effects.single()
        row[[self.effects.units[i][0] for i in singles]] = singles
        return Changes(self.effects, row, split)

    @cached_property
    def known(self) -> Bools:
        """(U,): whether the unit was taken away alone."""
        if self.effects is None:
            return np.zeros(self.units, bool)
        return np.asarray(~np.isnan(self.ranking.accuracy).all(1))

    def classes_hurt(self, unit: int) -> npt.NDArray[np.intp]:
        """(K,): the classes, those first that its absence hurts most; without effects, that it speaks for most."""
        if self.effects is None:
            return np.argsort(-self.speaks[unit], kind="stable")
        change, score = self.ranking.order
        return np.lexsort((score[unit], change[unit]))

    def units_needed(self, output: int) -> npt.NDArray[np.intp]:
        """(U,): the units, those first that the class needs most; without effects, that speak for it most."""
        if self.effects is None:
            return np.argsort(-self.speaks[:, output], kind="stable")
        change, score = self.ranking.order
        return np.lexsort((score[:, output], change[:, output]))

    @cached_property
    def worst_class(self) -> npt.NDArray[np.int64]:
        """(U,): the class that the unit's absence hurts most; -1 where that is not known."""
        if self.effects is None or not self.classes:
            return np.full(self.units, -1)
        return np.where(self.known, self.ranking.first(1), -1)

    @cached_property
    def worst(self) -> Floats:
        """(U,): the change of that class's balanced accuracy; NaN where it is not known."""
        nothing = np.full((self.units, 1), np.nan)
        if self.effects is None:
            return nothing[:, 0]
        return np.asarray(np.append(self.singles.accuracy, nothing, 1)[np.arange(self.units), self.worst_class])

    @cached_property
    def speaks(self) -> Floats:
        """(U, K): how much more the unit adds to the class's score than to the mean of all, by its weight.

        Above 0 it speaks for the class, below against it. NaN where no head is linear in the units.
        """
        if self.head is None:
            return np.full((self.units, self.classes), np.nan)
        weight = self.head.weight.T.astype(np.float64)
        return np.asarray(weight - weight.mean(1, keepdims=True))

    def spoken(self, unit: int, *, against: bool = False) -> list[int]:
        """The first few classes that the unit speaks for, or ``against``, the strongest first."""
        speaks = -self.speaks[unit] if against else self.speaks[unit]
        return [int(k) for k in np.argsort(-speaks, kind="stable")[:SPOKEN] if speaks[k] > 0]

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
        return self.speaks_for if self.effects is None else self.singles.needs | self.speaks_for

    @property
    def sets(self) -> dict[tuple[int, ...], int]:
        """The sets of several units that were taken away together, with their rows in ``effects``."""
        sets = enumerate(self.effects.units) if self.effects is not None else ()
        return {units: row for row, units in sets if len(units) > 1}


_HOW = {
    "linear head": "exact, in closed form (linear head)",
    "tail": "exact, by running what follows the layer",
    "network": "exact, by running the whole network",
}
_BY = {"zero": "set to zero", "mean": "set to its mean", "resample": "taken from another image"}


def notes(effects: Effects) -> tuple[str, ...]:
    """What every table of effects says of them: which images, whose classes, what the changes are, how computed."""
    split, origin = effects.splits[-1], effects.origin
    count = int(effects.images[-1].sum())
    images = f"{count:,} image{'' if count == 1 else 's'}" + ("" if split == "all" else f" of {split}")
    predicted = origin.get("truth") == "prediction"
    by = _BY.get(str(origin.get("by")), "taken away")
    how = _HOW.get(str(origin.get("how")), "")
    return (
        f"{images}, {'classes by prediction alone' if predicted else 'classes of the images'}",
        f"change of balanced accuracy, the unit {by}",
        *([f"ranked on {effects.splits[0]}"] if len(effects.splits) > 1 else []),
        *([how] if how else []),
    )
