"""The largest and smallest activation of every map: known once, they spare most maps a second look."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Extremes:
    """``peak``, ``low`` (N, U) float32 of maps (N, U, h, w), NaN where a map holds one; ``clean``: all is finite."""

    peak: Tensor
    low: Tensor
    clean: bool


def extremes(maps: Tensor) -> Extremes:
    """The extremes of ``maps`` (N, U, h, w) floating."""
    peak, low = maps.amax((2, 3)).to(torch.float32), maps.amin((2, 3)).to(torch.float32)
    return Extremes(peak, low, bool((torch.isfinite(peak) & torch.isfinite(low)).all()))
