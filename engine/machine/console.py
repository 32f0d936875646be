"""Whoever started a run, as the engine sees it: what it is told and asked, and how it ends the run."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ndissect.engine.machine.progress import Progress
from ndissect.store.errors import NDError, NotReplaced


class Stopped(NDError):
    """A run ended from outside: by Ctrl-C, or by a signal as batch systems send it when the time is up."""

    def __init__(self, by: signal.Signals, left: str, hint: str) -> None:
        how = "" if by == signal.SIGINT else f" by {by.name}"
        super().__init__(f"stopped{how}; {left}", hint)
        self.exit_code = 128 + by


class Console:
    """A caller that hears nothing, lets no file be replaced and never stops a run. Sub-class it to do otherwise."""

    @property
    def command(self) -> str:
        """How the run was started, for its records; empty where no command line started it."""
        return ""

    @property
    def goes_on(self) -> Sequence[str]:
        """The words of the command that goes on with the run; none where there is no such command."""
        return ()

    def tell(self, text: str) -> None:
        """A line about the run."""

    def note(self, text: str) -> None:
        """A line about something that the user should know."""
        self.tell(f"note: {text}")

    def progress(self) -> AbstractContextManager[Progress]:
        """What shows how far a piece of work is, for as long as the block takes."""
        return nullcontext(Progress())

    def confirm_replace(self, path: Path) -> None:
        """Return where the file ``path`` is not there or may be replaced; NotReplaced else."""
        if path.exists():
            raise NotReplaced(f"{path} exists", "allow to replace it, or name another output")

    def listening(self) -> AbstractContextManager[None]:
        """Take the signals that end a run, for the block."""
        return nullcontext()

    def saving_first(self) -> AbstractContextManager[None]:
        """A signal that comes in the block waits until :meth:`stop` is asked, when what was counted can be saved."""
        return nullcontext()

    def stop(self) -> BaseException | None:
        """What to raise where the run was told to end, once what it counted is saved."""
        return None

    def stopped(self, interrupt: KeyboardInterrupt, left: str, hint: str) -> BaseException:
        """What to raise for ``interrupt``; ``left``: what there is of the run; ``hint``: what to do next."""
        del left, hint
        return interrupt
