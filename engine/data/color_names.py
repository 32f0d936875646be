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

# The parameters of the paper's table, with the digits that the authors' group publishes (github.com/CVC-CIC/nefesi,
# nefesi/util/ColorNaming.py). Of each plane: the lightness to which it goes, the centre of the ellipse (a, b), its
# axes, the slope at its edge, its angle; of each name the angles at which it begins and ends, and the slopes there.
# Angles are in radians.
_PLANES: tuple[tuple[float, tuple[float, ...], dict[str, tuple[float, float, float, float]]], ...] = (
    (
        31,
        (0.4242, 0.249359, 5.8894, 7.47432, 9.84406, 0.0405072),
        {
            "red": (-0.0390823, -0.98697, 0.900991, 1.72499),
            "brown": (0.583826, 0.254039, 1.72499, 0.844028),
            "green": (1.82484, 2.34899, 0.844028, 1.95218),
            "blue": (3.91979, -2.56831, 1.95218, 1.01425),
            "purple": (-0.997514, -1.60988, 1.01425, 0.900991),
        },
    ),
    (
        42,
        (0.229563, 0.66319, 6.45705, 7.87255, 6.0326, 0.307016),
        {
            "red": (0.0385324, -0.851969, 0.524363, 5),
            "brown": (0.718827, 0.11993, 5, 0.692405),
            "green": (1.69073, 2.1025, 0.692405, 0.958111),
            "blue": (3.6733, -2.59153, 0.958111, 0.916608),
            "purple": (-1.02074, -1.84516, 0.916608, 1.10032),
            "pink": (-0.27436, -1.53226, 1.10032, 0.524363),
        },
    ),
    (
        51,
        (-0.117336, 0.518008, 5.38109, 6.98238, 6.81218, 0.341771),
        {
            "red": (0.23688, -0.794922, 0.999376, 0.565279),
            "orange": (0.775875, -0.502015, 0.565279, 0.517227),
            "brown": (1.06878, 0.116145, 0.517227, 0.844786),
            "green": (1.68694, 1.90898, 0.844786, 0.599761),
            "blue": (3.47977, -2.58725, 0.599761, 0.800824),
            "purple": (-1.01645, -1.96583, 0.800824, 0.623673),
            "pink": (-0.395034, -1.33392, 0.623673, 0.999376),
        },
    ),
    (
        66,
        (-0.443169, 1.07592, 6.06366, 7.50205, 7.31858, 0.428449),
        {
            "red": (0.462879, -0.99504, 0.939107, 0.754843),
            "orange": (0.575756, -0.172493, 0.754843, 0.478354),
            "yellow": (1.3983, 0.0990183, 0.478354, 0.728742),
            "green": (1.66981, 1.89048, 0.728742, 0.643833),
            "blue": (3.46128, -2.59661, 0.643833, 0.755214),
            "purple": (-1.02581, -2.16285, 0.755214, 5),
            "pink": (-0.592058, -1.10792, 5, 0.939107),
        },
    ),
    (
        76,
        (-0.565458, 1.16328, 5.36821, 6.90048, 100, 0.432024),
        {
            "orange": (0.449438, -0.276554, 1.99512, 0.83991),
            "yellow": (1.29424, 0.214168, 0.83991, 0.856004),
            "green": (1.78496, 1.72031, 0.856004, 0.736645),
            "blue": (3.29111, -2.63249, 0.736645, 0.474809),
            "purple": (-1.06169, -2.13887, 0.474809, 1.73558),
            "pink": (-0.568069, -1.12136, 1.73558, 1.99512),
        },
    ),
    (
        np.inf,
        (-1.25643, 1.81438, 6.0399, 7.39319, 100, -0.0208202),
        {
            "orange": (0.449317, -0.306422, 1.02801, 0.790984),
            "yellow": (1.26437, 0.283462, 0.790984, 0.957415),
            "green": (1.85426, 1.74613, 0.957415, 0.90001),
            "blue": (3.31692, -2.60809, 0.90001, 0.598985),
            "purple": (-1.03729, -2.13569, 0.598985, 1.93131),
            "pink": (-0.564896, -1.12148, 1.93131, 1.02801),
        },
    ),
)
# Lightness and slope of the boundaries between black and grey, and between grey and white.
_BLACK, _WHITE = (28.282522, 0.714234), (79.649301, 0.306741)

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


def _turned(a: _Floats, b: _Floats, angle: float) -> tuple[_Floats, _Floats]:
    """The same points on axes that are turned by ``angle``."""
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
