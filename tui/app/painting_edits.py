"""What is painted on one sample: edits in their order, and what was undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

#: (row, column) of a cell of the layer's map.
Cell = tuple[int, int]
_STRENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


def next_strength(strength: float, by: int) -> float:
    """The strength that is ``by`` steps above ``strength``, or the last one there is."""
    at = _STRENGTHS.index(strength) + by
    return _STRENGTHS[min(max(at, 0), len(_STRENGTHS) - 1)]


@dataclass(frozen=True)
class PaintEdit:
    """A concept added to or removed from cells of the layer's map; ``strength`` 1 is a full edit."""

    concept: str
    action: Literal["add", "remove"]
    cells: tuple[Cell, ...]
    strength: float = 1.0

    @property
    def plain(self) -> dict[str, Any]:
        """The edit as it is sent and saved."""
        return {
            "concept": self.concept,
            "action": self.action,
            "cells": [list(cell) for cell in self.cells],
            "strength": self.strength,
        }

    @property
    def sign(self) -> str:
        """``+`` or ``-``."""
        return "+" if self.action == "add" else "-"


@dataclass
class Painting:
    """The edits of one sample. ``saved`` are those that the last saved files hold."""

    edits: tuple[PaintEdit, ...] = ()
    saved: tuple[PaintEdit, ...] = ()
    _undone: list[PaintEdit] = field(default_factory=list)

    @property
    def unsaved(self) -> bool:
        """Whether there is something that no saved file holds."""
        return bool(self.edits) and self.edits != self.saved

    @property
    def edited_cells(self) -> frozenset[Cell]:
        """All cells that an edit is for."""
        return frozenset(cell for edit in self.edits for cell in edit.cells)

    @property
    def can_redo(self) -> bool:
        """Whether the last thing that happened was an undo."""
        return bool(self._undone)

    def add(self, edit: PaintEdit) -> None:
        """Append ``edit``; what was undone before can no longer be redone."""
        self.edits += (edit,)
        self._undone.clear()

    def undo(self) -> None:
        """Take the last edit away."""
        self._undone.append(self.edits[-1])
        self.edits = self.edits[:-1]

    def redo(self) -> None:
        """Bring the edit back that was undone last."""
        self.edits += (self._undone.pop(),)

    def refuse(self, edits: tuple[PaintEdit, ...]) -> None:
        """Go back to ``edits``, the last that were drawn: the network cannot do what came after them."""
        self.edits = edits
        self._undone.clear()


def rectangles(cells: Iterable[Cell]) -> list[tuple[int, int, int, int]]:
    """Rectangles (top, left, bottom, right), ends included, that cover exactly ``cells`` and do not overlap."""
    left = set(cells)
    covering = []
    while left:
        top, first = min(left)
        last = first
        while (top, last + 1) in left:
            last += 1
        bottom = top
        while all((bottom + 1, column) in left for column in range(first, last + 1)):
            bottom += 1
        covering.append((top, first, bottom, last))
        left -= {(row, column) for row in range(top, bottom + 1) for column in range(first, last + 1)}
    return covering
