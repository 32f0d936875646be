"""Receptive fields of a network's layers, followed through one forward pass.

Every operation on tensors is watched. A convolution or pooling has the field (-pad, (k - 1) dilation + 1, stride) on
its input, composed over the layers before it (Bau et al. 2017); elementwise operations keep their input's; where
branches meet, the field spans all of theirs. Fields are in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ndissect.store.upsampling import Field

Fields = tuple[Field, Field]
_SAME = Field(0, 1, 1)

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


def trace_fields(module: nn.Module, x: Tensor, names: Sequence[str]) -> dict[str, Fields | str]:
    """For each layer of ``names`` its receptive field along rows and columns, or in words why it has none.

    ``x``: one input of the network, (1, C, H, W). A layer called several times answers for its last call. A 1 x 1 gate
    (squeeze and excitation) scales a map and does not widen its field.
    """
    tracer = _Tracer(x)
    found: dict[str, Fields | str] = dict.fromkeys(names, "it is not called in the forward pass")

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            found[name] = tracer.of(output)

        return hook

    handles = [module.get_submodule(name).register_forward_hook(look(name)) for name in names]
    try:
        with torch.no_grad(), tracer:
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Tracer(TorchFunctionMode):
    """Knows the fields of every tensor made from ``x``, or why they are unknown; keeps them alive while it looks."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Fields | str]] = {id(x): (x, (_SAME, _SAME))}

    def of(self, value: object) -> Fields | str:
        if not isinstance(value, Tensor):
            return "its output is not a tensor"
        return self._known[id(value)][1] if id(value) in self._known else "its output does not come from the image"

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [(t, t.shape[-2:], self._known[id(t)][1]) for t in _tensors((args, kwargs)) if id(t) in self._known]
        output = func(*args, **kwargs)
        if inputs:
            name = getattr(func, "__name__", str(func)).strip("_")
            for out in _tensors(output):
                self._known[id(out)] = (out, _rule(name, args, kwargs, inputs, out))
        return output


_Input = tuple[Tensor, torch.Size, Fields | str]


def _rule(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: list[_Input], out: Tensor
) -> Fields | str:
    """The fields of ``out`` = ``name``(...), or why they cannot be told."""
    _, size, first = inputs[0]
    window = _window(name, args, kwargs, size, out)
    if window is not None:
        if isinstance(first, str) or isinstance(window, str):
            return first if isinstance(first, str) else window
        return first[0].then(window[0]), first[1].then(window[1])
    # Inputs of another size are broadcast: gates of 1 x 1, which are the same everywhere.
    places = [f for t, s, f in inputs if s == out.shape[-2:] and t.ndim >= 3]
    if places and (name in _PLACEWISE or (name in _RESHAPES and _keeps_places(name, args, inputs[0][0], out))):
        return _join(places)
    broken = next((f for _, _, f in inputs if isinstance(f, str)), None)
    return broken or _WHY.get(name, f"it follows an operation that is not followed ({name})")


def _window(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], size: torch.Size, out: Tensor
) -> Fields | str | None:
    """The field of a sliding window on its input, for the operations that have one; None for all others."""
    if name == "conv2d":
        a = _bind(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, kwargs)
        k, stride, dilation = a["weight"].shape[-2:], _pair(a.get("stride", 1)), _pair(a.get("dilation", 1))
        span = [(k[i] - 1) * dilation[i] for i in (0, 1)]
        padding = a.get("padding", 0)
        # 'same' puts the odd pixel of padding at the end.
        pad = [0, 0] if padding == "valid" else [s // 2 for s in span] if padding == "same" else _pair(padding)
        return _pair_of(lambda i: Field(-pad[i], span[i] + 1, stride[i]))
    if name in ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "lp_pool2d"):
        shift = 1 if name == "lp_pool2d" else 0
        order = ("input", *(("norm_type",) * shift), "kernel_size", "stride", "padding", "dilation")
        a = _bind(order[: 4 if name == "avg_pool2d" else None], args, kwargs)
        k, pad = _pair(a["kernel_size"]), _pair(a.get("padding", 0))
        stride = _pair(a["stride"]) if a.get("stride") else k
        dilation = _pair(a.get("dilation", 1)) if name.startswith("max") else (1, 1)
        return _pair_of(lambda i: Field(-pad[i], (k[i] - 1) * dilation[i] + 1, stride[i]))
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"):
        if any(size[i] % out.shape[-2:][i] for i in (0, 1)):
            return "an adaptive pooling with windows of several sizes comes before it"
        return _pair_of(lambda i: Field(0, size[i] // out.shape[-2:][i], size[i] // out.shape[-2:][i]))
    if name == "pad":
        pads = [*_bind(("input", "pad"), args, kwargs)["pad"], 0, 0, 0, 0]
        return Field(-pads[2], 1, 1), Field(-pads[0], 1, 1)
    if name == "getitem":
        return _slice(args[1], args[0].ndim, size)
    return None


def _slice(index: Any, ndim: int, size: torch.Size) -> Fields | str | None:
    """The field of ``x[index]``: a start and a step on each of the last two axes."""
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [i for i in items if not isinstance(i, Tensor)]:
        at = next(n for n, i in enumerate(items) if i is Ellipsis)
        items[at : at + 1] = [slice(None)] * (ndim - len(items) + 1)
    items += [slice(None)] * (ndim - len(items))
    last = items[-2:]
    if len(items) != ndim or not all(isinstance(i, slice) for i in last):
        return "an indexing of rows or columns comes before it"
    bounds = [i.indices(n) for i, n in zip(last, size, strict=True)]
    return _pair_of(lambda i: Field(bounds[i][0], 1, bounds[i][2]))


def _join(fields: Sequence[Fields | str]) -> Fields | str:
    """The span of all ``fields``; they must move by the same step."""
    known = [f for f in fields if not isinstance(f, str)]
    if len(known) < len(fields):
        return next(f for f in fields if isinstance(f, str))
    if len({(rows.step, cols.step) for rows, cols in known}) > 1:
        return "branches of different steps meet before it"
    return _pair_of(lambda i: _span([f[i] for f in known]))


def _span(fields: Sequence[Field]) -> Field:
    low = min(f.offset for f in fields)
    return Field(low, max(f.offset + f.size for f in fields) - low, fields[0].step)


def _keeps_places(name: str, args: tuple[Any, ...], before: Tensor, after: Tensor) -> bool:
    if after.ndim < 3 or before.ndim < 3 or before.shape[-2:] != after.shape[-2:]:
        return False
    if name in ("transpose", "permute"):
        moved = args[1:] if len(args) > 2 else args[1] if len(args) == 2 else ()
        axes = [a % before.ndim for a in moved if isinstance(a, int)]
        tail = [before.ndim - 2, before.ndim - 1]
        return bool(axes) and (axes[-2:] == tail if name == "permute" else not set(axes) & set(tail))
    return True


def _bind(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))


def _pair_of(make: Callable[[int], Field]) -> Fields:
    return make(0), make(1)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _tensors(v)
