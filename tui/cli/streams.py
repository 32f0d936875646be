"""The standard streams as a run needs them: always open, never the end of it, and nothing on them that obeys a name.

A terminal may be gone (a lost connection, a closed window), a pipe's reader may have seen enough, a service may start a
program without any of the three: none of this is a reason to lose what a run has counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import Any, TextIO, cast

from ndissect.store.text import clean_lines

# What writing to a terminal that was hung up gives.
_HUNG_UP = (errno.EIO, errno.ENXIO)


class Lasting:
    """The text stream ``stream``, which goes on into nothing when nobody reads it any more.

    ``told``: it is for people (the standard error), and whatever keeps it from being written is no failure. Of the
    standard output that is only a reader who has gone; a full disk, say, is an OSError.
    """

    def __init__(self, stream: TextIO, *, told: bool) -> None:
        self._stream, self._told = stream, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``; the number of its characters."""
        try:
            return self._stream.write(text)
        except OSError as e:
            self._go_on(e)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except OSError as e:
            self._go_on(e)

    def _go_on(self, error: OSError) -> None:
        """Put nothing in the stream's place, where what is still buffered goes too; OSError where that is a loss."""
        number = self._stream.fileno()
        gone = isinstance(error, BrokenPipeError) or (error.errno in _HUNG_UP and _is_device(number))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)
        if not (self._told or gone):
            raise error


class Clean:
    """``drawn`` for whatever is printed: of texts only line ends, tabs and carriage returns are obeyed.

    Rich, whose texts are cleaned and whose own escape sequences are meant, draws on ``drawn``.
    """

    def __init__(self, drawn: TextIO) -> None:
        self.drawn = drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.drawn, name)

    def write(self, text: str) -> int:
        """Write ``text`` cleaned; the number of its characters."""
        self.drawn.write(clean_lines(text))
        return len(text)


def drawn_on(stream: TextIO) -> TextIO:
    """``stream`` for what Rich draws."""
    return stream.drawn if isinstance(stream, Clean) else stream


def prepare() -> None:
    """Open what is closed of the standard streams on nothing, and put Clean ones in place of the two for printing.

    A file that was opened as number 1 or 2 would be printed into.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:  # it never is: 0, 1 and 2 are taken in turn
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # a letter that the terminal's encoding lacks is written as an escape
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Clean(cast(TextIO, Lasting(stream, told=name == "stderr"))))


def finish() -> None:
    """Hand on what was printed, before the interpreter would complain that it cannot."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def _is_device(number: int) -> bool:
    return stat.S_ISCHR(os.fstat(number).st_mode)
