"""The units that the network's classes need, and that speak for them, as rows of plain data.

Units are ranked on the first split of their effects, and what is told of them is measured on the last. A row has, of a
unit, its ``label`` as reports show it, its ``iou``, and in ``doubt`` why the label is not to be trusted, else None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ndissect.store.effects import Effects, Head, balanced_accuracy, random_unit, recall
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.doubts import doubted, doubts, unit_label
from ndissect.tui.tables.effects import class_names, has_classes, singles
from ndissect.tui.tables.formats import signed

_NEEDS_NONE: dict[str, Any] = {
    **dict.fromkeys(("unit", "label", "doubt")),
    **dict.fromkeys(("iou", "change", "low", "high", "random"), math.nan),
}


def class_table(views: Sequence[LayerView], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """For each class of ``numbers`` the unit of all layers that it needs most; those first that lose most.

    ``images``, ``balanced_accuracy`` and ``recall`` with all units, ``random``: what a random unit changes. Where a
    layer has a linear head, ``spoken_by`` is the unit that ``speaks`` most for the class.
    """
    names = class_names(views[0]) if views else ()
    unknown = {"images": None, "balanced_accuracy": math.nan, "recall": math.nan, **_NEEDS_NONE}
    table = {k: {"class": names[k], "number": k, **unknown} for k in numbers}
    rank = dict.fromkeys(numbers, math.inf)
    for view in views:
        if view.effects is not None:
            _tell_needed(view, view.effects, table, rank)
        if view.head is not None and view.units:
            _tell_speakers(view, view.head, table)
    return sorted(table.values(), key=lambda told: (rank[told["number"]], told["number"]))


def _tell_needed(view: LayerView, e: Effects, table: dict[int, dict[str, Any]], rank: dict[int, float]) -> None:
    """Tell of each class the unit that it needs most, where no layer before had one that it needs more."""
    some, why, random = singles(e), doubts(view), random_unit(e)[-1]
    before, hit = balanced_accuracy(e.hits[-1], e.false[-1], e.images[-1]), recall(e.hits[-1], e.images[-1])
    first = some.first(0) if len(some.units) else None
    for k, told in table.items():
        here = math.inf if first is None else float(some.rank[first[k], k])
        if told["images"] is not None and here >= rank[k]:
            continue
        told |= {"images": int(e.images[-1, k]), "balanced_accuracy": float(before[k]), "recall": float(hit[k])}
        if first is None or math.isinf(here):
            continue
        rank[k], unit = here, int(some.units[first[k]])
        numbers = {name: float(getattr(some, name)[first[k], k]) for name in ("change", "low", "high")}
        told |= {"unit": f"{view.name}:{unit}", **_label(view, unit, why[unit]), **numbers, "random": float(random[k])}


def _tell_speakers(view: LayerView, head: Head, table: dict[int, dict[str, Any]]) -> None:
    """Tell of each class the unit that speaks most for it, where none of a layer before does more."""
    mean, why = head.weight.mean(0, dtype=np.float64), doubts(view)
    for k, told in table.items():
        speaks = head.weight[k] - mean
        unit = int(speaks.argmax())
        if speaks[unit] > told.get("speaks", -math.inf):
            label = _label(view, unit)["label"]
            told |= {"spoken_by": f"{view.name}:{unit}", "spoken_label": label, "spoken_doubt": why[unit] or None}
            told["speaks"] = float(speaks[unit])


def _class_weights(view: LayerView, k: int) -> Floats:
    """(U,): how much each unit speaks for class ``k``; NaN without a linear head."""
    if view.head is None:
        return np.full(view.units, np.nan)
    return np.asarray(view.head.weight[k] - view.head.weight.mean(0, dtype=np.float64))


def units_of_class(views: Sequence[LayerView], k: int) -> list[dict[str, Any]]:
    """Every unit of which is known what it does to class ``k``, those first that it needs most; then those of which
    only the head is known, that speak most for it."""
    rows: list[tuple[tuple[float, ...], dict[str, Any]]] = []
    for at, view in enumerate(views):
        if not has_classes(view):
            continue
        speaks, why = _class_weights(view, k), doubts(view)
        unknown = dict.fromkeys(("change", "low", "high", "recall_change", "score_change"), math.nan)
        changes: dict[int, dict[str, float]] = {}
        rank: dict[int, tuple[float, float]] = {}
        if view.effects is not None:
            some = singles(view.effects)
            for row, unit in enumerate(some.units.tolist()):
                rank[unit] = float(some.rank[row, k]), float(some.rank_score[row, k])
                changes[unit] = {
                    "change": float(some.change[row, k]),
                    "low": float(some.low[row, k]),
                    "high": float(some.high[row, k]),
                    "recall_change": float(some.recall[row, k]),
                    "score_change": float(some.score[row, k]),
                }
        for unit in range(view.units) if view.head is not None else sorted(changes):
            told = {"layer": view.name, "unit": unit, **_label(view, unit, why[unit]), **changes.get(unit, unknown)}
            order = (*rank.get(unit, (math.inf, math.inf)), -np.nan_to_num(speaks[unit]), at, unit)
            rows.append((order, {**told, "speaks": float(speaks[unit])}))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def class_json(views: Sequence[LayerView], k: int) -> dict[str, Any]:
    """Of class ``k`` with all units, by layer: images, balanced accuracy, recall, and what a random unit changes."""
    told = []
    for view in views:
        e = view.effects
        if e is not None:
            before = float(balanced_accuracy(e.hits[-1], e.false[-1], e.images[-1])[k])
            told.append(
                {
                    "layer": view.name,
                    "images": int(e.images[-1, k]),
                    "balanced_accuracy": before,
                    "recall": float(recall(e.hits[-1], e.images[-1])[k]),
                    "random": float(random_unit(e)[-1, k]),
                }
            )
    return {"before": told}


def class_sentence(views: Sequence[LayerView], k: int) -> str:
    """What is known of class ``k`` with all units, in a line that begins with its name."""
    name = class_names(views[0])[k] if views else str(k)
    told = class_json(views, k)["before"]
    if not told:
        return name
    about = told[-1]
    if not about["images"]:
        return f"{name}: no image of it"
    random = about["random"]
    by_chance = "" if math.isnan(random) else f"; a random unit changes it by {signed(random)}"
    accuracy = f"balanced accuracy {about['balanced_accuracy']:.3f}, recall {about['recall']:.3f}"
    return f"{name}: {about['images']:,} images, {accuracy}{by_chance}"


def spoken_label(row: dict[str, Any]) -> str:
    """The label of the unit that speaks most for a class of :func:`class_table`, as tables show it."""
    return doubted(row.get("spoken_label") or "", row.get("spoken_doubt") or "")


def _label(view: LayerView, unit: int, doubt: str = "") -> dict[str, Any]:
    label, iou = unit_label(view, unit)
    return {"label": label or None, "iou": iou, "doubt": doubt or None}
