"""Which names of concepts mean the same: a file of pairs, by which data sets are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.data.concept_names import normal_name
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.tables import CONCEPT_ROWS, parse_table
from ndissect.store.errors import WrongUse

_MOST_BYTES = 1 << 24
_HINT = "write a line `sofa = couch` for each name, or a CSV table with the columns name and canonical"


@dataclass(frozen=True)
class Synonyms:
    """``canonical``: what a name becomes, by its normal_name; a name may end with its category in brackets."""

    canonical: Mapping[str, str]

    def of(self, name: str, category: str) -> tuple[str, str]:
        """The name and the category that a concept goes by: its own where the file does not say otherwise."""
        for known in (f"{name} ({category})", name):
            given = self.canonical.get(normal_name(known))
            if given is not None:
                return split_category(given, category)
        return name, category

    def matching(self, name: str, category: str) -> set[str]:
        """Those names of the file that mean this concept."""
        return {normal_name(f"{name} ({category})"), normal_name(name)} & set(self.canonical)


def split_category(text: str, category: str) -> tuple[str, str]:
    """The name and the category in ``couch (object)``; ``category`` where it names none."""
    name, bracket, rest = text.rpartition(" (")
    return (name, rest[:-1]) if bracket and name and rest.endswith(")") and len(rest) > 1 else (text, category)


def read_synonyms(path: Path | None) -> Synonyms:
    """The synonyms in the file ``path``, none where it is None.

    A file of lines ``name = canonical``, where # begins a comment, or a table with the columns ``name`` and
    ``canonical``. WrongUse for a file that is neither, and for names that go in a circle.
    """
    if path is None:
        return Synonyms({})
    try:
        data = read_file(path, str(path), _MOST_BYTES)
        pairs = _pairs(path, data)
    except (BadFile, UnicodeDecodeError) as error:
        raise WrongUse(f"no synonyms can be read: {error}".splitlines()[0], _HINT) from error
    direct: dict[str, str] = {}
    for name, canonical in pairs:
        if direct.setdefault(normal_name(name), canonical) != canonical:
            raise WrongUse(f"{path}: {name} is both {direct[normal_name(name)]} and {canonical}", "keep one of them")
    return Synonyms({name: _last(path, name, direct) for name in direct if normal_name(direct[name]) != name})


def _pairs(path: Path, data: bytes) -> list[tuple[str, str]]:
    lines = [line.split("#")[0].strip() for line in data.decode("utf-8-sig").splitlines()]
    lines = [line for line in lines if line]
    if lines and "=" not in lines[0]:
        faults: list[BadFile] = []
        table = parse_table(str(path), data, ("name", "canonical"), faults.append, CONCEPT_ROWS)
        if faults:
            raise faults[0]
        pairs = [(table.cell(row, "name"), table.cell(row, "canonical")) for _, row in table.rows]
    else:
        pairs = [(name.strip(), canonical.strip()) for name, _, canonical in (line.partition("=") for line in lines)]
    for name, canonical in pairs:
        if not name or not canonical:
            raise WrongUse(f"{path}: '{name}' = '{canonical}' is no pair of names", _HINT)
    return pairs


def _last(path: Path, name: str, direct: Mapping[str, str]) -> str:
    """What ``name`` becomes in the end, where names become others one after another."""
    seen, at = {name}, name
    while (following := normal_name(direct[at])) in direct:
        if following == at:  # it names itself
            break
        if following in seen:
            raise WrongUse(f"{path}: {name} and {following} are each other's synonyms", "say which of them is meant")
        seen.add(following)
        at = following
    return direct[at]
