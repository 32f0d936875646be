"""The table index.csv of Broden's format: every image with its split, its sizes, its label maps and its labels."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PureWindowsPath

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.images import BadFile
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Report, Table, quoted, whole_text

#: The columns of the size of an image and of its label maps.
SIZES = ("ih", "iw", "sh", "sw")

#: The columns that are no category.
FIXED_COLUMNS = ("image", "split", *SIZES)

_LONGEST_SIDE = 2**15
# What a path that leads out of its folder must hold: a quick look at every cell, a slow one at few.
_SUSPECT = re.compile(r"\.\.|[:\0]|(?:^|;)\s*/")
_WHOLE_FLOATS = re.compile(r"(?:^|;)\s*[0-9]+[.,]0*\s*(?:;|$)")


@dataclass(frozen=True)
class ImageIndex:
    """The images of index.csv, N in all.

    ``names``: paths below images/; ``splits``: train or val; ``rows``: of each image the row of the table; ``cells``:
    of each image its cell of every category column; ``image_sizes`` (N, 2) int32: height and width; ``grid``: those of
    all label maps; ``notes``: what was not as it should be, yet could be read.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    rows: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    image_sizes: npt.NDArray[np.int32]
    grid: tuple[int, int]
    notes: tuple[str, ...]


def split_by_name(name: str) -> str:
    """``train`` or ``val`` for the image path ``name``: the rule of the Broden authors, by its md5, about 7 to 3."""
    first = hashlib.md5(name.encode(), usedforsecurity=False).digest()[:8]
    return "train" if int.from_bytes(first, "big") / 2**64 <= 0.7 else "val"


def items_of(cell: str) -> tuple[str, ...]:
    """The numbers and paths in the cell ``3; a/b.png``."""
    return tuple(item for part in cell.split(";") if (item := part.strip()))


def read_index(table: Table, columns: tuple[str, ...], max_pixels: int, report: Report) -> ImageIndex:
    """The rows of index.csv with the category ``columns``; faulty rows are reported and left out.

    Paths with backslashes, as Windows writes them, and labels like 3.0, as pandas does, are read as what they mean.
    ``max_pixels``: label maps of more are not read.
    """
    columns_at = [table.columns.index(c) for c in columns]
    names: list[str] = []
    splits: list[str] = []
    cells: list[tuple[str, ...]] = []
    sizes: list[tuple[int, ...]] = []
    rows: list[int] = []
    seen: dict[str, tuple[int, ...] | None] = {}
    read_as: Counter[str] = Counter()
    slashed = 0
    for line, row in table.rows:
        raw = (table.cell(row, "image"), *(row[i] for i in columns_at))
        if any("\\" in cell for cell in raw):
            slashed += 1
            raw = tuple(cell.replace("\\", "/") for cell in raw)
        name, row_cells = raw[0], tuple(map(_with_whole_numbers, raw[1:]))
        # Nearly every row has the same sizes: read each combination once.
        key = ",".join(table.cell(row, c) for c in SIZES)
        size = seen[key] if key in seen else _read_sizes(table, line, row, report)
        if size is not None:
            seen[key] = size
        given = table.cell(row, "split")
        split = (split_called(given) or "") if given else split_by_name(name)
        faults = [] if split else [table.fault(line, "split", f"{quoted(given)} is neither train nor val")]
        faults += _row_faults(table, line, name, dict(zip(columns, row_cells, strict=True)))
        faults += _map_faults(table, line, size, (rows[0], *sizes[0]) if sizes else None, max_pixels)
        for fault in faults:
            report(fault)
        if size is None or faults:
            continue
        if given and given != split:
            read_as[given] += 1
        names.append(name)
        splits.append(split)
        cells.append(row_cells)
        sizes.append(size)
        rows.append(line)
    if table.columns and not table.rows:
        report(BadFile(table.file, "the data set is empty: the table lists no image"))
    notes = [
        f"{table.file}: split {quoted(s)} ({n} image{'s' * (n > 1)}) counts as {split_called(s)}"
        for s, n in read_as.items()
    ]
    if slashed:
        notes.append(f"{table.file}: paths with backslashes in {slashed} rows are read with / instead")
    return ImageIndex(
        tuple(names),
        tuple(splits),
        tuple(rows),
        tuple(cells),
        np.array([s[:2] for s in sizes], np.int32).reshape(-1, 2),
        (sizes[0][2], sizes[0][3]) if sizes else (0, 0),
        tuple(notes),
    )


def _with_whole_numbers(cell: str) -> str:
    """The cell ``3;a/b.png`` for ``3.0;a/b.png``."""
    if "." not in cell or not _WHOLE_FLOATS.search(cell):
        return cell
    return ";".join(map(whole_text, items_of(cell)))


def _read_sizes(table: Table, line: int, row: tuple[str, ...], report: Report) -> tuple[int, ...] | None:
    sizes = [table.number(line, row, c, _LONGEST_SIDE, report) for c in SIZES]
    for column, value in zip(SIZES, sizes, strict=True):
        if value == 0:
            report(table.fault(line, column, "a size cannot be 0"))
    return tuple(s for s in sizes if s) if all(sizes) else None


def _map_faults(
    table: Table, line: int, size: tuple[int, ...] | None, first: tuple[int, ...] | None, max_pixels: int
) -> list[BadFile]:
    """What is wrong with the size of the label maps; ``first``: the number and the sizes of the first row."""
    if size is None:
        return []
    maps = f"label maps of {size[2]} x {size[3]} pixels"
    if first is not None and size[2:] != first[3:]:
        what = f"{maps}, row {first[0]} has {first[3]} x {first[4]}: all maps must have one size"
    elif first is None and size[2] * size[3] > max_pixels:
        what = f"{maps}, {more_than(max_pixels)}"
    else:
        return []
    return [table.fault(line, "sh, sw", what)]


def more_than(max_pixels: int) -> str:
    """The end of a sentence about an image that is too large to be read."""
    return f"more than {max_pixels:,}; --max-pixels reads larger ones"


def _row_faults(table: Table, line: int, name: str, cells: dict[str, str]) -> list[BadFile]:
    faults = [] if name else [table.fault(line, "image", "the cell is empty")]
    for column, cell in {"image": name, **cells}.items():
        if not _SUSPECT.search(cell):
            continue
        for path in (cell,) if column == "image" else items_of(cell):
            if not _stays_inside(path):
                faults.append(table.fault(line, column, f"{path!r} leads out of the folder images/"))
    return faults


def _stays_inside(path: str) -> bool:
    """Whether the relative path ``path`` stays in its folder, on every system."""
    windows = PureWindowsPath(path)  # understands / and drives as well
    return not (windows.drive or windows.root or ".." in windows.parts or "\0" in path)
