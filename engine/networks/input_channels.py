"""How many channels a network takes that comes without a transform, as its first convolution shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_GREY = "The network takes one channel: images are given as their luminance"


class _Seen(BaseException):
    """Ends the forward pass at the first convolution; no Exception, so that a network's own handlers let it through."""

    def __init__(self, takes: int, given: int) -> None:
        self.takes, self.given = takes, given


def input_channels(module: nn.Module, size: tuple[int, int] | None) -> tuple[int, tuple[str, ...]]:
    """1 for a network whose first convolution takes one channel and is given the three of an image, else 3; and notes.

    Other numbers of channels are left to the first whole pass, which fails and says so.
    """
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    if not any(m.in_channels == 1 for m in convolutions):
        return 3, ()
    handles = [m.register_forward_pre_hook(_stop_at(m.in_channels)) for m in convolutions]
    image = torch.zeros(1, 3, *(size or (224, 224)))
    try:
        parameter = next(module.parameters(), image)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module(image.to(parameter.device))
    except _Seen as seen:
        if (seen.takes, seen.given) == (1, 3):
            return 1, (_GREY,)
    except Exception:  # the first whole pass fails likewise, and tells of it
        pass
    finally:
        for handle in handles:
            handle.remove()
    return 3, ()


def _stop_at(takes: int) -> Callable[[nn.Module, Any], None]:
    def hook(layer: nn.Module, args: Any) -> None:
        given = args[0] if args else None
        raise _Seen(takes, int(given.shape[1]) if isinstance(given, Tensor) and given.ndim == 4 else 0)

    return hook
