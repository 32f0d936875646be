"""Latents: what a generator draws pictures of. Sample i depends on the seed and on i alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: A generator's own ``sample(n, generator)``: n latents, drawn by that torch.Generator.
Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class NormalLatents:
    """Latents of ``shape`` from the standard normal distribution; ``truncation``: none is farther from 0 than this.

    ``sampler``: the generator's own way to draw them, None: standard normal.
    """

    shape: tuple[int, ...]
    seed: int = 0
    truncation: float | None = None
    sampler: Sampler | None = None

    def of(self, samples: Sequence[int]) -> npt.NDArray[np.float32]:
        """(n, *shape): the latents of samples by their numbers."""
        return np.stack([self._one(number) for number in samples]) if samples else np.zeros((0, *self.shape), "f4")

    def _one(self, number: int) -> npt.NDArray[np.float32]:
        digest = hashlib.blake2b(f"{self.seed}:{number}".encode(), digest_size=7).digest()
        random = torch.Generator().manual_seed(int.from_bytes(digest))
        if self.sampler is not None:
            return np.asarray(self.sampler(1, random)[0].detach().cpu().float().numpy())
        if self.truncation is None:
            return np.asarray(torch.randn(self.shape, generator=random).numpy())
        # By the inverse of the distribution's own function, so that a sample takes as many random numbers as another.
        inside = math.erf(self.truncation / math.sqrt(2))
        uniform = torch.rand(self.shape, generator=random, dtype=torch.float64)
        return np.asarray((torch.erfinv((2 * uniform - 1) * inside) * math.sqrt(2)).float().numpy())


@dataclass(frozen=True)
class GivenLatents:
    """Latents that were given: ``values`` (N, *shape) float32."""

    values: npt.NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def of(self, samples: Sequence[int]) -> npt.NDArray[np.float32]:
        """(n, *shape): the latents of samples by their numbers."""
        return self.values[list(samples)]


#: Where latents are from.
Latents = NormalLatents | GivenLatents
