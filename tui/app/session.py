"""An open store, with what many tables need of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from ndissect.store.concepts import report_order
from ndissect.store.layer_view import LayerView
from ndissect.store.names import quoted
from ndissect.store.reader import Store

if TYPE_CHECKING:
    from ndissect.tui.app.effects import ClassEffects


@dataclass(frozen=True)
class Stamp:
    """Tells files at one path apart: a file that replaces another has another stamp."""

    device: int
    inode: int
    size: int
    changed: int


def stamp(path: Path) -> Stamp | None:
    """The stamp of the file at ``path``, None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once a second: without making a Path of it
    except OSError:
        return None
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Session:
    """A store opened for browsing: views and names are read once. Raises NDError where the store is damaged.

    ``path`` is the file that is read, ``target`` the store that it is to become: another one while its run goes on.
    """

    def __init__(self, path: Path, target: Path | None = None) -> None:
        self.path = path
        self.target = target or path
        self.stamp = stamp(path)
        self.store = Store(path)
        self.view = cache(self.store.layer)
        self.class_effects = cache(self._class_effects)

    def close(self) -> None:
        """Close the file; what was read stays."""
        self.store.close()

    @property
    def views(self) -> list[LayerView]:
        """All layers, in the store's order."""
        return [self.view(name) for name in self.store.layer_names]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the network's outputs; none where the store tells nothing of them."""
        return self.store.classes.names if self.store.classes else ()

    def _class_effects(self, layer: str) -> ClassEffects | None:
        """What the units of ``layer`` do to the classes, None where the store does not tell; read once."""
        if not self.classes:
            return None
        from ndissect.tui.app.effects import ClassEffects  # noqa: PLC0415 - few stores tell of classes

        view = self.view(layer)
        return None if view.effects is None and view.head is None else ClassEffects(view, len(self.classes))

    def how_to_get_effects(self, layer: str = "") -> str:
        """What is said where the store does not tell what units do to classes: the command that writes it."""
        names = self.store.layer_names
        of = layer or (names[-1] if names else "LAYER")
        what = f"what the units of {layer} do to classes" if layer else "what units do to classes"
        command = f"nd ablate {quoted(of, positional=True)} -s {quoted(self.target)}"
        return f"this store does not tell {what}; it does after: {command}"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The concepts' names as reports show them, then "" for row -1, no concept."""
        concepts = self.store.concepts
        return (*(concepts.label(i) for i in range(len(concepts))), "")

    @property
    def longest_label(self) -> int:
        """Cells that the longest of ``labels`` takes."""
        return max(map(cell_len, self.labels))

    @cached_property
    def label_rank(self) -> npt.NDArray[np.int64]:
        """(C + 1,): the rank of each of ``labels`` in the alphabet; no concept comes last."""
        order = sorted(range(len(self.labels)), key=lambda i: (not self.labels[i], self.labels[i].casefold()))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank

    @cached_property
    def categories(self) -> list[str]:
        """The categories in report order."""
        return report_order(self.store.concepts.categories)

    @cached_property
    def category_code(self) -> npt.NDArray[np.int64]:
        """(C + 1,): each concept's category, an index into ``categories``; len(categories) for no concept."""
        index = {c: i for i, c in enumerate(self.categories)}
        concepts = self.store.concepts
        codes = [index[concepts.category_of(i)] for i in range(len(concepts))]
        return np.array([*codes, len(index)], np.int64)

    @cached_property
    def concept_images(self) -> npt.NDArray[np.int64]:
        """(C + 1,): images that hold each concept, -1 where that is not known, and for no concept."""
        images = self.store.concept_counts.images
        known = np.where((images < 0).any(0), -1, images.sum(0))
        return np.append(known, -1).astype(np.int64)

    def concept_row(self, number: int) -> int:
        """The row of the concept ``number``; -1 where the store has none."""
        numbers = self.store.concepts.number
        row = int(np.searchsorted(numbers, number))
        return row if row < len(numbers) and int(numbers[row]) == number else -1
