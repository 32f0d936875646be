"""The top images of an open store: names, thumbnails and labels, a row of the image table at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ndissect.store import limits, parts
from ndissect.store.hdf5 import Checked
from ndissect.store.stored_group import StoredGroup


@dataclass(frozen=True)
class StoredImage:
    """One top image: where it came from, its JPEG thumbnail, its label maps (M, H, W) and image labels (numbers)."""

    name: str
    index: int
    split: str
    thumbnail: bytes
    label_maps: npt.NDArray[np.uint16]
    labels: tuple[int, ...]

    def truth(self, number: int, grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(H, W) bool: where the image holds concept ``number``; everywhere if it is an image-level label.

        ``grid``: that of the label maps, or (1, 1) for a layer that is judged on images: whether it is anywhere.
        """
        if number in self.labels:
            return np.ones(grid, bool)
        there = np.asarray((self.label_maps == number).any(0))
        return np.full(grid, there.any()) if grid == (1, 1) else there


class StoredImages:
    """The image table of a store; NDError for a row that it does not have, and for one that is damaged.

    ``read`` takes all of an image; the other methods read one thing of it, and less of the file.
    """

    def __init__(self, root: Checked, grid: tuple[int, int] | None) -> None:
        lengths = {"H": grid[0], "W": grid[1]} if grid else {}
        self._group = StoredGroup.inside(root, parts.IMAGES, lengths)

    @cached_property
    def _count(self) -> int:
        return self._group.measure("index")[0]

    def _demand(self, row: int) -> None:
        if not 0 <= row < self._count:
            raise self._group.broken("index", f"has no row {row}")

    def read(self, row: int) -> StoredImage:
        """The image in row ``row``, with its label maps."""
        self._demand(row)
        g = self._group
        labels = g.checked.read("image_labels", g.shape("image_labels"), at=row)
        size = g.dataset("label_maps", chunk=limits.LABEL_BYTES).nbytes // self._count
        g.checked.demand("label_maps", size, limits.LABEL_BYTES)
        return StoredImage(
            name=self.name(row),
            index=int(g.read("index", at=row)),
            split=self.split(row),
            thumbnail=self.thumbnail(row),
            label_maps=g.read("label_maps", at=row, chunk=limits.LABEL_BYTES),
            labels=tuple(int(n) for n in labels if n),
        )

    def name(self, row: int) -> str:
        """The name of the image in row ``row``."""
        self._demand(row)
        return self._group.checked.string("name", self._count, row, limits.IMAGE_NAME)

    def split(self, row: int) -> str:
        """Which split the image in row ``row`` is of."""
        self._demand(row)
        return self._group.checked.string("split", self._count, row)

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail of the image in row ``row``: what should be a JPEG (ndissect.store.jpeg looks)."""
        self._demand(row)
        g = self._group
        ends = g.counts("thumbnail_end", at=slice(max(row - 1, 0), row + 1))
        start, end = int(ends[0]) if row else 0, int(ends[-1])
        size = g.dataset("thumbnails").shape[0]
        if not start <= end <= size:
            raise g.broken("thumbnail_end", f"points outside the thumbnails in row {row}")
        g.checked.demand("thumbnails", end - start, limits.THUMBNAIL)
        return g.read("thumbnails", at=slice(start, end)).tobytes()
