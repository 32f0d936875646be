"""All that is known of units, as columns and as JSON values, under one header: what exports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import report_order
from ndissect.store.evidence import NUMBERS, TRAIN, VAL
from ndissect.store.layer_view import LayerView
from ndissect.store.marks import marks_json
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.views import evidence_line, marks, protocol_line

#: A column: numbers, where NaN is unknown, or texts as objects, where None is.
Values = npt.NDArray[Any]


def header(store: Store, layers: Sequence[LayerView]) -> dict[str, Any]:
    """What every table says of its numbers, as JSON values: protocol, threshold, null, split; and where they are from.

    ``null``: how many wrong pairings of masks and labels, 0 for none; ``split``: the image groups that labels are
    chosen on and tried on, None where there are no such groups; ``marks``: what is wrong with the layers' numbers.
    """
    return {
        "store": str(store.path),
        "units": "counted from 0",
        "protocol": store.protocol.to_json(),
        "threshold": DETECTOR_IOU,
        "null": max((view.pairings for view in layers), default=0),
        "split": [TRAIN, VAL] if {TRAIN, VAL} <= set(store.groups) else None,
        "marks": marks_json([mark for view in layers for mark in view.marks]),
        "notes": [*marks(layers), protocol_line(store.protocol), evidence_line(store)],
        "provenance": store.provenance,
    }


def evidence_json(view: LayerView, unit: int) -> dict[str, Any]:
    """The evidence for a unit's label; NaN where unknown, None for no held-out label."""
    evidence = view.evidence
    row = int(evidence.heldout_concept[unit])
    numbers = {name: float(getattr(evidence, name)[unit]) for name in NUMBERS}
    return numbers | {"heldout_label": view.store.concepts.label(row) if row >= 0 else None}


def unit_columns(layers: Sequence[LayerView]) -> dict[str, Values]:
    """One row a unit of ``layers``: label, IoU and the counts behind it, evidence, statistics, each category's best.

    Concepts are named as reports show them; ``concept_number`` is their number in the data set, -1 for none;
    ``intersection``, ``area``, ``concept_area`` are I, A and C in pixels. The best of a category: ``<category>-label``,
    ``-concept_number``, ``-iou``, ``-intersection``, ``-area``, ``-concept_area``.
    """
    parts = [_columns(view) for view in layers]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _columns(view: LayerView) -> dict[str, Values]:
    concepts, best, evidence, statistics = view.store.concepts, view.best, view.evidence, view.statistics
    label, value = view.labels
    number = np.append(concepts.number, -1)
    concept_area = np.append(view.store.concept_counts.area.sum(0), 0)
    own = np.append(concepts.category, -1)[label]  # the category whose best is the label
    u, K = np.arange(view.units), len(concepts.categories)

    labels = np.array([*map(concepts.label, range(len(concepts))), None], object)
    categories = np.array([*concepts.categories, None], object)

    def behind_label(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(label >= 0, counts[u, own], 0) if K else np.zeros(len(u), np.int64)

    found: dict[str, Values] = {
        "layer": np.full(view.units, view.name, object),
        "unit": u.astype(np.int32),
        "label": labels[label],
        "category": categories[own],
        "iou": value,
        "concept_number": number[label],
        "intersection": behind_label(best.intersection),
        "area": behind_label(best.area),
        "concept_area": concept_area[label],
        **{name: getattr(evidence, name) for name in NUMBERS},
        "heldout_label": labels[evidence.heldout_concept],
        "threshold": statistics.threshold,
        "dead": statistics.dead,
        "nan": statistics.nan,
        "inf": statistics.inf,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
    }
    for category in report_order(concepts.categories):
        k = concepts.categories.index(category)
        rows = best.concept[:, k]
        found |= {
            f"{category}-label": labels[rows],
            f"{category}-concept_number": number[rows],
            f"{category}-iou": best.iou[:, k],
            f"{category}-intersection": best.intersection[:, k],
            f"{category}-area": best.area[:, k],
            f"{category}-concept_area": concept_area[rows],
        }
    return found
