"""What numbers and colours are called, from the tables that people have: CSV, JSON, names alone."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ndissect.engine.data.concept_names import is_no_concept
from ndissect.engine.data.concepts import LARGEST_NUMBER, LONGEST_CATEGORY, LONGEST_CONCEPT
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.label_maps import Colour
from ndissect.engine.data.tables import CONCEPT_ROWS, Report, quoted

#: So large may a table of names be.
MOST_BYTES = 16 << 20

# What columns and keys are called, the surest first.
_NAME = ("name", "class_name", "classname", "class", "concept", "label", "names")
_NUMBER = ("number", "id", "value", "index", "idx", "class_id", "label_id", "label", "class")
_CATEGORY = ("category", "supercategory", "group", "type")
_COLOUR = ("color", "colour", "hex", "rgb")
_CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))
# Lists of classes are often a part of a larger description.
_LISTS = ("id2label", "categories", "classes", "labels", "names")
_WHOLE = re.compile(r"([0-9]{1,15})(\.0+)?")
_SPACED = re.compile(r"\s*([0-9]{1,15})[ :=]+(\S.*)")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_TRIPLE = re.compile(r"[(\[]?\s*([0-9]{1,3})[\s,;]+([0-9]{1,3})[\s,;]+([0-9]{1,3})\s*[)\]]?")


@dataclass(frozen=True)
class NameRow:
    """One row: ``number``: of a pixel that means it, None where only its ``colour`` does; ``category``: empty where
    the table says none; ``counted``: whether the number is the row's place in a list, from 0.
    """

    number: int | None
    name: str
    category: str = ""
    colour: Colour | None = None
    counted: bool = False

    @property
    def void(self) -> bool:
        """Whether its name says that it is no concept, whatever its number."""
        return is_no_concept(self.name)


def read_name_table(data: bytes, file: str, report: Report, *, nameless: bool = False) -> list[NameRow]:
    """The rows of a table of names in ``data``, in its order; every fault is reported and its row left out.

    CSV with commas, semicolons or tabs: columns ``number, name[, category][, color]`` (or ``r, g, b``) in any order
    under a header, or in this order without one. Names alone, one a line, are those of 0, 1, 2, ...; an empty line
    between them is of a number without a name. JSON: ``{"1": "cat"}``, ``{"cat": 1}``, ``["background", "cat"]`` or a
    list of objects with id, name, category, color. A row without a name is a fault, unless ``nameless``: then its name
    is empty.
    """
    text = _decoded(data, file, report)
    if text is None:
        return []
    rows = _from_json(text, file, report) if file.lower().endswith(".json") else _from_lines(text, file, report)
    whole = [row for place, row in rows if _is_sound(place, row, file, report, nameless=nameless)]
    seen: dict[tuple[object, str], NameRow] = {}
    for row in whole:
        key = (row.colour if row.number is None else row.number, row.category)
        other = seen.setdefault(key, row)
        if other.name != row.name:
            report(BadFile(file, f"{key[0]} is called both {quoted(other.name)} and {quoted(row.name)}"))
    return list(seen.values())


def parse_colour(value: object) -> Colour | None:
    """A colour as ``#ff0000``, ``255 0 0``, ``(255, 0, 0)`` or a list of three numbers; None for anything else."""
    if isinstance(value, str):
        if match := _HEX.fullmatch(value.strip()):
            r, g, b = bytes.fromhex(match[1])
            return r, g, b
        match = _TRIPLE.fullmatch(value.strip())
        value = [int(part) for part in match.groups()] if match else None
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    return None


def written(colour: Colour) -> str:
    """The colour as ``#ff0000``."""
    return f"#{bytes(colour).hex()}"


def _decoded(data: bytes, file: str, report: Report) -> str | None:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        report(BadFile(file, f"row {row}: not UTF-8 text; save the table as UTF-8"))
        return None


Rows = list[tuple[str, NameRow]]


def _from_lines(text: str, file: str, report: Report) -> Rows:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip(" \t,;")]
    if len(lines) > CONCEPT_ROWS + 1:
        report(BadFile(file, f"more than {CONCEPT_ROWS:,} rows, the most that are read"))
        return []
    if not lines:
        return []
    separator = max("\t;,", key=lines[0][1].count)
    if separator not in lines[0][1] and all(_SPACED.fullmatch(line) for _, line in lines):
        lines, separator = [(n, _SPACED.sub(r"\1\t\2", line)) for n, line in lines], "\t"
    rows: list[tuple[int, list[str]]] = []
    for n, line in lines:
        try:
            cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
        except csv.Error as error:
            report(BadFile(file, f"row {n}: {error}"))
            continue
        rows.append((n, [cell.strip() for cell in cells]))
    if not rows:
        return []
    top = rows[0][0]
    header = [cell.lower().replace(" ", "_") for cell in rows[0][1]]
    if any(word in _NAME for word in header) and not any(_WHOLE.fullmatch(word) for word in header):
        named = [(n, dict(zip(header, cells, strict=False))) for n, cells in rows[1:]]
        if not any(word in (*_NUMBER, *_COLOUR, *(c for names in _CHANNELS for c in names)) for word in header):
            named = [(n, {**cells, "number": str(n - top - 1)}) for n, cells in named]
        return _from_mappings([(f"row {n}", cells) for n, cells in named], file, report)
    columns = _columns(rows[0][1])
    if columns is None:
        first = top + 1 if rows[0][1] == ["__ignore__"] else 1  # as labelme has it
        alone = [(n, separator.join(cells)) for n, cells in rows if n >= first]
        return [(f"row {n}", NameRow(n - first, name, counted=True)) for n, name in alone]
    return _from_mappings([(f"row {n}", dict(zip(columns, cells, strict=False))) for n, cells in rows], file, report)


def _columns(cells: Sequence[str]) -> tuple[str, ...] | None:
    """What the cells of a row without a header are, by how they look; None for a name alone."""
    if len(cells) == 1:
        return None
    if parse_colour(cells[0]) is not None:
        return ("color", "name", "category")
    if not _WHOLE.fullmatch(cells[0]):
        return ("name", "number", "category") if _WHOLE.fullmatch(cells[1]) else None
    if len(cells) > 2 and parse_colour(cells[2]) is not None:
        return ("number", "name", "color")
    return ("number", "name", "category", *(("color",) if len(cells) < 6 else ("r", "g", "b")))


def _from_json(text: str, file: str, report: Report) -> Rows:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        report(BadFile(file, f"not JSON: {error}"))
        return []
    for key in _LISTS:
        if isinstance(value, dict) and isinstance(value.get(key), (dict, list)):
            value = value[key]
    if isinstance(value, dict):
        if value and all(type(number) is int for number in value.values()):  # names to numbers
            value = {str(number): name for name, number in value.items()}
        pairs = [(f"entry {key[:80]}", key, entry) for key, entry in value.items()]
    elif isinstance(value, list):
        pairs = [(f"entry {n}", str(n), entry) for n, entry in enumerate(value)]
    else:
        report(BadFile(file, 'holds no names: {"1": "cat"}, ["background", "cat"] and lists of objects do'))
        return []
    if len(pairs) > CONCEPT_ROWS:
        report(BadFile(file, f"more than {CONCEPT_ROWS:,} entries, the most that are read"))
        return []
    entries: list[tuple[str, Mapping[str, Any]]] = []
    for place, number, entry in pairs:
        if entry is None or isinstance(entry, str):
            entries.append((place, {"number": number, "name": entry}))
        elif isinstance(entry, dict):
            entries.append((place, {"number": number, **_without_other_numbers(entry)}))
        else:
            report(BadFile(file, f"{place}: {quoted(str(entry))} is no name"))
    rows = _from_mappings(entries, file, report)
    if isinstance(value, list) and all(entry is None or isinstance(entry, str) for entry in value):
        return [(place, replace(row, counted=True)) for place, row in rows]
    return rows


def _without_other_numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with its number under one key alone."""
    lower = {str(key).lower(): value for key, value in entry.items()}
    own = next((lower[key] for key in _NUMBER[:7] if type(lower.get(key)) is int), None)
    return lower if own is None else {**lower, "number": own}


def _from_mappings(rows: Sequence[tuple[str, Mapping[str, Any]]], file: str, report: Report) -> Rows:
    named: Rows = []
    for place, row in rows:
        key = next((key for key in _NAME if _text(row.get(key)) and not _WHOLE.fullmatch(_text(row[key]))), None)
        key = key or next((key for key in _NAME if _text(row.get(key))), None)
        name = _text(row[key]) if key else ""
        colour = _colour(row)
        written = next((_text(row[k]) for k in _NUMBER if k != key and _text(row.get(k))), "")
        number = _WHOLE.fullmatch(written)
        if written and not number:
            report(BadFile(file, f"{place}: {quoted(written)} is not a whole number"))
        elif not number and colour is None:
            report(BadFile(file, f"{place}: neither a number nor a colour"))
        else:
            category = next((_text(row[k]) for k in _CATEGORY if _text(row.get(k))), "")
            named.append((place, NameRow(int(number[1]) if number else None, name, category, colour)))
    return named


def _colour(row: Mapping[str, Any]) -> Colour | None:
    channels = [next((_text(row[k]) for k in names if _text(row.get(k))), "") for names in _CHANNELS]
    if all(_WHOLE.fullmatch(channel) for channel in channels):
        return parse_colour([int(float(channel)) for channel in channels])
    return next((colour for k in _COLOUR if (colour := parse_colour(row.get(k))) is not None), None)


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, (list, dict)) else str(value).strip()


def _is_sound(place: str, row: NameRow, file: str, report: Report, *, nameless: bool) -> bool:
    what = None
    if not row.name and not nameless:
        what = "no name"
    elif row.number is not None and row.number > LARGEST_NUMBER:
        what = f"number {row.number} is larger than {LARGEST_NUMBER:,}"
    elif len(row.name) > LONGEST_CONCEPT:
        what = f"a name of {len(row.name):,} characters"
    elif len(row.category.encode()) > LONGEST_CATEGORY or "/" in row.category:
        what = f"{quoted(row.category)} is no name of a category"
    if what is not None:
        report(BadFile(file, f"{place}: {what}"))
    return what is None
