"""The names of a network's outputs where nothing but its images tells them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ndissect.engine.data.class_images import ClassImages, Truth, by_order
from ndissect.store.effects import Classes

# Images on which the network is tried.
_TRIED = 256
# By chance the share of hits lies so many standard errors above 1 / K once in a million times, or less.
_BEYOND_CHANCE = 5.0


def named_by_images(
    images: ClassImages, outputs: int, predicted: Callable[[Sequence[int]], Mapping[int, int]]
) -> tuple[Classes, Truth] | None:
    """The names that ``images`` give to ``outputs`` outputs that have numbers alone, and the images' classes; or None.

    Where images that were given for their classes are of as many, these are taken in their order. Labels of concept
    data are taken where there are as many and the network, by ``predicted``, agrees with them far better than chance.
    """
    if len(images.names) != outputs or outputs < 2:
        return None
    truth = by_order(images)
    if images.given:
        return Classes(images.names, f"{images.said_by}, in their order"), truth
    labelled = [n for n, k in enumerate(truth.number.tolist()) if k >= 0]
    step = max(1, len(labelled) // _TRIED)
    found = predicted(labelled[::step][:_TRIED])
    hits = sum(truth.number[n] == k for n, k in found.items())
    chance = len(found) / outputs
    if hits <= chance + _BEYOND_CHANCE * math.sqrt(chance * (1 - 1 / outputs)) or 2 * hits < len(found):
        return None
    agreed = f"{images.said_by} name the outputs in their order: the network says so of {hits} of {len(found)} images"
    return Classes(images.names, images.said_by), replace(truth, notes=(agreed, *truth.notes[1:]))
