"""Which process, on which machine: what tells a run that goes on from one that was killed."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path


@functools.cache
def machine() -> str:
    """A text that differs for each boot, machine and container, also of one host name; "" where it is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().decode("latin-1").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - the link's text is no path
    except OSError:
        return ""


def began(pid: int) -> int | None:
    """When process ``pid`` began, in ticks since the boot; 0 where that is unknown; None where it does not run."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Fields 3 and 22 of proc_pid_stat(5); field 2, the program's name, may itself hold spaces and parentheses.
        rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if rest[0] in (b"Z", b"X") else int(rest[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it is another user's
        return 0
    return 0
