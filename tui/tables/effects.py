"""What units do to the network's classes, as plain data: which classes need a unit, and which it speaks for.

Units are ranked on the first split of their effects, and what is told of them is measured on the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.effects import Effects, ranked, recall, rows_of, speaks_for
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.formats import signed, signed_interval
from ndissect.tui.tables.how_computed import how_computed

#: Classes, or units, that a line of text names.
NAMED = 5
#: What a weight of the head says.
SPEAKS = "speaks for: the head's weight from the unit to the class, less its mean over all classes"

# What is no change, but for the arithmetic.
_ROUNDING = 1e-9
_TRUTH = {"images": "the classes are those of the images", "prediction": "the classes are what the network predicts"}
_BY = {"zero": "zero", "mean": "its mean", "resample": "its map in another image"}


@dataclass(frozen=True)
class Singles:
    """What n units do, each taken away alone, to K classes.

    ``units`` (n,) int64, rising. Of the split that is reported, (n, K) float64: ``change`` of the balanced accuracy
    with its interval ``low`` to ``high``, of ``recall`` and of the mean ``score``. ``rank``, ``rank_score`` (n, K): the
    changes of balanced accuracy and score on the split that ranks, infinite where unknown.
    """

    units: npt.NDArray[np.int64]
    change: Floats
    low: Floats
    high: Floats
    recall: Floats
    score: Floats
    rank: Floats
    rank_score: Floats

    def first(self, axis: int) -> npt.NDArray[np.int64]:
        """Of each class the row of the unit that it needs most (``axis`` 0), of each unit the class that its absence
        hurts most (1); the first of equals."""
        lowest = self.rank.min(axis, keepdims=True, initial=np.inf)
        return np.asarray(np.where(self.rank == lowest, self.rank_score, np.inf).argmin(axis), np.int64)


def singles(effects: Effects) -> Singles:
    """What each unit that was taken away alone does."""
    rows = effects.single()
    images, hits = effects.images[-1], effects.hits[-1]

    def score(split: int) -> Floats:
        return np.asarray(effects.score_without[split, rows].astype(np.float64) - effects.score[split])

    def known(values: Floats) -> Floats:
        return np.where(np.isnan(values), np.inf, values)

    return Singles(
        units=np.array([effects.units[row][0] for row in rows], np.int64),
        change=effects.change_by(rows),
        low=effects.low[-1, rows].astype(np.float64),
        high=effects.high[-1, rows].astype(np.float64),
        recall=recall(effects.hits_without[-1, rows], images) - recall(hits, images),
        score=score(-1),
        rank=known(effects.change_by(rows, 0)),
        rank_score=known(score(0)),
    )


def worst(view: LayerView) -> Floats:
    """(U, 4) float64: of each unit the class that its absence hurts most, the change of its balanced accuracy, and
    both ends of the interval. The class is -1 where it hurts none; all are NaN where nothing is known of the unit."""
    told = np.full((view.units, 4), np.nan)
    if view.effects is None or not view.effects.images.shape[1]:
        return told
    some = singles(view.effects)
    row, k = np.arange(len(some.units)), some.first(1)
    hurts = some.rank[row, k] < 0
    told[some.units] = np.stack([np.where(hurts, k, -1), *(x[row, k] for x in (some.change, some.low, some.high))], 1)
    return told


def has_classes(view: LayerView) -> bool:
    """Whether the store tells what units of the layer do to classes, or how the head weighs them."""
    return view.effects is not None or view.head is not None


# --- of a unit ------------------------------------------------------------------------------------------------------


def classes_of_unit(view: LayerView, unit: int, changed: int | None = None) -> list[dict[str, Any]] | None:
    """The classes with images, those first that the unit's absence hurts most; None where it was not ablated alone.

    ``changed``: only so many, and of those whose balanced accuracy changes at all.
    """
    e = view.effects
    row = None if e is None else e.numbered(unit)
    if e is None or row is None:
        return None
    some = singles(rows_of(e, [row]))
    order = ranked(some.rank[0], some.rank_score[0])
    order = order[(e.images[0, order] > 0) | (e.images[-1, order] > 0)]
    if changed is not None:
        order = order[np.abs(np.nan_to_num(some.change[0, order])) > _ROUNDING][:changed]
    names = class_names(view)
    return [
        {
            "class": names[k],
            "number": int(k),
            "images": int(e.images[-1, k]),
            "change": float(some.change[0, k]),
            "low": float(some.low[0, k]),
            "high": float(some.high[0, k]),
            "recall_change": float(some.recall[0, k]),
            "score_change": float(some.score[0, k]),
        }
        for k in order
    ]


def spoken_by_unit(view: LayerView, unit: int) -> list[dict[str, Any]] | None:
    """All classes, those first that the unit speaks for most by the head's weights; None without a linear head."""
    if view.head is None:
        return None
    names, speaks = class_names(view), speaks_for(view.head, unit)
    order = np.argsort(-speaks, kind="stable")
    return [{"class": names[k], "number": int(k), "speaks": float(speaks[k])} for k in order]


def unit_sentences(view: LayerView, unit: int) -> list[str]:
    """What the unit does to classes, a line each: those that need it, those that it speaks for and against."""
    said = []
    classes = classes_of_unit(view, unit, NAMED)
    if classes is not None:
        told = (f"{c['class']} {signed(c['change'])} ({signed_interval(c['low'], c['high'])})" for c in classes)
        said.append(f"without it, balanced accuracy changes: {', '.join(told) or 'of no class'}")
    if view.head is not None:
        names, speaks = class_names(view), speaks_for(view.head, unit)
        order = np.argsort(-speaks, kind="stable")
        ends = {"for": [k for k in order[:NAMED] if speaks[k] > 0]}
        ends["against"] = [k for k in order[::-1][:NAMED] if speaks[k] < 0]
        spoken = [
            f"{way} {', '.join(f'{names[k]} {signed(speaks[k])}' for k in end)}" for way, end in ends.items() if end
        ]
        said.append(f"by the head's weights it speaks {'; '.join(spoken) or 'for no class'}")
    return said


# --- what is said of them -------------------------------------------------------------------------------------------


def effects_json(view: LayerView) -> dict[str, Any] | None:
    """How the effects of a layer were measured, as JSON values; None where there are none."""
    e = view.effects
    if e is None:
        return None
    origin = {key: e.origin.get(key) for key in ("by", "truth", "how")}
    return {
        "layer": view.name,
        **origin,
        "split": e.splits[-1] if e.splits else None,
        "ranked_on": e.splits[0] if e.splits else None,
        "images": int(e.images[-1].sum()) if e.splits else 0,
        "ablated": len(e.single()),
    }


def unit_json(view: LayerView, unit: int) -> dict[str, Any]:
    """What is known of a unit and the classes, as JSON values: ``effects``, how they were measured and ``classes``, and
    ``speaks_for``, all classes by the head's weights. Without what is not known."""
    told: dict[str, Any] = {}
    classes, spoken = classes_of_unit(view, unit), spoken_by_unit(view, unit)
    if classes is not None:
        told["effects"] = {**(effects_json(view) or {}), "classes": classes}
    if spoken is not None:
        told["speaks_for"] = spoken
    return told


def effects_notes(views: Sequence[LayerView]) -> list[str]:
    """What every view of effects says of them: how they were measured, and whose classes they are."""
    lines: dict[str, list[str]] = {}
    for view in views:
        if view.effects is not None:
            lines.setdefault(_measured(view.effects), []).append(view.name)
    return [f"effects of {', '.join(names)}: {line}" for line, names in lines.items()]


def _measured(e: Effects) -> str:
    counts = [f"{int(n):,} images" for n in e.images.sum(1)]
    where = " and ".join(f"{split} ({count})" for split, count in zip(e.splits[-1:], counts[-1:], strict=True))
    ranked = f", ranked on {e.splits[0]} ({counts[0]})" if len(e.splits) > 1 else ""
    by = _said(_BY, e.origin.get("by"))
    said = [
        f"change of balanced accuracy on {where} without the unit, 95 % over image blocks{ranked}",
        f"in its place: {by}" if by else "",
        how_computed(how) if isinstance(how := e.origin.get("how"), str) else "",
        _said(_TRUTH, e.origin.get("truth")),
    ]
    return "; ".join(filter(None, said))


def _said(words: dict[str, str], key: object) -> str:
    return words.get(key, key) if isinstance(key, str) else ""


def class_names(view: LayerView) -> tuple[str, ...]:
    classes = view.store.classes
    return classes.names if classes else ()
