"""The class scores in what a network returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ndissect.engine.networks.taps import shape_text, tensors_inside
from ndissect.store.errors import WrongUse

#: What a class is, for a network that says none.
_CLASS = "a class is what a network says of a whole image: name a network that gives one score for each class"


def class_scores(spec: str, output: Any) -> Tensor:
    """(N, K) float32: the scores of K classes in what the network ``spec`` returned for N images.

    Of a tuple, list, dictionary or dataclass, the tensor that is called ``logits`` counts, else the first one. Scores
    of shape (N, K, 1, 1) are taken as (N, K). Features cannot be told from scores: a network without classes gives
    "scores" as well. WrongUse where the network says nothing of a whole image: it returns an image (a generator),
    scores for every pixel (a segmentation network), one number for each image, or no tensor.
    """
    return raw_scores(spec, output).float()


def raw_scores(spec: str, output: Any) -> Tensor:
    """(N, K): the same scores with the type that the network gave them."""
    scores = first_tensor(output)
    if scores is None:
        raise WrongUse(f"{spec} returns no class scores: a {type(output).__name__} without a tensor", _CLASS)
    if scores.ndim == 4 and scores.shape[2:] == (1, 1):
        scores = scores[:, :, 0, 0]
    if scores.ndim == 2 and scores.shape[1] and scores.is_floating_point():
        return scores
    raise WrongUse(f"{spec} returns no class scores: {_told(scores)}", _CLASS)


def first_tensor(output: Any) -> Tensor | None:
    """The tensor in what a network returned that is its result: that called ``logits``, else the first; None if none is
    there."""
    if isinstance(output, Tensor):
        return output
    inside = tensors_inside(output)
    named = [path for path in inside if path[-1] == "logits"]
    return next((inside[path] for path in named or inside), None)


def _told(scores: Tensor) -> str:
    """What a tensor is that holds no scores of classes."""
    shape = shape_text(scores.shape)
    if not scores.is_floating_point():
        return f"values of type {str(scores.dtype).removeprefix('torch.')}"
    if scores.ndim == 4:
        return f"values for every pixel, {shape}, as generators and segmentation networks do"
    return f"one number for each image, {shape}" if scores.ndim == 1 else f"a tensor of {shape}"
