"""The tables of a joined data set in Broden's format, summed up from its images."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndissect.engine.data.index_table import SIZES


@dataclass(frozen=True)
class MergedImage:
    """A row of index.csv: ``size`` (height, width) of the photograph; ``cells``: what each category's column holds.

    ``shares``: by number, how much of the image each concept covers; ``linked``: the photograph is no copy.
    """

    name: str
    split: str
    size: tuple[int, int]
    cells: dict[str, str]
    shares: dict[int, float]
    linked: bool


def write_tables(
    folder: Path,
    concepts: Sequence[tuple[str, str]],
    categories: Sequence[str],
    grid: tuple[int, int],
    images: Sequence[MergedImage],
) -> None:
    """Write index.csv, label.csv, category.csv and a c_<category>.csv of each category into ``folder``.

    ``concepts``: name and category, numbered from 1. ``frequency`` counts images that hold a concept, ``coverage`` adds
    up the shares of them that it covers.
    """
    _save(
        folder / "index.csv",
        ["image", "split", *SIZES, *categories],
        ([i.name, i.split, *i.size, *grid, *(i.cells[c] for c in categories)] for i in images),
    )
    frequency: Counter[int] = Counter()
    coverage: defaultdict[int, float] = defaultdict(float)
    for image in images:
        for number, share in image.shares.items():
            frequency[number] += 1
            coverage[number] += share

    def figures(number: int) -> list[Any]:
        return [frequency[number], f"{coverage[number]:.6g}"]

    _save(
        folder / "label.csv",
        ["number", "name", "category", "frequency", "coverage", "syns"],
        (
            [number, name, f"{category}({frequency[number]})", *figures(number), ""]
            for number, (name, category) in enumerate(concepts, 1)
        ),
    )
    numbers = {c: [n for n, (_, category) in enumerate(concepts, 1) if category == c] for c in categories}
    for category, own in numbers.items():
        _save(
            folder / f"c_{category}.csv",
            ["code", "number", "name", "frequency", "coverage"],
            ([code, n, concepts[n - 1][0], *figures(n)] for code, n in enumerate(own, 1)),
        )
    _save(
        folder / "category.csv",
        ["name", "first", "last", "count", "frequency"],
        ([c, own[0], own[-1], len(own), sum(i.cells[c] != "" for i in images)] for c, own in numbers.items()),
    )


def _save(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
