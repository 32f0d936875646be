"""Where a run's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

import torch

_phase: ContextVar[str] = ContextVar("nd-phase", default="")


def phase() -> str:
    """What is being timed just now by this thread, the innermost if there are several; empty if nothing is."""
    return _phase.get()


class Clock:
    """Seconds by what was done: ``seconds()`` after any number of ``with clock.during(what, device)``.

    Work on a GPU is timed there, by events, so that nothing waits for the sake of timing; the time of one kind may
    then pass while another is prepared. ``before``: seconds by what was done before the run was stopped.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self._host: dict[str, float] = dict(before or {})
        self._gpu: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def during(self, what: str, device: torch.device | None = None) -> Iterator[None]:
        """Time the block."""
        within = _phase.set(what)
        try:
            with self._timed(what, device):
                yield
        finally:
            _phase.reset(within)

    @contextlib.contextmanager
    def _timed(self, what: str, device: torch.device | None) -> Iterator[None]:
        if device is not None and device.type == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(device)
            began.record(stream)
            try:
                yield
            finally:
                ended.record(stream)
                self._gpu.append((what, began, ended))
                self._settle(4096)
            return
        since = time.perf_counter()
        try:
            yield
        finally:
            self._host[what] = self._host.get(what, 0.0) + time.perf_counter() - since

    def _settle(self, most: int) -> None:
        """Add up the events that are more than ``most``."""
        while len(self._gpu) > most:
            what, began, ended = self._gpu.pop(0)
            ended.synchronize()
            self._host[what] = self._host.get(what, 0.0) + began.elapsed_time(ended) / 1000

    def seconds(self) -> dict[str, float]:
        """What was timed so far."""
        self._settle(0)
        return {what: round(s, 3) for what, s in self._host.items()}
