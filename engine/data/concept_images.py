"""Which images of a data set hold a concept, how much of them it covers, and where all concepts of an image lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import ConceptDataset, Labels, at_once
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, WrongUse, nearest

#: Is called with (images done, images in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class HeldConcept:
    """A concept in an image: ``row`` of the concepts; ``mask`` (sh, sw) bool: where, on the label grid.

    ``whole``: it is an image-level label, which covers all of the image.
    """

    row: int
    mask: npt.NDArray[np.bool_]
    whole: bool

    @property
    def coverage(self) -> float:
        """The share of the image that it covers, above 0 and up to 1."""
        return float(self.mask.mean())


@dataclass(frozen=True)
class ConceptImage:
    """An image that holds a concept: its ``index`` in the data set, and the share of it that the concept covers."""

    index: int
    coverage: float


@dataclass(frozen=True)
class ConceptImages:
    """The images that hold a concept, the largest share first; ``unreadable``: what is wrong with labels left out."""

    images: tuple[ConceptImage, ...]
    unreadable: tuple[NDError, ...]


def concept_row(concepts: ConceptTable, text: str, category: str | None = None) -> int:
    """The row of the concept that ``text`` names: by its name, as in the data set or as reports show it, or its number.

    ``category``: only concepts of it; ``disc (object)`` says the same. WrongUse with the nearest names where there is
    none, and with the choices where there are several.
    """
    row = find_concept(concepts, text, category)
    if row is not None:
        return row
    if category is not None and category not in concepts.categories:
        known = nearest(category, list(concepts.categories)) or concepts.categories
        raise WrongUse(f"there is no category '{category}'", f"there are: {', '.join(known)}")
    within = "" if category is None else f" of category {category}"
    known = [concepts.label(i) for i in range(len(concepts)) if category in (None, concepts.category_of(i))]
    near = list(dict.fromkeys(nearest(text, known)))
    hint = f"nearest: {', '.join(near)}" if near else "nd data info names the most frequent ones"
    raise WrongUse(f"there is no concept '{text}'{within}", hint)


def find_concept(concepts: ConceptTable, text: str, category: str | None = None) -> int | None:
    """The same; None where there is none of that name or number."""
    wanted = text.casefold()
    rows = [i for i in range(len(concepts)) if category in (None, concepts.category_of(i))]
    for meant in (
        [i for i in rows if concepts.name[i] == text],
        [i for i in rows if wanted in (concepts.name[i].casefold(), concepts.label(i).casefold())],
        [i for i in rows if described(concepts, i).casefold() == wanted],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            choices = ", ".join(f"{described(concepts, i)}, number {concepts.number[i]}" for i in meant[:6])
            raise WrongUse(f"'{text}' is {len(meant)} concepts", f"say which: {choices}")
    if text.isascii() and text.isdigit() and len(text) < 10:
        numbered = [i for i in rows if int(concepts.number[i]) == int(text)]
        return numbered[0] if numbered else None
    return None


def described(concepts: ConceptTable, row: int) -> str:
    """A concept with its category: ``disc (object)``."""
    return f"{concepts.label(row)} ({concepts.category_of(row)})"


def images_of_concept(
    dataset: ConceptDataset,
    row: int,
    *,
    split: str | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> ConceptImages:
    """The images of ``dataset`` that hold the concept ``row``, by the rule by which they are counted.

    A pixel of the label grid holds it where any label map of the image says so; an image-level label covers all pixels.
    ``split``: only images of train or val. Every label map is read; images whose labels cannot be read are left out.
    """
    number = int(dataset.concepts.number[row])
    indices = [i for i in range(len(dataset)) if split in (None, dataset.splits[i])]

    def look(index: int) -> ConceptImage | NDError:
        try:
            labels = dataset.read_labels(index)
        except NDError as error:
            return error
        return ConceptImage(index, coverage(labels, number))

    images, unreadable = [], []
    pool = ThreadPoolExecutor(at_once(dataset, workers or os.cpu_count() or 1))
    try:
        # Threads are enough: decoding and reading leave Python's lock.
        for done, seen in enumerate(pool.map(look, indices), 1):
            if isinstance(seen, NDError):
                unreadable.append(seen)
            elif seen.coverage > 0:
                images.append(seen)
            if progress:
                progress(done, len(indices))
    finally:
        pool.shutdown(cancel_futures=True)
    images.sort(key=lambda image: (-image.coverage, image.index))
    return ConceptImages(tuple(images), tuple(unreadable))


def coverage(labels: Labels, number: int) -> float:
    """The share of the label grid that the concept ``number`` covers."""
    if number in labels.labels:
        return 1.0
    return float((labels.maps == number).any(0).mean()) if len(labels.maps) else 0.0


def held_concepts(dataset: ConceptDataset, labels: Labels) -> list[HeldConcept]:
    """The concepts of an image in the order of the table."""
    numbers = np.unique(np.concatenate([np.unique(labels.maps), np.array(labels.labels, np.uint16)]))
    held = []
    for row in np.flatnonzero(np.isin(dataset.concepts.number, numbers)).tolist():
        number = int(dataset.concepts.number[row])
        whole = number in labels.labels
        mask = np.ones(dataset.grid, bool) if whole else (labels.maps == number).any(0)
        held.append(HeldConcept(row, mask, whole))
    return held


def image_index(names: Sequence[str], text: str) -> int | None:
    """The number of the image that ``text`` names: by its whole name, or by its end where no other ends so.

    ``b.jpg`` and ``b`` mean ``a/b.jpg``. WrongUse where several end so; None where none does.
    """
    if text in names:
        return names.index(text)
    ends = [i for i, name in enumerate(names) if name.endswith(f"/{text}")]
    if not ends and text:
        ends = [i for i, name in enumerate(names) if name.rpartition("/")[2].rpartition(".")[0] == text]
    if len(ends) > 1:
        raise WrongUse(f"'{text}' is {len(ends)} images", f"say which: {', '.join(names[i] for i in ends[:6])}")
    return ends[0] if ends else None
