"""The actions of the group Move that move the cursor."""

from __future__ import annotations

from ndissect.tui.app.panes import Panes


class Moving(Panes):
    """Panes whose cursor moves."""

    def do_down(self) -> None:
        self.table.move(1)

    def do_up(self) -> None:
        self.table.move(-1)

    def do_page_down(self) -> None:
        self.table.turn(self.table.page)

    def do_page_up(self) -> None:
        self.table.turn(-self.table.page)

    def do_half_down(self) -> None:
        self.table.turn(max(1, self.table.page // 2))

    def do_half_up(self) -> None:
        self.table.turn(-max(1, self.table.page // 2))

    def do_first(self) -> None:
        self.table.move_to(0)

    def do_last(self) -> None:
        self.table.move_to(len(self.table.rows) - 1, -1)
