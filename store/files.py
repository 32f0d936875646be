"""Store files on disk: which one is meant, whether a new one can be written, and putting it in place whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.names import quoted
from ndissect.store.processes import began, machine

SUFFIX = ".nd.h5"

# What being_written adds to a name: "part" is yet to be whole, "old" is what it is to replace, moved aside.
_LEFT_OVER = re.compile(r"(?P<pid>[0-9]+)\.(?P<machine>[0-9a-f]{8})[0-9a-f]{16}\.(?P<kind>part|old)")
# Seconds after which what another machine was writing, or a process of a number that is in use again, is nobody's.
_ABANDONED = 86_400


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
    stores = sorted((p for p in folder.glob(f"*{SUFFIX}") if p.is_file()), key=lambda p: p.stat().st_mtime)
    if not stores:
        where = "this folder" if folder == Path() else str(folder)
        raise WrongUse(f"no *{SUFFIX} store in {where}", "nd dissect makes one; -s FILE or $ND_STORE names one")
    return stores[-1]


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
            f"the folder {folder} does not exist", f"make it (mkdir -p {quoted(folder)}), or choose another --output"
        )
    if os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        raise WrongUse(f"{target} is a folder", f"name a file, for example -o {quoted(target / f'result{SUFFIX}')}")
    try:
        with contextlib.suppress(FileNotFoundError):
            target.lstat()  # fails where the name is too long
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"nd")
            probe.flush()
    except OSError as e:
        raise NDError(
            f"cannot write {target.name} to the folder {folder.resolve()}: {e.strerror}",
            remedy(e, "choose another place with -o/--output"),
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


def being_written(path: Path, pid: int, kind: Literal["part", "old"] = "part") -> Path:
    """A name beside ``path`` under which process ``pid`` writes it until it is whole; another one at every call.

    It is ``.<name>.<pid>.<token>.part``, or ``.old`` for what is moved aside meanwhile. Eight digits of the token are
    of the machine, the others random, so that nobody can lay a link there before.
    """
    return hidden(path, f"{pid}.{_machine_token()}{os.urandom(8).hex()}.{kind}")


def new_file(target: Path) -> Path:
    """An empty file beside ``target``, made now under a name of :func:`being_written`, that is to take its place.

    No link is followed, and its permissions are those of any new file of the user's.
    """
    part = being_written(target, os.getpid())
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    return part


def new_folder(target: Path, mode: int = 0o777) -> Path:
    """An empty folder, like :func:`new_file`."""
    part = being_written(target, os.getpid())
    part.mkdir(mode)
    return part


def remove_left_overs(target: Path) -> None:
    """Delete what processes of this user that were killed have left beside ``target`` under names of being_written.

    A folder that was moved aside comes back where ``target`` is missing. What is there stays while its process runs on
    this machine; what another machine writes stays until it is a day old. No link is followed or deleted. Where the
    folder cannot be read nothing is done. :func:`atomic`, :func:`replacing` and :func:`atomic_folder` begin with this;
    who makes files by :func:`new_file` or :func:`new_folder` calls it when it starts.
    """
    start = hidden(target, "").name
    with contextlib.suppress(OSError):
        handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(handle) as entries:
                left = [e for e in entries if e.name.startswith(start) and _is_left_over(e, e.name[len(start) :])]
            for entry in left:
                with contextlib.suppress(OSError):  # another run was quicker
                    _remove_left_over(entry, target, handle)
        finally:
            os.close(handle)


def _remove_left_over(entry: os.DirEntry[str], target: Path, handle: int) -> None:
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=handle)
    elif entry.name.endswith(".old") and not os.path.lexists(target):
        os.rename(entry.name, target.name, src_dir_fd=handle, dst_dir_fd=handle)
    else:
        shutil.rmtree(entry.name, dir_fd=handle)


def _is_left_over(entry: os.DirEntry[str], ending: str) -> bool:
    match = _LEFT_OVER.fullmatch(ending)
    if match is None:
        return False
    about = entry.stat(follow_symlinks=False)
    regular, folder = stat.S_ISREG(about.st_mode), stat.S_ISDIR(about.st_mode)
    if about.st_uid != os.geteuid() or not (folder or (regular and match["kind"] == "part")):
        return False
    if match["machine"] == _machine_token() and began(int(match["pid"])) is None:
        return True
    return time.time() - about.st_mtime > _ABANDONED


def _machine_token() -> str:
    return f"{zlib.crc32((machine() or os.uname().nodename).encode()):08x}"


def own_file(path: str, flags: int) -> int:
    """Opens a regular file, made where it is missing, and never what a link leads to: the opener for open().

    A link, a second name of another file (a hard link), a pipe and a device are refused with an OSError.
    """
    plain = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, plain, 0o666)
    except OSError as e:
        raise _no_link(path) if e.errno in (errno.ELOOP, errno.EMLINK) else e from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(descriptor)
        raise _no_link(path)
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


def own_folder(folder: Path, mode: int = 0o777) -> Path:
    """``folder``, made where it is missing (with its parents); OSError where a link lies in its place."""
    try:
        try:
            folder.mkdir(mode)
        except FileNotFoundError:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _no_link(folder) from None
    return folder


def _no_link(path: str | Path) -> OSError:
    return OSError(errno.ELOOP, f"{Path(path).name} is a link or a special file, which is not followed", str(path))


@contextlib.contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """A new file beside ``target`` that replaces it, synced to disk, when the block ends without an error.

    After an error or an interrupt the new file is gone and ``target`` is what it was. Where ``target`` is a link, the
    link is replaced, and what it leads to stays. An OSError of the block becomes an NDError.
    """
    try:
        with replacing(target) as part:
            yield part
    except OSError as e:
        raise _write_failed(target, e) from e


@contextlib.contextmanager
def replacing(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """As :func:`atomic`, with OSErrors as they are; not ``durable``: without waiting for the disk."""
    remove_left_overs(target)
    part = new_file(target)
    try:
        yield part
        if durable:
            _sync(part)
        part.replace(target)
        if durable:
            with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
                _sync(target.parent)
    finally:
        with contextlib.suppress(OSError):  # where even that fails, the first error says more
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path, ours: Callable[[Path], bool] = lambda _folder: True) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place, files synced, when the block ends without an error.

    What was at ``target`` is removed then, not before, and only where ``ours`` accepts it; a link there is refused.
    After an error or an interrupt the new folder is gone and ``target`` is what it was. An OSError of the block
    becomes an NDError.
    """
    old = being_written(target, os.getpid(), "old")
    part = None
    try:
        remove_left_overs(target)
        _refuse_others(target, ours)
        part = new_folder(target)
        yield part
        for path in part.rglob("*"):
            if not path.is_dir():
                _sync(path)
        _refuse_others(target, ours)
        if target.exists():
            target.rename(old)
        part.rename(target)
    except OSError as e:
        raise _write_failed(target, e) from e
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (part, old):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)  # which follows no link


def _refuse_others(target: Path, ours: Callable[[Path], bool]) -> None:
    if target.is_symlink():
        raise _no_link(target)
    if target.exists() and not ours(target):
        raise FileExistsError(errno.EEXIST, "it holds files that nd did not write", str(target))


def _sync(path: Path) -> None:
    """Wait until what ``path`` holds is on the disk; no link is followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_known(folder: Path, known: Callable[[str], bool]) -> None:
    """Delete the regular files directly in ``folder`` whose names ``known`` accepts, then ``folder`` if it is empty.

    No link is followed: one in place of ``folder`` is left alone with what it points to, and so is one inside, as
    are sub-folders and files of other names. A folder that does not exist is no error; an OSError of another cause
    is raised.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK):  # not there, not a folder, or a link
            return
        raise
    try:
        with os.scandir(handle) as entries:
            ours = [e.name for e in entries if known(e.name) and e.is_file(follow_symlinks=False)]
        for name in ours:
            with contextlib.suppress(FileNotFoundError):  # another run was quicker
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)
    try:
        folder.rmdir()  # refuses a link
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
            raise


def _write_failed(target: Path, error: OSError) -> NDError:
    hint = f"a file that was there before is unchanged; {remedy(error, 'choose another place with -o/--output')}"
    return NDError(f"cannot write {target}: {error.strerror or error}", hint)


def remedy(error: OSError, elsewhere: str) -> str:
    """What to do about ``error``, met while writing; ``elsewhere`` says how another place is chosen."""
    causes: dict[tuple[int, ...], str] = {
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "free some space",
        (errno.EACCES, errno.EPERM): "make the place writable",
        (errno.ENAMETOOLONG,): "take a shorter name",
        (errno.ELOOP, errno.EEXIST, errno.ENOTDIR, errno.EISDIR): "move what lies there away",
        (errno.EMFILE, errno.ENFILE): "raise the limit on open files (ulimit -n)",
    }
    first = next((what for numbers, what in causes.items() if error.errno in numbers), "")
    return f"{first}, or {elsewhere}" if first else elsewhere


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
