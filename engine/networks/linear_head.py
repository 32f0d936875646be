"""Whether a network's class scores are linear in the maps of a layer, found by tracing and checked by numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import Tap

#: How far the contributions and the bias may be from the score, as a share of the largest score.
EXACT = 1e-5


@dataclass(frozen=True)
class LinearHead:
    """score(k) = bias(k) + sum over units u and places p of weight(k, u, p) A_u(p).

    ``weight`` (K, U) float64 where every place counts alike: score = bias + weight @ mean(A_u); (K, U, h, w) float64
    where not; ``bias`` (K,) float64; both on the CPU.
    """

    weight: Tensor
    bias: Tensor

    @property
    def pooled(self) -> bool:
        """Whether the scores are linear in the mean of each map."""
        return self.weight.ndim == 2

    def contributions(self, maps: Tensor, classes: Tensor) -> Tensor:
        """(N, U) float64: what each unit adds to the score of one class of each image.

        ``maps`` (N, U, h, w), ``classes`` (N,) int64.
        """
        raise NotImplementedError

    def scores_without(self, maps: Tensor, scores: Tensor, stands_in: Tensor | None = None) -> Tensor:
        """(N, U, K): the scores without each unit alone, in closed form; ``scores`` (N, K) are those with all.

        ``stands_in`` (N, U, h, w) or (U,): maps or values that take the place of the unit's; by default zero.
        """
        raise NotImplementedError


def find_linear_head(network: Network, tap: Tap, inputs: Tensor) -> LinearHead | None:
    """The head behind the layer at ``tap``, tried on ``inputs`` (N, C, H, W), two images or more, on the network's
    device.

    None where the scores are not linear in the layer's maps (a nonlinearity follows it, or another way goes round it),
    or where the weights of every place would take more than 1 GB.
    """
    raise NotImplementedError
