"""Dissections counted image by image, so that any resample of the images can be counted anew.

``Images`` holds the counts of every single image; ``dissection`` adds them up into a store's parts, by block too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ndissect.store.bootstrap import block_of, leading
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import BLOCKS, Blocks, ConceptCounts, LayerCounts
from ndissect.store.evidence import NullBest
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.protocol import PROTOCOLS, Protocol
from ndissect.store.scores import best_per_category
from ndissect.store.weighing import weigh
from ndissect.store.writer import write_store

CATEGORIES = ("object", "part", "color")
PROTOCOL = PROTOCOLS["netdissect"]
DATA = {"name": "made", "images": 200, "used": 200, "tables_digest": "aa11", "content_digest": "bb22"}


@dataclass(frozen=True)
class Images:
    """``intersection`` (N, U, C), ``area`` (N, U, K), ``concept_area`` (N, C) of each image; its block (N,)."""

    intersection: np.ndarray
    area: np.ndarray
    concept_area: np.ndarray
    block: np.ndarray


def concept_table(per_category: int = 3, names: str = "abc") -> ConceptTable:
    """``per_category`` concepts a category: no more than three, so that every one of them leads."""
    C = per_category * len(CATEGORIES)
    names_ = tuple(f"{names[i % per_category]}_{CATEGORIES[i // per_category]}" for i in range(C))
    return ConceptTable(
        np.arange(1, C + 1, dtype=np.int32), names_, np.arange(C, dtype=np.int32) // per_category, CATEGORIES
    )


def images(
    units: int = 8, seed: int = 0, *, labels: int = 0, count: int = 200, per_category: int = 3, skill: float = 0.5
) -> Images:
    """Images whose labels follow from the seed ``labels``, masks from ``seed``; ``skill``: how far units see them."""
    rng, of_labels = np.random.default_rng(seed), np.random.default_rng(labels)
    C = per_category * len(CATEGORIES)
    concept_area = of_labels.integers(50, 400, (count, C)) * (of_labels.random((count, C)) < 0.25)
    share = rng.random((units, C)) ** 4 * skill
    intersection = np.minimum(rng.poisson(concept_area[:, None] * share[None]), concept_area[:, None])
    area = intersection.max(2)[:, :, None] + rng.poisson(60, (count, units, 1)) + np.zeros((1, 1, 3), np.int64)
    block = np.array([block_of(f"made/{i}.jpg") for i in range(count)])
    return Images(intersection.astype(np.int64), area.astype(np.int64), concept_area.astype(np.int64), block)


def layer(name: str, made: Images, table: ConceptTable, *, dead: tuple[int, ...] = (), null: bool = False) -> Layer:
    """The layer with everything that a store holds of it but top images."""
    U = made.area.shape[1]
    is_dead = np.isin(np.arange(U), dead)
    whole = LayerCounts(made.intersection.sum(0)[None], made.area[:, :, 0].sum(0)[None], made.area.sum(0)[None])
    concepts = ConceptCounts(made.concept_area.sum(0)[None], (made.concept_area > 0).sum(0)[None])
    K = len(CATEGORIES)
    best = best_per_category(whole, concepts, table.category, K, PROTOCOL.union, dead=is_dead)
    found = leading(
        LayerCounts(by_block(made.intersection, made), by_block(made.area[:, :, 0], made), by_block(made.area, made)),
        ConceptCounts(by_block(made.concept_area, made), by_block((made.concept_area > 0).astype(np.int64), made)),
        table.category,
        K,
        PROTOCOL.union,
        dead=is_dead,
    )
    chance = None
    if null:  # what chance reaches: next to nothing
        chance = NullBest(
            np.zeros((2, U), np.int32), np.ones((2, U), np.int64), np.full((2, U), 500), np.full((2, U), 500)
        )
    evidence = weigh(
        best, whole, concepts, ("all",), table, PROTOCOL, is_dead, blocks=blocks(made), leading=found, null=chance
    )
    nothing, numbers = np.zeros(U, np.int64), np.full(U, np.float32(1))
    statistics = UnitStatistics(np.full(U, 0.5), is_dead, nothing, nothing, numbers, numbers)
    return Layer(name, "Conv2d", best, statistics, None, whole, evidence=evidence, leading=found, null=chance)


def by_block(per_image: np.ndarray, made: Images) -> np.ndarray:
    found = np.zeros((BLOCKS, *per_image.shape[1:]), np.int64)
    np.add.at(found, made.block, per_image)
    return found


def blocks(made: Images) -> Blocks:
    return Blocks(np.bincount(made.block, minlength=BLOCKS).astype(np.int64), by_block(made.concept_area, made))


def dissection(
    layers: dict[str, Images],
    *,
    table: ConceptTable | None = None,
    data: dict[str, object] | None = None,
    network: str = "net",
    protocol: Protocol = PROTOCOL,
    dead: tuple[int, ...] = (),
    null: bool = False,
    by_blocks: bool = True,
) -> Dissection:
    """A dissection of ``layers``, all over the same images."""
    table = table or concept_table()
    made = next(iter(layers.values()))
    found = tuple(layer(name, of, table, dead=dead, null=null) for name, of in layers.items())
    if not by_blocks:
        found = tuple(replace(one, leading=None, evidence=None) for one in found)
    return Dissection(
        protocol=protocol,
        concepts=table,
        concept_counts=ConceptCounts(made.concept_area.sum(0)[None], (made.concept_area > 0).sum(0)[None]),
        layers=found,
        images=None,
        provenance={"network": {"name": network}, "data": DATA if data is None else data},
        blocks=blocks(made) if by_blocks else None,
    )


def write(path: Path, layers: dict[str, Images], **changes: object) -> Path:
    """``dissection(layers, **changes)`` written to ``path``."""
    write_store(path, dissection(layers, **changes))  # type: ignore[arg-type]
    return path
