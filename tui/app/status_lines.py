"""The lines around the tables: where the reader is, the run, notes, what can be done, the cursor's position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.cells import cell_len

from ndissect.tui.app.actions import BY_NAME, FOOTER, Action
from ndissect.tui.app.footer import footer
from ndissect.tui.app.marks import Marks
from ndissect.tui.app.navigation import Navigation
from ndissect.tui.app.query import Mistake
from ndissect.tui.app.strips import Line, StyledText
from ndissect.tui.app.watch import progress
from ndissect.tui.pictures.glyphs import UNICODE, Glyphs


class StatusLines:
    """The widgets of the lines, and what they say. ``possible`` says whether an action is possible now."""

    def __init__(
        self, navigation: Navigation, marks: Marks, possible: Callable[[Action[Any]], bool], glyphs: Glyphs
    ) -> None:
        self.crumbs, self.run = Line(glyphs, id="crumbs"), Line(glyphs, id="run")
        self.background = Line(glyphs, id="background")
        self.info, self.keys = Line(glyphs, id="info"), Line(glyphs, id="keys")
        self.position = Line(glyphs, id="position")
        self._position_width = 0
        self._navigation = navigation
        self._marks = marks
        self._possible = possible
        self._glyphs = glyphs

    def update(self) -> None:
        """Bring all lines but that of the run up to date."""
        self.crumbs.show((self._glyphs.crumb.join(self._navigation.crumbs()), "strong"))
        panes = self._navigation.panes
        query, cover = panes.table.current_query, panes.cover
        if query.terms:
            self.info.show((cover.sign if cover else "/", "strong"), (query.text, "strong"))
        else:
            self.info.show(*((f"{note}  ", "faint") for note in (panes.listing.notes if panes.listing else ())))
        position = self._position()
        # A line of its own: a cursor that moves then changes a few cells, and not the keys beside them. It only grows.
        self._position_width = max(self._position_width, len(position))
        self.position.styles.width = self._position_width
        self.position.show((position.rjust(self._position_width), ""))
        self.keys.show(*self._footer(self.keys.app.size.width - self._position_width))

    def update_run(self) -> None:
        """Show how far the run is that will write this store, where there is one."""
        run = self._navigation.cache.run
        self.run.display = run is not None
        if run is not None:
            self.run.show((progress(run, self._navigation.session), "strong"))

    def show_mistake(self, mistake: Mistake, text: str) -> None:
        """Show in place of the keys what is wrong with the filter ``text``, below the letter where it is."""
        self.keys.show((" " * (cell_len(text[: mistake.at]) + 1) + "^ ", "strong"), (mistake.what, "strong"))

    def _position(self) -> str:
        """How many items are marked, and the cursor's row of those that pass the filter, of all."""
        table = self._navigation.panes.table
        of = f" of {table.total}" if table.current_query.terms else ""
        marks = f"{len(self._marks)} marked  " if self._marks else ""
        return f" {marks}{table.number}/{table.count}{of}"

    def _footer(self, room: int) -> list[StyledText]:
        """Help and quit, then as many other keys as there is room for; those that do nothing here stand back."""
        actions = (BY_NAME[name] for name in FOOTER)
        return footer(actions, self._possible, room, unicode=self._glyphs is UNICODE)
