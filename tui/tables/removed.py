"""What a generator's pictures show without units of a layer (ndissect.engine.experiments.remove), as rows.

Shares are of the pixels of a whole picture, and means over samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.doubts import unit_label
from ndissect.tui.tables.formats import share, signed
from ndissect.tui.tables.remarks import marks

if TYPE_CHECKING:
    from ndissect.engine.experiments.remove import Removal, UnitRemovals, WithoutUnits

#: What is changed, and how intervals are made.
SHARES = "shares of the pixels of a picture, means over samples; change: paired by sample, 95 % by the jackknife"
# What is no change, but for the arithmetic.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Shares:
    """How the share of a concept's pixels changes without ``units``.

    ``low``, ``high``: a 95 % interval of ``after``, which is the share before and that of the change; ``random``: the
    mean share without as many random units, ``random_low`` and ``random_high`` the least and the largest of them. NaN
    for what is not known.
    """

    concept: str
    units: tuple[int, ...]
    before: float
    after: float
    change: float
    low: float
    high: float
    random: float
    random_low: float
    random_high: float


@dataclass(frozen=True)
class RemovalReport:
    """A removal of the best units for a concept with all that is told of it; ``view``: the layer in the store."""

    removal: Removal
    view: LayerView | None

    @property
    def label(self) -> str:
        """The concept."""
        return self.removal.concepts[self.removal.concept]

    @property
    def title(self) -> str:
        """What was removed from what."""
        r = self.removal
        return f"{r.network} {r.layer}: {self.label} without its best units, {share(self.before)} of pixels with them"

    @property
    def before(self) -> float:
        """The share of the concept's pixels with all units."""
        return float(self.removal.before[self.removal.concept])

    @property
    def rows(self) -> list[Shares]:
        """Of the concept, for more and more of its best units."""
        return [self._shares(without, self.removal.concept) for without in self.removal.top]

    def others(self, most: int | None = None) -> list[Shares]:
        """Of the other concepts, without the most units: those that change at all, the largest change first."""
        if not self.removal.top:
            return []
        last = self.removal.top[-1]
        order = np.argsort(-np.abs(last.change), kind="stable").tolist()
        changed = [c for c in order if c != self.removal.concept and abs(last.change[c]) > _ROUNDING]
        return [self._shares(last, c) for c in changed[:most]]

    def _shares(self, without: WithoutUnits, concept: int) -> Shares:
        before, random = float(self.removal.before[concept]), without.random[:, concept]
        low, high = (min(max(before + float(end[concept]), 0.0), 1.0) for end in (without.low, without.high))
        nothing = math.isnan(float(without.low[concept]))
        return Shares(
            concept=self.removal.concepts[concept],
            units=without.units,
            before=before,
            after=float(without.after[concept]),
            change=float(without.change[concept]),
            low=math.nan if nothing else low,
            high=math.nan if nothing else high,
            random=_of(random, "mean"),
            random_low=_of(random, "min"),
            random_high=_of(random, "max"),
        )

    def notes(self) -> list[str]:
        """How it was computed, a line each."""
        r = self.removal
        ranked = "their IoU in the store" if r.by == "iou" else "what each of them alone takes away"
        return [
            *_marks(self.view),
            r.how,
            f"{_samples(r.samples)}; {SHARES}",
            f"best by {ranked}; {self._random()}",
            *r.notes,
        ]

    def _random(self) -> str:
        """Which random units are compared with."""
        r = self.removal
        of_all = [str(len(without.units)) for without in r.top if without.random_of == "all" and len(without.random)]
        pool = f"that are left of the {r.units}" if len(of_all) < len(r.top) else f"of all {r.units}"
        mixed = of_all and len(of_all) < len(r.top)
        instead = f" (for n = {', '.join(of_all)} of all, as too few are left)" if mixed else ""
        return f"random: mean of {r.draws} sets of as many units {pool}{instead}, and their range"

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; NaN for what is not known."""
        r = self.removal
        return {
            "store": None if self.view is None else str(self.view.store.path),
            "network": r.network,
            "layer": r.layer,
            "label": self.label,
            "before": self.before,
            "others_before": {r.concepts[c]: float(r.before[c]) for c in self._other_concepts},
            "top": [
                self._top_json(without, shares) for without, shares in zip(self.removal.top, self.rows, strict=True)
            ],
            "samples": len(r.samples),
            "first_sample": r.samples.start,
            "by": r.by,
            "draws": r.draws,
            "how": "; ".join([r.how, *_marks(self.view)]),
            "notes": list(r.notes),
        }

    @property
    def _other_concepts(self) -> list[int]:
        return [c for c in range(len(self.removal.concepts)) if c != self.removal.concept]

    def _top_json(self, without: WithoutUnits, shares: Shares) -> dict[str, Any]:
        others = [self._shares(without, c) for c in self._other_concepts]
        return {
            "n": len(without.units),
            "units": list(without.units),
            "after": shares.after,
            "change": shares.change,
            "low": shares.low,
            "high": shares.high,
            "random": shares.random,
            "random_low": shares.random_low,
            "random_high": shares.random_high,
            "random_of": without.random_of if len(without.random) else None,
            "others": {other.concept: other.change for other in others},
            "others_low": {other.concept: other.low - other.before for other in others},
            "others_high": {other.concept: other.high - other.before for other in others},
            "others_random": {other.concept: other.random - other.before for other in others},
        }


@dataclass(frozen=True)
class UnitRow:
    """A unit set to zero alone: its ``label`` in the store and its IoU, "" and NaN without, and the two concepts whose
    share falls and rises most; None where none does."""

    unit: int
    label: str
    iou: float
    falls: Shares | None
    rises: Shares | None

    @property
    def most(self) -> float:
        """How much the share of a concept changes at most."""
        return max((abs(shares.change) for shares in (self.falls, self.rises) if shares), default=0.0)


@dataclass(frozen=True)
class UnitReport:
    """Units that were each set to zero alone with all that is told of them; ``view``: the layer in the store."""

    done: UnitRemovals
    view: LayerView | None

    @property
    def title(self) -> str:
        """What was removed from what."""
        return f"{self.done.network} {self.done.layer}: pictures without each of {len(self.done.effects.units)} units"

    @property
    def rows(self) -> list[UnitRow]:
        """Every unit, those first that change a concept most."""
        return sorted((self._unit(row) for row in range(len(self.done.effects.units))), key=lambda unit: -unit.most)

    def _unit(self, row: int) -> UnitRow:
        change = self.done.effects.change[row]
        least, largest = int(np.argmin(change)), int(np.argmax(change))
        unit = int(self.done.effects.units[row])
        return UnitRow(
            unit,
            *unit_label(self.view, unit),
            falls=self._shares(row, least) if change[least] < -_ROUNDING else None,
            rises=self._shares(row, largest) if change[largest] > _ROUNDING else None,
        )

    def _shares(self, row: int, concept: int) -> Shares:
        e = self.done.effects
        after, low, high = (float(values[row, concept]) for values in (e.after, e.low, e.high))
        return Shares(
            concept=self.done.concepts[concept],
            units=(int(e.units[row]),),
            before=float(e.before[concept]),
            after=after,
            change=after - float(e.before[concept]),
            low=low,
            high=high,
            random=math.nan,
            random_low=math.nan,
            random_high=math.nan,
        )

    def notes(self) -> list[str]:
        """How it was computed, a line each."""
        done = self.done
        return [*_marks(self.view), done.effects.how, f"{_samples(done.samples)}; {SHARES}", *done.notes]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; NaN for what is not known."""
        done, e = self.done, self.done.effects
        return {
            "store": None if self.view is None else str(self.view.store.path),
            "network": done.network,
            "layer": done.layer,
            "before": {name: float(e.before[c]) for c, name in enumerate(done.concepts)},
            "units": [
                {"unit": row.unit, "label": row.label or None, "iou": row.iou, "effects": self._effects(row.unit)}
                for row in sorted(self.rows, key=lambda row: row.unit)
            ],
            "samples": len(done.samples),
            "first_sample": done.samples.start,
            "how": "; ".join([e.how, *_marks(self.view)]),
            "written": done.written,
            "notes": list(done.notes),
        }

    def _effects(self, unit: int) -> dict[str, dict[str, float]]:
        row = self.done.effects.numbered(unit)
        assert row is not None
        every = (self._shares(row, c) for c in range(len(self.done.concepts)))
        return {s.concept: {"after": s.after, "change": s.change, "low": s.low, "high": s.high} for s in every}


def units_text(units: Sequence[int], most: int = 6) -> str:
    """``3, 7, 12``, or the first of many: ``3, 7, 12, 15, 20, 31 ...``."""
    return ", ".join(map(str, units[:most])) + (" ..." if len(units) > most else "")


def after_text(shares: Shares) -> str:
    """``0.241 -> 0.088 (-0.153)``."""
    return f"{share(shares.before)} -> {share(shares.after)} ({signed(shares.change)})"


def _samples(samples: range) -> str:
    return f"samples {samples.start} to {samples.stop - 1}" if len(samples) > 1 else f"sample {samples.start}"


def _marks(view: LayerView | None) -> list[str]:
    return [] if view is None else marks([view])


def _of(values: Floats, what: str) -> float:
    return float(getattr(values, what)()) if len(values) else math.nan
