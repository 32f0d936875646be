"""Layers side by side: what each detects, what one detects and another does not, and their units one by one.

Concepts are matched by name and category, units by their number. Everything is counted from the stores; what could be
chance is told by intervals, from image blocks that are resampled alike for all stores of the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ndissect.store.bootstrap import Labelled, Resampled, count_interval, label_differences, resampled_unique
from ndissect.store.concepts import ConceptTable, report_order
from ndissect.store.counts import Ints
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.columns import Medium, columns_of
from ndissect.tui.tables.origin import same_data
from ndissect.tui.tables.units import Units, units_json
from ndissect.tui.tables.views import concept_detectors


@dataclass(frozen=True)
class Matched:
    """A concept as it is matched: by name as shown and category; ``nth`` tells apart those that share both."""

    label: str
    category: str
    nth: int = 0


def match_keys(concepts: ConceptTable) -> list[Matched]:
    """The concepts of a table by row, as they are matched."""
    seen: dict[tuple[str, str], int] = {}
    keys = []
    for row in range(len(concepts)):
        label, category = concepts.label(row), concepts.category_of(row)
        nth = seen[label, category] = seen.get((label, category), -1) + 1
        keys.append(Matched(label, category, nth))
    return keys


@dataclass(frozen=True)
class Detected:
    """How many units are a concept's detectors, and the best IoU of a unit that is labelled so."""

    units: int
    iou: float


def detected(views: Sequence[LayerView], keys: Sequence[Matched]) -> dict[Matched, Detected]:
    """What some layers of a store detect of each of its concepts; ``keys``: those, by row."""
    detectors = concept_detectors(views, len(keys))
    both = zip(detectors.units.sum(0).tolist(), detectors.iou.tolist(), strict=True)
    return {key: Detected(units, iou) for key, (units, iou) in zip(keys, both, strict=True)}


class Side:
    """One of the layers that are compared; ``name`` is what it is called beside the others."""

    def __init__(self, name: str, view: LayerView) -> None:
        self.name, self.view, self.store = name, view, view.store

    @cached_property
    def by_block(self) -> Labelled | None:
        """The labels with their counts by image block; None where the store has none."""
        blocks, leading = self.view.blocks, self.view.leading
        return (leading, blocks, self.view.labels[0]) if blocks and leading else None

    @cached_property
    def resampled(self) -> Resampled | None:
        """The unique detectors in every resample of the image blocks; None where these are not there to be drawn."""
        return resampled_unique(*self.by_block[:2]) if self.by_block else None

    @cached_property
    def keys(self) -> list[Matched]:
        """The store's concepts by row."""
        return match_keys(self.store.concepts)

    @cached_property
    def detected(self) -> dict[Matched, Detected]:
        """What the layer detects of them."""
        return detected([self.view], self.keys)

    @property
    def categories(self) -> list[str]:
        """The store's categories in report order."""
        return report_order(self.store.concepts.categories)

    def identity(self) -> dict[str, Any]:
        """Which layer of which store this is."""
        return {"name": self.name, "store": str(self.store.path), "layer": self.view.name}


def different_measures(a: LayerView, b: LayerView) -> str:
    """In words, that the IoUs of two layers are different measures, one being judged on images; "" where they are not.

    The words follow a name of ``a``.
    """
    if a.judged_on == b.judged_on:
        return ""
    return f"is judged on {a.judged_on}, the other on {b.judged_on}: their IoUs are different measures"


def mark(differences: Sequence[dict[str, str]]) -> str:
    """What stands over all that is shown of layers that are not comparable, as ``differences`` has it; "" for others.

    ``differences``: dicts of ``field``, the sides ``a`` and ``b``, ``a_value`` and ``b_value``.
    """

    def short(d: dict[str, str], value: str) -> str:
        return d[value][:_DIGEST] if d["field"].endswith("digest") else d[value]

    told = (f"{d['field']} {d['a']} {short(d, 'a_value')}, {d['b']} {short(d, 'b_value')}" for d in differences)
    said = "; ".join(dict.fromkeys(told))
    return f"NOT COMPARABLE, shown because of --anyway: {said}" if said else ""


def all_categories(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The categories of all ``layers``, as of :func:`side_json`, in report order."""
    return report_order(tuple(dict.fromkeys(c for layer in layers for c in layer["detectors_by_category"])))


# So much of a digest tells two apart for a reader.
_DIGEST = 8
_RULES = ("unique_per_category", "unique_best_label")


def side_json(side: Side) -> dict[str, Any]:
    """A layer's summary, its detectors by the category of their label, and its unique detectors with intervals.

    ``null``: wrong pairings behind q; ``split``: the image groups. ``intervals`` is None where the store has no counts
    by image block; ``bias``: by how many the mean resample exceeds the count, a sign of how a count of distinct labels
    moves with the images.
    """
    label, value = side.view.labels
    concepts, summary = side.store.concepts, side.view.summary()
    of = np.bincount(concepts.category[label[value > DETECTOR_IOU]], minlength=len(concepts.categories))
    about: dict[str, Any] = {
        **side.identity(),
        "protocol": side.store.protocol.to_json(),
        "judged_on": side.view.judged_on,
        "null": side.view.pairings,
        "split": list(side.store.groups),
        "summary": summary,
        "detectors_by_category": {c: int(of[concepts.categories.index(c)]) for c in side.categories},
        "intervals": None,
        "bias": None,
    }
    r = side.resampled
    if r is not None:
        of_category = np.bincount(concepts.category, minlength=len(concepts.categories))

        def interval(count: int, resampled: Ints, most: int) -> tuple[int, int]:
            low, high = count_interval(count, resampled, r.blocks)
            return max(low, 0), min(high, most)

        counts = dict(zip(_RULES, (r.per_category.sum(1), r.best_label), strict=True))
        about["intervals"] = {rule: interval(summary[rule], n, len(concepts)) for rule, n in counts.items()} | {
            "by_category": {
                c: interval(summary["by_category"][c], r.per_category[:, k], int(of_category[k]))
                for c, k in ((c, concepts.categories.index(c)) for c in side.categories)
            }
        }
        about["bias"] = {rule: float(n.mean() - summary[rule]) for rule, n in counts.items()}
    return about


def pair_json(a: Side, b: Side) -> dict[str, Any]:
    """What changes from ``a`` to ``b``: unique detectors, labels gained and lost, units of the same number.

    Intervals are of the same blocks drawn or left out in both, and None unless both were counted on the same images
    and are the same measure.
    ``units`` is None unless the layers have as many.
    """
    return {
        "a": a.identity(),
        "b": b.identity(),
        "same_data": same_data(a.store, b.store),
        "difference": _count_differences(a, b),
        "gained": _only_in(b, a),
        "lost": _only_in(a, b),
        "units": _units(a, b) if a.view.units == b.view.units else None,
    }


def _paired(a: Side, b: Side) -> tuple[Labelled, Labelled] | None:
    """Both layers' labels by block, if they were counted on the same images, and are the same measure."""
    if different_measures(a.view, b.view):
        return None
    one, other = a.by_block, b.by_block
    if not (one and other and same_data(a.store, b.store) and np.array_equal(one[1].images, other[1].images)):
        return None
    return one, other


def _count_differences(a: Side, b: Side) -> dict[str, Any]:
    differences = {}
    summaries = a.view.summary(), b.view.summary()
    for rule in _RULES:
        value = summaries[1][rule] - summaries[0][rule]
        low, high = None, None
        if _paired(a, b) and a.resampled and b.resampled:
            counts = [r.best_label if rule == _RULES[1] else r.per_category.sum(1) for r in (a.resampled, b.resampled)]
            low, high = count_interval(value, counts[1] - counts[0], a.resampled.blocks)
        differences[rule] = {"value": value, "low": low, "high": high}
    return differences


def _only_in(one: Side, other: Side) -> list[dict[str, Any]]:
    """The concepts that ``one`` detects and ``other`` does not, those of most units first.

    ``known``: whether the other's data has the concept at all.
    """
    nothing = Detected(0, 0.0)
    concepts: list[dict[str, Any]] = [
        {
            "concept": key.label,
            "category": key.category,
            "units": here.units,
            "iou": here.iou,
            "other_iou": other.detected.get(key, nothing).iou,
            "known": key in other.detected,
        }
        for key, here in one.detected.items()
        if here.units and not other.detected.get(key, nothing).units
    ]
    return sorted(concepts, key=lambda c: (-c["units"], -c["iou"], c["concept"]))


def _units(a: Side, b: Side) -> dict[str, Any]:
    """Units of the same number, those whose label's IoU differs most first."""
    (first, x), (second, y) = a.view.labels, b.view.labels
    pair, value, unknown = _paired(a, b), y - x, np.full(len(x), np.nan)
    low, high = label_differences(*pair) if pair else (unknown, unknown)
    # The rows of two stores differ: those of B's concepts in A's table, none that A knows for what only B has.
    row_in_a = {key: row for row, key in enumerate(a.keys)}
    rows = np.array([*(row_in_a.get(key, -2) for key in b.keys), -1])
    changed = rows[second] != first
    labels = _labels(a), _labels(b)
    either = (x > DETECTOR_IOU) | (y > DETECTOR_IOU)
    return {
        "matched": len(x),
        "detectors": int(either.sum()),
        "changed": int(changed.sum()),
        "changed_detectors": int((changed & either).sum()),
        "apart": int(((low > 0) | (high < 0)).sum()) if pair else None,
        "rows": [
            {
                "unit": int(u),
                "a": labels[0][u],
                "b": labels[1][u],
                "changed": bool(changed[u]),
                "difference": float(value[u]),
                "low": float(low[u]),
                "high": float(high[u]),
            }
            for u in np.lexsort([np.arange(len(x)), -np.abs(value)])
        ],
    }


def _labels(side: Side) -> list[dict[str, Any]]:
    """The label of each unit, by the keys of JSON."""
    keys = ("label", "category", "iou", "dead")
    return units_json(Units(side.store, [side.view]), [c for c in columns_of(Medium.JSON) if c.key in keys])
