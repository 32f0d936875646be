"""A picture and its label maps, drawn together: every shape paints its colours and its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ndissect.engine.demo.vocabulary import NUMBER

#: Side of an image and of its label maps, in pixels; shapes are placed in pixels of the image.
SIZE = 112
GRID = 56
#: The picture is painted larger and reduced, which smooths its edges.
OVER = 2

RGB = tuple[int, int, int]
Tile = npt.NDArray[np.uint8]
#: A flat colour, or a material: a function of (width, height) that returns a (height, width, 3) picture.
Fill = RGB | Callable[[int, int], Tile]
Point = tuple[float, float]
Box = tuple[float, float, float, float]
Stroke = Callable[[ImageDraw.ImageDraw, list[Point], RGB | int], None]


@dataclass(frozen=True)
class Label:
    """What a shape is. ``detail`` is a part of the part, ``beyond`` an object seen through or pictured on the object.

    A shape hides whatever lay behind it, so each layer that is left empty becomes unlabelled under the shape.
    """

    object: str = ""
    part: str = ""
    material: str = ""
    detail: str = ""
    beyond: str = ""


#: The label maps of a canvas: the category whose cell each one goes to, by the field of Label.
LAYERS = {"object": "object", "beyond": "object", "part": "part", "detail": "part", "material": "material"}


class Canvas:
    """A picture of SIZE x SIZE under construction, five label maps of GRID x GRID, and the generator that varies it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.picture = Image.new("RGB", (SIZE * OVER, SIZE * OVER))
        self._pen = ImageDraw.Draw(self.picture)
        self.maps = {layer: Image.new("L", (GRID, GRID)) for layer in LAYERS}
        self._pens = {layer: ImageDraw.Draw(image) for layer, image in self.maps.items()}

    def polygon(self, points: Sequence[Point], fill: Fill, label: Label | None = None) -> None:
        """Paint a polygon; without a label it is mere decoration and the maps stay as they are."""
        self._paint(fill, points, lambda pen, xy, ink: pen.polygon(xy, fill=ink))
        if label is not None:
            self._mark(label, points, lambda pen, xy, ink: pen.polygon(xy, fill=ink))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Fill, label: Label | None = None) -> None:
        """Paint an upright rectangle."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill, label)

    def ellipse(self, box: Box, fill: Fill, label: Label | None = None) -> None:
        """Paint the ellipse that fills ``box`` (left, top, right, bottom)."""
        corners = ((box[0], box[1]), (box[2], box[3]))
        self._paint(fill, corners, lambda pen, xy, ink: pen.ellipse(xy, fill=ink))
        if label is not None:
            self._mark(label, corners, lambda pen, xy, ink: pen.ellipse(xy, fill=ink))

    def disc(self, x: float, y: float, radius: float, fill: Fill, label: Label | None = None) -> None:
        """Paint a disc."""
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill, label)

    def line(self, points: Sequence[Point], width: float, fill: RGB, label: Label | None = None) -> None:
        """Paint a broken line of ``width`` pixels."""
        wide = max(1, round(width * OVER))
        self._paint(fill, points, lambda pen, xy, ink: pen.line(xy, fill=ink, width=wide))
        if label is not None:
            thin = max(1, round(width * GRID / SIZE))
            self._mark(label, points, lambda pen, xy, ink: pen.line(xy, fill=ink, width=thin))

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def choose(self, colours: Sequence[RGB], spread: int = 14) -> RGB:
        """One of ``colours``, a little different every time."""
        return self.near(colours[int(self.rng.integers(len(colours)))], spread)

    def near(self, colour: RGB, spread: int = 14) -> RGB:
        """A colour near ``colour``: each channel moves by at most ``spread``, most of it together."""
        shift = self.rng.integers(-spread, spread + 1)
        own = self.rng.integers(-spread // 2, spread // 2 + 1, 3)
        red, green, blue = (min(255, max(0, int(c + shift + o))) for c, o in zip(colour, own, strict=True))
        return red, green, blue

    def _paint(self, fill: Fill, points: Sequence[Point], stroke: Stroke) -> None:
        corners = [(x * OVER - 0.5, y * OVER - 0.5) for x, y in points]
        if not callable(fill):
            stroke(self._pen, corners, fill)
            return
        left, top = (max(0, int(min(p[k] for p in corners))) for k in (0, 1))
        right, bottom = (min(SIZE * OVER, int(max(p[k] for p in corners)) + 2) for k in (0, 1))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        stroke(ImageDraw.Draw(mask), [(x - left, y - top) for x, y in corners], 255)
        self.picture.paste(Image.fromarray(fill(right - left, bottom - top)), (left, top), mask)

    def _mark(self, label: Label, points: Sequence[Point], stroke: Stroke) -> None:
        corners = [(x * GRID / SIZE - 0.5, y * GRID / SIZE - 0.5) for x, y in points]
        for layer, pen in self._pens.items():
            name = getattr(label, layer)
            stroke(pen, corners, NUMBER[name] if name else 0)


def shade(colour: RGB, factor: float) -> RGB:
    """``colour`` made darker (factor below 1) or lighter (above 1)."""
    red, green, blue = (min(255, max(0, round(c * factor))) for c in colour)
    return red, green, blue


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour that lies ``share`` of the way from ``a`` to ``b``."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue
