"""A synthetic store of the size of every convolution of ResNet-50 on Broden: 26,560 units x 1,197 concepts.

python tests/benchmarks/large_store.py FILE [--layers 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.model import Dissection, Layer, UnitStatistics
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import best_per_category
from ndissect.store.writer import write_store

UNITS, CONCEPTS, IMAGES, PIXELS = 26_560, 1_197, 63_305, 112 * 112
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
SHARES = (11, 584, 234, 32, 289, 47)


def large_store(path: Path, layers: int = 1, seed: int = 0) -> Path:
    """Write the store: ``layers`` layers that share the units, the last of them named layer4."""
    rng = np.random.default_rng(seed)
    category = np.repeat(np.arange(len(CATEGORIES), dtype=np.int32), SHARES)
    name = tuple(f"{CATEGORIES[k]} {i}" for i, k in enumerate(category))
    table = ConceptTable(np.arange(1, CONCEPTS + 1, dtype=np.int32), name, category, CATEGORIES)
    images = np.maximum(rng.zipf(1.3, CONCEPTS) % 20_000, 3)
    area = images * rng.integers(50, PIXELS, CONCEPTS)
    concepts = ConceptCounts(area[None].astype(np.int64), images[None].astype(np.int64))
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
        last = number == layers - 1
        made.append(Layer("layer4" if last else f"layer3.{number}.conv", "Conv2d", best, statistics, (7, 7), counts))
    write_store(path, Dissection(protocol, table, concepts, tuple(made), None, {"made": "by large_store.py"}))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, default=1)
    arguments = parser.parse_args()
    print(large_store(arguments.file, arguments.layers))
