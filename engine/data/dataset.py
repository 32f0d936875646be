"""What a labelled image data set is to the engine, whatever lies on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.images import BadFile
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError

_SHOW = 5
# What may be decoded before it is asked for: photographs of the usual sizes never reach it.
_DECODED = 512 << 20


@dataclass(frozen=True)
class Sample:
    """One labelled image, decoded.

    ``image`` (H, W, 3) uint8 RGB; ``maps`` (M, sh, sw) uint16: concept numbers, 0 is unlabelled, M may be 0;
    ``labels``: the numbers of the image-level labels, sorted, distinct, never 0; ``digest``: a 128-bit hash of the
    name and of every byte read, to be added up (mod 2**128) into a digest of the whole data set.
    """

    index: int
    name: str
    image: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.uint16]
    labels: tuple[int, ...]
    digest: int


@dataclass(frozen=True)
class Labels:
    """The labels of one image without its photograph, as in Sample."""

    index: int
    maps: npt.NDArray[np.uint16]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Images of one size that lie one after another, with their labels, as in Sample.

    ``pixels`` (n, H, W, 3) uint8; of each image ``maps`` (M, sh, sw) uint16, ``labels`` and ``digests``.
    """

    pixels: npt.NDArray[np.uint8]
    maps: list[npt.NDArray[np.uint16]]
    labels: list[tuple[int, ...]]
    digests: list[int]


class ConceptDataset(Protocol):
    """A densely labelled data set: sized, indexable, safe to read from several threads."""

    root: Path
    name: str
    concepts: ConceptTable
    names: tuple[str, ...]
    """(N,) image names, relative to the data set's image folder."""
    splits: tuple[str, ...]
    """(N,) each ``train`` or ``val``."""
    grid: tuple[int, int]
    """(sh, sw): the size of every label map."""
    notes: tuple[str, ...]
    """What its files have otherwise than they should, yet could be read; told once, when it is opened."""

    @property
    def largest(self) -> int:
        """Bytes that the largest image takes with its label maps, both decoded, at most."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Decode image ``index`` with its labels; NDError names the file and what is wrong with it."""
        ...

    def read_labels(self, index: int) -> Labels:
        """The labels of image ``index``, whatever its photograph is like; NDError as for ``read``."""
        ...

    def tables_digest(self) -> str:
        """Hex digest of the tables (index, labels, categories) that define the data set."""
        ...


@dataclass(frozen=True)
class Figures:
    """What the tables of a data set say of its concepts and categories; nothing is counted.

    ``images`` (C,) int64: how many images hold each concept, -1 where unknown; ``coverage`` (C,) float64: how much of
    them it covers, in whole images, NaN where unknown; ``category_images``: how many images have labels of each
    category; ``category_coverage``: the coverage of all concepts of a category, for those of which it is known.
    """

    images: npt.NDArray[np.int64]
    coverage: npt.NDArray[np.float64]
    category_images: Mapping[str, int]
    category_coverage: Mapping[str, float]


class FolderDataset(ConceptDataset, Protocol):
    """A data set read from its own files: what a format provides, so that it can be packed, described and checked."""

    max_pixels: int
    """An image of more pixels is not read, nor are label maps of one image with more in all."""

    @property
    def image_sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2): the height and width of every image."""
        ...

    def maps_of(self, index: int) -> list[str]:
        """The label maps of image ``index``."""
        ...

    def image_path(self, index: int) -> Path:
        """The file of image ``index``."""
        ...

    def figures(self) -> Figures:
        """How frequent concepts and categories are, by the tables."""
        ...

    def faults(self, index: int) -> Iterator[BadFile]:
        """All that is wrong with image ``index`` and its labels: every file of them is read to its end."""
        ...


@runtime_checkable
class JpegFiles(Protocol):
    """What a data set can do besides, if its photographs are files: give JPEGs without decoding them."""

    def read_encoded(self, index: int) -> Sample:
        """As ``ConceptDataset.read``; the image of a baseline colour JPEG is its bytes, (n,) uint8, not decoded."""
        ...

    def bare_jpeg(self, index: int, side: int, most: int) -> bytes | None:
        """The baseline colour JPEG of image ``index``, without what cameras write into it.

        None where it is none, has more than ``side`` pixels on a side or ``most`` bytes, or cannot be read.
        """
        ...


@runtime_checkable
class MappedImages(Protocol):
    """What a data set can do besides, if its images may lie decoded in files that are mapped into memory."""

    @property
    def mapped(self) -> bool:
        """Whether they do: then nothing is decoded."""
        ...

    def read_run(self, images: Sequence[int]) -> Run | None:
        """These images at once; None where they do not lie one after another in one size, or must be read singly."""
        ...


@runtime_checkable
class SizedImages(Protocol):
    """What a data set can do besides, if its tables tell the sizes of its images."""

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """(N, 2): the height and width of every image; None where they would have to be opened for it."""
        ...


@runtime_checkable
class LabelledImages(Protocol):
    """What a data set can do besides, if its tables say which concepts cover the whole of an image."""

    def image_labels(self, index: int) -> tuple[int, ...]:
        """The image-level labels of image ``index``, as of Sample; no file is opened. NDError where one is unknown."""
        ...


def image_labels(dataset: ConceptDataset, index: int) -> tuple[int, ...]:
    """The image-level labels of image ``index``; its label maps are read where the tables do not say them."""
    if isinstance(dataset, LabelledImages):
        return dataset.image_labels(index)
    return dataset.read_labels(index).labels


def known_sizes(dataset: ConceptDataset) -> npt.NDArray[np.int32] | None:
    """(N, 2): the height and width of every image of ``dataset``, where that is known without opening images."""
    return dataset.known_sizes() if isinstance(dataset, SizedImages) else None


def is_mapped(dataset: ConceptDataset) -> bool:
    """Whether the images of ``dataset`` lie decoded in mapped files."""
    return isinstance(dataset, MappedImages) and dataset.mapped


def at_once(dataset: ConceptDataset, most: int) -> int:
    """How many images of ``dataset`` are decoded and held together: ``most``, or fewer where images are very large."""
    return max(1, min(most, _DECODED // max(1, dataset.largest)))


def unusable(reasons: Sequence[str], images: int, hint: str) -> NDError:
    """The error that images cannot be used: ``reasons`` has one for each of them, of ``images`` in all.

    The message shows the first few reasons.
    """
    listed = "; ".join(reasons[:_SHOW])
    more = f"; and {len(reasons) - _SHOW} more" if len(reasons) > _SHOW else ""
    return NDError(f"{len(reasons)} of {images} images cannot be used: {listed}{more}", hint)
