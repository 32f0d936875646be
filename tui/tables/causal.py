"""Average causal effects of a generator's units, and coefficients learned for a concept, as rows beside their IoUs.

Effects are measured, coefficients are learned: no number here is called by the name of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ndissect.store.layer_view import LayerView

if TYPE_CHECKING:
    from ndissect.engine.experiments.ace import Ace, CausalEffect


@dataclass(frozen=True)
class RankedUnit:
    """A unit with its IoU with the concept; ``coefficient`` and ``alone``, the change of the concept's share of pixels
    without the unit alone: NaN where that was not learned or not measured."""

    unit: int
    iou: float
    coefficient: float
    alone: float


@dataclass(frozen=True)
class CausalReport:
    """What ``nd ace`` found, with all that is said of it.

    ``view``: the layer in the store; None where it can no longer be read. ``how_learned``: a sentence on the
    coefficients, "" without; ``high``: what the high values are, in words; ``takes_part``: above this a coefficient
    does.
    """

    found: Ace
    view: LayerView | None
    how_learned: str
    high: str
    takes_part: float

    @property
    def title(self) -> str:
        """What was looked at."""
        return f"{self.found.network} {self.found.layer}: {self.found.name}"

    @property
    def learned(self) -> bool:
        """Whether there are coefficients."""
        return self.found.coefficients is not None

    @cached_property
    def _alone(self) -> dict[int, float]:
        effects = None if self.view is None else self.view.concept_effects
        if effects is None or not len(effects.units):
            return {}
        return dict(zip(effects.units.tolist(), effects.change[:, self.found.concept].tolist(), strict=True))

    @property
    def measured_alone(self) -> bool:
        """Whether the store says of units what each does alone."""
        return bool(self._alone)

    def unit(self, unit: int) -> RankedUnit:
        """What is known of a unit."""
        c = self.found.coefficients
        coefficient = math.nan if c is None else float(c.values[unit])
        return RankedUnit(unit, float(self.found.ious[unit]), coefficient, self._alone.get(unit, math.nan))

    def rankings(self, rows: int) -> list[tuple[RankedUnit, RankedUnit | None]]:
        """So many rows: the next unit by IoU, and the next by coefficient; None where nothing was learned."""
        by_iou, by_coefficient = self.found.by_iou[:rows], self.found.by_coefficient[:rows]
        second = [self.unit(u) for u in by_coefficient] if by_coefficient else [None] * len(by_iou)
        return list(zip([self.unit(u) for u in by_iou], second, strict=True))

    def chosen(self, effect: CausalEffect) -> str:
        """How the units of an effect were chosen, in words."""
        n, draws = self.found.n, self.found.request.draws
        return {
            "iou": f"the {n} best by IoU",
            "coefficient": f"the {n} best by coefficient",
            "weighted": "all, each by its coefficient",
            "random": f"{n} random ones, mean of {draws} sets",
        }[effect.chosen_by]

    @property
    def overlap_by_chance(self) -> float:
        """How many units two sets of n share on average if both are drawn at random."""
        return self.found.n**2 / len(self.found.by_iou)

    def how(self) -> list[str]:
        """How all of it was computed, a line for each kind of number."""
        f = self.found
        places, samples = f.held_out
        lines = [
            f"effect: the share of the picture's pixels that are {f.name} with the units at {self.high}, less that with"
            f" them at zero, at {places} cells in {samples} held-out samples, drawn in proportion to the {f.name} in"
            f" them (of {f.searched} samples); 95 % interval by jackknife over samples",
        ]
        if self.learned:
            lines.append(f"coefficient: {self.how_learned}; it ranks units and is no effect")
        if self.measured_alone:
            lines.append(f"effect alone: the change of the share of {f.name} without the unit alone, from the store")
        return lines

    def summary(self) -> list[str]:
        """The overlap of the rankings, and how learning went."""
        c = self.found.coefficients
        if c is None:
            return []
        n = self.found.n
        return [
            f"{self.found.overlap} of the {n} best by IoU are among the {n} best by coefficient"
            f" ({self.overlap_by_chance:.1f} by chance); {c.above} of {len(c.values)} coefficients are above"
            f" {self.takes_part:g}",
            f"held-out objective (smaller is better): {c.before:.4f} before learning, {c.after:.4f} after",
        ]

    def effect_lines(self) -> list[str]:
        """Each effect in a line, for a log."""
        return [
            f"average causal effect, {self.chosen(e)}: {e.ace:+.5f} (95 %: {e.low:+.5f} to {e.high:+.5f})"
            for e in self.found.effects
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; units in the order of their coefficients, or of their IoUs where there are none."""
        f, c = self.found, self.found.coefficients
        first, *others = f.effects
        order = f.by_coefficient or f.by_iou
        held_out = {"locations": f.held_out[0], "samples": f.held_out[1]}
        if c is not None:
            held_out |= {"before": c.before, "after": c.after}  # type: ignore[dict-item]
        return {
            "network": f.network,
            "layer": f.layer,
            "label": f.name,
            "effect": {"n": f.n, **_effect_json(first)} | {e.chosen_by: _effect_json(e) for e in others},
            "coefficients": None if c is None else c.values.tolist(),
            "above": None if c is None else c.above,
            "ranking": [_unit_json(self.unit(u)) for u in order],
            "overlap": f.overlap,
            "overlap_by_chance": self.overlap_by_chance if self.learned else None,
            "training": {"locations": f.training[0], "samples": f.training[1]},
            "held_out": held_out,
            "how": "; ".join(self.how()),
            "notes": list(f.notes),
        }


def _effect_json(effect: CausalEffect) -> dict[str, Any]:
    said: dict[str, Any] = {"ace": effect.ace, "low": effect.low, "high": effect.high}
    said |= {"inserted": effect.inserted, "zeroed": effect.zeroed}
    return said | ({"units": list(effect.units)} if effect.units else {})


def _unit_json(unit: RankedUnit) -> dict[str, Any]:
    return {"unit": unit.unit, "iou": unit.iou, "coefficient": unit.coefficient, "effect_alone": unit.alone}
