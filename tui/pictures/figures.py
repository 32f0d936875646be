"""Plots as PNG or SVG files: one look for all of them. To be imported where something is drawn: it takes its time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure  # without pyplot: no window, no state
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from ndissect.store.errors import WrongUse
from ndissect.store.files import atomic, check_writable
from ndissect.store.text import one_line

#: Draws on an empty figure.
Draw = Callable[[Figure], None]

#: A colour for each category, told apart by the colour-blind too (Okabe and Ito's palette); others are grey.
CATEGORY_COLOUR = {
    "object": "#0072B2",
    "scene": "#56B4E9",
    "part": "#009E73",
    "material": "#E69F00",
    "texture": "#D55E00",
    "color": "#CC79A7",
}
OTHER_COLOUR = "#767676"
_SUFFIXES = (".png", ".svg")


def check_plot(path: Path) -> None:
    """Refuse, before the work, a plot that could not be written: WrongUse for its suffix, NDError for its folder."""
    if path.suffix.lower() not in _SUFFIXES:
        raise WrongUse(f"{path} is no name of a plot", "--plot takes FILE.png or FILE.svg")
    check_writable(path, 0)


def save(path: Path, draw: Draw, size: tuple[float, float] = (7.0, 4.2)) -> None:
    """Write what ``draw`` draws to ``path``, PNG or SVG by its suffix; ``size``: width, height in inches."""
    check_plot(path)
    data = _drawn(draw, size, path.suffix.lower()[1:])
    check_writable(path, len(data))
    with atomic(path) as part:
        part.write_bytes(data)


def svg(draw: Draw, size: tuple[float, float] = (7.0, 4.2)) -> str:
    """What ``draw`` draws as an ``<svg>`` element, for a page."""
    text = _drawn(draw, size, "svg").decode()
    return text[text.index("<svg") :]


def _drawn(draw: Draw, size: tuple[float, float], kind: str) -> bytes:
    style: Any = {
        "text.parse_math": False,  # names are no formulas, "$x" and "a_b" neither
        "text.usetex": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "ndissect",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    out = io.BytesIO()
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about letters that the fonts lack: they are drawn as boxes
        figure = Figure(size, dpi=150, layout="constrained")
        draw(figure)
        _clean(figure)
        figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _clean(figure: Figure) -> None:
    """Clean all that is written in ``figure``: an SVG is shown by other programs, and may not hold every character."""
    for text in figure.findobj(Text):
        text.set_text("\n".join(map(one_line, text.get_text().split("\n"))))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        named = axis.get_major_formatter()
        if isinstance(named, FuncFormatter):  # tick labels are written anew whenever they are drawn
            axis.set_major_formatter(FuncFormatter(lambda x, at, named=named: one_line(named(x, at))))
