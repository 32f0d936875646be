"""From counts to a dissection: labels, and the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.run.count_pass import CountPass
from ndissect.store import scores
from ndissect.store.bootstrap import leading
from ndissect.store.counts import Blocks, ConceptCounts, LayerCounts
from ndissect.store.evidence import NullBest, null_best
from ndissect.store.model import Dissection, Layer
from ndissect.store.scores import Best, Floats
from ndissect.store.weighing import weigh


def conclude(counting: CountPass, provenance: Mapping[str, Any], peaks: Peaks | None = None) -> Dissection:
    """What was counted, with the evidence for every label; with images after :meth:`CountPass.keep_images`."""
    with counting.clock.during("evidence"):
        grouping, loader = counting.grouping, counting.loader
        held = counting.right.concepts.counts()
        concept_counts = grouping.named_concepts(held)
        blocks = grouping.what_blocks_hold(held, counting.right.concepts.images)
        layers = [_layer(counting, i, concept_counts, blocks, peaks) for i in range(len(counting.geometries))]
        return Dissection(
            protocol=loader.protocol,
            concepts=loader.dataset.concepts,
            concept_counts=concept_counts,
            layers=tuple(layers),
            images=counting.images_table,
            provenance=provenance,
            groups=grouping.names,
            grid=loader.grid,
            blocks=blocks,
        )


def _layer(
    counting: CountPass, i: int, concept_counts: ConceptCounts, blocks: Blocks | None, peaks: Peaks | None
) -> Layer:
    geometry, stats, grouping = counting.geometries[i], counting.statistics[i], counting.grouping
    concepts, protocol = counting.loader.dataset.concepts, counting.loader.protocol
    K, dead, least = len(concepts.categories), stats.dead, protocol.min_images
    split = counting.right.tallies[i].counts()
    counts = grouping.named_layer(split)
    best = scores.best_per_category(
        *(counts, concept_counts, concepts.category, K, protocol.union), dead=dead, min_images=least
    )
    leads = null = None
    if blocks is not None:
        by_block = LayerCounts(*(grouping.by_block(x) for x in vars(split).values()))
        leads = leading(*(by_block, concept_counts, concepts.category, K, protocol.union), dead=dead, min_images=least)
    if counting.wrong:
        null = _null(counting, i)
    evidence = weigh(
        *(best, counts, concept_counts, grouping.names, concepts, protocol, dead),
        blocks=blocks,
        leading=leads,
        null=null,
        auprc=_auprc(counting, i, best, peaks) if peaks else None,
    )
    known = (counts, counting.top_images[i] if counting.top_images else None, geometry.axes, evidence, leads, null)
    return Layer(geometry.name, geometry.module, best, stats, geometry.map_size, *known)


def _auprc(counting: CountPass, i: int, best: Best, peaks: Peaks) -> tuple[Floats, Floats]:
    label = torch.from_numpy(scores.label_units(best)[0].astype(np.int64))
    category = torch.from_numpy(counting.loader.dataset.concepts.category.astype(np.int64))
    within = counting.loader.protocol.union == "within-category"
    precision, base_rate = peaks.precision(i, label, category, within)
    return precision.numpy(), base_rate.numpy()


def _null(counting: CountPass, i: int) -> NullBest:
    """The best concept of each unit of layer ``i`` under each wrong pairing."""
    assert counting.wrong is not None
    concepts, protocol = counting.loader.dataset.concepts, counting.loader.protocol
    C, K = len(concepts), len(concepts.categories)
    counts, held = counting.wrong.tallies[i].counts(), counting.wrong.concepts.counts()
    found = []
    for p in range(counting.pairings.count):
        rows, kinds = slice(p * C, p * C + C), slice(p * K, p * K + K)
        paired = LayerCounts(counts.intersection[:, :, rows], counts.area, counts.area_in_category[:, :, kinds])
        labels = ConceptCounts(held.area[:, rows], held.images[:, rows])
        best = scores.best_per_category(
            *(paired, labels, concepts.category, K, protocol.union),
            dead=counting.statistics[i].dead,
            min_images=protocol.min_images,
        )
        found.append(null_best(best, labels.area.sum(0)))
    label, intersection, area, concept_area = (np.stack(x) for x in zip(*found, strict=True))
    return NullBest(label, intersection, area, concept_area)
