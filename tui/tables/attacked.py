"""What an attack does to labelled units (ndissect.engine.experiments.attack), as rows beside their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.doubts import doubt_lines, doubted, doubts, unit_label
from ndissect.tui.tables.remarks import layer_notes

if TYPE_CHECKING:
    from ndissect.engine.experiments.attack import Attacked
    from ndissect.engine.experiments.attack_changes import GroupChange, Measure

#: What the change of a unit is, by measure.
MEASURES = {
    "peak": "peak activation after the attack less that before it",
    "map": "mean over the map of how far activations moved, whichever way",
}


@dataclass(frozen=True)
class Row:
    """The mean change of a unit, or of a group of units (``unit`` None).

    ``of``: the class that needs it, or what the group is; ``label`` as shown, "" without labels; ``iou``, ``before``,
    ``after`` (peaks): NaN where unknown.
    """

    of: str
    unit: int | None
    label: str
    iou: float
    before: float
    after: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class AttackReport:
    """An attack with all that is reported of it.

    ``share``: a 95 % interval of the share that reaches the target; ``units``: the mean change of each unit and both
    ends of its interval, (U,) each; ``groups``: of groups of units; ``measure``: what a change is. ``view``: the
    labels; None without.
    """

    attacked: Attacked
    share: tuple[float, float]
    units: tuple[Floats, Floats, Floats]
    groups: Sequence[GroupChange]
    measure: Measure
    view: LayerView | None

    @property
    def target(self) -> str:
        """What the target class is called."""
        return self.attacked.classes.names[self.attacked.target]

    @property
    def source(self) -> str:
        """What the class of the images is called; ``their own class`` where they are of several."""
        classes = set(self.attacked.truth.tolist())
        return self.attacked.classes.names[classes.pop()] if len(classes) == 1 else "their own class"

    @property
    def title(self) -> str:
        """What was attacked, towards what."""
        a = self.attacked
        of = "" if a.source is None else f" of {self.source}"
        n = len(a.reached)
        return f"{a.network} {a.layer}: {n} image{'s' * (n != 1)}{of} attacked towards {self.target}"

    @property
    def success(self) -> str:
        """How many images reach the target, how far away, and what a file of 8 bits keeps of that."""
        a = self.attacked
        hits, n = int(a.reached.sum()), len(a.reached)
        low, high = self.share
        said = f"success: {hits} of {n}, {100 * hits / n:.1f} % (95 %: {100 * low:.1f}-{100 * high:.1f} %)"
        if not hits:
            return said
        mean, median = self.distance
        said += f"; L2 distance: mean {mean:.4g}, median {median:.4g}"
        if a.reached_8bit is not None:
            said += f"; rounded to 8 bits {int(a.reached_8bit.sum())} of them stay"
        return said

    @property
    def distance(self) -> tuple[float, float]:
        """Mean and median of the L2 distance of the images that reach the target; NaN without one."""
        some = self.attacked.distance[self.attacked.reached]
        return (float(some.mean()), float(np.median(some))) if len(some) else (math.nan, math.nan)

    @cached_property
    def _doubts(self) -> list[str]:
        return [""] * len(self.units[0]) if self.view is None else doubts(self.view)

    def label(self, unit: int) -> tuple[str, float]:
        """The label of a unit as shown, and its IoU; "" and NaN without labels."""
        name, iou = unit_label(self.view, unit)
        return doubted(name, self._doubts[unit]), iou

    def rows(self) -> list[Row]:
        """The units that the target needs most, those that the source does, then the groups."""
        groups = {group.name: group for group in self.groups}
        rows = []
        for name, of in (("target", self.target), ("source", self.source)):
            if name in groups:
                rows += [self._unit(of, unit) for unit in groups[name].units]
        return rows + [self._group(group) for group in self.groups]

    def _unit(self, of: str, unit: int) -> Row:
        a = self.attacked
        before, after = (float(x[a.reached, unit].mean()) for x in (a.peak_before, a.peak_after))
        mean, low, high = (float(x[unit]) for x in self.units)
        return Row(of, unit, *self.label(unit), before, after, mean, low, high)

    def _group(self, group: GroupChange) -> Row:
        few = len(next((g.units for g in self.groups if g.units), ())) or 4
        of = {
            "target": f"the {few} of {self.target}",
            "source": f"the {few} of {self.source}",
            "others": "all others",
            "random": f"{few} random units",
        }[group.name]
        return Row(of, None, "", math.nan, math.nan, math.nan, group.change, group.low, group.high)

    def notes(self) -> list[str]:
        """How it went and how it was computed, a line each."""
        a = self.attacked
        marks = [] if self.view is None else layer_notes([self.view])
        hits = int(a.reached.sum())
        told = [*marks, self.success, f"{a.how}; changed: {a.pixels}"]
        if hits:
            over = f"mean over the {hits} image{'s' * (hits != 1)} that reach the target"
            told.append(
                f"change: {MEASURES[self.measure]}, {over}; 95 % intervals over images, of random units over groups"
            )
        told.append(f"important units: by the balanced accuracy left without each, by {a.important.said_by}")
        told += [
            f"which units {a.classes.names[k]} needs is not known: no image is of it"
            for k, units in a.important.units.items()
            if not units and k in (a.target, a.source)
        ]
        if self.view is not None:
            named = [row.unit for row in self.rows() if row.unit is not None]
            told += doubt_lines((unit, self._doubts[unit]) for unit in named)
        if a.interrupt is not None:
            told.append(f"stopped: {len(a.reached)} of {a.wanted} images were attacked")
        return [*told, *a.notes]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; NaN for what is not known."""
        a, names = self.attacked, self.attacked.classes.names
        mean, median = self.distance
        kept = a.reached_8bit
        return {
            "store": None if self.view is None else str(self.view.store.path),
            "network": a.network,
            "layer": a.layer,
            "method": a.method,
            "how": a.how,
            "pixels": a.pixels,
            "target": self.target,
            "source": None if a.source is None else self.source,
            "truth": a.truth_from,
            "images": len(a.reached),
            "success": {
                "images": int(a.reached.sum()),
                "share": float(a.reached.mean()),
                "low": self.share[0],
                "high": self.share[1],
                "images_8bit": None if kept is None else int(kept.sum()),
            },
            "l2": {"mean": mean, "median": median},
            "measure": self.measure,
            "important": a.important.said_by,
            "groups": [self._group_json(group) for group in self.groups],
            "units": [self._unit_json(unit) for unit in range(len(self.units[0]))],
            "attacked": [
                {
                    "image": a.names[i],
                    "class": names[int(a.truth[i])],
                    "predicted": names[int(a.predicted[i])],
                    "after": names[int(a.after[i])],
                    "success": bool(a.reached[i]),
                    "success_8bit": None if kept is None else bool(kept[i]),
                    "l2": float(a.distance[i]),
                }
                for i in range(len(a.reached))
            ],
            "complete": a.interrupt is None,
            "notes": list(a.notes),
        }

    def _group_json(self, group: GroupChange) -> dict[str, Any]:
        return {
            "group": group.name,
            "units": list(group.units),
            "change": group.change,
            "low": group.low,
            "high": group.high,
        }

    def _unit_json(self, unit: int) -> dict[str, Any]:
        a = self.attacked
        row = self._unit("", unit) if a.reached.any() else Row("", unit, *self.label(unit), *[math.nan] * 5)
        label, iou = unit_label(self.view, unit)
        needed = [a.classes.names[k] for k, units in a.important.units.items() if unit in units]
        return {
            "unit": unit,
            "label": label or None,
            "iou": iou,
            "doubt": self._doubts[unit] or None,
            "needed_by": needed,
            "before": row.before,
            "after": row.after,
            "change": row.change,
            "low": row.low,
            "high": row.high,
        }
