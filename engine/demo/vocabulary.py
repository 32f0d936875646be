"""The concepts of the demo data set, and the rule that names the colour of a pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: In the order of the columns of ``index.csv``.
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")

COLORS = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")

OBJECTS = (
    "sky", "road", "sidewalk", "grass", "sea", "sand", "mountain", "tree", "house", "building", "car", "bus",
    "person", "boat", "sun", "moon", "cloud", "streetlight", "fence", "flower", "bird", "balloon", "umbrella",
    "bench", "cactus", "lighthouse", "wall", "floor", "windowpane", "painting", "table", "chair", "sofa", "bed",
    "lamp", "cabinet", "oven", "plant", "rug", "bookcase", "door", "clock", "ball", "palm",
)  # fmt: skip

PARTS = (
    "wheel", "window", "roof", "chimney", "headlight", "trunk", "crown", "head", "torso", "arm", "leg", "hair",
    "sail", "hull", "mast", "pole", "back", "seat", "shade", "drawer", "handle", "pot", "leaf", "frame", "petal",
    "wing", "canopy", "basket", "pillow", "top", "gallery", "hub", "peak",
)  # fmt: skip

MATERIALS = (
    "brick", "wood", "metal", "glass", "water", "fabric", "foliage", "stone", "asphalt", "plaster", "skin",
    "ceramic", "snow", "paper",
)  # fmt: skip

SCENES = (
    "street", "village", "beach", "harbor", "forest", "desert", "mountain_snowy", "park", "night_sky", "kitchen",
    "living_room", "bedroom",
)  # fmt: skip

TEXTURES = (
    "banded", "bubbly", "chequered", "cracked", "crosshatched", "dotted", "grid", "honeycombed", "lined", "marbled",
    "polka-dotted", "spiralled", "striped", "woven", "zigzagged",
)  # fmt: skip

#: Every name in Broden's spelling, with ``-c`` and ``-s`` endings; number n is ``NAMES[n - 1]``. ``grass``, ``sand``
#: and ``snow`` may be both object and material, ``window`` and ``door`` both object and part: one number each.
NAMES: tuple[str, ...] = (
    *(f"{name}-c" for name in COLORS),
    *OBJECTS,
    *PARTS,
    *MATERIALS,
    *(f"{name}-s" for name in SCENES),
    *TEXTURES,
)

NUMBER: dict[str, int] = {name: n for n, name in enumerate(NAMES, 1)}

_HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")
_AROUND = np.array([NUMBER[f"{name}-c"] for name in _HUES], np.uint8)
_HUE_ENDS = np.array([14, 43, 68, 165, 258, 290, 342], np.float32)


def color_map(image: npt.NDArray[np.uint8], factor: int = 2) -> npt.NDArray[np.uint8]:
    """(H / factor, W / factor) uint8: the number of the colour name of each cell of an (H, W, 3) uint8 RGB image.

    The mean colour of a cell (rounded down) is named by its hue in degrees, saturation and value (0 to 255). Value
    below 50 is black; saturation below 0.13 is white above 205, below 0.16 grey; else the hue circle is cut at 14,
    43, 68, 165, 258, 290 and 342. Three names overrule the circle: brown, where the hue is 10 to 50 and the value
    below 165 or the saturation below 0.5; pink, where the hue is 330 to 20, the value above 175 and the saturation
    below 0.55; white, where the hue is 43 to 68, the saturation below 0.22 and the value above 205 (cream).
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
    out[(hue >= 10) & (hue < 50) & ((high < 165) | (saturation < 0.5))] = NUMBER["brown-c"]
    out[((hue > 330) | (hue < 20)) & (high > 175) & (saturation < 0.55)] = NUMBER["pink-c"]
    out[saturation < 0.16] = NUMBER["grey-c"]
    out[(high > 205) & ((saturation < 0.13) | ((saturation < 0.22) & (hue >= 43) & (hue < 68)))] = NUMBER["white-c"]
    out[high < 50] = NUMBER["black-c"]
    return out
