"""What surfaces are made of: functions of (width, height) that return a painted (height, width, 3) uint8 tile."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.demo.canvas import RGB, Tile, mix, shade

#: Arrays of floating-point numbers; which width does not matter before they become bytes.
Floats = npt.NDArray[Any]
Material = Callable[[int, int], Tile]


@cache
def _pool() -> Floats:
    return np.random.default_rng(20170411).standard_normal((640, 640)).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, coarse_y: int = 1, coarse_x: int = 1) -> Floats:
    """(height, width) float32 of unit variance, constant over coarse_y x coarse_x blocks: a random crop of a pool."""
    rows, columns = -(-height // coarse_y), -(-width // coarse_x)
    y, x = rng.integers(640 - rows + 1), rng.integers(640 - columns + 1)
    crop = _pool()[y : y + rows, x : x + columns]
    if coarse_y > 1:
        crop = crop.repeat(coarse_y, 0)
    if coarse_x > 1:
        crop = crop.repeat(coarse_x, 1)
    return crop[:height, :width]


def _paint(colour: RGB, light: Floats) -> Tile:
    return to_bytes(np.asarray(colour, np.float32) * light[..., None])


def to_bytes(pixels: Floats) -> Tile:
    """``pixels`` as uint8, cut to 0..255."""
    out: Tile = np.clip(pixels, 0, 255).astype(np.uint8)
    return out


def brick(rng: np.random.Generator, colour: RGB, height: float = 9) -> Material:
    """Courses of bricks with pale mortar, each brick a little different."""

    def tile(w: int, h: int) -> Tile:
        rows = np.arange(h) / height
        course = rows.astype(int)
        columns = np.arange(w)[None] / (2.2 * height) + (course % 2)[:, None] * 0.5
        which = columns.astype(int)
        light = 1 + 0.13 * _pool()[course[:, None] % 640, (which + 7 * course[:, None]) % 640]
        light = light + 0.04 * noise(rng, h, w)
        out = _paint(colour, light)
        mortar = ((rows % 1)[:, None] < 1.6 / height) | (columns % 1 < 0.8 / height)
        out[mortar] = mix(colour, (215, 208, 196), 0.75)
        return out

    return tile


def wood(rng: np.random.Generator, colour: RGB, plank: float = 16, upright: bool = False) -> Material:
    """Planks with a grain along them."""

    def tile(w: int, h: int) -> Tile:
        across, along = (w, h) if upright else (h, w)
        board = (np.arange(across) / plank).astype(int)
        light = 1 + 0.07 * _pool()[3, board % 640][:, None] + 0.06 * noise(rng, across, along, 1, 23)
        light = light + 0.03 * noise(rng, across, along, 2, 9)
        seam = np.arange(across) / plank % 1 < 1.2 / plank
        light[seam] *= 0.66
        return _paint(colour, light.T if upright else light)

    return tile


def foliage(rng: np.random.Generator, colour: RGB) -> Material:
    """Clumps of leaves, lit from above."""

    def tile(w: int, h: int) -> Tile:
        light = 1 + 0.14 * noise(rng, h, w, 5, 6) + 0.12 * noise(rng, h, w, 3, 3)
        return _paint(colour, light * np.linspace(1.18, 0.78, h, dtype=np.float32)[:, None])

    return tile


def lawn(rng: np.random.Generator, colour: RGB) -> Material:
    """Short upright strokes."""

    def tile(w: int, h: int) -> Tile:
        light = 1 + 0.11 * noise(rng, h, w, 5, 2) + 0.05 * noise(rng, h, w, 16, 24)
        return _paint(colour, light * np.linspace(0.88, 1.08, h, dtype=np.float32)[:, None])

    return tile


def speckle(rng: np.random.Generator, colour: RGB, amount: float = 0.06) -> Material:
    """Fine grains: sand, asphalt, plaster, snow."""

    def tile(w: int, h: int) -> Tile:
        return _paint(colour, 1 + amount * noise(rng, h, w, 2, 2) + 0.4 * amount * noise(rng, h, w, 20, 28))

    return tile


def water(rng: np.random.Generator, colour: RGB) -> Material:
    """Waves: light and dark strokes that lie flat, longer and wider toward the viewer."""

    def tile(w: int, h: int) -> Tile:
        light = 1 + 0.10 * noise(rng, h, w, 3, 26) + 0.07 * noise(rng, h, w, 2, 11)
        out = _paint(colour, light * np.linspace(1.12, 0.85, h, dtype=np.float32)[:, None])
        out[noise(rng, h, w, 3, 19) > 2.05] = mix(colour, (255, 255, 255), 0.7)
        return out

    return tile


def stone(rng: np.random.Generator, colour: RGB, size: float = 20) -> Material:
    """Large blocks with dark joints."""

    def tile(w: int, h: int) -> Tile:
        rows, columns = np.arange(h) / size, np.arange(w) / (1.5 * size)
        course = rows.astype(int)
        shifted = columns[None] + (course % 2)[:, None] * 0.5
        light = 1 + 0.08 * _pool()[course[:, None] % 640 + 0 * shifted.astype(int), (shifted.astype(int) + 31) % 640]
        light = light + 0.05 * noise(rng, h, w, 3, 3)
        light[((rows % 1)[:, None] < 1.5 / size) | (shifted % 1 < 1 / size)] *= 0.7
        return _paint(colour, light)

    return tile


def metal(rng: np.random.Generator, colour: RGB) -> Material:
    """A sheet with a bright band where it mirrors the sky."""
    where = float(rng.uniform(0.15, 0.4))

    def tile(w: int, h: int) -> Tile:
        y = np.linspace(0, 1, h, dtype=np.float32)[:, None]
        light = 0.82 + 0.42 * np.exp(-(((y - where) / 0.16) ** 2)) - 0.2 * y + np.zeros((1, w), np.float32)
        return _paint(colour, light)

    return tile


def glass(rng: np.random.Generator, colour: RGB) -> Material:
    """A pane with slanted reflections."""
    phase = float(rng.uniform(0, 40))

    def tile(w: int, h: int) -> Tile:
        slant = (np.arange(w)[None] + np.arange(h)[:, None] * 0.8 + phase) % 44
        light = 1 + 0.35 * ((slant < 7) | ((slant > 11) & (slant < 14))).astype(np.float32)
        return _paint(colour, light)

    return tile


def fabric(rng: np.random.Generator, colour: RGB, pattern: str = "") -> Material:
    """Cloth: plain, or with ``stripes``, ``checks`` or ``dots``."""
    second = mix(colour, (250, 246, 235), 0.72) if sum(colour) < 420 else shade(colour, 0.6)

    def tile(w: int, h: int) -> Tile:
        x, y = np.arange(w)[None], np.arange(h)[:, None]
        out = _paint(colour, 1 + 0.05 * noise(rng, h, w, 1, 2) + 0.03 * ((x + y) % 2))
        if pattern == "stripes":
            out[:, (np.arange(w) // 7) % 2 == 1] = second
        elif pattern == "checks":
            out[(x // 9 + y // 9) % 2 == 1] = second
        elif pattern == "dots":
            out[((x + y // 14 % 2 * 7) % 14 - 7) ** 2 + (y % 14 - 7) ** 2 < 10] = second
        return out

    return tile


def tiles(rng: np.random.Generator, light: RGB, dark: RGB, size: float = 12) -> Material:
    """A chequered floor, or tiles with joints where the two colours are alike."""

    def tile(w: int, h: int) -> Tile:
        x, y = np.arange(w)[None] / size, np.arange(h)[:, None] / size
        out = np.where(((x.astype(int) + y.astype(int)) % 2 == 0)[..., None], np.array(light), np.array(dark))
        out = out * (1 + 0.03 * noise(rng, h, w, 2, 2)[..., None])
        out[(x % 1 < 0.1) | (y % 1 < 0.1)] *= 0.86
        return to_bytes(out)

    return tile


def gradient(top: RGB, bottom: RGB) -> Material:
    """A smooth passage from ``top`` to ``bottom``."""

    def tile(w: int, h: int) -> Tile:
        share = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
        out = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
        return np.ascontiguousarray(np.broadcast_to(out, (h, w, 3))).astype(np.uint8)

    return tile
