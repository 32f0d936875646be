"""What a run has counted so far, on the disk, so that the same command goes on after a kill.

A hidden folder beside the store holds ``run.json``, which says by contents what the run is of, and ``status.json``, how
far it is (ndissect.store.paused); a file for each phase of each process, replaced as a whole; and the candidates
(ndissect.engine.measures.candidates), each written once. Each file tells whether it is what was written
(ndissect.engine.machine.sealed), and that of a phase names the files of candidates that go with it. Nothing is pickled,
and no link is followed. The folder goes when the store is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ndissect.engine.data.alone import alone
from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.sealed import UNREADABLE, Damaged, read_sealed, write_sealed
from ndissect.engine.machine.state import State
from ndissect.engine.measures.candidates import CandidateBatch, Candidates
from ndissect.engine.run.candidate_files import check_batch, to_batches, to_tensors
from ndissect.store import paused
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import atomic, remedy

#: What to do about a state that cannot be used.
RESTART = "--restart throws away what was saved; -o names another output"
_SHOWN = 60


class SavedRun:
    """The saved state of a run in ``folder``; ``key``: JSON values that tell what it is of.

    ``process``: which of several this one is; ``room``: bytes that the store will take on the same disk; ``target``:
    the store; ``command``: what goes on, as a list of words.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        process: int = 0,
        room: int = 0,
        *,
        target: Path | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.folder, self._key, self._process, self.room = folder, json.loads(json.dumps(key)), process, room
        self._target = target or folder.with_name(folder.name.removeprefix(".").removesuffix(".saved"))
        self._command = tuple(command)
        self._bound_to = hashlib.sha256(json.dumps(self._key, sort_keys=True).encode()).hexdigest()
        self._candidate_files: list[list[str]] = []
        self._lock: int | None = None
        self._began_in: os.stat_result | None = None

    @contextlib.contextmanager
    def held(self, *, restart: bool = False) -> Iterator[None]:
        """Hold the folder for this run, made where it is missing; it stays where something was saved.

        WrongUse where it is of other work, NDError where another run holds it, or where no run has made it.
        ``restart``: throw away what is there.
        """
        busy = f"another run is writing to {self.folder.parent / self._writes}"
        with contextlib.ExitStack() as stack:
            try:
                with contextlib.suppress(FileExistsError):
                    self.folder.mkdir()
                paused.demand_ours(self.folder, "; -o names another output")
                self._began_in = self.folder.lstat()
                self._lock = stack.enter_context(alone(self.folder / paused.LOCK, busy))
                with contextlib.suppress(OSError):  # on a full disk it is told when there is something to save
                    self._mark()
                # Without run.json nothing says what the rest is of.
                if restart or not os.path.lexists(self.folder / paused.RUN):
                    self.clear()
            except OSError as e:
                why = e.strerror or e
                raise NDError(f"cannot use the folder {self.folder}: {why}", "-o names another output") from e
            stack.callback(self._tidy)  # while it is held: the folder of a run that goes on is not ours to remove
            self._check()
            self._take_over()
            try:
                yield
            except BaseException as e:
                self._tell(e.message if isinstance(e, NDError) else str(e) or type(e).__name__)
                raise

    @property
    def _writes(self) -> str:
        """What the run writes: the name of the store, or of the shard."""
        return self.folder.name if "shard" in self._key else self._target.name

    def _check(self) -> None:
        """WrongUse where what was saved is of other work than ``key``."""
        there = read_key(self.folder)
        if there is None:
            return
        differ = differences(there, self._key)
        if differ:
            what = f"an unfinished run to {self._writes} was of other work: {differ}"
            raise WrongUse(what, RESTART)

    def phases(self) -> list[int]:
        """The phases that this process has saved."""
        if not self._same_folder():
            return []
        try:
            phases = [paused.phase_of(name) for name in os.listdir(self.folder)]  # noqa: PTH208 - names are wanted
        except OSError:
            return []
        return sorted(of[1] for of in phases if of is not None and of[0] == self._process)

    def load(self, phase: int) -> tuple[dict[str, Any], State] | None:
        """The record and the tensors of ``phase``, None where they are not what was saved."""
        name = paused.phase_file(self._process, phase)
        try:
            there = read_sealed(self.folder / name, self._belongs(name))
            for number, (part, digest) in enumerate(there.record["parts"]):
                if part != paused.part_file(self._process, number) or not isinstance(digest, str):
                    raise Damaged(name)
        except (Damaged, KeyError, TypeError, ValueError):
            return None
        return there.record, there.state

    def save(self, phase: int, record: Mapping[str, Any], state: State, candidates: Candidates | None = None) -> None:
        """Replace what is saved of ``phase``; NDError where the disk does not take it, and the old state stays.

        ``candidates``: of which those are written that are not on the disk yet. ``record["status"]``, which may be left
        out: how far the run is (ndissect.store.paused.status_record).
        """
        self._demand_folder()
        if self._process == 0 and not os.path.lexists(self.folder / paused.RUN):
            self._write_run()
        fresh = [batch for batch in candidates.batches if not batch.saved] if candidates else []
        files = list(self._candidate_files)
        if fresh:
            name = paused.part_file(self._process, len(files))
            images, tensors = to_tensors(fresh)
            files.append([name, self._store(name, tensors, images)])
        self._store(paused.phase_file(self._process, phase), state, {**record, "parts": files})
        self._candidate_files = files
        for batch in fresh:
            batch.saved = True
        if self._process == 0 and "status" in record:
            self._write_status(paused.status_record(**record["status"], updated=time.time()))

    def candidates(
        self, record: Mapping[str, Any], geometries: Sequence[LayerGeometry], images: range
    ) -> Iterator[CandidateBatch]:
        """What may fire in ``geometries``, of some of ``images``, as it was saved with ``record``.

        NDError where it is not what was saved.
        """
        try:
            for batches in self.candidate_files(record, geometries, images):
                yield from batches
        except Damaged as e:
            raise NDError(f"what was saved in {self.folder} cannot be read: {e} is damaged", RESTART) from e

    def candidate_files(
        self, record: Mapping[str, Any], geometries: Sequence[LayerGeometry], images: range
    ) -> Iterator[list[CandidateBatch]]:
        """The same, a file at a time; Damaged where one is not what was saved."""
        self._candidate_files = [list(file) for file in record["parts"]]
        seen: set[int] = set()
        for name, digest in self._candidate_files:
            there = read_sealed(self.folder / name, self._belongs(name))
            if there.digest != digest:
                raise Damaged(name)
            try:
                batches = to_batches(there.record, there.state)
                for batch in batches:
                    check_batch(batch, geometries, images)
            except UNREADABLE as e:
                raise Damaged(name) from e
            here = [image for batch in batches for image in batch.images]
            if len(seen.union(here)) < len(seen) + len(here):  # counted twice
                raise Damaged(name)
            seen.update(here)
            yield batches

    @property
    def labels_file(self) -> Path:
        """Where labels that are made of the images are kept (ndissect.engine.data.made_labels)."""
        return self.folder / paused.LABELS

    def whole(self) -> bool:
        """Whether this is a shard that has ended, all of which is what was saved."""
        there = self.load(0)
        if there is None or "complete" not in there[0]:
            return False
        files = there[0]["parts"]
        try:
            return all(read_sealed(self.folder / n, self._belongs(n)).digest == digest for n, digest in files)
        except Damaged:
            return False

    def clear(self) -> None:
        """Throw away everything that was saved; OSError where that fails."""
        paused.clear(self.folder, but_lock=True)
        self._candidate_files = []

    def remove(self) -> None:
        """The run is over: nothing of it need be saved any more."""
        with contextlib.suppress(OSError):  # what is left over says itself that it is not wanted: run.json goes first
            paused.clear(self.folder)

    def _belongs(self, name: str) -> str:
        """What the file ``name`` of this run is part of."""
        return f"{self._bound_to} {name}"

    def _store(self, name: str, state: State, record: Mapping[str, Any]) -> str:
        with _saving(self.folder / name) as part:
            return write_sealed(part, state, record, self._belongs(name))

    def _mark(self) -> None:
        """Mark the folder as a run's, in its lock."""
        if self._lock is not None and os.fstat(self._lock).st_size == 0:
            os.pwrite(self._lock, paused.MARK, 0)

    def _demand_folder(self) -> None:
        """NDError where another folder, or a link, has taken the place of the one that this run began with."""
        if self._began_in is None:  # not the first of several processes, which looks when it takes hold of the folder
            paused.demand_ours(self.folder)
            with contextlib.suppress(OSError):
                self._began_in = self.folder.lstat()
        if not self._same_folder():
            raise NDError(f"cannot save to {self.folder}: that folder has gone", "-o names another output")

    def _same_folder(self) -> bool:
        """Whether the folder is the one that this run began with, as far as it has begun."""
        try:
            return self._began_in is None or os.path.samestat(self.folder.lstat(), self._began_in)
        except OSError:
            return False

    def _take_over(self) -> None:
        """Say that this process goes on with what was saved, and by which command."""
        if os.path.lexists(self.folder / paused.RUN):
            # Where that fails, nd status shows what was typed before, and nothing is lost.
            with contextlib.suppress(NDError):
                self._write_run()
            self._tell("")

    def _write_run(self) -> None:
        with _saving(self.folder / paused.RUN) as part:
            self._mark()
            part.write_bytes(paused.run_record(self._target, self._key, self._command))

    def _tell(self, reason: str) -> None:
        """Say in the status that this process goes on with the run, or why it ended."""
        record = paused.status_with(self.folder, reason)
        if record is not None and self._process == 0:
            self._write_status(record)

    def _write_status(self, record: bytes) -> None:
        # Where that fails, nd status shows an older one, and nothing is lost.
        with contextlib.suppress(NDError), _saving(self.folder / paused.STATUS) as part:
            part.write_bytes(record)

    def _tidy(self) -> None:
        """Remove the folder again where nothing was saved."""
        with contextlib.suppress(OSError):
            if {path.name for path in self.folder.iterdir()} <= {paused.LOCK, paused.LABELS}:
                self.remove()


def read_key(folder: Path) -> dict[str, Any] | None:
    """What the run saved in ``folder`` is of; None where there is none, NDError where that cannot be read."""
    try:
        return paused.read_key(folder)
    except ValueError as e:
        raise NDError(f"what was saved in {folder} cannot be read", RESTART) from e


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words what differs: ``layers: layer3 then, layer4 now``; "" where nothing does."""
    said = []
    for name in dict.fromkeys([*saved, *now]):
        a, b = saved.get(name), now.get(name)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            inner = [n for n in dict.fromkeys([*a, *b]) if a.get(n) != b.get(n)]
            said += [f"{name} {n}: {_short(a.get(n))} then, {_short(b.get(n))} now" for n in inner]
        else:
            said.append(f"{name}: {_short(a)} then, {_short(b)} now")
    return "; ".join(said)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[Path]:
    """A path whose file replaces ``path``; NDError where the disk does not take it."""
    try:
        with atomic(path) as part:
            yield part
    except NDError as e:
        cause = e.__cause__ if isinstance(e.__cause__, OSError) else None
        why = cause.strerror if cause else e.message
        if cause and cause.errno == errno.ENOSPC:
            why = "the disk is full"
        hint = remedy(cause or OSError(), "choose another output with -o")
        raise NDError(f"cannot save to {path.parent}: {why}", hint) from e
