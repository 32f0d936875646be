"""Progress of a run: a bar with rate and ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from ndissect.engine.progress import Progress
from ndissect.tui.cli.output import tell

# Seconds between lines where no terminal shows a bar.
_QUIET_SECONDS = 30.0


class PlainProgress(Progress):
    """One line every half minute, for logs."""

    def __init__(self) -> None:
        self._phase, self._total, self._done = "", 0, 0
        self._since = self._spoken = time.monotonic()

    def start(self, phase: str, total: int) -> None:
        self._phase, self._total, self._done = phase, total, 0
        self._since = self._spoken = time.monotonic()

    def advance(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now - self._spoken >= _QUIET_SECONDS:
            self._spoken = now
            rate = self._done / (now - self._since)
            left = (self._total - self._done) / rate
            tell(f"{self._phase}: {self._done}/{self._total} images, {rate:.0f} images/s, {left:.0f} s left")

    def note(self, text: str) -> None:
        tell(f"note: {text}")

    def step(self, phase: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows a phase of its own."""
        done_before = 0

        def report(done: int, total: int) -> None:
            nonlocal done_before
            if done_before == 0:
                self.start(phase, total)
            self.advance(done - done_before)
            done_before = done

        return report


class BarProgress(PlainProgress):
    """A bar on the terminal's standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._bars.start()

    def start(self, phase: str, total: int) -> None:
        super().start(phase, total)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(phase, total=total, rate="")

    def advance(self, images: int) -> None:
        self._done += images
        if self._task is not None:
            rate = self._done / max(time.monotonic() - self._since, 1e-6)
            self._bars.update(self._task, advance=images, rate=f"{rate:.0f} images/s")

    def end(self) -> None:
        self._bars.stop()


@contextlib.contextmanager
def show_progress() -> Iterator[PlainProgress]:
    """The progress for where the program runs, taken down when the block ends."""
    progress = BarProgress() if sys.stderr.isatty() else PlainProgress()
    try:
        yield progress
    finally:
        progress.end()
