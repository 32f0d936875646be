"""One labelled image of the demo data set, as a function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ndissect.engine.demo import textures
from ndissect.engine.demo.canvas import LAYERS, SIZE, Canvas
from ndissect.engine.demo.materials import noise
from ndissect.engine.demo.places import PLACES
from ndissect.engine.demo.vocabulary import NUMBER, SCENES, TEXTURES

#: Of every ten images, this many are textures; the others are scenes.
TEXTURE_SHARE = 3


@dataclass(frozen=True)
class Rendered:
    """``picture``: SIZE x SIZE RGB; ``maps``: per category, the (GRID, GRID) uint8 label maps that are not empty;
    ``labels``: per category, the number of the image-level label."""

    picture: Image.Image
    maps: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


def render(seed: int, index: int) -> Rendered:
    """Image ``index`` of the data set of ``seed``: the same pixels whatever was drawn before it."""
    rng = np.random.default_rng([seed, index])
    turn, kind = divmod(index, 10)
    if kind < TEXTURE_SHARE:
        name = TEXTURES[(turn * TEXTURE_SHARE + kind) % len(TEXTURES)]
        picture = Image.fromarray(textures.paint(name, rng, 2 * SIZE)).reduce(2)
        return Rendered(picture, labels={"texture": NUMBER[name]})
    name = SCENES[(turn * (10 - TEXTURE_SHARE) + kind - TEXTURE_SHARE) % len(SCENES)]
    canvas = Canvas(rng)
    PLACES[name](canvas)
    picture = _light(canvas)
    maps: dict[str, list[npt.NDArray[np.uint8]]] = {}
    flip = bool(rng.random() < 0.5)
    for layer, category in LAYERS.items():
        numbers = np.asarray(canvas.maps[layer])
        if numbers.any():
            maps.setdefault(category, []).append(numbers[:, ::-1] if flip else numbers)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Rendered(picture, maps, {"scene": NUMBER[f"{name}-s"]})


def _light(canvas: Canvas) -> Image.Image:
    """The finished picture: reduced, lit unevenly, with a little colour cast, softness and grain."""
    rng = canvas.rng
    picture = canvas.picture.reduce(2)
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.7))))
    pixels = np.asarray(picture, np.float32)
    t = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    slope = rng.uniform(-0.18, 0.18, 2)
    light = rng.uniform(0.86, 1.1) * (1 + slope[0] * t[None, :] + slope[1] * t[:, None])
    cast = rng.uniform(0.95, 1.05, 3).astype(np.float32)
    grain = rng.uniform(0.5, 4) * noise(rng, SIZE, SIZE)
    pixels = pixels * (light[..., None] * cast) + grain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
