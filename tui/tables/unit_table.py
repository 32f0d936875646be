"""All that is known of units, as arrays and as JSON values, under one header: what exports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ndissect.store.concepts import report_order
from ndissect.store.evidence import TRAIN, VAL
from ndissect.store.layer_view import LayerView
from ndissect.store.marks import marks_json
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.columns import Medium, columns_of
from ndissect.tui.tables.remarks import evidence_line, layer_notes, protocol_line
from ndissect.tui.tables.units import Array, Texts, Units, units_json
from ndissect.tui.tables.views import best_json


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
        "notes": [*layer_notes(layers), protocol_line(store.protocol), evidence_line(store)],
        "provenance": store.provenance,
    }


def every_unit_json(view: LayerView) -> list[dict[str, Any]]:
    """The units of a layer with all the evidence for their labels, and the best concept of each category."""
    told = columns_of(Medium.JSON)
    columns = [*told, *(c for c in columns_of(Medium.EXPORT) if c.evidence and c not in told)]
    units = units_json(Units(view.store, [view]), columns)
    return [{**unit, "best": best_json(view, unit["unit"])} for unit in units]


def unit_arrays(layers: Sequence[LayerView]) -> dict[str, Array]:
    """One row a unit of ``layers``: label, IoU and the counts behind it, evidence, statistics, each category's best.

    An array of numbers, where NaN is unknown, or of texts as objects, where None is, by the key of its column.
    Concepts are named as reports show them; ``concept_number`` is their number in the data set, -1 for none;
    ``intersection``, ``area``, ``concept_area`` are I, A and C in pixels, in images for a layer that is judged
    on images. The best of a category: ``<category>-label``,
    ``-concept_number``, ``-iou``, ``-intersection``, ``-area``, ``-concept_area``.
    """
    if not layers:
        return {}
    units = Units(layers[0].store, layers)
    concepts = units.store.concepts
    number = np.append(concepts.number, -1)
    arrays: dict[str, Array] = {}
    for column in units.told(columns_of(Medium.EXPORT)):
        values = units[column]
        arrays[column.key] = values.objects() if isinstance(values, Texts) else values
    for category in report_order(concepts.categories):
        k = concepts.categories.index(category)
        best = {name: units.best(name, k) for name in ("concept", "iou", "intersection", "area")}
        arrays |= {
            f"{category}-label": Texts(units.names, best["concept"]).objects(),
            f"{category}-concept_number": number[best["concept"]],
            f"{category}-iou": best["iou"],
            f"{category}-intersection": best["intersection"],
            f"{category}-area": best["area"],
            f"{category}-concept_area": units.best_concept_area(k),
        }
    return arrays
