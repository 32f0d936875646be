"""``nd ablate``."""

from __future__ import annotations


def ablate() -> None:
    """Not there yet."""
    raise NotImplementedError
