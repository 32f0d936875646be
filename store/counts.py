"""The integers that a dissection counts. All are additive over images: shards and machines merge by adding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Image blocks, and how many concepts of each category are counted by block for each unit.
BLOCKS = 32
PER_CATEGORY = 3

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerCounts:
    """Mask pixels of one layer's units on the label grid, by image group.

    ``intersection`` (G, U, C): I(u, c), pixels in the unit's mask and in the concept; ``area`` (G, U): mask pixels in
    all images; ``area_in_category`` (G, U, K): mask pixels in images that hold at least one label of the category.
    """

    intersection: Ints
    area: Ints
    area_in_category: Ints


@dataclass(frozen=True)
class ConceptCounts:
    """What the labels alone hold: ``area`` (G, C): C(c) in pixels; ``images`` (G, C): images that hold the concept."""

    area: Ints
    images: Ints


@dataclass(frozen=True)
class Blocks:
    """What the labels hold by block: ``images`` (B,) int64: how many; ``concept_area`` (B, C) int64: C(c) in pixels."""

    images: Ints
    concept_area: Ints


@dataclass(frozen=True)
class Leading:
    """The leading concepts of each of U units, three of each of K categories, with their counts by block.

    ``concept`` (U, K, 3) int32: rows of the concept table by falling IoU, -1 for none; ``intersection`` (U, B, K, 3)
    int64: I(u, c); ``area`` (U, B, K) int64: A(u, c), the same for all concepts of a category.
    """

    concept: npt.NDArray[np.int32]
    intersection: Ints
    area: Ints
