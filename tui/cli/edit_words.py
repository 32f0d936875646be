"""The edits of ``nd paint`` in the order in which they were typed, which Typer's lists of values do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from ndissect.engine.experiments.edits import checked_strength
from ndissect.store.errors import WrongUse

_OPTIONS = ("--add", "--remove", "--region", "--strength")
_HINT = "write --add tree --region 3,4,6,9 --strength 1, one after the other for several edits"


@dataclass(frozen=True)
class TypedEdit:
    """An edit as it was typed; ``region``: in cells, ``all``, or a mask image."""

    concept: str
    action: Literal["add", "remove"]
    region: str = ""
    strength: float = 1.0


def typed_edits(words: Sequence[str]) -> list[TypedEdit]:
    """The edits that the words of a command line name, in their order.

    ``--add`` or ``--remove`` begins one; the ``--region`` and ``--strength`` behind it are its own. WrongUse where an
    edit has no region, or one of these stands before any edit or twice.
    """
    edits: list[TypedEdit] = []
    said: set[str] = set()
    for option, value in _values(words):
        if option in ("--add", "--remove"):
            edits.append(TypedEdit(value, cast('Literal["add", "remove"]', option[2:])))
            said = set()
            continue
        if not edits:
            raise WrongUse(f"{option} {value} belongs to no edit: there is no --add or --remove before it", _HINT)
        if option in said:
            raise WrongUse(f"{option} is given twice for {edits[-1].concept}", _HINT)
        said.add(option)
        if option == "--region":
            edits[-1] = replace(edits[-1], region=value)
        else:
            edits[-1] = replace(edits[-1], strength=_number(value))
    for edit in edits:
        if not edit.region:
            raise WrongUse(f"--{edit.action} {edit.concept} has no --region", f"{_HINT}; --region all is all of it")
    return edits


def _values(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each of the four options with its value, in their order."""
    values, waiting = [], iter(words)
    for word in waiting:
        option, sign, value = word.partition("=")
        if option in _OPTIONS:
            values.append((option, value if sign else next(waiting, "")))
    return values


def _number(text: str) -> float:
    try:
        return checked_strength(float(text))
    except ValueError:
        raise WrongUse(f"--strength '{text}' is no number", "1 sets the units, 0.5 goes half of the way") from None
