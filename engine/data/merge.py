"""Several data sets, of any formats, joined under one concept table and written in Broden's format.

Concepts of one name and category are one. Photographs are linked, or copied where a link cannot be, and never encoded
again; label maps are written anew with the numbers of the joined table, on one grid.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.concept_names import normal_name
from ndissect.engine.data.dataset import FolderDataset, at_once
from ndissect.engine.data.images import numbers_to_rgb
from ndissect.engine.data.index_table import FIXED_COLUMNS
from ndissect.engine.data.merged_tables import MergedImage, write_tables
from ndissect.engine.data.synonyms import Synonyms
from ndissect.store import limits
from ndissect.store.concepts import display_name
from ndissect.store.errors import WrongUse
from ndissect.store.files import atomic_folder
from ndissect.store.upsampling import resize_labels

#: Where label maps lie below images/, which no photograph's name may begin with.
LABELS = "merged_labels"

# What a name in index.csv cannot hold, or would be read otherwise.
_ODD = frozenset('\\:\0\n\r"')


@dataclass(frozen=True)
class JoinedConcept:
    """A concept of the joined table: ``members``: by the place of its data set, the row that it has there."""

    name: str
    category: str
    members: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class MergePlan:
    """How data sets are joined: ``concepts`` are numbered from 1 in their order; ``grid``: of all label maps.

    ``names``: of each data set, its images' names in the joined one; ``renamed``: the data sets whose images got the
    data set's name before theirs; ``numbers``: of each data set, (65536,) uint16: what becomes of its numbers.
    ``several``: names that stand in several categories, with them; ``unused``: synonyms that mean no concept.
    """

    datasets: tuple[FolderDataset, ...]
    concepts: tuple[JoinedConcept, ...]
    categories: tuple[str, ...]
    grid: tuple[int, int]
    names: tuple[tuple[str, ...], ...]
    renamed: tuple[str, ...]
    numbers: tuple[npt.NDArray[np.uint16], ...]
    several: dict[str, list[str]]
    unused: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(map(len, self.datasets))

    @property
    def shared(self) -> list[JoinedConcept]:
        """The concepts that several data sets have."""
        return [concept for concept in self.concepts if len(concept.members) > 1]

    @property
    def joined(self) -> list[JoinedConcept]:
        """The concepts that are several of one data set, by synonyms."""
        return [c for c in self.concepts if any(len(rows) > 1 for rows in c.members.values())]


def plan_merge(datasets: Sequence[FolderDataset], synonyms: Synonyms) -> MergePlan:
    """How ``datasets`` will be joined; nothing is written, and no image read. WrongUse where they cannot be."""
    concepts = _join_concepts(datasets, synonyms)
    most = min(limits.CONCEPTS.most, (1 << 16) - 1)
    if len(concepts) > most:
        raise WrongUse(f"together they have {len(concepts):,} concepts, at most {most:,} are read", "join fewer")
    categories = tuple(dict.fromkeys(concept.category for concept in concepts))
    for category in categories:
        if category in FIXED_COLUMNS or set("/;()") & set(category):
            raise WrongUse(
                f"Broden's format cannot hold a category '{category}'",
                "a synonym gives its concepts another: name = name (thing)",
            )
    named = _member_names(datasets)
    names, renamed = _image_names(datasets, named)
    numbers = [np.zeros(1 << 16, np.uint16) for _ in datasets]
    for number, concept in enumerate(concepts, 1):
        for member, rows in concept.members.items():
            numbers[member][datasets[member].concepts.number[rows]] = number
    by_name: dict[str, list[str]] = {}
    for concept in concepts:
        by_name.setdefault(normal_name(display_name(concept.name, concept.category)), []).append(concept.category)
    known = {name for d in datasets for row in range(len(d.concepts)) for name in _matching(d, row, synonyms)}
    return MergePlan(
        datasets=tuple(datasets),
        concepts=concepts,
        categories=categories,
        grid=max((d.grid for d in datasets), key=lambda grid: grid[0] * grid[1]),
        names=names,
        renamed=renamed,
        numbers=tuple(numbers),
        several={name: where for name, where in by_name.items() if len(where) > 1},
        unused=tuple(sorted(set(synonyms.canonical) - known)),
    )


def write_merged(
    plan: MergePlan, target: Path, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> tuple[int, int]:
    """Write the joined data set to ``target``, whole or not at all; returns photographs linked and copied.

    ``progress`` receives (images done, images in all). NDError names an image or label map that cannot be read, and
    where the disk refuses. WrongUse where ``target`` is there already.
    """
    if os.path.lexists(target):
        raise WrongUse(f"{target} exists", "name another folder with -o")
    every = [(member, index) for member, dataset in enumerate(plan.datasets) for index in range(len(dataset))]
    threads = min(at_once(dataset, workers or os.cpu_count() or 1) for dataset in plan.datasets)
    images: list[MergedImage] = []
    with atomic_folder(target, lambda _: False) as folder:
        pool = ThreadPoolExecutor(threads)
        try:
            for done, image in enumerate(pool.map(lambda one: _write_image(plan, folder, *one), every), 1):
                images.append(image)
                if progress:
                    progress(done, len(every))
        finally:
            pool.shutdown(cancel_futures=True)
        write_tables(folder, [(c.name, c.category) for c in plan.concepts], plan.categories, plan.grid, images)
    linked = sum(image.linked for image in images)
    return linked, len(images) - linked


def _join_concepts(datasets: Sequence[FolderDataset], synonyms: Synonyms) -> tuple[JoinedConcept, ...]:
    joined: dict[tuple[str, str], JoinedConcept] = {}
    for member, dataset in enumerate(datasets):
        table = dataset.concepts
        for row in range(len(table)):
            own = table.category_of(row)
            name, category = synonyms.of(table.label(row), own)
            # Spelled as the data set does, with its endings, unless a synonym says otherwise.
            spelled = table.name[row] if (name, category) == (table.label(row), own) else name
            concept = joined.setdefault((normal_name(name), category), JoinedConcept(spelled, category))
            concept.members.setdefault(member, []).append(row)
    return tuple(joined.values())


def _matching(dataset: FolderDataset, row: int, synonyms: Synonyms) -> set[str]:
    return synonyms.matching(dataset.concepts.label(row), dataset.concepts.category_of(row))


def _member_names(datasets: Sequence[FolderDataset]) -> list[str]:
    """A name for each data set, no two the same, fit to be a folder's."""
    seen: Counter[str] = Counter()
    names = []
    for dataset in datasets:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in dataset.name).strip(".") or "data"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _image_names(
    datasets: Sequence[FolderDataset], named: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Each data set's image names in the joined one, and the data sets whose images had to be renamed."""
    taken: set[str] = set()
    names, renamed = [], []
    for dataset, folder in zip(datasets, named, strict=True):
        prefix, own = folder, list(dataset.names)
        times = Counter(name.casefold() for name in own)
        if any(name in taken for name in times) or any(_odd(name) or times[name.casefold()] > 1 for name in own):
            renamed.append(prefix)
            while any(name.startswith(f"{prefix.casefold()}/") for name in taken):
                prefix += "_"
            own = [
                # Of two that are alike, or that a table cannot name, the number in the data set tells.
                f"{prefix}/{index:06d}{PurePosixPath(name).suffix}"
                if _odd(name) or times[name.casefold()] > 1
                else f"{prefix}/{name}"
                for index, name in enumerate(own)
            ]
        taken |= {name.casefold() for name in own}
        names.append(tuple(own))
    return tuple(names), tuple(renamed)


def _odd(name: str) -> bool:
    parts = name.split("/")
    odd = bool(_ODD & set(name)) or name != name.strip() or any(part in ("", ".", "..") for part in parts)
    return odd or parts[0] == LABELS


def _write_image(plan: MergePlan, folder: Path, member: int, index: int) -> MergedImage:
    """Put one image and its label maps into ``folder``."""
    dataset, name = plan.datasets[member], plan.names[member][index]
    labels, numbers = dataset.read_labels(index), plan.numbers[member]
    photograph = folder / "images" / name
    photograph.parent.mkdir(parents=True, exist_ok=True)
    linked = _place(dataset.image_path(index), photograph)
    maps = numbers[resize_labels(labels.maps, plan.grid)]
    whole = sorted({int(numbers[n]) for n in labels.labels} - {0})
    category_of = np.array([-1, *(plan.categories.index(c.category) for c in plan.concepts)])
    cells: dict[str, str] = {}
    for k, category in enumerate(plan.categories):
        items = [str(n) for n in whole if category_of[n] == k]
        for n, layer in enumerate(_layers(np.where(category_of[maps] == k, maps, 0))):
            path = f"{LABELS}/{member}/{index:06d}_{k}_{n}.png"
            (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbers_to_rgb(layer)).save(folder / "images" / path, "PNG")
            items.append(path)
        cells[category] = ";".join(items)
    height, width = dataset.image_sizes[index].tolist()
    shares = {int(n): float((maps == n).any(0).mean()) for n in np.unique(maps) if n} | dict.fromkeys(whole, 1.0)
    return MergedImage(name, dataset.splits[index], (height, width), cells, shares, linked)


def _layers(maps: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.uint16]]:
    """``maps`` (M, H, W) in as few as hold every label as often as it was given: those that do not overlap are one."""
    layers: list[npt.NDArray[np.uint16]] = []
    for numbers in maps:
        if not numbers.any():
            continue
        for layer in layers:
            if not ((layer > 0) & (numbers > 0)).any():
                np.add(layer, numbers, out=layer)
                break
        else:
            layers.append(numbers.copy())
    return layers


def _place(source: Path, target: Path) -> bool:
    """The photograph at ``target``: True where it is another name of the same file, False where it is a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
        return False
    return True
