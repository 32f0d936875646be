"""One process at a time: two that add to one partial file would spoil it.

filelock is no substitute: it gives no descriptor for the owner's mark, and where a file system has no locks it leaves
a marker file, which a killed process on another machine never takes away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ndissect.store.errors import NDError

_WAIT = "Wait until it ends, then try again"
# Nothing is cut to length, nor is a link followed, nor a pipe waited for: the name may be taken by another file.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def alone(lock: Path, busy: str) -> Iterator[int]:
    """Hold the lock file ``lock``, and give its open descriptor; the lock ends with the block or the process.

    The content of the file stays as it is. NDError that says ``busy`` where another process holds the lock, and NDError
    where ``lock`` is a link or no file. On a file system without locks the block runs without one.
    """
    descriptor = _open(lock)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_lock(lock)
        _lock(descriptor, busy)
        if os.fstat(descriptor).st_nlink == 0:  # its last holder has removed it meanwhile: it guards nothing
            raise NDError(busy, _WAIT)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone_in(folder: Path, busy: str) -> Iterator[None]:
    """Hold ``folder`` itself, which may be renamed meanwhile; NDError that says ``busy`` as in :func:`alone`.

    OSError where it is missing, a link or no folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock(descriptor, busy)
        yield
    finally:
        os.close(descriptor)


def _open(lock: Path) -> int:
    try:
        return os.open(lock, _FLAGS, 0o666)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise _no_lock(lock) from e
        raise


def _no_lock(lock: Path) -> NDError:
    return NDError(f"{lock} is a link, or no file: a lock is neither", "Move it away, then try again")


def _lock(descriptor: int, busy: str) -> None:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NDError(busy, _WAIT) from None
    except OSError:
        return  # a network file system without locks: better to go on without one than not at all
