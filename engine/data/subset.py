"""A part of a data set that is a data set itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import (
    ConceptDataset,
    JpegFiles,
    Labels,
    MappedImages,
    Run,
    Sample,
    is_mapped,
    known_sizes,
)
from ndissect.engine.data.made_labels import MadeLabels


class Subset:
    """The images ``indices`` of ``dataset``: a ConceptDataset."""

    def __init__(self, dataset: ConceptDataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, list(indices)
        self.root, self.name, self.concepts, self.grid = dataset.root, dataset.name, dataset.concepts, dataset.grid
        self.notes = dataset.notes
        self.names = tuple(dataset.names[i] for i in self._indices)
        self.splits = tuple(dataset.splits[i] for i in self._indices)

    @property
    def largest(self) -> int:
        """Of the whole data set."""
        return self._dataset.largest

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Sample:
        """Decode image ``index`` of the part."""
        return replace(self._dataset.read(self._indices[index]), index=index)

    def read_labels(self, index: int) -> Labels:
        """The labels of image ``index`` of the part."""
        return replace(self._dataset.read_labels(self._indices[index]), index=index)

    @property
    def mapped(self) -> bool:
        """Whether the images of the data set lie decoded in mapped files."""
        return is_mapped(self._dataset)

    def read_run(self, images: Sequence[int]) -> Run | None:
        """Images of the part at once, where they lie one after another in the data set (MappedImages)."""
        dataset = self._dataset
        return dataset.read_run([self._indices[i] for i in images]) if isinstance(dataset, MappedImages) else None

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """(N, 2): the height and width of every image of the part, where those of the whole are known."""
        sizes = known_sizes(self._dataset)
        return None if sizes is None else sizes[self._indices]

    def tables_digest(self) -> str:
        """Of the whole data set's tables."""
        return self._dataset.tables_digest()


class JpegSubset(Subset):
    """The same of a data set whose photographs are files: it gives JPEGs without decoding them, as the whole does."""

    def __init__(self, dataset: ConceptDataset, files: JpegFiles, indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        self._files = files

    def read_encoded(self, index: int) -> Sample:
        """JpegFiles.read_encoded for image ``index`` of the part."""
        return replace(self._files.read_encoded(self._indices[index]), index=index)

    def bare_jpeg(self, index: int, side: int, most: int) -> bytes | None:
        """JpegFiles.bare_jpeg for image ``index`` of the part."""
        return self._files.bare_jpeg(self._indices[index], side, most)


def spread(dataset: ConceptDataset, images: int) -> ConceptDataset:
    """``dataset``, or a part of it with ``images`` images that lie evenly over it."""
    n = len(dataset)
    if images >= n:
        return dataset
    indices = [(2 * i + 1) * n // (2 * images) for i in range(images)]
    if isinstance(dataset, MadeLabels):
        return dataset.part(_part(dataset.source, indices), indices)
    return _part(dataset, indices)


def _part(dataset: ConceptDataset, indices: Sequence[int]) -> ConceptDataset:
    return JpegSubset(dataset, dataset, indices) if isinstance(dataset, JpegFiles) else Subset(dataset, indices)
