"""Plots as PNG or SVG files: one look for all of them. To be imported where something is drawn: it takes its time."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure  # without pyplot: no window, no state

from ndissect.store.errors import WrongUse
from ndissect.store.files import atomic, check_writable

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
        "svg.fonttype": "none",
        "svg.hashsalt": "ndissect",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    out = io.BytesIO()
    with mpl.rc_context(style):
        figure = Figure(size, dpi=150, layout="constrained")
        draw(figure)
        figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()
