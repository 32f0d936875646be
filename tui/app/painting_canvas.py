"""The picture as large as there is room for, with the cursor on the layer's map; the mouse selects cells there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from typing import Any

from PIL import Image
from rich.segment import Segment
from textual import events
from textual._compositor import ChopsUpdate
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ndissect.tui.app.painting_cells import Placement, draw, pixels, place
from ndissect.tui.app.painting_edits import Cell
from ndissect.tui.app.painting_graphics import Scene, graphics
from ndissect.tui.app.painting_pixels import PixelPlacement, place_pixels
from ndissect.tui.app.strips import PLAIN, strip
from ndissect.tui.pictures.graphics import Protocol, cell_size


class Canvas(Widget):
    """Shows a picture of a sample. ``select(cell, extend)`` is called where the mouse is pressed or dragged.

    In the terminal's pixels by ``protocol``, which are sent after the text, or else in blocks, which are text.
    """

    def __init__(self, select: Callable[[Cell, bool], object], *, unicode: bool, protocol: Protocol = "blocks") -> None:
        super().__init__(id="canvas")
        self._select, self._unicode = select, unicode
        self._graphics = graphics(protocol)
        self._all_lost = False
        self._picture: Image.Image | None = None
        self._grid = (1, 1)
        self._cursor: Cell | None = (0, 0)
        self._selected: Set[Cell] = frozenset()
        self._edited: Set[Cell] = frozenset()
        self._strips: list[Strip] = []
        self._drawn_for: tuple[Any, ...] = ()
        self._dragged_to: Cell | None = None

    def show(
        self,
        picture: Image.Image | None,
        grid: tuple[int, int],
        cursor: Cell | None,
        selected: Set[Cell],
        edited: Set[Cell] = frozenset(),
    ) -> None:
        """Show ``picture`` with marks on it; ``cursor`` None: without any.

        ``edited`` cells are marked in pixels alone: in blocks there is no room for it.
        """
        now, placement = (picture, grid, cursor, selected), self.placement
        before, self._edited = (self._picture, self._grid, self._cursor, self._selected), edited
        self._picture, self._grid, self._cursor, self._selected = now
        if self._graphics is not None:
            if placement != self.placement:
                self.refresh()  # takes away what is left of a larger one
            self.call_after_refresh(self._send)
        elif now != before:
            old = self._strips
            self._draw()
            if len(old) != len(self._strips):
                self.refresh()
            else:  # a cursor that moves changes a few lines
                changed = (y for y, (a, b) in enumerate(zip(old, self._strips, strict=True)) if a != b)
                self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    @property
    def placement(self) -> Placement | None:
        """Where the picture stands, None where there is none; of blocks a ruler is on its left and above it."""
        room = self.size
        if self._picture is None or room.width < 2 or room.height < 2:
            return None
        if self._graphics is not None:
            return place_pixels(self._grid, self._picture.size, room.width - 1, room.height, cell_size())
        return place(self._grid, self._picture.size, room.width - 1, room.height - 1)

    # In pixels

    @property
    def in_pixels(self) -> bool:
        """Whether the picture is drawn in the terminal's pixels."""
        return self._graphics is not None

    def forget(self) -> None:
        """The terminal may have lost anything that it showed."""
        self._all_lost = True

    def after_text(self, lines: Collection[int]) -> None:
        """Text was written over ``lines`` of the screen; the picture is sent again as far as it was there."""
        self._send([line - self.region.y for line in lines if self.region.y <= line < self.region.bottom])

    def removal(self) -> str:
        """What takes the picture off the terminal, before other programs have it."""
        return self._graphics.remove() if self._graphics is not None else ""

    def _send(self, lost: Collection[int] = ()) -> None:
        """Bring the terminal's pixels up to date."""
        driver, region = self.app._driver, self.region
        if self._graphics is None or driver is None:
            return
        placement = self.placement if region and self.is_attached else None
        if self._picture is None or not isinstance(placement, PixelPlacement):
            sent = self._graphics.hide()
        else:
            where = (region.x, region.y, placement, self._picture)
            scene = Scene(*where, self._cursor, self._selected, self._edited)
            sent = self._graphics.show(scene, lost, all_lost=self._all_lost)
            self._all_lost = False
        if sent:
            driver.write(sent)
            driver.flush()

    # In blocks

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
        if self._graphics is None and placement is not None and self._picture is not None:
            how = {"unicode": self._unicode, "colors": not self.app.no_color}
            self._strips = draw(pixels(self._picture, placement), placement, self._cursor, self._selected, **how)

    def render(self) -> Any:
        """Nothing: the picture is drawn by ``render_line``."""
        return ""

    # The mouse

    @property
    def _margin(self) -> int:
        """Columns and lines that the ruler takes."""
        return 1 if self._graphics is None else 0

    def _cell_at(self, event: events.MouseEvent) -> Cell | None:
        placement = self.placement
        return placement.cell_at(event.y - self._margin, event.x - self._margin) if placement is not None else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin a selection."""
        placement, cell = self.placement, self._cell_at(event)
        if placement is None or cell is None:
            return
        if event.x >= placement.columns + self._margin or event.y >= placement.lines + self._margin:
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


def written_lines(written: object, height: int) -> Collection[int]:
    """The lines of a screen of ``height`` on which Textual put text when it displayed ``written``."""
    if isinstance(written, ChopsUpdate):
        return {y for y, _, _ in written.spans}
    return () if written is None else range(height)
