"""The picture as large as there is room for, with the cursor on the layer's map; the mouse selects cells there."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from PIL import Image
from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ndissect.tui.app.painting_cells import Placement, draw, pixels, place
from ndissect.tui.app.painting_edits import Cell
from ndissect.tui.app.strips import PLAIN, strip


class Canvas(Widget):
    """Shows a picture of a sample. ``select(cell, extend)`` is called where the mouse is pressed or dragged."""

    def __init__(self, select: Callable[[Cell, bool], object], *, unicode: bool) -> None:
        super().__init__(id="canvas")
        self._select, self._unicode = select, unicode
        self._picture: Image.Image | None = None
        self._grid = (1, 1)
        self._cursor: Cell | None = (0, 0)
        self._selected: Set[Cell] = frozenset()
        self._strips: list[Strip] = []
        self._drawn_for: tuple[Any, ...] = ()
        self._dragged_to: Cell | None = None

    def show(
        self, picture: Image.Image | None, grid: tuple[int, int], cursor: Cell | None, selected: Set[Cell]
    ) -> None:
        """Show ``picture`` with marks on it; ``cursor`` None: without any."""
        now = (picture, grid, cursor, selected)
        if now != (self._picture, self._grid, self._cursor, self._selected):
            self._picture, self._grid, self._cursor, self._selected = now
            before = self._strips
            self._draw()
            if len(before) != len(self._strips):
                self.refresh()
            else:  # a cursor that moves changes a few lines
                changed = (y for y, (a, b) in enumerate(zip(before, self._strips, strict=True)) if a != b)
                self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    @property
    def placement(self) -> Placement | None:
        """Where the picture stands, None where there is none; a ruler is on its left and above it."""
        room = self.size
        if self._picture is None or room.width < 2 or room.height < 2:
            return None
        return place(self._grid, self._picture.size, room.width - 1, room.height - 1)

    def render_line(self, y: int) -> Strip:
        """A line of the picture."""
        width = self.size.width
        self._draw()
        if y >= len(self._strips):
            return strip((), width)
        line = self._strips[y]
        return Strip([*line, Segment(" " * (width - line.cell_length), PLAIN)], width)

    def _draw(self) -> None:
        """Bring the lines up to date with the picture, the marks and the size."""
        placement = self.placement
        wanted = (placement, self._picture, self._cursor, self._selected)
        if wanted == self._drawn_for:
            return
        self._drawn_for, self._strips = wanted, []
        if placement is not None and self._picture is not None:
            how = {"unicode": self._unicode, "colors": not self.app.no_color}
            self._strips = draw(pixels(self._picture, placement), placement, self._cursor, self._selected, **how)

    def render(self) -> Any:
        """Nothing: the picture is drawn by ``render_line``."""
        return ""

    # The mouse

    def _cell_at(self, event: events.MouseEvent) -> Cell | None:
        placement = self.placement
        return placement.cell_at(event.y - 1, event.x - 1) if placement is not None else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin a selection."""
        placement, cell = self.placement, self._cell_at(event)
        if placement is None or cell is None or event.x > placement.columns or event.y > placement.lines:
            return
        self.capture_mouse()
        self._dragged_to = cell
        self._select(cell, False)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Draw the selection out."""
        cell = self._cell_at(event)
        if self._dragged_to is not None and cell is not None and cell != self._dragged_to:
            self._dragged_to = cell
            self._select(cell, True)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """The selection is done."""
        self.release_mouse()
        self._dragged_to = None
