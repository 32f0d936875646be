"""The labels of a batch of images, as the tally wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelBatch:
    """Labels of N images on the label grid, as concept rows + 1 so that 0 is "no concept".

    ``maps`` (N, M, H, W) int32; ``image_level`` (N, L) int32, padded with 0: labels that cover every pixel;
    ``present`` (N, K) bool: the image holds at least one label of the category; ``group`` (N,) int64: the image group
    that the counts go to.
    """

    maps: Tensor
    image_level: Tensor
    present: Tensor
    group: Tensor

    def to(self, device: torch.device | str) -> LabelBatch:
        """The same labels on ``device``."""
        return LabelBatch(
            self.maps.to(device), self.image_level.to(device), self.present.to(device), self.group.to(device)
        )

    def __getitem__(self, images: slice) -> LabelBatch:
        return LabelBatch(self.maps[images], self.image_level[images], self.present[images], self.group[images])


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
    N, M = len(maps), max(len(m) for m in maps)
    L = max((len(labels) for labels in image_level), default=0)
    H, W = maps[0].shape[-2:]
    stacked = np.zeros((N, M, H, W), np.int32)
    whole = np.zeros((N, L), np.int32)
    present = np.zeros((N, categories), bool)
    seen = np.zeros(len(category) + 1, bool)
    for n, (layers, labels) in enumerate(zip(maps, image_level, strict=True)):
        stacked[n, : len(layers)] = layers
        whole[n, : len(labels)] = labels
        seen[:] = False
        seen[stacked[n].ravel()] = True
        seen[list(labels)] = True
        present[n, category[np.flatnonzero(seen[1:])]] = True
        if once:
            _count_once(stacked[n, : len(layers)], labels)
    return LabelBatch(
        torch.from_numpy(stacked),
        torch.from_numpy(whole),
        torch.from_numpy(present),
        torch.tensor([0] * N if group is None else list(group), dtype=torch.int64),
    ).to(device)


def _count_once(layers: npt.NDArray[np.int32], labels: Sequence[int]) -> None:
    """Blank, in place, what an earlier map or the image's own label already says of a pixel."""
    for label in labels:
        layers[layers == label] = 0
    for m in range(1, len(layers)):
        for earlier in range(m):
            layers[m][layers[m] == layers[earlier]] = 0
