"""The class scores in what a network returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def class_scores(spec: str, output: Any) -> Tensor:
    """(N, K) float32: the scores of K classes in what the network ``spec`` returned for N images.

    The first tensor of a tuple, list, dictionary or dataclass counts (``logits`` of one that has them); (N, K, 1, 1) is
    taken as (N, K). WrongUse for what gives no class of an image: an image (a generator), scores of every pixel (a
    segmentation network), features without classes are not told apart from scores.
    """
    raise NotImplementedError
