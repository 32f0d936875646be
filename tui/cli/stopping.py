"""Ctrl-C and the signals of batch systems: what was counted is saved first."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


class Signalled(KeyboardInterrupt):
    """The run was told to end, by this signal."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__("Ctrl-C" if self.signal == signal.SIGINT else self.signal.name)


class Stopper:
    """Turns Ctrl-C, SIGTERM, and SIGHUP of a lost connection into Signalled; one that is ignored (nohup) stays so.

    Within :meth:`saving_first` the first of them waits until :meth:`stop` is called, between two batches, when what was
    counted can be saved; a second Ctrl-C ends the run at once. Other signals may come twice without meaning more: a
    batch system sends them to all processes of a job, and torchrun passes them on to its own.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._asked: Signalled | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for the block."""
        default = {signal.SIG_DFL, signal.default_int_handler}
        taken = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        taken = {s: before for s, before in taken.items() if before in default}
        for s in taken:
            signal.signal(s, self._take)
        try:
            yield
        finally:
            for s, before in taken.items():
                signal.signal(s, before)

    @contextlib.contextmanager
    def saving_first(self) -> Iterator[None]:
        """A signal in the block waits for :meth:`stop`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        if self._asked is not None:  # it came after the last batch
            raise self._asked

    def stop(self) -> BaseException | None:
        """What to raise where the run was told to end, once what it counted is saved."""
        return self._asked

    def _take(self, number: int, frame: object) -> None:
        if not self._waiting or (self._asked is not None and number == signal.SIGINT):
            raise Signalled(number)
        if self._asked is not None:
            return
        self._asked = Signalled(number)
        if number == signal.SIGINT:
            # Not by way of sys.stderr, which the signal may have met in the middle of a line.
            with contextlib.suppress(OSError):
                os.write(2, b"\rnote: saving what was counted; Ctrl-C again stops at once\n")
