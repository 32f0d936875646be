"""``nd attack``."""

from __future__ import annotations


def attack() -> None:
    """Not there yet."""
    raise NotImplementedError
