"""The line in which a filter is typed, and what the filter does to the tables."""

from __future__ import annotations

from collections.abc import Callable

from textual.containers import Horizontal
from textual.widgets import Input, Static

from ndissect.store.errors import NDError
from ndissect.tui.app.filter_line import FilterLine
from ndissect.tui.app.marks import Marks
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.navigation import Navigation
from ndissect.tui.app.query import EVERYTHING, Mistake, Query, parse
from ndissect.tui.app.status_lines import StatusLines


class FilterBar(Horizontal):
    """Filters the table that has the keys while a filter is typed.

    ``open_row`` does what enter does in a table.
    """

    def __init__(
        self,
        navigation: Navigation,
        marks: Marks,
        lines: StatusLines,
        notice: Notice,
        open_row: Callable[[], None],
    ) -> None:
        self._sign = Static("/", id="sign", markup=False)
        self.input = FilterLine(self._submit, id="filter")
        super().__init__(self._sign, self.input, id="query")
        self.display = False
        self._navigation = navigation
        self._panes = navigation.panes
        self._marks = marks
        self._lines = lines
        self._notice = notice
        self._open_row = open_row
        self._last_query = EVERYTHING

    @property
    def typing(self) -> bool:
        """Whether a filter is being typed."""
        return bool(self.display)

    def why_not(self) -> str | None:
        """Why there is nothing to filter, None where there is."""
        return "there is nothing to filter" if not self._panes.listing or not self._panes.listing.count else None

    def begin(self) -> None:
        """Begin to type a filter. It works while it is typed."""
        cover = self._panes.cover
        self._sign.update(cover.sign if cover else "/")
        self._lines.info.display = False
        self.display = True
        self.input.value = self._panes.table.current_query.text
        self.input.cursor_position = len(self.input.value)
        self.screen.set_focus(self.input)

    def end(self) -> None:
        """End the typing. The filter stays as it is."""
        self.display = False
        self._lines.info.display = True
        self.screen.set_focus(self._panes.table)

    def drop(self) -> None:
        """Leave the filter, typed or not; a cover that is there only to be filtered goes with it."""
        cover = self._panes.cover if self.typing else None
        if self.typing:
            self.end()
        if cover is not None and cover.only_filtered:
            self._panes.uncover()
        else:
            self._panes.table.filter(EVERYTHING)

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter by what is typed so far; a mistake is shown below it, and the rows stay."""
        message.stop()
        if self.typing:
            self._filter(self.input.value, typing=True)

    def _filter(self, text: str, *, typing: bool) -> bool:
        """Show the rows that ``text`` lets pass. Returns False where it is a mistake."""
        try:
            query = parse(text, typing=typing)
            self._panes.table.filter(query)
        except Mistake as e:
            self._lines.show_mistake(e, text)
            return False
        if query.terms:
            self._last_query = query
        self._lines.update()
        return True

    def _submit(self, text: str) -> None:
        """Keep the filter that was typed."""
        with self._notice.telling_errors():
            if not self._filter(text, typing=False):
                return
            self.end()
            cover = self._panes.cover
            if cover is not None and cover.opens_when_filtered:
                self._open_row()
            self._lines.update()

    def next(self, by: int = 1) -> None:
        """Go to the next row that passes the last filter, in a unit to the next unit; ``by`` -1 goes backwards."""
        panes = self._panes
        if panes.depth == 2 and not panes.covers:
            panes.units.move(by)
            self._navigation.show_unit()
            return
        table = panes.table
        if table.current_query.terms or not self._last_query.terms:
            table.move(by)
            return
        indices = self._passing(self._last_query)
        if not indices:
            raise NDError(f"no row passes {self._last_query.text}")
        beyond = [i for i in indices if (i - table.cursor) * by > 0]
        table.move_to(min(beyond, key=lambda i: abs(i - table.cursor)) if beyond else indices[0 if by > 0 else -1])

    def _passing(self, query: Query) -> list[int]:
        """The indices of the shown rows that pass ``query``. NDError where it does not fit the listing."""
        table, listing = self._panes.table, self._panes.listing
        assert listing is not None
        try:
            passing = set(listing.arrange(query, table.order, self._marks.__contains__).tolist())
        except Mistake as e:
            raise NDError(f"the last filter, {query.text}, does not fit this table: {e.what}") from None
        return [i for i, row in enumerate(table.rows.tolist()) if row in passing and row not in listing.headings]
