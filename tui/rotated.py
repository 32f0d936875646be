"""A layer's units in rotated bases, as a table and as a plot: unique detectors against alpha, over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.store.concepts import report_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ndissect.engine.rotate import Found

DETECTORS, PER_CATEGORY, BEST_LABEL = "detectors", "unique_per_category", "unique_best_label"
# Characters of a plot's note that fit its width.
_NOTE_WIDTH = 140


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


def at_alphas(found: Sequence[Found]) -> list[AtAlpha]:
    """The bases by their alpha, which rises; categories in the order of the papers' reports."""
    rows = []
    for alpha in sorted({f.alpha for f in found}):
        some = [f for f in found if f.alpha == alpha]
        counts = {name: _spread([getattr(f, name) for f in some]) for name in (DETECTORS, PER_CATEGORY, BEST_LABEL)}
        categories = report_order(tuple(some[0].by_category))
        by_category = {c: _spread([f.by_category[c] for f in some]) for c in categories}
        rows.append(AtAlpha(alpha, len(some), counts, by_category))
    return rows


def _spread(values: Sequence[int]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def basis_json(found: Found) -> dict[str, Any]:
    """One basis as JSON values, and as a row of the CSV file."""
    counts = {name: getattr(found, name) for name in (DETECTORS, PER_CATEGORY, BEST_LABEL)}
    order = report_order(tuple(found.by_category))
    return {"alpha": found.alpha, "seed": found.seed, **counts, **{c: found.by_category[c] for c in order}}


def draw(figure: Figure, rows: Sequence[AtAlpha], title: str, note: str) -> None:
    """Unique detectors against alpha: both totals and each category, bands of one standard deviation over seeds."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - takes its time

    from ndissect.tui.figures import CATEGORY_COLOUR, OTHER_COLOUR  # noqa: PLC0415

    axes = figure.add_subplot()
    alpha = [row.alpha for row in rows]

    lines: dict[str, Any] = {}

    def line(spreads: Sequence[Spread], label: str, colour: str, **style: Any) -> None:
        mean, sd = np.array([s.mean for s in spreads]), np.array([s.sd for s in spreads])
        axes.fill_between(alpha, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)
        (lines[label],) = axes.plot(alpha, mean, color=colour, markersize=3.5, **style)

    line([r.counts[PER_CATEGORY] for r in rows], "all, per category", "black", marker="o", linewidth=2)
    line([r.counts[BEST_LABEL] for r in rows], "all, best label", "black", marker="s", linewidth=1.2, linestyle="--")
    for category in rows[0].by_category:
        colour = CATEGORY_COLOUR.get(category, OTHER_COLOUR)
        line([r.by_category[category] for r in rows], category, colour, marker="o", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("rotation α (0: the layer's own units, 1: a random basis)")
    axes.set_ylabel("unique detectors")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(list(lines.values()), list(lines), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel(textwrap.fill(note, _NOTE_WIDTH), fontsize=6.5, color="#555555", x=0.01, ha="left")
