"""Checkpoints in the order of their numbers: which number of each, whence, and which files have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.experiments.checkpoint_names import Numbers, read_numbers, same_word, stem_of
from ndissect.store.errors import WrongUse

_NUMBER = "number"
# Under which names a checkpoint itself says how far its training was.
_ENTRIES = {"epoch": ("epoch",), "step": ("global_step", "step"), "iteration": ("iteration", "iter", "global_step")}
_NAMED = 6


@dataclass(frozen=True)
class Numbered:
    """Checkpoints with their numbers, the smallest first.

    ``title``: what the numbers are called in a table; ``axis``: the same, with what they are where a name does not say
    it; ``notes``: what the user should know of them.
    """

    numbers: list[tuple[Path, float]]
    title: str
    axis: str
    notes: tuple[str, ...]


def number_checkpoints(paths: Sequence[Path], factor: str | None) -> Numbered:
    """The number of each of the checkpoints ``paths``, by ndissect.engine.experiments.checkpoint_names.

    A checkpoint without one in its name may say itself how far its training was. Those without any are left out, which
    a note tells. WrongUse where none has a number.
    """
    read = read_numbers([stem_of(path.name) for path in paths], factor)
    numbers = {path: value for path, value in zip(paths, read.values, strict=True) if value is not None}
    by_themselves = {path: value for path in paths if path not in numbers for value in _own(path, read, factor)}
    numbers |= by_themselves
    if not numbers:
        raise WrongUse(
            f"{paths[0]} has no number in its name: its place in the series is unknown",
            "rename it, or write a series.csv beside it with the columns weights and a factor",
        )
    ordered = sorted(numbers.items(), key=lambda item: item[1])
    known = bool(read.word) or len(by_themselves) == len(numbers)
    axis = factor if factor is not None and known else f"{_NUMBER}: {read.where}"
    title = axis if factor is not None else _NUMBER
    notes = [] if factor is not None and known else [axis]
    if by_themselves:
        said = [f"{path.name} {value:g}" for path, value in by_themselves.items()]
        notes.append(f"by what the checkpoint itself says: {_listed(said)}")
    without = [path.name for path in paths if path not in numbers]
    if without:
        notes.append(f"{len(without)} without such a number left out: {_listed(without)}")
    return Numbered(ordered, title, axis, (*notes, *_ties(ordered, title)))


def _own(path: Path, read: Numbers, factor: str | None) -> list[float]:
    """The number that a checkpoint holds of what is asked for: one, or none."""
    from ndissect.engine.checkpoints.read import whole_number  # noqa: PLC0415 - it imports torch

    asked = read.word or factor or ""
    names = next((names for word, names in _ENTRIES.items() if same_word(asked, word)), ())
    number = whole_number(path, names) if names else None
    return [] if number is None else [float(number)]


def _ties(ordered: Sequence[tuple[Path, float]], title: str) -> list[str]:
    """A note for numbers that several checkpoints have."""
    by_number: dict[float, list[str]] = {}
    for path, number in ordered:
        by_number.setdefault(number, []).append(stem_of(path.name))
    shared = [f"{number:.10g} of {', '.join(names)}" for number, names in by_number.items() if len(names) > 1]
    if not shared:
        return []
    return [f"several networks have the same {title.partition(':')[0]}, a plot shows their mean: {_listed(shared)}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
