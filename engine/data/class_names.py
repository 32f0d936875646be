"""The names of a labeller's classes, and which of them are concepts, from a file or from what a network says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ndissect.engine.data.concepts import LARGEST_NUMBER, LONGEST_CATEGORY, LONGEST_CONCEPT
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.regular import read_regular

#: The category of a class that names none.
CATEGORY = "object"
#: Names that mean that a class is no concept, normalised.
NO_CONCEPT = frozenset(("", "background", "void", "other", "unlabelled", "unlabeled", "ignore", "n/a"))

#: What a class is called and which category it is of; None where it is no concept.
ClassName = tuple[str, str] | None

_MOST_BYTES = 4 << 20
_WRITTEN = "one name a line, or a table with the columns number, name and perhaps category; numbers count from 0"


def normal_name(name: str) -> str:
    """``name`` as names are compared: small letters, ``_`` and ``-`` as spaces, without Broden's endings."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


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
    """The classes that a file names, class 0 first: one name a line, or a table ``number,name[,category]``.

    NDError where the file cannot be read, WrongUse where it says something else.
    """
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise WrongUse(f"there is no file {path}", f"--labeller-classes: {_WRITTEN}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise NDError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}", f"it holds {_WRITTEN}") from e
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    header = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
    names = _from_table(path, lines) if {"number", "name"} <= set(header) else [_class(line) for line in lines]
    if not any(names):
        raise WrongUse(f"{path} names no concept", f"it holds {_WRITTEN}")
    return tuple(names)


def _from_table(path: Path, lines: Sequence[str]) -> list[ClassName]:
    by_number: dict[int, ClassName] = {}
    rows = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    for line, row in enumerate(rows, 2):
        number = (row.get("number") or "").strip().removesuffix(".0")
        if not number and not any(isinstance(cell, str) and cell.strip() for cell in row.values()):
            continue
        if not number.isdigit() or int(number) > LARGEST_NUMBER:
            raise WrongUse(f"{path}, line {line}: {number!r} is no number of a class", f"it holds {_WRITTEN}")
        if int(number) in by_number:
            raise WrongUse(f"{path}, line {line}: class {number} is named twice", "name each class once")
        by_number[int(number)] = _class(row.get("name") or "", (row.get("category") or "").strip() or CATEGORY)
    return [by_number.get(n) for n in range(max(by_number, default=-1) + 1)]


def _class(name: str, category: str = CATEGORY) -> ClassName:
    name, category = name.strip(), category.strip()
    if normal_name(name.strip("_")) in NO_CONCEPT:
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
