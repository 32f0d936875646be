"""Predictions so far, on the disk, so that the same command goes on after a kill.

A hidden file beside the store holds them (ndissect.engine.machine.sealed). It tells whether it is what was written, and
of which work: predictions of other images, units or networks are never taken for these. It goes when the work is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.sealed import Damaged, Sealed, read_sealed, write_sealed
from ndissect.engine.machine.state import State
from ndissect.store.errors import NDError
from ndissect.store.files import atomic, hidden

#: What is run for an ablation: nothing; what follows the layer; the whole network.
How = Literal["linear head", "tail", "network"]
HOW = get_args(How)


class SavedPredictions:
    """A hidden file beside ``target``, written every ``every`` seconds.

    ``key``: JSON values that say what the predictions are of; each has a file of its own.
    """

    def __init__(self, target: Path, key: Mapping[str, Any], progress: Progress, every: float = 30.0) -> None:
        self._belongs = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = hidden(target, f"{self._belongs[:12]}.ablation")
        self._progress, self._every = progress, every
        self._last = time.monotonic()
        self._told = False

    def load(self) -> Sealed | None:
        """What was saved of this very work; None where nothing was, or it is damaged or of other work."""
        try:
            return read_sealed(self.path, self._belongs)
        except Damaged:
            return None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: State, record: Mapping[str, Any]) -> None:
        """Replace what is saved; a note where the disk does not take it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(self.path) as part:
                write_sealed(part, state, record, self._belongs)
        except (NDError, OSError) as e:
            if not self._told:
                why = e.message if isinstance(e, NDError) else f"cannot write to {self.path.parent}: {e.strerror}"
                self._progress.note(f"{why}; the run goes on, but a kill would lose what it has predicted")
            self._told = True
        self._last = time.monotonic()

    @property
    def there(self) -> bool:
        """Whether something is saved."""
        return self.path.exists()

    def remove(self) -> None:
        """The work is done."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class PredictionsSoFar:
    """What is predicted of N images without each of E sets of units, by the order in which the images are looked at.

    -1, and NaN for scores, where nothing is yet. ``done``: images that are over, those that cannot be read as well.
    """

    def __init__(self, images: int, sets: int, classes: int, saved: SavedPredictions | None) -> None:
        self.predicted, self.score = np.full((images, sets), -1, np.int32), np.full((images, sets), np.nan, np.float32)
        self.truth, self.plain = np.full(images, -1, np.int32), np.full(images, -1, np.int32)
        self.plain_score = np.full(images, np.nan, np.float32)
        self.done = 0
        self._classes, self._saved = classes, saved

    def of(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Classes and scores of some images, (n, E) each."""
        return torch.from_numpy(self.predicted[rows]), torch.from_numpy(self.score[rows])

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._saved is not None and self._saved.due

    def save(self, how: How, reason: str, *, now: bool) -> None:
        """Save all of it if it is time, or ``now``."""
        if self._saved is not None and (now or self._saved.due):
            begun = np.flatnonzero(self.plain >= 0)
            reached = max(self.done, int(begun[-1]) + 1 if len(begun) else 0)
            state = {name: torch.from_numpy(array[:reached]) for name, array in self._arrays().items()}
            self._saved.save(state, {"done": self.done, "how": how, "reason": reason})

    def keep(self, how: How, reason: str) -> None:
        """Save the end of what has been saved before, so that nothing is lost where it cannot be written to its store.

        What took so little time that nothing was saved is made again.
        """
        if self._saved is not None and self._saved.there:
            self.save(how, reason, now=True)

    def restore(self, how: How, reason: str) -> tuple[How, str]:
        """Take over what was saved, if it is of this work: ``how`` and ``reason`` as they were saved, else as given."""
        there = self._saved.load() if self._saved is not None else None
        if there is None or not self._fits(there):
            return how, reason
        for name, array in self._arrays().items():
            part = there.state[name].numpy()
            array[: len(part)] = part
        self.done = there.record["done"]
        return cast(How, there.record["how"]), there.record["reason"]

    def _fits(self, there: Sealed) -> bool:
        """Whether what was saved can be what this work predicts."""
        arrays, done, state = self._arrays(), there.record.get("done"), there.state
        if set(state) != set(arrays) or not isinstance(done, int) or there.record.get("how") not in HOW:
            return False
        reached = len(state["plain"])
        return (
            0 <= done <= reached <= len(self.plain)
            and isinstance(there.record.get("reason"), str)
            and all(state[name].numpy().dtype == a.dtype for name, a in arrays.items())
            and all(state[name].shape == (reached, *a.shape[1:]) for name, a in arrays.items())
            and all(
                bool(((state[name] >= -1) & (state[name] < self._classes)).all())
                for name in ("predicted", "truth", "plain")
            )
        )

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "predicted": self.predicted,
            "score": self.score,
            "truth": self.truth,
            "plain": self.plain,
            "plain_score": self.plain_score,
        }
