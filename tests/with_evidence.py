"""Evidence for the labels of a dissection in memory, drawn at random: what tables make of it is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ndissect.store.evidence import NUMBERS, Evidence, NullBest
from ndissect.store.model import Dissection, Layer
from ndissect.store.scores import label_units

#: Wrong pairings of the null.
PAIRINGS = 4


def with_evidence(made: Dissection, seed: int = 0, without: tuple[str, ...] = ()) -> Dissection:
    """``made`` with evidence for all its labels, but for the numbers ``without``; of one unit a layer none is known."""
    rng = np.random.default_rng(seed)
    return replace(made, layers=tuple(_with_evidence(made, layer, rng, without) for layer in made.layers))


def _with_evidence(made: Dissection, layer: Layer, rng: np.random.Generator, without: tuple[str, ...]) -> Layer:
    label, iou = label_units(layer.best)
    U = len(label)
    known = (label >= 0) & (np.arange(U) != U - 1)
    p = rng.choice([1 / 2049, 0.004, 0.02, 0.3, 1.0], U)
    other = (label + 1) % len(made.concepts)
    numbers = {
        "p": p,
        "q": np.minimum(p * 2, 1.0),
        "iou_low": iou * rng.uniform(0.5, 0.9, U),
        "iou_high": iou * rng.uniform(1.1, 1.5, U),
        "stability": rng.uniform(0.3, 1.0, U).round(3),
        "train_iou": iou * rng.uniform(0.9, 1.1, U),
        "heldout_iou": iou * rng.uniform(0.3, 1.0, U),
        "auprc": rng.uniform(0.1, 1.0, U),
        "base_rate": rng.uniform(0.01, 0.1, U),
    }
    assert set(numbers) == set(NUMBERS)
    hidden = {name: np.where(known & (name not in without), values, np.nan) for name, values in numbers.items()}
    chosen = np.where(known & ("train_iou" not in without), np.where(rng.random(U) < 0.3, other, label), -1)
    evidence = Evidence(**hidden, heldout_concept=chosen.astype(np.int32))
    null = None
    if "q" not in without:
        counts = [rng.integers(low, low + 50, (PAIRINGS, U)) for low in (0, 50, 50)]
        null = NullBest(np.zeros((PAIRINGS, U), np.int32), *counts)
    return replace(layer, evidence=evidence, null=null)
