"""All that is known of ablations, as arrays and as JSON values: what exports of effects are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.effects import Effects, balanced_accuracy, recall
from ndissect.store.layer_view import LayerView
from ndissect.tui.tables.doubts import unit_label
from ndissect.tui.tables.effects import class_names, effects_json
from ndissect.tui.tables.units import Array

#: The columns of a table of effects: a row for each ablation, split and class.
COLUMNS = (
    *("layer", "units", "unit", "label", "iou", "split", "class", "class_number", "images", "hits", "false"),
    *("hits_without", "false_without", "balanced_accuracy", "balanced_accuracy_without", "change", "low", "high"),
    *("recall", "recall_without", "score", "score_without"),
)


def effect_arrays(view: LayerView, effects: Effects, rows: npt.NDArray[np.int64] | None = None) -> dict[str, Array]:
    """What the ablations at ``rows``, by default all, do: a row for each of them, each split and each class.

    An array of numbers, where NaN is unknown, or of texts as objects, where None is, by the names of COLUMNS.
    ``units``: their numbers with commas; ``unit``: that of a single one, else -1, with its ``label`` and ``iou``.
    """
    rows = np.arange(len(effects.units)) if rows is None else rows
    g, K = effects.images.shape
    shape = (len(rows), g, K)

    def spread(values: Any, axis: int, dtype: Any = None) -> Array:
        """``values``, one for each of an axis, as a column."""
        sizes = [-1 if i == axis else 1 for i in range(3)]
        return np.broadcast_to(np.asarray(values, dtype).reshape(sizes), shape).ravel()

    def before(values: Array) -> Array:
        return np.broadcast_to(values, shape).ravel()

    def without(values: Array) -> Array:
        return values.transpose(1, 0, 2).ravel()

    e = effects
    hits, false = e.hits_without[:, rows], e.false_without[:, rows]
    accuracy = balanced_accuracy(hits, false, e.images[:, None])
    labels = [_label(view, e.units[row]) for row in rows]
    columns = (
        np.full(math.prod(shape), view.name, object),
        spread([",".join(map(str, e.units[row])) for row in rows], 0, object),
        spread([e.units[row][0] if len(e.units[row]) == 1 else -1 for row in rows], 0, np.int64),
        spread([label for label, _ in labels], 0, object),
        spread([iou for _, iou in labels], 0, np.float64),
        spread(e.splits, 1, object),
        spread(class_names(view), 2, object),
        spread(range(K), 2, np.int64),
        *(before(x) for x in (e.images, e.hits, e.false)),
        without(hits),
        without(false),
        before(e.balanced_accuracy),
        without(accuracy),
        without(accuracy - e.balanced_accuracy[:, None]),
        without(e.low[:, rows]),
        without(e.high[:, rows]),
        before(e.recall),
        without(recall(hits, e.images[:, None])),
        before(e.score),
        without(e.score_without[:, rows]),
    )
    return dict(zip(COLUMNS, columns, strict=True))


def effects_layer_json(view: LayerView) -> dict[str, Any]:
    """The effects and the head of a layer as JSON values; lists of a value for each class."""
    told: dict[str, Any] = {"layer": view.name}
    if view.effects is not None:
        told |= {"effects": _effects_json(view, view.effects)}
    if view.head is not None:
        told |= {"head": {"bias": view.head.bias.tolist(), "weight": view.head.weight.tolist()}}
    return told


def _effects_json(view: LayerView, e: Effects) -> dict[str, Any]:
    ablations = []
    for row, units in enumerate(e.units):
        label, iou = _label(view, units)
        ablations.append(
            {
                "units": list(units),
                "label": label,
                "iou": iou,
                "splits": {
                    split: {
                        "hits": e.hits_without[s, row].tolist(),
                        "false": e.false_without[s, row].tolist(),
                        "score": e.score_without[s, row].tolist(),
                        "change": e.change_by(row, s).tolist(),
                        "low": e.low[s, row].tolist(),
                        "high": e.high[s, row].tolist(),
                    }
                    for s, split in enumerate(e.splits)
                },
            }
        )
    before = {
        split: {
            name: getattr(e, name)[s].tolist()
            for name in ("images", "hits", "false", "score", "balanced_accuracy", "recall")
        }
        for s, split in enumerate(e.splits)
    }
    about = {**(effects_json(view) or {}), "origin": dict(e.origin)}
    return {**about, "before": before, "ablations": ablations}


def _label(view: LayerView, units: Sequence[int]) -> tuple[str | None, float]:
    """The label of a single unit as reports show it, and its IoU; None and NaN for none, and for several."""
    label, iou = unit_label(view, units[0]) if len(units) == 1 else ("", math.nan)
    return label or None, iou
