"""Following what is known of a tensor through every operation of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.taps import Tap, every_tensor

T = TypeVar("T")

#: Of what is known of a tensor, or in words why nothing is.
Input = tuple[Tensor, torch.Size, T | str]
#: (name of the operation, its arguments, those by name, its inputs from the image, an output) -> that output's.
Rule = Callable[[str, tuple[Any, ...], Mapping[str, Any], list[Input[T]], Tensor], T | str]

# Operations whose result at a place depends on their inputs at that place only (any depth of channels).
_PLACEWISE_NAMES = """
abs add sub subtract mul multiply div divide true_divide neg negative pow square sqrt rsqrt exp log log1p clamp
clamp_min clamp_max clip sign sigmoid tanh relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus
softsign hardswish hardsigmoid hardtanh hardshrink softshrink logsigmoid threshold tanhshrink reciprocal round floor
maximum minimum where lerp addcmul addcdiv batch_norm instance_norm group_norm dropout dropout2d alpha_dropout
feature_dropout channel_shuffle cat concat concatenate chunk split tensor_split clone contiguous detach to float
half double type_as cpu cuda copy alias requires_grad fake_quantize_per_tensor_affine local_response_norm normalize
radd rsub rmul iadd isub imul itruediv truediv rtruediv
"""
_PLACEWISE = frozenset(_PLACEWISE_NAMES.split())
# Channels regrouped (channel shuffle): followed as long as rows and columns stay the last two axes.
_RESHAPES = frozenset(
    {"view", "reshape", "transpose", "permute", "unflatten", "flatten", "expand", "unsqueeze", "squeeze"}
)
_WHY = {
    "interpolate": "a resize (interpolate) comes before it",
    "upsample": "a resize (upsample) comes before it",
    "mean": "an average over the whole map comes before it",
    "grid_sample": "a resampling (grid_sample) comes before it",
    "conv_transpose2d": "a transposed convolution comes before it",
    "pixel_shuffle": "a pixel shuffle comes before it",
    "scaled_dot_product_attention": "attention mixes all places before it",
    "multi_head_attention_forward": "attention mixes all places before it",
}


class Tracer(TorchFunctionMode, Generic[T]):
    """Knows of every tensor made from ``x`` what ``rule`` says, or why that is unknown.

    ``first``: what is known of ``x``. Tensors are kept alive meanwhile, so that their ids stay their own; not with
    ``keep=False``, where nothing is asked by id.
    """

    def __init__(self, x: Tensor, first: T, rule: Rule[T], *, keep: bool = True) -> None:
        super().__init__()
        self._rule = rule
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._alive: dict[int, Tensor] | None = {} if keep else None
        self._learn(x, first)

    def _learn(self, tensor: Tensor, known: T | str) -> None:
        self._known[tensor] = known
        if self._alive is not None:
            self._alive[id(tensor)] = tensor

    def of(self, value: object) -> T | str:
        """What is known of ``value``, or why nothing is."""
        if not isinstance(value, Tensor):
            return "its output is not a tensor"
        if value not in self._known:
            return "its output does not come from the image"
        known: T | str = self._known[value]
        return known

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [(t, t.shape[-2:], self._known[t]) for t in every_tensor((args, kwargs)) if t in self._known]
        output = func(*args, **kwargs)
        if inputs:
            name = getattr(func, "__name__", str(func)).strip("_")
            for out in every_tensor(output):
                self._learn(out, self._rule(name, args, kwargs, inputs, out))
        return output

    def by_identity(self, identity: int) -> tuple[Tensor, T | str] | None:
        """The tensor with this id and what is known of it; None where it was not made from the image."""
        assert self._alive is not None
        tensor = self._alive.get(identity)
        return None if tensor is None else (tensor, self.of(tensor))

    def through(
        self, module: nn.Module, x: Tensor, names: Sequence[str], taps: Mapping[str, Tap] | None = None
    ) -> dict[str, T | str]:
        """What is known of the output of each layer of ``names`` when ``module`` runs on ``x``.

        ``taps``: which call and which part of it is meant, by name (ndissect.engine.networks.taps).

        A layer called several times answers for its last call, unless its tap names another.
        """
        known: dict[str, T | str] = dict.fromkeys(names, "it is not called in the forward pass")

        def look(name: str, output: Any) -> None:
            known[name] = self.of(output)

        with Capture(module, names, taps, observe=look), torch.no_grad(), self:
            module(x)
        return known


def placewise(name: str, args: tuple[Any, ...], inputs: list[Input[T]], out: Tensor) -> list[T | str]:
    """What is known of the inputs at the places of which ``out`` depends on nothing but these places; [] for none.

    Inputs of another size are broadcast: gates of 1 x 1, which are the same everywhere.
    """
    places = [known for t, size, known in inputs if size == out.shape[-2:] and t.ndim >= 3]
    if name in _PLACEWISE or (name in _RESHAPES and _keeps_places(name, args, inputs[0][0], out)):
        return places
    return []


def why_unknown(name: str, inputs: list[Input[T]]) -> str:
    """Why nothing is known of what ``name`` makes of ``inputs``: the reason of an input first."""
    broken = next((known for _, _, known in inputs if isinstance(known, str)), None)
    return broken or _WHY.get(name, f"it follows an operation that is not followed ({name})")


def _keeps_places(name: str, args: tuple[Any, ...], before: Tensor, after: Tensor) -> bool:
    if after.ndim < 3 or before.ndim < 3 or before.shape[-2:] != after.shape[-2:]:
        return False
    if name in ("transpose", "permute"):
        axes = moved_axes(args, before.ndim)
        tail = [before.ndim - 2, before.ndim - 1]
        return bool(axes) and (axes[-2:] == tail if name == "permute" else not set(axes) & set(tail))
    return True


def moved_axes(args: tuple[Any, ...], ndim: int) -> list[int]:
    """The axes that are named after the tensor in the arguments of transpose, permute or flip, counted from 0."""
    named = args[1:] if len(args) > 2 else args[1] if len(args) == 2 else ()
    return [a % ndim for a in ([named] if isinstance(named, int) else named) if isinstance(a, int)]


def bind(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def pair(value: Any) -> tuple[int, int]:
    """The value along rows and columns of an argument that gives one or both."""
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))
