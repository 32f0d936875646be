"""Whole batches of images and their labels, as arrays: what is read for a forward pass, whoever reads it.

Threads of the main process read so, and processes of their own (ndissect.engine.data.decoding_process): without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import ConceptDataset, JpegFiles, MappedImages
from ndissect.engine.data.label_arrays import LabelArrays, label_arrays, label_kind
from ndissect.store import limits
from ndissect.store.errors import NDError
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import resize_labels

#: Gives an array of a shape, uint8, to be filled with pixels.
Allocate = Callable[[tuple[int, ...]], npt.NDArray[np.uint8]]


def in_memory(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An array of ``shape`` in this process's own memory."""
    return np.empty(shape, np.uint8)


@dataclass(frozen=True)
class ReadLabels:
    """The labels of one image, as concept rows + 1: ``rows`` (M, H, W) on the label grid, ``levels``: of all of it."""

    rows: npt.NDArray[np.integer]
    levels: list[int]


@dataclass(frozen=True)
class ReadImage:
    """One image: ``pixels`` (H, W, 3) uint8, or the bytes (n,) of a JPEG; ``digest``: of all that was read."""

    index: int
    pixels: npt.NDArray[np.uint8]
    labels: ReadLabels
    digest: int


@dataclass(frozen=True)
class BatchArrays:
    """Some images with their labels.

    ``images``: their numbers in the data set; ``bad``: (number, what is wrong) of those that cannot be read and are
    left out; ``pixels``: uint8, one array (n, H, W, 3) where all images have one size, else (1, H, W, 3) for each
    image; with JPEGs that are not decoded one for each image, (1, H, W, 3) or their bytes (n,); ``labels``: of these
    images; ``digests``: of what was read of each.
    """

    images: list[int]
    bad: list[tuple[int, NDError]]
    pixels: list[npt.NDArray[np.uint8]]
    labels: LabelArrays
    digests: list[int]


class BatchReader:
    """Reads images of ``dataset`` with their labels on the protocol's grid. It can be sent to another process.

    ``encoded``: JPEGs are not decoded, where the data set can give them so.
    """

    def __init__(self, dataset: ConceptDataset, protocol: Protocol, *, encoded: bool = False) -> None:
        self.dataset, self.encoded = dataset, encoded and isinstance(dataset, JpegFiles)
        self.grid = protocol.grid or dataset.grid
        self._once = protocol.maps == "once"
        # Concept number -> concept row + 1; label maps hold 16-bit numbers.
        self._row = np.zeros(1 << 16, label_kind(len(dataset.concepts)))
        self._row[dataset.concepts.number] = np.arange(1, len(dataset.concepts) + 1)

    def read(self, index: int) -> ReadImage:
        """Image ``index``; NDError where it cannot be read."""
        if self.encoded and isinstance(self.dataset, JpegFiles):
            sample = self.dataset.read_encoded(index)
        else:
            sample = self.dataset.read(index)
        return ReadImage(index, sample.image, self._labels(sample.maps, sample.labels), sample.digest)

    def try_read(self, index: int) -> ReadImage | NDError:
        """Image ``index``, or what is wrong with it."""
        try:
            return self.read(index)
        except NDError as error:
            return error

    def read_labels(self, index: int) -> ReadLabels:
        """The labels of image ``index``; NDError where they cannot be read."""
        labels = self.dataset.read_labels(index)
        return self._labels(labels.maps, labels.labels)

    def try_read_labels(self, index: int) -> ReadLabels:
        """Likewise, but no labels where they cannot be read."""
        try:
            return self.read_labels(index)
        except NDError:
            return ReadLabels(np.zeros((0, *self.grid), self._row.dtype), [])

    def read_batch(self, images: Sequence[int], allocate: Allocate = in_memory) -> BatchArrays:
        """These images in their order; of mapped files at once, where they lie one after another."""
        if isinstance(self.dataset, MappedImages) and not self.encoded:
            run = self.dataset.read_run(images)
            if run is not None:
                pixels = allocate(run.pixels.shape)
                pixels[:] = run.pixels
                read = [self._labels(maps, labels) for maps, labels in zip(run.maps, run.labels, strict=True)]
                return BatchArrays(list(images), [], [pixels], self.label_arrays(read), run.digests)
        return self.together(images, [self.try_read(index) for index in images], allocate)

    def together(
        self, images: Sequence[int], results: Sequence[ReadImage | NDError], allocate: Allocate = in_memory
    ) -> BatchArrays:
        """What :meth:`try_read` gave of these images, as one batch."""
        read = [result for result in results if isinstance(result, ReadImage)]
        bad = [(n, result) for n, result in zip(images, results, strict=True) if isinstance(result, NDError)]
        return BatchArrays(
            [r.index for r in read],
            bad,
            self._pixels([r.pixels for r in read], allocate),
            self.label_arrays([r.labels for r in read]),
            [r.digest for r in read],
        )

    def label_arrays(self, labels: Sequence[ReadLabels]) -> LabelArrays:
        """The labels of some images, one after another."""
        concepts = self.dataset.concepts
        return label_arrays(
            [read.rows for read in labels],
            [read.levels for read in labels],
            concepts.category,
            len(concepts.categories),
            self.grid,
            once=self._once,
        )

    def _pixels(self, images: Sequence[npt.NDArray[np.uint8]], allocate: Allocate) -> list[npt.NDArray[np.uint8]]:
        shapes = {image.shape for image in images}
        if len(shapes) == 1 and not self.encoded:
            whole = allocate((len(images), *next(iter(shapes))))
            np.stack(images, out=whole)
            return [whole]
        copies = []
        for image in images:
            copies.append(allocate(image.shape if image.ndim == 1 else (1, *image.shape)))
            copies[-1][:] = image
        return copies

    def _labels(self, maps: npt.NDArray[np.uint16], labels: Sequence[int]) -> ReadLabels:
        most = min(limits.LABEL_MAPS.most, limits.LABEL_BYTES.most // (2 * self.grid[0] * self.grid[1]))
        if len(maps) > most:
            raise NDError(
                f"an image has {len(maps)} label maps of {self.grid[0]} x {self.grid[1]}, a store holds {most}",
                "choose a coarser grid, for example --grid 112",
            )
        return ReadLabels(np.asarray(self._row[resize_labels(maps, self.grid)]), [int(self._row[n]) for n in labels])
