"""Concepts: what a unit can be a detector of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The order in which reports list the categories (method of the 2017 authors); others follow by name.
REPORT_ORDER = ("object", "scene", "part", "material", "texture", "color")


@dataclass(frozen=True)
class ConceptTable:
    """The concepts of a data set, one row each, sorted by number.

    ``number`` (C,) int32: the value in label maps, never 0; ``name`` (C,): as in the data set, with Broden's ``-s``
    and ``-c`` endings; ``category`` (C,) int32: the primary category, an index into ``categories``.
    """

    number: npt.NDArray[np.int32]
    name: tuple[str, ...]
    category: npt.NDArray[np.int32]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.name)

    def category_of(self, row: int) -> str:
        """The name of the primary category of concept ``row``."""
        return self.categories[int(self.category[row])]

    def label(self, row: int) -> str:
        """The name of concept ``row`` as reports show it."""
        return display_name(self.name[row], self.category_of(row))


def display_name(name: str, category: str = "") -> str:
    """``name`` as reports show it: without Broden's ``-s`` (scene) or ``-c`` (color), ``_`` as a space."""
    for ending, where in (("-s", "scene"), ("-c", "color")):
        if name.endswith(ending) and category in ("", where):
            name = name[: -len(ending)]
            break
    return name.replace("_", " ")


def report_order(categories: tuple[str, ...]) -> list[str]:
    """``categories`` in report order: object, scene, part, material, texture, color, then others by name."""
    known = [c for c in REPORT_ORDER if c in categories]
    return known + sorted(c for c in categories if c not in REPORT_ORDER)
