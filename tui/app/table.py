"""The one table of the terminal UI: draws a listing a line at a time, whatever its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from ndissect.tui.app.listing import NOTHING, Bar, Cell, Column, Item, Listing, Order, Rows, Stack
from ndissect.tui.app.query import EVERYTHING, Mistake, Query
from ndissect.tui.app.strips import StyledText, strip
from ndissect.tui.pictures.glyphs import Glyphs
from ndissect.tui.tables.fitting import fitting, width_of

# The cursor, the mark and a space stand before the first column.
_GUTTER = 3
_GAP = 1


@dataclass
class _ListingState:
    """How the reader left a listing: where the cursor was, how rows were sorted and filtered."""

    item: Item
    order: Order
    query: Query


class _Happened(Message):
    """Something happened in ``table``."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table


class Table(Widget, can_focus=True):
    """Shows a listing: a header, the rows that pass the filter in the order asked for, and a cursor.

    ``marked`` says whether an item is marked. The table posts ``Moved`` when its cursor comes to another row or other
    rows are shown, and ``Opened`` when a row is double-clicked.
    """

    DEFAULT_CSS = "Table { width: 1fr; height: 1fr; }"

    class Moved(_Happened):
        """The cursor is on another row."""

    class Opened(_Happened):
        """A row was double-clicked."""

    class Clicked(_Happened):
        """A row or the header was clicked: keys should go to this table."""

    def __init__(self, glyphs: Glyphs, marked: Callable[[Item], bool], *, id: str) -> None:
        super().__init__(id=id)
        self.glyphs = glyphs
        self.marked = marked
        self.listing: Listing | None = None
        self.order = Order()
        self.current_query = EVERYTHING
        self.rows: Rows = np.arange(0)
        self.cursor = 0  # index into ``rows``
        self.top = 0  # the first row that is drawn
        self._seen = False
        self._states: dict[tuple[str, str], _ListingState] = {}
        self._widths: list[tuple[int, int]] = []  # (column, cells) as drawn
        self._laid_out = -1  # the width that they are for

    # What is shown

    def show(self, listing: Listing | None, at: Item | None = None) -> None:
        """Show ``listing`` as it was left, with the cursor on ``at`` where that is given."""
        self._remember()
        self.listing = listing
        self._laid_out = -1
        if listing is None:
            self.rows, self.cursor, self.top = np.arange(0), 0, 0
            self.refresh()
            return
        state = self._states.get(listing.key)
        self.order = state.order if state and state.order.column < len(listing.columns) else listing.order
        self.current_query = state.query if state else EVERYTHING
        try:
            rows = listing.arrange(self.current_query, self.order, self.marked)
        except Mistake:  # a remembered filter that does not fit what is listed now
            self.current_query = EVERYTHING
            rows = listing.arrange(self.current_query, self.order, self.marked)
        at = at or (state.item if state else None)
        row = None if at is None or at == NOTHING else listing.find(at)
        self._settle(rows, row, 0 if at is None else self.cursor)

    def _remember(self) -> None:
        if self.listing is not None:
            self._states[self.listing.key] = _ListingState(self.item, self.order, self.current_query)

    def forget(self) -> None:
        """Forget how listings were left: another store is shown."""
        self._states.clear()
        self.listing, self.cursor = None, 0

    def _settle(self, rows: Rows, row: int | None, otherwise: int) -> None:
        """Show ``rows``, with the cursor on ``row`` of the listing, or at ``otherwise`` where that is not shown."""
        self.rows = rows
        matches = [] if row is None else np.flatnonzero(rows == row).tolist()
        index = matches[0] if matches else otherwise
        self.cursor = self._selectable(min(index, max(len(rows) - 1, 0)), 1)
        self._scroll_to_cursor()
        self.refresh()
        self.post_message(self.Moved(self))

    @property
    def row(self) -> int | None:
        """The listing's row under the cursor."""
        if self.listing is None or not len(self.rows):
            return None
        row = int(self.rows[self.cursor])
        return None if row in self.listing.headings else row

    @property
    def item(self) -> Item:
        """What is under the cursor."""
        row = self.row
        return NOTHING if row is None or self.listing is None else self.listing.item(row)

    @property
    def count(self) -> int:
        """Rows that pass the filter, without headings."""
        headings = self.listing.headings if self.listing else ()
        return len(self.rows) - sum(int(row) in headings for row in self.rows) if headings else len(self.rows)

    @property
    def total(self) -> int:
        """Rows there are, without headings."""
        return self.listing.count - len(self.listing.headings) if self.listing else 0

    @property
    def number(self) -> int:
        """The cursor's row, counted from 1 among ``count``; 0 where there is none."""
        if self.listing is None or self.row is None:
            return 0
        if not self.listing.headings:
            return self.cursor + 1
        return sum(int(row) not in self.listing.headings for row in self.rows[: self.cursor + 1])

    # Moving

    @property
    def page(self) -> int:
        """Rows that there is room for."""
        return max(1, self.size.height - 1)

    def move(self, by: int) -> None:
        """Move the cursor ``by`` rows, as far as there are rows."""
        self.move_to(self.cursor + by, 1 if by > 0 else -1)

    def move_to(self, index: int, towards: int = 1) -> None:
        """Move the cursor to ``index`` of ``rows``, past a heading in the direction ``towards``."""
        if not len(self.rows):
            return
        index = self._selectable(max(0, min(index, len(self.rows) - 1)), towards)
        if index == self.cursor:
            self._reveal_headings()
            return
        before, self.cursor, top = self.cursor, index, self.top
        self._scroll_to_cursor()
        if self.top == top:
            width = self.size.width
            self.refresh(*(Region(0, y - top + 1, width, 1) for y in (before, index)))
        else:
            self.refresh()
        self.post_message(self.Moved(self))

    def turn_pages(self, pages: float) -> None:
        """Scroll by so many pages, at least one row, and move the cursor as far."""
        by = max(1, int(abs(pages) * self.page)) * (1 if pages > 0 else -1)
        if len(self.rows):
            self.top = max(0, min(self.top + by, len(self.rows) - self.page))
            self.refresh()
            self.move(by)

    def _selectable(self, index: int, towards: int) -> int:
        """``index``, or the next one ``towards`` that is no heading; back the other way at the end."""
        headings = self.listing.headings if self.listing else frozenset()
        for step in (towards, -towards):
            at = index
            while 0 <= at < len(self.rows):
                if int(self.rows[at]) not in headings:
                    return at
                at += step
        return 0

    def _scroll_to_cursor(self) -> None:
        self.top = max(min(self.top, self.cursor), self.cursor - self.page + 1, 0)
        self.top = max(0, min(self.top, len(self.rows) - self.page))
        self._reveal_headings()
        headings = self.listing.headings if self.listing else frozenset()
        if headings and all(int(row) in headings for row in self.rows[self.cursor + 1 :]):
            self.top = max(self.top, min(len(self.rows) - self.page, self.cursor))  # what stands below the last row

    def _reveal_headings(self) -> None:
        """Above the first row that the cursor can reach is a heading that nothing else would scroll to."""
        headings = self.listing.headings if self.listing else frozenset()
        if self.page > 1 and 0 < self.top == self.cursor and int(self.rows[self.top - 1]) in headings:
            self.top -= 1
            self.refresh()

    # Sorting, filtering, marking

    def why_not_sort(self) -> str | None:
        """Why the rows cannot be sorted, None where they can."""
        return "the rows of this table have one order" if not self.listing or not self.listing.sortable else None

    def sort(self, order: Order) -> None:
        """Sort by ``order``; the cursor stays on its row."""
        assert self.listing is not None
        self.order = order
        self._settle(self.listing.arrange(self.current_query, order, self.marked), self.row, self.cursor)

    def sort_by_next_column(self) -> None:
        """Sort by the next column that rows can be sorted by."""
        assert self.listing is not None
        columns = self.listing.sortable
        column = next((i for i in columns if i > self.order.column), columns[0])
        self.sort(Order(column, self.listing.columns[column].descending))

    def turn_order(self, descending: bool) -> None:
        """Sort by the same column as now, the way that is asked for."""
        assert self.listing is not None
        columns, column = self.listing.sortable, self.order.column
        self.sort(Order(column if column in columns else columns[0], descending))

    def filter(self, query: Query) -> None:
        """Show only rows that pass ``query``; Mistake where it does not fit the listing, and nothing changes."""
        assert self.listing is not None
        rows = self.listing.arrange(query, self.order, self.marked)
        self.current_query = query
        self._settle(rows, self.row, 0)

    def redraw_row(self) -> None:
        """Draw the cursor's row again: its mark has changed."""
        self.refresh(Region(0, self.cursor - self.top + 1, self.size.width, 1))

    # Drawing

    def on_resize(self) -> None:
        """The cursor stays in sight."""
        if not self._seen:  # until now nobody knew how many rows there is room for
            self._seen, self.top = True, 0
        self._scroll_to_cursor()
        self.refresh()

    def on_focus(self) -> None:
        """The cursor is drawn as the one that keys move, or no longer."""
        self.refresh()

    on_blur = on_focus

    def render(self) -> str:
        """Nothing: the table is drawn by ``render_line``."""
        return ""

    def render_line(self, y: int) -> Strip:
        """The header, a row, or why there is none."""
        width = self.size.width
        if self.listing is None:
            return strip((), width)
        if self._laid_out != width:
            self._widths = fit(self.listing.columns, width - _GUTTER)
            self._laid_out = width
        if y == 0:
            return strip([(" " * _GUTTER, ""), (self._header(), "title")], width)
        index = self.top + y - 1
        if index < len(self.rows):
            return self._row(index, width)
        if y == 2 and not len(self.rows):
            why = self.listing.empty if not self.listing.count else "nothing passes the filter; esc clears it"
            return strip([(" " * _GUTTER, ""), (self.glyphs.cut(why, max(0, width - _GUTTER)), "faint")], width)
        return strip((), width)

    def _header(self) -> str:
        assert self.listing is not None
        titles = []
        for i, cells in self._widths:
            column = self.listing.columns[i]
            title = column.title
            if i == self.order.column and not self.listing.headings:
                arrow = self.glyphs.falling if self.order.descending else self.glyphs.rising
                title = title[: cells - 1] + arrow
            title = title[:cells]
            titles.append(title.rjust(cells) if column.right else title.ljust(cells))
        return (" " * _GAP).join(titles)

    def _row(self, index: int, width: int) -> Strip:
        listing = self.listing
        assert listing is not None
        row = int(self.rows[index])
        heading = row in listing.headings
        here = index == self.cursor and not heading
        marked = not heading and self.marked(listing.item(row))
        gutter = (self.glyphs.cursor if here else " ") + (self.glyphs.mark if marked else " ") + " "
        cells = listing.cells(row)
        base = "strong" if heading else "faint" if listing.faint(row) else ""
        if here:
            base = "cursor" if self.has_focus else "here"
        if len(cells) == 1:  # a text across all columns
            text = self.glyphs.cut(str(cells[0]), width - _GUTTER, end=not heading)
            return strip([(gutter, base if here else ""), (text, base)], width)
        texts: list[StyledText] = []
        text = gutter
        for i, room in self._widths:
            column = listing.columns[i]
            drawn = self._cell(cells[i], room, column)
            if column.bar and not here and drawn.strip():
                texts += [(text, base), (drawn, "bar")]
                text = " " * _GAP
            else:
                text += drawn + " " * _GAP
        texts.append((text.rstrip() if not here else text.ljust(width), base))
        return strip(texts, width)

    def _cell(self, cell: Cell, room: int, column: Column) -> str:
        if isinstance(cell, Bar):
            return self.glyphs.bar(cell.share, room).ljust(room)
        if isinstance(cell, Stack):
            return letters(cell, room)
        if column.right and cell.isascii() and len(cell) <= room:
            return cell.rjust(room)
        return self.glyphs.cut(cell, room, end=column.cut_end)

    # The mouse

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Three rows down."""
        event.stop()
        self.move(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Three rows up."""
        event.stop()
        self.move(-3)

    def on_click(self, event: events.Click) -> None:
        """A row takes the cursor, a second click opens it; the header sorts."""
        if self.listing is None:
            return
        self.post_message(self.Clicked(self))
        if event.y == 0:
            self._sort_at(event.x - _GUTTER)
            return
        index = self.top + event.y - 1
        if 0 <= index < len(self.rows) and int(self.rows[index]) not in self.listing.headings:
            self.move_to(index)
            if event.chain == 2:
                self.post_message(self.Opened(self))

    def _sort_at(self, x: int) -> None:
        assert self.listing is not None
        for i, cells in self._widths:
            if x < cells:
                if i in self.listing.sortable:
                    again = i == self.order.column
                    down = not self.order.descending if again else self.listing.columns[i].descending
                    self.sort(replace(self.order, column=i, descending=down))
                return
            x -= cells + _GAP


def fit(columns: tuple[Column, ...], room: int) -> list[tuple[int, int]]:
    """(column, cells) of the columns that fit into ``room`` cells; bars take what no other column has use for."""
    needed = [column.width for column in columns]
    shown = fitting(needed, [column.drop for column in columns], room, _GAP)
    widths = {i: needed[i] for i in shown}
    rest = room - width_of(needed, shown, _GAP)
    growing = [i for i in shown if columns[i].grows]
    bars = [i for i in shown if columns[i].bar]
    if growing:
        grown = max(min(widths[growing[0]] + rest, max(columns[growing[0]].most, widths[growing[0]])), 1)
        rest -= grown - widths[growing[0]]
        widths[growing[0]] = grown
    for i in bars:
        widths[i] += max(rest, 0) // len(bars)  # each as much, so that all are on one scale
    return [(i, widths[i]) for i in shown]


def letters(stack: Stack, room: int) -> str:
    """The parts of ``stack`` as letters, ``full`` in ``room`` cells: each within half a cell of where it should end."""
    text, total = "", 0
    for letter, size in stack.parts:
        total += size
        text += letter * (round(total * room / max(stack.full, 1)) - len(text))
    return text[:room].ljust(room)
