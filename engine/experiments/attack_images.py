"""The images of an attack: such as neither are of the target class nor are taken for it, spread evenly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.passes.forward import failures_of
from ndissect.store.errors import WrongUse

# Steps of the golden ratio: every beginning of the order that it gives is spread evenly.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Chosen:
    """``images``: numbers in the data set, rising; ``truth``: the class of each of them.

    ``least``, ``most`` (C,) float32: the range of each channel of the network's input over these images. ``notes``:
    what the user should know of them.
    """

    images: list[int]
    truth: Mapping[int, int]
    least: Tensor
    most: Tensor
    notes: tuple[str, ...]


def choose(c: Classified, target: int, source: int | None, count: int) -> Chosen:
    """Up to ``count`` images of ``c`` to be attacked towards ``target``; of the class ``source`` alone, where given.

    Neither their class nor what the network predicts is the target (PNAS). WrongUse where there is none.
    """
    candidates = np.asarray(c.images, np.int64)
    if c.truth_from == "images":
        known = c.truth[candidates]
        candidates = candidates[known != target if source is None else known == source]
    order = candidates[np.argsort(np.arange(len(candidates)) * _GOLDEN % 1, kind="stable")].tolist()
    found: dict[int, int] = {}
    ranges: list[tuple[Tensor, Tensor]] = []
    taken_for_target = start = 0
    c.progress.start("choosing images", min(count, len(order)))
    while len(found) < count and start < len(order):
        some = order[start : start + count - len(found)]
        start += len(some)
        for batch in c.batches(some):
            if not len(batch):
                continue
            with torch.no_grad(), failures_of(c.network):
                inputs = c.inputs(batch)
                scores = c.scores(c.network.module(inputs))
            truth, predicted = c.truth_of(batch.images, scores), scores.argmax(1)
            fits = (predicted != target) & (truth != target)
            taken_for_target += int((predicted == target).sum())
            if source is not None:
                fits &= truth == source
            if fits.any():
                ranges.append((inputs[fits].amin((0, 2, 3)), inputs[fits].amax((0, 2, 3))))
            chosen = [n for n, fit in zip(batch.images, fits.tolist(), strict=True) if fit]
            found |= dict(zip(chosen, truth[fits].tolist(), strict=True))
            c.progress.advance(len(chosen))
    if not found:
        raise _nothing(c, target, source, taken_for_target)
    return Chosen(
        sorted(found),
        found,
        torch.stack([low for low, _ in ranges]).amin(0),
        torch.stack([high for _, high in ranges]).amax(0),
        () if len(found) >= count else (f"images that can be attacked: {len(found)}, of {count} that are wanted",),
    )


def _nothing(c: Classified, target: int, source: int | None, taken_for_target: int) -> WrongUse:
    """The error that no image is left to attack."""
    names = c.classes.names
    of = "image" if source is None else f"image of {names[source]}"
    why = f": {taken_for_target} are taken for {names[target]} already" if taken_for_target else ""
    return WrongUse(
        f"no {of} is left to attack towards {names[target]}{why}",
        "neither class nor prediction of an attacked image is the target: name other classes, or --images",
    )
