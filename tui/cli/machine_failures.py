"""Failures of the machine and its limits, told as such: too little memory, no thread, no file, text that is none."""

from __future__ import annotations

import errno
import os
import sys

from ndissect.store.errors import NDError

# How libraries say that memory, or the room for addresses that `ulimit -v` leaves, did not suffice.
_NO_MEMORY = (
    "out of memory", "cannot allocate memory", "can't allocate memory", "bad_alloc", "bad alloc",
    "failed to map segment", "not enough memory", "unable to allocate", "could not create a primitive",
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRY = "import torch, torchvision; torch.zeros(8)"


def prepare() -> None:
    """Let numpy's linear algebra start no threads where addresses are limited: it ends the program over it."""
    if address_limit() is not None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def address_limit() -> int | None:
    """The bytes of addresses that this process may use (``ulimit -v``); None where that is not limited."""
    try:
        import resource
    except ImportError:  # not on every system
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def check_torch() -> None:
    """NDError where addresses are limited to so few that torch cannot be imported.

    It is tried in another process, because torch ends the one that it lacks memory in.
    """
    if address_limit() is None:
        return
    import subprocess  # here: it takes its time, and most runs do not need it

    done = subprocess.run([sys.executable, "-c", _TRY], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = done.stderr.decode("utf-8", "replace").lower()
    if done.returncode < 0 or any(words in said for words in (*_NO_MEMORY, "memoryerror", "start new thread")):
        raise _no_memory("torch cannot be loaded")


def explained(error: BaseException) -> NDError | None:
    """What ``error`` says of the machine or of what it was given; None where it tells of a defect instead."""
    text = str(error)
    if isinstance(error, RecursionError):
        return NDError("something is nested too deeply to be read", "look at the files that were given: one is damaged")
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return NDError(
            "no further thread can be started", "a limit on processes or memory is too small: see ulimit -u, ulimit -v"
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, (ImportError, RuntimeError, OSError)) and any(words in text.lower() for words in _NO_MEMORY)
    ):
        return _no_memory(f"memory does not suffice: {text}" if text else "memory does not suffice")
    if isinstance(error, UnicodeError):
        return NDError(f"a name or a text is not Unicode: {text}", "rename it, or correct the file that holds it")
    if isinstance(error, OSError) and error.strerror:
        what = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return NDError(f"{what}{error.strerror}", _os_hint(error))
    return None


def _no_memory(what: str) -> NDError:
    limit = address_limit()
    if limit is None:
        return NDError(what, "free some memory, or ask for less at once: a smaller --memory or --batch-size")
    return NDError(f"{what} within {limit / 1e9:.3g} GB of addresses", "raise the limit: ulimit -v unlimited")


def _os_hint(error: OSError) -> str:
    if error.errno in _FULL:
        return "free some space, or write to another place"
    if error.errno == errno.EMFILE:
        return "too many files are open at once: raise the limit, ulimit -n"
    if error.errno == errno.ENAMETOOLONG:
        return "give it a shorter name"
    return "look whether it is there and may be used; --debug shows the traceback"
