"""The terminal as a run sees it: what it tells and asks there, and how a signal ends it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ndissect.engine.machine.console import Console, Stopped
from ndissect.engine.machine.progress import Progress
from ndissect.tui.cli.output import confirm_replace, tell
from ndissect.tui.cli.progress import show_progress
from ndissect.tui.cli.stopping import Signalled, Stopper


def command_line() -> str:
    """The command line as it was typed, ready to be typed again."""
    return shlex.join(["nd", *sys.argv[1:]])


class TerminalConsole(Console):
    """The terminal, or what stands in its place, that ``nd`` was started from."""

    def __init__(self) -> None:
        self._stopper = Stopper()

    @property
    def command(self) -> str:
        """The command line as it was typed."""
        return command_line()

    @property
    def goes_on(self) -> Sequence[str]:
        """The words of the same command line, but for what throws away what was saved."""
        return ["nd", *(word for word in sys.argv[1:] if word != "--restart")]

    def tell(self, text: str) -> None:
        tell(text)

    def progress(self) -> AbstractContextManager[Progress]:
        return show_progress()

    def confirm_replace(self, path: Path) -> None:
        confirm_replace(path, force=False)

    def listening(self) -> AbstractContextManager[None]:
        self._stopper = Stopper()  # what one run of a series was told is none of the next one's business
        return self._stopper.listening()

    def saving_first(self) -> AbstractContextManager[None]:
        return self._stopper.saving_first()

    def stop(self) -> BaseException | None:
        return self._stopper.stop()

    def stopped(self, interrupt: KeyboardInterrupt, left: str, hint: str) -> BaseException:
        return Stopped(interrupt.signal, left, hint) if isinstance(interrupt, Signalled) else interrupt
