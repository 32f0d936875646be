"""A series of dissections: what each store says of its layers, and unique detectors plotted against a factor."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ndissect.engine.series import Factor, Member, show
from ndissect.store.concepts import report_order
from ndissect.store.reader import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Characters of a note that fit an inch of a plot.
_NOTE_INCH = 20
_TITLE_WIDTH = 38
# From this ratio of the largest to the least factor on, the axis is logarithmic.
_DECADES = 100
_PER_CATEGORY, _BEST_LABEL = "all, per category", "all, best label"


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a store; ``by_category``: unique detectors in report order; ``summary``: all that the store says."""

    layer: str
    summary: dict[str, Any]
    by_category: dict[str, int]

    @property
    def units(self) -> int:
        return int(self.summary["units"])

    @property
    def detectors(self) -> int:
        return int(self.summary["detectors"])

    @property
    def detectors_q05(self) -> int | None:
        """Those that are told from chance; None where there was no null."""
        found: int | None = self.summary.get("detectors_q05")
        return found

    @property
    def unique(self) -> tuple[int, int]:
        """Both counts of unique detectors: per category, and by best label."""
        return self.unique_per_category, self.unique_best_label

    @property
    def unique_per_category(self) -> int:
        return int(self.summary["unique_per_category"])

    @property
    def unique_best_label(self) -> int:
        return int(self.summary["unique_best_label"])


@dataclass(frozen=True)
class Dissected:
    """A network of the series with its store."""

    member: Member
    path: Path
    layers: tuple[LayerSummary, ...]


def read(members: Sequence[Member], paths: Sequence[Path]) -> list[Dissected]:
    """What the stores say."""
    found = []
    for member, path in zip(members, paths, strict=True):
        with Store(path) as store:
            layers = []
            for name in store.layer_names:
                summary = store.layer(name).summary()
                order = report_order(store.concepts.categories)
                layers.append(LayerSummary(name, summary, {c: summary["by_category"][c] for c in order}))
        found.append(Dissected(member, path, tuple(layers)))
    return found


@dataclass(frozen=True)
class Panel:
    """Curves of one layer against the factor ``x``: means over the networks that share a value.

    ``title``: the layer and the other factors, where they differ between panels.
    """

    title: str
    x: list[Factor]
    per_category: list[float]
    best_label: list[float]
    by_category: dict[str, list[float]]


def panels(found: Sequence[Dissected], factor: str) -> list[Panel]:
    """One panel for each layer and each combination of the other factors.

    Networks that differ in their layers are compared by their last ones. Combinations with a single value of the
    factor are left out where others have more.
    """
    same = all([s.layer for s in d.layers] == [s.layer for s in found[0].layers] for d in found)
    layers = range(len(found[0].layers)) if same else [-1]
    groups: dict[tuple[tuple[str, Factor], ...], list[Dissected]] = {}
    for d in found:
        rest = tuple((name, value) for name, value in d.member.factors.items() if name != factor)
        groups.setdefault(rest, []).append(d)
    most = max(len({d.member.factors.get(factor) for d in some}) for some in groups.values())
    if most > 1:
        groups = {k: some for k, some in groups.items() if len({d.member.factors.get(factor) for d in some}) > 1}
    varying = {name for rest in groups for name, value in rest if any((name, value) not in r for r in groups)}
    made = []
    for i in layers:
        layer = [found[0].layers[i].layer] if same else ["last layer"]
        for rest, some in groups.items():
            about = [f"{name} {show(value)}" for name, value in rest if name in varying]
            made.append(_panel(", ".join(layer + about), some, factor, i))
    return made


def _panel(title: str, some: Sequence[Dissected], factor: str, i: int) -> Panel:
    values = list(dict.fromkeys(d.member.factors.get(factor, "") for d in some))
    if not any(isinstance(v, str) for v in values):
        values.sort()
    at = [[d.layers[i] for d in some if d.member.factors.get(factor, "") == v] for v in values]
    categories = at[0][0].by_category
    return Panel(
        title,
        values,
        [float(np.mean([s.unique_per_category for s in same])) for same in at],
        [float(np.mean([s.unique_best_label for s in same])) for same in at],
        {c: [float(np.mean([s.by_category[c] for s in same])) for same in at] for c in categories},
    )


def size(shown: Sequence[Panel]) -> tuple[float, float]:
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
    width = int(_NOTE_INCH * size(shown)[0])
    figure.supxlabel(textwrap.fill(note, width), fontsize=6.5, color="#555555", x=0.01, ha="left")


def _lines(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw the panel; what the legend calls each line."""
    from ndissect.tui.figures import CATEGORY_COLOUR, OTHER_COLOUR  # noqa: PLC0415 - brings matplotlib with it

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
    from ndissect.tui.figures import CATEGORY_COLOUR, OTHER_COLOUR  # noqa: PLC0415

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
