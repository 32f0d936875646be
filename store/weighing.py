"""All the evidence for the labels of a layer, from what was counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ndissect.store.bootstrap import label_intervals, label_stability
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import Blocks, ConceptCounts, LayerCounts, Leading
from ndissect.store.evidence import Evidence, NullBest, chance, false_discovery_rate, held_out, no_evidence
from ndissect.store.protocol import Protocol
from ndissect.store.scores import Best, Floats, label_units


def weigh(
    best: Best,
    counts: LayerCounts,
    concept_counts: ConceptCounts,
    groups: tuple[str, ...],
    concepts: ConceptTable,
    protocol: Protocol,
    dead: npt.NDArray[np.bool_],
    *,
    blocks: Blocks | None = None,
    leading: Leading | None = None,
    null: NullBest | None = None,
    auprc: tuple[Floats, Floats] | None = None,
) -> Evidence:
    """The evidence for each unit's label; NaN for what follows from a part that is None.

    ``auprc``: the average precision and the base rate, (U,) each.
    """
    label, value = label_units(best)
    unknown = no_evidence(len(label))
    p, low, high, stability = unknown.p, unknown.iou_low, unknown.iou_high, unknown.stability
    if null is not None:
        p = chance(value, null.iou, ~dead)
    if blocks is not None and leading is not None:
        low, high = label_intervals(leading, blocks, label)
        stability = label_stability(leading, blocks, label)
    chosen, train, val = held_out(
        counts,
        concept_counts,
        groups,
        concepts.category,
        len(concepts.categories),
        protocol.union,
        dead=dead,
        min_images=protocol.min_images,
    )
    precision, base = auprc or (unknown.auprc, unknown.base_rate)
    return Evidence(p, false_discovery_rate(p), low, high, stability, chosen, train, val, precision, base)
