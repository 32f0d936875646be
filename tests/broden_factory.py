"""Small data sets in Broden's format, written for tests.

    write_broden(
        tmp_path / "data",
        images=[Picture(maps={"object": tree_map}, labels={"scene": [7]})],
        concepts=[Concept(3, "tree"), Concept(7, "street-s", "scene")],
    )

Names, splits, photographs, frequencies and coverages that are not given are made up or counted from the maps.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ndissect.engine.data.images import numbers_to_rgb
from ndissect.engine.data.index_table import split_by_name

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


@dataclass(frozen=True)
class Concept:
    """A row of label.csv. ``coverage`` and ``counts`` by category, where given, replace what the maps hold."""

    number: int
    name: str
    category: str = "object"
    coverage: Mapping[str, float] | None = None
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Picture:
    """A row of index.csv and its files.

    ``maps``: by category an array (sh, sw) of concept numbers, or a list of them; ``labels``: by category the
    image-level labels; ``pixels``: (ih, iw, 3) uint8, noise where not given; ``split``: the rule's where not given.
    """

    maps: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    name: str = ""
    split: str | None = None
    pixels: Any = None


def write_broden(
    folder: Path,
    images: Iterable[Picture],
    concepts: Iterable[Concept],
    *,
    image_size: tuple[int, int] = (32, 32),
    grid: tuple[int, int] = (16, 16),
    categories: Sequence[str] = CATEGORIES,
    category_file: bool = True,
    category_files: bool = True,
    split_column: bool = True,
) -> Path:
    """Write the data set and return its folder. ``grid`` and ``image_size`` hold where no array says otherwise."""
    images, concepts = list(images), list(concepts)
    held: dict[int, dict[str, list[float]]] = {c.number: {} for c in concepts}
    rows = []
    for place, picture in enumerate(images):
        name = picture.name or f"made/{place:04d}.png"
        pixels = picture.pixels
        if pixels is None:
            pixels = np.random.default_rng(place).integers(0, 256, (*image_size, 3), np.uint8)
        save_png(folder / "images" / name, pixels)
        cells, found = [], grid
        for category in categories:
            maps = picture.maps.get(category, [])
            maps = [maps] if isinstance(maps, np.ndarray) and maps.ndim == 2 else [np.asarray(m) for m in maps]
            items = [str(n) for n in picture.labels.get(category, ())]
            areas = dict.fromkeys(picture.labels.get(category, ()), 1.0)
            for k, numbers in enumerate(maps):
                path = f"{Path(name).with_suffix('')}_{category}_{k}.png"
                save_map(folder / "images" / path, numbers)
                items.append(path)
                found = numbers.shape
                for n in np.unique(numbers).tolist():
                    areas[n] = max(areas.get(n, 0.0), float((numbers == n).mean()))
            for n, area in areas.items():
                held.get(n, {}).setdefault(category, []).append(area)
            cells.append(";".join(items))
        split = [picture.split or split_by_name(name)] if split_column else []
        rows.append([name, *split, *pixels.shape[:2], *found, *cells])
    header = ["image", *(["split"] if split_column else []), "ih", "iw", "sh", "sw", *categories]
    write_csv(folder / "index.csv", header, rows)
    _write_tables(folder, concepts, categories, held, category_file, category_files)
    return folder


def _write_tables(
    folder: Path,
    concepts: list[Concept],
    categories: Sequence[str],
    held: Mapping[int, Mapping[str, list[float]]],
    category_file: bool,
    category_files: bool,
) -> None:
    coverage, counts = {}, {}
    for c in concepts:
        areas = held[c.number] or {c.category: []}
        coverage[c.number] = dict(c.coverage) if c.coverage is not None else {k: sum(v) for k, v in areas.items()}
        counts[c.number] = dict(c.counts) if c.counts is not None else {k: len(v) for k, v in areas.items()}
        for k in coverage[c.number]:
            counts[c.number].setdefault(k, 1)
    labels = []
    for c in concepts:
        shown = ";".join(f"{k}({n})" for k, n in counts[c.number].items())
        area = sum(coverage[c.number].values())
        labels.append([c.number, c.name, shown, sum(counts[c.number].values()), area, ""])
    write_csv(folder / "label.csv", ["number", "name", "category", "frequency", "coverage", "syns"], labels)
    summary = []
    for category in categories:
        mine = [c for c in concepts if category in coverage[c.number]]
        if not mine:
            continue
        rows = [
            [code, c.number, c.name, counts[c.number][category], coverage[c.number][category]]
            for code, c in enumerate(mine, 1)
        ]
        if category_files:
            write_csv(folder / f"c_{category}.csv", ["code", "number", "name", "frequency", "coverage"], rows)
        numbers = [c.number for c in mine]
        summary.append([category, min(numbers), max(numbers), len(mine), sum(int(row[3]) for row in rows)])
    if category_file:
        write_csv(folder / "category.csv", ["name", "first", "last", "count", "frequency"], summary)


def write_csv(path: Path, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with plain line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), "utf-8")


def edit_csv(path: Path, row: int, column: str, value: str) -> None:
    """Replace one cell; ``row`` counts from 0 below the header."""
    header, *rows = read_csv(path)
    rows[row][header.index(column)] = value
    write_csv(path, header, rows)


def drop_column(path: Path, column: str) -> None:
    """Remove one column of a table."""
    table = read_csv(path)
    at = table[0].index(column)
    write_csv(path, table[0][:at] + table[0][at + 1 :], [row[:at] + row[at + 1 :] for row in table[1:]])


def read_csv(path: Path) -> list[list[str]]:
    """Header and rows of a table."""
    return list(csv.reader(io.StringIO(path.read_text("utf-8"))))


def save_map(path: Path, numbers: Any) -> None:
    """Write concept numbers (sh, sw) as a label PNG."""
    save_png(path, numbers_to_rgb(numbers))


def save_png(path: Path, pixels: Any) -> None:
    """Write (H, W, 3) uint8 pixels without loss, whatever the ending of the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, "PNG")
