"""The number of a checkpoint in its name: after the word that is asked for, or in the same place in all names.

``epoch=3-step=1200-acc=0.71`` has three numbers, each after a word. Trainers write them with other separators, before
their words (``10epochs``), with zeros before them, and shortened (``iter_160k``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: The suffixes of checkpoints.
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".pt.tar", ".pth.tar", ".ckpt.tar")
# A minus is a sign after an equals sign, and separates otherwise.
_NUMBER = re.compile(r"(?P<number>(?:(?<==)-)?\d+(?:\.\d+)?(?:[eE][-+]\d+)?)(?P<unit>[kKM](?![^\W\d_]))?")
_WORD_BEFORE = re.compile(r"([^\W\d_]+)[\W_]*$")
_WORD_AFTER = re.compile(r"[^\W\d_]+")
_UNITS = {"k": 1e3, "K": 1e3, "M": 1e6}
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Words that say how far training was, as they are asked for where nobody asks; the first that a name has.
_PROGRESS = ("epoch", "iteration", "step")
# Of a word that a name may shorten: it, ep, acc.
_SHORTEST = 2


@dataclass(frozen=True)
class NamedNumber:
    """A number in a name: ``before`` is the text since the number before it, ``after`` the word right behind."""

    before: str
    value: float
    after: str

    @property
    def word(self) -> str:
        """The word before the number, or ""."""
        found = _WORD_BEFORE.search(self.before)
        return _CAPITAL.split(found[1])[-1] if found else ""


@dataclass(frozen=True)
class Numbers:
    """The number of each name, None where it has none; ``word`` as it was asked for, "" where the names lack it.

    ``where``: what the numbers are, as in ``what follows acc-``, or ``epoch``.
    """

    values: tuple[float | None, ...]
    word: str
    where: str


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name is a checkpoint."""
    return name.lower().endswith(SUFFIXES)


def stem_of(name: str) -> str:
    """``name`` without the suffix of a checkpoint."""
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def numbers_in(stem: str) -> list[NamedNumber]:
    """The numbers of a checkpoint's name, in their order."""
    numbers = []
    end = 0
    for found in _NUMBER.finditer(stem):
        after = _WORD_AFTER.match(stem, found.end())
        value = float(found["number"]) * _UNITS.get(found["unit"] or "", 1)
        numbers.append(NamedNumber(stem[end : found.start()], value, after[0] if after else ""))
        end = found.end()
    return numbers


def read_numbers(stems: Sequence[str], factor: str | None) -> Numbers:
    """The number of each of the names ``stems``: after the last word of ``factor``, else in the same place in them all.

    A word may be shortened or in the plural, and in capitals. Without a factor the words of progress are asked for.
    """
    names = [numbers_in(stem) for stem in stems]
    for asked in [factor] if factor is not None else _PROGRESS:
        words = re.findall(r"[^\W\d_]+", asked)
        values = _after_word(names, words[-1]) if words else None
        if values is not None:
            return Numbers(values, asked, asked)
    return _in_one_place(names)


def same_word(word: str, asked: str) -> bool:
    """Whether two words are the same but for capitals and a plural."""
    return _singular(word) == _singular(asked)


def _singular(word: str) -> str:
    lower = word.lower()
    return lower[:-1] if len(lower) > _SHORTEST and lower.endswith("s") and not lower.endswith("ss") else lower


def _shortened(word: str, asked: str) -> bool:
    """Whether one of two words begins with the other."""
    short, long = sorted((_singular(word), _singular(asked)), key=len)
    return len(short) >= _SHORTEST and long.startswith(short)


def _after_word(names: Sequence[Sequence[NamedNumber]], asked: str) -> tuple[float | None, ...] | None:
    """The numbers that belong to the word, as it is or shortened; None where no name has one."""
    for same in (same_word, _shortened):
        words = Counter(_singular(n.word) for name in names for n in name if same(n.word, asked))
        best = words.most_common(1)[0][0] if words else None
        values = tuple(_of_word(name, best, asked) for name in names)
        if any(value is not None for value in values):
            return values
    return None


def _of_word(name: Sequence[NamedNumber], word: str | None, asked: str) -> float | None:
    """The first number after ``word``; else the first that stands right before the word ``asked``."""
    after = next((n.value for n in name if word is not None and _singular(n.word) == word), None)
    return after if after is not None else next((n.value for n in name if same_word(n.after, asked)), None)


def _in_one_place(names: Sequence[Sequence[NamedNumber]]) -> Numbers:
    """The last numbers that differ, of those with the same text before them; else counted from the end of the names."""
    with_numbers = [name for name in names if name]
    common = Counter(text for name in with_numbers for text in {n.before for n in name})
    texts = dict.fromkeys(n.before for name in with_numbers for n in name)
    differing = [
        text
        for text in texts
        if common[text] > 1 and len({_after_text(name, text) for name in with_numbers} - {None}) > 1
    ]
    if differing:
        most = max(common[text] for text in differing)
        text = [text for text in differing if common[text] == most][-1]
        told = re.sub(r"^[\W_]+(?=\w)", "", text)
        return Numbers(tuple(_after_text(name, text) for name in names), "", f"what follows {told}")
    least = min(map(len, with_numbers), default=0)
    at = next((k for k in range(1, least + 1) if len({name[-k].value for name in with_numbers}) > 1), 1)
    values = tuple(name[-at].value if len(name) >= at else None for name in names)
    where = "the last one in the name" if at == 1 else f"the one that is {at} from the end of the name"
    return Numbers(values, "", where)


def _after_text(name: Sequence[NamedNumber], text: str) -> float | None:
    return next((n.value for n in name if n.before == text), None)
