"""What each operation makes of the axes of its inputs (ndissect.engine.networks.axes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ndissect.engine.networks.axes import COLUMNS, ROWS, Axes, Axis, common, map_axes, reshaped, units
from ndissect.engine.networks.tracing import Input, bind, moved_axes, pair


@dataclass(frozen=True)
class _Call:
    """One call of an operation: what is known of the axes of its inputs, by their ids, and one of its outputs."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    known: Mapping[int, Axes]
    out: Tensor

    def axes(self, value: object) -> Axes | None:
        return self.known.get(id(value))

    def first(self) -> tuple[Tensor, Axes]:
        """The tensor that the operation is done to; LookupError where nothing is known of it."""
        x = self.args[0] if self.args else self.kwargs["input"]
        return x, self.known[id(x)]

    def argument(self, name: str, position: int, otherwise: Any = None) -> Any:
        return self.kwargs.get(name, self.args[position] if len(self.args) > position else otherwise)


def follow_axes(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: list[Input[Axes]], out: Tensor
) -> Axes | str:
    """The axes of ``out`` = ``name``(...), or why they are unknown; a rule of ndissect.engine.networks.tracing."""
    known = {id(t): axes for t, _, axes in inputs if not isinstance(axes, str)}
    if not known:
        return next(axes for _, _, axes in inputs if isinstance(axes, str))
    try:
        axes = _RULES.get(name, _entry_by_entry)(_Call(name, args, kwargs, known, out))
    except (LookupError, TypeError, ValueError, AttributeError):  # called in a way that is not foreseen
        axes = None
    if axes is None or [a.size for a in axes] != list(out.shape):
        return f"its axes cannot be followed through {name}"
    return axes


def _entry_by_entry(call: _Call) -> Axes | None:
    """Operations whose output has the shape of their inputs, broadcast: what is at an index stays at that index."""
    shape = call.out.shape
    meeting: list[list[Axis]] = [[] for _ in shape]
    for axes in call.known.values():
        for d, axis in enumerate(reversed(axes), 1):
            if d <= len(shape) and axis.size == shape[-d]:
                meeting[-d].append(axis)
    if not any(len(axes) == len(shape) for axes in call.known.values()):
        return None
    return tuple(common(axes) if axes else units(n) for axes, n in zip(meeting, shape, strict=True))


def _unknown(call: _Call) -> Axes | None:
    return None


def _moved(call: _Call) -> Axes | None:
    """Entries change their places within an axis, as images or places of a map: it stands for none of them any more."""
    x, axes = call.first()
    dims: Any = range(x.ndim)
    if call.name == "flip":
        dims = call.kwargs["dims"] if "dims" in call.kwargs else moved_axes(call.args, x.ndim)
    moved = {int(d) % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    return tuple(units(a.size) if d in moved else a for d, a in enumerate(axes))


def _roll(call: _Call) -> Axes | None:
    """Shifted windows roll a map, and roll it back when they are put together again."""
    _, axes = call.first()
    shifts, dims = call.argument("shifts", 1), call.argument("dims", 2)
    pairs = zip(*([v] if isinstance(v, int) else v for v in (shifts, dims)), strict=True)
    out = list(axes)
    for shift, d in pairs:
        out[d] = out[d].roll(int(shift))
    return tuple(out)


def _window(call: _Call) -> Axes | None:
    """Convolutions, poolings and resizes of maps: what comes out is a map of its own."""
    _, axes = call.first()
    shape, lines = call.out.shape, [axes[-2].line, axes[-1].line]
    if not lines[0] or not lines[1] or {f.kind for f in lines if f} != {ROWS, COLUMNS}:
        return (*axes[:-3], *(units(n) for n in shape[-3:]))
    last = map_axes((shape[-2], shape[-1]), id(call.out), (lines[0].kind, lines[1].kind))
    return *axes[:-3], units(shape[-3]), *last


def _window_in_one_dimension(call: _Call) -> Axes | None:
    _, axes = call.first()
    length = call.out.shape[-1]
    return *axes[:-2], units(call.out.shape[-2]), axes[-1] if axes[-1].size == length else units(length)


def _unfold(call: _Call) -> Axes | None:
    """Windows cut out: of a map, laid out row by row (F.unfold), or along one axis (Tensor.unfold)."""
    x, axes = call.first()
    if call.out.ndim == x.ndim + 1:
        a = bind(("input", "dimension", "size", "step"), call.args, call.kwargs)
        d, line = int(a["dimension"]) % x.ndim, axes[int(a["dimension"])].line
        if line is None:
            return None
        return *axes[:d], Axis((line.windows(a["size"], a["step"]),)), *axes[d + 1 :], units(a["size"])
    a = bind(("input", "kernel_size", "dilation", "padding", "stride"), call.args, call.kwargs)
    sides = []
    for d in (0, 1):
        line = axes[d - 2].line
        if line is None:
            return None
        span = pair(a.get("dilation", 1))[d] * (pair(a["kernel_size"])[d] - 1) + 1
        sides.append(line.windows(span, pair(a.get("stride", 1))[d], pair(a.get("padding", 0))[d]))
    return axes[0], units(call.out.shape[1]), Axis(tuple(sides))


def _fold(call: _Call) -> Axes | None:
    """Windows put together to a map, where it is known which window lies where."""
    _, axes = call.first()
    shape = call.out.shape
    if axes[-1].grid is None:
        return None
    return *axes[:-2], units(shape[-3]), *map_axes((shape[-2], shape[-1]), id(call.out))


def _pad(call: _Call) -> Axes | None:
    x, axes = call.first()
    pads = list(call.argument("pad", 1))
    out = list(axes)
    for d in range(len(pads) // 2):
        before, after = int(pads[2 * d]), int(pads[2 * d + 1])
        out[-1 - d] = axes[-1 - d].sliced(-before, 1, x.shape[-1 - d] + before + after)
    return tuple(out)


def _reshape(call: _Call) -> Axes | None:
    return reshaped(call.first()[1], call.out.shape)


def _reorder(call: _Call) -> Axes | None:
    """Transposed in whichever way: the strides tell which axis is which."""
    x, axes = call.first()
    left, order = list(range(x.ndim)), []
    for size, stride in zip(call.out.shape, call.out.stride(), strict=True):
        same = [d for d in left if x.shape[d] == size and (x.stride(d) == stride or size == 1)]
        exact = [d for d in same if x.stride(d) == stride]
        order.append((exact or same)[0])
        left.remove(order[-1])
    return tuple(axes[d] for d in order)


def _join(call: _Call) -> Axes | None:
    tensors: Sequence[Tensor] = call.argument("tensors", 0)
    d = int(call.argument("dim", 1, 0)) % call.out.ndim
    parts = [call.axes(t) for t in tensors]
    known = [axes for axes in parts if axes is not None]
    out = [common([axes[i] for axes in known]) for i in range(call.out.ndim)]
    out[d] = units(call.out.shape[d])
    placed = [i for i, axes in enumerate(parts) if axes is not None and axes[d].places]
    if len(placed) == 1:
        axis, sizes = (parts[placed[0]] or ())[d], [t.shape[d] for t in tensors]
        out[d] = axis.sliced(-sum(sizes[: placed[0]]), 1, call.out.shape[d])
    return tuple(out)


def _stack(call: _Call) -> Axes | None:
    tensors: Sequence[Tensor] = call.argument("tensors", 0)
    known = [axes for t in tensors if (axes := call.axes(t)) is not None]
    out = [common([axes[i] for axes in known]) for i in range(call.out.ndim - 1)]
    out.insert(int(call.argument("dim", 1, 0)) % call.out.ndim, units(len(tensors)))
    return tuple(out)


def _part(call: _Call) -> Axes | None:
    """A part of a tensor along one axis, of which its place in the memory tells where it begins."""
    x, axes = call.first()
    out = list(axes)
    if call.out.ndim == x.ndim - 1:
        dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
        del out[int(dim) % x.ndim]
        return tuple(out)
    for d, size in enumerate(call.out.shape):
        if size != x.shape[d]:
            start = int((call.out.storage_offset() - x.storage_offset()) // x.stride(d))
            out[d] = axes[d].sliced(start, 1, size)
    return tuple(out)


def _index(call: _Call) -> Axes | None:
    x, axes = call.first()
    items = list(call.args[1]) if isinstance(call.args[1], tuple) else [call.args[1]]
    taken = sum(i is not None and i is not Ellipsis for i in items)
    if not any(i is Ellipsis for i in items):
        items.append(Ellipsis)
    out: list[Axis] = []
    d = 0
    for item in items:
        if item is Ellipsis:
            out += axes[d : d + x.ndim - taken]
            d += x.ndim - taken
        elif item is None:
            out.append(units(1))
        else:
            if isinstance(item, slice):
                start, stop, step = item.indices(x.shape[d])
                out.append(axes[d].sliced(start, step, len(range(start, stop, step))))
            elif not isinstance(item, int):
                return None
            d += 1
    return tuple(out)


def _reduce(call: _Call) -> Axes | None:
    x, axes = call.first()
    dims = call.kwargs.get("dim", call.kwargs.get("axis", call.args[1] if len(call.args) > 1 else None))
    if isinstance(dims, Tensor):  # max(a, b)
        return _entry_by_entry(call)
    gone = {int(d) % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    if call.out.ndim == x.ndim:
        return tuple(units(1) if d in gone else a for d, a in enumerate(axes))
    return tuple(a for d, a in enumerate(axes) if d not in gone)


def _linear(call: _Call) -> Axes | None:
    return *call.first()[1][:-1], units(call.out.shape[-1])


def _matmul(call: _Call) -> Axes | None:
    shape = call.out.shape
    a, b = call.axes(call.args[0]), call.axes(call.args[1])
    batch = [
        common([axes[d] for axes in (a, b) if axes and len(axes) == len(shape)] or [units(shape[d])])
        for d in range(len(shape) - 2)
    ]
    return *batch, a[-2] if a else units(shape[-2]), b[-1] if b else units(shape[-1])


def _added_matmul(call: _Call) -> Axes | None:
    return _matmul(_Call(call.name, call.args[1:], call.kwargs, call.known, call.out))


def _attention(call: _Call) -> Axes | None:
    a = bind(("query", "key", "value"), call.args, call.kwargs)
    queries, values = call.axes(a["query"]), call.axes(a["value"])
    return None if queries is None else (*queries[:-1], values[-1] if values else units(call.out.shape[-1]))


def _einsum(call: _Call) -> Axes | None:
    given, _, wanted = call.args[0].replace(" ", "").partition("->")
    tensors = call.args[1] if isinstance(call.args[1], list | tuple) else call.args[1:]
    by_letter: dict[str, list[Axis]] = {}
    for letters, t in zip(given.split(","), tensors, strict=True):
        for letter, axis in zip(letters, call.axes(t) or (), strict=False):
            by_letter.setdefault(letter, []).append(axis)
    return tuple(
        common(by_letter[x]) if x in by_letter else units(n) for x, n in zip(wanted, call.out.shape, strict=True)
    )


_BY_RULE: dict[Callable[[_Call], Axes | None], str] = {
    _window: """conv2d conv_transpose2d max_pool2d max_pool2d_with_indices avg_pool2d lp_pool2d adaptive_avg_pool2d
        adaptive_max_pool2d adaptive_max_pool2d_with_indices interpolate upsample upsample_nearest upsample_bilinear
        pixel_shuffle pixel_unshuffle grid_sample""",
    _window_in_one_dimension: "conv1d conv_transpose1d max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d",
    _unfold: "unfold",
    _fold: "fold",
    _pad: "pad",
    _reshape: "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as ravel",
    _reorder: "transpose swapaxes swapdims permute movedim moveaxis t adjoint get",
    _join: "cat concat concatenate",
    _stack: "stack",
    _part: "split split_with_sizes chunk tensor_split narrow select unbind",
    _index: "getitem",
    _reduce: "mean sum nanmean amax amin max min median std var logsumexp prod argmax argmin any all",
    _linear: "linear",
    _matmul: "matmul bmm",
    _added_matmul: "baddbmm addmm",
    _attention: "scaled_dot_product_attention",
    _einsum: "einsum",
    _moved: "flip fliplr flipud rot90 sort argsort",
    _roll: "roll",
    _unknown: """zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_full new_empty
        new_tensor gather index_select take_along_dim topk scatter scatter_add masked_select nonzero""",
}
_RULES = {name: rule for rule, names in _BY_RULE.items() for name in names.split()}
