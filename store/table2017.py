"""The result tables of the 2017 authors: one CSV a layer, units counted from 1, each category's best concept.

Columns: ``unit, category, label, score``, then for each category ``<cat>-label, -truth, -activation, -intersect,
-iou``: the concept's area C, the unit's area A, both's intersection I, and I / (A + C - I).
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TextIO

import numpy as np

from ndissect.store import limits
from ndissect.store.concepts import REPORT_ORDER, ConceptTable
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.layer_view import LayerView
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.protocol import PROTOCOLS
from ndissect.store.regular import read_regular
from ndissect.store.scores import Best, iou

#: The categories' order in the authors' files.
CATEGORIES = ("object", "color", "material", "scene", "texture", "part")
_PARTS = ("label", "truth", "activation", "intersect", "iou")
_UNKNOWN_IMAGES = -1
# The authors' tables have 34 columns.
_MOST_COLUMNS = 1_000
# An IoU that differs by more from that of its counts is rounded, to so many decimals at least, or wrong.
_EXACT, _FEWEST_DECIMALS = 1e-9, 2


def read_table(path: Path, layer: str) -> Dissection:
    """The table at ``path`` as a dissection of one layer that knows only each category's best concept.

    Rows whose label is empty are the unlabelled number 0 that leaked into the older code: they are left out. NDError
    for a file that is no such table, and where a row contradicts itself. IoUs may be rounded: they are computed anew
    from the counts, and the provenance says to how many decimals the table has them.
    """
    try:
        data = read_regular(path, limits.TABLE.most)
        text = data.decode("utf-8-sig")
    except OSError as e:
        raise NDError(f"cannot read {path}: {e.strerror}", "name a CSV of the 2017 results") from e
    except UnicodeDecodeError as e:
        raise NDError(f"{path} is no text file", "name a CSV of the 2017 results") from e
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as e:
        raise NDError(f"{path} is no CSV: {e}", "name a CSV of the 2017 results") from e
    if len(columns) > _MOST_COLUMNS:
        raise NDError(f"{path} has {len(columns):,} columns, at most {_MOST_COLUMNS:,} are read", "name a 2017 table")
    if len(set(columns)) < len(columns):
        raise NDError(f"{path} has two columns of one name", "keep one of them")
    categories = tuple(c.removesuffix("-label") for c in columns if c.endswith("-label"))
    missing = [c for c in ("unit", *(f"{k}-{part}" for k in categories for part in _PARTS)) if c not in columns]
    if missing or not categories:
        raise NDError(
            f"{path} has no column {', '.join(missing) or '<category>-label'}",
            "a 2017 table has unit, category, label, score, then label, truth, activation, intersect, iou by category",
        )
    _demand(path, len(categories), limits.CATEGORIES)
    lines = text.count("\n") - 1
    _demand(path, lines, limits.UNITS)
    _demand(path, lines * len(categories), limits.BEST)
    every = list(_rows(path, reader, categories))
    decimals = _demand_ious(path, every)
    rows = sorted(((row.unit, row.cells) for row in every), key=lambda row: row[0])
    units = [unit for unit, _ in rows]
    if not units:
        raise NDError(f"{path} holds no units", "the table is incomplete: copy it again")
    if units != list(range(1, len(units) + 1)):
        what = f"{path}: the units are not 1 to {len(units)}, each once"
        raise NDError(what, "the table is incomplete: copy it again")
    origin: dict[str, object] = {"file": path.name, "path": str(path.resolve())}
    origin |= {"sha256": hashlib.sha256(data).hexdigest()}
    if decimals is not None:
        origin |= {"iou_decimals": decimals}
    return _dissection(path, layer, categories, [cells for _, cells in rows], origin)


def _demand(path: Path, count: int, limit: limits.Limit) -> None:
    if count > limit.most:
        raise NDError(
            f"{path} has more than {limit.most:,} {limit.things}", "a store holds no more: import a part of it"
        )


_Cell = tuple[str, int, int, int]


@dataclass(frozen=True)
class _Row:
    """A unit's cells by category; ``ious``: by category the IoU of its counts, and as the table has it."""

    line: int
    unit: int
    cells: dict[str, _Cell]
    ious: dict[str, tuple[float, float, str]]


def _rows(path: Path, reader: csv.DictReader[str], categories: tuple[str, ...]) -> Iterator[_Row]:
    while True:
        try:
            row = next(reader, None)
            if row is None:
                return
            if None in row or None in row.values():
                raise ValueError(f"the line has not {len(reader.fieldnames or [])} columns")
            cells, ious = {}, {}
            for k in categories:
                if not row[f"{k}-label"]:
                    continue
                truth, area, both = (_whole(row[f"{k}-{part}"]) for part in ("truth", "activation", "intersect"))
                ious[k] = float(iou(both, area, truth)), float(row[f"{k}-iou"]), row[f"{k}-iou"]
                if both > truth:
                    raise ValueError(f"{k}-intersect is more than {k}-truth")
                if both:
                    cells[k] = (row[f"{k}-label"], truth, area, both)
            yield _Row(reader.line_num, int(row["unit"]), cells, ious)
        except (ValueError, csv.Error) as e:
            where = f"{path}, line {reader.line_num}"
            raise NDError(f"{where}: {e}", "the table is damaged, or none of the 2017 results") from e


def _demand_ious(path: Path, rows: list[_Row]) -> int | None:
    """To how many decimals the table's IoUs are rounded; None where they are exact.

    NDError where one is neither the IoU of its counts nor rounded to as many decimals as the table prints.
    """
    printed = [(row.line, k, *of_counts) for row in rows for k, of_counts in row.ious.items()]
    if all(abs(exact - value) < _EXACT for _, _, exact, value, _ in printed):
        return None
    # Zeros at the end may be left out: the table was rounded to what its longest IoU has.
    decimals = max(_decimals(text) for *_, text in printed)
    tolerance = 0.5 * 10.0**-decimals + _EXACT if decimals >= _FEWEST_DECIMALS else _EXACT
    for line, k, exact, value, text in printed:
        if not abs(exact - value) <= tolerance:
            what = f"{k}-iou is not intersect / (activation + truth - intersect)"
            hint = "the table is damaged, or none of the 2017 results"
            raise NDError(f"{path}, line {line}: {what}: {text} instead of {exact:.6g}", hint)
    return decimals


def _decimals(text: str) -> int:
    exponent = Decimal(text.strip()).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _whole(text: str) -> int:
    value = float(text)
    if not (0 <= value < 1 << 53 and value == int(value)):
        raise ValueError(f"{text} is no count of pixels")
    return int(value)


def _dissection(
    path: Path, layer: str, categories: tuple[str, ...], rows: list[dict[str, _Cell]], origin: dict[str, object]
) -> Dissection:
    areas: dict[tuple[int, str], int] = {}
    for cells in rows:
        for k, (label, truth, _, _) in cells.items():
            if areas.setdefault((categories.index(k), label), truth) != truth:
                raise NDError(
                    f"{path}: {k} '{label}' covers {truth} pixels in one row and not in another",
                    "the table is damaged, or none of the 2017 results",
                )
    known = sorted(areas)
    row_of = {concept: i for i, concept in enumerate(known)}
    U, K = len(rows), len(categories)
    concept = np.full((U, K), -1, np.int32)
    both, area = np.zeros((U, K), np.int64), np.zeros((U, K), np.int64)
    for u, cells in enumerate(rows):
        for k, (label, _, a, i) in cells.items():
            at = categories.index(k)
            concept[u, at], both[u, at], area[u, at] = row_of[at, label], i, a
    concept_area = np.array([areas[c] for c in known], np.int64)
    value = np.where(concept >= 0, iou(both, area, np.append(concept_area, 0)[concept]), 0.0)
    nothing = np.full(U, np.nan, np.float32)
    return Dissection(
        protocol=PROTOCOLS["cvpr2017"],
        concepts=ConceptTable(
            # The table does not tell the data set's numbers: concepts are numbered in the order of their names.
            np.arange(1, len(known) + 1, dtype=np.int32),
            tuple(label for _, label in known),
            np.array([k for k, _ in known], np.int32),
            categories,
        ),
        concept_counts=ConceptCounts(concept_area[None], np.full((1, len(known)), _UNKNOWN_IMAGES, np.int64)),
        layers=(
            Layer(
                layer,
                "",
                Best(concept, both, area, value),
                UnitStatistics(
                    np.full(U, np.nan),
                    np.zeros(U, bool),
                    np.zeros(U, np.int64),
                    np.zeros(U, np.int64),
                    nothing,
                    nothing,
                ),
            ),
        ),
        images=None,
        provenance={"imported": origin},
    )


def write_table(view: LayerView, out: TextIO) -> None:
    """Write the layer as a 2017 table: best units first, units from 1; an empty label where a category has none."""
    concepts, best = view.store.concepts, view.best
    concept_area = view.concept_counts.area.sum(0)
    categories = [c for c in CATEGORIES if c in concepts.categories]
    categories += [c for c in concepts.categories if c not in REPORT_ORDER]
    label, value = view.labels
    header = ["unit", "category", "label", "score", *(f"{k}-{part}" for k in categories for part in _PARTS)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for u in np.argsort(-value, kind="stable"):
        row = int(label[u])
        own: list[object] = [concepts.category_of(row), concepts.name[row]] if row >= 0 else ["", ""]
        line: list[object] = [int(u) + 1, *own, repr(float(value[u]))]
        for category in categories:
            k = concepts.categories.index(category)
            c = int(best.concept[u, k])
            if c < 0:
                line += ["", 0, int(best.area[u, k]), 0, 0.0]
                continue
            i, a = int(best.intersection[u, k]), int(best.area[u, k])
            line += [concepts.name[c], int(concept_area[c]), a, i, repr(float(best.iou[u, k]))]
        writer.writerow(line)
