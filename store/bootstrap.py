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
from ndissect.store.scores import DETECTOR_IOU, Floats, iou, unit_ious

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
    U = len(label)
    stability = np.full(U, np.nan)
    if (blocks.images > 0).sum() < 2:
        return stability
    drawn = resamples(blocks.images)
    for start in range(0, U, _UNITS_AT_A_TIME):
        units = slice(start, min(start + _UNITS_AT_A_TIME, U))
        chosen, mine = leading.concept[units].reshape(units.stop - start, -1), label[units, None]
        value = resampled_ious(leading, blocks, drawn, units).reshape(len(drawn), *chosen.shape)
        own = np.where(chosen == mine, value, 0).max(2, initial=0, keepdims=True)
        better = (value > own) | ((value == own) & (chosen < mine))  # among equals the lower number is the label
        known = (mine >= 0) & (chosen == mine).any(1, keepdims=True)
        stays = (own[..., 0] > 0) & ~better.any(2)
        stability[units] = np.where(known[:, 0], stays.mean(0), np.nan)
    return stability


def resampled_ious(leading: Leading, blocks: Blocks, drawn: Ints, units: slice) -> Floats:
    """(R, u, K, 3) float64: the IoU of each leading concept of some units in each of R resamples, ``drawn`` (R, B)."""
    chosen = leading.concept[units]
    u, K, n = chosen.shape
    weights = drawn.astype(np.float64)  # sums of pixels are exact in float64, and multiplied far faster
    R, B = weights.shape
    i = weights @ leading.intersection[units].transpose(1, 0, 2, 3).reshape(B, -1).astype(np.float64)
    a = weights @ leading.area[units].transpose(1, 0, 2).reshape(B, -1).astype(np.float64)
    c = np.append(weights @ blocks.concept_area.astype(np.float64), np.zeros((len(weights), 1)), 1)[:, chosen]
    return iou(i.reshape(R, u, K, n), a.reshape(R, u, K, 1), c)


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
        units = slice(start, min(start + _UNITS_AT_A_TIME, U))
        winner, top = _winner(resampled_ious(leading, blocks, drawn, units), leading.concept[units])  # (R, u, K)
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
