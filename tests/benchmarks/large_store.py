"""A synthetic store of the size of every convolution of ResNet-50 on Broden: 26,560 units x 1,197 concepts.

Its labels have evidence of every kind, as those of ``nd dissect`` have.

python tests/benchmarks/large_store.py FILE [--layers 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import BLOCKS, PER_CATEGORY, Blocks, ConceptCounts, LayerCounts, Leading
from ndissect.store.evidence import NUMBERS, Evidence, NullBest, chance, false_discovery_rate, null_best
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import Best, best_per_category, label_units
from ndissect.store.writer import write_store

UNITS, CONCEPTS, IMAGES, PIXELS = 26_560, 1_197, 63_305, 112 * 112
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
SHARES = (11, 584, 234, 32, 289, 47)


PAIRINGS = 4


def _evidence(best: Best, dead: npt.NDArray[np.bool_], null: NullBest, rng: np.random.Generator) -> Evidence:
    """Evidence for the labels: p and q by the null, the rest drawn at random."""
    label, value = label_units(best)
    numbers = {name: np.where(label < 0, np.nan, rng.random(len(label))) for name in NUMBERS}
    p = chance(value, null.iou, ~dead)
    numbers |= {"p": p, "q": false_discovery_rate(p), "iou_low": value * 0.8, "iou_high": value * 1.25}
    return Evidence(**numbers, heldout_concept=label)


def large_store(path: Path, layers: int = 1, seed: int = 0) -> Path:
    """Write the store: ``layers`` layers that share the units, the last of them named layer4."""
    rng = np.random.default_rng(seed)
    category = np.repeat(np.arange(len(CATEGORIES), dtype=np.int32), SHARES)
    name = tuple(f"{CATEGORIES[k]} {i}" for i, k in enumerate(category))
    table = ConceptTable(np.arange(1, CONCEPTS + 1, dtype=np.int32), name, category, CATEGORIES)
    images = np.maximum(rng.zipf(1.3, CONCEPTS) % 20_000, 3)
    area = images * rng.integers(50, PIXELS, CONCEPTS)
    concepts = ConceptCounts(area[None].astype(np.int64), images[None].astype(np.int64))
    blocks = Blocks(np.full(BLOCKS, IMAGES // BLOCKS), np.repeat(area[None] // BLOCKS, BLOCKS, 0))
    protocol = make_protocol()
    made = []
    for number, units in enumerate(np.array_split(np.arange(UNITS), layers)):
        U = len(units)
        unit_area = rng.integers(1_000_000, 6_000_000, U)
        share = rng.beta(0.05, 30.0, (U, CONCEPTS))
        both = (np.minimum(unit_area[:, None], area) * share).astype(np.int64)
        in_category = np.maximum(unit_area[:, None] * 7 // 10, 0).repeat(len(CATEGORIES), 1)
        counts = LayerCounts(both[None], unit_area[None], in_category[None])
        dead = rng.random(U) < 0.02
        best = best_per_category(counts, concepts, category, len(CATEGORIES), protocol.union, dead=dead)
        zeros = np.zeros(U, np.int64)
        low, high = np.zeros(U, np.float32), rng.random(U).astype(np.float32)
        statistics = UnitStatistics(rng.random(U), dead, zeros, zeros, low, high)
        which, intersection, *areas = null_best(best, concepts.area[0])
        chosen = (which, intersection * 9 // 10, *areas)
        null = NullBest(*(np.repeat(x[None], PAIRINGS, 0) for x in chosen))
        evidence = _evidence(best, dead, null, rng)
        K = len(CATEGORIES)
        by_block = rng.integers(0, 1000, (U, BLOCKS, K, PER_CATEGORY))
        first = np.where(np.arange(PER_CATEGORY) == 0, best.concept[:, :, None], -1).astype(np.int32)
        leading = Leading(first, by_block, by_block.sum(3))
        last = number == layers - 1
        name_of = "layer4" if last else f"layer3.{number}.conv"
        about = {"evidence": evidence, "leading": leading, "null": null}
        made.append(Layer(name_of, "Conv2d", best, statistics, (7, 7), counts, **about))
    made_by = {"made": "by large_store.py"}
    write_store(path, Dissection(protocol, table, concepts, tuple(made), None, made_by, blocks=blocks))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, default=1)
    arguments = parser.parse_args()
    print(large_store(arguments.file, arguments.layers))
