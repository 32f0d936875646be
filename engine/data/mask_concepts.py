"""The concepts of label maps that a table of names describes, and what the pixels of each map mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ndissect.engine.data.concept_names import normal_name
from ndissect.engine.data.concepts import LARGEST_NUMBER
from ndissect.engine.data.label_maps import MapValues, map_values
from ndissect.engine.data.name_table import NameRow
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError

#: The category of what no table gives one.
CATEGORY = "object"

#: Numbers that are no label unless a table names them: the least and the largest of 8 and of 16 bits.
VOID = (0, 255, LARGEST_NUMBER)


class MaskConcepts:
    """The concepts that the rows of a table of names speak of. It grows by :meth:`add`, until a table is made of it.

    Rows of one name and category are one concept. It has the first of their numbers, so that maps and tables agree;
    a concept whose number is 0, is taken or is not given gets one above all others: 0 is no label anywhere else.
    """

    def __init__(self, rows: Sequence[NameRow], table: str) -> None:
        self.table = table
        self.rows = [row if row.category else replace(row, category=CATEGORY) for row in rows]
        self._number: dict[tuple[str, str], int] = {}
        taken: set[int] = set()
        later = []
        for row in self.rows:
            if row.void or (row.name, row.category) in self._number:
                continue
            if not row.number or row.number in taken:
                later.append(row)
                continue
            taken.add(row.number)
            self._number[row.name, row.category] = row.number
        self._next = max(taken, default=0) + 1
        for row in later:
            self.add(row.name, row.category)

    def add(self, name: str, category: str) -> int:
        """The number of the concept ``name`` of ``category``, a new one where there is none yet."""
        if (name, category) not in self._number:
            if self._next > LARGEST_NUMBER:
                raise NDError(f"{self.table} names more concepts than the {LARGEST_NUMBER:,} that are read", "")
            self._number[name, category] = self._next
            self._next += 1
        return self._number[name, category]

    def find(self, text: str, category: str) -> int | None:
        """The number of the concept that is called ``text``, of ``category`` first; None where there is none."""
        alike = [(c != category, number) for (name, c), number in self._number.items() if _same(name, text)]
        return min(alike)[1] if alike else None

    def of_value(self, value: int) -> int | None:
        """The number of the concept that a pixel of ``value`` means, 0 for no label; None where no row says."""
        row = next((row for row in self.rows if row.number == value), None)
        return None if row is None else self._concept(row)

    def values(self, part: str) -> MapValues:
        """What the pixels of maps mean whose name has the ``part``, which is a category, a concept, or says nothing.

        Of a category: its numbers alone. Of a concept: every pixel that is not 0.
        """
        rows = [row for row in self.rows if _same(row.category, part)] or self.rows
        concept = self.find(part, "") if part and rows is self.rows else None
        if concept is not None:
            return map_values(self.table, {**dict.fromkeys(range(1, LARGEST_NUMBER + 1), concept), 0: 0})
        numbers: dict[int, int] = {}
        for row in rows:
            if row.number is not None:
                numbers.setdefault(row.number, self._concept(row))
        colours = {row.colour: self._concept(row) for row in rows if row.colour is not None}
        if colours:
            # Black is what nobody painted.
            colours.setdefault((0, 0, 0), 0)
        return map_values(self.table, numbers, VOID, colours)

    def concept_table(self) -> ConceptTable:
        """All concepts, sorted by number; categories in the order in which they came."""
        rows = sorted((number, name, category) for (name, category), number in self._number.items())
        categories = tuple(dict.fromkeys(category for _, category in self._number))
        return ConceptTable(
            np.array([number for number, _, _ in rows], np.int32),
            tuple(name for _, name, _ in rows),
            np.array([categories.index(category) for _, _, category in rows], np.int32),
            categories,
        )

    def _concept(self, row: NameRow) -> int:
        return 0 if row.void else self._number[row.name, row.category]


def unnamed(numbers: Iterable[int], parts: Iterable[str]) -> list[NameRow]:
    """Names for the ``numbers`` of maps that no table names: ``class 3``, and ``hair 3`` of a part.

    The one number of a part is called as the part is.
    """
    values = list(numbers)
    alone = len(values) == 1
    return [
        NameRow(n, part if part and alone else f"{part or 'class'} {n}", part or CATEGORY)
        for part in parts
        for n in values
    ]


def _same(name: str, text: str) -> bool:
    return normal_name(name) == normal_name(text)


def by_number(rows: Iterable[NameRow]) -> Mapping[int, str]:
    """The name of each number, the first where several rows have it."""
    names: dict[int, str] = {}
    for row in rows:
        if row.number is not None:
            names.setdefault(row.number, row.name)
    return names
