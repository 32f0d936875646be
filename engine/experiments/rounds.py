"""Measuring in rounds that end in time: fewer rounds, or a part of the images, where all would take too long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Images of the first trial, and how many times more each further one has. They end with one that takes this share of
# the time, and so much longer than the one before that it tells what an image takes.
_FIRST, _GROWTH, _LONG_ENOUGH, _LONGER = 4, 4, 0.05, 1.2
# A first trial that takes more of the time than this is believed, though it also warms the machine up.
_SLOW = 0.33


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """What each round gave, over so many ``images``; ``cut``: what was left out to end in time, empty if nothing."""

    results: list[T]
    images: int
    cut: str


def measure_rounds(
    one: Callable[[int], T],
    images: int,
    rounds: int,
    budget: float,
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds[T]:
    """``rounds`` results of ``one(images)`` in about ``budget`` seconds; at least one, of fewer images if need be.

    Trials of few images come first. They warm the machine up and tell what an image takes.
    """
    began = clock()

    def timed(count: int) -> tuple[T, float]:
        since = clock()
        return one(count), clock() - since

    def left() -> float:
        return budget - (clock() - began)

    tried = min(images, _FIRST)
    result, took = timed(tried)
    an_image = took / tried
    if took < _SLOW * budget:
        result, took = timed(tried)
        an_image, enough = took / tried, False
        while tried < images and not enough and _GROWTH * took < left():
            fewer, shorter, tried = tried, took, min(images, _GROWTH * tried)
            result, took = timed(tried)
            # Some of the time does not depend on the number of images; but what was measured may be off.
            an_image = max((took - shorter) / (tried - fewer), took / tried / _GROWTH)
            enough = took >= _LONG_ENOUGH * budget and took > _LONGER * shorter
    whole = took + an_image * (images - tried)
    count = images if whole <= left() else tried + max(0, int((left() - took) / an_image))
    cut = []
    if count < images:
        cut.append(f"{count:,} of {images:,} images: all would take about {whole:.0f} s a round")
    if count == tried and took > left():
        return Rounds([result], count, "; ".join([*cut, f"1 of {rounds} rounds"] if rounds > 1 else cut))
    results: list[T] = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}, {count:,} images")
        result, took = timed(count)
        results.append(result)
        if number + 1 < rounds and clock() - began + took > budget:
            cut.append(f"{number + 1} of {rounds} rounds: one takes {took:.0f} s")
            break
    return Rounds(results, count, "; ".join(cut))
