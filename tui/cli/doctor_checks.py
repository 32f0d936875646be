"""What `nd doctor` looks at: versions, devices, the viewer, the terminal, file locking and disk space.

Nothing here uses the network. Libraries are imported where they are examined, so that a broken one is a finding.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ndissect.store.names import quoted
from ndissect.tui.cli.doctor_finding import Environ, Finding
from ndissect.tui.cli.doctor_folders import disk, locking, writable
from ndissect.tui.cli.doctor_machine import devices, memory, processor
from ndissect.tui.cli.doctor_terminal import terminal, viewer

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


def examine(store_folder: Path, environ: Environ = os.environ) -> list[Finding]:
    """All findings for stores in ``store_folder``, in a fixed order. Never raises: a check that breaks is a finding.

    Takes some seconds, most of them for importing torch. ``dataclasses.asdict`` of a finding is ready for JSON.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("versions", _versions),
        ("devices", lambda: devices(environ)),
        ("cpu", processor),
        ("memory", memory),
        ("viewer", lambda: viewer(environ)),
        ("terminal", lambda: terminal(environ)),
        ("folder", lambda: writable(store_folder)),
        ("file locking", lambda: locking(store_folder, environ)),
        ("disk", lambda: disk(store_folder, environ)),
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
