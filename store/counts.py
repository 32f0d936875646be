"""The integers that a dissection counts. All are additive over images: shards and machines merge by adding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

#: Image blocks, and how many concepts of each category are counted by block for each unit.
BLOCKS = 32
PER_CATEGORY = 3

Ints = npt.NDArray[np.int64]

#: What a layer's units and the concepts are compared on: the pixels of the label grid; or whole images, where a unit
#: has one value an image (a map of 1 x 1) and so no place. Its counts are then images, where others are pixels.
JudgedOn = Literal["pixels", "images"]


@dataclass(frozen=True)
class LayerCounts:
    """Mask pixels of one layer's units on the label grid, by image group; images, where it is judged on images.

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

    def judged_on(self, what: JudgedOn) -> ConceptCounts:
        """The same, where ``area`` is C(c) of a layer that is judged so: of images those that hold the concept."""
        return self if what == "pixels" else ConceptCounts(self.images, self.images)


@dataclass(frozen=True)
class Blocks:
    """What the labels hold by block: ``images`` (B,) int64: how many; ``concept_area`` (B, C) int64: C(c) in pixels.

    ``concept_images`` (B, C) int64: images that hold the concept; None where no layer is judged on images.
    """

    images: Ints
    concept_area: Ints
    concept_images: Ints | None = None

    def judged_on(self, what: JudgedOn) -> Blocks | None:
        """The same, where ``concept_area`` is C(c) of a layer that is judged so; None where that was not counted."""
        if what == "pixels":
            return self
        return None if self.concept_images is None else Blocks(self.images, self.concept_images, self.concept_images)


@dataclass(frozen=True)
class Leading:
    """The leading concepts of each of U units, three of each of K categories, with their counts by block.

    ``concept`` (U, K, 3) int32: rows of the concept table by falling IoU, -1 for none; ``intersection`` (U, B, K, 3)
    int64: I(u, c); ``area`` (U, B, K) int64: A(u, c), the same for all concepts of a category.
    """

    concept: npt.NDArray[np.int32]
    intersection: Ints
    area: Ints
