"""``nd why``."""

from __future__ import annotations


def why() -> None:
    """Not there yet."""
    raise NotImplementedError
