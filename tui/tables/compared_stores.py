"""Layers, networks or checkpoints side by side: which layers of which stores are meant, and what is told of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ndissect.store.descriptions import NO_PROTOCOL
from ndissect.store.errors import WrongUse
from ndissect.store.files import SUFFIX, find_store
from ndissect.store.names import quoted
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.comparison import Side, different_measures, pair_json, side_json
from ndissect.tui.tables.label_agreement import RULE, agreement_json
from ndissect.tui.tables.origin import data_differences, origin, protocol_differences, same_data
from ndissect.tui.tables.remarks import evidence_line, labels_line, mark_lines, protocol_line


@dataclass(frozen=True)
class Comparison:
    """``result``: the comparison as JSON values; ``about``: lines that say which stores A, B ... are, and of what."""

    result: dict[str, Any]
    about: list[str]


def compare_stores(
    what: Sequence[str], *, store: Path | None = None, layers: Sequence[str] = (), anyway: bool = False
) -> Comparison:
    """B compared with A, C with A and so on, as ``what`` names them: stores, STORE:LAYER, or layers of ``store``.

    Of stores, layers of the same name are compared, or the only layers; ``layers``: these alone. WrongUse for what
    names no layer or the same one twice, and for stores of other data or another protocol unless ``anyway``.
    """
    with contextlib.ExitStack() as stack:
        operands = _open(what, store, stack)
        groups = _groups(operands, layers)
        _refuse_twins(groups)
        if any(o.store.protocol.name == NO_PROTOCOL.name for o in operands):
            return _agreement(operands, groups, layers)
        differences = _differences(operands, anyway)
        result = {
            "comparable": not differences,
            "differences": differences,
            "threshold": DETECTOR_IOU,
            "marks": [
                {"layer": side.name, "kind": mark.kind, "sentence": mark.sentence}
                for group in groups
                for side in group
                for mark in side.view.marks
            ],
            "notes": _notes(operands, groups, layers),
            "layers": [side_json(side) for group in groups for side in group],
            "pairs": [pair_json(group[0], side) for group in groups for side in group[1:]],
        }
        return Comparison(result, _about(operands, groups))


def _agreement(operands: list[_Operand], groups: list[list[Side]], wanted: Sequence[str]) -> Comparison:
    """Where labels agree in words: of descriptions there are no counts to compare."""
    result = {
        "rule": RULE,
        "threshold": DETECTOR_IOU,
        "notes": _agreement_notes(operands, groups, wanted),
        "agreement": [agreement_json(group[0], side) for group in groups for side in group[1:]],
    }
    return Comparison(result, _about(operands, groups))


def _agreement_notes(operands: list[_Operand], groups: list[list[Side]], wanted: Sequence[str]) -> list[str]:
    marked = [replace(mark, layer=side.name) for group in groups for side in group for mark in side.view.marks]
    notes = mark_lines(marked)
    for a, b in ((group[0], side) for group in groups for side in group[1:]):
        if a.view.units != b.view.units:
            shared = min(a.view.units, b.view.units)
            notes.append(f"{a.name} has {a.view.units} units, {b.name} {b.view.units}: the first {shared} are compared")
    return notes + _left_out(operands, groups, wanted)


# Which layers of which stores are meant


@dataclass(frozen=True)
class _Operand:
    """One of A, B, C: a store, and the layer that was named with it, if one was."""

    letter: str
    store: Store
    layer: str | None


def _open(what: Sequence[str], given: Path | None, stack: contextlib.ExitStack) -> list[_Operand]:
    if len(what) < 2:
        raise WrongUse("nd compare needs two layers or stores", "for example: nd compare layer3 layer4")
    if len(what) > len(ascii_uppercase):
        raise WrongUse(f"{len(what)} are too many to be told apart by letters", "compare some of them")
    named = [_split(text) for text in what]
    alone = [layer for path, layer in named if path is None]
    if given is None and 0 < len(alone) < len(named):
        layer = quoted(str(alone[0]))
        raise WrongUse(
            f"'{alone[0]}' is no store",
            f"write STORE:{layer}; -l {layer} compares that layer of all stores; -s names the store of layers",
        )
    opened: dict[Path, Store] = {}

    def store(path: Path) -> Store:
        at = path.resolve()
        if at not in opened:
            opened[at] = stack.enter_context(Store(path))
        return opened[at]

    return [
        _Operand(letter, store(find_store(given if path is None else path)), layer)
        for letter, (path, layer) in zip(ascii_uppercase, named, strict=False)
    ]


def _split(text: str) -> tuple[Path | None, str | None]:
    """What an argument names: (store, None), (store, layer), or (None, layer). A path may hold colons, too."""
    if _is_store(text):
        return Path(text), None
    at = len(text)
    while (at := text.rfind(":", 0, at)) > 0:
        if _is_store(text[:at]):
            return Path(text[:at]), text[at + 1 :]
    # Nothing of that name is there: what looks like a store is told to be missing.
    path, colon, layer = text.partition(f"{SUFFIX}:")
    if colon:
        return Path(path + SUFFIX), layer
    return (Path(text), None) if text.endswith(SUFFIX) or os.sep in text else (None, text)


def _is_store(text: str) -> bool:
    """Whether a file has that name, or a folder of stores: other folders may be called like a layer."""
    if os.path.isfile(text):  # noqa: PTH113 - Path.is_file raises where the name is too long
        return True
    return os.path.isdir(text) and any(Path(text).glob(f"*{SUFFIX}"))  # noqa: PTH112


def _groups(operands: list[_Operand], wanted: Sequence[str]) -> list[list[Side]]:
    """The layers to compare, the first of each list with the others."""
    explicit = next((o.layer for o in operands if o.layer is not None), None)
    if wanted and all(o.layer is not None for o in operands):
        raise WrongUse("-l chooses among the layers of stores, and only layers are named", "leave -l out")
    for o in operands:
        if not o.store.layer_names:
            raise WrongUse(f"{o.store.path} holds no layer", "name another store")

    def side(o: _Operand, name: str) -> Side:
        return Side(f"{o.letter} {name}", o.store.layer(name))

    def alone(o: _Operand, name: str) -> str:
        """The layer of a store that is compared with layer ``name`` of another."""
        names = o.store.layer_names
        return o.layer or (names[0] if name not in names and len(names) == 1 else name)

    if explicit is not None:
        return [[side(o, alone(o, explicit)) for o in operands]]
    first, *others = operands
    if not wanted and all(len(o.store.layer_names) == 1 for o in operands):
        return [[side(o, o.store.layer_names[0]) for o in operands]]
    groups = []
    for name in wanted or first.store.layer_names:
        group = [side(o, name) for o in operands if wanted or name in o.store.layer_names]
        groups += [group] if group[0].store is first.store and len(group) > 1 else []
    if not groups:
        raise WrongUse(
            "no layer has the same name in both stores" if len(others) == 1 else "no layer of A is in another store",
            "name them, STORE:LAYER. " + "; ".join(f"{o.letter} has {_few(o.store.layer_names)}" for o in operands),
        )
    return groups


def _refuse_twins(groups: list[list[Side]]) -> None:
    for group in groups:
        seen: dict[tuple[Store, str], Side] = {}
        for side in group:
            twin = seen.setdefault((side.store, side.view.name), side)
            if twin is not side:
                raise WrongUse(
                    f"{twin.name} and {side.name} are one layer of {side.store.path}",
                    "name another layer, or another store",
                )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


# What forbids to compare them, and what is to be known


def _differences(operands: list[_Operand], anyway: bool) -> list[dict[str, str]]:
    """In what B, C ... differ from A; WrongUse where they do and it was not asked for ``anyway``."""
    first, *others = operands
    differences, said = [], []
    for other in others:
        if other.store is first.store:
            continue
        protocol = protocol_differences(first.store.protocol, other.store.protocol)
        data = data_differences(first.store, other.store)
        if protocol or data:
            parts = [f"{d.field} {d.a} against {d.b}" for d in (*protocol, *data)]
            said.append(f"{first.store.path} and {other.store.path} differ in {', '.join(parts)}")
        differences += [
            {"a": first.letter, "b": other.letter, "kind": kind, "field": d.field, "a_value": d.a, "b_value": d.b}
            for kind, some in (("protocol", protocol), ("data", data))
            for d in some
        ]
    if differences and not anyway:
        raise WrongUse(
            f"not comparable: {'; '.join(said)}", "dissect them alike; --anyway compares them and marks the result"
        )
    return differences


def _notes(operands: list[_Operand], groups: list[list[Side]], wanted: Sequence[str]) -> list[str]:
    """What a reader of the numbers should know."""
    first, *others = operands
    marked = [replace(mark, layer=side.name) for group in groups for side in group for mark in side.view.marks]
    notes = mark_lines(marked)
    notes += [
        f"whether {first.letter} and {o.letter} saw the same data is not recorded: only their protocols were compared"
        for o in others
        if same_data(first.store, o.store) is None
    ]
    for a, b in ((group[0], side) for group in groups for side in group[1:]):
        if different := different_measures(a.view, b.view):
            notes.append(f"{a.name} {different} ({b.name})")
        if not set(a.keys) & set(b.keys):
            notes.append(f"{a.name} and {b.name} have no concept in common")
        if a.view.units == b.view.units and a.view.name != b.view.name:
            notes.append(
                f"{a.name} and {b.name} have as many units: these are matched by number, whether or not that means"
                " anything"
            )
    for side in (side for group in groups for side in group):
        if side.view.units and side.view.statistics.dead.all():
            notes.append(f"{side.name}: all units are dead")
    if any(side.resampled is None for group in groups for side in group):
        notes.append("no intervals where a store has no counts by image block: dissect again to have them")
    return notes + _left_out(operands, groups, wanted)


def _left_out(operands: list[_Operand], groups: list[list[Side]], wanted: Sequence[str]) -> list[str]:
    """The layers that are in one store alone, unless others were asked for."""
    notes = []
    compared = {(side.store.path, side.view.name) for group in groups for side in group}
    for o in operands:
        left = [name for name in o.store.layer_names if (o.store.path, name) not in compared]
        if left and o.layer is None and not wanted:
            notes.append(f"only in {o.letter}, not compared: {_few(left)}")
    return notes


def _about(operands: list[_Operand], groups: list[list[Side]]) -> list[str]:
    """Which stores A, B ... are, and how their numbers came about: for the heads of tables and plots."""

    def one(o: _Operand) -> str:
        network = origin(o.store.provenance).network
        return f"{o.letter} {o.store.path}" + (f":{o.layer}" if o.layer else "") + (f" ({network})" if network else "")

    lines: dict[str, list[str]] = {}
    for o in operands:
        made = labels_line(o.store.provenance)
        for line in filter(None, (made, protocol_line(o.store.protocol), evidence_line(o.store))):
            lines.setdefault(line, []).append(o.letter)
    told = [
        line if len(letters) == len(operands) else f"{' '.join(letters)}: {line}" for line, letters in lines.items()
    ]
    return ["   ".join(one(o) for o in operands), *told]
