"""Up to three tables side by side, each opened from the one on its left, and what covers them."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Horizontal

from ndissect.tui.app.covers import Cover
from ndissect.tui.app.listing import Item, Listing
from ndissect.tui.app.table import Table
from ndissect.tui.pictures.glyphs import Glyphs

#: Columns from which two and three tables are shown.
TWO, THREE = 120, 160


class Panes(Horizontal):
    """The tables. ``depth`` (0 to 2) says which of ``levels`` the keys move; over them lie ``covers``.

    ``marked`` says whether an item is marked. ``rearranged`` is called where other tables are shown, before they are
    drawn.
    """

    def __init__(self, glyphs: Glyphs, marked: Callable[[Item], bool], rearranged: Callable[[], None]) -> None:
        super().__init__(id="panes")
        self.root, self.units, self.unit, self._cover_table = self.tables = tuple(
            Table(glyphs, marked, id=name) for name in ("root", "units", "unit", "cover")
        )
        self.levels = self.tables[:3]
        self.depth = 0
        self.covers: list[Cover] = []
        self._rearranged = rearranged

    def compose(self) -> ComposeResult:
        """All tables; those that do not fit are not displayed."""
        yield from self.tables

    @property
    def table(self) -> Table:
        """The table that keys move."""
        return self._cover_table if self.covers else self.levels[self.depth]

    @property
    def listing(self) -> Listing | None:
        """What that table shows."""
        return self.table.listing

    @property
    def cover(self) -> Cover | None:
        """The uppermost cover."""
        return self.covers[-1] if self.covers else None

    @property
    def unit_here(self) -> Item | None:
        """The unit that the reader is at: the one whose page this is, else the one under the cursor."""
        if not self.covers and self.depth == 2:
            return self.units.item
        item = self.table.item
        return item if item.kind == "unit" else None

    def show_depth(self, depth: int) -> None:
        """Give the keys to the table ``depth``."""
        self.depth = depth
        self.rearrange()

    def show_cover(self, cover: Cover) -> None:
        """Show ``cover`` over the tables and over other covers."""
        self.covers.append(cover)
        self._cover_table.forget()
        self._cover_table.show(cover.listing)
        self.rearrange()

    def uncover(self) -> None:
        """Take the uppermost cover away."""
        self.covers.pop()
        self._cover_table.show(self.covers[-1].listing if self.covers else None)
        self.rearrange()

    def drop_covers(self) -> None:
        """Take all covers away; ``rearrange`` shows what is below."""
        self.covers.clear()
        self._cover_table.show(None)

    def forget(self) -> None:
        """Forget how listings were left: another store is shown."""
        for table in self.tables:
            table.forget()

    def redraw(self) -> None:
        """Draw all tables again: marks have changed."""
        for table in self.tables:
            table.refresh()

    def rearrange(self) -> None:
        """Show the tables that fit."""
        width = self.app.size.width
        count = 1 if width < TWO else 2 if width < THREE else 3
        first = max(0, min(self.depth if count == 1 else self.depth - (self.depth == 2), 3 - count))
        with self.app.batch_update():  # one picture, not one for each change
            for level, table in enumerate(self.levels):
                table.display = not self.covers and first <= level < first + count
                table.set_class(level > first, "beside")
            self._cover_table.display = bool(self.covers)
            self._rearranged()
