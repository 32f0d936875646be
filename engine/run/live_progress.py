"""How far a run is and when it will end, told to whoever watches it, here and in other processes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ndissect.engine.machine.progress import Phase, Progress
from ndissect.store.live import RunWriter


class LiveProgress(Progress):
    """Tells ``shown`` everything, and other processes, by way of ``run``, how far the run is and when it will end.

    What an image takes is known of the phases that have run: of the others, those through the network take as long
    an image as the last of their kind did. After the engine's phases comes one more, ``writing``.
    """

    def __init__(self, shown: Progress, run: RunWriter) -> None:
        self._shown, self._run = shown, run
        self._phases: Sequence[Phase] = ()
        self._step, self._total, self._done, self._before = 0, 0, 0, 0
        self._since = time.monotonic()
        self._forward_pace: float | None = None  # seconds an image

    def plan(self, phases: Sequence[Phase]) -> None:
        self._phases = [*phases, Phase("writing")]
        self._shown.plan(phases)

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self._shown.start(phase, total, done)
        self._begin(total, done)

    def busy(self, phase: str) -> None:
        self._shown.busy(phase)
        self._begin(0)

    def _begin(self, total: int, done: int = 0) -> None:
        self._step, self._total, self._done, self._before = self._step + 1, total, done, done
        self._since = time.monotonic()
        self._update()

    def advance(self, images: int) -> None:
        self._done += images
        self._update()
        self._shown.advance(images)

    def note(self, text: str) -> None:
        self._shown.note(text)

    def end(self) -> None:
        self._shown.end()

    def _update(self) -> None:
        now, ahead = self._phases[min(self._step, len(self._phases)) - 1], self._phases[self._step :]
        new = self._done - self._before
        pace = max(time.monotonic() - self._since, 1e-6) / new if new else None
        if now.forward and pace:
            self._forward_pace = pace
        left = self._left(pace, now, sum(p.total for p in ahead if p.forward))
        self._shown.left = left
        self._run.update(
            now.name,
            self._done,
            self._total,
            rate=1 / pace if pace else 0.0,
            eta=left,
            step=self._step,
            steps=len(self._phases),
        )

    def _left(self, pace: float | None, now: Phase, ahead: int) -> float | None:
        """Seconds to the end of the run, ``ahead`` images through the network after this phase; None while unknown."""
        pace = pace or (self._forward_pace if now.forward else None)
        if (pace is None and self._done < self._total) or (self._forward_pace is None and ahead):
            return None
        here = (self._total - self._done) * (pace or 0.0)
        return here + ahead * (self._forward_pace or 0.0) + self._run.write_seconds
