"""Unique detectors and the coverage of their labels plotted against the quantile of the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.pictures.figures import CATEGORY_COLOUR, OTHER_COLOUR
from ndissect.tui.tables.swept import SweptLayer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(figure: Figure, layers: Sequence[SweptLayer], title: str, note: str) -> None:
    """A row for each layer: unique detectors of each category, and the median coverage of labels, against q."""
    from matplotlib.ticker import MaxNLocator, NullLocator  # noqa: PLC0415 - takes its time

    axes = figure.subplots(len(layers), 2, sharex=True, squeeze=False)
    for (unique, coverage), layer in zip(axes, layers, strict=True):
        q = [level.q for level in layer.levels]
        lines: dict[str, Any] = {}
        for category in layer.levels[0].unique_by_category:
            counts = [level.unique_by_category[category] for level in layer.levels]
            colour = CATEGORY_COLOUR.get(category, OTHER_COLOUR)
            (lines[category],) = unique.plot(q, counts, "o-", markersize=3.5, color=colour)
        coverage.plot(q, [100 * level.coverage for level in layer.levels], "ko-", markersize=3.5)
        unique.set_title(f"{layer.name}: unique detectors, IoU > {DETECTOR_IOU}", fontsize=9, loc="left")
        coverage.set_title("median coverage of the detectors' labels", fontsize=9, loc="left")
        coverage.set_ylabel("% of labelled pixels")
        unique.yaxis.set_major_locator(MaxNLocator(integer=True))
        for panel in (unique, coverage):
            panel.set_xscale("log")
            panel.set_xticks(q, [f"{x:g}" for x in q])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.tick_params(axis="x", labelbottom=True, labelsize=8)
            panel.set_ylim(bottom=0)
        if unique is axes[0, 0]:
            unique.legend(list(lines.values()), list(lines), frameon=False, fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("share of activations above the threshold, q")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.supxlabel(note, fontsize=6.5, color="#555555", x=0.01, ha="left", wrap=True)
