"""From counts to labels: IoU, the best concept of each category, detectors, and both counts of unique detectors.

Everything here is plain numpy on the store's integers, so every view and export recomputes the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import ConceptCounts, Ints, LayerCounts

#: A unit whose best IoU exceeds this is a detector (CVPR 2017, section 3).
DETECTOR_IOU = 0.04
#: A label that rests on fewer images than this often wins by chance; summaries say how many do.
FEW_IMAGES = 10

Floats = npt.NDArray[np.float64]
# The best of all concepts is looked for in so many counts at a time: what it computes with then stays in the cache.
_COUNTS_AT_A_TIME = 1 << 18


def iou(intersection: npt.ArrayLike, area: npt.ArrayLike, concept_area: npt.ArrayLike) -> Floats:
    """I / (A + C - I) as float64, 0 where the concept covers nothing; the arguments broadcast."""
    i, a, c = (np.asarray(x, np.float64) for x in (intersection, area, concept_area))
    union = a + c - i
    return np.divide(i, union, out=np.zeros(union.shape), where=(union > 0) & (c > 0))


@dataclass(frozen=True)
class Best:
    """The best concept of every category for each unit.

    ``concept`` (U, K) int32: its row in the concept table, -1 where none reaches an IoU above 0 or the unit is dead;
    ``intersection``, ``area`` (U, K) int64: I and A behind it, -1 where only the IoU is known; ``iou`` (U, K) float64.
    The largest IoU wins, among equals the lower concept number.
    """

    concept: npt.NDArray[np.int32]
    intersection: Ints
    area: Ints
    iou: Floats


def unit_ious(
    intersection: Ints,
    area: Ints,
    area_in_category: Ints,
    concept_area: Ints,
    category: npt.NDArray[np.int32],
    union: str,
) -> Floats:
    """IoU of each unit with each concept, (U, C), from (U, C), (U,), (U, K), (C,) counts and C categories."""
    denominator_area = area_in_category[:, category] if union == "within-category" else area[:, None]
    return iou(intersection, denominator_area, concept_area[None, :])


def best_per_category(
    counts: LayerCounts,
    concepts: ConceptCounts,
    category: npt.NDArray[np.int32],
    categories: int,
    union: str,
    *,
    dead: npt.NDArray[np.bool_],
    min_images: int = 0,
    group: int | None = None,
) -> Best:
    """The best concept of each category for each unit of a layer.

    ``category`` (C,) is each concept's category; ``union`` is ``within-category`` or ``all-images``; concepts held by
    fewer than ``min_images`` images cannot win; ``group`` picks one image group, None adds all of them.
    """

    def pick(x: Ints, units: slice | None = None) -> Ints:
        chosen = x if units is None else x[:, units]
        return np.asarray(chosen.sum(0) if group is None else chosen[group], np.int64)

    U = counts.area.shape[1]
    concept_area, images = pick(concepts.area), pick(concepts.images)
    allowed = images >= min_images
    area = pick(counts.area_in_category)
    if union != "within-category":
        area = np.repeat(pick(counts.area)[:, None], categories, axis=1)
    best = Best(
        np.full((U, categories), -1, np.int32), np.zeros((U, categories), np.int64), area, np.zeros((U, categories))
    )
    step = max(1, _COUNTS_AT_A_TIME // max(len(category), 1))
    for start in range(0, U, step):
        intersection = pick(counts.intersection, slice(start, min(start + step, U)))
        # An IoU is above 0 where I is, which of units that seldom fire is with few concepts.
        u, c = np.nonzero(intersection)
        counted = allowed[c] & ~dead[start + u]
        u, c = u[counted], c[counted]
        both, k = intersection[u, c], category[c]
        u += start
        value = iou(both, area[u, k], concept_area[c])
        np.maximum.at(best.iou, (u, k), value)
        won = np.flatnonzero((value == best.iou[u, k]) & (value > 0))[::-1]  # the last that is written stays
        best.concept[u[won], k[won]] = c[won]  # the first of equals: the lower number
        best.intersection[u[won], k[won]] = both[won]
    return best


def best_of_ious(ious: Floats, category: npt.NDArray[np.int32], categories: int) -> Best:
    """The best concept of each category for each unit by IoUs (U, C) alone: the counts behind them are -1, unknown."""
    concept = np.full((len(ious), categories), -1, np.int32)
    value = np.zeros(concept.shape)
    for k in range(categories):
        rows = np.flatnonzero(category == k)
        if len(rows):
            value[:, k] = ious[:, rows].max(1)
            first = rows[ious[:, rows].argmax(1)]
            concept[:, k] = np.where(value[:, k] > 0, first, -1)
    unknown = np.full(concept.shape, -1, np.int64)
    return Best(concept, unknown, unknown.copy(), value)


def label_units(best: Best) -> tuple[npt.NDArray[np.int32], Floats]:
    """Each unit's label and its IoU: the best over all categories, (U,) int32 (-1: none) and (U,) float64."""
    if best.iou.shape[1] == 0:
        return np.full(len(best.iou), -1, np.int32), np.zeros(len(best.iou))
    top = best.iou.max(1)
    tied = (best.iou == top[:, None]) & (best.concept >= 0)
    first = np.where(tied, best.concept, np.iinfo(np.int32).max).min(1)
    return np.where(tied.any(1), first, -1).astype(np.int32), np.where(tied.any(1), top, 0.0)


def detectors(best: Best, above: float = DETECTOR_IOU) -> npt.NDArray[np.bool_]:
    """(U,) bool: the units with an IoU above the threshold in any category."""
    return np.asarray((best.iou > above).any(1))


def unique_per_category(best: Best, above: float = DETECTOR_IOU) -> npt.NDArray[np.int64]:
    """(K,): distinct winners of each category with IoU > ``above``. Their sum is the papers' unique detectors."""
    K = best.concept.shape[1]
    return np.array([_distinct(best.concept[best.iou[:, k] > above, k]) for k in range(K)], np.int64)


def unique_best_label(best: Best, at_least: float = DETECTOR_IOU) -> int:
    """Distinct labels among units with IoU >= ``at_least``: the count of the 2017 authors' HTML report."""
    label, value = label_units(best)
    return _distinct(label[(value >= at_least) & (label >= 0)])


def unique_counts(best: Best, categories: Sequence[str]) -> dict[str, Any]:
    """``unique_per_category`` and ``unique_best_label``, as reports name them, and the first one ``by_category``."""
    per_category = unique_per_category(best)
    return {
        "unique_per_category": int(per_category.sum()),
        "unique_best_label": unique_best_label(best),
        "by_category": {c: int(n) for c, n in zip(categories, per_category, strict=True)},
    }


def _distinct(rows: npt.NDArray[np.int32]) -> int:
    # np.unique would do, but imports numpy.ma for it: ten milliseconds of every look-up.
    return int(np.count_nonzero(np.bincount(rows)))
