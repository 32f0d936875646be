"""Files that were given from outside, opened only where they are regular files and read only up to a limit.

A named pipe waits for ever, a device never ends, and a terminal takes what is typed: none of them is an input.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_PIECE = 1 << 20
# Without O_NONBLOCK a named pipe would be waited for; with O_NOCTTY a terminal is not taken over. Windows has neither.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


class NotRegular(OSError):
    """What was to be read is no regular file; ``strerror`` says what it is."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


class TooLarge(OSError):
    """A file of more bytes than are read; ``strerror`` says how many it has, or that it has more than the limit."""

    def __init__(self, path: Path, size: int, limit: int) -> None:
        has = f"it has {size:,} bytes" if size > limit else "it has no end"
        super().__init__(errno.EFBIG, f"{has}, at most {limit:,} are read", str(path))


def open_regular(path: Path) -> BufferedReader:
    """The regular file at ``path``, or where a link there leads, open for reading in binary.

    It returns at once, whatever is there. OSError where it cannot be opened, NotRegular where it is a pipe, a device or
    a socket.
    """
    return os.fdopen(_open(path), "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of the regular file at ``path``; errors as ``open_regular``, and TooLarge beyond ``limit`` bytes."""
    opened = _open(path)
    try:
        size = os.fstat(opened).st_size
        if size > limit:
            raise TooLarge(path, size, limit)
        pieces: list[bytes] = []
        have = 0
        # Until nothing comes: it may have grown, and the system's own files say that they are empty.
        while piece := os.read(opened, max(size + 1 - have, _PIECE if have > size else 1)):
            pieces.append(piece)
            have += len(piece)
            if have > limit:
                raise TooLarge(path, 0, limit)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        os.close(opened)


def _open(path: Path) -> int:
    """A descriptor of a regular file; errors as ``open_regular``."""
    try:
        opened = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO and (kind := other_kind(path)):  # a socket cannot even be opened
            raise NotRegular(path, kind) from None
        raise
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise NotRegular(path, _kind(mode))
    return opened


def other_kind(path: Path) -> str:
    """What is at ``path`` where it is no regular file, as in ``a named pipe``; empty for files and for nothing."""
    try:
        return _kind(os.stat(path).st_mode)  # noqa: PTH116 - Path.stat is no different
    except (OSError, ValueError):
        return ""


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    return next((name for test, name in _KINDS if test(mode)), "a special file")
