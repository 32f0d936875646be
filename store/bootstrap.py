"""Intervals by resampling images: every count is kept for a fixed number of image blocks, which are drawn anew.

Blocks rather than images, so that what is kept does not grow with the data, and shards and machines still add up.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import BLOCKS, PER_CATEGORY, Blocks, ConceptCounts, Ints, LayerCounts, Leading
from ndissect.store.scores import Floats, iou, unit_ious

RESAMPLES = 1000
# Units that are resampled at a time: (resamples, units, concepts) float64 in memory.
_UNITS_AT_A_TIME = 64
_SEED = 0


def block_of(name: str) -> int:
    """The block of the image ``name``: the same on every machine, and independent of the train/val rule."""
    digest = hashlib.md5(f"block {name}".encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % BLOCKS


def leading(
    counts: LayerCounts,
    concepts: ConceptCounts,
    category: npt.NDArray[np.int32],
    categories: int,
    union: str,
    *,
    dead: npt.NDArray[np.bool_],
    min_images: int = 0,
) -> Leading:
    """The concepts of each category with the largest IoUs over all blocks, of counts that are split into blocks."""
    B, U = counts.area.shape
    allowed = concepts.images.sum(0) >= min_images
    concept = np.full((U, categories, PER_CATEGORY), -1, np.int32)
    intersection = np.zeros((U, B, categories, PER_CATEGORY), np.int64)
    concept_area = concepts.area.sum(0)
    for start in range(0, U, _UNITS_AT_A_TIME):
        units = slice(start, min(start + _UNITS_AT_A_TIME, U))
        by_block = np.asarray(counts.intersection[:, units], np.int64)
        value = unit_ious(
            by_block.sum(0),
            counts.area[:, units].sum(0),
            counts.area_in_category[:, units].sum(0),
            concept_area,
            category,
            union,
        )
        value[:, ~allowed] = 0
        value[dead[units]] = 0
        u = np.arange(value.shape[0])[:, None]
        for k in range(categories):
            rows = np.flatnonzero(category == k)
            order = np.argsort(-value[:, rows], axis=1, kind="stable")[:, :PER_CATEGORY]  # equals: the lower number
            best = rows[order]
            won = value[u, best] > 0
            n = best.shape[1]
            concept[units, k, :n] = np.where(won, best, -1)
            by_rank = by_block.transpose(1, 0, 2)[u, :, best].swapaxes(1, 2)  # (u, B, n)
            intersection[units, :, k, :n] = np.where(won[:, None], by_rank, 0)
    area = counts.area_in_category if union == "within-category" else np.repeat(counts.area[:, :, None], categories, 2)
    return Leading(concept, intersection, np.ascontiguousarray(area.transpose(1, 0, 2)))


def resamples(images: Ints, count: int = RESAMPLES) -> Ints:
    """(count, B) int64: how often each block is drawn, with replacement, as often as there are blocks with images.

    The same for every store with the same blocks, so that differences between stores are of the same images.
    """
    there = np.flatnonzero(images > 0)
    found = np.zeros((count, len(images)), np.int64)
    if len(there):
        random = np.random.default_rng(_SEED)
        found[:, there] = random.multinomial(len(there), np.full(len(there), 1 / len(there)), size=count)
    return found


def resampled_ious(found: Leading, blocks: Blocks, weights: Ints, units: slice) -> Floats:
    """(R, u, K, 3) float64: the IoU of each leading concept of some units in each resample (R, B)."""
    chosen = found.concept[units]
    u, K, n = chosen.shape
    B = weights.shape[1]
    i = weights @ found.intersection[units].transpose(1, 0, 2, 3).reshape(B, -1)
    a = weights @ found.area[units].transpose(1, 0, 2).reshape(B, -1)
    c = np.append(weights @ blocks.concept_area, np.zeros((len(weights), 1), np.int64), 1)[:, chosen]
    return iou(i.reshape(-1, u, K, n), a.reshape(-1, u, K, 1), c)


def _levels(blocks: int) -> tuple[float, float]:
    """The percentiles between which 95 % of an estimate from so many blocks lie.

    Percentiles of resamples are too narrow for few blocks, as a normal distribution is where Student's t is meant;
    those that match t make up for it (Hesterberg, 2015, section 4.2 of arXiv 1411.5279).
    """
    normal, freedom = NormalDist(), blocks - 1
    z = normal.inv_cdf(0.975)
    # Student's t by its expansion in the normal quantile (Fisher and Cornish).
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    outside = normal.cdf(-t * (blocks / freedom) ** 0.5)
    return outside, 1 - outside


def label_intervals(found: Leading, blocks: Blocks, label: npt.NDArray[np.int32]) -> tuple[Floats, Floats, Floats]:
    """A 95 % interval of each label's IoU, lower and upper end, and the share of resamples in which it stays the best.

    ``label`` (U,): concept rows, -1 for none. NaN for units without one, and where fewer than two blocks hold images.
    """
    U = len(label)
    low, high, stability = (np.full(U, np.nan) for _ in range(3))
    there = int((blocks.images > 0).sum())
    if there < 2:
        return low, high, stability
    weights = resamples(blocks.images)
    # Ends further out than 2.5 and 97.5 %, as a normal's are from Student's t: with few blocks percentiles are narrow.
    ends = _levels(there)
    for start in range(0, U, _UNITS_AT_A_TIME):
        units = slice(start, min(start + _UNITS_AT_A_TIME, U))
        chosen = found.concept[units].reshape(units.stop - units.start, -1)
        value = resampled_ious(found, blocks, weights, units).reshape(len(weights), *chosen.shape)
        order = np.argsort(np.where(chosen < 0, np.iinfo(np.int32).max, chosen), axis=1, kind="stable")
        chosen = np.take_along_axis(chosen, order, 1)
        value = np.take_along_axis(value, order[None], 2)  # by number: argmax then takes the lowest of equals
        mine = chosen == label[units, None]
        known = (label[units] >= 0) & mine.any(1)
        at = mine.argmax(1)
        own = np.take_along_axis(value, at[None, :, None], 2)[:, :, 0]
        winner = value.argmax(2)
        low[units], high[units] = np.where(known, np.quantile(own, ends, axis=0), np.nan)
        stability[units] = np.where(known, ((winner == at) & (own > 0)).mean(0), np.nan)
    return low, high, stability
