"""Store files on disk: which one is meant, whether a new one can be written, and putting it in place whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ndissect.store.errors import NDError, WrongUse

SUFFIX = ".nd.h5"


def find_store(given: Path | None, environ: os._Environ[str] | dict[str, str] = os.environ) -> Path:
    """The store to read: ``given``, else $ND_STORE, else the newest ``*.nd.h5`` of the current folder."""
    if given is None and environ.get("ND_STORE"):
        given = Path(environ["ND_STORE"])
    if given is not None:
        try:
            mode = given.stat().st_mode
        except OSError as e:
            why = "" if e.errno in (errno.ENOENT, errno.ENOTDIR) else f": {e.strerror}"
            raise WrongUse(f"no store at {given}{why}", "nd dissect writes one; -s FILE or $ND_STORE names one") from e
        return _newest(given) if stat.S_ISDIR(mode) else given
    return _newest(Path())


def _newest(folder: Path) -> Path:
    found = sorted((p for p in folder.glob(f"*{SUFFIX}") if p.is_file()), key=lambda p: p.stat().st_mtime)
    if not found:
        where = "this folder" if folder == Path() else str(folder)
        raise WrongUse(f"no *{SUFFIX} store in {where}", "nd dissect makes one; -s FILE or $ND_STORE names one")
    return found[-1]


def read_small(path: Path, most: int) -> bytes:
    """The bytes of the regular file ``path``; OSError for what is none (a pipe, a device) or has more than ``most``."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for
    with open(fd, "rb") as file:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {human_bytes(most)}")
    return data


def cache_folder() -> Path:
    """Where what can be made again is kept, a folder that may not exist yet: ``$ND_CACHE``, else the user's cache."""
    import platformdirs  # noqa: PLC0415 - a look-up needs no cache

    chosen = os.environ.get("ND_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ndissect", appauthor=False))


def check_writable(target: Path, needed: int) -> None:
    """Refuse, before any work is done, a target whose folder is missing, read-only or short of ``needed`` bytes."""
    folder = target.parent
    if not folder.is_dir():
        raise WrongUse(
            f"the folder {folder} does not exist", f"make it (mkdir -p {folder}), or choose another --output"
        )
    if os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        raise WrongUse(f"{target} is a folder", f"name a file, for example -o {target}/result{SUFFIX}")
    try:
        with contextlib.suppress(FileNotFoundError):
            target.lstat()  # fails where the name is too long
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"nd")
            probe.flush()
    except OSError as e:
        raise NDError(
            f"cannot write {target.name} to the folder {folder.resolve()}: {e.strerror}",
            "choose another place with -o/--output",
        ) from e
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NDError(
            f"the disk of {folder.resolve()} has {human_bytes(free)} free, the store needs about {human_bytes(needed)}",
            "free some space, or choose another place with -o/--output",
        )


def hidden(path: Path, ending: str) -> Path:
    """``.<name>.<ending>`` beside ``path``; a name that would grow too long is cut, and kept apart by a digest."""
    name = os.fsencode(path.name)
    if len(name) <= 200:  # file systems take 255 bytes
        return path.with_name(f".{path.name}.{ending}")
    import hashlib  # noqa: PLC0415 - names are hardly ever so long

    return path.with_name(f".{path.name[:32]}~{hashlib.sha256(name).hexdigest()[:16]}.{ending}")


def being_written(path: Path, pid: int) -> Path:
    """The name under which process ``pid`` writes ``path`` until it is whole."""
    return hidden(path, f"{pid}.part")


@contextlib.contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that replaces it, synced to disk, when the block ends without an error.

    After an error or an interrupt the temporary file is gone and ``target`` is what it was. An OSError of the block
    becomes an NDError.
    """
    part = being_written(target, os.getpid())
    try:
        yield part
        with part.open("rb+") as f:
            os.fsync(f.fileno())
        part.replace(target)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as e:
        raise _write_failed(target, e) from e
    finally:
        with contextlib.suppress(OSError):  # where even that fails, the first error says more
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that takes its place, files synced, when the block ends without an error.

    What was at ``target`` is removed then, not before. After an error or an interrupt the new folder is gone and
    ``target`` is what it was. An OSError of the block becomes an NDError.
    """
    part, old = being_written(target, os.getpid()), hidden(target, f"{os.getpid()}.old")
    try:
        part.mkdir()
        yield part
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("rb+") as f:
                    os.fsync(f.fileno())
        if target.exists():
            target.rename(old)
        part.rename(target)
    except OSError as e:
        raise _write_failed(target, e) from e
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def _write_failed(target: Path, error: OSError) -> NDError:
    hint = "a file that was there before is unchanged"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint += "; free some space or choose another place with -o/--output"
    return NDError(f"cannot write {target}: {error.strerror or error}", hint)


def host_high_water() -> int:
    """The most bytes of memory that this process has used."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # ru_maxrss would count what the parent had used
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def human_bytes(n: float) -> str:
    """``n`` bytes for people: ``512 B``, ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
