"""How far a unit's label can be trusted, in sentences."""

from __future__ import annotations

import math

import numpy as np

from ndissect.store.layer_view import LayerView
from ndissect.tui.tables.formats import interval


def any_known(view: LayerView, name: str) -> bool:
    """Whether the number ``name`` is known of any unit of the layer."""
    return bool((~np.isnan(view.known(name))).any())


def sentences(view: LayerView, unit: int) -> list[str]:
    """All that is known of how far the unit's label can be trusted, a line each; nothing for a unit without a label."""
    row = int(view.labels[0][unit])
    if row < 0:
        return []
    said = [_interval(view, unit), _chance(view, unit), _held_out(view, unit, row), _second_measure(view, unit, row)]
    return [line for line in said if line]


def _interval(view: LayerView, unit: int) -> str:
    low, high, stability = (float(view.known(name)[unit]) for name in ("iou_low", "iou_high", "stability"))
    if math.isnan(low):
        return ""
    stays = "" if math.isnan(stability) else f"; the label in {100 * stability:.0f} % of resamples"
    return f"IoU {interval(low, high)} (95 %){stays}"


def _chance(view: LayerView, unit: int) -> str:
    p, q = float(view.known("p")[unit]), float(view.known("q")[unit])
    if math.isnan(p):
        return ""
    reached = view.null.iou[:, unit] if view.null else np.zeros(0)
    by = f": {len(reached)} wrong pairings reach IoU {reached.max():.3f} at most" if len(reached) else ""
    return f"q {q:.3g}, p {p:.3g}{by}"


def _held_out(view: LayerView, unit: int, label: int) -> str:
    evidence = view.evidence
    row = int(evidence.heldout_concept[unit])
    train, val = float(evidence.train_iou[unit]), float(evidence.heldout_iou[unit])
    if row < 0:
        return "held out: the train images choose no label" if any_known(view, "train_iou") else ""
    chosen = "it too" if row == label else view.store.concepts.label(row)
    on_val = "held by no val image" if math.isnan(val) else f"-> {val:.3f} on val ({100 * (val / train - 1):+.0f} %)"
    return f"held out: train chooses {chosen}; IoU {train:.3f} {on_val}"


def _second_measure(view: LayerView, unit: int, label: int) -> str:
    auprc, base = float(view.known("auprc")[unit]), float(view.known("base_rate")[unit])
    if math.isnan(auprc):
        return ""
    name = view.store.concepts.label(label)
    by_chance = "" if math.isnan(base) else f", by chance {base:.3f}"
    return f"AUPRC {auprc:.3f}{by_chance}: its peak finds images with {name}"
