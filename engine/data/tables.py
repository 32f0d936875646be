"""The CSV tables of a data set, read so that every fault is told with its file, row and column.

Tables that pandas or a spreadsheet has written again are read as what they were: numbers with a decimal point or in
quotes, columns of row numbers, rows of separators alone, semicolons or tabs instead of commas.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ndissect.engine.data.images import BadFile
from ndissect.store.errors import nearest

#: A concept number or a count: decimal digits and nothing else (``int`` also takes 1_000 and other scripts' digits).
WHOLE = re.compile(r"[0-9]{1,15}")

#: The most rows of index.csv; of label.csv and of a ``c_<category>.csv``, whose numbers end at 65,535; and of
#: category.csv, as well as the most columns of any table.
IMAGE_ROWS, CONCEPT_ROWS, CATEGORY_ROWS = 2_000_000, 65_536, 1_000

_LONGEST_SHOWN = 80
# pandas makes floats of a column of whole numbers where one is missing; a spreadsheet may write a decimal comma.
_WHOLE_FLOAT = re.compile(r"([0-9]{1,15})[.,]0{0,15}")
_NAMELESS = re.compile(r"(?:Unnamed: [0-9]+)?")  # pandas calls it so when it reads its own tables again
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

#: Receives each fault of a table: raises it, or collects it and lets the reading go on.
Report = Callable[[BadFile], None]


@dataclass(frozen=True)
class Table:
    """A table as text: ``rows`` pairs the row's number in the file (the header is row 1) with its cells, stripped.

    ``notes``: what was not as it should be, yet could be read. A table that could not be read has no columns.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()
    decimal_comma: bool = False

    def cell(self, row: tuple[str, ...], column: str) -> str:
        """The cell of ``row`` in ``column``, empty where the table has no such column."""
        return row[self.columns.index(column)] if column in self.columns else ""

    def fault(self, line: int, column: str, what: str) -> BadFile:
        """The fault ``what`` in a row and column of this table."""
        return BadFile(self.file, f"row {line}, column {column}: {what}")

    def number(self, line: int, row: tuple[str, ...], column: str, most: int, report: Report) -> int | None:
        """The cell as an integer from 0 to ``most``, ``3.0`` too; None, once reported, where it is not."""
        text = whole_text(self.cell(row, column))
        if WHOLE.fullmatch(text) and int(text) <= most:
            return int(text)
        report(self.fault(line, column, f"{quoted(text)} is not a whole number from 0 to {most}"))
        return None

    def amount(self, line: int, row: tuple[str, ...], column: str, report: Report) -> float | None:
        """The cell as a finite float that is not negative (``6e-05`` too); None, once reported, where it is not."""
        text = self.cell(row, column)
        try:
            value = float(text.replace(",", ".") if self.decimal_comma else text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            return value
        report(self.fault(line, column, f"{quoted(text)} is not an amount"))
        return None


def whole_text(text: str) -> str:
    """``3`` for ``3.0``, as floats of whole numbers are written; any other text as it is."""
    match = _WHOLE_FLOAT.fullmatch(text)
    return match[1] if match else text


def quoted(text: str) -> str:
    """``text`` in quotes for people, cut where it is too long to be read."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def parse_table(file: str, data: bytes, required: tuple[str, ...], report: Report, most: int = IMAGE_ROWS) -> Table:
    """The table in ``data``: UTF-8 with or without a byte order mark, any line ends, at most ``most`` rows.

    The header says whether commas, semicolons or tabs stand between the cells. Rows without any text are skipped, and
    columns without a name are left out. Reported: text that is not UTF-8 or not CSV, too many rows or columns, a
    required column that is missing, a column given twice, a row whose number of cells is not the header's (left out).
    """
    nothing = Table(file, (), ())
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        report(BadFile(file, f"row {row}: not UTF-8 text ({error.reason})"))
        return nothing
    # Line by line: as text a large table takes several times its bytes.
    separator = _separator(data)
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(lines, strict=True, delimiter=separator)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        every = ((reader.line_num, tuple(c.strip() for c in cells)) for cells in reader)
        stripped = ((line, cells) for line, cells in every if any(cells))
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
    twice = sorted({c for c in columns if columns.count(c) > 1 and not _NAMELESS.fullmatch(c)})
    if missing:
        report(_without(file, missing, columns))
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
    notes = [] if separator == "," else [f"{file} is separated by {_SEPARATORS[separator]}, and read so"]
    table = Table(file, columns, tuple(whole), tuple(notes), decimal_comma=separator == ";")
    return _without_nameless(table)


def _separator(data: bytes) -> str:
    """What stands between the cells of the header: spreadsheets write semicolons where the comma is a decimal one."""
    header = data.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    return next((s for s in _SEPARATORS if s.encode() in header), ",")


def _without(file: str, missing: list[str], columns: tuple[str, ...]) -> BadFile:
    """The fault that the columns ``missing`` are not in the header, with those that may be meant."""
    unknown = [c for c in columns if c]
    meant = {c: near[0] for c in missing if (near := nearest(c, unknown, 1))}
    guess = "".join(f"; is {c} called {quoted(near)}?" for c, near in meant.items())
    shown = ", ".join(columns)
    shown = shown if len(shown) <= 10 * _LONGEST_SHOWN else f"{shown[: 10 * _LONGEST_SHOWN]}..."
    return BadFile(file, f"no column {', '.join(missing)} in the header ({shown}){guess}")


def _without_nameless(table: Table) -> Table:
    """The table without the columns that have no name, such as the row numbers that pandas writes."""
    named = [i for i, c in enumerate(table.columns) if not _NAMELESS.fullmatch(c)]
    if len(named) == len(table.columns):
        return table
    empty = set(range(len(table.columns))) - set(named)
    filled = any(row[i] for _, row in table.rows for i in empty)
    note = (f"{table.file} has a column without a name, which is left out (row numbers of pandas are written so)",)
    return replace(
        table,
        columns=tuple(table.columns[i] for i in named),
        rows=tuple((line, tuple(row[i] for i in named)) for line, row in table.rows),
        notes=table.notes + note * filled,
    )
