"""Noise that a network draws while it runs, as style generators do, held fixed: the same for every sample.

::

    with FixedNoise(module, samples=len(x)) as noise:
        output = module(x)
    noise.drawn  # how often it drew

A sample's picture then depends on its latents alone, whatever the batch and the process. Dropout is left as it is: a
generator that drops values at random is no function of its latents, and is refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ndissect.engine.networks.latents import seeded

_SAID = {"normal_": ("mean", "std"), "uniform_": ("from", "to")}
_NORMAL, _UNIFORM = ("randn", "randn_like", "normal_"), ("rand", "rand_like", "uniform_")


class FixedNoise(TorchFunctionMode):
    """Answers torch.randn, torch.rand, those like a tensor, Tensor.normal_ and Tensor.uniform_ for a block.

    The noise of one draw depends on the innermost module that draws it, on its shape, and on how often that module has
    drawn such before in the block, so that a part of the network draws the same by itself. Noise for ``samples``
    samples is that of one, repeated.
    """

    def __init__(self, module: nn.Module, samples: int) -> None:
        super().__init__()
        self._names: dict[int, str] = {id(m): name for name, m in module.named_modules()}
        self._samples = samples
        self._times: Counter[str] = Counter()

    @property
    def drawn(self) -> int:
        """How often noise was drawn."""
        return self._times.total()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name not in (*_NORMAL, *_UNIFORM) or given.pop("generator", None) is not None:
            return func(*args, **(kwargs or {}))
        if name.endswith("_"):
            said = dict(zip(_SAID[name], args[1:], strict=False)) | given
            first, second = (said.get(word, default) for word, default in zip(_SAID[name], (0.0, 1.0), strict=True))
            noise = self._noise(name, args[0])
            return args[0].copy_(first + noise * (second if name == "normal_" else second - first))
        target = torch.empty_like(*args, **given) if name.endswith("_like") else torch.empty(*args, **given)
        return target.copy_(self._noise(name, target))

    def _noise(self, name: str, target: Tensor) -> Tensor:
        """Noise that fits into ``target``, drawn on the CPU, so that every device gets the same."""
        shape = tuple(target.shape)
        if shape and shape[0] == self._samples:
            shape = (1, *shape[1:])
        key = f"{self._drawer()}:{name}:{shape}"
        self._times[key] += 1
        random = seeded(f"noise {key}:{self._times[key]}")
        draw = torch.randn if name in _NORMAL else torch.rand
        return draw(shape, generator=random).to(target.device, target.dtype)

    def _drawer(self) -> str:
        """The name of the innermost module of the network whose code is running."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = self._names.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name
            frame = frame.f_back
        return ""
