"""How many of something there will be, guessed from how many there were: what a GPU is told to make room for.

To know how many there are the host must wait for the device; it guesses, and reads the numbers later, all at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Room for so many times what there was, and for so many more.
_SLACK, _MORE = 1.5, 64
# Batches differ: after one with few of them there is still room for nearly as many as before.
_KEPT = 0.8


class Guess:
    """How many places are likely to be true in the next images, judged by the images before."""

    def __init__(self) -> None:
        self._an_image: float | None = None

    def room(self, images: int, most: int) -> int | None:
        """How many to make room for in so many images, of ``most`` that there can be; None where nothing is known."""
        if self._an_image is None:
            return None
        return min(most, int(_SLACK * self._an_image * images) + _MORE)

    def learn(self, count: int, images: int) -> None:
        """So many there were in so many images."""
        self._an_image = max(count / images, _KEPT * (self._an_image or 0))


def first_places(mask: Tensor, size: int, fill: int = -1) -> tuple[Tensor, ...]:
    """The first places at which ``mask`` is true, rising, then ``fill``: (size,) int64 for each dimension.

    The host does not wait.
    """
    return torch.nonzero_static(mask, size=size, fill_value=fill).unbind(1)


def places(mask: Tensor) -> tuple[Tensor, ...]:
    """All places at which ``mask`` is true, rising: (M,) int64 for each dimension; the host waits."""
    return mask.nonzero().unbind(1)
