"""The cursor on a layer's map, and the cells that are selected there."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from ndissect.tui.app.painting_edits import Cell


@dataclass
class Selection:
    """A cursor on a map of ``grid`` = (rows, columns) cells, and a set of cells.

    While a rectangle is drawn out, ``_anchor`` is the corner that stays, and ``_before`` what was selected without it.
    """

    grid: tuple[int, int] = (1, 1)
    cursor: Cell = (0, 0)
    cells: Set[Cell] = frozenset()
    _anchor: Cell | None = None
    _before: Set[Cell] = frozenset()

    @property
    def edited(self) -> tuple[Cell, ...]:
        """The cells that an edit is for, by row: those selected, or else the cursor's."""
        return tuple(sorted(self.cells)) or (self.cursor,)

    def fit(self, grid: tuple[int, int]) -> None:
        """Stay on a map of another size: the cursor goes to its middle, nothing is selected."""
        if grid != self.grid:
            self.grid, self.cursor = grid, (grid[0] // 2, grid[1] // 2)
            self.clear()

    def move(self, down: int, right: int, *, extend: bool = False) -> None:
        """Move the cursor by cells; ``extend``: select the rectangle from where it first stood to where it stands."""
        self.move_to((self.cursor[0] + down, self.cursor[1] + right), extend=extend)

    def move_to(self, cell: Cell, *, extend: bool = False) -> None:
        """Move the cursor to ``cell``, or as near as the map reaches; ``extend`` as in ``move``."""
        row, column = (min(max(i, 0), n - 1) for i, n in zip(cell, self.grid, strict=True))
        if not extend:
            self._anchor = None
        elif self._anchor is None:
            self._anchor, self._before = self.cursor, self.cells
        self.cursor = row, column
        if self._anchor is not None:
            rows, columns = (range(min(a, b), max(a, b) + 1) for a, b in zip(self._anchor, self.cursor, strict=True))
            self.cells = self._before | {(r, c) for r in rows for c in columns}

    def toggle(self) -> None:
        """Select the cursor's cell, or no longer."""
        self._anchor = None
        self.cells = self.cells ^ {self.cursor}

    def clear(self) -> None:
        """Select nothing."""
        self._anchor, self.cells = None, frozenset()
