"""One image of the synthetic benchmark data set: a photograph-like picture and its label maps, drawn from a number.

    picture = Painter(seed=0, image_size=224, grid=112, concepts=1197).draw(17)

What labels a region also paints it: a concept has a colour and a grain of its own, so that units can detect it.
Drawing is cheap because everything that is costly - noise, grain, soft shapes - is cut from sheets made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.colors import COLORS, color_map

#: In the order of Broden's columns, with the number of concepts of each among Broden's 1,197. Broden lists 468 scenes
#: and counts names that stand in several categories once; here every concept has one category.
CATEGORIES: Mapping[str, int] = {
    "color": len(COLORS), "object": 584, "part": 234, "material": 32, "scene": 289, "texture": 47,
}  # fmt: skip

FEWEST_CONCEPTS = len(COLORS) + 2 * (len(CATEGORIES) - 1)


@dataclass(frozen=True)
class Kind:
    """A sort of image, like one of Broden's four sources: ``share`` of all images; ``maps`` and ``labels``: by
    category, how likely an image has 0, 1, 2, ... label maps or image-level labels.
    """

    share: float
    maps: Mapping[str, tuple[float, ...]]
    labels: Mapping[str, tuple[float, ...]]


# Shares of ADE20K, OpenSurfaces, Pascal and DTD in Broden; about four maps an image, with the map of colours.
KINDS: Mapping[str, Kind] = {
    "places": Kind(0.351, {"object": (0, 0.6, 0.4), "part": (0.1, 0.2, 0.3, 0.4)}, {"scene": (0.1, 0.9)}),
    "surfaces": Kind(
        0.4, {"object": (0, 0.9, 0.1), "material": (0, 1), "part": (0.4, 0.3, 0.3)}, {"scene": (0.7, 0.3)}
    ),
    "things": Kind(0.16, {"object": (0, 0.5, 0.5), "material": (0.4, 0.6), "part": (0.1, 0.3, 0.4, 0.2)}, {}),
    "textures": Kind(0.089, {}, {"texture": (0, 0.8, 0.2)}),
}

_GRAINS = 24  # sheets of grain
_ROOM = 128  # how far a cut-out may be moved on its sheet
_CODES = 32  # more than the cells of any image


@dataclass(frozen=True)
class Picture:
    """``kind``: a key of KINDS; ``pixels`` (S, S, 3) uint8 RGB; ``maps``: by category, (G, G) uint16 arrays of concept
    numbers, 0 where nothing is labelled; ``labels``: by category, the image-level labels, distinct.
    """

    kind: str
    pixels: npt.NDArray[np.uint8]
    maps: Mapping[str, Sequence[npt.NDArray[np.uint16]]]
    labels: Mapping[str, Sequence[int]]


def concept_numbers(concepts: int) -> dict[str, range]:
    """The numbers of each category, without gaps from 1 on: all 11 colours, the others in Broden's proportions."""
    others = [c for c in CATEGORIES if c != "color"]
    # One is certain for each; a running total, rounded, shares out the rest to the last one.
    rest = concepts - len(COLORS) - len(others)
    weights = np.cumsum([CATEGORIES[c] - 1 for c in others])
    ends = (weights * rest + weights[-1] // 2) // weights[-1] + np.arange(1, len(others) + 1)
    edges = [0, len(COLORS), *(ends + len(COLORS)).tolist()]
    return {c: range(a + 1, b + 1) for c, a, b in zip(CATEGORIES, edges[:-1], edges[1:], strict=True)}


class Painter:
    """Draws the images of the data set ``seed``: pictures of ``image_size`` pixels square, maps of ``grid`` square."""

    def __init__(self, seed: int, image_size: int, grid: int, concepts: int) -> None:
        rng = np.random.default_rng((seed, 0))
        self._seed, self._image_size, self._grid, self._concepts = seed, image_size, grid, concepts
        self._numbers = concept_numbers(concepts)
        steps = {c: np.cumsum(1 / np.arange(1, len(numbers) + 1)) for c, numbers in self._numbers.items()}
        self._zipf = {c: step / step[-1] for c, step in steps.items()}
        self._colors = rng.integers(24, 232, (concepts + 1, 3)).astype(np.int16)
        self._grain_of = rng.integers(0, _GRAINS, concepts + 1, np.int32)
        side = image_size + _ROOM
        self._grains = np.stack([_grain(rng, side) for _ in range(_GRAINS)])
        brightness, hue = (rng.integers(-24, 25, (side, side, channels), np.int16) for channels in (1, 3))
        self._noise = brightness + hue
        bends = [_stretch(rng.integers(0, 256, (24, 24), np.uint8), grid + _ROOM) for _ in range(2)]
        self._bends = (np.stack(bends, -1).astype(np.int32) - 128) * grid // 1024
        # Names of colours for colours of four bits a channel, which is all that a rough map of them needs.
        middles = np.arange(8, 256, 16).astype(np.uint8)
        cube = np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), -1)
        self._color_names = color_map(cube.reshape(256, 16, 3), 1).reshape(16, 16, 16).astype(np.uint16)

    def draw(self, index: int) -> Picture:
        """Image ``index``: a function of the painter's fields and the index alone."""
        rng = np.random.default_rng((self._seed, 1, index))
        kind = tuple(KINDS)[_choose(rng, [k.share for k in KINDS.values()])]
        cells, small = self._cells(rng, int(rng.integers(6, 16))), self._cells(rng, 24)
        labels = {c: self._pick_labels(rng, c, _choose(rng, chances)) for c, chances in KINDS[kind].labels.items()}
        # What is painted where: anything, then what is labelled; materials and textures show in the grain alone.
        look = rng.integers(1, self._concepts + 1, _CODES).astype(np.uint16)[cells]
        grain = look
        maps: dict[str, list[npt.NDArray[np.uint16]]] = {"color": []}
        for category, chances in KINDS[kind].maps.items():
            maps[category] = []
            for layer in range(_choose(rng, chances)):
                # Parts, and objects before others, are few and small.
                rare = category == "part" or layer > 0
                numbers = self._pick(rng, category, _CODES)
                bare = rng.random(_CODES) > (0.12 if rare else 0.65)
                bare[0] = False
                numbers[bare] = 0
                labelled = numbers[small if rare else cells]
                maps[category].append(labelled)
                grain = np.where(labelled, labelled, grain)
                if category != "material":
                    look = np.where(labelled, labelled, look)
        for number in labels.get("texture", ())[:1]:
            grain = np.full_like(grain, number)
        shapes = self._shapes(rng, look, labels.get("scene", ()))
        maps["color"].append(self._color_names[tuple(np.moveaxis(shapes >> 4, 2, 0))])
        return Picture(kind, self._pixels(rng, shapes, grain), maps, {c: n for c, n in labels.items() if n})

    def _cells(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
        """(G, G): which of ``count`` scattered points is nearest, seen through a pane that bends straight edges."""
        G, codes = self._grid, np.arange(count, dtype=np.int32)[:, None]
        away = (np.arange(G, dtype=np.int32) - rng.integers(0, G, (2, count, 1), np.int32)) ** 2 * _CODES
        # The point's own number in the last bits: the least value then says which point it was.
        straight = (away[0][:, :, None] + (away[1] + codes)[:, None, :]).min(0) % _CODES
        bends, places = _cut(rng, self._bends, G), np.arange(G)
        y, x = places[:, None] + bends[..., 0], places + bends[..., 1]
        return np.asarray(straight[np.clip(y, 0, G - 1), np.clip(x, 0, G - 1)], np.int32)

    def _pick(self, rng: np.random.Generator, category: str, count: int) -> npt.NDArray[np.uint16]:
        """``count`` concepts of ``category``, by Zipf's law: few are frequent, many are rare."""
        ranks = np.searchsorted(self._zipf[category], rng.random(count))
        return (ranks + self._numbers[category].start).astype(np.uint16)

    def _pick_labels(self, rng: np.random.Generator, category: str, count: int) -> list[int]:
        return sorted(set(self._pick(rng, category, count).tolist()))

    def _shapes(
        self, rng: np.random.Generator, look: npt.NDArray[np.uint16], scenes: Sequence[int]
    ) -> npt.NDArray[np.uint8]:
        """(G, G, 3): the colours of the regions under a light that changes over the image, tinted by its scene."""
        light = (_stretch(rng.integers(0, 256, (5, 5, 3), np.uint8), self._grid).astype(np.int16) - 128) // 3
        for scene in scenes[:1]:
            light += (self._colors[scene] - 128) // 4
        return _shown(self._colors[look] + light)

    def _pixels(
        self, rng: np.random.Generator, shapes: npt.NDArray[np.uint8], grain: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.uint8]:
        """(S, S, 3): the shapes enlarged, each with its grain, and the noise of a camera."""
        S, side = self._image_size, self._image_size + _ROOM
        enlarged = np.arange(S) * self._grid // S
        # Places on all sheets of grain, as one long row: the concept says which sheet, the pixel where on it.
        sheet = (self._grain_of * np.int32(side**2))[grain][enlarged][:, enlarged]
        y, x = rng.integers(0, _ROOM, 2, np.int32)
        spots = (np.arange(S, dtype=np.int32)[:, None] + y) * np.int32(side) + np.arange(S, dtype=np.int32) + x
        noise = _cut(rng, self._noise, S) * np.int16(rng.integers(2, 13)) >> 4
        grains = self._grains.ravel()[sheet + spots]
        return _shown(_stretch(shapes, S) + noise + grains[..., None])


def _cut(rng: np.random.Generator, sheet: npt.NDArray[np.signedinteger], size: int) -> npt.NDArray[np.signedinteger]:
    """A piece of ``size`` by ``size`` from anywhere on a sheet (size + _ROOM, size + _ROOM, channels)."""
    y, x = rng.integers(0, _ROOM, 2).tolist()
    return sheet[y : y + size, x : x + size]


def _grain(rng: np.random.Generator, side: int) -> npt.NDArray[np.int16]:
    """(side, side), about 0: blotches or streaks of some width and height, faint or strong."""
    height, width = (side // rng.integers(2, 24, 2)).tolist()
    blotches = rng.integers(0, 256, (max(height, 1), max(width, 1)), np.uint8)
    return (_stretch(blotches, side).astype(np.int16) - 128) // int(rng.integers(2, 12))


def _stretch(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """The picture ``pixels``, (h, w) or (h, w, 3), smoothly made ``side`` high and wide."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def _shown(values: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """``values``, where they can be shown."""
    out: npt.NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return out


def _choose(rng: np.random.Generator, chances: Sequence[float]) -> int:
    """A random index into ``chances``, which sum to 1, each drawn with its chance."""
    return min(int(np.searchsorted(np.cumsum(chances), rng.random(), "right")), len(chances) - 1)
