"""The labels of some images on the label grid, as counting wants them; in numpy, as what decodes needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: The widest word that one look-up fetches: four labels of 16 bits.
WORD_BYTES = 8


@dataclass(frozen=True)
class LabelArrays:
    """Labels of N images on a grid of H x W, as concept rows + 1 so that 0 is "no concept".

    ``pixels`` (N, H W, M) int16, or int32 where there are more concepts: the labels of each pixel side by side, so
    that a mask pixel finds all of them in one place; ``image_level`` (N, L) int32, padded with 0: labels that cover
    every pixel; ``area`` (N, C + 1) int64: pixels of each concept in each image, 0 for "no concept"; ``present``
    (N, K) bool: the image holds at least one label of the category.
    """

    pixels: npt.NDArray[np.integer]
    image_level: npt.NDArray[np.int32]
    area: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def label_kind(concepts: int) -> type[np.int16] | type[np.int32]:
    """The type of label pixels where there are so many concepts."""
    return np.int16 if concepts < 2**15 else np.int32


def whole_words(maps: int, size: int) -> int:
    """The number of label maps, padded so that a pixel's labels of ``size`` bytes each fill whole words."""
    per_word = WORD_BYTES // size
    return next((n for n in (1, 2, 4) if maps <= n <= per_word), -(-maps // per_word) * per_word)


def label_arrays(
    maps: Sequence[npt.NDArray[np.integer]],
    image_level: Sequence[Sequence[int]],
    category: npt.NDArray[np.integer],
    categories: int,
    grid: tuple[int, int],
    *,
    once: bool,
) -> LabelArrays:
    """The labels of N images, given as concept rows + 1; N may be 0.

    ``maps``: N arrays (M_i, H, W) on ``grid`` (H, W), M_i may differ and be 0; ``image_level``: N lists; ``category``
    (C,): the category of each concept. With ``once`` a pixel counts once for a concept, however many maps, or the whole
    image's label, name it (the 2020 code); without, once for each (2017, NetDissect-Lite).
    """
    N, C, pixels = len(maps), len(category), grid[0] * grid[1]
    kind = label_kind(C)
    most = whole_words(max((len(m) for m in maps), default=0), np.dtype(kind).itemsize)
    side_by_side = np.zeros((N, pixels, most), kind)
    whole = np.zeros((N, max((len(labels) for labels in image_level), default=0)), np.int32)
    area = np.zeros((N, C + 1), np.int64)
    for n, (layers, labels) in enumerate(zip(maps, image_level, strict=True)):
        planes = np.array(layers, kind).reshape(len(layers), pixels)
        if once:
            _name_once(planes, labels)
        side_by_side[n, :, : len(planes)] = planes.T
        whole[n, : len(labels)] = labels
        area[n] = np.bincount(planes.ravel(), minlength=C + 1)
        for label in labels:
            area[n, label] += pixels
    area[:, 0] = 0
    in_category = np.zeros((C + 1, categories), np.float32)
    in_category[np.arange(1, C + 1), category] = 1
    return LabelArrays(side_by_side, whole, area, (area > 0).astype(np.float32) @ in_category > 0)


def _name_once(planes: npt.NDArray[Any], labels: Sequence[int]) -> None:
    """Set to 0, in place, each label of a pixel that an earlier map or an image-level label names already."""
    for label in labels:
        planes[planes == label] = 0
    for m in range(1, len(planes)):
        for earlier in range(m):
            planes[m][planes[m] == planes[earlier]] = 0
