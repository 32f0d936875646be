"""A whole dissection as plain data: what the engine hands to the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concept_effects import ConceptEffects, EffectPictures
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import Blocks, ConceptCounts, JudgedOn, LayerCounts, Leading
from ndissect.store.effects import Classes, Effects, Head
from ndissect.store.evidence import Evidence, NullBest
from ndissect.store.protocol import Protocol
from ndissect.store.scores import Best, Floats
from ndissect.store.upsampling import Axis


@dataclass(frozen=True)
class UnitStatistics:
    """One value for each of a layer's U units.

    ``threshold`` (U,) float64: T_u, NaN where unknown; ``dead`` (U,) bool: constant, or never above zero; ``nan``,
    ``inf`` (U,) int64: non-finite activations, which take no part in threshold or masks; ``minimum``, ``maximum``
    (U,) float32 over the finite ones.
    """

    threshold: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]
    nan: npt.NDArray[np.int64]
    inf: npt.NDArray[np.int64]
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]


@dataclass(frozen=True)
class TopImages:
    """The images in which each unit peaks highest, best first.

    ``image`` (U, n) int32: a row of the image table, -1 for none; ``peak`` (U, n) float32: the spatial maximum of the
    raw activation map; ``maps`` (U, n, h, w) float32: that map.
    """

    image: npt.NDArray[np.int32]
    peak: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageTable:
    """The distinct top images of all layers, D of them.

    ``index`` (D,) int64: position in the data set; ``thumbnail``: JPEG bytes; ``label_maps`` (D, M, H, W) uint16 on
    the label grid and ``image_labels`` (D, L) uint16: concept numbers, 0 where there is none.
    """

    index: npt.NDArray[np.int64]
    name: tuple[str, ...]
    split: tuple[str, ...]
    thumbnail: tuple[bytes, ...]
    label_maps: npt.NDArray[np.uint16]
    image_labels: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Layer:
    """One dissected layer. An imported table knows only ``best``, or ``ious``: its other optional parts are None.

    ``evidence`` follows from ``leading``, ``null`` and ``counts``, but for its AUPRC, which needs every image's peaks.
    ``judged_on``: what the counts count. ``head``: where the network's class scores are linear in the means of the
    layer's maps; ``effects``: what its ablations do to the network's predictions.

    ``ious`` (U, C) float64: IoUs that were given without the counts behind them; ``best`` then follows from them, and
    its counts are -1. ``concept_effects``, ``effect_pictures``: what a generator's units do to what it draws.
    """

    name: str
    module: str
    best: Best
    statistics: UnitStatistics
    map_size: tuple[int, int] | None = None
    counts: LayerCounts | None = None
    top: TopImages | None = None
    axes: tuple[Axis, Axis] | None = None
    evidence: Evidence | None = None
    leading: Leading | None = None
    null: NullBest | None = None
    judged_on: JudgedOn = "pixels"
    head: Head | None = None
    effects: Effects | None = None
    ious: Floats | None = None
    concept_effects: ConceptEffects | None = None
    effect_pictures: EffectPictures | None = None


@dataclass(frozen=True)
class Dissection:
    """A network's layers dissected over one data set under one protocol.

    ``groups`` names the image groups that every count is split into (``all`` when there is one); ``grid`` is the
    label grid (H, W), None where unknown; ``blocks``: what the labels hold by image block, None where not counted;
    ``provenance`` is JSON: enough to run the command again; ``classes``: the network's outputs, None where there are
    none or nothing is told of them.
    """

    protocol: Protocol
    concepts: ConceptTable
    concept_counts: ConceptCounts
    layers: tuple[Layer, ...]
    images: ImageTable | None
    provenance: Mapping[str, Any]
    groups: tuple[str, ...] = ("all",)
    grid: tuple[int, int] | None = None
    blocks: Blocks | None = None
    classes: Classes | None = None
