"""A series of networks that differ in some factor: checkpoints of a folder, the rows of a table, or networks by name.

A table is ``series.csv`` or ``series.json`` (a list of objects): ``network``, ``weights`` (a file beside the table) and
``name`` say what each network is; every other column is a factor.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.experiments.checkpoint_names import SUFFIXES, is_checkpoint, stem_of
from ndissect.engine.experiments.numbered import Numbered, number_checkpoints
from ndissect.store.errors import WrongUse, nearest
from ndissect.store.regular import other_kind, read_regular

#: The tables that a folder may hold.
TABLES = ("series.csv", "series.json")
#: The factor of checkpoints: a number in the file's name.
NUMBER = "number"
# File systems take 255 bytes a name, and a store's has more to it.
_LONGEST_NAME = 150
# Of one series, and of the file of its table.
_MOST, _MOST_BYTES = 10_000, 16 << 20
_ABOUT = ("name", "network", "weights")
_NETWORK = "add --network SPEC, as nd dissect takes it"

Factor = float | str


@dataclass(frozen=True)
class Member:
    """One network of a series: ``name``, which names its store, its spec, its weights' file, and its factors."""

    name: str
    network: str
    weights: Path | None
    factors: Mapping[str, Factor]


@dataclass(frozen=True)
class Series:
    """The networks of a series. ``numbered``: where they are checkpoints with numbers, how these were found."""

    members: list[Member]
    numbered: Numbered | None = None


def read_series(given: Sequence[str], network: str | None = None, factor: str | None = None) -> Series:
    """The networks that ``given`` means: a folder, a table, checkpoints, or networks' specs; at least one.

    ``network``: the spec of those that do not say; ``factor``: what the numbers of checkpoints are. WrongUse for an
    empty folder, a table that cannot be read, files that are not there, names that occur twice, and checkpoints without
    a network or of which none has a number.
    """
    series = _read(given, network, factor)
    _check(series.members)
    return series


def _read(given: Sequence[str], network: str | None, factor: str | None) -> Series:
    paths = [Path(text).expanduser() for text in given]
    if len(paths) == 1 and os.path.isdir(paths[0]):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return _folder(paths[0], network, factor)
    if len(paths) == 1 and paths[0].suffix in (".csv", ".json"):
        return Series(_table(paths[0], network))
    if all(is_checkpoint(path.name) for path in paths):
        return _checkpoints(paths, network, factor)
    if network is not None:
        raise WrongUse("--network is for checkpoints, and networks are named already", "leave one of them out")
    return Series([Member(_file_name(spec), spec, None, {"network": spec}) for spec in given])


def _check(members: Sequence[Member]) -> None:
    """WrongUse for too many members, two of one name, and weights that are not there."""
    if len(members) > _MOST:
        raise WrongUse(f"a series of {len(members):,} networks, at most {_MOST:,} are compared", "leave some out")
    twice = next((name for name, count in Counter(member.name for member in members).items() if count > 1), None)
    if twice is not None:
        raise WrongUse(f"two networks of the series are named {twice}", "give each a name of its own, in a series.csv")
    # Path.is_file raises where a name is too long
    missing = [m.weights for m in members if m.weights is not None and not os.path.isfile(m.weights)]  # noqa: PTH113
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        kind = other_kind(missing[0])
        what = f"{missing[0]} is {kind}, not a regular file" if kind else f"there is no file {missing[0]}"
        raise WrongUse(f"{what}{more}", "weights lie beside the table that names them")


def choose(members: Sequence[Member], factor: str | None, only: Sequence[str]) -> tuple[str, list[Member]]:
    """The factor that is looked at, by default the first, and the members for which all of ``only`` holds.

    ``only``: ``FACTOR=VALUE`` each. WrongUse for factors and values that there are not.
    """
    known = list(dict.fromkeys(name for member in members for name in member.factors))
    chosen = list(members)
    for text in only:
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongUse(f"--only '{text}' is no FACTOR=VALUE", "for example --only batch_norm=yes")
        _known_factor(name, known)
        left = [m for m in chosen if name in m.factors and _same(m.factors[name], value)]
        if not left:
            there = ", ".join(dict.fromkeys(show(m.factors[name]) for m in chosen if name in m.factors))
            raise WrongUse(f"no network of the series has {text}", f"there are: {there}")
        chosen = left
    if factor is not None:
        _known_factor(factor, known)
    return factor or known[0], chosen


def others(members: Sequence[Member], factor: str) -> list[dict[str, Factor]]:
    """What the other factors of the members are, each combination once: the curves against ``factor``."""
    combinations: list[dict[str, Factor]] = []
    for member in members:
        rest = {name: value for name, value in member.factors.items() if name != factor}
        if rest not in combinations:
            combinations.append(rest)
    return combinations


def show(value: Factor) -> str:
    """A factor's value for people: 16, 0.5, yes."""
    return value if isinstance(value, str) else f"{value:.10g}"


def _same(value: Factor, text: str) -> bool:
    try:
        return value == (text if isinstance(value, str) else float(text))
    except ValueError:
        return False


def _known_factor(name: str, known: list[str]) -> None:
    if name not in known:
        near = nearest(name, known) or known
        raise WrongUse(f"the series has no factor '{name}'", f"it has: {', '.join(near)}")


# Where members come from


def _folder(folder: Path, network: str | None, factor: str | None) -> Series:
    for name in TABLES:
        if (folder / name).exists():
            return Series(_table(folder / name, network))
    paths = sorted(p for p in folder.iterdir() if is_checkpoint(p.name) and not p.name.startswith("."))
    if not paths:
        raise WrongUse(
            f"the folder {folder} holds no checkpoints ({', '.join(SUFFIXES)}) and no series.csv",
            "name a folder that does, or the networks themselves",
        )
    return _checkpoints(paths, network, factor)


def _checkpoints(paths: Sequence[Path], network: str | None, factor: str | None) -> Series:
    if network is None:
        raise WrongUse(f"{paths[0]} does not say of which network it holds the weights", _NETWORK)
    numbered = number_checkpoints(paths, factor)
    members = [
        Member(_file_name(stem_of(path.name)), network, path, {NUMBER: number}) for path, number in numbered.numbers
    ]
    return Series(members, numbered)


def _table(path: Path, network: str | None) -> list[Member]:
    rows = _rows(path)
    factors = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in _ABOUT]
    numeric = {name: all(_is_number(row[name]) for row in rows if row.get(name, "") != "") for name in factors}
    members = []
    for number, row in enumerate(rows, 1):
        spec = row.get("network") or network
        if not spec:
            raise WrongUse(f"{path}: row {number} names no network", _NETWORK)
        weights = path.parent / row["weights"] if row.get("weights") else None
        name = row.get("name") or (stem_of(weights.name) if weights else spec)
        values: dict[str, Factor] = {
            f: float(row[f]) if numeric[f] else row[f] for f in factors if row.get(f, "") != ""
        }  # fmt: skip
        members.append(Member(_file_name(name), spec, weights, values or {"name": name}))
    return members


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table as text; WrongUse where it is none."""
    example = "columns: name,network,weights and factors"
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        if path.suffix == ".csv":
            rows = [{k: v for k, v in row.items() if k and v is not None} for row in csv.DictReader(text.splitlines())]
        else:
            rows = [{str(k): _text(v) for k, v in row.items()} for row in json.loads(text)]
    except OSError as e:
        raise WrongUse(f"cannot read {path}: {e.strerror}", example) from e
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as e:
        raise WrongUse(
            f"{path} is no table of networks: {str(e)[:200]}", f"a list of objects with the {example}"
        ) from e
    if not rows or not all(set(row) & {"network", "weights"} for row in rows):
        raise WrongUse(f"{path} is no table of networks", example)
    return rows


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _file_name(text: str) -> str:
    name = re.sub(r"[^\w.@=+-]+", "_", text).strip("._") or "network"
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")
