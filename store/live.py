"""A run that has not ended yet, as other processes see it: how far it is, and what it has counted so far.

Beside the store that it will write, a run keeps two hidden files (FORMAT.md describes them): a small one that says how
far it is, and a whole store of what is counted so far. Both go when it ends, whichever way; only a kill that no
program can answer leaves them behind, and then ``Run.alive`` says so.

    with RunWriter(target, command, layers, note=print) as run:
        run.update("tally", 120, 1600, rate=55.0, eta=27.0, step=3, steps=4)
        run.publish(dissection, 120)

    run = read_run(target)
    if run is not None and run.partial is not None: Store(run.partial)
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ndissect.store.errors import NDError
from ndissect.store.files import hidden, new_file, remove_left_overs
from ndissect.store.limits import LAYERS
from ndissect.store.processes import began, machine
from ndissect.store.text import clean_text

if TYPE_CHECKING:
    from ndissect.store.model import Dissection

VERSION = "1.0"
_KIND = "ndissect-run"
# A run file is a few hundred bytes a layer; what is longer was written by something else.
_MAX_BYTES = 1 << 20
# Every number in a run file is smaller, so that whoever shows one can count on dates and ints that work.
_LARGEST = 10**11
# Seconds between two run files, and after how many a run on another machine counts as dead.
_EVERY = 1.0
_SILENT = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """How far a run is.

    ``target``: the store that it will write; ``started``, ``updated``: seconds since the epoch; ``phase``:
    ``starting``, ``thresholds``, ``images``, ``tally`` or ``writing``, number ``step`` of ``steps``, of whose ``total``
    images ``done`` are done at ``rate`` images a second (a phase that is not counted in images has a total of 0);
    ``eta``: seconds left of the whole run, None while unknown; ``layers``: names and units; ``partial``: the store of
    what is known so far, counted over ``images`` images, None where there is none. ``machine`` and ``began`` tell the
    process ``pid`` from another one of that number.
    """

    target: Path
    pid: int
    host: str
    command: str
    started: float
    updated: float
    phase: str
    done: int
    total: int
    rate: float
    eta: float | None
    step: int
    steps: int
    layers: tuple[tuple[str, int], ...]
    images: int
    partial: Path | None
    machine: str
    began: int

    @property
    def alive(self) -> bool:
        """Whether the run goes on, looked up now; on another machine: whether it wrote within the last minute."""
        return process_lives(self.pid, self.host, self.machine, self.began, self.updated)


def run_file(target: Path) -> Path:
    """Where a run that will write ``target`` says how far it is: ``.<name>.run`` beside it."""
    return hidden(target, "run")


def partial_file(target: Path) -> Path:
    """Where such a run keeps the store of what is known so far: ``.<name>.partial`` beside ``target``."""
    return hidden(target, "partial")


def read_run(target: Path) -> Run | None:
    """The run that will write ``target``; None where there is none, or where its file is no run file."""
    return _read(run_file(target))


def find_runs(folder: Path) -> list[Run]:
    """All the runs that will write a store to ``folder``, the one begun last first; none where it cannot be read."""
    try:
        runs = [_read(path) for path in folder.iterdir() if path.name.startswith(".") and path.name.endswith(".run")]
    except OSError:
        return []
    return sorted((run for run in runs if run is not None), key=lambda run: -run.started)


# Whose process it is


def this_process() -> dict[str, Any]:
    """What tells this process from all others: ``pid``, ``host``, ``machine`` and ``began``, as in :class:`Run`."""
    pid = os.getpid()
    return {"pid": pid, "host": platform.node(), "machine": machine(), "began": began(pid) or 0}


def process_lives(pid: int, host: str, on: str, since: int, updated: float) -> bool:
    """Whether the process that began ``since`` on the machine ``on`` still runs, in the terms of :class:`Run`.

    A process of another machine cannot be looked up: it counts as running if it wrote, at ``updated``, within the last
    minute.
    """
    if (host, on) != (platform.node(), machine()):
        return abs(time.time() - updated) < _SILENT
    now = began(pid)
    return now is not None and (now == since or 0 in (now, since))


# The file


def _encode(run: Run) -> bytes:
    record = {f.name: getattr(run, f.name) for f in fields(run)}
    record |= {"encoding-type": _KIND, "encoding-version": VERSION, "target": run.target.name}
    del record["partial"]  # it is there or not
    return json.dumps(record, separators=(",", ":")).encode()


def _read(path: Path) -> Run | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            raw = os.read(fd, _MAX_BYTES + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
        return _decode(path, json.loads(raw)) if len(raw) <= _MAX_BYTES else None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _decode(path: Path, record: dict[str, Any]) -> Run:
    """The run that ``record`` describes; ValueError, TypeError, KeyError for what no run has written."""

    def get(name: str, kind: type[T]) -> T:
        return checked(record[name], kind)

    if record["encoding-type"] != _KIND or get("encoding-version", str).partition(".")[0] != "1":
        raise ValueError
    name, pid = get("target", str), get("pid", int)
    target = path.with_name(name)  # ValueError for a path to elsewhere
    if name == ".." or "\0" in name or len(os.fsencode(name)) > 255 or run_file(target) != path:
        raise ValueError
    if not 0 < pid < 1 << 31:
        raise ValueError
    partial = partial_file(target)
    return Run(
        target=target,
        pid=pid,
        host=clean_text(get("host", str)),
        command=clean_text(get("command", str)),
        started=get("started", float),
        updated=get("updated", float),
        phase=clean_text(get("phase", str)),
        done=min(get("done", int), get("total", int)),
        total=get("total", int),
        rate=get("rate", float),
        eta=None if record["eta"] is None else get("eta", float),
        step=get("step", int),
        steps=get("steps", int),
        layers=tuple(
            (clean_text(checked(name, str)), checked(n, int)) for name, n in get("layers", list)[: LAYERS.most]
        ),
        images=get("images", int),
        partial=partial if partial.is_file() else None,
        machine=get("machine", str),
        began=get("began", int),
    )


def checked(value: Any, kind: type[T]) -> T:
    """``value``, a JSON value, if it is of ``kind`` and, as a number, is one that can be: finite, not below 0."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError
    if isinstance(value, (int, float)) and not (math.isfinite(value) and 0 <= value < _LARGEST):
        raise ValueError
    return value


# Writing it


def _unheard(text: str) -> None:
    """Where nobody listens."""


class RunWriter:
    """Shows the run that will write ``target`` to other processes, from ``with`` to its end.

    ``room``: bytes that the finished store will take. Results so far are shown only where the disk has room for both.

    Nothing in here stops the run. After the first failure its files are removed, ``note`` is told why, once, and
    nothing more is written. A thread writes the run file, once a second and at each new phase. So a slow disk does not
    hold the run up, and other machines see that the run goes on. Of two runs to one target the later one is shown.
    """

    def __init__(
        self,
        target: Path,
        command: str,
        layers: Sequence[tuple[str, int]],
        *,
        room: int = 0,
        note: Callable[[str], None] = _unheard,
    ) -> None:
        self._target, self._room, self._note = target, room, note
        now = time.time()
        self._run = Run(
            target=target,
            command=command,
            started=now,
            updated=now,
            phase="starting",
            done=0,
            total=0,
            rate=0.0,
            eta=None,
            step=0,
            steps=0,
            layers=tuple(layers),
            images=0,
            partial=None,
            **this_process(),
        )
        self._failure: OSError | NDError | None = None
        self._told = False
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="nd-live", daemon=True)
        #: How long the last partial store took to write, in seconds: about what the final one will take.
        self.write_seconds = 0.0

    def __enter__(self) -> RunWriter:
        self._guarded(self._take_over)
        self._thread.start()
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join()
        self._tell_failure()
        self._remove()

    def update(
        self,
        phase: str,
        done: int = 0,
        total: int = 0,
        *,
        rate: float = 0.0,
        eta: float | None = None,
        step: int = 0,
        steps: int = 0,
    ) -> None:
        """Say how far the run is, in the terms of :class:`Run`; cheap enough for every image."""
        new = (phase, step) != (self._run.phase, self._run.step)
        self._run = replace(self._run, phase=phase, done=done, total=total, rate=rate, eta=eta, step=step, steps=steps)
        if new:
            self._wake.set()
        self._tell_failure()

    def publish(self, dissection: Dissection, images: int) -> None:
        """Show ``dissection``, what is known after counting ``images`` images."""
        self._guarded(lambda: self._publish(dissection, images))
        self._tell_failure()

    def make_room(self) -> None:
        """Take the results so far away: the final store is about to be written, and may need their place."""
        if self._shown_is_ours():
            _unlink(partial_file(self._target))

    def _publish(self, dissection: Dissection, images: int) -> None:
        from ndissect.store.writer import write_store  # noqa: PLC0415 - who reads how far a run is needs no writer

        if not self._shown_is_ours():
            return
        began = time.monotonic()
        if shutil.disk_usage(self._target.parent).free < 2 * self._room:
            raise NDError("the disk has too little room to show results before the end")
        write_store(partial_file(self._target), dissection)
        self.write_seconds = time.monotonic() - began
        self._run = replace(self._run, images=images)
        self._wake.set()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do ``work`` unless something failed before; a failure here is the last."""
        if self._failure is not None:
            return
        try:
            work()
        except (OSError, NDError) as e:
            self._failure = e
        if self._failure is not None:  # in this thread or, meanwhile, in the other
            self._remove()

    def _tell_failure(self) -> None:
        if self._failure is not None and not self._told:
            self._told = True
            why = self._failure.message if isinstance(self._failure, NDError) else self._failure.strerror
            self._note(f"nd browse cannot show this run: {why}")

    def _keep_writing(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_EVERY)
            self._wake.clear()
            self._guarded(self._write)

    def _take_over(self) -> None:
        """Put this run in the place of an earlier one, and remove what that one left if it was killed."""
        for path in (self._target, partial_file(self._target), run_file(self._target)):
            remove_left_overs(path)
        self.make_room()
        self._write()

    def _write(self) -> None:
        if not self._shown_is_ours():
            return
        path = run_file(self._target)
        fresh = new_file(path)
        try:
            fresh.write_bytes(_encode(replace(self._run, updated=time.time())))
            if self._shown_is_ours():  # still: a later run may have begun while this one wrote
                fresh.replace(path)
        finally:
            _unlink(fresh)

    def _shown_is_ours(self) -> bool:
        """Whether this run may write the files beside the target: no later run that is alive has written them."""
        there = read_run(self._target)
        return there is None or _order(there) <= _order(self._run) or not there.alive

    def _remove(self) -> None:
        there = read_run(self._target)
        ours = there is not None and _order(there) == _order(self._run)
        if ours or not os.path.lexists(run_file(self._target)):
            _unlink(partial_file(self._target))
        if ours:
            _unlink(run_file(self._target))


def _order(run: Run) -> tuple[float, str, int]:
    return run.started, run.host, run.pid


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # it will be replaced, or at the worst seen to be dead
        path.unlink()
