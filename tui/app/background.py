"""A command of nd that runs beside the terminal UI, as a process of its own that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ndissect.store.errors import NDError
from ndissect.store.files import cache_folder, own_folder
from ndissect.store.names import safe_name
from ndissect.store.text import clean_text

# -P: a file in the current folder that is called like a library is not taken for it.
_ND = (sys.executable, "-P", "-m", "ndissect.tui.cli")
# What is looked at of the end of a log.
_TAIL = 1 << 14
# Lines of an error that does not come in nd's own two lines.
_LAST = 2


@dataclass(frozen=True)
class BackgroundRun:
    """``nd`` with ``words``, which writes what it says to ``log``. ``began``: on the monotonic clock."""

    words: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes]
    began: float

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs; below 0 the signal that ended it."""
        return self.process.poll()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    @property
    def last_line(self) -> str:
        """The last that it said, "" for nothing yet."""
        return next(iter(self._lines()[-1:]), "")

    @property
    def error(self) -> tuple[str, str]:
        """Why it failed and what to do, in the words of its last error, else in its last lines."""
        lines = self._lines()
        said = next((i for i in range(len(lines) - 1, -1, -1) if lines[i].startswith("nd: ")), None)
        if said is not None:
            return lines[said].removeprefix("nd: "), " ".join(line.strip() for line in lines[said + 1 :][:1])
        code = self.code
        ended = f"it was ended by signal {-code}" if code is not None and code < 0 else f"its exit code is {code}"
        return ended, " ".join(line.strip() for line in lines[-_LAST:])

    def _lines(self) -> list[str]:
        """The last lines of the log that hold anything."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                text = file.read(_TAIL).decode("utf-8", "replace")
        except OSError:  # somebody cleared the cache
            return []
        return [clean_text(line) for line in text.splitlines() if line.strip()]


def start(words: Sequence[str], log_name: str) -> BackgroundRun:
    """Start ``nd`` with ``words``; its log is ``log_name`` in the cache folder, in place of an earlier one.

    The process has no terminal and a session of its own, so that it goes on when the terminal UI or its terminal ends.
    NDError where the log cannot be written or the process not be started.
    """
    folder = cache_folder() / "runs"
    log = folder / safe_name(log_name, ".log")
    try:
        own_folder(folder, 0o700)
        log.unlink(missing_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise NDError(f"the log {log} cannot be written: {e.strerror}", "set ND_CACHE to a folder that can") from e
    try:
        process = subprocess.Popen(
            [*_ND, *words],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as e:
        raise NDError(f"nd cannot be started: {e.strerror}", f"run it yourself: nd {' '.join(words)}") from e
    finally:
        os.close(handle)
    return BackgroundRun(tuple(words), log, process, time.monotonic())
