"""The labels of a batch of images, as the tally wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# The widest word that one look-up fetches: four labels of 16 bits.
_WORD_BYTES = 8


@dataclass(frozen=True)
class LabelBatch:
    """Labels of N images on a grid of H x W, as concept rows + 1 so that 0 is "no concept".

    ``pixels`` (N, H W, M) int16, or int32 where there are more concepts: the labels of each pixel side by side, so
    that a mask pixel finds all of them in one place; ``image_level`` (N, L) int32, padded with 0: labels that cover
    every pixel; ``area`` (N, C + 1) int64: pixels of each concept in each image; ``present`` (N, K) bool: the image
    holds at least one label of the category; ``group`` (N,) int64: the image group that the counts go to.
    """

    pixels: Tensor
    image_level: Tensor
    area: Tensor
    present: Tensor
    group: Tensor

    def words(self) -> Tensor:
        """``pixels`` as (N H W, words), with as many labels in a word as fit."""
        size = min(_WORD_BYTES, self.pixels.shape[2] * self.pixels.element_size())
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

    def _each(self, change: Callable[[Tensor], Tensor]) -> LabelBatch:
        return LabelBatch(**{name: change(tensor) for name, tensor in vars(self).items()})


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
    """The batch of N images' labels, given as concept rows + 1.

    ``maps``: N arrays (M_i, H, W), M_i may differ and be 0; ``image_level``: N lists; ``category`` (C,): the category
    of each concept. With ``once`` a pixel counts once for a concept, however many maps, or the whole image's label,
    name it (the 2020 code); without, once for each (2017, NetDissect-Lite).
    """
    N, C = len(maps), len(category)
    most = max(len(m) for m in maps)
    L = max((len(labels) for labels in image_level), default=0)
    H, W = maps[0].shape[-2:]
    kind = np.int16 if C < 2**15 else np.int32
    stacked = np.zeros((N, _whole_words(most, np.dtype(kind).itemsize), H * W), kind)
    whole = np.zeros((N, L), np.int32)
    for n, (layers, labels) in enumerate(zip(maps, image_level, strict=True)):
        stacked[n, : len(layers)] = layers.reshape(len(layers), H * W)
        whole[n, : len(labels)] = labels
    by_map, everywhere = torch.from_numpy(stacked).to(device), torch.from_numpy(whole).to(device)
    if once:
        _count_once(by_map, most, everywhere)
    area = _areas(by_map, everywhere, C + 1)
    in_category = torch.zeros((C + 1, categories), dtype=torch.float32)
    in_category[torch.arange(1, C + 1), torch.from_numpy(category.astype(np.int64))] = 1
    return LabelBatch(
        by_map.transpose(1, 2).contiguous(),
        everywhere,
        area,
        (area > 0).float() @ in_category.to(device) > 0,
        torch.tensor([0] * N if group is None else list(group), dtype=torch.int64, device=device),
    )


def gathered(images: Sequence[tuple[LabelBatch, int]]) -> LabelBatch:
    """The labels of single images, each given as a batch and its place there, as one batch, in group 0."""
    maps = max(batch.pixels.shape[2] for batch, _ in images)
    levels = max(batch.image_level.shape[1] for batch, _ in images)
    first = images[0][0]
    pixels = first.pixels.new_zeros(len(images), first.pixels.shape[1], maps)
    everywhere = first.image_level.new_zeros(len(images), levels)
    for n, (batch, row) in enumerate(images):
        pixels[n, :, : batch.pixels.shape[2]] = batch.pixels[row]
        everywhere[n, : batch.image_level.shape[1]] = batch.image_level[row]
    return LabelBatch(
        pixels,
        everywhere,
        torch.stack([batch.area[row] for batch, row in images]),
        torch.stack([batch.present[row] for batch, row in images]),
        first.group.new_zeros(len(images)),
    )


def joined(batches: Sequence[LabelBatch]) -> LabelBatch:
    """Several labellings of the same N images as one, with more concepts and categories.

    Concept row r of labelling p becomes row p C + r, and category k becomes p K + k.
    """
    first = batches[0]
    N, C = first.area.shape[0], first.area.shape[1] - 1
    wide = C * len(batches) >= 2**15

    def moved(labels: Tensor, p: int) -> Tensor:
        labels = labels.to(torch.int32) if wide else labels
        return torch.where(labels > 0, labels + p * C, 0)

    # Without the maps that pad each labelling to whole words.
    planes = [moved(plane, p) for p, b in enumerate(batches) for plane in b.pixels.unbind(2) if bool(plane.any())]
    nothing = moved(first.pixels.new_zeros(first.pixels.shape[:2]), 0)
    planes += [nothing] * (_whole_words(max(len(planes), 1), nothing.element_size()) - len(planes))
    return LabelBatch(
        torch.stack(planes, 2),
        torch.cat([moved(b.image_level, p) for p, b in enumerate(batches)], 1),
        torch.cat([first.area.new_zeros(N, 1), *(b.area[:, 1:] for b in batches)], 1),
        torch.cat([b.present for b in batches], 1),
        torch.zeros_like(first.group),
    )


def _whole_words(maps: int, size: int) -> int:
    """The number of maps, padded so that a pixel's labels fill whole words."""
    per_word = _WORD_BYTES // size
    return next((n for n in (1, 2, 4) if maps <= n <= per_word), -(-maps // per_word) * per_word)


def _count_once(by_map: Tensor, maps: int, everywhere: Tensor) -> None:
    """Set to 0, in place, each label of a pixel that an earlier map or an image-level label names already."""
    for level in everywhere.T:
        # Where an image has fewer labels, level is 0, and so is what is blanked.
        by_map.masked_fill_(by_map == level[:, None, None], 0)
    for m in range(1, maps):
        for earlier in range(m):
            by_map[:, m].masked_fill_(by_map[:, m] == by_map[:, earlier], 0)


def _areas(by_map: Tensor, everywhere: Tensor, columns: int) -> Tensor:
    """(N, columns) int64: how many pixels of each image each label has; column 0 is 0."""
    N, _, HW = by_map.shape
    first = torch.arange(N, device=by_map.device, dtype=torch.int32)[:, None] * columns
    area = torch.bincount((first + by_map.view(N, -1)).view(-1), minlength=N * columns).view(N, columns)
    for level in everywhere.T.long():
        area.scatter_add_(1, level[:, None], torch.full((N, 1), HW, device=area.device))
    area[:, 0] = 0
    return area
