"""One process at a time: two that add to one partial file would spoil it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ndissect.store.errors import NDError

_WAIT = "Wait until it ends, then try again."


@contextlib.contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """Hold the file ``lock``, which a kill releases; NDError that says ``busy`` where another process holds it."""
    with lock.open("w") as held:
        _lock(held.fileno(), busy)
        if os.fstat(held.fileno()).st_nlink == 0:  # its last holder has removed it meanwhile: it guards nothing
            raise NDError(busy, _WAIT)
        yield


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
