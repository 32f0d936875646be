"""The concepts of the demo data set."""

from __future__ import annotations

from ndissect.engine.data.colors import COLORS

#: In the order of the columns of ``index.csv``.
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")

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
