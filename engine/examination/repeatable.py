"""Whether a network computes the same twice, and the same of an image whichever others are in its batch.

What a run counts may depend on nothing but what was asked. Passes of one shape use the same arithmetic in the same
order, so what differs between them is not rounding: the same images again, and an image beside another neighbour. An
image alone is rounded otherwise than in a batch, and is allowed more. All of it is done in full float32, whatever the
run's own precision is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ndissect.engine.examination.faults import Fault
from ndissect.engine.passes.forward import MapsOf

#: Differences that are none, as shares of a unit's spread (RMS over a map). Measured: equal to the bit between passes
#: of one shape, on CPUs; dropout of one value in a hundred gives 0.1.
SAME = 1e-3
#: Likewise where random numbers were drawn or a buffer was changed meanwhile: then small differences are no accident.
MOVING = 1e-5
#: Likewise for an image alone and in a batch. Six of torchvision's networks stay below half of it, in float32 and where
#: they compute in bfloat16 by themselves (tests/test_repeatable.py holds them to that).
ALONE = 5e-2
# A unit's spread counts as at least this share of the layer's: a nearly constant unit is rounding.
_FLOOR = 1e-2
# Passes in which what is drawn at random may show itself.
_DRAWS = 8

Maps = Mapping[str, Tensor]

_DROPOUTS = frozenset(
    {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"}
)


def check_repeatable(
    maps_of: MapsOf, module: nn.Module, images: tuple[Tensor, Tensor], opposite: Tensor | None = None
) -> list[Fault]:
    """What differs in the maps when ``maps_of`` sees the same images again, or one of them beside another neighbour.

    ``maps_of`` gives the maps (n, U, h, w) of each layer for n images, uint8 (1, 3, H, W); ``images``: two of one size;
    ``opposite``: an image unlike the second, by default its negative.
    """
    first, other = images
    before, versions = _drawn(), {name: b._version for name, b in module.named_buffers()}
    once = maps_of(images)
    watch = _Watch()
    with watch:
        beside = maps_of([first, 255 - other if opposite is None else opposite])
    alone = maps_of([first])
    again = maps_of(images)
    changed = [name for name, b in module.named_buffers() if b._version != versions.get(name)]
    moved = _twice(once, again, MOVING if changed else SAME)
    if _drawn() != before:
        moved |= _when_drawing(maps_of, images, moved)
    if moved:
        why, hint = _why_twice(watch.seen, changed)
        return [_fault("twice", moved, why, hint)]
    by_neighbour = {name: moved_by(once[name][:1], beside[name][:1]) for name in once}
    moved = {name: share for name, share in by_neighbour.items() if not share <= SAME}
    by_itself = {name: moved_by(once[name][:1], alone[name]) for name in once}
    moved |= {name: share for name, share in by_itself.items() if not share <= ALONE and name not in moved}
    why, hint = _why_neighbours(watch.seen)
    return [_fault("neighbours", moved, why, hint)] if moved else []


def check_again(maps_of: MapsOf, image: Tensor) -> list[Fault]:
    """The same for a network that takes one image at a time: only whether it computes the same twice."""
    before = _drawn()
    once = maps_of([image])
    watch = _Watch()
    with watch:
        moved = _twice(once, maps_of([image]), SAME)
    if _drawn() != before:
        moved |= _when_drawing(maps_of, [image], moved)
    why, hint = _why_twice(watch.seen, [])
    return [_fault("twice", moved, why, hint)] if moved else []


def moved_by(a: Tensor, b: Tensor) -> float:
    """How far maps (n, U, h, w) differ: the largest RMS difference of a unit, in shares of its spread.

    Equal infinities and NaN in both are equal; NaN in one alone is infinitely far.
    """
    a, b = a.detach().double(), b.detach().double()
    if a.shape != b.shape:
        return float("inf")
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    if not bool((same | (a.isfinite() & b.isfinite())).all()):
        return float("inf")
    apart = torch.where(same, torch.zeros_like(a), a - b).square().mean((0, 2, 3)).sqrt()
    finite = torch.where(a.isfinite(), a, torch.zeros_like(a)).transpose(0, 1).flatten(1)
    # Rounding goes by the size of the values, spread by what they say.
    spread = finite.std(1, correction=0)
    if finite.shape[1] == 1:  # one value tells no spread of its unit: that of the layer's units stands for it
        spread = finite.std(correction=0).expand(len(finite))
    floor = max(_FLOOR * float(spread.square().mean().sqrt()), 1e-5 * float(finite.abs().max()), 1e-30)
    return float((apart / spread.clamp_min(floor)).max())


def _twice(once: Maps, again: Maps, most: float) -> dict[str, float]:
    moved = {name: moved_by(once[name], again[name]) for name in once}
    return {name: share for name, share in moved.items() if not share <= most}


def _when_drawing(maps_of: MapsOf, images: Sequence[Tensor], known: Mapping[str, float]) -> dict[str, float]:
    """What differs when random numbers are drawn often and dropout is strong: a rare draw shows in few passes."""
    moved: dict[str, float] = {}
    with _Strong():
        once = maps_of(images)
        for _ in range(_DRAWS):
            new = _twice(once, maps_of(images), MOVING)
            moved |= {name: share for name, share in new.items() if name not in known}
            if len(moved) + len(known) == len(once):
                break
    return moved


def _drawn() -> tuple[Any, ...]:
    """The states of the generators that a forward pass may draw from."""
    states: list[Any] = [random.getstate(), tuple(torch.get_rng_state().tolist())]
    name, keys, *rest = np.random.get_state()
    states += [name, tuple(np.asarray(keys).tolist()), *rest]
    if torch.cuda.is_available():
        states += [tuple(state.tolist()) for state in torch.cuda.get_rng_state_all()]
    return tuple(states)


class _Watch(TorchFunctionMode):
    """Sees what may make a network not repeat itself: dropout that is on, batch norm by the batch's statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _DROPOUTS and _is_on(args, kwargs):
            self.seen.add("dropout")
        if name == "batch_norm":
            given = dict(zip(("input", "mean", "var", "weight", "bias", "training"), args, strict=False)) | dict(kwargs)
            if given.get("training") or given.get("mean", given.get("running_mean")) is None:
                self.seen.add("batch norm")
        return func(*args, **kwargs)


class _Strong(TorchFunctionMode):
    """Drops half of what dropout would drop some of."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        if (name in _DROPOUTS and _is_on(args, kwargs)) or (name == "bernoulli" and len(args) > 1):
            p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if isinstance(p, float) and 0 < p < 1:
                return func(args[0], 0.5, *args[2:], **{k: v for k, v in kwargs.items() if k != "p"})
        return func(*args, **kwargs)


def _is_on(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    on = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    return bool(on) and p != 0


def _why_twice(seen: set[str], changed: Sequence[str]) -> tuple[str, str]:
    if "dropout" in seen:
        return "; dropout is on", "functional dropout needs training=self.training, to be off in eval()"
    if changed:
        return f"; every call changes {', '.join(changed[:3])}", "a forward pass in eval() must change no state"
    return "", "a forward pass in eval() must draw no random numbers and change no state"


def _why_neighbours(seen: set[str]) -> tuple[str, str]:
    if "batch norm" in seen:
        hint = "batch norm needs the statistics of the training: track_running_stats=True, and eval()"
        return "; batch norm uses the batch's own statistics", hint
    return "", "what is computed over a batch must be computed over each image alone"


def _fault(kind: str, moved: Mapping[str, float], why: str, hint: str) -> Fault:
    def by(share: float) -> str:
        return f"by {share:.2g} of their spread" if share < 100 else "beyond any measure"

    said = {
        "twice": "does not compute the same twice: run again, the maps of the same images differ {by}{why}",
        "neighbours": "computes maps that depend on the other images of a batch: they differ {by}{why}",
    }[kind]
    return Fault(kind, {name: said.format(by=by(share), why=why) for name, share in moved.items()}, hint)
