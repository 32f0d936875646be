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
# Given latents that are read at a time, in bytes.
_AT_A_TIME = 64 << 20


@dataclass(frozen=True)
class NormalLatents:
    """Latents of ``shape`` from the standard normal distribution; ``truncation``: none is farther from 0 than this.

    ``sampler``: the generator's own way to draw them, None: standard normal.
    """

    shape: tuple[int, ...]
    seed: int = 0
    truncation: float | None = None
    sampler: Sampler | None = None

    @property
    def count(self) -> int | None:
        """How many there are: as many as are asked for."""
        return None

    @property
    def identity(self) -> str:
        """What says which latents they are."""
        return repr((self.shape, self.seed, self.truncation, self.sampler is not None))

    def of(self, samples: Sequence[int]) -> npt.NDArray[np.float32]:
        """(n, *shape): the latents of samples by their numbers."""
        return np.stack([self._one(number) for number in samples]) if samples else np.zeros((0, *self.shape), "f4")

    def _one(self, number: int) -> npt.NDArray[np.float32]:
        random = seeded(f"{self.seed}:{number}")
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
    """Latents that were given: ``values`` (N, *shape) float, which may lie in a file."""

    values: npt.NDArray[np.floating]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.values.shape[1:])

    @property
    def count(self) -> int | None:
        """How many there are."""
        return len(self.values)

    @property
    def identity(self) -> str:
        """What says which latents they are: a digest of them."""
        digest = hashlib.sha256(repr(self.values.shape).encode())
        some = max(1, _AT_A_TIME // max(1, 4 * math.prod(self.shape)))
        for start in range(0, len(self.values), some):
            digest.update(np.ascontiguousarray(self.values[start : start + some], "<f4").tobytes())
        return digest.hexdigest()

    def of(self, samples: Sequence[int]) -> npt.NDArray[np.float32]:
        """(n, *shape): the latents of samples by their numbers."""
        return np.ascontiguousarray(self.values[list(samples)], np.float32)


@dataclass(frozen=True)
class ClassedLatents:
    """``latents`` with a class each, as a conditional generator takes them: flat, and the class's number comes last.

    ``number``: that of all samples; None: each has one of ``classes``, which depends on ``seed`` and its number.
    """

    latents: NormalLatents | GivenLatents
    number: int | None
    classes: int
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, with its class."""
        return (math.prod(self.latents.shape) + 1,)

    @property
    def count(self) -> int | None:
        """How many there are."""
        return self.latents.count

    @property
    def identity(self) -> str:
        """What says which latents they are."""
        return repr((self.latents.identity, self.number, self.classes, self.seed))

    def of(self, samples: Sequence[int]) -> npt.NDArray[np.float32]:
        """(n, *shape): the latents of samples by their numbers."""
        flat = self.latents.of(samples).reshape(len(samples), self.shape[0] - 1)
        numbers = [self._class(sample) if self.number is None else self.number for sample in samples]
        return np.concatenate([flat, np.array(numbers, np.float32).reshape(-1, 1)], 1)

    def _class(self, sample: int) -> int:
        return int(torch.randint(self.classes, (1,), generator=seeded(f"class {self.seed}:{sample}")))


#: Where latents are from.
Latents = NormalLatents | GivenLatents | ClassedLatents


def seeded(text: str) -> torch.Generator:
    """A source of random numbers that depends on ``text`` alone, on the CPU."""
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))
