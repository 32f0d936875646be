"""The integers that a dissection counts. All are additive over images: shards and machines merge by adding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
