"""How far a unit's label can be trusted: against chance, on images that did not choose it, and by a second measure.

Everything here is plain numpy on what was counted, as in :mod:`ndissect.store.scores`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import ConceptCounts, Ints, LayerCounts
from ndissect.store.scores import Best, Floats, best_per_category, iou, label_units

#: A detector is told from chance where its q is below this: of those, about one in twenty is expected to be chance.
SIGNIFICANT = 0.05
# The fewest of the null's highest values that tell how it falls off, and how far beyond them that is believed: down to
# a p of one part in so many of what counting alone could resolve.
_TAIL = 10
_BEYOND = 10
#: The image groups that a label is chosen on, and tried on.
TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Evidence:
    """What is known of the labels of a layer's U units, (U,) each; NaN where unknown, -1 for no concept.

    ``p``: how often chance reaches the label's IoU, with all concepts to choose from (:func:`chance`); ``q``: the same
    with all units to choose from (:func:`false_discovery_rate`); ``iou_low``, ``iou_high``: a 95 % interval of the
    label's IoU, and ``stability``: the share of resamples in which the label stays the best
    (ndissect.store.bootstrap); ``heldout_concept``: the label by the train images alone, ``train_iou``: its IoU there,
    ``heldout_iou``: its IoU on the val images (:func:`held_out`); ``auprc``: the average precision with which the
    unit's peak activation finds the images that hold its label, ``base_rate``: what chance reaches, their share.
    """

    p: Floats
    q: Floats
    iou_low: Floats
    iou_high: Floats
    stability: Floats
    heldout_concept: npt.NDArray[np.int32]
    train_iou: Floats
    heldout_iou: Floats
    auprc: Floats
    base_rate: Floats


#: The fields of :class:`Evidence` that are numbers.
NUMBERS = tuple(f.name for f in fields(Evidence) if f.name != "heldout_concept")


def no_evidence(units: int) -> Evidence:
    """Evidence of which nothing is known."""
    return Evidence(**{name: np.full(units, np.nan) for name in NUMBERS}, heldout_concept=np.full(units, -1, np.int32))


@dataclass(frozen=True)
class NullBest:
    """The best concept of each of U units when masks are paired with the wrong images' labels, in each of P ways.

    ``concept`` (P, U) int32: a row of the concept table, -1 for none; ``intersection``, ``area``, ``concept_area``
    (P, U) int64: the counts behind its IoU.
    """

    concept: npt.NDArray[np.int32]
    intersection: Ints
    area: Ints
    concept_area: Ints

    @property
    def iou(self) -> Floats:
        """(P, U) float64: the best IoU of each."""
        return iou(self.intersection, self.area, self.concept_area)


def null_best(best: Best, concept_area: Ints) -> tuple[npt.NDArray[np.int32], Ints, Ints, Ints]:
    """Each unit's best concept over all categories with its I, A and C: (U,) each, one row of a :class:`NullBest`."""
    label, _ = label_units(best)
    mine = (best.concept == label[:, None]) & (label >= 0)[:, None]  # in its own category alone
    area = np.append(concept_area, 0)[label]  # -1, no concept, is the 0 at the end
    return label, best.intersection.sum(1, where=mine), best.area.sum(1, where=mine), area


def chance(observed: Floats, null: Floats, live: npt.NDArray[np.bool_]) -> Floats:
    """p (U,): how likely the wrong pairings are to reach each unit's IoU; NaN where not ``live``, or without a null.

    ``observed`` (U,): the IoU of each label, which is the best of all concepts; ``null`` (P, U): the best of all
    concepts under each wrong pairing. So both have searched all concepts.

    Masks in few images reach far higher by chance than masks spread over all images. Each IoU is therefore divided by
    what is usual for its unit: the mean of the unit's other wrong pairings, to which the mean of the layer is added as
    if it were one more. All these ratios together are the null for every unit of the layer.
    """
    p = np.full(len(observed), np.nan)
    observed, null = observed[live], null[:, live]
    if not null.size:
        return p
    pairings, mean = len(null), null.mean()
    if pairings > 1 and mean > 0:
        total = null.sum(0) + mean
        observed, null = observed * (pairings + 1) / total, null * pairings / (total - null)
    p[live] = _share_above(np.sort(null.ravel()), observed)
    return p


def _share_above(null: Floats, value: Floats) -> Floats:
    """The share of the distribution behind ``null`` (N,), which is in rising order, that reaches each value.

    The share is counted, with the value itself as one more of the N. A count cannot resolve values above the highest
    tenth of the null. For them the tail is taken to fall off as a power of the value (Hill, 1975). The power is taken
    smaller than the fitted one, by the error of the fit, and the share is at least a tenth of what N values resolve.
    """
    N = len(null)
    reached = N - np.searchsorted(null, value, "left")
    share = np.asarray((1 + reached) / (1 + N), np.float64)
    k = max(N // 10, _TAIL)
    if N < 2 * k or null[-k - 1] <= 0:
        return share
    start = null[-k - 1]
    power = np.log(null[-k:] / start).mean() * (1 + k**-0.5)
    above = value > start
    if power > 0:
        beyond = (1 + k) / (1 + N) * (value[above] / start) ** (-1 / power)
        share[above] = np.maximum(beyond, 1 / (_BEYOND * (1 + N)))
    return share


def false_discovery_rate(p: Floats) -> Floats:
    """q (U,): the false discovery rate at which each unit's label counts (Benjamini and Hochberg, 1995); NaN as p."""
    q = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def held_out(
    counts: LayerCounts,
    concepts: ConceptCounts,
    groups: tuple[str, ...],
    category: npt.NDArray[np.int32],
    categories: int,
    union: str,
    *,
    dead: npt.NDArray[np.bool_],
    min_images: int = 0,
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """The label that the train images choose, its IoU there, and its IoU on the val images: (U,) each.

    -1 and NaN for units without one, where there is no train or val group, and NaN where no val image holds it.
    """
    U = counts.area.shape[1]
    if TRAIN not in groups or VAL not in groups:
        return np.full(U, -1, np.int32), np.full(U, np.nan), np.full(U, np.nan)
    train, val = groups.index(TRAIN), groups.index(VAL)
    best = best_per_category(
        counts, concepts, category, categories, union, dead=dead, min_images=min_images, group=train
    )
    label, value = label_units(best)
    u = np.flatnonzero(label >= 0)
    c = label[u]
    area = counts.area_in_category[val][u, category[c]] if union == "within-category" else counts.area[val][u]
    train_iou, val_iou = np.full(U, np.nan), np.full(U, np.nan)
    train_iou[u] = value[u]
    concept_area = concepts.area[val][c]
    there = concept_area > 0
    val_iou[u[there]] = iou(counts.intersection[val][u, c], area, concept_area)[there]
    return label, train_iou, val_iou
