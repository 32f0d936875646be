"""How sure a label and its IoU are: every count is kept for a fixed number of image blocks.

Counts are kept by block and not by image. What is kept then does not grow with the data, and shards and machines still
add up.

Two things the blocks cannot tell. The threshold is taken as given. So is the label, though it was chosen on the same
images; the held-out IoU is there for that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import BLOCKS, PER_CATEGORY, Blocks, ConceptCounts, Ints, LayerCounts, Leading
from ndissect.store.intervals import difference_interval, iou_interval, student
from ndissect.store.scores import DETECTOR_IOU, Floats, unit_ious

RESAMPLES = 1000
# Units that are looked at at a time, and resampled: (units, concepts, resamples) float64 in memory, and in the cache.
_UNITS_AT_A_TIME = 64
_RESAMPLED_AT_A_TIME = 16
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
    total: LayerCounts | None = None,
) -> Leading:
    """The concepts of each category with the largest IoUs over all images, of counts that are split into blocks.

    ``total``: the same counts with the blocks added up, where that is known. It may have several groups: then those of
    ``counts`` are the blocks of its first group, after them the blocks of its second, and so on.
    """
    G, U = counts.area.shape
    names, total = (1, counts) if total is None else (len(total.area), total)
    B = G // names

    def by_block(by_group: Ints) -> Ints:
        return np.asarray(by_group.reshape(names, B, *by_group.shape[1:]).sum(0))

    allowed = concepts.images.sum(0) >= min_images
    concept = np.full((U, categories, PER_CATEGORY), -1, np.int32)
    intersection = np.zeros((U, B, categories, PER_CATEGORY), np.int64)
    concept_area = concepts.area.sum(0)
    for start in range(0, U, _UNITS_AT_A_TIME):
        units = slice(start, min(start + _UNITS_AT_A_TIME, U))
        value = unit_ious(
            np.asarray(total.intersection[:, units].sum(0), np.int64),
            total.area[:, units].sum(0),
            total.area_in_category[:, units].sum(0),
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
            by_rank = by_block(counts.intersection[:, start + u, best]).swapaxes(0, 1)  # (u, B, n)
            intersection[units, :, k, :n] = np.where(won[:, None], by_rank, 0)
    within = union == "within-category"
    area = counts.area_in_category if within else np.repeat(counts.area[:, :, None], categories, 2)
    return Leading(concept, intersection, np.ascontiguousarray(by_block(area).transpose(1, 0, 2)))


def label_counts(leading: Leading, blocks: Blocks, label: npt.NDArray[np.int32]) -> tuple[Floats, Floats]:
    """I and the union of each unit's label by block that holds images: (U, b) float64 each, b <= B.

    ``label`` (U,): concept rows, -1 for none. NaN for units whose label is none of their leading concepts.
    """
    U, K, n = leading.concept.shape
    there = blocks.images > 0
    mine = (leading.concept == label[:, None, None]).reshape(U, K * n) & (label >= 0)[:, None]
    u = np.flatnonzero(mine.any(1))
    k, rank = np.divmod(mine[u].argmax(1), n) if len(u) else (u, u)
    i = leading.intersection[u, :, k, rank]
    union = leading.area[u, :, k] + blocks.concept_area[:, label[u]].T - i
    both, either = np.full((U, int(there.sum())), np.nan), np.full((U, int(there.sum())), np.nan)
    both[u], either[u] = i[:, there], union[:, there]
    return both, either


def label_intervals(leading: Leading, blocks: Blocks, label: npt.NDArray[np.int32]) -> tuple[Floats, Floats]:
    """A 95 % interval of each label's IoU (ndissect.store.intervals): lower and upper end, (U,) each.

    ``label`` (U,): concept rows, -1 for none. NaN for units without one, and where fewer than two blocks hold images.
    """
    return iou_interval(*label_counts(leading, blocks, label))


def resamples(images: Ints, count: int = RESAMPLES) -> Ints:
    """(count, B) int64: how often each block is drawn, with replacement, as often as there are blocks with images."""
    there = np.flatnonzero(images > 0)
    drawn = np.zeros((count, len(images)), np.int64)
    if len(there):
        random = np.random.default_rng(_SEED)
        drawn[:, there] = random.multinomial(len(there), np.full(len(there), 1 / len(there)), size=count)
    return drawn


#: What is known by block of the labels of a layer's units: the leading concepts, the blocks, the labels (U,).
Labelled = tuple[Leading, Blocks, npt.NDArray[np.int32]]


def label_differences(first: Labelled, second: Labelled) -> tuple[Floats, Floats]:
    """A 95 % interval of how far the IoU of each unit's label in ``second`` exceeds that in ``first``: (U,) each.

    Both have the same number of units, counted on the same images in the same blocks. What an image does to both does
    not count as a difference. A unit without a label has an IoU of 0 for certain. NaN where :func:`label_intervals` has
    NaN.
    """

    def by_block(leading: Leading, blocks: Blocks, label: npt.NDArray[np.int32]) -> tuple[Floats, Floats]:
        both, either = label_counts(leading, blocks, label)
        both[label < 0], either[label < 0] = 0, 1
        return both, either

    return difference_interval(by_block(*first), by_block(*second))


def label_stability(leading: Leading, blocks: Blocks, label: npt.NDArray[np.int32]) -> Floats:
    """The share of resamples (U,) in which each label is still the best of the unit's leading concepts.

    ``label`` (U,): concept rows, -1 for none. NaN for units without one, and where fewer than two blocks hold images.
    """
    U, K, n = leading.concept.shape
    stability = np.full(U, np.nan)
    if (blocks.images > 0).sum() < 2:
        return stability
    drawn = resamples(blocks.images)
    chosen = leading.concept.reshape(U, K * n)
    mine = (chosen == label[:, None]) & (label >= 0)[:, None]
    lower = chosen < label[:, None]  # among equals the lower number is the label
    known = np.flatnonzero(mine.any(1))
    for start in range(0, len(known), _RESAMPLED_AT_A_TIME):
        units = known[start : start + _RESAMPLED_AT_A_TIME]
        value = resampled_ious(leading, blocks, drawn, units).reshape(len(units), K * n, len(drawn))
        own = value[np.arange(len(units)), mine[units].argmax(1)]
        better = value > own[:, None]
        better |= (value == own[:, None]) & lower[units, :, None]
        stability[units] = ((own > 0) & ~better.any(1)).mean(1)
    return stability


def resampled_ious(leading: Leading, blocks: Blocks, drawn: Ints, units: Ints) -> Floats:
    """(u, K, 3, R) float64: the IoU of each leading concept of some units in each of R resamples, ``drawn`` (R, B)."""
    chosen = leading.concept[units]
    # Sums of pixels are exact in float64, and multiplied far faster.
    weights = np.ascontiguousarray(drawn.T, np.float64)
    concept_area = np.append(blocks.concept_area.T.astype(np.float64), np.zeros((1, len(weights))), 0)  # -1: none
    both = leading.intersection[units].transpose(0, 2, 3, 1).astype(np.float64)
    either = leading.area[units].transpose(0, 2, 1)[:, :, None] + concept_area[chosen] - both
    value, union = (counts.reshape(-1, len(weights)) @ weights for counts in (both, either))
    np.divide(value, np.maximum(union, 1, out=union), out=value)  # without a union there is no intersection
    return value.reshape(*chosen.shape, len(drawn))


@dataclass(frozen=True)
class Resampled:
    """How many unique detectors a layer has in each of R resamples of the image blocks.

    ``per_category`` (R, K) int64, which add up to the papers' count; ``best_label`` (R,) int64; ``blocks``: how many
    blocks hold images.
    """

    per_category: Ints
    best_label: Ints
    blocks: int


def resampled_unique(leading: Leading, blocks: Blocks) -> Resampled | None:
    """The unique detectors in every resample; None where fewer than two blocks hold images.

    Units choose among their leading concepts. The draws are those of :func:`resamples`: two layers that were counted on
    the same images are resampled together.
    """
    there = int((blocks.images > 0).sum())
    if there < 2:
        return None
    drawn = resamples(blocks.images)
    (U, K, _), R, C = leading.concept.shape, len(drawn), blocks.concept_area.shape[1]
    won, labelled = np.zeros((K, R, C), bool), np.zeros((R, C), bool)
    for start in range(0, U, _UNITS_AT_A_TIME):
        units = np.arange(start, min(start + _UNITS_AT_A_TIME, U))
        value = np.moveaxis(resampled_ious(leading, blocks, drawn, units), -1, 0)
        winner, top = _winner(value, leading.concept[units])  # (R, u, K)
        for k in range(K):
            r, u = np.nonzero(top[:, :, k] > DETECTOR_IOU)
            won[k, r, winner[r, u, k]] = True
        best, of_all = _winner(top, winner)  # (R, u)
        r, u = np.nonzero(of_all >= DETECTOR_IOU)
        labelled[r, best[r, u]] = True
    return Resampled(won.sum(2).T.astype(np.int64), labelled.sum(1), there)


def _winner(value: Floats, concept: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], Floats]:
    """The concept with the largest value along the last axis, the lower of equals, and that value."""
    top, none = value.max(-1, initial=0.0), np.iinfo(np.int32).max
    return np.where(value == top[..., None], concept, none).min(-1, initial=none), top


def count_interval(observed: int, resampled: Ints, blocks: int) -> tuple[int, int]:
    """A 95 % interval of a count of unique detectors, or of a difference of two, from ``resampled`` (R,) counts.

    It says how the count would differ on as many other images of the same kind. It does not say what unlimited images
    would give: noise gives units that share a label different labels, and lifts others over the threshold or below it,
    so the count of distinct labels depends on the number of images.

    A resample has that noise twice and only the leading concepts to choose from, so the mean of the resamples is off.
    The interval is therefore centred on the observed count. Its width is the spread of the resamples, widened as
    Student's t for so few blocks is wider than the normal distribution, and rounded outwards to whole numbers. In
    simulations it covers 95 to 100 %. Plain percentiles may leave out the count itself, and reflected ones fail where
    nearly every concept is detected.
    """
    wider = float(student(blocks - 1) / student(np.inf)) * (blocks / (blocks - 1)) ** 0.5
    low, high = observed + wider * np.quantile(resampled - resampled.mean(), (0.025, 0.975))
    return min(int(np.floor(low)), observed), max(int(np.ceil(high)), observed)
