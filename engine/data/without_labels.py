"""The images of a data set alone: no label map is opened for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import ConceptDataset, Labels, MappedImages, Run, Sample, is_mapped, known_sizes
from ndissect.store.concepts import ConceptTable

NO_CONCEPTS = ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
# Labels that are not there lie on the smallest grid.
_GRID = (1, 1)
_NO_MAPS = np.zeros((0, *_GRID), np.uint16)


@runtime_checkable
class _ImageFiles(Protocol):
    """A data set that reads an image without its labels."""

    def read_image(self, index: int) -> tuple[npt.NDArray[np.uint8], Any]: ...


class WithoutLabels:
    """A ConceptDataset of the images of ``source``, without concepts."""

    def __init__(self, source: ConceptDataset) -> None:
        self.source = source
        self.root, self.name, self.names, self.splits = source.root, source.name, source.names, source.splits
        self.notes, self.concepts, self.grid = source.notes, NO_CONCEPTS, _GRID

    @property
    def largest(self) -> int:
        """Of the source."""
        return self.source.largest

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """Decode image ``index``; NDError where it cannot be read."""
        source = self.source
        image = source.read_image(index)[0] if isinstance(source, _ImageFiles) else source.read(index).image
        return Sample(index, self.names[index], image, _NO_MAPS, (), 0)

    def read_labels(self, index: int) -> Labels:
        """No labels."""
        return Labels(index, _NO_MAPS, ())

    @property
    def mapped(self) -> bool:
        """Whether the images lie decoded in mapped files."""
        return is_mapped(self.source)

    def read_run(self, images: Sequence[int]) -> Run | None:
        """Images at once, where they lie one after another (MappedImages)."""
        run = self.source.read_run(images) if isinstance(self.source, MappedImages) else None
        return None if run is None else Run(run.pixels, [_NO_MAPS] * len(images), [()] * len(images), run.digests)

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """SizedImages.known_sizes of the source."""
        return known_sizes(self.source)

    def tables_digest(self) -> str:
        """Of the source's tables."""
        return self.source.tables_digest()
