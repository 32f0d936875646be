"""Tables of IoUs without counts, as GAN Dissection published them: one CSV a layer, units counted from 0.

Columns: ``unit``; ``<concept>-iou`` for each concept; ``<concept>-ace`` for some of them: coefficients between 0 and 1
that were learned for the concept, and no effects; ``activation_q99``: the 0.99 quantile of the unit's activations.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ndissect.store import limits
from ndissect.store.concept_effects import learned
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.protocol import IOUS_ALONE
from ndissect.store.scores import Floats, best_of_ious

#: The category of all concepts of a table that tells none.
CATEGORY = "concept"
#: How a column of IoUs, and one of learned coefficients, ends.
IOU, COEFFICIENT = "-iou", "-ace"
_QUANTILE = re.compile(r"activation_q([0-9]{1,6})")
_DAMAGED = "the table is damaged: copy it again"
_HOW = "coefficients that the imported table gives ({column} columns): learned for the concept, and no effects"


def is_iou_table(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is one of IoUs."""
    return "unit" in columns and any(column.endswith(IOU) for column in columns)


def read_iou_table(path: Path, data: bytes, layer: str) -> Dissection:
    """The table in ``data``, which was read of ``path``, as a dissection of one ``layer``: IoUs without counts.

    NDError for a table that is damaged: a cell that is no share between 0 and 1, units that are not 0, 1, 2 ..., a
    coefficient of a concept that has no IoU.
    """
    columns, rows = _cells(path, data)
    concepts = [column.removesuffix(IOU) for column in columns if column.endswith(IOU)]
    with_coefficients = [column.removesuffix(COEFFICIENT) for column in columns if column.endswith(COEFFICIENT)]
    strangers = [name for name in with_coefficients if name not in concepts]
    if strangers:
        raise NDError(f"{path} has a column {strangers[0]}{COEFFICIENT} and no {strangers[0]}{IOU}", _DAMAGED)
    table = ConceptTable(
        np.arange(1, len(concepts) + 1, dtype=np.int32),
        tuple(concepts),
        np.zeros(len(concepts), np.int32),
        (CATEGORY,),
    )
    ious = _shares(path, columns, rows, [f"{name}{IOU}" for name in concepts])
    coefficients = _shares(path, columns, rows, [f"{name}{COEFFICIENT}" for name in with_coefficients]).T
    of = np.array([concepts.index(name) for name in with_coefficients], np.int32)
    U, C = ious.shape
    unknown, zero = np.full(U, np.nan, np.float32), np.zeros(U, np.int64)
    quantile = next((column for column in columns if _QUANTILE.fullmatch(column)), None)
    threshold = np.full(U, np.nan) if quantile is None else _numbers(path, columns, rows, [quantile])[:, 0]
    held = np.zeros((1, C), np.int64)
    effects = learned(coefficients, of, C, _HOW.format(column=COEFFICIENT)) if len(of) else None
    return Dissection(
        protocol=IOUS_ALONE if quantile is None else replace(IOUS_ALONE, q=_share_above(path, quantile)),
        concepts=table,
        concept_counts=ConceptCounts(held, held - 1),
        layers=(
            Layer(
                layer,
                "",
                best_of_ious(ious, table.category, 1),
                UnitStatistics(threshold, np.zeros(U, bool), zero, zero, unknown, unknown),
                ious=ious,
                concept_effects=effects,
            ),
        ),
        images=None,
        provenance={
            "imported": {
                "file": path.name,
                "path": str(path.resolve()),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        },
    )


def _share_above(path: Path, column: str) -> Fraction:
    """The share of activations above the quantile that a column's name tells: ``activation_q99``, 1/100."""
    digits = column.rpartition("q")[2]
    share = 1 - Fraction(int(digits), 10 ** len(digits))
    if not 0 < share < 1:
        raise NDError(f"{path}: the column {column} names no quantile", _DAMAGED)
    return share


def _cells(path: Path, data: bytes) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows by unit."""
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as e:
        raise NDError(f"{path}, line {reader.line_num}: {e}", _DAMAGED) from e
    if len(set(columns)) < len(columns):
        raise NDError(f"{path} has two columns of one name", "keep one of them")
    most = f"a store holds at most {limits.UNITS.most:,} units and {limits.CONCEPT_EFFECTS.most:,} IoUs"
    if len(rows) > limits.UNITS.most or len(rows) * len(columns) > limits.CONCEPT_EFFECTS.most:
        raise NDError(f"{path} is too large: {most}", "import a part of it")
    at = columns.index("unit")
    for line, row in rows:
        if len(row) != len(columns):
            raise NDError(f"{path}, line {line}: {len(row)} cells, the header has {len(columns)}", _DAMAGED)
    units = [row[at].strip() for _, row in rows]
    if not units or sorted(units) != sorted(map(str, range(len(units)))):
        raise NDError(f"{path}: the units are not 0 to {max(len(units) - 1, 0)}, each once", _DAMAGED)
    return columns, sorted((row for _, row in rows), key=lambda row: int(row[at]))


def _numbers(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], named: Sequence[str]) -> Floats:
    """(U, n): the numbers of the columns ``named``; NDError for what is no finite number."""

    def values(row: Sequence[str]) -> Iterator[float]:
        for column in named:
            text = row[columns.index(column)]
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                unit = row[columns.index("unit")]
                raise NDError(f"{path}, unit {unit}: {column} is '{text[:40]}', which is no number", _DAMAGED)
            yield value

    return np.array([list(values(row)) for row in rows]).reshape(len(rows), len(named))


def _shares(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], named: Sequence[str]) -> Floats:
    values = _numbers(path, columns, rows, named)
    wrong = np.argwhere((values < 0) | (values > 1))
    if len(wrong):
        unit, column = (int(n) for n in wrong[0])
        what = f"{path}, unit {unit}: {named[column]} is {values[unit, column]:g}, which is no share between 0 and 1"
        raise NDError(what, _DAMAGED)
    return values
