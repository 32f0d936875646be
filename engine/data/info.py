"""What a data set holds, from its tables alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ndissect.engine.data.dataset import Figures, FolderDataset
from ndissect.engine.data.formats import open_folder
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.packed import Note, find_pack
from ndissect.store.concepts import report_order


@dataclass(frozen=True)
class CategoryInfo:
    """One category. ``concepts``: those whose primary category it is; ``images``: how many have labels of it,
    ``empty``: how many have none, both None where the tables do not say; ``coverage``: summed over its concepts, in
    whole images, None if unknown.
    """

    name: str
    concepts: int
    images: int | None
    empty: int | None
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


def describe(
    dataset_path: Path,
    n: int = 10,
    note: Note | None = None,
    max_pixels: int | None = None,
    *,
    key: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataInfo:
    """The figures of the data set in ``dataset_path`` with its ``n`` most and least frequent concepts.

    Nothing is decoded: frequencies and coverages are those of its tables. NDError where the tables are faulty;
    ``note`` is told what its files have otherwise than they should, how a folder was understood, and why a pack cannot
    be used. ``key``: of the format, where the folder fits several; ``progress``: of reading the sizes of images.
    """
    dataset = open_folder(dataset_path, max_pixels=max_pixels, key=key, note=note)
    if isinstance(dataset, LabelledFiles):
        dataset.read_sizes(progress)
    figures = dataset.figures()
    pack = find_pack(dataset, note)
    known = np.flatnonzero(figures.images >= 0)
    # Equal frequencies: the lower number first, at both ends.
    rising = known[np.argsort(figures.images[known], kind="stable")].tolist()
    falling = known[np.argsort(-figures.images[known], kind="stable")].tolist()
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
        categories=_categories(dataset, figures),
        most=tuple(_concept(dataset, figures, row) for row in falling[:n]),
        least=tuple(_concept(dataset, figures, row) for row in rising[:n]),
        digest=dataset.tables_digest(),
        pack=None if pack is None else PackInfo(str(pack.folder), pack.bytes, pack.packed),
    )


def _categories(dataset: FolderDataset, figures: Figures) -> tuple[CategoryInfo, ...]:
    """Every category of the data set in report order, those among them of which there is no concept."""
    table = dataset.concepts
    every = table.categories + tuple(name for name in figures.category_images if name not in table.categories)
    categories = []
    for name in report_order(every):
        rows = np.flatnonzero(table.category == every.index(name))
        # Where the category's own coverage is unknown: that of the concepts whose primary category it is.
        coverage = figures.category_coverage.get(name, float(figures.coverage[rows].sum()))
        images = figures.category_images.get(name)
        empty = None if images is None else len(dataset) - images
        categories.append(CategoryInfo(name, len(rows), images, empty, _known(coverage)))
    return tuple(categories)


def _concept(dataset: FolderDataset, figures: Figures, row: int) -> ConceptInfo:
    table = dataset.concepts
    number, images = int(table.number[row]), int(figures.images[row])
    return ConceptInfo(number, table.name[row], table.category_of(row), images, _known(float(figures.coverage[row])))


def _known(amount: float) -> float | None:
    return None if math.isnan(amount) else amount
