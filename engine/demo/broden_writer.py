"""Broden's on-disk format, written: images, label maps, and the tables that are summed up from them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.colors import color_map
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.demo.canvas import GRID, SIZE
from ndissect.engine.demo.render import Rendered
from ndissect.engine.demo.vocabulary import CATEGORIES, NAMES

SOURCE = "demo"


@dataclass(frozen=True)
class Record:
    """One row of the index, and how much of the image each label covers: ``{category: {number: share of pixels}}``."""

    index: int
    name: str
    cells: dict[str, str]
    shares: dict[str, dict[int, float]]

    def to_json(self) -> str:
        """The record as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record that ``to_json`` wrote."""
        raw = json.loads(line)
        shares = {c: {int(n): float(s) for n, s in labels.items()} for c, labels in raw["shares"].items()}
        return cls(int(raw["index"]), str(raw["name"]), dict(raw["cells"]), shares)


def write_image(folder: Path, index: int, rendered: Rendered) -> Record:
    """The record of image ``index``, after writing its JPEG and its label maps below ``folder/images/demo``.

    The colour map names the colours of the JPEG as it is read back.
    """
    images = folder / "images"
    stem = f"{SOURCE}/{index:05d}"
    packed = io.BytesIO()
    rendered.picture.save(packed, "JPEG", quality=92)
    (images / f"{stem}.jpg").write_bytes(packed.getvalue())
    pixels = np.asarray(Image.open(packed))
    cells: dict[str, str] = {}
    shares: dict[str, dict[int, float]] = {}
    for category, maps in {"color": [color_map(pixels)], **rendered.maps}.items():
        names = [f"{stem}_{category}{f'_{k}' if len(maps) > 1 else ''}.png" for k in range(1, len(maps) + 1)]
        for name, numbers in zip(names, maps, strict=True):
            _save_map(images / name, numbers)
        cells[category] = ";".join(names)
        shares[category] = _shares(maps)
    for category, number in rendered.labels.items():
        cells[category] = str(number)
        shares[category] = {number: 1.0}
    return Record(index, f"{stem}.jpg", cells, shares)


def write_tables(folder: Path, records: Iterable[Record]) -> None:
    """Write index.csv, label.csv, category.csv and the six c_<category>.csv of ``records`` into ``folder``.

    ``frequency`` counts images that hold a label (or any label of a category); ``coverage`` adds up the shares of
    the pixels of those images. A label in several categories counts, over all of them, where it is most.
    """
    records = sorted(records, key=lambda r: r.index)
    header = ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES]
    rows = [
        [r.name, split_by_name(r.name), SIZE, SIZE, GRID, GRID, *(r.cells.get(c, "") for c in CATEGORIES)]
        for r in records
    ]
    _save_table(folder / "index.csv", header, rows)
    frequency: dict[str, dict[int, int]] = {c: {} for c in CATEGORIES}
    coverage: dict[str, dict[int, float]] = {c: {} for c in CATEGORIES}
    overall: dict[int, tuple[int, float]] = {}
    for record in records:
        most: dict[int, float] = {}
        for category, labels in record.shares.items():
            for number, share in labels.items():
                frequency[category][number] = frequency[category].get(number, 0) + 1
                coverage[category][number] = coverage[category].get(number, 0.0) + share
                most[number] = max(most.get(number, 0.0), share)
        for number, share in most.items():
            images, total = overall.get(number, (0, 0.0))
            overall[number] = images + 1, total + share
    categories = []
    for category in CATEGORIES:
        counts = frequency[category]
        ranked = sorted(counts, key=lambda n: (-counts[n], n))
        _save_table(
            folder / f"c_{category}.csv",
            ["code", "number", "name", "frequency", "coverage"],
            [[code, n, NAMES[n - 1], counts[n], f"{coverage[category][n]:.6g}"] for code, n in enumerate(ranked, 1)],
        )
        if counts:
            held = sum(1 for r in records if r.shares.get(category))
            categories.append([category, min(counts), max(counts), len(counts), held])
    _save_table(folder / "category.csv", ["name", "first", "last", "count", "frequency"], categories)
    labels_out = []
    for number in sorted(overall):
        where = sorted((c for c in CATEGORIES if number in frequency[c]), key=lambda c: -frequency[c][number])
        text = ";".join(f"{c}({frequency[c][number]})" for c in where)
        images, total = overall[number]
        labels_out.append([number, NAMES[number - 1], text, images, f"{total:.6g}", ""])
    _save_table(folder / "label.csv", ["number", "name", "category", "frequency", "coverage", "syns"], labels_out)


def _shares(maps: list[npt.NDArray[np.uint8]]) -> dict[int, float]:
    """The share of the pixels that hold each number in any of the maps; two maps may hold it at the same pixel."""
    counts = np.zeros(256, np.int64)
    for k, numbers in enumerate(maps):
        fresh = np.logical_and.reduce([numbers != other for other in maps[:k]]) if k else np.ones(numbers.shape, bool)
        counts += np.bincount(numbers[fresh], minlength=256)
    return {int(n): int(counts[n]) / maps[0].size for n in np.flatnonzero(counts) if n}


def _save_map(path: Path, numbers: npt.NDArray[np.uint8]) -> None:
    """Write a label map as Broden does: 8-bit RGB, number = R + 256 * G."""
    wide = numbers.astype(np.uint16)
    rgb = np.stack([wide % 256, wide // 256, np.zeros_like(wide)], 2).astype(np.uint8)
    Image.fromarray(rgb).save(path, compress_level=4)


def _save_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
