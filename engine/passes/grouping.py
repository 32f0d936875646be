"""Which group of images each count goes to: train or val, and within them one of the blocks that intervals need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.store.bootstrap import block_of
from ndissect.store.counts import BLOCKS, Blocks, ConceptCounts, Ints, LayerCounts
from ndissect.store.evidence import TRAIN, VAL


@dataclass(frozen=True)
class Grouping:
    """The image groups that a store holds, each of them in ``blocks`` blocks (1: counts are not kept by block).

    ``names``: of the groups; ``of`` (N,) int64: the group of each image as the tally counts it. Group g of a tally is
    block ``g % blocks`` of ``names[g // blocks]``.
    """

    names: tuple[str, ...]
    blocks: int
    of: Tensor

    @property
    def count(self) -> int:
        """How many groups a tally counts into."""
        return len(self.names) * self.blocks

    def named(self, counts: Ints) -> Ints:
        """Counts (G, ...) by name alone."""
        return np.asarray(counts.reshape(len(self.names), self.blocks, *counts.shape[1:]).sum(1))

    def by_block(self, counts: Ints) -> Ints:
        """Counts (G, ...) by block alone."""
        return np.asarray(counts.reshape(len(self.names), self.blocks, *counts.shape[1:]).sum(0))

    def named_layer(self, counts: LayerCounts) -> LayerCounts:
        """A layer's counts by name alone."""
        return LayerCounts(
            self.named(counts.intersection), self.named(counts.area), self.named(counts.area_in_category)
        )

    def named_concepts(self, counts: ConceptCounts) -> ConceptCounts:
        """The labels' counts by name alone."""
        return ConceptCounts(self.named(counts.area), self.named(counts.images))

    def what_blocks_hold(self, counts: ConceptCounts, images: Ints) -> Blocks | None:
        """What the labels hold by block, from counts of ``images`` (G,); None where nothing is counted by block."""
        if self.blocks != BLOCKS:
            return None
        return Blocks(self.by_block(images), self.by_block(counts.area), self.by_block(counts.images))


def group_images(dataset: ConceptDataset, *, by_block: bool) -> Grouping:
    """The groups of a data set: train and val where it has both, else all; ``by_block``: each in blocks."""
    blocks = BLOCKS if by_block else 1
    split = {TRAIN, VAL} <= set(dataset.splits)
    names = (TRAIN, VAL) if split else ("all",)
    of = np.array([names.index(s) for s in dataset.splits] if split else [0] * len(dataset), np.int64) * blocks
    if by_block:
        of += np.array([block_of(name) for name in dataset.names], np.int64)
    return Grouping(names, blocks, torch.from_numpy(of))


def ungrouped(images: int) -> Grouping:
    """All images in one group."""
    return Grouping(("all",), 1, torch.zeros(images, dtype=torch.int64))
