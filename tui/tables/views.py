"""The concepts of units, the units of concepts, and layers: plain rows for the command line and the browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import ConceptTable, report_order
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.selection import Filter, match_concepts


def best_json(view: LayerView, unit: int) -> dict[str, Any]:
    """The best concept of each category for one unit, with the counts behind its IoU."""
    concepts, best = view.store.concepts, view.best
    area = view.concept_counts.area.sum(0)
    best_of: dict[str, Any] = {}
    for category in report_order(concepts.categories):
        k = concepts.categories.index(category)
        row = int(best.concept[unit, k])
        best_of[category] = None if row < 0 else concept_json(
            concepts, row, best.iou[unit, k], best.intersection[unit, k], best.area[unit, k], area[row]
        )  # fmt: skip
    return best_of


def ranked_concepts(
    view: LayerView, unit: int, wanted: Filter | None = None, count: int | None = None
) -> list[dict[str, Any]]:
    """The concepts with an IoU above 0 for one unit that pass the filter, best first, at most ``count`` of them."""
    wanted = wanted or Filter()
    value, intersection, area = view.unit_ious(unit)
    concepts = view.store.concepts
    concept_area = view.concept_counts.area.sum(0)
    rows = match_concepts(concepts, wanted.concept, wanted.categories)
    rows = rows[(value[rows] > 0) & (value[rows] >= wanted.min_iou)]
    order = rows[np.argsort(-value[rows], kind="stable")][:count]
    return [concept_json(concepts, int(c), value[c], intersection[c], area[c], concept_area[c]) for c in order]


def concept_json(concepts: ConceptTable, row: int, value: Any, i: Any, a: Any, c: Any) -> dict[str, Any]:
    """A concept with its IoU ``value`` with a unit, and the counts behind it: I, A and C, None where they are -1."""
    return {
        "concept": concepts.label(row),
        "category": concepts.category_of(row),
        "iou": float(value),
        "intersection": known_count(i),
        "area": known_count(a),
        "concept_area": known_count(c),
    }


def known_count(n: Any) -> int | None:
    """``n``, None where it is -1: a table told IoUs without the counts behind them."""
    return int(n) if n >= 0 else None


def top_images(view: LayerView, unit: int) -> list[dict[str, Any]]:
    """The unit's top images with their peak activations; none where the store holds no images."""
    if not view.has_top:
        return []
    return [
        {"image": view.store.images.name(int(row)), "peak": float(peak)}
        for row, peak in zip(*view.peaks(unit), strict=True)
    ]


def best_unit(view: LayerView) -> tuple[int | None, str, float]:
    """The unit with the largest IoU, its label and IoU; None where no unit has a label."""
    label, value = view.labels
    if not len(value) or not value.max() > 0:
        return None, "", 0.0
    u = int(value.argmax())
    return u, view.store.concepts.label(int(label[u])), float(value[u])


def layer_row(view: LayerView) -> list[Any]:
    """A layer in a table of layers: name, units, detectors, both counts of unique detectors, best unit."""
    s = view.summary()
    u, label, value = best_unit(view)
    best = "-" if u is None else f"{u} {label} {value:.2f}"
    return [view.name, s["units"], s["detectors"], s["unique_per_category"], s["unique_best_label"], best]


@dataclass(frozen=True)
class ConceptDetectors:
    """What the units of L layers detect of C concepts.

    ``units`` (L, C): units of each layer labelled with the concept, with an IoU above what was asked for; ``iou`` (C,):
    the best IoU of any unit labelled so.
    """

    units: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def concept_detectors(layers: Sequence[LayerView], concepts: int, above: float = DETECTOR_IOU) -> ConceptDetectors:
    """Which units of ``layers`` detect each of the store's ``concepts`` with an IoU above ``above``."""
    units, iou = np.zeros((len(layers), concepts), np.int64), np.zeros(concepts)
    for i, view in enumerate(layers):
        label, value = view.labels
        units[i] = np.bincount(label[value > above], minlength=concepts)[:concepts]
        known = label >= 0
        np.fmax.at(iou, label[known], value[known])
    return ConceptDetectors(units, iou)


@dataclass(frozen=True)
class BestUnits:
    """The unit of L layers with the largest IoU for each of C concepts, whether it is labelled with it or not.

    ``layer``, ``unit`` (C,): the first of equals, -1 where no unit has an IoU above 0; ``iou`` (C,): its IoU.
    """

    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def best_units(layers: Sequence[LayerView], concepts: int) -> BestUnits:
    """The best unit of ``layers`` for each of the store's ``concepts``, detector or not."""
    best = BestUnits(np.full(concepts, -1), np.full(concepts, -1), np.zeros(concepts))
    for i, view in enumerate(layers):
        unit, iou = view.best_units
        better = iou > best.iou
        best.layer[better], best.unit[better], best.iou[better] = i, unit[better], iou[better]
    return best


def concept_table(layers: Sequence[LayerView], rows: npt.NDArray[np.int64], above: float) -> list[dict[str, Any]]:
    """For each concept: how many units in ``layers`` are its detectors, and the best unit of all with its IoU.

    Most detectors come first, then the largest IoU.
    """
    if not layers:
        return []
    store = layers[0].store
    units = concept_detectors(layers, len(store.concepts), above).units.sum(0)
    if all(view.descriptions is not None for view in layers):
        return _described(layers, rows)
    best, images = best_units(layers, len(store.concepts)), store.concept_counts.images.sum(0)
    table = [
        {
            "concept": store.concepts.label(int(c)),
            "category": store.concepts.category_of(int(c)),
            "images": int(images[c]),
            "detectors": int(units[c]),
            "best_unit": f"{layers[best.layer[c]].name}:{best.unit[c]}" if best.unit[c] >= 0 else None,
            "iou": float(best.iou[c]),
        }
        for c in rows
    ]
    return sorted(table, key=lambda r: (-r["detectors"], -r["iou"], r["concept"]))


def _described(layers: Sequence[LayerView], rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """The same of descriptions, of which nothing is counted; with ``units``: how many go by each, most first."""
    store = layers[0].store
    nothing = {"images": -1, "detectors": 0, "best_unit": None, "iou": math.nan}
    units = np.zeros(len(store.concepts), np.int64)
    for view in layers:
        label = view.labels[0]
        units += np.bincount(label[label >= 0], minlength=len(units))
    table = [
        {
            "concept": store.concepts.label(int(c)),
            "category": store.concepts.category_of(int(c)),
            **nothing,
            "units": int(units[c]),
        }
        for c in rows
    ]
    return sorted(table, key=lambda r: (-r["units"], r["concept"]))


def units_of_concept(layers: Sequence[LayerView], row: int) -> list[dict[str, Any]]:
    """Every unit with an IoU above 0 with concept ``row``, best first, with the label it goes by.

    Of descriptions that others gave: the units that go by it, their IoU NaN.
    """
    units: list[dict[str, Any]] = []
    for view in layers:
        label, _ = view.labels
        value = view.concept_ious(row)
        described = view.descriptions is not None
        if described:
            value = np.where(label == row, np.nan, 0.0)
        for u in np.flatnonzero(np.isnan(value) if described else value > 0):
            own = int(label[u])
            name = view.store.concepts.label(own) if own >= 0 else None
            units.append({"layer": view.name, "unit": int(u), "iou": float(value[u]), "label": name})
    return sorted(units, key=lambda r: -r["iou"])
