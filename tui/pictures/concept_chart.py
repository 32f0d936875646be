"""The papers' bar chart: how many units of a layer detect each concept, by category."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ndissect.store.concepts import report_order
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.pictures.figures import CATEGORY_COLOUR, OTHER_COLOUR

# So many bars, with their names below them, can be read side by side on a page; of fewer than the second number each
# would be a block. A little space parts the categories.
_BARS_A_ROW, _FEW = 75, 36
_APART = 0.7
_ROW_HEIGHT, _WIDTH = 2.3, 11.0
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Bar:
    """A concept, its category, and how many units have it as that category's best with an IoU above 0.04."""

    concept: str
    category: str
    units: int


def concept_bars(view: LayerView) -> list[Bar]:
    """The layer's unique detectors as the papers count them, by category in report order, most units first.

    A unit counts once in each category in which its best concept has an IoU above 0.04: there are as many bars as the
    summary has unique detectors per category.
    """
    concepts, best = view.store.concepts, view.best
    C = len(concepts)
    won = best.iou > DETECTOR_IOU
    units, highest = np.bincount(best.concept[won], minlength=C), np.zeros(C)
    np.maximum.at(highest, best.concept[won], best.iou[won])
    place = {name: i for i, name in enumerate(report_order(concepts.categories))}

    def order(row: int) -> tuple[int, int, float, str]:
        return place[concepts.category_of(row)], -int(units[row]), -float(highest[row]), concepts.label(row)

    rows = sorted((int(row) for row in np.flatnonzero(units)), key=order)
    return [Bar(concepts.label(row), concepts.category_of(row), int(units[row])) for row in rows]


def chart_size(bars: list[Bar]) -> tuple[float, float]:
    """Width and height in inches that ``draw_bars`` needs."""
    return _WIDTH, _ROW_HEIGHT * len(_rows(bars)) + 0.3


def draw_bars(figure: Figure, bars: list[Bar], ink: str = "black") -> None:
    """Draw the bars in rows, coloured by category, on a transparent ground; lines and letters are ``ink``."""
    figure.patch.set_alpha(0)
    rows = _rows(bars)
    most = max((bar.units for bar in bars), default=1)
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, row in zip(axes, rows, strict=True):
        colours = [CATEGORY_COLOUR.get(bar.category, OTHER_COLOUR) for bar in row]
        begins = [i > 0 and bar.category != row[i - 1].category for i, bar in enumerate(row)]
        x = np.arange(len(row)) + _APART * np.cumsum(begins)
        ax.bar(x, [bar.units for bar in row], color=colours, width=0.75)
        ax.set_xlim(-0.7, max(len(rows[0]) + _APART * 5, _FEW) - 0.3)
        ax.set_ylim(0, most * 1.05)
        ax.yaxis.get_major_locator().set_params(integer=True, nbins=5)
        ax.set_xticks(x)
        ax.set_xticklabels([_short(bar.concept) for bar in row], rotation=90, fontsize=7)
        ax.set_ylabel("units", color=ink, fontsize=8)
        ax.tick_params(colors=ink, labelsize=7, length=2)
        ax.patch.set_alpha(0)
        ax.spines[:].set_color(ink)
    _legend(figure, bars, ink)


def _rows(bars: list[Bar]) -> list[list[Bar]]:
    """The bars in as few rows as it takes, of about equal lengths."""
    count = max(1, math.ceil(len(bars) / _BARS_A_ROW))
    length = math.ceil(len(bars) / count)
    return [bars[i * length : (i + 1) * length] for i in range(count)]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _legend(figure: Figure, bars: list[Bar], ink: str) -> None:
    categories = list(dict.fromkeys(bar.category for bar in bars))
    if not categories:
        return
    handles = [
        Patch(
            color=CATEGORY_COLOUR.get(category, OTHER_COLOUR),
            label=f"{sum(bar.category == category for bar in bars)} {category}",
        )
        for category in categories
    ]
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(ink)
