"""A unit's label, and whether it can be trusted, in a few words: for tables that name many units by their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU, FEW_IMAGES

DEAD, NO_LABEL = "dead", "no label"
# Units that a line names.
_NAMED = 8


def unit_label(view: LayerView | None, unit: int) -> tuple[str, float]:
    """The label of ``unit`` and its IoU; "" and NaN where it has none, and without a ``view``."""
    if view is None:
        return "", math.nan
    row, iou = int(view.labels[0][unit]), float(view.labels[1][unit])
    return (view.store.concepts.label(row), iou) if row >= 0 else ("", math.nan)


def doubts(view: LayerView) -> list[str]:
    """Why the label of each unit cannot be trusted, "" where it can: it has none, it is no better than chance, it does
    not hold on the images that did not choose it, or a handful of images is all that it rests on."""
    label, iou = view.labels
    evidence, images = view.evidence, view.store.concept_counts.images
    known_images = np.append(np.where((images < 0).any(0), FEW_IMAGES, images.sum(0)), FEW_IMAGES)[label]
    q, heldout, chosen = view.known("q"), view.known("heldout_iou"), evidence.heldout_concept
    reasons = [
        (view.statistics.dead, DEAD),
        (label < 0, NO_LABEL),
        (iou <= DETECTOR_IOU, f"IoU at most {DETECTOR_IOU}"),
        (q >= SIGNIFICANT, f"q at least {SIGNIFICANT}: chance reaches it"),
        ((chosen >= 0) & (chosen != label), "train images choose another label"),
        (heldout <= DETECTOR_IOU, f"held out: IoU at most {DETECTOR_IOU} on val"),
        (known_images < FEW_IMAGES, f"fewer than {FEW_IMAGES} images hold it"),
    ]
    said = [""] * view.units
    for holds, why in reversed(reasons):  # the first that holds is told
        for unit in np.flatnonzero(holds).tolist():
            said[unit] = why
    return said


def doubted(label: str, doubt: str) -> str:
    """The label as tables show it: with a question mark where it is not to be trusted."""
    if doubt in (DEAD, NO_LABEL):
        return doubt
    return f"{label}?" if doubt else label


def doubt_lines(units: Iterable[tuple[int, str]]) -> list[str]:
    """The doubts of these (unit, doubt) in words, the units with the same doubt together."""
    by_doubt: dict[str, list[int]] = {}
    for unit, doubt in dict.fromkeys(units):
        if doubt and doubt not in (DEAD, NO_LABEL):
            by_doubt.setdefault(doubt, []).append(unit)
    return [f"? not to be trusted, {why}: {_listed(numbers)}" for why, numbers in by_doubt.items()]


def _listed(units: list[int]) -> str:
    more = f" and {len(units) - _NAMED} more" if len(units) > _NAMED else ""
    return ", ".join(map(str, sorted(units)[:_NAMED])) + more
