"""From counts to a dissection: labels, and the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.store import scores
from ndissect.store.bootstrap import leading
from ndissect.store.counts import Blocks, ConceptCounts, LayerCounts
from ndissect.store.evidence import NullBest, null_best
from ndissect.store.model import Dissection, Layer
from ndissect.store.scores import Best, Floats
from ndissect.store.weighing import weigh


def conclude(counter: MaskCounter, provenance: Mapping[str, Any], peaks: Peaks | None = None) -> Dissection:
    """What was counted, with the evidence for every label; with images after :meth:`MaskCounter.keep_images`."""
    with counter.clock.during("evidence"):
        grouping, loader = counter.grouping, counter.loader
        held = counter.concepts.counts(counter.observed)
        concept_counts = grouping.named_concepts(held)
        blocks = grouping.what_blocks_hold(held, counter.concepts.images(counter.observed))
        on_images = any(geometry.judged_on == "images" for geometry in counter.geometries)
        layers = [_layer(counter, i, concept_counts, blocks, peaks) for i in range(len(counter.geometries))]
        return Dissection(
            protocol=loader.protocol,
            concepts=loader.dataset.concepts,
            concept_counts=concept_counts,
            layers=tuple(layers),
            images=counter.images_table,
            provenance=provenance,
            groups=grouping.names,
            grid=loader.grid,
            blocks=blocks if blocks is None or on_images else replace(blocks, concept_images=None),
        )


def _layer(
    counter: MaskCounter, i: int, concept_counts: ConceptCounts, blocks: Blocks | None, peaks: Peaks | None
) -> Layer:
    geometry, stats, grouping = counter.geometries[i], counter.statistics[i], counter.grouping
    concept_counts = concept_counts.judged_on(geometry.judged_on)
    blocks = blocks.judged_on(geometry.judged_on) if blocks else None
    concepts, protocol = counter.loader.dataset.concepts, counter.loader.protocol
    by_group = counter.tallies[i].counts(counter.observed)
    counts = grouping.named_layer(by_group)
    best = _best(counter, i, counts, concept_counts)
    leads = None
    if blocks is not None:
        leads = leading(
            by_group,
            concept_counts,
            concepts.category,
            len(concepts.categories),
            protocol.union,
            dead=stats.dead,
            min_images=protocol.min_images,
            total=counts,
        )
    null = _null(counter, i) if counter.pairings else None
    evidence = weigh(
        best,
        counts,
        concept_counts,
        grouping.names,
        concepts,
        protocol,
        stats.dead,
        blocks=blocks,
        leading=leads,
        null=null,
        auprc=_auprc(counter, i, best, peaks) if peaks else None,
    )
    return Layer(
        name=geometry.name,
        module=geometry.module,
        best=best,
        statistics=stats,
        map_size=geometry.map_size,
        counts=counts,
        top=counter.top_images[i] if counter.top_images else None,
        axes=geometry.axes,
        evidence=evidence,
        leading=leads,
        null=null,
        judged_on=geometry.judged_on,
    )


def _best(counter: MaskCounter, i: int, counts: LayerCounts, concept_counts: ConceptCounts) -> Best:
    """The best concept of each unit of layer ``i``, in every category."""
    concepts, protocol = counter.loader.dataset.concepts, counter.loader.protocol
    return scores.best_per_category(
        counts,
        concept_counts,
        concepts.category,
        len(concepts.categories),
        protocol.union,
        dead=counter.statistics[i].dead,
        min_images=protocol.min_images,
    )


def _auprc(counter: MaskCounter, i: int, best: Best, peaks: Peaks) -> tuple[Floats, Floats]:
    label = torch.from_numpy(scores.label_units(best)[0].astype(np.int64))
    category = torch.from_numpy(counter.loader.dataset.concepts.category.astype(np.int64))
    within = counter.loader.protocol.union == "within-category"
    precision, base_rate = peaks.precision(i, label, category, within)
    return precision.numpy(), base_rate.numpy()


def _null(counter: MaskCounter, i: int) -> NullBest:
    """The best concept of each unit of layer ``i`` under each pairing of the null."""
    best = []
    for slot in range(counter.null.start, counter.null.stop):
        paired = slice(slot, slot + 1)
        labels = counter.concepts.counts(paired).judged_on(counter.geometries[i].judged_on)
        best.append(null_best(_best(counter, i, counter.tallies[i].counts(paired), labels), labels.area.sum(0)))
    label, intersection, area, concept_area = (np.stack(x) for x in zip(*best, strict=True))
    return NullBest(label, intersection, area, concept_area)
