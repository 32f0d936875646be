"""How many channels a network takes that comes without a transform, as its first convolution shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_GREY = "The network takes one channel: images are given as their luminance"


class FirstConvolution(BaseException):
    """A network's first convolution: how many channels it takes, and how many it is given.

    It ends the forward pass there; no Exception, so that a network's own handlers let it through.
    """

    def __init__(self, takes: int, given: int) -> None:
        self.takes, self.given = takes, given


def first_convolution(module: nn.Module, x: Tensor) -> FirstConvolution | None:
    """The first convolution that ``module`` calls for the images ``x``; None where it calls none."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_pre_hook(_stop_at(m.in_channels)) for m in convolutions]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module(x)
    except FirstConvolution as seen:
        return seen
    except Exception:  # the first whole pass fails likewise, and tells of it
        return None
    finally:
        for handle in handles:
            handle.remove()
    return None


def input_channels(module: nn.Module, size: tuple[int, int] | None) -> tuple[int, tuple[str, ...]]:
    """1 for a network whose first convolution takes one channel and is given the three of an image, else 3; and notes.

    Other numbers of channels are left to the first whole pass, which fails and says so.
    """
    if not any(isinstance(m, nn.Conv2d) and m.in_channels == 1 for m in module.modules()):
        return 3, ()
    image = torch.zeros(1, 3, *(size or (224, 224)))
    seen = first_convolution(module, image.to(next(module.parameters(), image).device))
    if seen is not None and (seen.takes, seen.given) == (1, 3):
        return 1, (_GREY,)
    return 3, ()


def _stop_at(takes: int) -> Callable[[nn.Module, Any], None]:
    def hook(layer: nn.Module, args: Any) -> None:
        given = args[0] if args else None
        raise FirstConvolution(takes, int(given.shape[1]) if isinstance(given, Tensor) and given.ndim == 4 else 0)

    return hook
