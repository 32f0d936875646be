"""What ``nd doctor`` looks at in the machine: GPUs and their driver, cores, memory.

torch is imported where it is needed, so that a broken one is a finding.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from ndissect.tui.cli.doctor_finding import GIB, Environ, Finding


def devices(environ: Environ) -> Iterator[Finding]:
    """The GPUs that torch can use, or why it cannot."""
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
            hint = f"CUDA_VISIBLE_DEVICES is '{visible}': it hides every GPU. Unset it, or set it to 0"
        elif torch.version.cuda is None:
            hint = "This torch was built without CUDA: install a CUDA build from pytorch.org"
        else:
            hint = f"This torch was built for CUDA {torch.version.cuda}: update the driver, or install an older build"
        reason = " ".join(str(said[0].message).split()) if said else "torch cannot use it"
        yield Finding("cuda", "warn", f"An NVIDIA driver is here ({driver}), but {reason}", hint)
    elif problem:
        yield Finding("cuda", "warn", f"nvidia-smi is here but fails: {problem}", "Run nvidia-smi; reload the driver")
    else:
        yield Finding("cuda", "ok", "no NVIDIA GPU")
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple GPU, usable as --device mps")
    elif sys.platform == "darwin":
        yield Finding("mps", "warn", "not usable by this torch", "It needs an Apple chip and a Python built for arm64")


def _busy_hint() -> str:
    return "Another process uses this GPU (see nvidia-smi): choose another one with --device, or wait"


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


def processor() -> Iterator[Finding]:
    """The cores that may be used, and the threads that torch uses."""
    torch = importlib.import_module("torch")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    detail = f"{usable} of {os.cpu_count()} cores usable, torch uses {threads} threads"
    if threads > usable:
        yield Finding("cpu", "warn", detail, f"Set OMP_NUM_THREADS={usable}: more threads than cores are slower")
    else:
        yield Finding("cpu", "ok", detail)


def memory() -> Iterator[Finding]:
    """How much memory there is, and how much of it is free."""
    total, free = _memory_bytes()
    if not free:
        yield Finding("memory", "ok", f"{total / GIB:.1f} GiB")
    elif free < 2 * GIB:
        hint = "Close other programs, or dissect with a smaller batch"
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
