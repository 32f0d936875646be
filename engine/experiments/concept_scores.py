"""The labeller's score of a concept in what a generator draws, with gradients: pictures are not rounded to levels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.experiments.concept_cells import cell_numbers
from ndissect.engine.experiments.generated import Generated
from ndissect.engine.networks.preprocess import LUMINANCE, Preprocess
from ndissect.engine.passes.labeller import scores_of
from ndissect.store.errors import NDError, WrongUse

#: What is left to do where there is no gradient.
WITHOUT = "--steps 0 measures the units of highest IoU and learns no coefficients"


class ConceptScores:
    """The softmax score that the labeller of ``g`` gives the concept in row ``concept``, of each pixel.

    WrongUse where no gradient can go through the labeller: its labels are names of colours, or its own transform makes
    its input.
    """

    def __init__(self, g: Generated, concept: int) -> None:
        segmenter = g.labeller.segmenter
        classes = [] if segmenter is None else [k for k, n in enumerate(segmenter.numbers) if n == concept + 1]
        name = g.concepts.label(concept)
        if segmenter is None or not classes:
            raise WrongUse(f"{name} is a name of colours, of which no coefficients can be learned", WITHOUT)
        if segmenter.network.preprocess.transform is not None:
            raise WrongUse(
                f"no gradient goes through the transform that {segmenter.network.spec} brings with it",
                f"let its factory return the module alone; {WITHOUT}",
            )
        self._g, self._network = g, segmenter.network
        self._classes = torch.tensor(classes, device=g.device)
        self._cells = cell_numbers(g.generator.size, g.map_size, g.device).flatten()

    def of(self, output: Any) -> Tensor:
        """(n, H, W): the score of each pixel of the pictures in what the generator returned; NDError as of
        Generated.pictures, and where no gradient comes through."""
        self._g.pictures(output.detach() if isinstance(output, Tensor) else output)  # what is no picture is refused
        low, high = self._g.generator.span
        pictures = ((output.float() - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1)
        output = self._network.module(prepared_floats(self._network.preprocess, pictures))
        scores = scores_of(output, self._network.spec).float()
        scores = F.interpolate(scores, self._g.generator.size, mode="bilinear", align_corners=False)
        return scores.softmax(1)[:, self._classes].sum(1)

    def at(self, output: Any, cells: Tensor) -> Tensor:
        """(n,): the mean score over the pixels of one cell of each picture; ``cells`` (n,): their numbers."""
        inside = (self._cells == cells[:, None]).float()
        return (self.of(output).flatten(1) * inside).sum(1) / inside.sum(1)

    def demand_gradient(self, score: Tensor) -> None:
        """NDError where ``score`` does not lead back to the maps."""
        if not score.requires_grad:
            raise NDError(
                f"no gradient goes from the pixels' scores of {self._network.spec} back to {self._g.layer.name}",
                f"the generator or the labeller takes steps that have none; {WITHOUT}",
            )


def prepared_floats(preprocess: Preprocess, pictures: Tensor) -> Tensor:
    """(N, C, h, w): ``pictures`` (N, 3, H, W) in [0, 1] as the network's input, as ``preprocess.apply`` makes it of
    whole levels, up to their rounding. ``preprocess`` has no transform of its own."""
    x = pictures
    if preprocess.size is not None and tuple(x.shape[-2:]) != preprocess.size:
        smooth = preprocess.interpolation in ("bilinear", "bicubic")
        x = F.interpolate(
            x,
            preprocess.size,
            mode=preprocess.interpolation,
            align_corners=False if smooth else None,
            antialias=smooth and preprocess.antialias,
        ).clamp(0, 1)

    def by_channel(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=x.device)[:, None, None]

    if preprocess.channels == 1:
        x = (x * by_channel(LUMINANCE)).sum(1, keepdim=True)
    if preprocess.mean is not None:
        x = x - by_channel(preprocess.mean)
    if preprocess.std is not None:
        x = x / by_channel(preprocess.std)
    return x.flip(1) if preprocess.bgr else x
