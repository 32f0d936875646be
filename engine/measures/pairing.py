"""The null: the same masks with other images' labels, which tells how well chance does.

An image's mask is paired with the labels of another image of the same source. Across sources a unit that merely tells
one source from another (close-ups from streets) would look like a detector of whatever that source labels, and
categories that a source does not label at all would drop out of the union; within one, what is shuffled is all that a
label can follow beyond its source: which image it is. A unit that fires where roads mostly are, at the bottom of any
street picture, gains nothing on its null by that.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.passes.labels import LabelBatch, gathered, joined
from ndissect.engine.passes.loader import Loader

#: Pairings of the null where nothing else is asked for.
PAIRINGS = 4


def null_images(names: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """(count, N): for each image another of its source, the first folder of its name; every image once a row.

    Fixed: it depends on the names and their order alone. A source of one image is paired with others such; a single
    image left over stays as it is.
    """
    sources: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        sources.setdefault(name.partition("/")[0] if "/" in name else "", []).append(i)
    alone = [i for images in sources.values() if len(images) == 1 for i in images]
    parts = {source: images for source, images in sources.items() if len(images) > 1}
    if alone:
        parts["/"] = alone  # no folder is called so
    paired = np.tile(np.arange(len(names)), (count, 1))
    for source, images in parts.items():
        seed = zlib.crc32(source.encode("utf-8", "surrogateescape"))
        for p in range(count):
            order = np.random.default_rng([p, seed]).permutation(images)
            paired[p, order] = np.roll(order, 1)  # one cycle through all of them: none keeps its own labels
    return paired


class Pairings:
    """``count`` pairings of a data set's images, each with the labels of another one."""

    def __init__(self, loader: Loader, count: int) -> None:
        self.count = count
        self._loader = loader
        self._null_images = null_images(loader.dataset.names, count)

    def labels(self, batches: Sequence[CandidateBatch], labelled: Sequence[CandidateBatch]) -> Iterator[LabelBatch]:
        """The null's labels of each batch's images, of all pairings side by side.

        Labels that ``labelled`` holds, if it holds all that are wanted, are not read again.

        Concept row r of pairing p is row p C + r, category k is p K + k.
        """
        kept = {
            image: (batch.labels, row) for batch in labelled if batch.labels for row, image in enumerate(batch.images)
        }
        if not all(int(i) in kept for batch in batches for i in self._null_images[:, batch.images].ravel()):
            yield from self.labels_of([batch.images for batch in batches])
            return
        for batch in batches:
            yield joined([gathered([kept[int(i)] for i in images]) for images in self._null_images[:, batch.images]])

    def labels_of(self, batches: Sequence[Sequence[int]]) -> Iterator[LabelBatch]:
        """The same for batches of images, read ahead from the data set."""
        wanted = [[int(i) for i in paired] for images in batches for paired in self._null_images[:, list(images)]]
        labels = self._loader.read_labels(wanted, unreadable_as_none=True)
        for _ in batches:
            yield joined([next(labels) for _ in range(self.count)])
