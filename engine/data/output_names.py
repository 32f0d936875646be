"""The names of a network's outputs from a file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.name_table import MOST_BYTES, NameRow, read_name_table
from ndissect.engine.data.tables import CONCEPT_ROWS, parse_table
from ndissect.store.errors import NDError, WrongUse

WRITTEN = "--classes: one name a line, a table with the columns number and name, or JSON; outputs count from 0"
_ID_COLUMNS = ("wnid", "wordnet", "wordnet_id", "synset", "synset_id")
_NUMBER_COLUMNS = ("number", "index", "id", "idx")
_WITH_ID = re.compile(r"(n[0-9]{8})[\s,;]+(\S.*)")


@dataclass(frozen=True)
class OutputNames:
    """What outputs are called, output 0 first; ``ids``: their WordNet ids, () where nothing says them."""

    names: tuple[str, ...]
    ids: tuple[str, ...] = ()


def read_output_names(path: Path) -> OutputNames:
    """The outputs that a file names: of every form that ndissect.engine.data.name_table reads, with WordNet ids in a
    column of their own (``wnid``) or before each name (``n01440764 tench``), and ImageNet's usual JSON.

    NDError where the file cannot be read; WrongUse where it says something else, or leaves out an output.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise WrongUse(f"there is no file {path}", WRITTEN)
    try:
        data = read_file(path, str(path), MOST_BYTES)
    except BadFile as fault:
        raise NDError(fault.message, WRITTEN) from fault
    pairs = _pairs(data) if path.suffix.lower() == ".json" else None
    if pairs is not None:
        return _whole(path, pairs)
    faults: list[BadFile] = []
    rows = read_name_table(data, str(path), faults.append, nameless=True)
    lines = [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]
    by_number = {row.number: _as_written(row, lines) for row in rows if row.number is not None}
    if faults or len(by_number) < len(rows):
        raise WrongUse(faults[0].message if faults else f"{path} names an output twice, or colours", WRITTEN)
    ids = _ids(data)
    split = {n: _WITH_ID.fullmatch(name) for n, name in by_number.items()}
    if not ids and split and all(split.values()):
        return _whole(path, {n: (match[2], match[1]) for n, match in split.items() if match})
    return _whole(path, {n: (name, ids.get(n, "")) for n, name in by_number.items()})


def _as_written(row: NameRow, lines: list[str]) -> str:
    """The name of ``row``; of names alone, one a line, the line, in which blanks follow commas."""
    line = lines[row.number] if row.counted and row.number is not None and row.number < len(lines) else ""
    return line if line.replace(" ", "") == row.name.replace(" ", "") else row.name


def _whole(path: Path, named: dict[int, tuple[str, str]]) -> OutputNames:
    missing = next((n for n in range(max(named, default=-1) + 1) if not named.get(n, ("", ""))[0].strip()), None)
    if missing is not None or not named:
        what = "names no output" if not named else f"names outputs up to {max(named)}, and leaves out {missing}"
        raise WrongUse(f"{path} {what}", WRITTEN)
    listed = [named[n] for n in range(len(named))]
    ids = tuple(one for _, one in listed)
    return OutputNames(tuple(name.strip() for name, _ in listed), ids if all(ids) else ())


def _pairs(data: bytes) -> dict[int, tuple[str, str]] | None:
    """Name and id by number of ``{"0": ["n01440764", "tench"], ...}``; None for other JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not value or len(value) > CONCEPT_ROWS:
        return None
    sound = all(
        re.fullmatch("[0-9]{1,6}", key)
        and isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(x, str) for x in pair)
        for key, pair in value.items()
    )
    return {int(key): (pair[1], pair[0]) for key, pair in value.items()} if sound else None


def _ids(data: bytes) -> dict[int, str]:
    """The WordNet ids of a table that has a column of them, by number or by its rows."""
    header = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").lower()
    if not any(column in header for column in _ID_COLUMNS):
        return {}
    table = parse_table("", data, (), lambda fault: None, CONCEPT_ROWS)
    lower = {column.lower(): column for column in table.columns}
    column = next((lower[name] for name in _ID_COLUMNS if name in lower), None)
    number = next((lower[name] for name in _NUMBER_COLUMNS if name in lower), None)
    if column is None:
        return {}
    ids = {}
    for n, (_, row) in enumerate(table.rows):
        cell = table.cell(row, number) if number else str(n)
        if re.fullmatch("[0-9]{1,6}", cell):
            ids[int(cell)] = table.cell(row, column)
    return ids
