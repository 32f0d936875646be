"""A network with its layer, its classes and images of them: what the experiments on effects begin with.

::

    with open_classified(request, console) as c:
        for batch in c.batches(c.images):
            inputs = c.inputs(batch)                  # (n, C, H, W) of the images that batch.images numbers
            scores = c.scores(c.network.module(inputs))
            truth = c.truth_of(batch.images, scores)  # (n,) int64
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.loader import Batch
from ndissect.engine.run.settings import Settings
from ndissect.store.effects import Classes

__all__ = ["Classified", "EffectRequest", "open_classified"]


@dataclass(frozen=True)
class Classified:
    """A network on its device, and images of its classes.

    ``truth`` (N,) int64: the class of each image of ``dataset``, -1 for none; ``truth_from``: ``images``, the images
    say their class, or ``prediction``: nothing does, and the network's own prediction stands for it. ``images``: the
    numbers of those that are used: all that have a class. ``splits``: ``("train", "val")`` or ``("all",)``;
    ``split`` (N,) int64: a row of ``splits`` for each image. ``notes``: what every table says of classes and images.
    """

    network: Network
    layer: LayerInfo
    classes: Classes
    dataset: ConceptDataset
    truth: npt.NDArray[np.int64]
    truth_from: Literal["images", "prediction"]
    images: list[int]
    splits: tuple[str, ...]
    split: npt.NDArray[np.int64]
    notes: tuple[str, ...]
    store: Path | None
    settings: Settings
    progress: Progress

    def batches(self, images: Sequence[int]) -> Iterator[Batch]:
        """These images in their order, a batch at a time, decoded ahead; unreadable ones raise unless settings skip."""
        raise NotImplementedError

    def inputs(self, batch: Batch) -> Tensor:
        """(n, C, H, W): the network's input for a batch, on its device."""
        raise NotImplementedError

    def scores(self, output: Any) -> Tensor:
        """(n, K) float32: the class scores in what the network returned."""
        raise NotImplementedError

    def truth_of(self, images: Sequence[int], scores: Tensor) -> Tensor:
        """(n,) int64: the class of each of these images, or, by prediction, that of its largest score."""
        raise NotImplementedError

    def class_number(self, name: str) -> int:
        """The class that is called ``name``, or has this number; WrongUse with the nearest names for none."""
        raise NotImplementedError


@contextlib.contextmanager
def open_classified(request: EffectRequest, console: Console) -> Iterator[Classified]:
    """What ``request`` asks for, the network on its device for the block.

    WrongUse and NDError for what cannot be: no network, weights that are not those of the store, classes that do not
    match, images without classes, a network that gives no class scores.
    """
    raise NotImplementedError
    yield
