"""Trying one reading of a hostile input in a process of its own, whose time and memory are limited and measured.

tried = attempt(lambda: Broden(folder), seconds=10, memory=500 << 20)
tried.error, tried.message, tried.seconds, tried.peak
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ndissect.store.errors import NDError
from ndissect.store.files import host_high_water


@dataclass(frozen=True)
class Attempt:
    """How a reading ended: ``error``: the name of what was raised, empty for none, ``hangs`` where it had to be
    killed; its message and hint; seconds; ``peak``: bytes that it took beside what the process had.
    """

    error: str
    message: str
    hint: str
    seconds: float
    peak: int


def attempt(work: Callable[[], object], seconds: int = 10, memory: int = 1 << 30) -> Attempt:
    """``work`` in a child of this process that may take ``memory`` more bytes than it has, and so many seconds."""
    come, go = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(work, go, memory)
    os.close(go)
    try:
        ready, _, _ = select.select([come], [], [], seconds)
        said = b""
        while ready and (piece := os.read(come, 1 << 16)):
            said += piece
    finally:
        os.close(come)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    took = time.monotonic() - started
    if not said:
        return Attempt("hangs" if not ready else "died", "", "", took, 0)
    return Attempt(*json.loads(said)[:3], took, json.loads(said)[3])


def _run(work: Callable[[], object], go: int, memory: int) -> None:
    """In the child: ``work``, then what came of it to ``go``; never returns."""
    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = host_high_water()
        error = ("", "", "")
        try:
            work()
        except BaseException as e:
            message, hint = (e.message, e.hint) if isinstance(e, NDError) else (str(e), "")
            error = (type(e).__name__, message, hint)
        os.write(go, json.dumps([*error, max(host_high_water() - before, 0)]).encode())
    finally:
        os._exit(0)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # A socket's path may have 107 bytes only.
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


#: What may lie where a file is expected, by how it is told.
ODD: dict[str, Callable[[Path], None]] = {
    "a named pipe": _fifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a folder": lambda path: path.mkdir(),
    "an empty file": lambda path: path.write_bytes(b""),
    "a loop of links": lambda path: path.symlink_to(path.name),
}


def put(kind: str, path: Path) -> Path:
    """``path``, replaced by something odd."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[kind](path)
    return path
