"""Labels that others gave to units, in words: they rest on no counts of this program, so they have no IoU.

They lie in the store's provenance, as marks do: their texts are concepts of the category ``description``, of which
nothing was counted, and no concept is the best of any unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.protocol import PROTOCOLS

#: The category of all descriptions.
CATEGORY = "description"
#: What the column of numbers beside them is called.
SIMILARITY = "similarity"
#: Stands where a store says by which protocol it was counted.
NO_PROTOCOL = replace(PROTOCOLS["netdissect"], name="descriptions")


@dataclass(frozen=True)
class Descriptions:
    """The descriptions of a layer's U units.

    ``concept`` (U,) int32: a row of the concepts, -1 for none; ``similarity`` (U,) float64: how well it fits, by the
    measure of whoever gave it, NaN where that is not told.
    """

    concept: npt.NDArray[np.int32]
    similarity: npt.NDArray[np.float64]

    def to_json(self, layer: str) -> dict[str, Any]:
        """The descriptions of ``layer`` as a store's provenance holds them."""
        similarity = [None if math.isnan(value) else value for value in self.similarity.tolist()]
        return {"layer": layer, "concept": self.concept.tolist(), "similarity": similarity}


def find_descriptions(provenance: Mapping[str, Any], layer: str) -> Mapping[str, Any] | None:
    """What ``provenance`` says of the descriptions of ``layer``; None for nothing."""
    listed = provenance.get("descriptions")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return next((entry for entry in entries if entry.get("layer") == layer), None)


def read_descriptions(entry: Mapping[str, Any], units: int, concepts: int) -> Descriptions:
    """The descriptions of a layer with so many ``units``, in a store with so many ``concepts``.

    Anybody may have written them: ValueError where they are none.
    """
    rows, similarity = entry.get("concept"), entry.get("similarity")
    if not (isinstance(rows, list) and isinstance(similarity, list) and len(rows) == len(similarity) == units):
        raise ValueError("holds no description of every unit")
    if not all(type(row) is int and -1 <= row < concepts for row in rows):
        raise ValueError("points to a description that is no concept")
    if not all(value is None or type(value) in (int, float) for value in similarity):
        raise ValueError("holds a similarity that is no number")
    numbers = [math.nan if value is None else float(value) for value in similarity]
    return Descriptions(np.array(rows, np.int32), np.array(numbers, np.float64))
