"""Small effects, counted for real: a linear head over random means of units, image by image and ablation by ablation.

``Scene`` is the network and its images; ``effects()`` counts what its ablations do with loops that are obviously right.
Class ``k`` is decided by unit ``k`` above all. The last class has no image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndissect.store.effects import Classes, Effects, Head

NAMES = ("kitchen", "street", "ski_resort", "art_gallery", "街道")
ORIGIN: dict[str, Any] = {
    "by": "zero",
    "truth": "images",
    "how": "linear head",
    "data": {"name": "small", "digest": "sha256:01"},
    "network": {"spec": "torchvision:resnet18", "digest": "sha256:00ff"},
    "command": ["nd", "ablate", "layer4", "--images", "donnée"],
}


@dataclass(frozen=True)
class Scene:
    """A network of ``units`` pooled units and ``classes`` classes, over ``images`` images: all of it random."""

    units: int
    classes: int = len(NAMES)
    images: int = 60
    seed: int = 0
    rng: np.random.Generator = field(init=False)
    weight: np.ndarray = field(init=False)
    bias: np.ndarray = field(init=False)
    means: np.ndarray = field(init=False)
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        truth = np.arange(self.images) % max(self.classes - 1, 1)
        weight = rng.normal(0, 0.3, (self.classes, self.units)).astype(np.float32)
        means = rng.uniform(0, 1, (self.images, self.units))
        for k in range(min(self.classes, self.units)):
            weight[k, k] += 2
            means[truth == k, k] += 0.8
        for name, value in (
            ("rng", rng),
            ("truth", truth),
            ("weight", weight),
            ("means", means),
            ("bias", rng.normal(0, 0.1, self.classes).astype(np.float32)),
        ):
            object.__setattr__(self, name, value)

    def scores(self, without: tuple[int, ...] = ()) -> np.ndarray:
        """(N, K): the scores of all images, these units set to zero."""
        means = self.means.copy()
        means[:, list(without)] = 0
        return np.asarray(self.bias + means @ self.weight.T.astype(np.float64))


def classes_of(scene: Scene) -> Classes:
    return Classes(tuple(NAMES[k] if k < len(NAMES) else f"c{k}" for k in range(scene.classes)), "the network")


def head_of(scene: Scene) -> Head:
    return Head(scene.weight, scene.bias)


def effects_of(
    scene: Scene,
    ablations: tuple[tuple[int, ...], ...] | None = None,
    splits: tuple[str, ...] = ("train", "val"),
    **origin: Any,
) -> Effects:
    """What the ``ablations`` do, by default those of each unit alone; ``origin`` replaces entries of ORIGIN."""
    units = tuple((u,) for u in range(scene.units)) if ablations is None else ablations
    g, E, K = len(splits), len(units), scene.classes
    images, hits, false = (np.zeros((g, K), np.int64) for _ in range(3))
    hits_without, false_without = (np.zeros((g, E, K), np.int64) for _ in range(2))
    score, score_without = np.zeros((g, K)), np.zeros((g, E, K))
    low, high = np.zeros((g, E, K)), np.zeros((g, E, K))
    outcomes = [scene.scores(), *(scene.scores(without) for without in units)]
    for s in range(g):
        there = [i for i in range(scene.images) if i // max(K - 1, 1) % g == s]
        for k in range(K):
            own = [i for i in there if scene.truth[i] == k]
            images[s, k] = len(own)
            for row, scores in enumerate(outcomes):
                hit = sum(int(scores[i].argmax() == k) for i in own)
                wrong = sum(int(scores[i].argmax() == k) for i in there if scene.truth[i] != k)
                mean = np.mean([scores[i, k] for i in own]) if own else np.nan
                if row == 0:
                    hits[s, k], false[s, k], score[s, k] = hit, wrong, mean
                else:
                    hits_without[s, row - 1, k], false_without[s, row - 1, k] = hit, wrong
                    score_without[s, row - 1, k] = mean
    made = Effects(
        units,
        splits,
        *(images, hits, false, hits_without, false_without),
        *(np.asarray(values, np.float32) for values in (score, score_without, low, high)),
        ORIGIN | origin,
    )
    around = np.float32(0.05)
    change = made.change.astype(np.float32)
    return Effects(**{**vars(made), "low": change - around, "high": change + around})
