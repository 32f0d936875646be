"""The concepts of a Broden data set: their numbers, names and primary categories, from its tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.images import BadFile
from ndissect.engine.data.tables import CATEGORY_ROWS, Report, Table, quoted
from ndissect.store.concepts import ConceptTable

#: The largest number that the two bytes of a label map can hold.
LARGEST_NUMBER = 2**16 - 1

#: The longest names: a category's is part of a file's name, and both go into the store.
LONGEST_CATEGORY, LONGEST_CONCEPT = 200, 1_000

_LARGEST_COUNT = 2**31 - 1
_COUNTED = re.compile(r"([^/]*?)\s*\(\s*([0-9]{1,15})\s*\)")


@dataclass(frozen=True)
class Concepts:
    """Every concept of label.csv but number 0, and what the table says of it.

    ``frequency`` (C,) int64: images that hold the concept, -1 where not given; ``coverage`` (C,) float64: in whole
    images, NaN where not given; ``listed``: every number of the table, also of rows that were left out for a fault.
    """

    table: ConceptTable
    frequency: npt.NDArray[np.int64]
    coverage: npt.NDArray[np.float64]
    listed: frozenset[int]


def category_order(columns: list[str], labels: Table, listed: Table | None, report: Report) -> tuple[str, ...]:
    """The categories in the order of category.csv (``listed``), or, where it is missing, of index.csv's ``columns``.

    Without category.csv a column is a category where label.csv names it as one. A category without a column is
    reported: its labels could not be found.
    """
    if listed is not None and listed.columns:
        distinct: dict[str, None] = {}
        for line, row in listed.rows:
            name = listed.cell(row, "name")
            if name in distinct:
                report(listed.fault(line, "name", f"category {name!r} is listed twice"))
            elif len(name.encode()) > LONGEST_CATEGORY or "/" in name:  # it is a part of a file's name
                report(listed.fault(line, "name", f"{quoted(name)} is no name of a category"))
                continue
            distinct[name] = None
        names = tuple(distinct)
    else:
        declared = {c for _, row in labels.rows for c in _categories_in(labels.cell(row, "category"))}
        names = tuple(c for c in columns if c in declared)
        names = (*names, *sorted(declared - set(columns)))[:CATEGORY_ROWS]
    missing = [name for name in names if name not in columns]
    if missing and columns:
        report(BadFile("index.csv", f"no column for category {', '.join(missing)}"))
    return names


def read_coverage(table: Table, report: Report) -> dict[int, float]:
    """The coverage of every number in a ``c_<category>.csv``, in whole images; number 0 is left out."""
    coverage: dict[int, float] = {}
    for line, row in table.rows:
        number = table.number(line, row, "number", LARGEST_NUMBER, report)
        amount = table.amount(line, row, "coverage", report)
        if number in coverage:
            report(table.fault(line, "number", f"number {number} is listed twice"))
        elif number and amount is not None:
            coverage[number] = amount
    return coverage


def primary_category(weights: Mapping[str, float], order: tuple[str, ...]) -> str | None:
    """The category of largest weight; of equal ones the last in ``order``. None where no category is known."""
    best: str | None = None
    for category in order:
        if category in weights and (best is None or weights[category] >= weights[best]):
            best = category
    return best


def read_concepts(
    labels: Table, order: tuple[str, ...], cover: Mapping[str, Mapping[int, float]], report: Report
) -> Concepts:
    """The concepts of label.csv with their primary categories.

    ``cover``: coverage by category and number, from the c_ files there are. A concept's primary category is that of
    its largest coverage (2017); where the c_ file of one of its categories is missing, coverages cannot be compared,
    and the counts of label.csv's ``category`` column decide.
    """
    rows: dict[int, tuple[str, str, int, float]] = {}
    first: dict[int, int] = {}
    for line, row in labels.rows:
        number = labels.number(line, row, "number", LARGEST_NUMBER, report)
        if not number:
            continue
        if number in first:
            report(labels.fault(line, "number", f"number {number} is already that of row {first[number]}"))
            continue
        first[number] = line
        name = labels.cell(row, "name")
        if len(name) > LONGEST_CONCEPT:
            report(labels.fault(line, "name", f"a name of {len(name):,} characters"))
            continue
        counts = _read_counts(labels, line, row, order, report)
        areas = {category: by_number[number] for category, by_number in cover.items() if number in by_number}
        comparable = bool(areas) and all(category in cover for category in counts)
        primary = primary_category(areas if comparable or not counts else counts, order)
        if primary is None:
            report(
                labels.fault(line, "category", f"concept {number} ({name}) has no category, nor has it in a c_ file")
            )
            continue
        given = {c for c in ("frequency", "coverage") if labels.cell(row, c)}
        images = labels.number(line, row, "frequency", _LARGEST_COUNT, report) if "frequency" in given else None
        area = labels.amount(line, row, "coverage", report) if "coverage" in given else None
        rows[number] = (name, primary, -1 if images is None else images, math.nan if area is None else area)
    if labels.columns and not first:
        report(BadFile(labels.file, "the table lists no concept"))
    for category, by_number in cover.items() if labels.columns else ():
        for number in sorted(set(by_number) - set(first)):
            report(BadFile(f"c_{category}.csv", f"number {number} is not in label.csv"))
    numbers = sorted(rows)
    return Concepts(
        ConceptTable(
            np.array(numbers, np.int32),
            tuple(rows[n][0] for n in numbers),
            np.array([order.index(rows[n][1]) for n in numbers], np.int32),
            order,
        ),
        np.array([rows[n][2] for n in numbers], np.int64),
        np.array([rows[n][3] for n in numbers], np.float64),
        frozenset(first),
    )


def _read_counts(
    labels: Table, line: int, row: tuple[str, ...], order: tuple[str, ...], report: Report
) -> dict[str, int]:
    """The cell ``material(36);object(3)`` as counts by category."""
    counts: dict[str, int] = {}
    for part in labels.cell(row, "category").split(";"):
        match = _counted(part)
        if match and match[1] in order:
            counts[match[1]] = counts.get(match[1], 0) + int(match[2])
        elif match:
            report(labels.fault(line, "category", f"{match[1]!r} is no category of this data set"))
        elif part.strip():
            report(labels.fault(line, "category", f"{quoted(part.strip())} is not of the form object(3)"))
    return counts


def _categories_in(cell: str) -> list[str]:
    return [match[1] for part in cell.split(";") if (match := _counted(part))]


def _counted(part: str) -> re.Match[str] | None:
    """The name and the count of ``object(3)``; None where it is none."""
    text = part.strip()
    # The pattern takes time with the square of what it is given.
    return _COUNTED.fullmatch(text) if len(text.encode()) <= LONGEST_CATEGORY else None
