"""What the outputs of a network are called, as its metadata or its module say."""

from __future__ import annotations

from collections.abc import Mapping


def class_names(value: object) -> tuple[str, ...]:
    """The names of a network's classes, by output: of a list of names, or of a mapping from numbers to names.

    () for anything else, and for a mapping that leaves out an output: a name at the wrong place is worse than none.
    """
    if isinstance(value, Mapping):
        try:
            by_number = {int(number): name for number, name in value.items()}
        except (TypeError, ValueError):
            return ()
        if sorted(by_number) != list(range(len(by_number))):
            return ()
        value = [by_number[n] for n in range(len(by_number))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)
