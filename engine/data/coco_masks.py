"""Masks as COCO writes them, polygons and run lengths, to pixels: those that COCO's own library gives, pixel by pixel.

A polygon is filled by the rule of pycocotools (``rleFrPoly``): its outline is drawn on a grid five times as fine, and a
column of pixels changes between inside and outside where the outline crosses the column's centre. Run lengths go down
the columns, from left to right, in turn outside and inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# The fine grid of pycocotools.
_SCALE = 5.0
#: A polygon may lie a little outside of its image, as when images were cut.
_FARTHEST = 1 << 16
#: Points of the outline on the fine grid: what surrounds an image of 4096 x 4096 pixels has 82,000.
_MOST_POINTS = 1 << 22
#: A run length has five bits in each byte; beyond so many bytes it is longer than an image.
_MOST_BYTES_A_RUN = 6


class BadMask(ValueError):
    """What is wrong with one mask, in words."""


def mask_of(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) bool: the pixels of ``segmentation``, a list of polygons or an object with ``counts``; or BadMask."""
    mask = np.zeros(size, np.bool_)
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _fill(mask, _corners(polygon))
    elif isinstance(segmentation, dict):
        mask |= _from_runs(segmentation, size)
    else:
        raise BadMask("a segmentation that is neither polygons nor run lengths")
    return mask


def _corners(polygon: Any) -> npt.NDArray[np.float64]:
    """(K, 2) x, y of ``[x, y, x, y, ...]``."""
    try:
        flat = np.array(polygon, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise BadMask("a polygon that is no list of numbers") from None
    if flat.ndim != 1 or len(flat) % 2 or len(flat) < 6:
        raise BadMask(f"a polygon of {flat.size} numbers: it takes an even number of them, 6 or more")
    if not (np.abs(flat) <= _FARTHEST).all():
        raise BadMask("a polygon that lies far outside of its image")
    return flat.reshape(-1, 2)


def _fill(mask: npt.NDArray[np.bool_], corners: npt.NDArray[np.float64]) -> None:
    """Set the pixels of a polygon in ``mask``."""
    height, width = mask.shape
    u, v = _outline(corners)
    # Where the outline goes on to another column of the fine grid, at the left one of the two.
    crossing = np.flatnonzero(u[1:] != u[:-1])
    x = (np.minimum(u[crossing], u[crossing + 1]) + 0.5) / _SCALE - 0.5
    y = (np.minimum(v[crossing], v[crossing + 1]) + 0.5) / _SCALE - 0.5
    centred = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    columns, rows = x[centred].astype(np.int64), np.ceil(y[centred].clip(0, height)).astype(np.int64)
    if not len(columns):
        return
    left, right = int(columns.min()), int(columns.max()) + 1
    # One row more: what changes below the last pixel is the first pixel of the next column, as in pycocotools.
    changes = np.bincount((columns - left) * height + rows, minlength=(right - left) * height + 1)
    inside = np.cumsum(changes[:-1]) % 2 == 1
    mask[:, left:right] |= inside.reshape(right - left, height).T


def _outline(corners: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """x and y of every point of the outline of a polygon on the fine grid, one after another, back to the first."""
    points = (_SCALE * corners + 0.5).astype(np.int64)  # cut towards 0, as C does
    start, end = points, np.roll(points, -1, 0)
    dx, dy = np.abs(end - start).T
    flat = dx >= dy  # a step a column; otherwise a step a row
    steps = np.where(flat, dx, dy)
    if steps.sum() + len(steps) > _MOST_POINTS:
        raise BadMask(f"a polygon whose outline has more than {_MOST_POINTS:,} points")
    # A line is drawn from its left or upper end, whichever way it goes.
    back = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    first, last = np.where(back[:, None], end, start), np.where(back[:, None], start, end)
    rise = np.where(flat, last[:, 1] - first[:, 1], last[:, 0] - first[:, 0])
    slope = rise / np.maximum(steps, 1)
    edge = np.repeat(np.arange(len(steps)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    step = np.where(back[edge], steps[edge] - step, step)
    along = np.where(flat, first[:, 0], first[:, 1])[edge] + step
    across = (np.where(flat, first[:, 1], first[:, 0])[edge] + slope[edge] * step + 0.5).astype(np.int64)
    level = flat[edge]
    return np.where(level, along, across), np.where(level, across, along)


def _from_runs(segmentation: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) bool of ``{"size": [H, W], "counts": ...}``."""
    if segmentation.get("size") != list(size):
        raise BadMask(f"run lengths for {segmentation.get('size')!r:.40} pixels, the image is {size[0]} x {size[1]}")
    counts = segmentation.get("counts")
    pixels = size[0] * size[1]
    runs = _unpacked(counts, pixels) if isinstance(counts, str) else _listed(counts, pixels)
    if len(runs) > pixels + 2 or (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise BadMask(f"run lengths that do not add up to the {pixels:,} pixels of the image")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(size[1], size[0]).T


def _listed(counts: Any, pixels: int) -> npt.NDArray[np.int64]:
    """The run lengths of a list."""
    if not isinstance(counts, list) or len(counts) > pixels + 2 or not all(type(count) is int for count in counts):
        raise BadMask("run lengths that are no list of whole numbers")
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise BadMask("a run length that is no number of pixels") from None


def _unpacked(counts: str, pixels: int) -> npt.NDArray[np.int64]:
    """The run lengths of a text: five bits a character, the lowest first; from the fourth on what a run has more than
    the one two before it (``rleFrString``).
    """
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise BadMask("run lengths in characters that have no meaning") from None
    if len(codes) > _MOST_BYTES_A_RUN * (pixels + 2):
        raise BadMask("more run lengths than the image has pixels")
    if ((codes < 0) | (codes > 63)).any() or (len(codes) and codes[-1] & 32):
        raise BadMask("run lengths in characters that have no meaning")
    if not len(codes):
        return codes
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    length = ends - starts + 1
    if length.max() > _MOST_BYTES_A_RUN:
        raise BadMask("a run length that is longer than any image")
    place = np.arange(len(codes)) - np.repeat(starts, length)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * length), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def layered(masks: Sequence[tuple[int, npt.NDArray[np.bool_]]], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """(M, H, W) uint16 label maps of ``masks``: pairs of a number, never 0, and the pixels (H, W) that have it.

    M is how many different numbers the pixel with the most has; each of them is in one map, the first in the first.
    """
    layers: list[npt.NDArray[np.uint16]] = []
    for number in dict.fromkeys(number for number, _ in masks):
        pixels = np.logical_or.reduce([mask for other, mask in masks if other == number])
        for layer in layers:
            free = pixels & (layer == 0)
            layer[free] = number
            pixels &= ~free
        if pixels.any():
            layers.append(np.where(pixels, np.uint16(number), np.uint16(0)))
    return np.stack(layers) if layers else np.zeros((0, *size), np.uint16)
