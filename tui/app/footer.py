"""The last line of a screen: the keys that matter, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ndissect.tui.app.actions import Action
from ndissect.tui.app.help import shown
from ndissect.tui.app.strips import StyledText

A = TypeVar("A", bound=Action[Any])


def footer(actions: Iterable[A], possible: Callable[[A], bool], room: int, *, unicode: bool) -> list[StyledText]:
    """As many of ``actions`` as ``room`` cells hold; those that are not ``possible`` now stand back."""
    texts: list[StyledText] = []
    for action in actions:
        key = shown(action, unicode).split()[0]
        room -= len(key) + len(action.short) + 3
        if room < 0:
            break
        able = possible(action)
        texts += [
            (key, "key" if able else "faint"),
            (f" {action.short}  ", "" if able else "faint"),
        ]
    return texts
