"""What every module of a network returns, seen in one forward pass of two images, and what of it can be maps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ndissect.engine.networks.axes import COLUMNS, ROWS, Axes, Axis, input_axes
from ndissect.engine.networks.axes_rules import follow_axes
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.failures import failure_of_user_code
from ndissect.engine.networks.first_pass import failure_of_first_pass
from ndissect.engine.networks.generators import LatentInput
from ndissect.engine.networks.map_rules import MapRule
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import Layout, not_a_tensor, shape_text, tensors_inside
from ndissect.engine.networks.tracing import Tracer
from ndissect.store.errors import NDError

#: Two images tell an axis that goes over images from one of one step.
IMAGES = 2


@dataclass(frozen=True)
class Output:
    """What one call of a module returned, or one of the tensors in it.

    ``layout``: how it holds maps, or in words why it holds none; ``shape`` with that of the images first, () for what
    is no tensor; ``maps``: units, rows and columns; ``identity``: the same for tensors with the same values; ``order``:
    its place among all calls; ``followed``: whether it is known what its axes stand for; ``placed``: whether
    the last two are known to go over rows and columns.
    """

    layout: Layout | str
    shape: tuple[int, ...]
    maps: tuple[int, int, int]
    identity: tuple[int, float]
    order: int
    followed: bool
    placed: bool


@dataclass
class Seen:
    """The calls of one module, the last one last; by the keys that lead to them the tensors that each returned.

    The key () stands for what was returned as a whole.
    """

    calls: list[dict[tuple[str, ...], Output]] = field(default_factory=list)


def probe(
    network: Network, image_size: tuple[int, int], rule: MapRule | None = None, *, every_call: bool = False
) -> tuple[dict[str, Seen], int]:
    """What each module returned, by its name, for two random images of ``image_size``; how many scores they gave.

    Of several calls only the last is looked at, unless ``every_call``. A network that takes one image at a time is
    shown one. NDError where the forward pass fails, with the line of the network's own code.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(network.preprocess, LatentInput):
        return _run(network, network.preprocess.random(IMAGES, generator), rule, every_call)
    images = torch.randint(0, 256, (IMAGES, 3, *image_size), dtype=torch.uint8, generator=generator)
    try:
        x = torch.cat([network.preprocess.apply(image[None]) for image in images])
        return _run(network, x, rule, every_call)
    except NDError:
        raise
    except Exception:  # whatever a network makes of two images that it does not make of one
        x = network.preprocess.apply(images[:1])
    try:
        return _run(network, x, rule, every_call)
    except NDError:
        raise
    except Exception as error:
        raise failure_of_first_pass(network, x, error) from error


def _run(network: Network, x: Tensor, rule: MapRule | None, every_call: bool) -> tuple[dict[str, Seen], int]:
    module = network.module
    parameter = next(module.parameters(), None)
    x = x if parameter is None else x.to(parameter.device)
    names = tuple(name for name, _ in module.named_modules() if name)
    seen: dict[str, Seen] = {}
    tracer = Tracer(x, input_axes(x.shape, id(x)), follow_axes, keep=False) if x.ndim == 4 else None
    numbers = _Numbers()
    count = 0

    def look(name: str, output: Any) -> None:
        nonlocal count
        calls = seen.setdefault(name, Seen()).calls
        parts: dict[tuple[str, ...], Any] = {(): output, **tensors_inside(output)}
        if calls and not every_call:
            calls[-1] = {}  # what it returned need not be kept
        calls.append(
            {path: _output(value, name, tracer, len(x), rule, numbers, count) for path, value in parts.items()}
        )
        count += 1

    try:
        with torch.no_grad(), Capture(module, names, observe=look), tracer or nullcontext():
            output = module(x)
    except SystemExit as error:
        folder = network.origin.get("file", "").rpartition("/")[0]
        what = f"the network {network.name} ends the program in its forward()"
        raise failure_of_user_code(what, error, [folder] if folder else []) from error
    if tracer is None:
        return seen, _scores(output)
    units_last = {name for name, m in module.named_modules() if isinstance(m, nn.Linear | nn.LayerNorm)}
    return _without_units_as_columns(_without_tokens_as_rows(seen), units_last), _scores(output)


def _without_tokens_as_rows(seen: dict[str, Seen]) -> dict[str, Seen]:
    """``seen`` without maps of which nothing is known but that they have as many rows as there are tokens somewhere.

    That is how attention looks, (N, heads, tokens, tokens), where its axes could not be followed.
    """
    outputs = [o for s in seen.values() for call in s.calls for o in call.values()]
    counts = {o.shape[1] for o in outputs if len(o.shape) == 3}
    for call in (call for s in seen.values() for call in s.calls):
        for path, o in call.items():
            if o.layout == Layout() and not o.followed and o.shape[2] in counts:
                call[path] = replace(o, layout=f"not a map: {shape_text(o.shape)}, whose rows seem to be tokens")
    return seen


def _without_units_as_columns(seen: dict[str, Seen], units_last: set[str]) -> dict[str, Seen]:
    """``seen`` without maps of which it is not known where they lie, and that look like what ``units_last`` return.

    These are modules, by name, that put units last for sure, while nothing tells of (N, h, w, U) that it is no map.
    """
    shapes = {o.shape for name in units_last & seen.keys() for call in seen[name].calls for o in call.values()}
    for call in (call for s in seen.values() for call in s.calls):
        for path, o in call.items():
            if o.layout == Layout() and not o.placed and o.shape in shapes:
                call[path] = replace(o, layout=f"not a map: {shape_text(o.shape)}, whose units seem to be last")
    return seen


def _output(
    value: Any,
    name: str,
    tracer: Tracer[Axes] | None,
    images: int,
    rule: MapRule | None,
    numbers: _Numbers,
    order: int,
) -> Output:
    """What is known of ``value``, which the module ``name`` returned; ``numbers``: those of tensors seen so far."""
    known = tracer.of(value) if tracer else ""
    axes = None if isinstance(known, str) else known
    if "parametrizations" in name.split("."):
        layout: Layout | str = "not a map: it computes a weight, whatever the image is"
    else:
        layout = read_layout(value, axes, images)
        layout = rule.layout(value, layout, images) if rule else layout
    maps = (0, 0, 0)
    if isinstance(layout, Layout):
        units, height, width = layout.maps(value).shape[1:]
        maps = (units, height, width)
    shape: tuple[int, ...] = ()
    identity = (-1 - order, 0.0)
    if isinstance(value, Tensor):
        shape = tuple(value.shape)
        identity = (numbers.of(value), _version(value))
    placed = axes is not None and len(axes) == 4 and axes[2].line is not None and axes[3].line is not None
    return Output(layout, shape, maps, identity, order, axes is not None, placed)


def read_layout(value: Any, axes: Axes | None, images: int) -> Layout | str:
    """How ``value``, which a module returned for so many images, holds maps; or in words why it holds none.

    ``axes``: what its axes stand for, None where that is unknown: then only maps as they are can be told.
    """
    reason = not_a_tensor(value)
    if reason:
        return f"not a map: {reason}"
    shape = tuple(value.shape)
    if axes and len(shape) == 3 and axes[1].images and axes[0].grid:
        return _tokens("TNU", axes, shape)
    if not shape or shape[0] != images or (axes and any(a.holds_images for a in axes[1:])):
        return _other_images(shape, axes, images)
    if len(shape) == 2:
        return "not a map: its values are places, not units" if axes and axes[1].places else Layout("NU")
    if len(shape) == 3:
        if axes and axes[1].grid and not axes[2].places:
            return _tokens("NTU", axes, shape)
        if axes and axes[2].grid and not axes[1].places:
            return _tokens("NUT", axes, shape)
    if len(shape) == 4:
        if axes and axes[1].line and axes[2].line and not axes[3].places:
            return Layout("NhwU")
        why = _inner_places(axes[1:]) if axes and not (axes[2].line and axes[3].line) else ""
        return f"not a map: {shape_text(shape)}, {why}" if why else Layout()
    why = _inner_places(axes[1:]) if axes else ""
    return f"not a map: {shape_text(shape)}{', ' if why else ''}{why}"


def _tokens(order: str, axes: Axes, shape: tuple[int, ...]) -> Layout:
    axis = axes[order.index("T")]
    assert axis.grid is not None
    return Layout(order, axis.before, axis.after, (axis.grid[0].size, axis.grid[1].size))


def _other_images(shape: tuple[int, ...], axes: Axes | None, images: int) -> str:
    """Why an output with another first axis than the images is no map."""
    if axes and axes[0].holds_images and axes[0].places:
        what = "windows" if len(shape) > 2 else "places"
        return f"not a map: {shape[0]} {what} of {images} images"
    if not shape or shape[0] == images:
        return "not a map: its first axis is not the images"
    return f"not a map: {shape[0]} {'maps' if len(shape) == 4 else 'outputs'} for {images} image{'s' * (images > 1)}"


def _inner_places(axes: tuple[Axis, ...]) -> str:
    """What is between units and places in axes that are no map; "" where none of them goes over places."""
    if not any(a.places for a in axes):
        return ""
    if any(not f.all_of_it for axis in axes for f in axis.factors if f.place):
        return "of windows of the image"
    if any(axis.rolled for axis in axes):
        return "of the image rolled"
    if any({ROWS, COLUMNS} <= {f.kind for f in axis.factors} for axis in axes):
        return "whose rows or columns are tokens"
    return "whose last two axes are not the rows and columns of a map"


class _Numbers:
    """A number for every tensor, its own even where another is made in its place in the memory."""

    def __init__(self) -> None:
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._next = 0

    def of(self, tensor: Tensor) -> int:
        if tensor not in self._known:
            self._known[tensor] = self._next
            self._next += 1
        return int(self._known[tensor])


def _version(value: Tensor) -> float:
    """Changes with the values of a tensor: an in-place ReLU returns its input's tensor, later."""
    if value.is_inference():  # these count no versions
        return float(value.sum()) if value.is_floating_point() else 0
    return value._version


def _scores(output: Any) -> int:
    """How many scores the network gives, by its first output tensor of two or more axes; 0 if that is unclear."""
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    elif isinstance(output, tuple | list):
        output = output[0] if output else None
    return int(output.shape[1]) if isinstance(output, Tensor) and output.ndim >= 2 else 0
