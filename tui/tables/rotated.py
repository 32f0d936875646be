"""A layer's units in rotated bases, as a table: unique detectors against alpha, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.concepts import report_order

if TYPE_CHECKING:
    from ndissect.engine.experiments.rotate import BasisLabels

DETECTORS, PER_CATEGORY, BEST_LABEL = "detectors", "unique_per_category", "unique_best_label"


@dataclass(frozen=True)
class Spread:
    """``mean`` and sample standard deviation ``sd`` over seeds; of a single one the deviation is 0."""

    mean: float
    sd: float


@dataclass(frozen=True)
class AtAlpha:
    """What ``seeds`` rotations to the power ``alpha`` give: a Spread for each count and each category."""

    alpha: float
    seeds: int
    counts: dict[str, Spread]
    by_category: dict[str, Spread]


def at_alphas(bases: Sequence[BasisLabels]) -> list[AtAlpha]:
    """The bases by their alpha, which rises; categories in the order of the papers' reports."""
    rows = []
    for alpha in sorted({f.alpha for f in bases}):
        some = [f for f in bases if f.alpha == alpha]
        counts = {name: _spread([getattr(f, name) for f in some]) for name in (DETECTORS, PER_CATEGORY, BEST_LABEL)}
        categories = report_order(tuple(some[0].by_category))
        by_category = {c: _spread([f.by_category[c] for f in some]) for c in categories}
        rows.append(AtAlpha(alpha, len(some), counts, by_category))
    return rows


def _spread(values: Sequence[int]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def basis_json(basis: BasisLabels) -> dict[str, Any]:
    """One basis as JSON values, and as a row of the CSV file."""
    counts = {name: getattr(basis, name) for name in (DETECTORS, PER_CATEGORY, BEST_LABEL)}
    order = report_order(tuple(basis.by_category))
    return {"alpha": basis.alpha, "seed": basis.seed, **counts, **{c: basis.by_category[c] for c in order}}
