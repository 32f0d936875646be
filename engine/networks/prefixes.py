"""What the names of weights in a file begin with: a network that was wrapped, or was a part of a larger one.

Training scripts save a network under ``module.``, ``model.``, ``encoder_q.``, ``backbone.`` ..., beside losses, heads
and second networks. A prefix is that of the network where the file has each of its weights under it, in its shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.store.errors import NDError, WrongUse

# The parts that wrapping a network, or a part of it, for training or compiling puts into names.
_WRAPPERS = frozenset({"module", "_orig_mod"})
# Prefixes of all names that are taken away even where the rest does not fit, so that the message is of the rest.
_USUAL = ("model.", "net.", "network.")
# What a network's state dict has that plays no part in a forward pass.
NOT_NEEDED = ("num_batches_tracked", "_extra_state")
_NAMED = 6


@dataclass(frozen=True)
class Under:
    """The weights under ``prefix``, by the names that the network has for them, and the names ``outside`` of it."""

    prefix: str
    state: dict[str, Tensor]
    outside: tuple[str, ...] = ()


def under_prefix(own: Mapping[str, object], state: Mapping[str, Tensor], source: str, given: str | None) -> Under:
    """The weights of ``state`` that are those of a network with the state dict ``own``.

    They are under the prefix ``given``, else under the one under which the file has all of the network's weights in
    their shapes; where there is none such, all are taken as they are, without what wraps every name. NDError where
    there are several such prefixes, WrongUse where nothing is under the given one.
    """
    plain = _Plain(own, state)
    if given is not None:
        return _given(plain, source, given)
    for names in (plain.as_they_are, plain.unwrapped):
        prefixes = complete_prefixes(own, names)
        if "" in prefixes:
            return _under("", names)
        if len(prefixes) == 1:
            return _under(prefixes[0], names)
        if prefixes:
            raise NDError(
                f"{source} holds the network's weights {len(prefixes)} times, under {_named(prefixes)}",
                f"--weights-prefix chooses: --weights-prefix {prefixes[0]}",
            )
    return _under(_common(own, plain.unwrapped), plain.unwrapped)


def complete_prefixes(own: Mapping[str, object], state: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which ``state`` has all weights of a network with the state dict ``own``, in their shapes."""
    shapes = {k: v.shape for k, v in own.items() if isinstance(v, Tensor) and not k.endswith(NOT_NEEDED)}
    counts = _fitting(shapes, state)
    return [prefix for prefix, count in counts.items() if count == len(shapes)]


def fullest_prefix(own: Mapping[str, object], state: Mapping[str, Tensor]) -> tuple[str, int]:
    """The prefix under which most of the weights of ``own`` are in ``state``, in their shapes, and how many."""
    shapes = {k: v.shape for k, v in own.items() if isinstance(v, Tensor)}
    return max(_fitting(shapes, state).items(), key=lambda item: item[1], default=("", 0))


def is_of_wrappers(prefix: str) -> bool:
    """Whether ``prefix`` has no parts but those of wrappers; the empty one has none."""
    return not _without_wrappers(prefix.rstrip("."))


def _fitting(shapes: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> Counter[str]:
    """How many of ``shapes`` are in ``state`` under each prefix. Every name is looked at once."""
    counts: Counter[str] = Counter()
    for key, value in state.items():
        at = 0
        while at >= 0:
            if shapes.get(key[at:]) == value.shape:
                counts[key[:at]] += 1
            at = key.find(".", at) + 1 or -1
    return counts


class _Plain:
    """The weights of a file by their names ``as_they_are``, and ``unwrapped``: without the parts of wrappers.

    Names of which two would become one stay as they are. Where the network itself has such parts, an unwrapped name
    that is one of the network's is written as the network does.
    """

    def __init__(self, own: Mapping[str, object], state: Mapping[str, Tensor]) -> None:
        self.as_they_are = dict(state)
        networks = _one_to_one({key: _without_wrappers(key) for key in own})
        back = {plain: key for key, plain in networks.items()}
        names = {key: key if key in own else _without_wrappers(key) for key in state}
        names = _one_to_one({key: back.get(plain, plain) for key, plain in names.items()})
        self.unwrapped = {names.get(key, key): value for key, value in state.items()}


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _one_to_one(names: Mapping[str, str]) -> dict[str, str]:
    """The entries of ``names`` whose values are not those of others."""
    counts = Counter(names.values())
    return {key: name for key, name in names.items() if counts[name] == 1}


def _given(plain: _Plain, source: str, given: str) -> Under:
    prefix = f"{given.rstrip('.')}." if given else ""
    for names in (plain.as_they_are, plain.unwrapped):
        if any(key.startswith(prefix) for key in names):
            return _under(prefix, names)
    tops = Counter(key.partition(".")[0] + "." for key in plain.as_they_are)
    raise WrongUse(
        f"no name of the weights in {source} begins with '{prefix}'", f"they begin with: {_named(list(tops))}"
    )


def _under(prefix: str, names: Mapping[str, Tensor]) -> Under:
    inside = {key.removeprefix(prefix): value for key, value in names.items() if key.startswith(prefix)}
    return Under(prefix, inside, tuple(key for key in names if not key.startswith(prefix)))


def _common(own: Mapping[str, object], names: Mapping[str, Tensor]) -> str:
    """The usual prefix of all names which no weight of the network has, or ""."""
    tops = {key.partition(".")[0] + "." for key in own}
    return next((p for p in _USUAL if p not in tops and all(key.startswith(p) for key in names)), "")


def _named(prefixes: list[str]) -> str:
    return ", ".join(f"'{prefix}'" for prefix in prefixes[:_NAMED]) + (
        f" and {len(prefixes) - _NAMED} more" if len(prefixes) > _NAMED else ""
    )
