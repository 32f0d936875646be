"""Where a run begins: at the beginning, or where an earlier start of it was stopped."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import Ranks
from ndissect.engine.machine.state import State
from ndissect.engine.run.saved_run import RESTART, SavedRun
from ndissect.store.errors import NDError, first_line

# What taking up tensors that are not of this run may raise.
_MISFITS = (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class Start:
    """Where a run begins: the phase, -1 for the beginning, with what was saved of it.

    ``done``: images of the phase; ``batch``: images a forward pass; ``full``, ``labelled``: as in
    ndissect.engine.measures.candidates; ``threshold_budget``: bytes for the thresholds, None where that is still to be
    settled; ``choices``: what is counted beside the counts (ndissect.engine.run.evidence_plan), None likewise;
    ``seconds``: by what was done, and ``elapsed`` altogether, before this process ``began`` (time.monotonic).
    """

    phase: int = -1
    record: dict[str, Any] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    done: int = 0
    batch: int = 0
    full: bool = False
    labelled: bool = True
    threshold_budget: int | None = None
    choices: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    began: float = field(default_factory=time.monotonic)


def find_start(saved: SavedRun | None, ranks: Ranks, progress: Progress, images: int) -> Start:
    """Where to begin: the last phase that all processes have reached and saved; ``images``: that the data have.

    What is damaged is thrown away, which is told, and the run begins anew. NDError where several processes would have
    to.
    """
    mine = saved.phases() if saved else []
    phase = min(max(phases, default=-1) for phases in ranks.gather(mine))
    if saved is None or phase < 0:
        return Start()
    there = saved.load(phase)
    start = None
    if there is not None:
        record, state = there
        start = _read(phase, record, state, images)
    if start is None and ranks.size > 1:
        raise NDError(f"what was saved in {saved.folder} is damaged and cannot be read", "--restart throws it away")
    if start is None:
        progress.note("what was saved before is damaged and cannot be read: starting from the beginning")
        saved.clear()
        return Start()
    return start


def _read(phase: int, record: dict[str, Any], state: State, images: int) -> Start | None:
    """The start that ``record`` describes, None where no run can have written it."""
    try:
        choices = {name: _of(record["choices"][name], bool) for name in ("intervals", "the null", "AUPRC")}
        notes = [_of(note, str) for note in _of(record["choices"]["notes"], list)]
        return Start(
            phase,
            record,
            state,
            done=_of(record["done"], int, images),
            batch=max(_of(record["batch"], int), 1),
            full=_of(record["full"], bool),
            labelled=_of(record["labelled"], bool),
            threshold_budget=_of(record["thresholds"], int),
            choices=choices | {"notes": notes},
            seconds={_of(what, str): _of(s, float) for what, s in record["seconds"].items()},
            elapsed=_of(record["status"]["elapsed"], float),
        )
    except _MISFITS:
        return None


def _of(value: Any, kind: type, most: float = math.inf) -> Any:
    if type(value) is not kind or (isinstance(value, (int, float)) and not 0 <= value <= most):
        raise ValueError(value)
    return value


@contextlib.contextmanager
def taking_up(saved: SavedRun | None) -> Iterator[None]:
    """Take up in the block what was saved: NDError where it is not of this run."""
    try:
        yield
    except _MISFITS as e:
        if saved is None or out_of_memory(e):
            raise
        raise NDError(f"what was saved in {saved.folder} is not of this run: {first_line(e)[:160]}", RESTART) from e
