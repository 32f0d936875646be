"""The names of a labeller's classes, and which of them are concepts, from a file or from what a network says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ndissect.engine.data.concept_names import is_no_concept, normal_name
from ndissect.engine.data.concepts import LARGEST_NUMBER, LONGEST_CATEGORY, LONGEST_CONCEPT
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.name_table import MOST_BYTES, read_name_table
from ndissect.store.errors import NDError, WrongUse

#: The category of a class that names none.
CATEGORY = "object"

#: What a class is called and which category it is of; None where it is no concept.
ClassName = tuple[str, str] | None

_WRITTEN = "one name a line, a table with the columns number and name, or JSON; classes count from 0"


def class_names(given: object) -> tuple[ClassName, ...] | None:
    """The classes that a network declares, class 0 first; None where ``given`` is no such declaration.

    A sequence of names or of (name, category) pairs, or a mapping of class numbers to names, as transformers' id2label.
    """
    if isinstance(given, Mapping):
        numbers = {int(n): name for n, name in given.items() if str(n).isdigit()}
        if not numbers or len(numbers) < len(given) or max(numbers) > LARGEST_NUMBER:
            return None
        return class_names([numbers.get(n, "") for n in range(max(numbers) + 1)])
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        return None
    named = []
    for one in given:
        pair = (one, CATEGORY) if isinstance(one, str) else one
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            return None
        named.append(_class(*pair))
    return tuple(named)


def read_class_names(path: Path) -> tuple[ClassName, ...]:
    """The classes that a file names, class 0 first, of every form that ndissect.engine.data.name_table reads.

    A class without a name, or with one such as background, is no concept. NDError where the file cannot be read,
    WrongUse where it says something else.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise WrongUse(f"there is no file {path}", f"--labeller-classes: {_WRITTEN}")
    faults: list[BadFile] = []
    try:
        rows = read_name_table(read_file(path, str(path), MOST_BYTES), str(path), faults.append, nameless=True)
    except BadFile as fault:
        raise NDError(fault.message, f"it holds {_WRITTEN}") from fault
    by_number = {row.number: row for row in rows if row.number is not None}
    if faults or len(by_number) < len(rows):
        what = faults[0].message if faults else f"{path} names a colour, or a class in two categories"
        raise WrongUse(what, f"it holds {_WRITTEN}")
    named = [by_number.get(n) for n in range(max(by_number, default=-1) + 1)]
    names = tuple(None if row is None else _class(row.name, row.category or CATEGORY) for row in named)
    if not any(names):
        raise WrongUse(f"{path} names no concept", f"it holds {_WRITTEN}")
    return names


def _class(name: str, category: str = CATEGORY) -> ClassName:
    name, category = name.strip(), category.strip()
    if is_no_concept(name):
        return None
    if len(name) > LONGEST_CONCEPT:
        raise WrongUse(f"the name of a class has {len(name):,} characters", f"at most {LONGEST_CONCEPT:,}")
    if not category or "/" in category or len(category.encode()) > LONGEST_CATEGORY:
        raise WrongUse(f"{category[:40]!r} is no name of a category", "take one such as object, part or material")
    return name, category


def distinct(names: Iterable[ClassName]) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...]]:
    """The concepts that classes name, each once, and of each class the number of its concept from 1, or 0 for none.

    Classes whose names are the same but for case, ``_`` and ``-`` are one concept.
    """
    concepts: dict[str, tuple[int, tuple[str, str]]] = {}
    numbers = []
    for one in names:
        if one is None:
            numbers.append(0)
            continue
        number, _ = concepts.setdefault(normal_name(one[0]), (len(concepts) + 1, one))
        numbers.append(number)
    return tuple(named for _, named in concepts.values()), tuple(numbers)
