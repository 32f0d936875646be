"""Progress of a run: a bar with rate, ETA and memory on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ndissect.engine.progress import Progress
from ndissect.store.files import human_bytes
from ndissect.tui.cli.output import tell

# Seconds between lines where no terminal shows a bar.
_QUIET_SECONDS = 30.0
# Seconds between two looks at the memory that a bar shows.
_LOOK_SECONDS = 0.5


def memory_used() -> str:
    """The memory that this process uses, and what it holds on a GPU: ``1.2 GB``, ``1.2 GB + 3.4 GB GPU``."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    torch = sys.modules.get("torch")
    on_gpu = sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())) if torch else 0
    return human_bytes(used) + (f" + {human_bytes(on_gpu)} GPU" if on_gpu else "")


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
            done = f"{self._phase}: {self._done}/{self._total} images"
            tell(f"{done}, {rate:.0f} images/s, {left:.0f} s left, {memory_used()}")

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
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[memory]}"),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._looked = 0.0
        self._bars.start()

    def start(self, phase: str, total: int) -> None:
        super().start(phase, total)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(phase, total=total, rate="", memory=memory_used())

    def advance(self, images: int) -> None:
        self._done += images
        if self._task is None:
            return
        now = time.monotonic()
        rate = self._done / max(now - self._since, 1e-6)
        self._bars.update(self._task, advance=images, rate=f"{rate:.0f} images/s")
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._bars.update(self._task, memory=memory_used())

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
