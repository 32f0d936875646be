"""What a table shows: columns, the cells of a row, what a row stands for, and the fields that filters look at.

Plain data over numpy arrays. Whoever reads a store makes a Listing; the Table widget draws whatever listing it gets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ndissect.tui.app.query import EVERYTHING, Fields, Query

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bar:
    """A cell that is drawn as a bar: ``share`` of the column's width, 0 to 1."""

    share: float


@dataclass(frozen=True)
class Stack:
    """A cell that is drawn as a bar of letters, one for each part: (letter, size), as shares of ``full``."""

    parts: tuple[tuple[str, int], ...]
    full: int


Cell = str | Bar | Stack


@dataclass(frozen=True)
class Column:
    """A column of ``width`` cells.

    ``grows``: takes the room that is left, up to ``most`` cells; ``bar``: takes what is left then; ``drop``: columns
    with the highest go first where there is no room, 0 never goes; ``sort``: gives the (N,) keys by which rows are
    sorted; ``descending``: which way is asked for first; ``cut_end``: a text that is too long loses its end, not its
    middle.
    """

    title: str
    width: int
    right: bool = False
    grows: bool = False
    most: int = 1000
    drop: int = 0
    sort: Callable[[], npt.NDArray[Any]] | None = None
    descending: bool = False
    bar: bool = False
    cut_end: bool = False


@dataclass(frozen=True)
class Item:
    """What a row stands for: opened by enter, marked, compared, found again after a reload.

    ``layer`` "" is all layers; ``concept`` is its number in the data set, ``output`` that of a class among the
    network's outputs, ``name`` whatever else tells items apart.
    """

    kind: Literal["store", "layer", "unit", "concept", "category", "class", "image", "action", "viewer", "none"]
    layer: str = ""
    unit: int = -1
    concept: int = -1
    name: str = ""
    output: int = -1


NOTHING = Item("none")


@dataclass(frozen=True)
class Order:
    """How rows are sorted: by which column, and which way; column -1 leaves them as they come."""

    column: int = -1
    descending: bool = False


@dataclass(frozen=True, eq=False)
class Listing:
    """Rows of a table.

    ``name`` says what is listed and ``subject`` of what: together they identify a listing whose cursor, order and
    filter are remembered. ``cells(row)`` gives a cell a column, or one text across all of them, ``item(row)`` what the
    row stands for, ``plain(row)`` the values of an export, ``copied(row)`` what `y` puts on the clipboard.
    ``headings`` are rows that the cursor passes over, with nothing to export or copy; the rows below one belong to it,
    and only listings without any can be sorted. ``empty`` says why there is nothing, ``notes`` what to know of what
    there is. ``faint(row)``: drawn to stand back.
    """

    name: str
    subject: str
    columns: tuple[Column, ...]
    count: int
    cells: Callable[[int], Sequence[Cell]]
    item: Callable[[int], Item]
    plain: Callable[[int], Mapping[str, Any]]
    copied: Callable[[int], str]
    fields: Callable[[], Fields] = Fields
    empty: str = "nothing to show"
    order: Order = Order()
    headings: frozenset[int] = frozenset()
    faint: Callable[[int], bool] = lambda _: False
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What this listing is remembered by."""
        return self.name, self.subject

    @cached_property
    def filterable(self) -> Fields:
        """What filters look at, made when the first one asks."""
        return self.fields()

    def find(self, item: Item) -> int | None:
        """The first row that stands for ``item``."""
        return next((row for row in range(self.count) if self.item(row) == item), None)

    @property
    def sortable(self) -> tuple[int, ...]:
        """The columns that the rows can be sorted by."""
        if self.headings:
            return ()
        return tuple(i for i, column in enumerate(self.columns) if column.sort is not None)

    def arrange(
        self,
        query: Query = EVERYTHING,
        order: Order | None = None,
        marked: Callable[[Item], bool] = lambda _: False,
    ) -> Rows:
        """The rows that pass ``query``, in ``order``, (n,) int64; a heading passes where a row below it does.

        Raises Mistake where the query asks for what the rows have not.
        """
        order = self.order if order is None else order
        rows = np.arange(self.count)
        if query.terms:
            marks = {"marked": lambda: np.array([marked(self.item(row)) for row in range(self.count)], bool)}
            fields = replace(self.filterable, flags={**self.filterable.flags, **marks})
            rows = np.flatnonzero(self._with_headings(query.passes(fields, self.count)))
        if self.headings or order.column < 0:
            return rows
        keys = self.columns[order.column].sort
        if keys is None:
            return rows
        values = keys()[rows]
        unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(rows), bool)
        known, values = rows[~unknown], values[~unknown]
        if order.descending:  # reversed twice, so that rows of equal value stay in the order in which they come
            known = known[::-1][np.argsort(values[::-1], kind="stable")][::-1]
        else:
            known = known[np.argsort(values, kind="stable")]
        return np.concatenate([known, rows[unknown]])

    def _with_headings(self, passes: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        kept = passes.copy()
        heads = [*sorted(self.headings), self.count]
        for head, end in itertools.pairwise(heads):
            kept[head] = passes[head + 1 : end].any()
        return kept
