"""What ``torchrun`` tells each process that it starts, read without importing torch."""

from __future__ import annotations

import os


def processes() -> int:
    """How many processes ``torchrun`` started for this run; 1 without it."""
    size = os.environ.get("WORLD_SIZE", "1")
    started = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    return int(size) if started and size.isdigit() else 1


def is_first() -> bool:
    """Whether this is the process that speaks for all of them; True without ``torchrun``."""
    return processes() == 1 or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Which of the processes on this machine this one is: the GPU that it takes."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return int(rank) if rank.isdigit() and processes() > 1 else 0


def processes_here() -> int:
    """How many processes ``torchrun`` started on this machine; 1 without it."""
    size = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(size)) if size.isdigit() and processes() > 1 else 1
