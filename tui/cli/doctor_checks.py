"""What `nd doctor` looks at: versions, devices, the viewer, the terminal, file locking and disk space.

Nothing here uses the network. Libraries are imported where they are examined, so that a broken one is a finding.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ndissect.store.errors import NDError
from ndissect.store.files import cache_folder
from ndissect.store.names import quoted
from ndissect.tui.pictures.viewer import find_viewer

State = Literal["ok", "warn", "fail"]
Environ = Mapping[str, str]
GIB = 1024**3

#: The libraries whose versions are told, in this order.
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "h5py",
    "typer",
    "rich",
    "textual",
    "pillow",
    "platformdirs",
    "safetensors",
)
#: Import names that differ from the distribution's.
MODULES = {"pillow": "PIL"}

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


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``topic``, ``state``, what was found, and what to do about it (may be empty)."""

    topic: str
    state: State
    detail: str
    hint: str = ""


def examine(store_folder: Path, environ: Environ = os.environ) -> list[Finding]:
    """All findings for stores in ``store_folder``, in a fixed order. Never raises: a check that breaks is a finding.

    Takes some seconds, most of them for importing torch. ``dataclasses.asdict`` of a finding is ready for JSON.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("versions", _versions),
        ("devices", lambda: _devices(environ)),
        ("cpu", _processor),
        ("memory", _memory),
        ("viewer", lambda: _viewer(environ)),
        ("terminal", lambda: _terminal(environ)),
        ("folder", lambda: _folder(store_folder)),
        ("file locking", lambda: _locking(store_folder, environ)),
        ("disk", lambda: _disk(store_folder, environ)),
    ]
    findings: list[Finding] = []
    for topic, check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # the doctor must survive whatever it finds
            findings.append(Finding(topic, "fail", f"This check broke: {type(error).__name__}: {error}"))
    return findings


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield Finding("ndissect", "ok", importlib.metadata.version("ndissect"))
    needed = _lower_bounds()
    for name in LIBRARIES:
        try:
            module = importlib.import_module(MODULES.get(name, name))
            version = importlib.metadata.version(name)
        except Exception as error:  # a broken build raises anything at all
            reason = " ".join(str(error).split())[:300]
            yield Finding(name, "fail", f"cannot be imported: {type(error).__name__}: {reason}", _reinstall(name))
            continue
        detail = f"{version} (HDF5 {module.version.hdf5_version})" if name == "h5py" else version
        low = needed.get(name, "")
        if low and _numbers(version) < _numbers(low):
            yield Finding(name, "warn", f"{detail}: older than {low}, the oldest that was tested", _reinstall(name))
        else:
            yield Finding(name, "ok", detail)


def _reinstall(name: str) -> str:
    return f"Reinstall it: {quoted(Path(sys.executable))} -m pip install --upgrade {name}"


def _lower_bounds() -> dict[str, str]:
    """Library name -> the oldest version that ndissect declares."""
    requirements = importlib.metadata.requires("ndissect") or []
    matches = (re.match(r"([\w-]+)\s*[>=]=\s*([\d.]+)", r) for r in requirements if "extra ==" not in r)
    return {match[1].lower(): match[2] for match in matches if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])


def _devices(environ: Environ) -> Iterator[Finding]:
    torch = importlib.import_module("torch")
    driver, problem = _driver(environ)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        for index in range(torch.cuda.device_count()):
            try:
                free, total = torch.cuda.mem_get_info(index)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                yield Finding(f"cuda:{index}", "fail", f"{torch.cuda.get_device_name(index)}: {reason}", _busy_hint())
                continue
            detail = (
                f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, "
                f"driver {driver or 'unknown'}, CUDA {torch.version.cuda or torch.version.hip}"
            )
            if free < 2 * GIB:
                yield Finding(f"cuda:{index}", "warn", detail, _busy_hint())
            else:
                yield Finding(f"cuda:{index}", "ok", detail)
    elif driver:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
            hint = f"CUDA_VISIBLE_DEVICES is '{visible}': it hides every GPU. Unset it, or set it to 0."
        elif torch.version.cuda is None:
            hint = "This torch was built without CUDA: install a CUDA build from pytorch.org."
        else:
            hint = f"This torch was built for CUDA {torch.version.cuda}: update the driver, or install an older build."
        reason = " ".join(str(said[0].message).split()) if said else "torch cannot use it"
        yield Finding("cuda", "warn", f"An NVIDIA driver is here ({driver}), but {reason}", hint)
    elif problem:
        yield Finding("cuda", "warn", f"nvidia-smi is here but fails: {problem}", "Run nvidia-smi; reload the driver.")
    else:
        yield Finding("cuda", "ok", "no NVIDIA GPU")
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple GPU, usable as --device mps")
    elif sys.platform == "darwin":
        yield Finding("mps", "warn", "not usable by this torch", "It needs an Apple chip and a Python built for arm64.")


def _busy_hint() -> str:
    return "Another process uses this GPU (see nvidia-smi): choose another one with --device, or wait."


def _driver(environ: Environ) -> tuple[str, str]:
    """The version of the NVIDIA driver and what is wrong with it, each empty where there is none."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if not program:
        return "", ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, env=dict(environ), capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "", "no answer in 20 s"
    if run.returncode or not run.stdout.strip():
        return "", " ".join((run.stdout + run.stderr).split())[:200] or f"exit code {run.returncode}"
    return run.stdout.split()[0], ""


def _processor() -> Iterator[Finding]:
    torch = importlib.import_module("torch")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    detail = f"{usable} of {os.cpu_count()} cores usable, torch uses {threads} threads"
    if threads > usable:
        yield Finding("cpu", "warn", detail, f"Set OMP_NUM_THREADS={usable}: more threads than cores are slower.")
    else:
        yield Finding("cpu", "ok", detail)


def _memory() -> Iterator[Finding]:
    total, free = _memory_bytes()
    if not free:
        yield Finding("memory", "ok", f"{total / GIB:.1f} GiB")
    elif free < 2 * GIB:
        hint = "Close other programs, or dissect with a smaller batch."
        yield Finding("memory", "warn", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free", hint)
    else:
        yield Finding("memory", "ok", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free")


def _memory_bytes() -> tuple[int, int]:
    """Bytes of memory, and bytes of it that are free (0 where the system does not tell); a job's own limit counts."""
    total, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        free = int(match[1]) * 1024 if match else 0
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if Path(limit_file).exists() and Path(used_file).exists():
            limit = Path(limit_file).read_text().strip()
            if limit.isdigit() and int(limit) < total:
                total = int(limit)
                free = min(free, max(1, total - int(Path(used_file).read_text())))
    return total, free


def _viewer(environ: Environ) -> Iterator[Finding]:
    try:
        viewer = find_viewer(environ, terminal=True)
    except NDError as error:
        yield Finding("viewer", "fail", error.message, error.hint)
        return
    if viewer.kind == "print":
        hint = "Set ND_VIEWER to a program, or install chafa or timg, which draw in a terminal, also over ssh."
        yield Finding("viewer", "warn", "none found: the path of a picture is printed and sent to the clipboard", hint)
    else:
        yield Finding("viewer", "ok", f"{' '.join(viewer.argv)} (because of {viewer.why}; {viewer.kind})")


def _terminal(environ: Environ) -> Iterator[Finding]:
    term = environ.get("TERM", "")
    parts = [f"TERM={term or 'unset'}", f"COLORTERM={environ.get('COLORTERM') or 'unset'}"]
    try:
        columns, lines = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except OSError:
        parts.append("the output is not a terminal")
        columns, lines = 80, 24
    else:
        parts.append(f"{columns}x{lines}")
    if "NO_COLOR" in environ:
        parts.append("NO_COLOR is set")
    for variable, what in (("TMUX", "inside tmux"), ("STY", "inside screen"), ("SSH_CONNECTION", "over ssh")):
        if environ.get(variable):
            parts.append(what)
    parts.append(f"pictures: {graphics_protocol(environ)}")
    hints = []
    if term in ("", "dumb", "unknown"):
        hints.append("Set TERM (xterm-256color is safe): without it the terminal UI cannot draw.")
    if environ.get("TMUX") and not term.startswith(("tmux", "screen")):
        hints.append('tmux needs its own TERM: put set -g default-terminal "tmux-256color" into ~/.tmux.conf.')
    if columns < 80 or lines < 24:
        hints.append("The terminal UI is made for 80x24 and more.")
    yield Finding("terminal", "warn" if hints else "ok", ", ".join(parts), " ".join(hints))

    names = ("LC_ALL", "LC_CTYPE", "LANG")
    name = next((n for n in names if environ.get(n)), "")
    detail = f"{name}={environ[name]}" if name else "LC_ALL, LC_CTYPE and LANG are unset"
    if re.search(r"utf-?8", environ.get(name, ""), re.IGNORECASE):
        yield Finding("locale", "ok", detail)
    else:
        yield Finding("locale", "warn", f"{detail}: not UTF-8", "export LANG=C.UTF-8: bars and lines are Unicode.")


def graphics_protocol(environ: Environ) -> str:
    """The way to draw pictures that this terminal is likely to know: kitty, iterm, sixel, or none.

    A guess from the environment alone: asking the terminal itself would put its answer into the user's next command.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if environ.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if "sixel" in term or term.startswith(("foot", "mlterm", "contour", "yaft")) or environ.get("WT_SESSION"):
        return "sixel"
    return "none known (coloured half blocks work everywhere)"


def _folder(folder: Path) -> Iterator[Finding]:
    problem = _not_writable(folder)
    if problem:
        yield Finding("folder", "fail", f"{folder.absolute()}: {problem}", "Write stores to another folder with -o.")
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


def _locking(folder: Path, environ: Environ) -> Iterator[Finding]:
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
            hint = "Do not let two runs write one store at the same time."
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
    return f"export {LOCKING}=FALSE, and let only one process at a time write a store; or use a local disk."


def _disk(folder: Path, environ: Environ) -> Iterator[Finding]:
    cache = cache_folder()
    chosen = "ND_CACHE" if environ.get("ND_CACHE") else "the default; ND_CACHE changes it"
    yield _free("disk here", _existing(folder), 1, "")
    existing = _existing(cache)
    problem = _not_writable(existing)
    if problem:
        hint = "Set ND_CACHE to a folder that can be written to."
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
        return Finding(topic, "warn", detail, f"Less than {enough} GiB: make room, or use another disk.")
    return Finding(topic, "ok", detail)
