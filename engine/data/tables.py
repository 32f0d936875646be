"""The CSV tables of a data set, read so that every fault is told with its file, row and column."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ndissect.engine.data.images import BadFile

#: A concept number or a count: decimal digits and nothing else (``int`` also takes 1_000 and other scripts' digits).
WHOLE = re.compile(r"[0-9]{1,15}")

#: The most rows of index.csv; of label.csv and of a ``c_<category>.csv``, whose numbers end at 65,535; and of
#: category.csv, as well as the most columns of any table.
IMAGE_ROWS, CONCEPT_ROWS, CATEGORY_ROWS = 2_000_000, 65_536, 1_000

_LONGEST_SHOWN = 80

#: Receives each fault of a table: raises it, or collects it and lets the reading go on.
Report = Callable[[BadFile], None]


@dataclass(frozen=True)
class Table:
    """A table as text: ``rows`` pairs the row's number in the file (the header is row 1) with its cells, stripped.

    A table that could not be read has no columns.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def cell(self, row: tuple[str, ...], column: str) -> str:
        """The cell of ``row`` in ``column``, empty where the table has no such column."""
        return row[self.columns.index(column)] if column in self.columns else ""

    def fault(self, line: int, column: str, what: str) -> BadFile:
        """The fault ``what`` in a row and column of this table."""
        return BadFile(self.file, f"row {line}, column {column}: {what}")

    def number(self, line: int, row: tuple[str, ...], column: str, most: int, report: Report) -> int | None:
        """The cell as an integer from 0 to ``most``; None, once reported, where it is not."""
        text = self.cell(row, column)
        if WHOLE.fullmatch(text) and int(text) <= most:
            return int(text)
        report(self.fault(line, column, f"{quoted(text)} is not a whole number from 0 to {most}"))
        return None

    def amount(self, line: int, row: tuple[str, ...], column: str, report: Report) -> float | None:
        """The cell as a finite float that is not negative (``6e-05`` too); None, once reported, where it is not."""
        text = self.cell(row, column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            return value
        report(self.fault(line, column, f"{quoted(text)} is not an amount"))
        return None


def quoted(text: str) -> str:
    """``text`` in quotes for people, cut where it is too long to be read."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def parse_table(file: str, data: bytes, required: tuple[str, ...], report: Report, most: int = IMAGE_ROWS) -> Table:
    """The table in ``data``: UTF-8 with or without a byte order mark, any line ends, at most ``most`` rows.

    Reported: text that is not UTF-8 or not CSV, too many rows or columns, a required column that is missing, a column
    given twice, a row whose number of cells is not the header's (left out).
    """
    nothing = Table(file, (), ())
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        report(BadFile(file, f"row {row}: not UTF-8 text ({error.reason})"))
        return nothing
    # Line by line: as text a large table takes several times its bytes.
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        stripped = ((reader.line_num, tuple(c.strip() for c in cells)) for cells in reader if cells)
        rows.extend(itertools.islice(stripped, most + 2))  # the header, and one that is too many
    except csv.Error as error:
        report(BadFile(file, f"row {reader.line_num}: not a CSV table ({error})"))
        if not rows:
            return nothing
    if not rows:
        report(BadFile(file, "the table is empty: not even a header"))
        return nothing
    columns = rows[0][1]
    if len(rows) > most + 1 or len(columns) > CATEGORY_ROWS:
        many = f"{most:,} rows" if len(rows) > most + 1 else f"{CATEGORY_ROWS:,} columns"
        report(BadFile(file, f"more than {many}, the most that are read"))
        return nothing
    missing = [c for c in required if c not in columns]
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if missing:
        report(BadFile(file, f"no column {', '.join(missing)} in the header ({', '.join(columns)})"))
    if twice:
        report(BadFile(file, f"the header names column {', '.join(map(repr, twice))} twice"))
    if missing or twice:
        return nothing
    whole = []
    for line, cells in rows[1:]:
        if len(cells) == len(columns):
            whole.append((line, cells))
        else:
            report(BadFile(file, f"row {line}: {len(cells)} cells, the header has {len(columns)}"))
    return Table(file, columns, tuple(whole))
