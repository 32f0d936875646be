"""Progress of a run: a bar with rate, ETA and memory on a terminal, a plain line now and then elsewhere.

Rich draws the bar; the lines are our own, because Rich draws nothing at all where there is no terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO, cast

from ndissect.engine.machine.progress import Progress
from ndissect.store.files import host_high_water, human_bytes
from ndissect.store.text import one_line
from ndissect.tui.cli.output import tell
from ndissect.tui.cli.streams import Clean, drawn_on

# Seconds between lines where no terminal shows a bar.
_QUIET_SECONDS = 30.0
# Seconds between two looks at the memory that a bar shows.
_LOOK_SECONDS = 0.5


def memory_used() -> str:
    """The most that this process has used, and held on a GPU: ``1.2 GB``, ``1.2 GB + 3.4 GB GPU``."""
    used = host_high_water()
    torch = sys.modules.get("torch")
    on_gpu = sum(torch.cuda.max_memory_reserved(i) for i in range(torch.cuda.device_count())) if torch else 0
    return human_bytes(used) + (f" + {human_bytes(on_gpu)} GPU" if on_gpu else "")


def precise_duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


def rate_text(rate: float, counts: str = "images") -> str:
    """``120 images/s``; of slow work, such as attacks, ``0.17 images/s``."""
    return f"{rate:.0f} {counts}/s" if rate >= 1 or not rate else f"{rate:.2g} {counts}/s"


class PlainProgress(Progress):
    """One line every half minute, for logs."""

    def __init__(self) -> None:
        self._phase, self._total, self._done, self._before = "", 0, 0, 0
        self._since = self._spoken = time.monotonic()

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self._phase, self._total, self._done, self._before = phase, total, done, done
        self.counts = "images"
        self._since = self._spoken = time.monotonic()

    @property
    def rate(self) -> float:
        """Images a second in this phase."""
        return (self._done - self._before) / max(time.monotonic() - self._since, 1e-6)

    def advance(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now - self._spoken >= _QUIET_SECONDS:
            self._spoken = now
            done = f"{self._phase}: {self._done}/{self._total} {self.counts}, {rate_text(self.rate, self.counts)}"
            tell(f"{done}, {self._ahead()}, {memory_used()}")

    def _ahead(self) -> str:
        if self.left is not None:
            return f"{precise_duration(self.left)} left"
        return f"{precise_duration((self._total - self._done) / max(self.rate, 1e-6))} left of this phase"

    def note(self, text: str) -> None:
        tell(f"note: {text}")


class BarProgress(PlainProgress):
    """A bar on the terminal's standard error: the phase, its images and rate, the time to the end, memory."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
        from rich.progress import Progress as Bars

        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[memory]}"),
            console=Console(file=drawn_on(sys.stderr)),
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._looked = 0.0
        self._bars.start()
        # While bars are drawn, Rich takes what is printed, to put it above them, and lets escape sequences through.
        sys.stdout, sys.stderr = cast(TextIO, Clean(sys.stdout)), cast(TextIO, Clean(sys.stderr))

    def start(self, phase: str, total: int, done: int = 0) -> None:
        super().start(phase, total, done)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(
            one_line(phase), total=total, completed=done, rate="", left="", memory=memory_used()
        )

    def advance(self, images: int) -> None:
        self._done += images
        if self._task is None:
            return
        self._bars.update(self._task, advance=images, rate=rate_text(self.rate, self.counts), left=self._ahead())
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._bars.update(self._task, memory=memory_used())

    def _ahead(self) -> str:
        return "" if self.left is None else super()._ahead()

    def note(self, text: str) -> None:
        self._bars.console.print(one_line(f"note: {text}"), markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        self._bars.stop()


@contextlib.contextmanager
def show_progress() -> Iterator[PlainProgress]:
    """The progress for where the program runs, taken down when the block ends."""
    animated = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    progress = BarProgress() if animated else PlainProgress()
    try:
        yield progress
    finally:
        progress.end()
