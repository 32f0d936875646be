"""The eleven basic colour names, and the rule that names the colour of a pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

COLORS = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")

_NUMBER = {name: n for n, name in enumerate(COLORS, 1)}
_HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")
_AROUND = np.array([_NUMBER[name] for name in _HUES], np.uint8)
_HUE_ENDS = np.array([14, 43, 68, 165, 258, 290, 342], np.float32)


def color_map(image: npt.NDArray[np.uint8], factor: int = 2) -> npt.NDArray[np.uint8]:
    """(H / factor, W / factor) uint8: the colour name of each cell of an (H, W, 3) uint8 RGB image, numbered from 1.

    Number n is ``COLORS[n - 1]``. The mean colour of a cell (rounded down) is named by its hue in degrees, saturation
    and value (0 to 255). Value below 50 is black; saturation below 0.13 is white above 205, below 0.16 grey; else the
    hue circle is cut at 14, 43, 68, 165, 258, 290 and 342. Three names overrule the circle: brown, where the hue is 10
    to 50 and the value below 165 or the saturation below 0.5; pink, where the hue is 330 to 20, the value above 175 and
    the saturation below 0.55; white, where the hue is 43 to 68, the saturation below 0.22 and the value above 205
    (cream).
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    cells = image.reshape(height, factor, width, factor, 3)
    mean = np.asarray(cells.sum((1, 3), dtype=np.uint16) // factor**2, np.float32)
    red, green, blue = mean[..., 0], mean[..., 1], mean[..., 2]
    high, low = mean.max(2), mean.min(2)
    chroma = np.maximum(high - low, np.float32(1e-3))
    turn = np.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4)
    hue = 60 * np.where(high == red, (green - blue) / chroma % 6, turn)
    saturation = chroma / np.maximum(high, 1)
    out: npt.NDArray[np.uint8] = _AROUND[np.searchsorted(_HUE_ENDS, hue)]
    out[(hue >= 10) & (hue < 50) & ((high < 165) | (saturation < 0.5))] = _NUMBER["brown"]
    out[((hue > 330) | (hue < 20)) & (high > 175) & (saturation < 0.55)] = _NUMBER["pink"]
    out[saturation < 0.16] = _NUMBER["grey"]
    out[(high > 205) & ((saturation < 0.13) | ((saturation < 0.22) & (hue >= 43) & (hue < 68)))] = _NUMBER["white"]
    out[high < 50] = _NUMBER["black"]
    return out
