"""Edits of a generator's picture: what is added or removed, in which cells of a layer's map, and the files of them.

A file of edits is JSON, as the terminal UI saves it and as `nd paint --edits FILE` reads it::

    {"sample": 17, "layer": "layer4", "units": 20,
     "edits": [{"concept": "tree", "action": "add", "cells": [[3, 4], [3, 5]], "strength": 1.0}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

from ndissect.store.errors import NDError, WrongUse, first_line
from ndissect.store.files import atomic, check_writable

#: What an edit does.
Action = Literal["add", "remove"]
#: A row and a column of a layer's map, counted from 0.
Cell = tuple[int, int]
#: The largest strength of an edit.
STRONGEST = 10.0
# Cells of a map, edits of a list, and bytes of a file that are believed.
_CELLS, _EDITS, _BYTES = 1 << 16, 1_000, 16 << 20


@dataclass(frozen=True)
class Edit:
    """``concept`` is added to, or removed from, the ``cells`` of a layer's map.

    ``strength``: 1 sets the concept's units to their high value (add) or to 0 (remove), 0.5 goes half of the way, 2
    goes as far again beyond.
    """

    concept: str
    action: Action
    cells: tuple[Cell, ...]
    strength: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {
            "concept": self.concept,
            "action": self.action,
            "cells": [list(cell) for cell in self.cells],
            "strength": self.strength,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The edit that ``to_json`` gave as these JSON values; WrongUse for what is none."""
        if not isinstance(value, Mapping):
            raise _no_edit(f"{value!r:.40}")
        concept, action, cells = value.get("concept"), value.get("action"), value.get("cells")
        if not isinstance(concept, str):
            raise _no_edit("its concept is no name")
        if action not in ("add", "remove"):
            raise _no_edit(f"its action is {action!r:.40}")
        if not isinstance(cells, list) or not cells or len(cells) > _CELLS or not all(map(_is_cell, cells)):
            raise _no_edit("its cells are no pairs [row, column]")
        strength = checked_strength(value.get("strength", 1.0))
        return cls(concept, cast("Action", action), tuple((row, column) for row, column in cells), strength)


def _is_cell(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)


def _no_edit(why: str) -> WrongUse:
    return WrongUse(
        f"this is no edit: {why}",
        'an edit is {"concept": "tree", "action": "add" or "remove", "cells": [[row, column], ...], "strength": 1}',
    )


def checked_strength(value: Any) -> float:
    """``value`` as the strength of an edit; WrongUse for what is none."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= STRONGEST:
        raise WrongUse(f"the strength {value!r:.40} is none", f"it is a number above 0, up to {STRONGEST:g}; 1 sets")
    return number


@dataclass(frozen=True)
class EditList:
    """Edits in their order, and what they are of; None: not said."""

    edits: tuple[Edit, ...]
    sample: int | None = None
    layer: str | None = None
    units: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The list as JSON values."""
        said = {"sample": self.sample, "layer": self.layer, "units": self.units}
        return {**said, "edits": [edit.to_json() for edit in self.edits]}


def read_edits(path: Path) -> EditList:
    """The edits of a file; NDError where it cannot be read, WrongUse where it holds no edits."""
    try:
        if path.stat().st_size > _BYTES:
            raise WrongUse(f"{path} is too large for a file of edits", f"the limit is {_BYTES >> 20} MB")
        said = json.loads(path.read_bytes())
    except OSError as e:
        raise NDError(f"{path} cannot be read: {e.strerror}", "--edits takes a file that nd paint saved") from e
    except (ValueError, RecursionError) as e:
        raise WrongUse(f"{path} is no JSON: {first_line(e)}", "--edits takes a file that nd paint saved") from e
    if isinstance(said, list):
        said = {"edits": said}
    edits = said.get("edits") if isinstance(said, dict) else None
    if not isinstance(edits, list) or len(edits) > _EDITS:
        raise WrongUse(f"{path} holds no list of edits", "--edits takes a file that nd paint saved")
    sample, layer, units = said.get("sample"), said.get("layer"), said.get("units")
    return EditList(
        tuple(map(Edit.from_json, edits)),
        sample if type(sample) is int and sample >= 0 else None,
        layer if isinstance(layer, str) else None,
        units if type(units) is int and units > 0 else None,
    )


def write_edits(path: Path, edits: EditList) -> None:
    """Write the edits to ``path``, in place of what is there; NDError where it cannot be written."""
    data = json.dumps(edits.to_json(), indent=1).encode()
    check_writable(path, len(data))
    with atomic(path) as part:
        part.write_bytes(data)


def check_cells(cells: Iterable[Cell], map_size: Sequence[int], layer: str) -> None:
    """WrongUse where a cell is outside of a layer's map of ``map_size`` (rows, columns)."""
    rows, columns = map_size
    for row, column in cells:
        if not (0 <= row < rows and 0 <= column < columns):
            raise WrongUse(
                f"row {row}, column {column} is outside the map of {layer}: it has {rows} x {columns} cells",
                f"rows are 0 to {rows - 1}, columns 0 to {columns - 1}",
            )
