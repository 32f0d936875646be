"""From predictions with and without sets of units to counts by class, and how sure the changes are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.experiments.predictions import Predictions
from ndissect.store.counts import BLOCKS, Ints
from ndissect.store.effects import Effects
from ndissect.store.intervals import margin

# Counts by ablation, block and class that are made at a time.
_AT_A_TIME = 1 << 21


def count_effects(
    predictions: Predictions,
    *,
    classes: int,
    splits: tuple[str, ...],
    split: Ints,
    block: Ints,
    origin: Mapping[str, Any],
) -> Effects:
    """The effects of the E sets on K ``classes``, by split.

    ``split``, ``block`` (N,): the row of ``splits`` and the image block of each image of ``predictions``. An interval
    is the change of the balanced accuracy less and plus the jackknife's margin over the blocks. It lies within -1 and
    1, and is just that where all images of a class, or all others, lie in one block; NaN for a class without an image.
    """
    parts = [_of_split(predictions, np.flatnonzero(split == s), block, classes) for s in range(len(splits))]
    counts = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return Effects(units=predictions.sets, splits=splits, origin=origin, **counts)


def _of_split(p: Predictions, rows: Ints, block: Ints, K: int) -> dict[str, npt.NDArray[Any]]:
    """The counts of the images ``rows``, by the names that Effects has for them."""
    truth, plain, block = p.truth[rows].astype(np.int64), p.plain[rows].astype(np.int64), block[rows]
    E = len(p.sets)
    images = np.bincount(block * K + truth, minlength=BLOCKS * K).reshape(BLOCKS, K)
    hits = np.bincount(truth[plain == truth], minlength=K)
    false = np.bincount(plain[plain != truth], minlength=K)
    hits_without, false_without = np.repeat(hits[None], E, 0), np.repeat(false[None], E, 0)
    low, high = np.empty((E, K), np.float32), np.empty((E, K), np.float32)
    some = max(1, _AT_A_TIME // (BLOCKS * K))
    for start in range(0, E, some):
        here = slice(start, min(start + some, E))
        more_hits, more_false = _changes(p.predicted[rows, here], truth, plain, block, K)
        hits_without[here] += more_hits.sum(1)
        false_without[here] += more_false.sum(1)
        low[here], high[here] = _intervals(more_hits, more_false, images)
    return {
        "images": images.sum(0),
        "hits": hits,
        "false": false,
        "hits_without": hits_without,
        "false_without": false_without,
        "score": _mean_by_class(p.plain_score[rows, None], truth, K)[0],
        "score_without": _mean_by_class(p.score[rows], truth, K),
        "low": low,
        "high": high,
    }


def _changes(predicted: npt.NDArray[np.int32], truth: Ints, plain: Ints, block: Ints, K: int) -> tuple[Ints, Ints]:
    """How many more hits and false predictions there are, (E, blocks, K) each: only changed predictions count."""
    E = predicted.shape[1]
    image, ablation = np.nonzero(predicted != plain[:, None])
    to, of, was = predicted[image, ablation].astype(np.int64), truth[image], plain[image]
    cell = (ablation * BLOCKS + block[image]) * K

    def count(where: npt.NDArray[np.bool_], kind: Ints) -> Ints:
        return np.bincount((cell + kind)[where], minlength=E * BLOCKS * K).reshape(E, BLOCKS, K)

    return count(to == of, to) - count(was == of, was), count(to != of, to) - count(was != of, was)


def _intervals(more_hits: Ints, more_false: Ints, images: Ints) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Lower and upper end (E, K) of the change of balanced accuracy; ``images`` (blocks, K)."""
    of = images.sum(0)
    others_in, others = images.sum(1)[:, None] - images, of.sum() - of
    left, others_left = of - images, others - others_in  # of each class, where a block is left out
    single = ((left == 0) | (others_left == 0)).any(0)
    low = np.zeros((len(more_hits), len(of)))
    high = low.copy()
    # Where no prediction of a class has changed, the change is 0 whatever block is left out.
    e, k = np.nonzero(((more_hits != 0) | (more_false != 0)).any(1) & ~single)
    hits, false = more_hits[e, :, k].astype(np.float64), more_false[e, :, k].astype(np.float64)  # (m, blocks)
    value = (hits.sum(1) / of[k] - false.sum(1) / others[k]) / 2
    without = hits.sum(1, keepdims=True) - hits, false.sum(1, keepdims=True) - false
    change = (without[0] / left[:, k].T - without[1] / others_left[:, k].T) / 2 - value[:, None]
    half = margin(change)
    low[e, k], high[e, k] = np.maximum(value - half, -1), np.minimum(value + half, 1)
    low[:, single], high[:, single] = -1, 1
    low[:, (of == 0) | (others == 0)] = high[:, (of == 0) | (others == 0)] = np.nan
    return low, high


def _mean_by_class(score: npt.NDArray[np.float32], truth: Ints, K: int) -> npt.NDArray[np.float32]:
    """(E, K) float32: the mean of ``score`` (N, E) over the images of each class; NaN without an image."""
    order = np.argsort(truth, kind="stable")
    there, first, number = np.unique(truth[order], return_index=True, return_counts=True)
    mean = np.full((score.shape[1], K), np.nan, np.float32)
    if len(there):
        mean[:, there] = (np.add.reduceat(score[order].astype(np.float64), first, axis=0) / number[:, None]).T
    return mean
