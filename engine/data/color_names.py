"""The name of any sRGB colour, one of eleven, by a published model of colour naming.

R. Benavente, M. Vanrell, R. Baldrich: Parametric fuzzy sets for automatic color naming. Journal of the Optical Society
of America A 25(10), 2582-2593, 2008: the "triple sigmoid with elliptical centre". Six ranges of CIELAB lightness each
have a plane of chromatic names. A name's membership there is the product of two sigmoids, along the two hues at which
the name begins and ends, and of a third one around the ellipse of colours without a hue. What is left of 1 belongs to
black, grey and white, by two sigmoids of lightness. A colour has the name of the largest membership.

The model was fitted to names of surfaces, which are less saturated than a screen can be, and CIELAB's lines of equal
hue bend there: sRGB's purest red would be orange, its purest blue purple. So a colour of more chroma than ``_CHROMA``
is first mixed with the grey of its luminance until it has that. This is ours; no photograph has many such pixels.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.colors import COLORS

#: How many colours along each of red, green and blue are named apart: 8 levels of 256 have one name.
LEVELS = 32

#: The model in a few words.
COLOR_MODEL = "Benavente, Vanrell, Baldrich 2008"

_Floats = npt.NDArray[np.float64]

# The parameters of table 1 of the paper. Of each plane: the lightness to which it goes, the centre of the ellipse (a,
# b), its axes, the slope at its edge, its angle; of each name in turn the angles (degrees) and the slopes at its ends.
_PLANES: tuple[tuple[float, tuple[float, ...], dict[str, tuple[float, float, float, float]]], ...] = (
    (
        31,
        (0.42, 0.25, 5.89, 7.47, 9.84, 2.32),
        {
            "red": (-2.24, -56.55, 0.90, 1.72),
            "brown": (33.45, 14.56, 1.72, 0.84),
            "green": (104.56, 134.59, 0.84, 1.95),
            "blue": (224.59, -147.15, 1.95, 1.01),
            "purple": (-57.15, -92.24, 1.01, 0.90),
        },
    ),
    (
        41,
        (0.23, 0.66, 6.46, 7.87, 6.03, 17.59),
        {
            "red": (2.21, -48.81, 0.52, 5.00),
            "brown": (41.19, 6.87, 5.00, 0.69),
            "green": (96.87, 120.46, 0.69, 0.96),
            "blue": (210.46, -148.48, 0.96, 0.92),
            "purple": (-58.48, -105.72, 0.92, 1.10),
            "pink": (-15.72, -87.79, 1.10, 0.52),
        },
    ),
    (
        51,
        (-0.12, 0.52, 5.38, 6.98, 6.81, 19.58),
        {
            "red": (13.57, -45.55, 1.00, 0.57),
            "orange": (44.45, -28.76, 0.57, 0.52),
            "brown": (61.24, 6.65, 0.52, 0.84),
            "green": (96.65, 109.38, 0.84, 0.60),
            "blue": (199.38, -148.24, 0.60, 0.80),
            "purple": (-58.24, -112.63, 0.80, 0.62),
            "pink": (-22.63, -76.43, 0.62, 1.00),
        },
    ),
    (
        66,
        (-0.12, 1.17, 5.99, 7.51, 7.76, 23.92),
        {
            "red": (26.70, -56.88, 0.91, 0.76),
            "orange": (33.12, -9.90, 0.76, 0.48),
            "yellow": (80.10, 5.63, 0.48, 0.73),
            "green": (95.63, 108.14, 0.73, 0.64),
            "blue": (198.14, -148.59, 0.64, 0.76),
            "purple": (-58.59, -123.68, 0.76, 5.00),
            "pink": (-33.68, -63.30, 5.00, 0.91),
        },
    ),
    (
        76,
        (-0.47, 1.02, 5.37, 6.90, 100.00, 24.75),
        {
            "orange": (25.75, -15.85, 2.00, 0.84),
            "yellow": (74.15, 12.27, 0.84, 0.86),
            "green": (102.27, 98.57, 0.86, 0.74),
            "blue": (188.57, -150.83, 0.74, 0.47),
            "purple": (-60.83, -122.55, 0.47, 1.74),
            "pink": (-32.55, -64.25, 1.74, 2.00),
        },
    ),
    (
        np.inf,
        (-0.57, 1.16, 6.04, 7.39, 100.00, -1.19),
        {
            "orange": (25.74, -17.56, 1.03, 0.79),
            "yellow": (72.44, 16.24, 0.79, 0.96),
            "green": (106.24, 100.05, 0.96, 0.90),
            "blue": (190.05, -149.43, 0.90, 0.60),
            "purple": (-59.43, -122.37, 0.60, 1.93),
            "pink": (-32.37, -64.26, 1.93, 1.03),
        },
    ),
)
# Lightness and slope of the boundaries between black and grey, and between grey and white.
_BLACK, _WHITE = (28.28, 0.71), (79.65, 0.31)

_CHROMA = 80.0
_HALVINGS = 20

# sRGB (IEC 61966-2-1), and CIELAB under its white, D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def color_numbers(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(...) uint8: the names of sRGB pixels (..., 3) uint8, numbered from 1: n is ``COLORS[n - 1]``."""
    red, green, blue = np.moveaxis(pixels // (256 // LEVELS), -1, 0)
    named: npt.NDArray[np.uint8] = color_table()[red, green, blue]
    return named


@functools.cache
def color_table() -> npt.NDArray[np.uint8]:
    """(LEVELS, LEVELS, LEVELS) uint8: the name of every block of colours, by red, green and blue, numbered from 1."""
    level = (np.arange(LEVELS) + 0.5) * (256 / LEVELS)
    # Black, white and the purest colours are those of the outermost blocks.
    level[0], level[-1] = 0, 255
    blocks = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    number = memberships(blocks).argmax(1) + 1
    table: npt.NDArray[np.uint8] = number.astype(np.uint8).reshape(LEVELS, LEVELS, LEVELS)
    table.setflags(write=False)
    return table


def memberships(colors: npt.ArrayLike) -> _Floats:
    """(N, 11): how much each of sRGB ``colors`` (N, 3), from 0 to 255, belongs to each of COLORS."""
    lab = _limited(_linear(np.asarray(colors, np.float64) / 255))
    out = np.zeros((len(lab), len(COLORS)))
    low = -np.inf
    for high, ellipse, names in _PLANES:
        inside = (lab[:, 0] > low) & (lab[:, 0] <= high)
        out[inside] = _in_plane(lab[inside], ellipse, names)
        low = high
    return out


def _in_plane(lab: _Floats, ellipse: tuple[float, ...], names: dict[str, tuple[float, float, float, float]]) -> _Floats:
    center_a, center_b, axis_a, axis_b, edge, angle = ellipse
    a, b = lab[:, 1] - center_a, lab[:, 2] - center_b
    across, along = _turned(a, b, angle)
    hued = _sigmoid(edge * ((across / axis_a) ** 2 + (along / axis_b) ** 2 - 1))
    out = np.zeros((len(lab), len(COLORS)))
    for name, (begin, end, begin_slope, end_slope) in names.items():
        beyond, before = _turned(a, b, begin)[1], _turned(a, b, end)[0]
        out[:, COLORS.index(name)] = hued * _sigmoid(begin_slope * beyond) * _sigmoid(end_slope * before)
    rest = np.maximum(1 - out.sum(1), 0)
    black, white = (_sigmoid(slope * (lab[:, 0] - at)) for at, slope in (_BLACK, _WHITE))
    out[:, COLORS.index("black")] = rest * (1 - black)
    out[:, COLORS.index("white")] = rest * white
    out[:, COLORS.index("grey")] = rest * np.maximum(black - white, 0)
    return out


def _turned(a: _Floats, b: _Floats, degrees: float) -> tuple[_Floats, _Floats]:
    """The same points on axes that are turned by ``degrees``."""
    angle = np.deg2rad(degrees)
    return a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) - a * np.sin(angle)


def _sigmoid(x: _Floats) -> _Floats:
    out: _Floats = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return out


def _linear(rgb: _Floats) -> _Floats:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: _Floats) -> _Floats:
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def _limited(linear: _Floats) -> _Floats:
    """CIELAB of linear sRGB colours, each mixed with the grey of its luminance until its chroma is ``_CHROMA``."""
    lab = _lab(linear)
    vivid = np.flatnonzero(np.hypot(lab[:, 1], lab[:, 2]) > _CHROMA)
    color = linear[vivid]
    grey = (color @ _TO_XYZ[1])[:, None]
    low, high = np.zeros((len(vivid), 1)), np.ones((len(vivid), 1))
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        mixed = _lab(grey + (color - grey) * share)
        above = np.hypot(mixed[:, 1], mixed[:, 2])[:, None] > _CHROMA
        low, high = np.where(above, low, share), np.where(above, share, high)
    lab[vivid] = _lab(grey + (color - grey) * low)
    return lab
