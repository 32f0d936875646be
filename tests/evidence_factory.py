"""Evidence for the dissections of ``store_factory``: made up, but of the shape and the gaps of real evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ndissect.store.evidence import Evidence, false_discovery_rate
from ndissect.store.model import Dissection, Layer
from ndissect.store.scores import label_units


def with_evidence(d: Dissection, seed: int = 7) -> Dissection:
    """``d`` with evidence for every unit that has a label; one unit's held-out IoU is not known."""
    rng = np.random.default_rng(seed)
    return replace(d, layers=tuple(replace(layer, evidence=_evidence(layer, rng)) for layer in d.layers))


def _evidence(layer: Layer, rng: np.random.Generator) -> Evidence:
    label, value = label_units(layer.best)
    known = label >= 0

    def some(numbers: np.ndarray) -> np.ndarray:
        return np.where(known, np.clip(numbers, 0, 1), np.nan)

    U = len(label)
    p = some(rng.uniform(0, 1, U) ** 4)  # so some q are below 0.05, some not far above it, and some near 1
    heldout = some(value * rng.uniform(0.6, 1.0, U))
    if known.any():
        heldout[np.flatnonzero(known)[-1]] = np.nan
    return Evidence(
        p=p,
        q=false_discovery_rate(p),
        iou_low=some(value * 0.8),
        iou_high=some(value * 1.15),
        stability=some(rng.uniform(0.3, 1, U)),
        heldout_concept=label,
        train_iou=some(value * 1.02),
        heldout_iou=heldout,
        auprc=some(rng.uniform(0, 1, U)),
        base_rate=some(rng.uniform(0, 0.3, U)),
    )
