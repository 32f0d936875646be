"""Saving a run now and then, and ending it where it is asked to stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from ndissect.engine.machine.state import State
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.engine.run.gatherer import Gatherer
from ndissect.engine.run.resume import Start
from ndissect.engine.run.saved_run import SavedRun
from ndissect.store.errors import NDError


class Saver:
    """Saves a run of so many ``images`` into ``saved``, None for a run that is not saved.

    ``choices``: what is counted beside the counts (ndissect.engine.run.evidence_plan); ``start``: where the run began.
    """

    def __init__(
        self,
        saved: SavedRun | None,
        forward_pass: ForwardPass,
        gatherer: Gatherer,
        *,
        choices: dict[str, Any],
        start: Start,
        images: int,
    ) -> None:
        self.saved = saved
        self._pass, self._gatherer = forward_pass, gatherer
        self._choices, self._start, self._images = choices, start, images
        self._last = time.monotonic()

    def save(
        self, phase: int, done: int, state: Callable[[], State], *, counted: int | None = None, now: bool = False
    ) -> None:
        """Save ``state``, and what may fire, if it is time or ``now``; raise what the settings' ``stop`` gives.

        ``done``: images of the phase; ``counted``: images that were counted, if the phase is the tally. NDError where
        the disk will not take the store either.
        """
        settings = self._pass.settings
        stop = settings.stop()
        due = time.monotonic() - self._last >= settings.save_every
        if self.saved is not None and (due or now or stop):
            record = self.record(phase, done, counted)
            try:
                with self._pass.clock.during("save"):
                    self.saved.save(phase, record, state(), self._gatherer.candidates)
            except NDError as e:
                self._not_saved(self.saved, e)
            self._last = time.monotonic()
        if stop is not None:
            raise stop

    def record(self, phase: int, done: int, counted: int | None = None) -> dict[str, Any]:
        """What is saved beside a state (ndissect.engine.run.resume reads it)."""
        gatherer = self._gatherer
        return {
            "done": done,
            "batch": self._pass.forward.batch.size,
            "full": gatherer.candidates.full,
            "labelled": gatherer.candidates.labelled,
            "thresholds": gatherer.threshold_budget,
            "choices": self._choices,
            "seconds": self._pass.clock.seconds(),
            "status": {
                "phase": "thresholds" if counted is None else "tally",
                "step": phase + 1,
                "steps": gatherer.passes + 1,
                "done": done if counted is None else counted,
                "total": self._images,
                "elapsed": self._start.elapsed + time.monotonic() - self._start.began,
            },
        }

    def _not_saved(self, saved: SavedRun, error: NDError) -> None:
        if shutil.disk_usage(saved.folder.parent).free < saved.room:
            if saved.phases():
                error.hint += "; the same command goes on from what was saved before"
            raise error  # nor will the disk take the store: what was saved before is worth more than going on
        self._pass.progress.note(f"{error.message}; the run goes on, but a kill would lose what it has counted since")
