"""Receptive fields of a network's layers, followed through one forward pass.

Every operation on tensors is watched. A convolution or pooling has the field (-pad, (k - 1) dilation + 1, stride) on
its input, composed over the layers before it (Bau et al. 2017); elementwise operations keep their input's; where
branches meet, the field spans all of theirs. Fields are in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ndissect.engine.networks.taps import Tap
from ndissect.engine.networks.tracing import Input, Tracer, bind, pair, placewise, why_unknown
from ndissect.store.upsampling import Field

Fields = tuple[Field, Field]
_SAME = Field(0, 1, 1)


def trace_fields(
    module: nn.Module, x: Tensor, names: Sequence[str], taps: Mapping[str, Tap] | None = None
) -> dict[str, Fields | str]:
    """For each layer of ``names`` its receptive field along rows and columns, or in words why it has none.

    ``x``: one input of the network, (1, C, H, W). A layer called several times answers for its last call. A 1 x 1 gate
    (squeeze and excitation) scales a map and does not widen its field.
    """
    return Tracer(x, (_SAME, _SAME), _rule).through(module, x, names, taps)


def _rule(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: list[Input[Fields]], out: Tensor
) -> Fields | str:
    """The fields of ``out`` = ``name``(...), or why they cannot be told."""
    _, size, first = inputs[0]
    window = sliding_window(name, args, kwargs, size, out)
    if window is not None:
        if isinstance(first, str) or isinstance(window, str):
            return first if isinstance(first, str) else window
        return first[0].then(window[0]), first[1].then(window[1])
    places = placewise(name, args, inputs, out)
    return _join(places) if places else why_unknown(name, inputs)


def sliding_window(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], size: torch.Size, out: Tensor
) -> Fields | str | None:
    """The field of a sliding window on its input, for the operations that have one; None for all others."""
    if name == "conv2d":
        a = bind(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, kwargs)
        k, stride, dilation = a["weight"].shape[-2:], pair(a.get("stride", 1)), pair(a.get("dilation", 1))
        span = [(k[i] - 1) * dilation[i] for i in (0, 1)]
        padding = a.get("padding", 0)
        # 'same' puts the odd pixel of padding at the end.
        pad = [0, 0] if padding == "valid" else [s // 2 for s in span] if padding == "same" else pair(padding)
        return _pair_of(lambda i: Field(-pad[i], span[i] + 1, stride[i]))
    if name in ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "lp_pool2d"):
        shift = 1 if name == "lp_pool2d" else 0
        order = ("input", *(("norm_type",) * shift), "kernel_size", "stride", "padding", "dilation")
        a = bind(order[: 4 if name == "avg_pool2d" else None], args, kwargs)
        k, pad = pair(a["kernel_size"]), pair(a.get("padding", 0))
        stride = pair(a["stride"]) if a.get("stride") else k
        dilation = pair(a.get("dilation", 1)) if name.startswith("max") else (1, 1)
        return _pair_of(lambda i: Field(-pad[i], (k[i] - 1) * dilation[i] + 1, stride[i]))
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"):
        if any(size[i] % out.shape[-2:][i] for i in (0, 1)):
            return "an adaptive pooling with windows of several sizes comes before it"
        return _pair_of(lambda i: Field(0, size[i] // out.shape[-2:][i], size[i] // out.shape[-2:][i]))
    if name == "pad":
        pads = [*bind(("input", "pad"), args, kwargs)["pad"], 0, 0, 0, 0]
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


def _pair_of(make: Callable[[int], Field]) -> Fields:
    return make(0), make(1)
