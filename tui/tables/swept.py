"""Dissections that differ in their quantile, side by side: detectors, how labels become specific."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store import scores
from ndissect.store.concepts import report_order
from ndissect.store.model import Dissection
from ndissect.store.scores import DETECTOR_IOU


@dataclass(frozen=True)
class AtIoU:
    """Units whose best IoU is above ``iou``, by the category of their label, and both counts of unique detectors."""

    iou: float
    detectors: int
    unique_per_category: int
    unique_best_label: int
    by_category: dict[str, int]


@dataclass(frozen=True)
class Level:
    """A layer at the quantile ``q``, ``at`` each IoU, the rest at the usual one, 0.04.

    ``by_category``: detectors by the category of their label; ``unique_by_category``: unique detectors of each;
    ``coverage``: the share of labelled pixels that the median detector's label covers, a pixel counting once for each
    of its labels (of images, where the layer is judged on them); NaN without detectors.
    """

    q: float
    at: tuple[AtIoU, ...]
    by_category: dict[str, int]
    unique_by_category: dict[str, int]
    coverage: float


@dataclass(frozen=True)
class Change:
    """From one quantile to another: ``both``: units that are detectors at both, ``changed`` of them with another
    label; ``gained``, ``lost``: units that are detectors only at the second, or only at the first.
    """

    start: float
    end: float
    both: int
    changed: int
    gained: int
    lost: int


@dataclass(frozen=True)
class Move:
    """``units`` that are detectors of the category ``start`` at the loosest quantile, and whose label at the strictest
    is of the category ``end``, whatever its IoU; None: they have no label there.
    """

    start: str
    end: str | None
    units: int


@dataclass(frozen=True)
class SweptLayer:
    """A layer from the loosest to the strictest quantile; ``moves``: to other categories, the most frequent first."""

    name: str
    units: int
    levels: tuple[Level, ...]
    changes: tuple[Change, ...]
    moves: tuple[Move, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "layer": self.name,
            "units": self.units,
            "levels": [asdict(level) for level in self.levels],
            "changes": [_ends(asdict(change)) for change in self.changes],
            "moves": [_ends(asdict(move)) for move in self.moves],
        }


def _ends(value: dict[str, Any]) -> dict[str, Any]:
    return {{"start": "from", "end": "to"}.get(name, name): x for name, x in value.items()}


def summed_up(dissections: Sequence[Dissection], ious: Sequence[float]) -> list[SweptLayer]:
    """Every layer at each quantile, ``dissections`` being of the same layers, the loosest first, and each IoU."""
    swept = []
    for i, layer in enumerate(dissections[0].layers):
        labels = [_detected(d, i) for d in dissections]
        ends = list(zip(dissections, labels, strict=True))
        swept.append(
            SweptLayer(
                layer.name,
                len(layer.best.concept),
                tuple(_level(d, i, ious) for d in dissections),
                tuple(
                    _change(float(a.protocol.q), float(b.protocol.q), before, after)
                    for (a, before), (b, after) in pairwise(ends)
                ),
                _moves(dissections, i),
            )
        )
    return swept


def _detected(dissection: Dissection, i: int) -> npt.NDArray[np.int32]:
    """The labels of layer ``i``, -1 for units that are no detectors."""
    label, iou = scores.label_units(dissection.layers[i].best)
    return np.where(iou > DETECTOR_IOU, label, -1)


def _level(dissection: Dissection, i: int, ious: Sequence[float]) -> Level:
    best, concepts = dissection.layers[i].best, dissection.concepts
    label, value = scores.label_units(best)

    def by_name(counts: npt.NDArray[np.int64]) -> dict[str, int]:
        known = dict(zip(concepts.categories, counts.tolist(), strict=True))
        return {category: known[category] for category in report_order(concepts.categories)}

    def detectors(iou: float) -> dict[str, int]:
        return by_name(np.bincount(concepts.category[label[value > iou]], minlength=len(concepts.categories)))

    at = []
    for iou in ious:
        unique = int(scores.unique_per_category(best, iou).sum())
        at.append(AtIoU(iou, int((value > iou).sum()), unique, scores.unique_best_label(best, iou), detectors(iou)))
    area = dissection.concept_counts.judged_on(dissection.layers[i].judged_on).area.sum(0)
    rows = label[value > DETECTOR_IOU]
    coverage = float(np.median(area[rows] / area.sum())) if len(rows) else float("nan")
    unique_by_category = by_name(scores.unique_per_category(best))
    return Level(float(dissection.protocol.q), tuple(at), detectors(DETECTOR_IOU), unique_by_category, coverage)


def _change(start: float, end: float, before: npt.NDArray[np.int32], after: npt.NDArray[np.int32]) -> Change:
    was, is_ = before >= 0, after >= 0
    both = was & is_
    changed = both & (before != after)
    return Change(start, end, *(int(x.sum()) for x in (both, changed, is_ & ~was, was & ~is_)))


def _moves(dissections: Sequence[Dissection], i: int) -> tuple[Move, ...]:
    concepts = dissections[0].concepts
    first, last = _detected(dissections[0], i), scores.label_units(dissections[-1].layers[i].best)[0]
    pairs = Counter(
        (concepts.category_of(a), concepts.category_of(b) if b >= 0 else None)
        for a, b in zip(first.tolist(), last.tolist(), strict=True)
        if a >= 0
    )
    moved = [Move(a, b, n) for (a, b), n in pairs.items() if a != b]
    return tuple(sorted(moved, key=lambda m: (-m.units, m.start, m.end or "")))
