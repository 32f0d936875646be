"""How much memory a run may use beside what it must, on the host and on its GPU."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ndissect.store.errors import WrongUse
from ndissect.store.files import host_high_water, human_bytes

# Of what is free at the start a run takes this much by itself; the network's own maps come on top.
_SHARE = 0.5
# Where nothing says what is free.
_UNKNOWN = 4 << 30
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """Bytes for thresholds and for what may fire: on the ``host``, and on the ``gpu`` where there is one."""

    host: int
    gpu: int

    def on(self, device: torch.device) -> int:
        """The bytes on ``device``."""
        return self.host if device.type == "cpu" else self.gpu

    def __str__(self) -> str:
        return human_bytes(self.host) + (f" and {human_bytes(self.gpu)} on the GPU" if self.gpu else "")


def budget(text: str | None, device: torch.device, processes: int = 1) -> Budget:
    """The budget that ``--memory`` asks for: ``8GB``, ``8GB,40GB`` (host, GPU); None: half of what is free.

    ``processes``: so many share what is free on the host; of what is asked for, each may use all. WrongUse for what is
    no size.
    """
    host, _, gpu = (text or "").partition(",")
    on_host, on_gpu = (
        parse_bytes(part, "--memory", "write 8GB, or 8GB,40GB for host and GPU") if part else None
        for part in (host, gpu)
    )
    if on_host is None:
        on_host = int(_SHARE * free_memory()) // processes
    if on_gpu is None and device.type == "cuda":
        on_gpu = int(_SHARE * torch.cuda.mem_get_info(device)[0])
    return Budget(on_host, on_gpu or 0 if device.type == "cuda" else 0)


def parse_bytes(text: str, option: str, hint: str) -> int:
    """The bytes that a size such as ``8GB`` or ``512MiB`` means; WrongUse for what is none, with ``hint``."""
    size = _SIZE.fullmatch(text)
    if not size:
        raise WrongUse(f"{option} '{text}' is no size", hint)
    number, unit, binary = size.groups()
    factor = _UNITS[unit.lower()]
    if binary and unit:
        factor = 1 << 10 * " kmgt".index(unit.lower())
    return int(float(number) * factor)


def free_memory() -> int:
    """Bytes that the host can still give: of the machine, or of the control group that limits this process."""
    free = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free.append(max(int(limit) - int(used), 0))
    if not free and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(free, default=_UNKNOWN)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


@dataclass
class HighWater:
    """The most memory seen so far, in bytes: ``host`` of this process, ``gpu`` of torch on its device."""

    host: int = 0
    gpu: int = 0


def high_water(device: torch.device) -> HighWater:
    """The most that this process has used since it started."""
    return HighWater(host_high_water(), torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0)
