"""Result tables of other programs as stores: which of the known tables a file is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ndissect.store import limits
from ndissect.store.description_table import REQUIRED, read_description_table
from ndissect.store.errors import NDError
from ndissect.store.iou_table import is_iou_table, read_iou_table
from ndissect.store.model import Dissection
from ndissect.store.regular import read_regular
from ndissect.store.table2017 import read_table

#: What a table can be, with the columns by which it is known.
KNOWN = (
    "a result table of 2017 (unit, category, label, score, and <category>-label, -truth, ... of each category), "
    "IoUs of GAN Dissection (unit, <concept>-iou, <concept>-ace), "
    "CLIP-Dissect's (layer, unit, description, similarity) or MILAN's (layer, unit, description)"
)


def read_imported(path: Path, layer: str | None) -> Dissection:
    """The table at ``path`` as a dissection; ``layer``: the name of its layer, where it does not say.

    NDError for a file that is none of the KNOWN tables, and for one that is damaged.
    """
    try:
        data = read_regular(path, limits.TABLE.most)
        header = next(csv.reader(io.StringIO(data.decode("utf-8-sig").split("\n", 1)[0]), strict=True), [])
    except OSError as e:
        raise NDError(f"cannot read {path}: {e.strerror}", f"name a CSV file: {KNOWN}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise NDError(f"{path} is no CSV table ({e})", f"name a CSV file: {KNOWN}") from e
    columns = [column.strip() for column in header]
    if set(REQUIRED) <= set(columns):
        return read_description_table(path, data, layer)
    if {"unit", "label"} <= set(columns) or any(column.endswith("-label") for column in columns):
        return read_table(path, layer or path.stem)
    if is_iou_table(columns):
        return read_iou_table(path, data, layer or path.stem)
    shown = ", ".join(columns)[:200] or "none"
    raise NDError(f"{path} is no table that can be imported: its columns are {shown}", f"it should be {KNOWN}")
