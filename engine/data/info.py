"""What a data set holds, from its tables alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.packed import Note, find_pack
from ndissect.store.concepts import report_order


@dataclass(frozen=True)
class CategoryInfo:
    """One category. ``concepts``: those whose primary category it is; ``images``: how many have labels in its cell of
    index.csv, ``empty``: how many have none; ``coverage``: summed over its concepts, in whole images, None if unknown.
    """

    name: str
    concepts: int
    images: int
    empty: int
    coverage: float | None


@dataclass(frozen=True)
class ConceptInfo:
    """One concept. ``images``: how many hold it; ``coverage``: its area in them, in whole images (both label.csv)."""

    number: int
    name: str
    category: str
    images: int
    coverage: float | None


@dataclass(frozen=True)
class PackInfo:
    """The pack of a data set: its folder, its size in bytes, and when it was packed (ISO 8601)."""

    path: str
    bytes: int
    packed: str


@dataclass(frozen=True)
class DataInfo:
    """A data set in figures; ``dataclasses.asdict`` of it is plain JSON.

    ``splits``, ``sources`` (the first folder of an image's name) and ``image_sizes`` (``"ih x iw"``) count images;
    ``map_size``: (sh, sw); ``most`` and ``least``: the most and least frequent concepts, those of unknown
    frequency left out; ``digest``: of the tables; ``pack``: None where there is none that can be used.
    """

    path: str
    name: str
    images: int
    splits: dict[str, int]
    sources: dict[str, int]
    image_sizes: dict[str, int]
    map_size: tuple[int, int]
    concepts: int
    categories: tuple[CategoryInfo, ...]
    most: tuple[ConceptInfo, ...]
    least: tuple[ConceptInfo, ...]
    digest: str
    pack: PackInfo | None


def describe(dataset_path: Path, n: int = 10, note: Note | None = None, max_pixels: int | None = None) -> DataInfo:
    """The figures of the data set in ``dataset_path`` with its ``n`` most and least frequent concepts.

    Nothing is decoded: frequencies and coverages are those of its tables. NDError where the tables are faulty;
    ``note`` is told why a pack cannot be used.
    """
    dataset = Broden(dataset_path, max_pixels=max_pixels)
    pack = find_pack(dataset, note)
    known = np.flatnonzero(dataset.frequency >= 0)
    # Equal frequencies: the lower number first, at both ends.
    rising = known[np.argsort(dataset.frequency[known], kind="stable")].tolist()
    falling = known[np.argsort(-dataset.frequency[known], kind="stable")].tolist()
    sources = Counter(PurePosixPath(name).parts[0] if "/" in name else "." for name in dataset.names)
    sizes = Counter(f"{ih} x {iw}" for ih, iw in dataset.image_sizes.tolist())
    return DataInfo(
        path=str(dataset_path),
        name=dataset.name,
        images=len(dataset),
        splits={split: dataset.splits.count(split) for split in ("train", "val")},
        sources=dict(sorted(sources.items())),
        image_sizes=dict(sizes.most_common()),
        map_size=dataset.grid,
        concepts=len(dataset.concepts),
        categories=_categories(dataset),
        most=tuple(_concept(dataset, row) for row in falling[:n]),
        least=tuple(_concept(dataset, row) for row in rising[:n]),
        digest=dataset.tables_digest(),
        pack=None if pack is None else PackInfo(str(pack.folder), pack.bytes, pack.packed),
    )


def _categories(dataset: Broden) -> tuple[CategoryInfo, ...]:
    """Every category of the data set in report order, columns of index.csv that nothing uses among them."""
    table = dataset.concepts
    filled = dict(zip(dataset.columns, dataset.filled.sum(0).tolist(), strict=True))
    found = []
    every = table.categories + dataset.unused
    for name in report_order(every):
        rows = np.flatnonzero(table.category == every.index(name))
        # Without the category's own file: what label.csv says of the concepts whose primary category it is.
        coverage = dataset.category_coverage.get(name, float(dataset.coverage[rows].sum()))
        images = filled.get(name, 0)
        found.append(CategoryInfo(name, len(rows), images, len(dataset) - images, _known(coverage)))
    return tuple(found)


def _concept(dataset: Broden, row: int) -> ConceptInfo:
    table = dataset.concepts
    number, images = int(table.number[row]), int(dataset.frequency[row])
    return ConceptInfo(number, table.name[row], table.category_of(row), images, _known(float(dataset.coverage[row])))


def _known(amount: float) -> float | None:
    return None if math.isnan(amount) else amount
