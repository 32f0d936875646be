"""A small data set and network to dissect in tests, with what the dense oracle needs of them."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import torch
from broden_factory import Concept, Picture, write_broden

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers, match_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.model import Layer
from ndissect.store.protocol import make_protocol

SIZE, GRID, IMAGES = 32, 16, 23
CONCEPTS = [
    Concept(3, "tree"),
    Concept(4, "car"),
    Concept(9, "wheel", "part"),
    Concept(10, "red-c", "color"),
    Concept(11, "street-s", "scene"),
    Concept(12, "glass", "material"),
]


def write_data(folder: Path) -> Path:
    """Pictures with several maps a cell, whole-image labels, number 0, and some without any label."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(IMAGES):
        maps = {
            "object": [rng.choice([0, 0, 3, 4], (GRID, GRID)), rng.choice([0, 4], (GRID, GRID))],
            "part": rng.choice([0, 0, 0, 9], (GRID, GRID)),
            "color": rng.choice([0, 10], (GRID, GRID)),
        }
        labels = {"scene": [[11], [0], []][i % 3], "material": [12] if i % 5 == 0 else []}
        if i % 7 == 6:
            maps, labels = {}, {}
        pictures.append(Picture(maps={k: np.asarray(v, np.uint16) for k, v in maps.items()}, labels=labels))
    return write_broden(folder, pictures, CONCEPTS, image_size=(SIZE, SIZE), grid=(GRID, GRID))


def run(
    spec: str,
    data: Path,
    layers: list[str],
    protocol: str = "netdissect",
    progress: Progress | None = None,
    **changes: object,
) -> Outcome:
    options = {
        k: changes.pop(k) for k in list(changes) if k in ("q", "upsampling", "grid", "union", "maps", "min_images")
    }
    network, dataset = load_network(spec), open_dataset(data)
    infos = list_layers(network, (SIZE, SIZE))
    chosen = [i for i in infos if i.name in match_layers(layers, infos)]
    settings = dataclasses.replace(Settings(workers=2, top=4), **changes)
    return dissect(network, dataset, chosen, make_protocol(protocol, **options), settings, progress or Progress())


def layer(outcome: Outcome, name: str) -> Layer:
    return next(x for x in outcome.dissection.layers if x.name == name)


def oracle_labels(data: Path, *, once: bool, grid: tuple[int, int] = (GRID, GRID)) -> oracle.Labels:
    dataset = open_dataset(data)
    row = {int(n): i + 1 for i, n in enumerate(dataset.concepts.number)} | {0: 0}
    maps, levels = [], []
    for i in range(len(dataset)):
        sample = dataset.read(i)
        whole = (
            np.vectorize(row.__getitem__, otypes=[int])(sample.maps) if sample.maps.size else sample.maps.astype(int)
        )
        # The pixel under the centre of each pixel of the grid; between two of them the first.
        at = [[math.ceil(Fraction((2 * t + 1) * GRID, 2 * n)) - 1 for t in range(n)] for n in grid]
        maps.append(whole[:, at[0]][:, :, at[1]])
        levels.append([row[n] for n in sample.labels])
    group = [int(split == "val") for split in dataset.splits]
    return oracle.Labels(maps, levels, dataset.concepts.category, len(dataset.concepts.categories), group, once)


def activations(spec: str, data: Path, name: str) -> np.ndarray:
    """Every map of a layer, by running the network's front part alone: no hooks, one image at a time."""
    network, dataset = load_network(spec), open_dataset(data)
    front = torch.nn.Sequential(*[m for n, m in network.module.named_children()][: {"first": 1, "second": 3}[name]])
    images = [torch.from_numpy(dataset.read(i).image.copy()).permute(2, 0, 1).float() for i in range(len(dataset))]
    with torch.no_grad():
        return np.concatenate([front(x[None]).numpy() for x in images])
