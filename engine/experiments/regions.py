"""Regions of a layer's map, as they are written: ``3,4,6,9``, ``all``, or the name of a mask image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ndissect.engine.data.images import decode_image, read_file
from ndissect.engine.experiments.edits import Cell, check_cells
from ndissect.store.errors import WrongUse

#: All cells of the map.
ALL = "all"
_NUMBERS = re.compile(r"-?\d{1,6}(,-?\d{1,6})*", re.ASCII)
# Bytes of a mask image.
_LARGEST = 64 << 20


def region_cells(text: str, map_size: tuple[int, int], layer: str) -> tuple[Cell, ...]:
    """The cells (row, column) of the region that ``text`` names, in a layer's map of ``map_size`` (rows, columns).

    ``top,left,bottom,right``: rows and columns from 0, all four included; ``all``; or a mask image of any size: a cell
    belongs to the region where at least half of it is white. WrongUse for a region outside of the map, or of no cell;
    NDError for an image that cannot be read.
    """
    if text == ALL:
        return rectangle(0, 0, map_size[0] - 1, map_size[1] - 1)
    if not _NUMBERS.fullmatch(text):
        return _mask_cells(Path(text), map_size)
    numbers = [int(n) for n in text.split(",")]
    if len(numbers) != 4 or numbers[0] > numbers[2] or numbers[1] > numbers[3]:
        raise WrongUse(
            f"'{text}' is no region of cells", "write top,left,bottom,right, all included, as 3,4,6,9 for rows 3 to 6"
        )
    top, left, bottom, right = numbers
    check_cells([(top, left), (bottom, right)], map_size, layer)
    return rectangle(top, left, bottom, right)


def rectangle(top: int, left: int, bottom: int, right: int) -> tuple[Cell, ...]:
    """The cells from row ``top`` to row ``bottom`` and from column ``left`` to column ``right``, all four included."""
    return tuple((row, column) for row in range(top, bottom + 1) for column in range(left, right + 1))


def _mask_cells(path: Path, map_size: tuple[int, int]) -> tuple[Cell, ...]:
    if not path.exists():
        raise WrongUse(
            f"'{path}' is no region: neither cells nor a mask image that is there",
            "--region takes top,left,bottom,right in cells of the map, all, or an image that is white in the region",
        )
    image = decode_image(read_file(path, str(path), _LARGEST), str(path))
    white = Image.fromarray((image.min(2) >= 128).astype(np.float32), "F")
    rows, columns = map_size
    shares = np.asarray(white.resize((columns, rows), Image.Resampling.BOX))
    cells = tuple((int(row), int(column)) for row, column in np.argwhere(shares >= 0.5 - 1e-6))
    if not cells:
        little = "less than half of each" if shares.max(initial=0) > 0 else "none"
        raise WrongUse(
            f"{path} is white in {little} of the map's {rows} x {columns} cells",
            "paint the region white, and the rest black",
        )
    return cells
