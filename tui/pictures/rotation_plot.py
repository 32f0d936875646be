"""A layer's unique detectors plotted against how far its basis is rotated."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.tui.pictures.figures import CATEGORY_COLOUR, OTHER_COLOUR
from ndissect.tui.tables.rotated import BEST_LABEL, PER_CATEGORY, AtAlpha, Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Characters of a plot's note that fit its width.
_NOTE_WIDTH = 140


def draw(figure: Figure, rows: Sequence[AtAlpha], title: str, note: str) -> None:
    """Unique detectors against alpha: both totals and each category, bands of one standard deviation over seeds."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - takes its time

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
