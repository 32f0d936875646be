"""What ``nd doctor`` looks at on the disk: whether a folder can be written to, file locking, free space."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ndissect.store.files import cache_folder
from ndissect.tui.cli.doctor_finding import GIB, Environ, Finding

LOCKING = "HDF5_USE_FILE_LOCKING"
#: What the operating system answers to a lock where the file system is at fault, and what that means.
LOCK_ERRORS = {
    errno.EAGAIN: "another process has the file locked (or NFS answers so to every lock)",
    errno.ENOLCK: "no locks available: NFS without its lock service, or Lustre without the flock mount option",
    524: "locks are not supported: NFS without them, or Lustre mounted with noflock",
    errno.ENOSYS: "locks are not implemented: Lustre mounted with noflock",
    errno.EOPNOTSUPP: "locks are not supported by this file system",
}

# Holds a file open for writing while a second process tries to read it, as two runs of nd would.
_WRITER = """
import subprocess, sys, h5py
with h5py.File(sys.argv[1], "w") as file:
    file["x"] = [1, 2, 3]
    file.flush()
    reader = "import sys, h5py; h5py.File(sys.argv[1], 'r').close()"
    run = subprocess.run([sys.executable, "-c", reader, sys.argv[1]], capture_output=True, text=True)
    print("read" if run.returncode == 0 else run.stderr)
"""


def writable(folder: Path) -> Iterator[Finding]:
    """Whether stores can be written to ``folder``."""
    problem = _not_writable(folder)
    if problem:
        yield Finding("folder", "fail", f"{folder.absolute()}: {problem}", "Write stores to another folder with -o")
    else:
        yield Finding("folder", "ok", f"{folder.absolute()} can be written to ({_file_system(folder)})")


def _not_writable(folder: Path) -> str:
    """Why no file can be made in ``folder``, empty if one can: tried, because mode bits do not tell of mounts."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nd")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _file_system(folder: Path) -> str:
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "file system unknown"
    best, kind = "", "unknown"
    here = folder.resolve()
    for line in mounts.read_text().splitlines():
        _, point, this_kind, *_ = line.split()
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
        if here.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, this_kind
    return f"file system {kind}"


def locking(folder: Path, environ: Environ) -> Iterator[Finding]:
    """Whether a file that is being written is refused to others, as HDF5 does it: tried."""
    if _not_writable(folder):
        yield Finding("file locking", "warn", "not tried: no file can be made in this folder")
        return
    setting = f"{LOCKING}={environ[LOCKING]}" if LOCKING in environ else f"{LOCKING} unset"
    with tempfile.TemporaryDirectory(prefix=".nd-doctor-", dir=folder, ignore_cleanup_errors=True) as inside:
        argv = [sys.executable, "-c", _WRITER, "locking.h5"]  # in its own folder: `inside` may be relative
        try:
            run = subprocess.run(
                argv, env=dict(environ), capture_output=True, text=True, timeout=60, check=False, cwd=inside
            )
        except subprocess.TimeoutExpired:
            yield Finding("file locking", "fail", f"A lock was not answered in 60 s ({setting})", _unlock_hint())
            return
    if run.returncode:
        yield Finding(
            "file locking", "fail", f"HDF5 cannot write here: {lock_error(run.stderr)} ({setting})", _unlock_hint()
        )
    elif run.stdout.strip() == "read":
        if environ.get(LOCKING, "").upper() in ("FALSE", "0"):
            detail, hint = f"switched off by {setting}", ""
        else:
            detail = f"not enforced here: a file that is being written could be opened ({setting})"
            hint = "Do not let two runs write one store at the same time"
        yield Finding("file locking", "warn" if hint else "ok", detail, hint)
    elif "errno" in run.stdout or "already open" in run.stdout:
        yield Finding("file locking", "ok", f"works: a file that is being written is refused to others ({setting})")
    else:
        yield Finding(
            "file locking", "fail", f"HDF5 cannot read here: {lock_error(run.stdout)} ({setting})", _unlock_hint()
        )


def lock_error(message: str) -> str:
    """What an HDF5 error ``message`` says about a lock: its error number explained, else its last line."""
    match = re.search(r"errno = (\d+)", message)
    number = int(match[1]) if match else 0
    lines = message.strip().splitlines() or ["no message"]
    if number in LOCK_ERRORS:
        return f"errno {number}, {LOCK_ERRORS[number]}"
    return lines[-1]


def _unlock_hint() -> str:
    return f"export {LOCKING}=FALSE, and let only one process at a time write a store; or use a local disk"


def disk(folder: Path, environ: Environ) -> Iterator[Finding]:
    """Room for stores in ``folder``, and for data sets in the cache."""
    cache = cache_folder()
    chosen = "ND_CACHE" if environ.get("ND_CACHE") else "the default; ND_CACHE changes it"
    yield _free("disk here", _existing(folder), 1, "")
    existing = _existing(cache)
    problem = _not_writable(existing)
    if problem:
        hint = "Set ND_CACHE to a folder that can be written to"
        yield Finding("disk for data", "fail", f"{cache} ({chosen}): {problem}", hint)
    else:
        yield _free("disk for data", existing, 4, f" in {cache} ({chosen})")


def _existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _free(topic: str, folder: Path, enough: int, where: str) -> Finding:
    usage = shutil.disk_usage(folder)
    detail = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free{where}"
    if usage.free < enough * GIB:
        return Finding(topic, "warn", detail, f"Less than {enough} GiB: make room, or use another disk")
    return Finding(topic, "ok", detail)
