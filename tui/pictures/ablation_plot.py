"""The balanced accuracy of a class plotted against how many units of a layer are removed, or kept."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ndissect.tui.tables.ablation_curve import CurveRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour, marker and line of each kind of series, told apart by the colour-blind too (Okabe and Ito's palette).
_STYLE = {
    "remove": ("#D55E00", "o", "-"),
    "keep": ("#0072B2", "s", "-"),
    "random": ("#767676", "x", "--"),
    "label": ("#009E73", "^", "-."),
}
# Characters of a plot's note that fit its width.
_NOTE_WIDTH = 140


def draw(figure: Figure, rows: Sequence[CurveRow], axis: tuple[str, str], title: str, note: str) -> None:
    """Balanced accuracy against n, a line for each series; ``axis``: what is written along the two axes.

    Bands are intervals of 95 %; a lighter one holds all random draws.
    """
    axes = figure.add_subplot()
    lines = {name: _line(axes, [row for row in rows if row.series == name]) for name in _names(rows)}
    lines["chance"] = axes.axhline(0.5, color="#bbbbbb", linewidth=0.8, linestyle=":")
    sizes = sorted({row.n for row in rows})
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xticks(sizes, [str(n) for n in sizes], rotation=45)
    axes.minorticks_off()
    axes.set_xlim(-0.15, max(sizes) * 1.1)
    axes.set_ylim(top=1.02)
    axes.set_xlabel(axis[0])
    axes.set_ylabel(axis[1])
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(list(lines.values()), list(lines), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel(textwrap.fill(note, _NOTE_WIDTH), fontsize=6.5, color="#555555", x=0.01, ha="left")


def _names(rows: Sequence[CurveRow]) -> list[str]:
    return list(dict.fromkeys(row.series for row in rows))


def _line(axes: Axes, rows: Sequence[CurveRow]) -> Any:
    colour, marker, style = _STYLE[rows[0].kind]
    n = [row.n for row in rows]
    axes.fill_between(n, [r.low for r in rows], [r.high for r in rows], color=colour, alpha=0.22, linewidth=0)
    axes.fill_between(n, [r.least for r in rows], [r.most for r in rows], color=colour, alpha=0.12, linewidth=0)
    value = [row.balanced_accuracy for row in rows]
    (line,) = axes.plot(n, value, color=colour, marker=marker, linestyle=style, linewidth=1.6, markersize=4)
    return line
