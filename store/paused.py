"""Runs that are not at work, as they lie beside the stores that they will write: how far, since when, and how to go on.

A run saves itself in a hidden folder (ndissect.engine.run.saved_run), a shard in one that is seen. What is read here of
such a folder are two small files: ``run.json``, which says what the run is of and how it was started, and
``status.json``, which says how far it was when it last saved itself. Whoever sends a folder may have written anything
into them.

    for paused in find_paused(Path()): paused.command, paused.done, paused.alive
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndissect.store.errors import NDError
from ndissect.store.files import hidden, remove_known
from ndissect.store.live import checked, process_lives, this_process
from ndissect.store.text import clean_text

RUN, STATUS, LOCK = "run.json", "status.json", "lock"
#: Labels that a run makes of its images.
LABELS = "labels"
KIND, VERSION = "ndissect-saved-run", "2"
#: What the lock of a folder of ours holds: it tells the folder from one that only has the same names in it.
MARK = b"ndissect saved run\n"
_STATUS_KIND = "ndissect-saved-status"
# run.json holds what a run is of: its layers, and how it was started. What is longer was written by something else.
_MAX_BYTES = 4 << 20
_PHASE = re.compile(r"(\d{1,6})\.phase(\d{1,6})\.safetensors", re.ASCII)
# Each whole or begun (ndissect.store.files.atomic).
_NAME = r"(run\.json|status\.json|\d{1,6}\.(phase|kept)\d{1,6}\.safetensors)"
_KNOWN = re.compile(rf"lock|labels|{_NAME}|\.{_NAME}(\.[\w-]{{1,64}}){{1,2}}\.part", re.ASCII)
_SAVED = re.compile(r"\..+\.saved|.+\.shard-\d{1,9}-of-\d{1,9}", re.DOTALL)
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


def saved_folder(target: Path) -> Path:
    """Where a run that will write ``target`` saves itself: ``.<name>.saved`` beside it."""
    return hidden(target, "saved")


def shard_folder(target: Path, shard: str) -> Path:
    """Where the shard ``2/8`` of the store ``target`` lies."""
    return target.with_name(f"{target.name}.shard-{shard.replace('/', '-of-')}")


# Whose folder it is


def known(name: str) -> bool:
    """Whether a file of this name, whole or begun, is one that a run saves."""
    return _KNOWN.fullmatch(name) is not None


def phase_of(name: str) -> tuple[int, int] | None:
    """The process and the phase that the file ``name`` is of; None for other files."""
    match = _PHASE.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def phase_file(process: int, phase: int) -> str:
    """What process number ``process`` has counted in ``phase``."""
    return f"{process}.phase{phase}.safetensors"


def part_file(process: int, number: int) -> str:
    """A part of what may fire, as process number ``process`` keeps it."""
    return f"{process}.kept{number}.safetensors"


def not_ours(folder: Path) -> str:
    """Why ``folder``, which is there, was not made by a run: for example ``is a link``. "" where a run made it.

    A run may write and delete in a folder that a run has made. Such a folder belongs to this user and holds only files
    of the names that a run gives. If it holds more than a lock, the lock has a run's mark. Raises OSError where that
    cannot be looked up.
    """
    state = folder.lstat()
    if stat.S_ISLNK(state.st_mode):
        return "is a link"
    if not stat.S_ISDIR(state.st_mode):
        return "is no folder"
    if hasattr(os, "geteuid") and state.st_uid != os.geteuid():
        return "belongs to another user"
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not known(entry.name):
                return f"holds what no run has saved: {clean_text(entry.name)}"
            with contextlib.suppress(FileNotFoundError):  # a run that is at work there has removed it
                if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    return f"holds what no run has saved: {entry.name}, a link or no file"
                names.append(entry.name)
    marked = _read_file(folder / LOCK, len(MARK) + 1)
    if marked != MARK and (marked or set(names) - {LOCK}):
        return "lacks the mark of a run in its lock"
    return ""


def demand_ours(folder: Path, instead: str = "") -> None:
    """Raise NDError where ``folder`` is there and no run has made it: nothing may be touched in it then.

    ``instead``: what else the user can do about it, the end of the hint.
    """
    try:
        why = not_ours(folder) if os.path.lexists(folder) else ""
    except OSError as e:
        why = f"cannot be looked into: {e.strerror}"
    if why:
        hint = f"move it away: mv {shlex.quote(clean_text(str(folder)))} ELSEWHERE{instead}"
        raise NDError(f"{clean_text(str(folder))} {why}: nd does not touch it", hint)


def clear(folder: Path, *, but_lock: bool = False) -> None:
    """Delete what a run has saved in ``folder``, and the folder if nothing else is in it; OSError where that fails.

    The file that says what the run is of goes first and the lock goes last. A kill in between leaves nothing that a run
    could go on with by mistake.
    """
    orders: list[Callable[[str], bool]] = [lambda name: name == RUN, lambda name: known(name) and name != LOCK]
    if not but_lock:
        orders.append(lambda name: name == LOCK)
    for some in orders:
        remove_known(folder, some)


# What a run says of itself


@dataclass(frozen=True)
class Paused:
    """A run that has saved itself in ``folder``; it may be at work all the same, see ``alive``.

    ``target``: the store that it will write, for a shard as well; ``shard``: "" or ``2/8``; ``command``: what goes on,
    to be typed in ``place``; ``processes``: by so many; ``phase``, number ``step`` of ``steps``, of whose ``total``
    images ``done`` are done; ``updated``: when it last saved itself, in seconds since the epoch; ``elapsed``: seconds
    of work before that; ``reason``: why it ended, "" where nothing could say so; ``whole``: a shard that has ended.
    """

    folder: Path
    target: Path
    shard: str
    command: tuple[str, ...]
    place: str
    processes: int
    phase: str
    step: int
    steps: int
    done: int
    total: int
    updated: float
    elapsed: float
    reason: str
    whole: bool
    process: Mapping[str, Any]

    @property
    def alive(self) -> bool:
        """Whether the run goes on, looked up now; on another machine: whether it wrote within the last minute."""
        p = self.process
        lives = process_lives(p["pid"], p["host"], p["machine"], p["began"], self.updated)
        return lives and not self.reason and not self.whole

    @property
    def goes_on(self) -> str:
        """The command line that goes on, ready to be typed here; "" where it is not known."""
        if not self.command:
            return ""
        line = shlex.join(self.command)
        here = self.place in ("", str(Path.cwd()))
        return clean_text(line if here else f"cd {shlex.quote(self.place)} && {line}")


def run_record(target: Path, key: Mapping[str, Any], command: Sequence[str]) -> bytes:
    """``run.json``: what the run that will write ``target`` is of, by contents, and how it was started."""
    started = {"target": target.name, "command": list(command), "folder": str(Path.cwd())}
    return _encode(KIND, {"key": key} | started)


def read_key(folder: Path) -> dict[str, Any] | None:
    """What the run saved in ``folder`` is of; None where there is none, ValueError where that is not to be read."""
    if not os.path.lexists(folder / RUN):
        return None
    try:
        return dict(_read_run(folder)["key"])
    except _UNREADABLE as e:
        raise ValueError(str(folder / RUN)) from e


def status_record(
    *,
    phase: str,
    step: int,
    steps: int,
    done: int,
    total: int,
    updated: float,
    elapsed: float,
    reason: str = "",
    whole: bool = False,
) -> bytes:
    """``status.json``: how far this process is, in the terms of :class:`Paused`."""
    record = {"phase": phase, "step": step, "steps": steps, "done": done, "total": total, "updated": updated}
    record |= {"elapsed": elapsed, "reason": reason, "whole": whole, "process": this_process()}
    return _encode(_STATUS_KIND, record)


def status_with(folder: Path, reason: str) -> bytes | None:
    """``status.json`` with this process, and with why it ended ("": it goes on); None where there is none."""
    with contextlib.suppress(*_UNREADABLE):
        record = _read_json(folder / STATUS, _STATUS_KIND)
        return _encode(_STATUS_KIND, record | {"reason": reason, "process": this_process()})
    return None


def read_paused(folder: Path) -> Paused | None:
    """The run that has saved itself in ``folder``; None where there is nothing, or nothing that a run has written."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return None
        return _decode(folder, _read_run(folder), _read_json(folder / STATUS, _STATUS_KIND))
    except _UNREADABLE:
        return None


def find_paused(folder: Path, target: Path | None = None) -> list[Paused]:
    """The runs that have saved themselves in ``folder``, the last one first; none where it cannot be read.

    With ``target``: only the runs that will write it.
    """
    try:
        with os.scandir(folder) as entries:
            there = [e.name for e in entries if _SAVED.fullmatch(e.name)]
    except OSError:
        return []
    runs = [paused for name in there if (paused := read_paused(folder / name)) is not None]
    if target is not None:
        runs = [paused for paused in runs if paused.target.name == target.name]
    return sorted(runs, key=lambda paused: -paused.updated)


def _decode(folder: Path, run: Mapping[str, Any], status: Mapping[str, Any]) -> Paused:
    """The run that the two records describe; ValueError, TypeError, KeyError for what no run has written."""
    key, process = run["key"], status["process"]
    shard, name = checked(key.get("shard", ""), str), checked(run["target"], str)
    target = folder.with_name(name)  # ValueError for a path to elsewhere
    if name == ".." or "\0" in name or (shard_folder(target, shard) if shard else saved_folder(target)) != folder:
        raise ValueError
    command = [checked(word, str) for word in checked(run["command"], list)]
    if command and command[0] != "nd":
        raise ValueError
    total = checked(status["total"], int)
    return Paused(
        folder=folder,
        target=target,
        shard=clean_text(shard),
        command=tuple(command),
        place=checked(run["folder"], str),
        processes=checked(key["processes"], int),
        phase=clean_text(checked(status["phase"], str)),
        step=checked(status["step"], int),
        steps=checked(status["steps"], int),
        done=min(checked(status["done"], int), total),
        total=total,
        updated=checked(status["updated"], float),
        elapsed=checked(status["elapsed"], float),
        reason=clean_text(checked(status["reason"], str)),
        whole=checked(status["whole"], bool),
        process={
            "pid": checked(process["pid"], int),
            "host": clean_text(checked(process["host"], str)),
            "machine": checked(process["machine"], str),
            "began": checked(process["began"], int),
        },
    )


# Files


def _encode(kind: str, record: Mapping[str, Any]) -> bytes:
    whole = {"encoding-type": kind, "encoding-version": VERSION, **record}
    return json.dumps(whole | {"digest": _digest(whole)}).encode()


def _digest(record: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_run(folder: Path) -> dict[str, Any]:
    record = _read_json(folder / RUN, KIND)
    if not isinstance(record["key"], dict):
        raise TypeError
    return record


def _read_json(path: Path, kind: str) -> dict[str, Any]:
    raw = _read_file(path, _MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise ValueError
    record = dict(json.loads(raw))
    if (record["encoding-type"], record["encoding-version"]) != (kind, VERSION) or record["digest"] != _digest(record):
        raise ValueError
    return record


def _read_file(path: Path, most: int) -> bytes:
    """The first bytes of a regular file; b"" where it is a link or anything else, or is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return b""
    with open(fd, "rb") as f:  # noqa: PTH123 - a descriptor has no path
        return f.read(most) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
