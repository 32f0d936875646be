"""The tables of CLIP-Dissect and MILAN: a description of every unit, in words, as a store without counts.

Columns: ``layer, unit, description``, of CLIP-Dissect also ``similarity``; units from 0.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ndissect.store import limits
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import ConceptCounts
from ndissect.store.descriptions import CATEGORY, NO_PROTOCOL, Descriptions
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.scores import Best
from ndissect.store.text import without_controls

#: The columns that every such table has; one of several layers has the column ``layer`` besides.
REQUIRED = ("unit", "description")
_DAMAGED = "the table is damaged: copy it again"
# Of a unit's number, as text; what a table has more of is no number of a unit.
_LONGEST_NUMBER = 10


def read_description_table(path: Path, data: bytes, layer: str | None) -> Dissection:
    """The table in ``data``, which was read of ``path``, as layers whose units have descriptions and no counts.

    ``layer``: the name of the layer of a table that names none; the file's by default. NDError for a table that is
    damaged, WrongUse for a ``layer`` where the table names its own.
    """
    named: dict[str, _Described] = {}
    for line, cells in _rows(path, data):
        if layer is not None and cells.get("layer"):
            what = f"{path} says of every unit of which layer it is: --layer cannot name another"
            raise WrongUse(what, "leave --layer out")
        try:
            name = without_controls(cells.get("layer") or layer or path.stem)
            named.setdefault(name, _Described()).add(cells)
        except ValueError as e:
            raise NDError(f"{path}, line {line}: {e}", _DAMAGED) from e
    if not named:
        raise NDError(f"{path} describes no unit", _DAMAGED)
    units = sum(one.units for one in named.values())
    for count, limit in ((units, limits.UNITS), (len(named), limits.LAYERS)):
        if count > limit.most:
            hint = "a store holds no more: import a part of it"
            raise NDError(f"{path} has more than {limit.most:,} {limit.things}", hint)
    return _dissection(path, hashlib.sha256(data).hexdigest(), named)


@dataclass
class _Described:
    """The described units of a layer, by number."""

    text: dict[int, str] = field(default_factory=dict)
    similarity: dict[int, float] = field(default_factory=dict)

    @property
    def units(self) -> int:
        return max(self.text, default=-1) + 1

    def add(self, cells: dict[str, str]) -> None:
        """Take a row of the table; ValueError where it is none."""
        number = cells["unit"].strip().removesuffix(".0")
        if not (number.isascii() and number.isdigit() and len(number) < _LONGEST_NUMBER):
            raise ValueError(f"'{cells['unit'][:40]}' is no number of a unit")
        unit = int(number)
        if unit in self.text:
            raise ValueError(f"unit {unit} is described twice")
        self.text[unit] = " ".join(without_controls(cells["description"]).split())
        given = (cells.get("similarity") or "").strip()
        if given:
            self.similarity[unit] = float(given)
            if not math.isfinite(self.similarity[unit]):
                raise ValueError(f"similarity {given} is no number")


def _rows(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows that are not empty, each with the line at which it ends."""
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    if reader.fieldnames:
        reader.fieldnames = [name.strip() for name in reader.fieldnames]
    try:
        for row in reader:
            # Short rows have None for a cell, long ones the rest under None.
            if None in row or None in row.values():
                raise NDError(
                    f"{path}, line {reader.line_num}: not {len(reader.fieldnames or ())} cells, as many as the header"
                    " has",
                    _DAMAGED,
                )
            if any(row.values()):
                yield reader.line_num, row
    except csv.Error as e:
        raise NDError(f"{path}, line {reader.line_num}: {e}", _DAMAGED) from e


def _dissection(path: Path, digest: str, named: dict[str, _Described]) -> Dissection:
    texts = sorted({text for one in named.values() for text in one.text.values() if text})
    row_of = {text: row for row, text in enumerate(texts)} | {"": -1}
    described = {name: _descriptions(one, row_of) for name, one in named.items()}
    nothing = np.zeros((1, len(texts)), np.int64)
    return Dissection(
        protocol=NO_PROTOCOL,
        concepts=ConceptTable(
            np.arange(1, len(texts) + 1, dtype=np.int32), tuple(texts), np.zeros(len(texts), np.int32), (CATEGORY,)
        ),
        concept_counts=ConceptCounts(nothing, nothing - 1),
        layers=tuple(_layer(name, len(one.concept)) for name, one in described.items()),
        images=None,
        provenance={
            "imported": {"file": path.name, "path": str(path.resolve()), "sha256": digest},
            "descriptions": [one.to_json(name) for name, one in described.items()],
        },
    )


def _descriptions(described: _Described, row_of: dict[str, int]) -> Descriptions:
    units: Sequence[int] = range(described.units)
    return Descriptions(
        np.array([row_of[described.text.get(u, "")] for u in units], np.int32),
        np.array([described.similarity.get(u, math.nan) for u in units], np.float64),
    )


def _layer(name: str, units: int) -> Layer:
    """A layer of which nothing is counted."""
    none, zero = np.full((units, 1), -1, np.int32), np.zeros((units, 1), np.int64)
    unknown, counts = np.full(units, np.nan, np.float32), np.zeros(units, np.int64)
    return Layer(
        name,
        "",
        Best(none, zero, zero, np.zeros((units, 1))),
        UnitStatistics(np.full(units, np.nan), np.zeros(units, bool), counts, counts, unknown, unknown),
    )
