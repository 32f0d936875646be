"""Progress of a run: a bar with rate, ETA and memory on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ndissect.engine.progress import Phase, Progress
from ndissect.store.files import human_bytes
from ndissect.tui.cli.output import tell

if TYPE_CHECKING:
    from ndissect.store.live import RunWriter

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


class LiveProgress(Progress):
    """Tells ``shown`` everything, and other processes, by way of ``run``, how far the run is and when it will end.

    What an image takes is known of the phases that have run: of the others, those through the network take as long
    an image as the last of their kind did. After the engine's phases comes one more, ``writing``.
    """

    def __init__(self, shown: Progress, run: RunWriter) -> None:
        self._shown, self._run = shown, run
        self._phases: Sequence[Phase] = ()
        self._step, self._total, self._done = 0, 0, 0
        self._since = time.monotonic()
        self._forward_pace: float | None = None  # seconds an image

    def plan(self, phases: Sequence[Phase]) -> None:
        self._phases = [*phases, Phase("writing")]
        self._shown.plan(phases)

    def start(self, phase: str, total: int) -> None:
        self._shown.start(phase, total)
        self._begin(total)

    def busy(self, phase: str) -> None:
        self._shown.busy(phase)
        self._begin(0)

    def _begin(self, total: int) -> None:
        self._step, self._total, self._done = self._step + 1, total, 0
        self._since = time.monotonic()
        self._update()

    def advance(self, images: int) -> None:
        self._shown.advance(images)
        self._done += images
        self._update()

    def note(self, text: str) -> None:
        self._shown.note(text)

    def end(self) -> None:
        self._shown.end()

    def _update(self) -> None:
        now, ahead = self._phases[self._step - 1], self._phases[self._step :]
        pace = max(time.monotonic() - self._since, 1e-6) / self._done if self._done else None
        if now.forward and pace:
            self._forward_pace = pace
        self._run.update(
            now.name,
            self._done,
            self._total,
            rate=1 / pace if pace else 0.0,
            eta=self._left(pace, now, sum(p.total for p in ahead if p.forward)),
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


@contextlib.contextmanager
def show_progress() -> Iterator[PlainProgress]:
    """The progress for where the program runs, taken down when the block ends."""
    animated = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    progress = BarProgress() if animated else PlainProgress()
    try:
        yield progress
    finally:
        progress.end()
