"""What ``nd doctor`` says of one thing that it looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
Environ = Mapping[str, str]
GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``topic``, ``state``, what was found, and what to do about it (may be empty)."""

    topic: str
    state: State
    detail: str
    hint: str = ""
