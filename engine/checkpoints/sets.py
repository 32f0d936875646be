"""The sets of weights in a file, by name: a network's beside its running average, a teacher's beside a student's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ndissect.engine.checkpoints.arrays import NumberType, StoredArray
from ndissect.engine.checkpoints.refusals import holds_code
from ndissect.engine.checkpoints.values import Global, OddTensor, StoredTensor, Unread
from ndissect.store.errors import NDError, WrongUse, nearest

# The names under which training scripts keep a state dict inside a checkpoint, the most explicit first.
_USUAL = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "net_state_dict",
    "weights", "params", "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
# State dicts are not deeper in a checkpoint.
_DEEPEST = 5
_SHOWN, _NAMED = 60, 6
# Names that are longer lead to no set; and parts of a checkpoint in which an object is looked for.
_LONGEST_NAME, _LOOKED_AT = 100, 1_000
_KINDS = ((StoredTensor | OddTensor, "a tensor"), (StoredArray, "a numpy array"), (Global, "a class or function"))

Value = StoredTensor | StoredArray | OddTensor | Unread


@dataclass(frozen=True)
class WeightSet:
    """One set of weights: ``entries`` by name, ``key``: where in the file they are, "" or e.g. ``model.state_dict``.

    ``others``: the keys of the other sets. ``unread``: what of the file was not read, as in ``best (a numpy scalar)``.
    """

    entries: Mapping[str, Value]
    key: str
    others: tuple[str, ...]
    unread: tuple[str, ...]


def choose_set(data: object, path: Path, key: str | None) -> WeightSet:
    """The set of weights in ``data`` that ``key`` names (its last name is enough), or that is usual where it is None.

    WrongUse where there is no set of that name; NDError where there is none at all, or no way to choose.
    """
    sets = _find_sets(data)
    if not sets:
        raise _no_weights(data, path)
    at = _usual(sets, path) if key is None else _named(sets, key, path)
    others = tuple(name for name in map(_joined, sets) if name and name != _joined(at) and not _is_above(name, at))
    entries = {str(name): value for name, value in sets[at].items() if isinstance(value, Value)}
    if any(isinstance(value, StoredTensor) for value in entries.values()):  # then arrays beside them are no weights
        entries = {name: value for name, value in entries.items() if not isinstance(value, StoredArray)}
    return WeightSet(entries, _joined(at), others, tuple(_unread(data, at, entries)))


def _joined(at: tuple[str, ...]) -> str:
    return ".".join(at)


def _is_above(name: str, at: tuple[str, ...]) -> bool:
    return _joined(at).startswith(f"{name}.")


_Sets = dict[tuple[str, ...], dict[Any, Any]]


def _find_sets(data: object) -> _Sets:
    """The dictionaries with tensors, each by the names on the way to it. Every dictionary is looked into once."""
    sets: _Sets = {}
    with_weights: dict[int, bool] = {}
    level: list[tuple[tuple[str, ...], dict[Any, Any]]] = [((), data)] if isinstance(data, dict) else []
    while level:
        below: list[tuple[tuple[str, ...], dict[Any, Any]]] = []
        for at, inner in level:
            if id(inner) not in with_weights:
                with_weights[id(inner)] = _has_weights(inner, bool(at))
                if len(at) < _DEEPEST and "param_groups" not in inner:
                    below += [((*at, name), value) for name, value in inner.items() if _may_hold_sets(name, value)]
            if with_weights[id(inner)]:
                sets[at] = inner
        level = below
    return sets


def _may_hold_sets(name: object, value: object) -> bool:
    return type(value) is dict and type(name) is str and len(name) <= _LONGEST_NAME


def _has_weights(inner: Mapping[object, object], inside: bool) -> bool:
    """Whether the dictionary has tensors of weights in it.

    ``inside`` a file they are by names alone, and more than bytes (the state of a random generator) and single numbers
    (losses). The state of an optimizer is none.
    """
    if "param_groups" in inner or (inside and not all(type(name) is str for name in inner)):
        return False
    return any(
        isinstance(value, StoredArray | OddTensor)
        or (isinstance(value, StoredTensor) and not (inside and (value.dtype == torch.uint8 or not value.size)))
        for value in inner.values()
    )


def _usual(sets: _Sets, path: Path, at: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The set below ``at`` that is meant where nobody says which."""
    inner = list(dict.fromkeys(other[len(at)] for other in sets if len(other) > len(at) and other[: len(at)] == at))
    usual = [name for name in _USUAL if name in inner]
    if usual:
        return _usual(sets, path, (*at, usual[0]))
    if at in sets:
        return at
    if len(inner) > 1:
        raise NDError(
            f"{path} holds several sets of weights: {_first_names(map(_joined, sets))}", "--weights-key NAME chooses"
        )
    return _usual(sets, path, (*at, inner[0]))


def _named(sets: _Sets, key: str, path: Path) -> tuple[str, ...]:
    """The set that the user means by ``key``: its whole path, or the end of it, or what it is in."""
    exact = [at for at in sets if _joined(at) == key]
    ending = [at for at in sets if _joined(at).endswith(f".{key}")]
    inside = [at for at in sets if _joined(at).startswith(f"{key}.") or f".{key}." in _joined(at)]
    found = exact or ending or inside
    if len(found) == 1:
        return found[0]
    if not found:
        known = [_joined(at) for at in sets if at]
        near = nearest(key, known) or known
        there = f"it holds: {_first_names(near)}" if near else "its weights are not in a set with a name"
        raise WrongUse(f"{path} holds no set of weights '{key}'", there)
    raise WrongUse(
        f"{path} holds several sets of weights '{key}': {_first_names(map(_joined, found))}", "name one of them whole"
    )


def _no_weights(data: object, path: Path) -> NDError:
    parts = list(islice(data.values(), _LOOKED_AT)) if isinstance(data, dict) else [data]
    parts += [inner for part in parts if type(part) is dict for inner in islice(part.values(), _LOOKED_AT)]
    objects = [part for part in parts if isinstance(part, Unread)]
    whole = next((part for part in objects if part.tensors), None) or (data if isinstance(data, Unread) else None)
    if whole is not None:
        return holds_code(path, whole.name)
    names = _first_names(map(str, data)) if isinstance(data, dict) else ""
    kind = next((kind for cls, kind in _KINDS if isinstance(data, cls)), f"a {type(data).__name__}")
    return NDError(
        f"{path} holds no state dict: {kind}{f' with {names}' if names else ''}",
        "Give a file saved by torch.save(network.state_dict(), FILE)",
    )


def _unread(data: object, at: tuple[str, ...], entries: Mapping[str, Value]) -> Iterator[str]:
    """What was not read of the dictionaries on the way to a set and of the set, each with the class that was seen."""
    inner = data
    seen: set[int] = set()
    for name in (*at, None):
        assert isinstance(inner, dict)
        for key, value in inner.items():
            if key == name or (name is None and isinstance(value, StoredArray) and str(key) in entries):
                continue
            what = _unread_inside(value, seen)
            if what:
                yield f"{str(key)[:_SHOWN]} ({what})"
        inner = inner[name] if name is not None else inner


def _unread_inside(value: object, seen: set[int]) -> str:
    """The class of the first object in ``value`` that was not read, or ""; what is in ``seen`` is not looked at."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Unread | Global):
            return part.name[:_SHOWN]
        if isinstance(part, StoredArray | NumberType):
            return "numpy.ndarray"
        if type(part) in (dict, list, tuple) and id(part) not in seen:
            seen.add(id(part))
            waiting += list(part.values() if isinstance(part, dict) else part)[::-1]  # type: ignore[call-overload]
    return ""


def _first_names(names: Iterable[str]) -> str:
    listed = [name[:_SHOWN] for name in names if name]
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
