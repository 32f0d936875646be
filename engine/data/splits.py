"""The splits of a data set by the words that people use for them."""

from __future__ import annotations

from collections.abc import Iterable

_TRAIN = frozenset(("train", "training", "trn"))
_VAL = frozenset(("val", "valid", "validation", "dev"))
_TEST = frozenset(("test", "testing", "tst"))


def split_called(word: str) -> str | None:
    """``train`` or ``val`` for a word that names a split, None for any other; a test split counts as ``val``."""
    lower = word.strip().lower()
    return "train" if lower in _TRAIN else "val" if lower in _VAL | _TEST else None


def note_of_test(words: Iterable[str]) -> tuple[str, ...]:
    """What a user is told where the split of some images is called test; nothing where none is."""
    if any(word.strip().lower() in _TEST for word in words):
        return ("images of the split test count as val",)
    return ()
