"""The actions of the group Find: filter, next and previous, sort."""

from __future__ import annotations

from rich.cells import cell_len
from textual.widgets import Input

from ndissect.store.errors import NDError
from ndissect.tui.app.listing import Order
from ndissect.tui.app.messages import told
from ndissect.tui.app.moving import Moving
from ndissect.tui.app.query import EVERYTHING, Mistake, Query, parse


class Finding(Moving):
    """Panes whose rows can be filtered and sorted."""

    _last_query: Query = EVERYTHING

    def do_filter(self) -> None:
        """Type a filter; it works while it is typed."""
        self._sign.update(self.sign)
        self._info.display = False
        self._query.display = True
        self.input.value = self.table.wanted.text
        self.input.cursor_position = len(self.input.value)
        self.screen.set_focus(self.input)

    def why_not_filter(self) -> str | None:
        return "there is nothing to filter" if not self.listing or not self.listing.count else None

    def stop_typing(self) -> None:
        self._query.display = False
        self._info.display = True
        self.screen.set_focus(self.table)

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter by what is typed so far; a mistake is shown below it, and the rows stay."""
        if self.typing:
            self._filter(self.input.value, typing=True)

    def _filter(self, text: str, *, typing: bool) -> bool:
        """Show the rows that ``text`` lets pass; False where it says nothing that can be done."""
        try:
            query = parse(text, typing=typing)
            self.table.filter(query)
        except Mistake as e:
            self._keys.say((" " * (cell_len(text[: e.at]) + 1) + "^ ", "strong"), (e.what, "strong"))
            return False
        if query.terms:
            self._last_query = query
        self.tell()
        return True

    @told
    def submit(self, text: str) -> None:
        """Keep the filter; in the palette, do what the cursor is on."""
        if not self._filter(text, typing=False):
            return
        self.stop_typing()
        if self.covers and self.covers[-1].name in ("palette", "viewers"):
            self.do("enter")
        self.tell()

    def do_next(self, by: int = 1) -> None:
        if self.depth == 2 and not self.covers:
            self._levels[1].move(by)
            self._show_unit()
            return
        table, listing = self.table, self.listing
        assert listing is not None
        if table.wanted.terms or not self._last_query.terms:
            table.move(by)
            return
        try:
            passing = set(listing.arrange(self._last_query, table.order, self.is_marked).tolist())
        except Mistake as e:
            raise NDError(f"the last filter, {self._last_query.text}, does not fit this table: {e.what}") from None
        places = [i for i, row in enumerate(table.rows.tolist()) if row in passing and row not in listing.headings]
        if not places:
            raise NDError(f"no row passes {self._last_query.text}")
        beyond = [i for i in places if (i - table.place) * by > 0]
        table.move_to(min(beyond, key=lambda i: abs(i - table.place)) if beyond else places[0 if by > 0 else -1])

    def do_previous(self) -> None:
        self.do_next(-1)

    def why_not_sort(self) -> str | None:
        return "the rows of this table have one order" if not self.listing or not self.listing.sortable else None

    why_not_ascending = why_not_descending = why_not_sort

    def do_sort(self) -> None:
        self.table.sort(self.table.next_column())

    def do_ascending(self) -> None:
        self._turn(False)

    def do_descending(self) -> None:
        self._turn(True)

    def _turn(self, descending: bool) -> None:
        assert self.listing is not None
        column = self.table.order.column
        self.table.sort(Order(column if column in self.listing.sortable else self.listing.sortable[0], descending))
