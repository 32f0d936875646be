"""Which layers see what weights computed that the weights file left out: those are as the network was built, random."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ndissect.engine.examination.faults import Fault
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.taps import Tap
from ndissect.engine.passes.forward import MapsOf

# Keys that are named.
_NAMED = 6
# Of the buffers only these are learnt; others are what the network's code made them.
_LEARNT = ("running_mean", "running_var")
# Later than any call.
_NEVER = sys.maxsize


def check_weights(
    maps_of: MapsOf, module: nn.Module, left_out: Sequence[str], image: Tensor, taps: Mapping[str, Tap]
) -> list[Fault]:
    """The layers whose maps of ``image`` change when the weights ``left_out`` (keys) do.

    ``maps_of`` gives the maps of each layer for images, uint8 (1, 3, H, W); ``taps``: where it takes them, by name.
    """
    weights = _weights(module, left_out)
    if not weights:
        return []
    with _calls(module) as order:
        once = maps_of([image])
    with _changed(list(weights.values())):
        other = maps_of([image])
    moved = [name for name in once if not torch.equal(once[name].nan_to_num(), other[name].nan_to_num())]
    if not moved:
        return []
    said = {}
    for name in moved:
        before = [key for key in weights if _called_before(key, taps[name].module, order)] or list(weights)
        more = f" and {len(before) - _NAMED} more" if len(before) > _NAMED else ""
        said[name] = f"depends on weights that the weights file left out: {', '.join(before[:_NAMED])}{more}"
    hint = "give a file with these weights; a network as it was built tells nothing of what was learnt"
    return [Fault("weights", said, hint)]


def _weights(module: nn.Module, keys: Sequence[str]) -> dict[str, Tensor]:
    """The tensors that are learnt, of those that ``keys`` name."""
    known = dict(module.named_parameters(remove_duplicate=False)) | {
        name: buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] in _LEARNT
    }
    return {key: known[key] for key in keys if key in known and known[key].is_floating_point()}


@contextlib.contextmanager
def _calls(module: nn.Module) -> Iterator[dict[str, tuple[int, int]]]:
    """When each module was first entered and last left in the passes of the block, as numbers that rise."""
    order: dict[str, tuple[int, int]] = {}
    clock = itertools.count()

    def enter(name: str) -> None:
        order.setdefault(name, (next(clock), _NEVER))

    def leave(name: str, output: Any) -> None:
        order[name] = (order[name][0], next(clock))

    with Capture(module, [name for name, _ in module.named_modules()], enter=enter, observe=leave):
        yield order


def _called_before(key: str, layer: str, order: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the module that holds the weight ``key`` was entered before ``layer`` ended."""
    holder = order.get(key.rpartition(".")[0])
    return holder is not None and layer in order and holder[0] <= order[layer][1]


@contextlib.contextmanager
def _changed(weights: Sequence[Tensor]) -> Iterator[None]:
    """Other values in these tensors for the block, and after it the old ones."""
    old = [w.detach().clone() for w in weights]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for w in weights:
                noise = torch.randn(w.shape, generator=generator).to(w.device, w.dtype)
                w.add_(noise * (w.abs().mean() + 0.1))
        yield
    finally:
        with torch.no_grad():
            for w, values in zip(weights, old, strict=True):
                w.copy_(values)
