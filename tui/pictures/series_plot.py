"""Unique detectors of a series of networks plotted against a factor."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.engine.experiments.series import show
from ndissect.tui.pictures.figures import CATEGORY_COLOUR, OTHER_COLOUR
from ndissect.tui.tables.series import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Characters of a note that fit an inch of a plot.
_NOTE_INCH = 20
_TITLE_WIDTH = 38
# From this ratio of the largest to the least factor on, the axis is logarithmic.
_DECADES = 100
_PER_CATEGORY, _BEST_LABEL = "all, per category", "all, best label"


def figure_size(shown: Sequence[Panel]) -> tuple[float, float]:
    """Width and height in inches of a plot of these panels."""
    if len(shown) == 1:
        return 7.0, 4.2
    rows, columns = _grid(len(shown))
    return 3.0 * columns + 1.2, 2.8 * rows + 0.4


def _grid(panels: int) -> tuple[int, int]:
    columns = panels if panels <= 3 else math.ceil(math.sqrt(panels))
    return math.ceil(panels / columns), columns


def draw(figure: Figure, shown: Sequence[Panel], factor: str, note: str) -> None:
    """The panels side by side with one scale: lines against a number, stacked bars against a name."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - takes its time

    rows, columns = _grid(len(shown))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    keys = []
    for axes, panel in zip(grid, shown, strict=False):
        keys.append((_bars if any(isinstance(v, str) for v in panel.x) else _lines)(axes, panel))
        axes.set_title(textwrap.fill(panel.title, _TITLE_WIDTH), fontsize=8.5, loc="left")
        axes.set_xlabel(factor, fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("unique detectors", fontsize=9)
    grid[0].set_ylim(bottom=0)
    grid[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    # By name: matplotlib leaves out of a legend what is labelled "_like this".
    figure.legend(list(keys[0].values()), list(keys[0]), frameon=False, fontsize=8, loc="outside right upper")
    width = int(_NOTE_INCH * figure_size(shown)[0])
    figure.supxlabel(textwrap.fill(note, width), fontsize=6.5, color="#555555", x=0.01, ha="left")


def _lines(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw the panel; what the legend calls each line."""
    x = [float(v) for v in panel.x]
    key: dict[str, Any] = {}
    (key[_PER_CATEGORY],) = axes.plot(x, panel.per_category, "o-", color="black", linewidth=2, markersize=3.5)
    (key[_BEST_LABEL],) = axes.plot(x, panel.best_label, "s--", color="black", linewidth=1.2, markersize=3.5)
    for category, counts in panel.by_category.items():
        colour = CATEGORY_COLOUR.get(category, OTHER_COLOUR)
        (key[category],) = axes.plot(x, counts, "o-", color=colour, linewidth=1.2, markersize=3)
    for name, line in key.items():
        line.set_label(name)
    _scale(axes, x)
    return key


def _scale(axes: Axes, x: Sequence[float]) -> None:
    """A logarithmic axis where the factor spans decades, with room for 0; marked at the values themselves."""
    positive = [v for v in x if v > 0]
    if positive and min(x) >= 0 and max(positive) >= _DECADES * min(positive):
        if min(x) == 0:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.4)
        else:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # not as a formula
    if len(x) <= 14:
        axes.set_xticks(x, [show(v) for v in x], rotation=45 if len(x) > 5 else 0)
        axes.minorticks_off()


def _bars(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw the panel; what the legend calls each bar."""
    key: dict[str, Any] = {}
    at, below = np.arange(len(panel.x)), np.zeros(len(panel.x))
    for category, counts in panel.by_category.items():
        key[category] = axes.bar(at, counts, 0.6, bottom=below, color=CATEGORY_COLOUR.get(category, OTHER_COLOUR))
        below += counts
    for place, total in zip(at, panel.per_category, strict=True):
        axes.annotate(f"{total:g}", (place, total), ha="center", va="bottom", fontsize=8)
    (key[_BEST_LABEL],) = axes.plot(at, panel.best_label, "s", color="black", markersize=4)
    longest = max(len(show(v)) for v in panel.x)
    tilted = longest * len(panel.x) > 24
    axes.set_xticks(at, [show(v) for v in panel.x], rotation=30 if tilted else 0, ha="right" if tilted else "center")
    axes.set_xlim(-0.6, len(at) - 0.4)
    return key
