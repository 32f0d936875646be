"""What a generator's units do to the concepts in its pictures, and learned coefficients, as plain data.

An effect is the change of a concept's share of pixels when the unit is set to zero; a coefficient is no effect (see
ndissect.store.concept_effects).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Floats
from ndissect.tui.tables.formats import interval, share, signed

Array = npt.NDArray[Any]
#: Concepts that a line of text names.
NAMED = 5
#: The columns of a table of effects on concepts: a row for each unit and concept of which anything is known.
COLUMNS = (
    *("layer", "unit", "label", "concept", "category", "iou", "before", "after", "change", "low", "high"),
    *("samples", "coefficient"),
)
#: What the numbers beside IoUs are not.
COEFFICIENTS = "coefficient: learned for the concept, from 0 to 1; it is no effect"

# What is no change, but for the arithmetic.
_ROUNDING = 1e-9


def has_concept_effects(view: LayerView) -> bool:
    """Whether the store tells what units of the layer do to concepts, or coefficients that were learned for some."""
    return view.concept_effects is not None


def label_effects(view: LayerView, concept: int | None = None) -> Floats:
    """(U, 3) float64: how the share of pixels of each unit's label, or of ``concept``, changes without the unit, and
    both ends of the interval of the change. NaN for units that were not measured, and without a label."""
    told = np.full((view.units, 3), np.nan)
    e = view.concept_effects
    if e is not None and len(e.units):
        row = np.arange(len(e.units))
        of = view.labels[0][e.units] if concept is None else np.full(len(e.units), concept)
        values = np.stack([x[row, of] - e.before[of] for x in (e.after, e.low, e.high)], 1)
        told[e.units] = np.where((of >= 0)[:, None], values, np.nan)
    return told


def label_coefficients(view: LayerView, concept: int | None = None) -> Floats:
    """(U,) float64: each unit's coefficient for its label, or for ``concept``; NaN where none was learned."""
    told = np.full(view.units, np.nan)
    e = view.concept_effects
    for values, row in zip(e.coefficients, e.coefficient_concepts.tolist(), strict=True) if e is not None else ():
        if concept is None:
            told = np.where(view.labels[0] == row, values, told)
        elif concept == row:
            told = values.copy()
    return told


def concepts_of_unit(view: LayerView, unit: int, most: int | None = None) -> list[dict[str, Any]] | None:
    """The concepts that were measured, those first whose share changes most without the unit; None where it was not
    measured. ``most``: only so many, and of those that change at all."""
    e = view.concept_effects
    row = None if e is None else e.numbered(unit)
    if e is None or row is None:
        return None
    concepts, change = view.store.concepts, e.change[row]
    known = np.flatnonzero(~np.isnan(change))
    order = known[np.argsort(-np.abs(change[known]), kind="stable")]
    if most is not None:
        order = order[np.abs(change[order]) > _ROUNDING][:most]
    return [
        {
            "concept": concepts.label(c),
            "category": concepts.category_of(c),
            "concept_number": int(concepts.number[c]),
            "before": float(e.before[c]),
            "after": float(e.after[row, c]),
            "low": float(e.low[row, c]),
            "high": float(e.high[row, c]),
            "change": float(change[c]),
        }
        for c in order.tolist()
    ]


def coefficients_of_unit(view: LayerView, unit: int) -> list[dict[str, Any]]:
    """The unit's learned coefficients with its IoUs, the largest coefficient first; none where none were learned."""
    e = view.concept_effects
    if e is None or not len(e.coefficient_concepts):
        return []
    concepts, iou = view.store.concepts, view.unit_ious(unit)[0]
    of = e.coefficients[:, unit]
    return [
        {
            "concept": concepts.label(row),
            "category": concepts.category_of(row),
            "concept_number": int(concepts.number[row]),
            "iou": float(iou[row]),
            "coefficient": float(value),
        }
        for value, row in sorted(zip(of.tolist(), e.coefficient_concepts.tolist(), strict=True), key=lambda p: -p[0])
    ]


def beside_ious(view: LayerView, unit: int) -> list[tuple[str, Callable[[float], str], dict[tuple[str, str], float]]]:
    """Columns for a table of the unit's IoUs: title, how a value is written, and the values by concept and category."""
    effects = {(c["concept"], c["category"]): c["change"] for c in concepts_of_unit(view, unit) or []}
    coefficients = {(c["concept"], c["category"]): c["coefficient"] for c in coefficients_of_unit(view, unit)}
    both = (("effect", signed, effects), ("coefficient", share, coefficients))
    return [column for column in both if column[2]]


def unit_sentences(view: LayerView, unit: int) -> list[str]:
    """What the unit does to concepts, and its learned coefficients, a line each; nothing where neither is known."""
    said = []
    changed = concepts_of_unit(view, unit, NAMED)
    if changed is not None:
        told = (
            f"{c['concept']} {share(c['before'])} -> {share(c['after'])} ({interval(c['low'], c['high'])})"
            for c in changed
        )
        said.append(f"without this unit, shares of pixels: {', '.join(told) or 'no concept changes'}")
    coefficients = coefficients_of_unit(view, unit)
    if coefficients:
        named = ", ".join(f"{c['concept']} {share(c['coefficient'])}" for c in coefficients[:NAMED])
        said.append(f"learned coefficients: {named}")
    return said


def unit_json(view: LayerView, unit: int) -> dict[str, Any]:
    """``concept_effects``, how they were measured and ``concepts``, and ``coefficients``, as JSON values; without what
    is not known."""
    told: dict[str, Any] = {}
    concepts, coefficients = concepts_of_unit(view, unit), coefficients_of_unit(view, unit)
    if concepts is not None:
        told["concept_effects"] = {**(effects_json(view) or {}), "concepts": concepts}
    if coefficients:
        told["coefficients"] = coefficients
    return told


def effects_json(view: LayerView) -> dict[str, Any] | None:
    """How effects of a layer on concepts were measured, as JSON values; None where nothing is told of it."""
    e = view.concept_effects
    if e is None:
        return None
    learned = [view.store.concepts.label(row) for row in e.coefficient_concepts.tolist()]
    return {
        "layer": view.name,
        "how": e.how,
        "samples": e.samples,
        "measured": len(e.units),
        "coefficients_of": learned,
    }


def effects_notes(views: Sequence[LayerView]) -> list[str]:
    """What every view of these numbers says of them: how they were measured or learned."""
    lines = []
    for view in views:
        e = view.concept_effects
        if e is None:
            continue
        some = f"{len(e.units):,} units on {e.samples:,} samples: " if len(e.units) else ""
        lines.append(f"effects of {view.name} on concepts: {some}{e.how}" if some else f"{view.name}: {e.how}")
        if len(e.coefficient_concepts):
            lines.append(COEFFICIENTS)
    return list(dict.fromkeys(lines))


# --- tables ---------------------------------------------------------------------------------------------------------


def effect_arrays(view: LayerView) -> dict[str, Array]:
    """A row for each unit and concept of which an effect or a coefficient is known, by the names of COLUMNS.

    An array of numbers, where NaN is unknown, or of texts as objects, where None is.
    """
    e, concepts = view.concept_effects, view.store.concepts
    U, C = view.units, len(concepts)
    known = np.zeros((U, C), bool)
    dense = {name: np.full((U, C), np.nan) for name in ("after", "low", "high", "coefficient")}
    before, samples = np.full(C, np.nan), 0
    if e is not None:
        before, samples = e.before, e.samples
        known[np.ix_(e.units, np.flatnonzero(~np.isnan(before)))] = True
        known[:, e.coefficient_concepts] = True
        for name in ("after", "low", "high"):
            dense[name][e.units] = getattr(e, name)
        dense["coefficient"][:, e.coefficient_concepts] = e.coefficients.T
    unit, concept = np.nonzero(known)
    names = np.array([*(concepts.label(row) for row in range(C)), None], object)
    categories = np.array([concepts.category_of(row) for row in range(C)], object)
    at = (unit, concept)
    columns = (
        np.full(len(unit), view.name, object),
        unit,
        names[view.labels[0][unit]],
        names[concept],
        categories[concept],
        _ious(view, unit, concept),
        before[concept],
        dense["after"][at],
        dense["after"][at] - before[concept],
        dense["low"][at],
        dense["high"][at],
        np.where(np.isnan(dense["after"][at]), 0, samples),
        dense["coefficient"][at],
    )
    return dict(zip(COLUMNS, columns, strict=True))


def _ious(view: LayerView, unit: npt.NDArray[np.int64], concept: npt.NDArray[np.int64]) -> Floats:
    value = np.zeros(len(unit))
    for row in np.unique(concept):
        there = concept == row
        value[there] = view.concept_ious(int(row))[unit[there]]
    return value


def layer_json(view: LayerView) -> dict[str, Any]:
    """The effects on concepts and the coefficients of a layer as JSON values, all units."""
    e, concepts = view.concept_effects, view.store.concepts
    if e is None:
        return {}
    before = {concepts.label(c): float(e.before[c]) for c in np.flatnonzero(~np.isnan(e.before)).tolist()}
    units = [{"unit": unit, "concepts": concepts_of_unit(view, unit)} for unit in e.units.tolist()]
    coefficients = {
        concepts.label(row): values.tolist()
        for row, values in zip(e.coefficient_concepts.tolist(), e.coefficients, strict=True)
    }
    return {**(effects_json(view) or {}), "before": before, "units": units, "coefficients": coefficients}


def concept_rows(views: Sequence[LayerView]) -> list[dict[str, Any]]:
    """Each concept that was measured, or that coefficients were learned for, in the order of the concepts.

    ``before``: its share of pixels; ``unit``: that without which it loses most, with ``label``, ``after``, ``low`` and
    ``high``; ``coefficient_unit`` and ``coefficient``: the largest; ``iou_unit`` and ``iou``: the best IoU of those
    layers. One row for each layer; None and NaN for what is not known.
    """
    rows = []
    for view in views:
        e, concepts = view.concept_effects, view.store.concepts
        if e is None:
            continue
        best, iou = view.best_units
        for c in range(len(concepts)):
            coefficients = e.coefficients_of(c)
            measured = len(e.units) > 0 and not np.isnan(e.before[c])
            if coefficients is None and not measured:
                continue
            told: dict[str, Any] = {"unit": None, "label": None, "after": np.nan, "low": np.nan, "high": np.nan}
            if measured and not np.isnan(e.after[:, c]).all():
                row = int(np.nanargmin(e.after[:, c]))
                label = int(view.labels[0][e.units[row]])
                told = {
                    "unit": f"{view.name}:{e.units[row]}",
                    "label": concepts.label(label) if label >= 0 else None,
                    **{name: float(getattr(e, name)[row, c]) for name in ("after", "low", "high")},
                }
            top = None if coefficients is None or not len(coefficients) else int(coefficients.argmax())
            rows.append(
                {
                    "concept": concepts.label(c),
                    "before": float(e.before[c]),
                    **told,
                    "coefficient_unit": None if top is None else f"{view.name}:{top}",
                    "coefficient": float("nan") if coefficients is None or top is None else float(coefficients[top]),
                    "iou_unit": f"{view.name}:{best[c]}" if best[c] >= 0 else None,
                    "iou": float(iou[c]),
                }
            )
    return rows
