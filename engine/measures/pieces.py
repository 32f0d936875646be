"""Candidates of several batches put together, so that what is done once a batch is done once for many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.measures.cells import Cells

# Cells that are counted together, of all layers: so many that a host's calls do not count beside the work, so few that
# a run can be saved, and tells how far it is, several times a second.
_CELLS = {"cpu": 1 << 18, "cuda": 1 << 20}


def in_pieces(batches: Sequence[CandidateBatch], device: torch.device) -> Iterator[list[CandidateBatch]]:
    """The same batches in order, those together that ``device`` should count at once."""
    some: list[CandidateBatch] = []
    for batch in batches:
        if some and not _fit([*some, batch], _CELLS[device.type]):
            yield some
            some = []
        some.append(batch)
    if some:
        yield some


def _fit(batches: Sequence[CandidateBatch], most: int) -> bool:
    layers = [layer for batch in batches for layer in batch.layers]
    images = sum(len(batch.images) for batch in batches)
    return (
        all(isinstance(layer, Cells) for layer in layers)
        and sum(len(layer) for layer in layers) <= most
        # Flat places in all the cells that there are stay numbers of 32 bits.
        and all(images * math.prod(layer.shape[1:]) < 2**31 for layer in layers)
    )


def together(batches: Sequence[CandidateBatch], device: torch.device) -> CandidateBatch:
    """Batches of :func:`in_pieces` as one: on ``device``, but for a single one, which stays where it is."""
    if len(batches) == 1:
        return batches[0]
    batches = [batch.to(device) for batch in batches]
    images = [image for batch in batches for image in batch.images]
    layers = zip(*(batch.layers for batch in batches), strict=True)
    return CandidateBatch(images, [_joined([c for c in cells if isinstance(c, Cells)]) for cells in layers])


def _joined(parts: Sequence[Cells]) -> Cells:
    a_image = math.prod(parts[0].shape[1:])
    index, images = [], 0
    for cells in parts:
        index.append(cells.index + images * a_image)
        images += cells.shape[0]
    return Cells((images, *parts[0].shape[1:]), torch.cat(index), torch.cat([cells.corners for cells in parts], 1))


def first_images(batch: CandidateBatch, count: int) -> CandidateBatch:
    """The first ``count`` images of a batch, or all where there are fewer."""
    images = batch.images[:count]

    some = slice(len(images))
    return CandidateBatch(
        images, [layer.of_images(some) if isinstance(layer, Cells) else layer[some] for layer in batch.layers]
    )
