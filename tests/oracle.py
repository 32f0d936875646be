"""The method, dense and slow: what every count, threshold and score of the product is held equal to.

Nothing here is shared with the product. Every map is enlarged in full, every pixel compared, every concept counted by
itself; positions and quantiles are exact fractions, rounded once, where the definition says so. numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Receptive:
    """A layer's receptive fields along one axis, in input pixels, and the size of the input."""

    offset: int
    size: int
    step: int
    input_size: int


# --- upsampling --------------------------------------------------------------------------------------------------


def source(kind: str, n: int, size: int, t: int, field: Receptive | None = None) -> Fraction:
    """Where target pixel t of ``size`` lies among n samples: 0 on the first sample, n - 1 on the last."""
    if kind in ("half-pixel", "half-pixel-zero"):
        return (t + Fraction(1, 2)) * Fraction(n, size) - Fraction(1, 2)
    assert kind == "receptive-field"
    assert field is not None
    centre = field.size // 2 + field.offset
    if size in (field.input_size // 2, -(-field.input_size // 2)):  # half the input, rounded either way
        return (t - Fraction(centre // 2)) / Fraction(field.step, 2)
    if field.input_size % size == 0:
        r = field.input_size // size
        return (t - Fraction(centre // r)) / Fraction(field.step, r)
    r = Fraction(field.input_size, size)
    return (t - centre / r) / (field.step / r)


def neighbours(
    kind: str, n: int, size: int, field: Receptive | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every target pixel the two samples it lies between, (size,) each, and the weight of the second, float32.

    Sample number n stands for "outside, zero"; where the edge continues, outside is the outermost sample again.
    """
    first, second, weights = [], [], []
    for t in range(size):
        s = source(kind, n, size, t, field)
        low = math.floor(s)
        if kind == "half-pixel-zero":
            a, b = (k if 0 <= k < n else n for k in (low, low + 1))
        else:
            a, b = (min(max(k, 0), n - 1) for k in (low, low + 1))
        first.append(a)
        second.append(b)
        weights.append(float(s - low))
    return np.array(first), np.array(second), np.array(weights, np.float32)


def upsample(
    values: np.ndarray, kind: str, grid: tuple[int, int], fields: tuple[Receptive, Receptive] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One map (h, w) on the grid (H, W): float32 values, rows first, and which pixels touch no NaN and no infinity."""
    h, w = values.shape
    with_zero = np.zeros((h + 1, w + 1), np.float32)
    with_zero[:h, :w] = values
    top, bottom, wy = neighbours(kind, h, grid[0], fields and fields[0])
    left, right, wx = neighbours(kind, w, grid[1], fields and fields[1])
    with np.errstate(all="ignore"):
        lines = with_zero[top] + wy[:, None] * (with_zero[bottom] - with_zero[top])
        out = lines[:, left] + wx * (lines[:, right] - lines[:, left])
    finite = np.isfinite(with_zero)
    clean = finite[top][:, left] & finite[top][:, right] & finite[bottom][:, left] & finite[bottom][:, right]
    assert out.dtype == np.float32
    return out, clean


def mask(
    values: np.ndarray,
    threshold: float,
    kind: str,
    grid: tuple[int, int],
    fields: tuple[Receptive, Receptive] | None = None,
) -> np.ndarray:
    """(H, W) bool: the enlarged value, widened to float64, is strictly greater than the threshold."""
    enlarged, clean = upsample(values, kind, grid, fields)
    return (enlarged.astype(np.float64) > float(threshold)) & clean


# --- counting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """The labels of some images: ``maps[i]`` (M_i, H, W) and ``image_level[i]`` of concept row + 1, 0 = unlabelled."""

    maps: list[np.ndarray]
    image_level: list[list[int]]
    category: np.ndarray
    categories: int
    group: list[int]
    once: bool = True

    @property
    def grid(self) -> tuple[int, int]:
        return self.maps[0].shape[1:]

    def take(self, images: list[int], labels_of: list[int] | None = None) -> Labels:
        """These images; with ``labels_of``, under the labels of those."""
        labels_of = images if labels_of is None else labels_of
        return Labels(
            [self.maps[i] for i in labels_of],
            [self.image_level[i] for i in labels_of],
            self.category,
            self.categories,
            [self.group[i] for i in images],
            self.once,
        )

    def of_images(self) -> Labels:
        """The labels of whole images: one cell an image, which holds a concept if any pixel or the image's label does.

        For layers of one value an image.
        """
        C = range(len(self.category))
        held = [[c + 1 for c in C if self.times(image, c).any()] for image in range(len(self.maps))]
        maps = [np.array(names, np.int64).reshape(-1, 1, 1) for names in held]
        return Labels(maps, [[] for _ in maps], self.category, self.categories, self.group, self.once)

    def times(self, image: int, concept: int) -> np.ndarray:
        """(H, W) int: how often each pixel of the image counts for the concept."""
        named = np.zeros(self.grid, np.int64)
        for one_map in self.maps[image]:
            named += one_map == concept + 1
        named += concept + 1 in self.image_level[image]
        return np.minimum(named, 1) if self.once else named


@dataclass(frozen=True)
class Counts:
    """intersection (G, U, C), area (G, U), area_in_category (G, U, K), concept_area, images (G, C), present (N, K)."""

    intersection: np.ndarray
    area: np.ndarray
    area_in_category: np.ndarray
    concept_area: np.ndarray
    images: np.ndarray
    present: np.ndarray


def count(
    maps: np.ndarray,
    threshold: np.ndarray,
    kind: str,
    labels: Labels,
    groups: int = 1,
    fields: tuple[Receptive, Receptive] | None = None,
) -> Counts:
    """All integer counts of maps (N, U, h, w) float32 against the labels of those N images."""
    assert maps.dtype == np.float32
    N, U = maps.shape[:2]
    C, K = len(labels.category), labels.categories
    intersection = np.zeros((groups, U, C), np.int64)
    area = np.zeros((groups, U), np.int64)
    area_in_category = np.zeros((groups, U, K), np.int64)
    concept_area = np.zeros((groups, C), np.int64)
    images = np.zeros((groups, C), np.int64)
    present = np.zeros((N, K), bool)
    for n in range(N):
        g = labels.group[n]
        times = [labels.times(n, c) for c in range(C)]
        for c in range(C):
            concept_area[g, c] += times[c].sum()
            images[g, c] += bool(times[c].any())
            present[n, labels.category[c]] |= bool(times[c].any())
        for u in range(U):
            m = mask(maps[n, u], threshold[u], kind, labels.grid, fields)
            area[g, u] += m.sum()
            for k in range(K):
                if present[n, k]:
                    area_in_category[g, u, k] += m.sum()
            for c in range(C):
                intersection[g, u, c] += times[c][m].sum()
    return Counts(intersection, area, area_in_category, concept_area, images, present)


# --- thresholds --------------------------------------------------------------------------------------------------


def hazen(values: np.ndarray, q: Fraction) -> float:
    """The value that a share q of the finite values lies above; NaN without finite values."""
    x = sorted(float(v) for v in values if math.isfinite(v))
    n = len(x)
    if n == 0:
        return math.nan
    position = min(max((1 - q) * n - Fraction(1, 2), Fraction(0)), Fraction(n - 1))
    low = math.floor(position)
    high = min(low + 1, n - 1)
    return x[low] + float(position - low) * (x[high] - x[low])


# --- scores ------------------------------------------------------------------------------------------------------


def best(
    intersection: np.ndarray,
    area: np.ndarray,
    concept_area: np.ndarray,
    category: np.ndarray,
    categories: int,
    allowed: np.ndarray,
    dead: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Of every unit and category the concept with the largest IoU, and that IoU as a fraction.

    intersection (U, C); area (U, K), the unit's area that category k's union uses; concept_area (C,); allowed (C,)
    bool. Returns concept (U, K), -1 for none, and IoU (U, K) of Fraction.
    """
    U = len(intersection)
    concept = np.full((U, categories), -1)
    iou = np.full((U, categories), Fraction(0), object)
    for u in range(U):
        for c in range(len(category)):
            k = category[c]
            union = int(area[u, k]) + int(concept_area[c]) - int(intersection[u, c])
            if concept_area[c] == 0 or union == 0 or not allowed[c] or dead[u]:
                continue
            value = Fraction(int(intersection[u, c]), union)
            if value > iou[u, k]:
                concept[u, k], iou[u, k] = c, value
    return concept, iou
