"""The plot of a comparison: a bar a layer, of its unique detectors by category, with the interval of their sum."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from ndissect.tui.pictures.figures import CATEGORY_COLOUR, OTHER_COLOUR
from ndissect.tui.tables.comparison import all_categories, mark

_INCHES = 0.75
# Small letters in the width of an inch.
_CHARACTERS = 13
# Letters of layers' names that stand side by side in an inch.
_NAMES_FIT = 8


def size(layers: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Width and height in inches for so many bars."""
    return max(7.0, 2.6 + _INCHES * len(layers)), 4.6


def draw(figure: Figure, result: dict[str, Any], about: Sequence[str]) -> None:
    """Stacked bars of ``unique_per_category``; ``about``: which layers these are, and how they came about."""
    layers = result["layers"]
    axes = figure.subplots()
    bottom, bars = [0] * len(layers), {}
    for category in all_categories(layers):
        counts = [layer["summary"]["by_category"].get(category, 0) for layer in layers]
        colour = CATEGORY_COLOUR.get(category, OTHER_COLOUR)
        bars[category] = axes.bar(
            range(len(layers)), counts, 0.7, bottom, color=colour, edgecolor="white", linewidth=0.8
        )
        bottom = [low + n for low, n in zip(bottom, counts, strict=True)]
    for i, (layer, total) in enumerate(zip(layers, bottom, strict=True)):
        low, high = layer["intervals"]["unique_per_category"] if layer["intervals"] else (total, total)
        if layer["intervals"]:
            axes.errorbar(i, total, [[total - low], [high - total]], color="black", capsize=4, linewidth=1.2)
        axes.annotate(str(total), (i, high), (0, 3), textcoords="offset points", ha="center")
    names = [layer["name"] for layer in layers]
    crowded = max(map(len, names)) * len(names) > _NAMES_FIT * figure.get_figwidth()
    axes.set_xticks(range(len(layers)), names, rotation=30 * crowded, ha="right" if crowded else "center")
    axes.set_ylabel("unique detectors, added over categories")
    axes.margins(y=0.12)
    # By name: matplotlib leaves out of a legend what is labelled "_like this".
    axes.legend(list(bars.values())[::-1], list(bars)[::-1], loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    intervals = any(layer["intervals"] for layer in layers)
    figure.suptitle("Unique detectors by category" + (", with the 95 % interval of their sum" if intervals else ""))
    width = int(_CHARACTERS * figure.get_figwidth())
    axes.set_title(_wrapped([mark(result["differences"])], width), fontsize=8, color="#B00020")
    figure.supxlabel(_wrapped(about, width), fontsize=7, color="#444444")


def _wrapped(lines: Sequence[str], width: int) -> str:
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, width))
