"""Whole-image textures, named as in the Describable Textures Dataset."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ndissect.engine.demo.materials import Floats, noise, to_bytes

Field = Callable[[np.random.Generator, Floats, Floats], Floats]


def paint(name: str, rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """(size, size, 3) uint8: a texture called ``name``, in two random colours, at a random scale, angle and light."""
    field = FIELDS[name]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    bend = rng.uniform(0, 0.03)
    phases = rng.uniform(0, 2 * np.pi, 2)
    x, y = x + bend * np.sin(6 * y + phases[0]), y + bend * np.sin(6 * x + phases[1])
    angle = rng.uniform(-0.3, 0.3) + (np.pi / 2 if name in TURNED and rng.random() < 0.5 else 0)
    u, v = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    share = np.clip(field(rng, u.astype(np.float32), v.astype(np.float32)), 0, 1)[..., None]
    dark, light = _two_colours(rng)
    out = dark * (1 - share) + light * share
    slope = rng.uniform(-0.25, 0.25, 2)
    out = out * (1 + slope[0] * x + slope[1] * y)[..., None]
    out = out * (1 + 0.03 * noise(rng, size, size, 2, 2)[..., None])
    return to_bytes(out)


def _two_colours(rng: np.random.Generator) -> tuple[Floats, Floats]:
    hues = rng.random(2)
    first = _colour(hues[0], rng.uniform(0, 0.9), rng.uniform(0.1, 0.6))
    second = _colour(hues[1], rng.uniform(0, 0.6), rng.uniform(0.75, 1))
    return (first, second) if rng.random() < 0.5 else (second, first)


def _colour(hue: float, saturation: float, value: float) -> Floats:
    around = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    colour: Floats = 255 * value * (1 - saturation * (1 - np.clip(around, 0, 1)))
    return colour


def _edge(distance: Floats, softness: float = 0.03) -> Floats:
    """0 below zero, 1 above, with a soft edge."""
    return np.clip(distance / softness + 0.5, 0, 1)


def _wave(t: Floats) -> Floats:
    """A triangle wave of period 1 between 0 and 1."""
    wave: Floats = np.abs(t % 1 * 2 - 1)
    return wave


def _banded(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    widths = np.cumsum(rng.uniform(0.05, 0.2, 24)) - 0.8
    tones = rng.random(25).astype(np.float32)
    tones[::2] *= 0.4
    return tones[np.searchsorted(widths, v)]


def _striped(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    return _edge(_wave(v * rng.uniform(5, 11) + rng.random()) - 0.5, 0.15)


def _lined(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    return _edge(_wave(v * rng.uniform(14, 20) + 0.6 * noise(rng, 1, 1)[0, 0]) - 0.8, 0.4)


def _chequered(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k, a, b = rng.uniform(5, 11), rng.random(), rng.random()
    return _edge((_wave(u * k / 2 + a) - 0.5) * (_wave(v * k / 2 + b) - 0.5), 0.02)


def _grid(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k, width = rng.uniform(6, 11), rng.uniform(0.12, 0.22)
    return _edge(np.maximum(_wave(u * k + rng.random()), _wave(v * k + rng.random())) - 1 + width, 0.1)


def _crosshatched(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k, width = rng.uniform(9, 14), rng.uniform(0.25, 0.4)
    first = _edge(_wave((u + v) * k + rng.random()) - 1 + width, 0.2)
    return np.maximum(first, 0.8 * _edge(_wave((u - v) * k + rng.random()) - 1 + width, 0.2))


def _woven(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k = rng.uniform(6, 10)
    a, b = u * k, v * k
    over = (np.floor(a) + np.floor(b)) % 2 == 0
    along = np.where(over, a % 1, b % 1)
    across = np.where(over, b % 1, a % 1)
    thread = np.sin(np.pi * across) * (0.45 + 0.55 * np.sin(np.pi * along))
    return (thread * (0.8 + 0.2 * _wave(across * 3))).astype(np.float32)


def _zigzagged(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k, height = rng.uniform(5, 8), rng.uniform(0.6, 1.1)
    return _edge(_wave(v * k + height * _wave(u * k * 0.8 + rng.random())) - 0.5, 0.15)


def _spots(rng: np.random.Generator, u: Floats, v: Floats, k: float, radius: float, loose: float) -> Floats:
    a, b = u * k + 20, v * k + 20
    b = b + 0.5 * (np.floor(a) % 2)
    cell_a, cell_b = np.floor(a).astype(int), np.floor(b).astype(int)
    shift = rng.uniform(-loose, loose, (2, 48, 48)).astype(np.float32)
    da = a % 1 - 0.5 - shift[0, cell_a % 48, cell_b % 48]
    db = b % 1 - 0.5 - shift[1, cell_a % 48, cell_b % 48]
    inside: Floats = radius - np.hypot(da, db)
    return inside


def _dotted(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    return _edge(_spots(rng, u, v, rng.uniform(12, 16), rng.uniform(0.17, 0.24), 0.2), 0.12)


def _polka(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    return _edge(_spots(rng, u, v, rng.uniform(4.5, 7.5), rng.uniform(0.25, 0.34), 0), 0.05)


def _honeycombed(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    k = rng.uniform(5, 8)
    a, b = u * k * 1.1547 + 20, v * k + 20
    nearest = np.full((2, *u.shape), 9, np.float32)
    for column in (-1, 0, 1):
        x = np.floor(a) + column
        for row in (-1, 0, 1):
            y = np.floor(b) + row + 0.5 * (x % 2)
            d = np.hypot((a - x - 0.5) * 0.866, b - y - 0.5)
            nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], d))
            nearest[0] = np.minimum(nearest[0], d)
    return _edge(nearest[1] - nearest[0] - 0.16, 0.12)


def _nearest_two(rng: np.random.Generator, u: Floats, v: Floats, points: int) -> tuple[Floats, Floats]:
    seeds = rng.uniform(-0.65, 0.65, (points, 2)).astype(np.float32)
    first, second = np.full(u.shape, 9, np.float32), np.full(u.shape, 9, np.float32)
    for x, y in seeds:
        d = (u - x) ** 2 + (v - y) ** 2
        np.minimum(second, np.maximum(first, d), out=second)
        np.minimum(first, d, out=first)
    return np.sqrt(first), np.sqrt(second)


def _cracked(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    a, b = rng.uniform(0, 6.3, 2)
    wobble_u, wobble_v = np.sin(31 * v + 4 * np.sin(17 * u + a)), np.sin(29 * u + 4 * np.sin(19 * v + b))
    first, second = _nearest_two(rng, u + 0.011 * wobble_u, v + 0.011 * wobble_v, 36)
    return 0.15 + 0.85 * _edge(second - first - 0.018, 0.015)


def _bubbly(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    out = np.full(u.size, 0.15, np.float32)
    u, v = u.ravel(), v.ravel()
    for _ in range(46):
        x, y = rng.uniform(-0.6, 0.6, 2)
        radius = rng.uniform(0.03, 0.13)
        inside = np.flatnonzero((np.abs(u - x) < radius) & (np.abs(v - y) < radius))
        du, dv = u[inside] - x, v[inside] - y
        d = np.hypot(du, dv) / radius
        inside, du, dv, d = (a[d < 1] for a in (inside, du, dv, d))
        spot = np.hypot(du + 0.35 * radius, dv + 0.35 * radius) / radius
        out[inside] = np.where(spot < 0.22, 1, 0.35 + 0.55 * d**4)
    side = round(out.size**0.5)
    return out.reshape(side, side)


def _spiralled(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    u, v = u - rng.uniform(-0.15, 0.15), v - rng.uniform(-0.15, 0.15)
    turn = np.arctan2(v, u) / (2 * np.pi) * (1 if rng.random() < 0.5 else -1) * rng.integers(1, 3)
    return _edge(_wave(np.hypot(u, v) * rng.uniform(7, 12) + turn) - 0.5, 0.2)


def _marbled(rng: np.random.Generator, u: Floats, v: Floats) -> Floats:
    total = v * rng.uniform(2, 3.5)
    for k in (3, 6, 12):
        a, b, c = rng.uniform(0, 6.3, 3)
        total = total + rng.uniform(0.8, 1.3) / k * np.sin(k * (u * np.cos(a) + v * np.sin(a)) * 2 + b)
        total = total + 0.5 / k * np.sin(k * (u - v + total) * 2.5 + c)
    return np.abs(np.sin(np.pi * total)) ** 0.35


FIELDS: dict[str, Field] = {
    "banded": _banded,
    "bubbly": _bubbly,
    "chequered": _chequered,
    "cracked": _cracked,
    "crosshatched": _crosshatched,
    "dotted": _dotted,
    "grid": _grid,
    "honeycombed": _honeycombed,
    "lined": _lined,
    "marbled": _marbled,
    "polka-dotted": _polka,
    "spiralled": _spiralled,
    "striped": _striped,
    "woven": _woven,
    "zigzagged": _zigzagged,
}

#: These run along one direction, so they are shown upright as well as lying.
TURNED = ("banded", "lined", "striped", "zigzagged")
