"""Concepts of two stores, which may have other numbers for the same thing, matched by name and category."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.cells import cell_len

from ndissect.tui.app.listing import NOTHING, Item
from ndissect.tui.app.session import Session
from ndissect.tui.tables.comparison import Matched, match_keys


def matched(session: Session) -> list[Matched]:
    """The concepts of the store by row."""
    return match_keys(session.store.concepts)


def opens(current: Session) -> Callable[[Matched], Item]:
    """What opens a concept in the store that is browsed: nothing where that has no such concept."""
    number = dict(zip(matched(current), current.store.concepts.number.tolist(), strict=True))
    return lambda concept: Item("concept", concept=number[concept]) if concept in number else NOTHING


def subject(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    """What a comparison is remembered by: of stores, of their layers, or of units of these."""

    def one(session: Session, layer: str = "", unit: int = -1) -> str:
        return ":".join([str(session.target), layer, *([str(unit)] if unit >= 0 else [])])

    return f"{one(*a)} and {one(*b)}"


def longest(names: list[str]) -> int:
    """Cells that the longest of ``names`` takes."""
    return max(map(cell_len, names), default=0)
