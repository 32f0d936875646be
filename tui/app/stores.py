"""The Stores table: the files of a folder, and the runs that will write some."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ndissect.store.errors import NDError
from ndissect.store.files import SUFFIX, human_bytes
from ndissect.store.live import Run, find_runs, read_run
from ndissect.store.reader import Store
from ndissect.store.text import clean_text
from ndissect.tui.app.listing import Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Stamp, stamp
from ndissect.tui.tables.origin import Origin, origin

#: So many stores are looked into, the newest ones; a folder of more shows only the names of the others.
MOST = 200
_DAYS = 7
_DAY = 86400


@dataclass(frozen=True)
class _About:
    """What is read of a store without looking at its counts."""

    origin: Origin
    layers: tuple[str, ...]


# Keyed by the stamp too, so that a list that is made again costs only what has changed. Failures are not kept: a lock
# goes away without a trace in the file.
@lru_cache(maxsize=4 * MOST)
def _about(path: Path, _: Stamp) -> _About:
    with Store(path) as store:
        return _About(origin(store.provenance), store.layer_names)


@lru_cache(maxsize=4 * MOST)
def _units(path: Path, _: Stamp) -> int:
    with Store(path) as store:
        return sum(store.layer(name).units for name in store.layer_names)


@dataclass(frozen=True)
class _Row:
    """A store, or a run that will write it.

    ``changed``: seconds since the epoch; ``size``: bytes, 0 where there is no store yet; ``problem``: why it cannot be
    read; ``about`` is None then, and where it was not looked into.
    """

    path: Path
    name: str
    changed: float
    size: int
    stamp: Stamp | None = None
    run: Run | None = None
    about: _About | None = None
    problem: str = ""


def stores_listing(
    folder: Path, current: Path | None, more: Sequence[Path] = (), *, now: float | None = None
) -> Listing:
    """One row a store of ``folder``, of ``more`` and ``current``: its network, data, layers, units, size and age.

    The newest first; ``now``, in seconds since the epoch, is what ages are told against. A store that cannot be read
    is listed with the reason, a run under way or killed with its share done.
    """
    now = time.time() if now is None else now
    rows, unread = _rows(folder, [*more, *([current] if current else [])])
    # Unlike Path.resolve, realpath takes a link that leads to itself.
    open_at = os.path.realpath(current) if current else None
    is_open = [os.path.realpath(row.path) == open_at for row in rows]
    states = [_state(row, here) for row, here in zip(rows, is_open, strict=True)]

    def units(row: int) -> int | None:
        of = rows[row]
        if of.about is None or of.stamp is None:
            return None if of.run is None else sum(n for _, n in of.run.layers)
        try:
            return _units(of.path, of.stamp)
        except NDError:  # gone, or damaged further in than its names: opening it says how
            return None

    def layers(row: int) -> int | None:
        of = rows[row]
        return len(of.about.layers) if of.about else len(of.run.layers) if of.run else None

    def cells(row: int) -> list[Cell]:
        of = rows[row]
        known = [*(_known(n) for n in (layers(row), units(row))), human_bytes(of.size) if of.size else ""]
        named = [of.problem, ""] if of.problem else [_network(of), _data(of)]
        return [of.name.removesuffix(SUFFIX), *named, *known, _age(now, of.changed), states[row]]

    def plain(row: int) -> dict[str, Any]:
        of = rows[row]
        return {
            "name": of.name,
            "path": clean_text(str(of.path)),
            "network": _network(of) or None,
            "data": _data(of) or None,
            "layers": layers(row),
            "units": units(row),
            "bytes": of.size,
            "modified": _moment(of.changed, "%Y-%m-%dT%H:%M:%S"),
            "state": states[row] or None,
            "problem": of.problem or None,
        }

    def fields() -> Fields:
        return Fields(words=(texts([f"{r.name}\n{_network(r)}\n{_data(r)}\n{r.problem}" for r in rows]), texts(states)))

    notes = [f"{row.name} {row.problem}" for row in rows if row.problem]
    if unread:
        notes.insert(0, f"{len(rows)} stores; the newest {MOST} were looked into, the others only named")
    return Listing(
        name="stores",
        subject=str(folder),
        columns=(
            Column("name", 24, grows=True, sort=lambda: _rank([row.name for row in rows])),
            Column("network", 13, drop=3, sort=lambda: _rank([_network(row) for row in rows])),
            Column("data", 11, drop=4, sort=lambda: _rank([_data(row) for row in rows])),
            Column("layers", 6, right=True, drop=5),
            Column("units", 6, right=True, drop=6),
            Column("size", 7, right=True, drop=2, sort=lambda: np.array([r.size for r in rows]), descending=True),
            Column("modified", 10, drop=1, sort=lambda: np.array([row.changed for row in rows]), descending=True),
            Column("state", 12),
        ),
        count=len(rows),
        cells=cells,
        item=lambda row: Item("store", name=str(rows[row].path)),
        fields=fields,
        empty=_nothing(folder),
        order=Order(6, descending=True),
        faint=lambda row: bool(rows[row].problem) or states[row].startswith("stopped"),
        plain=plain,
        copied=lambda row: clean_text(str(rows[row].path)),
        notes=tuple(notes),
    )


def _rows(folder: Path, others: Sequence[Path]) -> tuple[list[_Row], bool]:
    """The rows, newest first, and whether there are more stores than are looked into."""
    try:
        inside = [folder / entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except OSError:
        inside = []
    paths = {Path(os.path.abspath(p)): p for p in [*others, *inside]}  # noqa: PTH100 - links are stores of their own
    runs = [*find_runs(folder), *filter(None, map(read_run, others))]
    by_target = {Path(os.path.abspath(run.target)): run for run in runs}  # noqa: PTH100
    rows = []
    for at, path in paths.items():
        try:
            there = path.stat() if path.exists() else path.lstat()
        except OSError:
            continue  # gone since it was named
        if not stat.S_ISDIR(there.st_mode):
            run = by_target.pop(at, None)
            running = run if run is not None and run.alive else None
            rows.append(_Row(path, _name(path, folder), there.st_mtime, there.st_size, stamp(path), running))
    rows += [_Row(run.target, _name(run.target, folder), run.updated, 0, run=run) for run in by_target.values()]
    rows.sort(key=lambda row: (-row.changed, row.name))
    return [*map(_looked_into, rows[:MOST]), *rows[MOST:]], len(rows) > MOST


def _looked_into(row: _Row) -> _Row:
    if row.run is not None and row.stamp is None:  # no store yet, but perhaps results so far
        path = row.run.partial
        at = stamp(path) if path else None
    else:
        path, at = row.path, row.stamp
    if path is None or at is None:
        return row if row.run else replace(row, problem="leads to no file")
    try:
        return replace(row, about=_about(path, at))
    except NDError as e:
        return row if path != row.path else replace(row, problem=_short(e, path))


def _short(error: NDError, path: Path) -> str:
    """The message without the path, which the row tells already."""
    return clean_text(error.message.removeprefix(str(path)).lstrip())


def _name(path: Path, folder: Path) -> str:
    """The name in ``folder``, the whole path for what lies elsewhere."""
    near = os.path.abspath(path.parent) == os.path.abspath(folder)  # noqa: PTH100
    return clean_text(path.name if near else str(path))


def _network(row: _Row) -> str:
    return row.about.origin.network if row.about else ""


def _data(row: _Row) -> str:
    return row.about.origin.data if row.about else ""


def _known(number: int | None) -> str:
    return "" if number is None else str(number)


def _state(row: _Row, is_open: bool) -> str:
    if row.problem:
        return "unreadable"
    if row.run is None:
        return "open" if is_open else ""
    run = row.run
    passed = max(run.updated - run.started, 0.0)
    share = "" if run.eta is None or not passed + run.eta else f" {int(100 * passed / (passed + run.eta))} %"
    return f"{'open' if is_open else 'running' if run.alive else 'stopped'}{share}"


def _age(now: float, then: float) -> str:
    """How long before ``now`` it was; the date where that was more than a week before, or is yet to come."""
    passed = now - then
    if not 0 <= passed < _DAYS * _DAY:
        return "just now" if -60 < passed < 0 else _moment(then, "%Y-%m-%d")
    if passed < 60:
        return f"{int(passed)} s ago" if passed >= 1 else "just now"
    if passed < 3600:
        return f"{int(passed / 60)} min ago"
    if passed < _DAY:
        return f"{int(passed / 3600)} h ago"
    days = int(passed / _DAY)
    return f"{days} day{'s' if days > 1 else ''} ago"


def _moment(then: float, form: str) -> str:
    try:
        return datetime.fromtimestamp(then).strftime(form)
    except (ValueError, OverflowError, OSError):  # a file may claim any time
        return "?"


def _rank(names: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rank of each name in the alphabet, equal for equal ones; no name comes last."""
    order = {name: i for i, name in enumerate(sorted(set(names), key=lambda n: (not n, n.casefold(), n)))}
    return np.array([order[name] for name in names], np.int64)


def _nothing(folder: Path) -> str:
    name = clean_text(str(folder))
    if not folder.is_dir():
        return f"there is no folder {name}"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"the folder {name} may not be read"
    return f"no *{SUFFIX} store in {name}; nd dissect makes one"
