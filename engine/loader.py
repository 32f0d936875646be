"""Reading a labelled data set: once to see that all of it is sound, then batch by batch as often as needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ndissect.engine.data.dataset import ConceptDataset, Sample, unusable
from ndissect.engine.in_order import in_order
from ndissect.engine.labels import LabelBatch, label_batch
from ndissect.engine.progress import Progress
from ndissect.engine.tally import ConceptTally
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import resize_labels

#: Decoded images are kept in memory up to this many bytes, so that a small data set is decoded once.
CACHE_BYTES = 2 << 30
# Labels are counted this many images at a time: a call for each would cost more than the counting.
_COUNTED_TOGETHER = 64


@dataclass(frozen=True)
class Survey:
    """What one reading of the whole data set found.

    ``usable``: positions of the images that can be read; ``skipped``: (name, reason) of the others; ``digest``: of
    the names and bytes of all that was read, the same for any order.
    """

    usable: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]
    concepts: ConceptCounts
    digest: str


class Loader:
    """A data set as batches of images and labels on the protocol's grid."""

    def __init__(
        self, dataset: ConceptDataset, protocol: Protocol, workers: int = 0, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.dataset = dataset
        self.protocol = protocol
        self.workers = workers or min(16, os.cpu_count() or 1)
        self.grid = protocol.grid or dataset.grid
        self.usable: tuple[int, ...] = tuple(range(len(dataset)))
        self._cache: dict[int, Sample] = {}
        self._room = cache_bytes
        # Concept number -> concept row + 1; label maps hold 16-bit numbers.
        self._row = np.zeros(1 << 16, np.int32)
        self._row[dataset.concepts.number] = np.arange(1, len(dataset.concepts) + 1)

    def read(self, index: int) -> Sample:
        """Image ``index``, decoded, from memory where it is kept."""
        return self._cache.get(index) or self.dataset.read(index)

    def survey(self, progress: Progress, *, skip_bad: bool = False) -> Survey:
        """Read everything once; NDError on unreadable images unless ``skip_bad`` leaves them out.

        A broken file is found here, before hours of work, and the counts of the labels are taken on the way.
        """
        progress.start("reading", len(self.dataset))
        tally = ConceptTally(len(self.dataset.concepts))
        usable: list[int] = []
        bad: list[tuple[str, str]] = []
        uncounted: list[Sample] = []
        digest = 0
        for index, sample in enumerate(in_order(self._try, range(len(self.dataset)), self.workers, 4 * self.workers)):
            progress.advance(1)
            if isinstance(sample, NDError):
                bad.append((self.dataset.names[index], sample.message))
                continue
            usable.append(index)
            digest = (digest + sample.digest) % 2**128
            self._keep(sample)
            uncounted.append(sample)
            if len(uncounted) == _COUNTED_TOGETHER:
                tally.add(self.labels(uncounted))
                uncounted = []
        if uncounted:
            tally.add(self.labels(uncounted))
        if bad and not skip_bad:
            hint = f"nd data check {self.dataset.root} lists every fault; --skip-bad goes on without these images"
            raise unusable([reason for _, reason in bad], len(self.dataset), hint)
        if not usable:
            raise NDError(f"{self.dataset.root} holds no image that can be used", "nd data check says why")
        self.usable = tuple(usable)
        return Survey(self.usable, tuple(bad), tally.counts(), f"{digest:032x}")

    def _try(self, index: int) -> Sample | NDError:
        try:
            return self.dataset.read(index)
        except NDError as e:
            return e

    def _keep(self, sample: Sample) -> None:
        size = sample.image.nbytes + sample.maps.nbytes
        if size <= self._room:
            self._cache[sample.index] = sample
            self._room -= size

    def batches(self, size: int) -> Iterator[list[Sample]]:
        """The usable images in order, ``size`` at a time."""
        batch: list[Sample] = []
        for sample in in_order(self.read, self.usable, self.workers, 2 * size):
            batch.append(sample)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def rows(self, sample: Sample) -> np.ndarray:
        """The label maps of one image on the grid, as concept rows + 1: (M, H, W) int32."""
        return self._row[resize_labels(sample.maps, self.grid)]

    def labels(self, samples: Sequence[Sample]) -> LabelBatch:
        """The labels of a batch."""
        concepts = self.dataset.concepts
        return label_batch(
            [self.rows(s) for s in samples],
            [[int(self._row[number]) for number in s.labels] for s in samples],
            concepts.category,
            len(concepts.categories),
            once=self.protocol.maps == "once",
        )


def image_tensor(samples: Sequence[Sample]) -> list[torch.Tensor]:
    """The images as uint8 tensors (n, 3, H, W): one tensor where all have one size, else one an image."""
    if len({s.image.shape for s in samples}) == 1:
        return [torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2)]
    return [torch.from_numpy(s.image.copy()).permute(2, 0, 1)[None] for s in samples]
