"""The labels of a batch of images, as the tally wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.label_arrays import WORD_BYTES, LabelArrays, label_arrays, whole_words


@dataclass(frozen=True)
class LabelBatch:
    """Labels of N images on a grid of H x W, as concept rows + 1 so that 0 is "no concept".

    ``pixels`` (N, H W, M) int16, or int32 where there are more concepts: the labels of each pixel side by side, so
    that a mask pixel finds all of them in one place; ``image_level`` (N, L) int32, padded with 0: labels that cover
    every pixel; ``area`` (N, C + 1) int64, or int32 where it is kept: pixels of each concept in each image;
    ``present`` (N, K) bool: the image holds at least one label of the category; ``group`` (N,) int64: the image group
    that the counts go to.
    """

    pixels: Tensor
    image_level: Tensor
    area: Tensor
    present: Tensor
    group: Tensor

    def words(self) -> Tensor:
        """``pixels`` as (N H W, words), with as many labels in a word as fit."""
        size = min(WORD_BYTES, self.pixels.shape[2] * self.pixels.element_size())
        word = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
        return self.pixels.reshape(-1).view(word).view(self.pixels.shape[0] * self.pixels.shape[1], -1)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken, but for what is small."""
        return self.pixels.nbytes + self.area.nbytes

    def to(self, device: torch.device | str) -> LabelBatch:
        """The same labels on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, images: slice) -> LabelBatch:
        return self._each(lambda tensor: tensor[images])

    def grouped(self, group: Tensor) -> LabelBatch:
        """The same labels, whose counts go to ``group`` (N,) int64."""
        return replace(self, group=group.to(self.group.device))

    def of_images(self, rows: Tensor | None = None) -> LabelBatch:
        """The labels of whole images, for layers of one value an image: a grid of one cell, which holds all of them.

        A concept is in the cell if any pixel of the image, or its image-level label, names it: once, however much of
        the image it covers. ``rows`` (n,) int64: these images alone.
        """
        chosen = self if rows is None else self._each(lambda tensor: tensor.index_select(0, rows))
        held = chosen.area > 0
        count = held.sum(1)
        most = whole_words(int(count.max()) if len(count) else 0, self.pixels.element_size())
        image, concept = held.nonzero(as_tuple=True)  # rising: concept after concept, image after image
        place = torch.arange(len(image), device=count.device) - (count.cumsum(0) - count)[image]
        pixels = self.pixels.new_zeros((len(count), 1, most))
        pixels[image, 0, place] = concept.to(pixels.dtype)
        none = chosen.image_level.new_zeros((len(count), 0))
        return replace(chosen, pixels=pixels, image_level=none, area=held.to(self.area.dtype))

    def _each(self, change: Callable[[Tensor], Tensor]) -> LabelBatch:
        return LabelBatch(**{name: change(tensor) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Labelling:
    """Which labels N images are counted under, in P ways at once, and where to.

    ``labels``: of R images; ``row`` (P, N) int64: the one of them whose labels image n has in way p; ``slot`` (P, N)
    int64: the part of the tally that image n counts for then. The observed labels are one way, whose slot is the
    image's group; each wrong pairing of the null is another, with a slot of its own. ``runs``: :func:`run_lengths` of
    the labels, None where they are not known.
    """

    labels: LabelBatch
    row: Tensor
    slot: Tensor
    runs: Tensor | None = None

    def __getitem__(self, images: slice) -> Labelling:
        return replace(self, row=self.row[:, images], slot=self.slot[:, images])

    def of_images(self) -> Labelling:
        """The same images, counted under the labels of whole images (:meth:`LabelBatch.of_images`)."""
        rows, row = torch.unique(self.row, return_inverse=True)
        return Labelling(self.labels.of_images(rows), row, self.slot)

    @classmethod
    def own(cls, labels: LabelBatch) -> Labelling:
        """Each image under its own labels, for its group."""
        rows = torch.arange(len(labels.group), device=labels.group.device)
        return cls(labels, rows[None], labels.group[None])


def run_lengths(labels: LabelBatch) -> Tensor:
    """(N, H W) uint8: from each pixel on, how many have the same labels, 255 at most. A run may end in a later row.

    ``labels``: on the host, of at least one image.
    """
    words = labels.words().numpy()
    N, pixels = labels.pixels.shape[:2]
    changes = np.zeros(len(words) - 1, bool)
    for word in words.T:  # one by one: numpy is slow along short axes
        changes |= word[1:] != word[:-1]
    kind = np.int32 if len(words) < 2**31 else np.int64
    ends = np.append(np.flatnonzero(changes) + 1, len(words)).astype(kind)
    left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(words), dtype=kind)
    return torch.from_numpy(np.minimum(left, 255).astype(np.uint8).reshape(N, pixels))


def label_batch(
    maps: Sequence[npt.NDArray[np.integer]],
    image_level: Sequence[Sequence[int]],
    category: npt.NDArray[np.int32],
    categories: int,
    *,
    once: bool = True,
    group: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> LabelBatch:
    """The batch of N images' labels, at least one, as :func:`ndissect.engine.data.label_arrays.label_arrays` has them.

    ``group``: of each image, 0 without.
    """
    grid = (int(maps[0].shape[-2]), int(maps[0].shape[-1]))
    batch = from_arrays(label_arrays(maps, image_level, category, categories, grid, once=once))
    return (batch if group is None else batch.grouped(torch.tensor(list(group), dtype=torch.int64))).to(device)


def from_arrays(arrays: LabelArrays) -> LabelBatch:
    """The same labels as tensors, which share the arrays' memory, in group 0."""
    tensors = {name: torch.from_numpy(array) for name, array in vars(arrays).items()}
    return LabelBatch(**tensors, group=torch.zeros(len(arrays.area), dtype=torch.int64))
