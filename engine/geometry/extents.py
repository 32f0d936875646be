"""Which part of the image the maps of a layer show, where the forward pass pads or crops.

Half-pixel placing spreads a map over the whole image, as the papers do. Convolutions and poolings leave it there, with
their own padding or without: their samples may lie up to a cell beside it, which is part of the method. But a network
that pads its input to a multiple, or crops it, makes maps of more or of less than the image.

So an extent is followed from operation to operation: ``F.pad`` widens it, slices narrow it, a resize keeps it. Some
networks pad before a window that has no padding of its own (reflection padding, TensorFlow's SAME). That padding
belongs to the window and changes nothing. All positions are in pixels of the network's input, counted from its first
edge. Tokens lie where the map lay that they were laid out from (ndissect.engine.networks.axes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ndissect.engine.geometry.receptive import sliding_window
from ndissect.engine.networks.axes import Axes, Factor, input_axes
from ndissect.engine.networks.axes_rules import follow_axes
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.taps import Layout, Tap
from ndissect.engine.networks.tracing import Input, Tracer, bind, moved_axes, pair, placewise, why_unknown
from ndissect.store.upsampling import Field

_ADAPTIVE = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices")
_RESIZES = ("interpolate", "upsample", "upsample_nearest", "upsample_bilinear")


@dataclass(frozen=True)
class Extent:
    """What one axis of a tensor shows of the image.

    ``axis``: of the image, 0 for its rows; ``size``: its pixels; ``low``, ``high``: the part that is shown, which
    samples share evenly; ``start``, ``step``: where the samples' centres lie by the windows that made them (a
    negative step: the image is flipped); ``before``, ``after``: padding, in samples, that no window has taken in yet.
    """

    axis: int
    size: int
    low: Fraction
    high: Fraction
    start: Fraction
    step: Fraction
    before: Fraction = Fraction(0)
    after: Fraction = Fraction(0)

    @property
    def whole(self) -> bool:
        """Whether exactly the image is shown."""
        return self.low == 0 and self.high == self.size

    def cell(self, n: int) -> Fraction:
        """Pixels that each of ``n`` samples has for itself."""
        return (self.high - self.low) / n


Extents = tuple[Extent, Extent]


def trace_extents(
    module: nn.Module, x: Tensor, names: Sequence[str], taps: Mapping[str, Tap] | None = None
) -> dict[str, Extents | str]:
    """For each layer of ``names`` what the rows and columns of its map show, or in words why that is unknown.

    ``x``: one input of the network, (1, C, H, W); ``taps``: where and how the maps are taken, by name.
    """
    rows, cols = (
        Extent(d, n, Fraction(0), Fraction(n), Fraction(1, 2), Fraction(1)) for d, n in enumerate(x.shape[-2:])
    )
    extents = Tracer(x, (rows, cols), _rule)
    axes = Tracer(x, input_axes(x.shape, id(x)), follow_axes)
    known: dict[str, Extents | str] = dict.fromkeys(names, "it is not called in the forward pass")

    def look(name: str, output: Any) -> None:
        layout = taps[name].layout if taps and name in taps else Layout()
        if layout.order == "NUhw":
            known[name] = extents.of(output)
        elif layout.order == "NU":
            known[name] = (rows, cols)
        else:
            known[name] = _laid_out(layout, axes.of(output), extents)

    with Capture(module, names, taps, observe=look), torch.no_grad(), extents, axes:
        module(x)
    return known


def _laid_out(layout: Layout, axes: Axes | str, extents: Tracer[Extents]) -> Extents | str:
    """What maps show that were laid out otherwise, by the maps that their places come from."""
    if isinstance(axes, str):
        return axes
    lines: tuple[Factor | None, Factor | None] = (None, None)
    if layout.order == "NhwU":
        lines = axes[1].line, axes[2].line
    elif layout.function is None:
        tokens = axes[layout.order.index("T")]
        if (tokens.before, tokens.after) == (layout.first, layout.last):
            lines = tokens.grid or lines
    rows, cols = (_of_line(line, extents) for line in lines)
    if isinstance(rows, str) or isinstance(cols, str):
        return rows if isinstance(rows, str) else str(cols)
    return rows, cols


def _of_line(line: Factor | None, extents: Tracer[Extents]) -> Extent | str:
    """What the rows or columns ``line`` show of the image, sharing their part of it evenly."""
    made = extents.by_identity(line.source[0]) if line else None
    if line is None or made is None:
        return "nothing tells where its tokens lie"
    tensor, shown = made
    if isinstance(shown, str):
        return shown
    d = line.source[1]
    n = int(tensor.shape[-2 + d])
    exact = by_windows(shown[d], n)
    # Patches side by side may leave a rest of the image over, which no token shows.
    e = exact if shown[d].whole and exact.low >= 0 and exact.high <= exact.size else shown[d]
    if line.size == n and line.low == 0 and line.high == 1:
        return e
    span = e.high - e.low
    low, high = e.low + line.low * span, e.low + line.high * span
    step = (high - low) / line.size
    start = low + step / 2 if e.step > 0 else high - step / 2
    return Extent(e.axis, e.size, low, high, start, step if e.step > 0 else -step)


def _rule(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: list[Input[Extents]], out: Tensor
) -> Extents | str:
    tensor, size, first = inputs[0]
    places = placewise(name, args, inputs, out)
    if places:
        return _join([e for e in places if not isinstance(e, str)], out) if not _broken(places) else _broken(places)
    if isinstance(first, str) or len(size) < 2 or out.ndim < 3:
        return why_unknown(name, inputs)
    rows, cols = first
    moved = _moved(name, args, kwargs, tensor, first)
    if moved is not None:
        return moved
    both = [_axis(name, args, kwargs, tensor, out, d, extent) for d, extent in enumerate((rows, cols))]
    if both[0] is None or both[1] is None:
        return why_unknown(name, inputs)
    return both[0], both[1]


def _broken(places: Sequence[Extents | str]) -> str:
    return next((e for e in places if isinstance(e, str)), "")


def _moved(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor, extents: Extents
) -> Extents | None:
    """The extents where an operation turns rows and columns, or their order; None for all other operations."""
    rows, cols = extents
    if name in ("flip", "fliplr", "flipud"):
        given = (tensor, kwargs["dims"]) if "dims" in kwargs else args
        tail = {"flip": moved_axes(given, tensor.ndim), "fliplr": [1], "flipud": [0]}[name]
        flipped = [
            _flipped(e, int(tensor.shape[d])) if d % tensor.ndim in tail else e for d, e in ((-2, rows), (-1, cols))
        ]
        return flipped[0], flipped[1]
    if name in ("transpose", "permute", "swapaxes") and tensor.ndim >= 3:
        axes = moved_axes(args, tensor.ndim)
        tail = [tensor.ndim - 1, tensor.ndim - 2]
        if (name == "permute" and axes[-2:] == tail) or (name != "permute" and sorted(axes) == sorted(tail)):
            return cols, rows
    return None


def _axis(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor, out: Tensor, d: int, e: Extent
) -> Extent | None:
    """What axis ``d`` of ``out`` = ``name``(``tensor`` ...) shows where ``tensor`` shows ``e``; None if unknown."""
    n, after = int(tensor.shape[-2 + d]), int(out.shape[-2 + d])
    if name == "pad":
        pads = [*bind(("input", "pad"), args, kwargs)["pad"], 0, 0, 0, 0]
        return _padded(e, n, int(pads[2 - 2 * d]), int(pads[3 - 2 * d]))
    if name == "narrow":
        a = bind(("input", "dim", "start", "length"), args, kwargs)
        here = int(a["dim"]) % tensor.ndim == tensor.ndim - 2 + d
        return _sliced(e, n, int(a["start"]), 1, after) if here else e
    if name in _RESIZES:
        corners = bool(kwargs.get("align_corners") or (len(args) > 4 and args[4]))
        return _resized(e, n, after, corners=corners)
    if name in _ADAPTIVE:
        return _resized(e, n, after)
    if name == "conv_transpose2d":
        a = bind(("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"), args, kwargs)
        stride, padding = pair(a.get("stride", 1))[d], pair(a.get("padding", 0))[d]
        half = Fraction((a["weight"].shape[-2 + d] - 1) * pair(a.get("dilation", 1))[d], 2)
        start = e.start + (padding - half) / stride * e.step
        return replace(e, start=start, step=e.step / stride, before=Fraction(0), after=Fraction(0))
    if name in ("pixel_shuffle", "pixel_unshuffle") and after:
        return _resized(e, n, after)
    fields = sliding_window(name, args, kwargs, tensor.shape[-2:], out)
    if fields is None or isinstance(fields, str):
        return None
    if name == "getitem":
        return _sliced(e, n, fields[d].offset, fields[d].step, after)
    return _windowed(e, n, fields[d])


def _windowed(e: Extent, n: int, window: Field) -> Extent:
    """The extent after a sliding window; padding before it that takes the place of its own changes nothing."""
    half, own = Fraction(window.size - 1, 2), -window.offset
    room = max(Fraction(0), half - own)  # on each side, for padding that stands for the window's own
    cut = [Fraction(0), Fraction(0)]
    if e.before or e.after:
        ordinary = e.before + e.after <= 2 * room and abs(e.before - e.after) <= 1
        cut = [e.before, e.after] if ordinary else [min(room, e.before + e.after)] * 2
    if own > window.size - 1:  # whole windows lie in the padding
        cut = [c - (own - half) for c in cut]
    s = e.cell(n)
    return replace(
        e,
        low=e.low + cut[0] * s,
        high=e.high - cut[1] * s,
        start=e.start + (window.offset + half) * e.step,
        step=e.step * window.step,
        before=Fraction(0),
        after=Fraction(0),
    )


def _padded(e: Extent, n: int, before: int, after: int) -> Extent:
    s = e.cell(n)
    return replace(
        e,
        low=e.low - before * s,
        high=e.high + after * s,
        start=e.start - before * e.step,
        before=max(Fraction(0), e.before + before),
        after=max(Fraction(0), e.after + after),
    )


def _sliced(e: Extent, n: int, start: int, step: int, length: int) -> Extent:
    s, end = e.cell(n), min(start + length * step, n)
    return replace(
        e,
        low=e.low + start * s,
        high=e.high - (n - end) * s,
        start=e.start + start * e.step,
        step=e.step * step,
        before=max(Fraction(0), e.before - start),
        after=max(Fraction(0), e.after - (n - end)),
    )


def _resized(e: Extent, n: int, to: int, *, corners: bool = False) -> Extent:
    """After a resize from ``n`` to ``to`` samples; ``corners``: the outermost samples stay where they are."""
    ratio = Fraction(n - 1, to - 1) if corners and n > 1 and to > 1 else Fraction(n, to)
    start = e.start if corners else e.start + (ratio - 1) / 2 * e.step
    scale = Fraction(to, n)
    return replace(e, start=start, step=e.step * ratio, before=e.before * scale, after=e.after * scale)


def _flipped(e: Extent, n: int) -> Extent:
    image = e.size
    return replace(
        e,
        low=image - e.high,
        high=image - e.low,
        start=e.start + (n - 1) * e.step,
        step=-e.step,
        before=e.after,
        after=e.before,
    )


def _join(extents: Sequence[Extents], out: Tensor) -> Extents | str:
    """What branches that meet show: the same up to a cell, or the whole image where one of them shows just that."""
    sizes = out.shape[-2:]
    both = [_joined([e[d] for e in extents], int(sizes[d])) for d in (0, 1)]
    if both[0] is None or both[1] is None:
        return "branches that show other parts of the image meet before it"
    return both[0], both[1]


def _joined(extents: Sequence[Extent], n: int) -> Extent | None:
    first = extents[0]
    if all(e == first for e in extents):
        return first
    best = next((e for e in extents if e.whole), first)
    cell = best.cell(n)
    if any(e.axis != first.axis or (e.step > 0) != (first.step > 0) for e in extents):
        return None
    if all(abs(e.low - best.low) <= cell and abs(e.high - best.high) <= cell for e in extents):
        return replace(best, before=Fraction(0), after=Fraction(0))
    # A crop to the size of what windows without padding have left over: by its own windows each knows where it lies.
    exact = [by_windows(e, n) for e in extents]
    if all(abs(e.low - exact[0].low) <= cell and abs(e.high - exact[0].high) <= cell for e in exact):
        return exact[0]
    return None


def by_windows(e: Extent, n: int) -> Extent:
    """The extent of ``n`` samples that follows from where their windows lie, each having a step for itself."""
    ends = (e.start - e.step / 2, e.start + (n - Fraction(1, 2)) * e.step)
    return replace(e, low=min(ends), high=max(ends), before=Fraction(0), after=Fraction(0))
