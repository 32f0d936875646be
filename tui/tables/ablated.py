"""What classes lose without units of a layer (ndissect.engine.experiments.ablate), as rows beside the units' labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.effects import Effects, hurt_most, needed_by_class, random_unit, recall
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.doubts import doubt_lines, doubted, doubts, unit_label
from ndissect.tui.tables.how_computed import how_computed
from ndissect.tui.tables.remarks import layer_notes

if TYPE_CHECKING:
    from ndissect.engine.experiments.ablate import Ablation

_BY = {
    "zero": "zero",
    "mean": "its mean over all places of the {first} images",
    "resample": "its map in another image",
}
#: Units that a class needs, and that are told beside the first.
MORE = 3


@dataclass(frozen=True)
class Change:
    """What class ``number``, called ``name``, loses without ``units``: changes of its balanced accuracy, with a 95 %
    interval ``low`` to ``high``, of its recall and of its mean score; balanced accuracy and recall without them.

    ``unit``: of a single one, else -1, with its ``label`` as tables show it, "" where there are none, and its ``iou``.
    """

    number: int
    name: str
    units: tuple[int, ...]
    unit: int
    label: str
    iou: float
    change: float
    low: float
    high: float
    balanced_accuracy: float
    recall: float
    recall_change: float
    score_change: float


@dataclass(frozen=True)
class ClassRow:
    """A class with ``images`` on the split that is reported; ``needs``: the units that it needs most, the first first.

    ``random``: what a random unit does to it, on average over all.
    """

    number: int
    name: str
    images: int
    balanced_accuracy: float
    recall: float
    needs: tuple[Change, ...]
    random: float


@dataclass(frozen=True)
class UnitRow:
    """A unit with the class that it hurts most to lose, and that which it helps most, None where it helps none.

    ``hurts``: whether it hurts that class at all, on the split that ranks.
    """

    hurt: Change
    hurts: bool
    helped: Change | None


@dataclass(frozen=True)
class RandomSets:
    """What ``draws`` random sets of ``n`` units do to a class: the mean, and between what 95 % of them lie."""

    n: int
    draws: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Ablated:
    """An ablation beside the labels of a store's layer; ``view``: None without labels."""

    ablation: Ablation
    view: LayerView | None

    @property
    def effects(self) -> Effects:
        return self.ablation.effects

    @property
    def split(self) -> str:
        """What is reported: ``val``, or ``all`` where nothing is split."""
        return self.effects.splits[-1]

    @cached_property
    def classes(self) -> list[ClassRow]:
        """The classes with images, those first that lose most without one unit."""
        e = self.effects
        if not len(e.single()):
            return []
        ranked, with_images = needed_by_class(e)[: MORE + 1], np.flatnonzero((e.images > 0).all(0)).tolist()
        rows = [self._class(k, ranked[:, k].tolist()) for k in with_images]
        return sorted(rows, key=lambda row: (_last(row.needs[0].change), row.number))

    def _class(self, k: int, needed: Sequence[int]) -> ClassRow:
        return ClassRow(
            number=k,
            name=self.ablation.classes.names[k],
            images=int(self.effects.images[-1, k]),
            balanced_accuracy=float(self._balanced_accuracy[k]),
            recall=float(self._recall[k]),
            needs=tuple(self._change(row, k) for row in needed),
            random=float(self._random[k]),
        )

    @cached_property
    def units(self) -> list[UnitRow]:
        """Every unit that was taken away alone, those first without which a class loses most, at last those without
        which none loses."""
        rows = []
        for row in self.effects.single().tolist():
            order = hurt_most(self.effects, row).tolist()
            if order:
                hurt, helped = self._change(row, order[0]), self._change(row, order[-1])
                hurts = bool(self.effects.change_by(row, 0)[order[0]] < 0)
                rows.append(UnitRow(hurt, hurts, helped if helped.change > 0 else None))
        return sorted(rows, key=lambda row: (not row.hurts, _last(row.hurt.change), row.hurt.unit))

    def of_class(self, k: int) -> list[Change]:
        """Every unit in regard to class ``k``, those that it needs most first; none for a class that has no image."""
        if not (self.effects.images[:, k] > 0).all():
            return []
        return [self._change(row, k) for row in needed_by_class(self.effects)[:, k].tolist()]

    def together(self, limit: int | None = None) -> list[tuple[Change, RandomSets | None]]:
        """What all units that were asked for do together, by class, the hurt most first, beside random sets."""
        row = self._together
        if row is None:
            return []
        of = [self._change(row, k) for k in hurt_most(self.effects, row).tolist()[:limit]]
        return [(change, self.random_sets(len(change.units), change.number)) for change in of]

    def random_sets(self, n: int, k: int) -> RandomSets | None:
        """What random sets of ``n`` units do to class ``k``; None where none were drawn."""
        drawn = self.ablation.random.get(n)
        if drawn is None or math.isnan(float(self._balanced_accuracy[k])):
            return None
        change = drawn.change_by(np.arange(len(drawn.units)))[:, k]
        low, high = np.quantile(change, [0.025, 0.975]).tolist()
        return RandomSets(n, len(change), float(change.mean()), low, high)

    # What is said beside the rows

    @property
    def title(self) -> str:
        a = self.ablation
        return f"{a.network} {a.layer}, {a.units} units"

    def of_all(self, k: int) -> str:
        """What is known of class ``k`` with all units."""
        name, images = self.ablation.classes.names[k], int(self.effects.images[-1, k])
        if not images:
            return f"{name}, of which there is no image on {self.split}"
        if math.isnan(float(self._balanced_accuracy[k])):
            return f"{name}, {_images(images)}, and none of another class"
        accuracy, recall = float(self._balanced_accuracy[k]), float(self._recall[k])
        random = f"a random unit changes it by {self._random[k]:+.4f}"
        return f"{name}, {_images(images)}: balanced accuracy {accuracy:.3f}, recall {recall:.3f}; {random}"

    def notes(self, shown: Sequence[Change]) -> list[str]:
        """How the changes were measured and computed, and what of the labels of the units ``shown`` is in doubt."""
        e, a = self.effects, self.ablation
        first, last = e.splits[0], e.splits[-1]
        counts = [int(n) for n in e.images.sum(1)]
        measured = (
            f"ranked on {first} ({_images(counts[0])}), measured on {last} ({_images(counts[-1])})"
            if len(e.splits) > 1
            else f"ranked and measured on the same {_images(counts[0])}: what comes first does so partly by chance"
        )
        by = _BY[e.origin["by"]].format(first="train" if len(e.splits) > 1 else "used")
        how = how_computed(e.origin["how"], a.reason)
        without = int((e.images == 0).any(0).sum())
        where = f" on {' or '.join(e.splits)}" if len(e.splits) > 1 else ""
        return [
            *(layer_notes([self.view]) if self.view is not None else ()),
            "change: of balanced accuracy, (recall + true-negative rate) / 2, without the unit;"
            " 95 %: its interval over image blocks",
            f"{measured}; {how}; in the place of a unit: {by}",
            *self._only_scores(),
            *self._random_note(),
            *self._nothing(),
            *([f"classes without an image{where}, left out: {without} of {len(a.classes.names)}"] if without else []),
            *a.notes,
            *doubt_lines((c.unit, self._doubts[c.unit]) for c in shown if c.unit >= 0 and self._doubts),
        ]

    def _only_scores(self) -> list[str]:
        if not np.isnan(self._balanced_accuracy).all():
            return []
        return [
            "balanced accuracy needs images of a class and of others: --class NAME ranks units by the mean score alone"
        ]

    def _random_note(self) -> list[str]:
        n = len(self.effects.single())
        if not self.ablation.random:
            return [f"random unit: the mean over all {n} units"]
        draws = max(len(drawn.units) for drawn in self.ablation.random.values())
        return [f"random: the mean over {draws} random sets of as many units; 95 % of them lie within its range"]

    def _nothing(self) -> list[str]:
        """How many units change no prediction on any split: all dead, say."""
        if self._only_scores():
            return []
        e = self.effects
        rows = e.single()
        same = (e.hits_without[:, rows] == e.hits[:, None]) & (e.false_without[:, rows] == e.false[:, None])
        nothing = int(same.all((0, 2)).sum())
        return [f"units that change no class's balanced accuracy: {nothing} of {len(rows)}"] if nothing else []

    # As JSON

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; ``low`` and ``high`` enclose the balanced accuracy without the unit."""
        e, a = self.effects, self.ablation
        singles = [self._row_json(row) for row in e.single().tolist()]
        value = {
            "network": a.network,
            "layer": a.layer,
            "by": e.origin["by"],
            "split": self.split,
            "ranked_on": e.splits[0],
            "truth": a.truth,
            "how": e.origin["how"],
            "classes": list(a.classes.names),
            "images": int(e.images[-1].sum()),
            "class_images": e.images[-1].tolist(),
            "before": {
                "balanced_accuracy": self._balanced_accuracy.tolist(),
                "recall": self._recall.tolist(),
                "score": e.score[-1].tolist(),
            },
            "units": singles,
            "random": {str(n): self._random_json(n) for n in a.random},
            "written": None if a.written is None else str(a.written),
            "notes": self.notes([]),
        }
        if self._together is not None:
            value["together"] = self._row_json(self._together)
        return value

    def _row_json(self, row: int) -> dict[str, Any]:
        e, before = self.effects, self._balanced_accuracy
        units = e.units[row]
        who: dict[str, Any] = {"units": list(units)}
        if len(units) == 1:
            label, iou = unit_label(self.view, units[0])
            who = {"unit": units[0], "label": label or None, "iou": iou}
            if self._doubts:
                who["doubt"] = self._doubts[units[0]] or None
        return who | {
            "balanced_accuracy": (before + e.change_by(row)).tolist(),
            "recall": self._recall_without(row).tolist(),
            "score": e.score_without[-1, row].tolist(),
            "low": np.maximum(before + e.low[-1, row], 0).tolist(),
            "high": np.minimum(before + e.high[-1, row], 1).tolist(),
        }

    def _random_json(self, n: int) -> dict[str, Any]:
        drawn = self.ablation.random[n]
        after = self._balanced_accuracy + drawn.change_by(np.arange(len(drawn.units)))
        low, high = np.quantile(after, [0.025, 0.975], axis=0)
        return {
            "draws": len(after),
            "balanced_accuracy": after.mean(0).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }

    # Numbers of the split that is reported

    def _change(self, row: int, k: int) -> Change:
        e = self.effects
        units = e.units[row]
        unit = units[0] if len(units) == 1 else -1
        label, iou = unit_label(self.view, unit) if unit >= 0 else ("", math.nan)
        change, recall = float(self._changes[row, k]), float(self._recall_without(row)[k])
        return Change(
            number=k,
            name=self.ablation.classes.names[k],
            units=units,
            unit=unit,
            label=doubted(label, self._doubts[unit]) if self._doubts and unit >= 0 else label,
            iou=iou,
            change=change,
            low=float(e.low[-1, row, k]),
            high=float(e.high[-1, row, k]),
            balanced_accuracy=float(self._balanced_accuracy[k]) + change,
            recall=recall,
            recall_change=recall - float(self._recall[k]),
            score_change=float(e.score_without[-1, row, k]) - float(e.score[-1, k]),
        )

    @cached_property
    def _together(self) -> int | None:
        return next((row for row, units in enumerate(self.effects.units) if len(units) > 1), None)

    @cached_property
    def _balanced_accuracy(self) -> Floats:
        return np.asarray(self.effects.balanced_accuracy[-1])

    @cached_property
    def _recall(self) -> Floats:
        return np.asarray(self.effects.recall[-1])

    def _recall_without(self, row: int) -> Floats:
        e = self.effects
        return recall(e.hits_without[-1, row], e.images[-1])

    @cached_property
    def _changes(self) -> Floats:
        return self.effects.change_by(np.arange(len(self.effects.units)))

    @cached_property
    def _random(self) -> Floats:
        """(K,): what a random unit does to each class, on average."""
        drawn = self.ablation.random.get(1)
        if drawn is not None:
            return np.asarray(drawn.change_by(np.arange(len(drawn.units))).mean(0))
        return np.asarray(random_unit(self.effects)[-1])

    @cached_property
    def _doubts(self) -> list[str]:
        return doubts(self.view) if self.view is not None else []


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _last(change: float) -> float:
    """``change`` to sort by, what is not known after all others."""
    return math.inf if math.isnan(change) else change
