"""The terminal UI by any keys in any order: what must hold after each, against a simple model of the reader's marks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from browsing import Visit
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from store_factory import write_small

from ndissect.tui.app.actions import ACTIONS, BY_NAME
from ndissect.tui.app.listing import Item
from ndissect.tui.app.state import Bookmark
from ndissect.tui.app.table import Table

LAYERS = {"early": (40, (4, 5)), "late": (6, (3, 3))}
SIZES = [(80, 24), (160, 24), (120, 40), (40, 8), (30, 5)]
FILTERS = ["o", "zz", "iou>", "!red", "dead", "cat:c"]
#: What no row of the help or the palette does: it ends the visit, needs a terminal, writes files, runs or marks.
LEFT_OUT = {"quit", "suspend", "overlay", "viewer", "preview", "export", "mark", "ablate", "enter", "back"}


class AnyKeys(RuleBasedStateMachine):
    """A visit by random keys. ``marks`` is what must be marked, in its order."""

    def __init__(self, store: Path, home: Path) -> None:
        super().__init__()
        self.visit = Visit(store, Bookmark(), home=home)
        self.visit.__enter__()
        self.app = self.visit.app
        self.marks: list[Item] = []

    def teardown(self) -> None:
        try:
            self.escapes_to_the_start()
        finally:
            self.visit.__exit__(None, None, None)

    def escapes_to_the_start(self) -> None:
        """Assert that esc leads back from wherever the reader is, a thing at a time."""
        panes = self.app.panes
        # A message; the filter and the page of each cover and each table; the marks; the first listing on the left.
        for _ in range(2 * (len(panes.covers) + panes.depth) + 6):
            self.press("escape")
            if self.visit.notice == "q quits":
                break
        assert self.visit.notice == "q quits"
        assert self.app.navigation.crumbs() == ["small.nd.h5", "layers"]
        assert not self.table.current_query.terms
        assert not self.app.marks

    # What is seen

    @property
    def table(self) -> Table:
        return self.app.table

    @property
    def typing(self) -> bool:
        return self.app.filter_bar.typing

    @property
    def position(self) -> tuple[int, int]:
        """The number of the cursor's row, and of how many."""
        return self.table.number, self.table.count

    def where(self) -> tuple[Any, ...]:
        """All that a key can change, but for messages."""
        table, panes = self.table, self.app.panes
        shown = (self.app.navigation.crumbs(), panes.depth, len(panes.covers), self.app.navigation.summary_of)
        return (*shown, table.item, table.cursor, table.order, table.current_query, table.rows.tolist(), self.marked())

    def marked(self) -> list[Item]:
        """Those of the model's marks that the UI has, and whether it has others."""
        assert len(self.app.marks) == sum(item in self.app.marks for item in self.marks)
        return [item for item in self.marks if item in self.app.marks]

    def press(self, *keys: str) -> None:
        self.visit.press(*keys)

    def enter(self) -> None:
        """Press enter, unless the row does what is left out."""
        item = self.table.item
        if item.kind == "image" or (item.kind == "action" and item.name in LEFT_OUT):
            return
        self.press("enter")
        if item.kind == "store":
            self.marks = [item for item in self.marks if item.kind == "store"]

    # Keys

    @precondition(lambda self: not self.typing)
    @rule(key=st.sampled_from(["j", "k", "g", "G"]))
    def move(self, key: str) -> None:
        crumbs, (number, count) = self.app.navigation.crumbs(), self.position
        self.press(key)
        first, last = min(1, count), count
        assert self.position[0] == {"j": min(number + 1, last), "k": max(number - 1, first), "g": first, "G": last}[key]
        assert self.position[1] == count
        assert len(self.app.navigation.crumbs()) == len(crumbs)

    @precondition(lambda self: not self.typing)
    @rule(key=st.sampled_from(["pagedown", "ctrl+u", "n", "N", "s", "[", "]", "y", "t", "r", "?", "c", "a"]))
    def another_key(self, key: str) -> None:
        self.press(key)

    @precondition(lambda self: not self.typing)
    @rule(key=st.sampled_from(["1", "2", "3", "4", "5"]))
    def show(self, key: str) -> None:
        self.press(key)
        assert self.app.panes.depth == len(self.app.panes.covers) == 0
        roots = {"1": "layers", "2": "concepts", "3": "summary", "4": "stores", "5": "classes"}
        assert self.app.navigation.root == roots[key]

    @precondition(lambda self: not self.typing)
    @rule(and_out=st.booleans())
    def go_in(self, and_out: bool) -> None:
        navigation, panes, before = self.app.navigation, self.app.panes, self.where()
        root, depth, covers = navigation.root, panes.depth, len(panes.covers)
        self.enter()
        if and_out and (navigation.root, panes.depth, len(panes.covers)) == (root, depth + 1, covers):
            self.press("h")
            assert self.where() == before

    @precondition(lambda self: not self.typing)
    @rule()
    def go_out(self) -> None:
        panes = self.app.panes
        covers, depth = len(panes.covers), panes.depth
        self.press("h")
        assert len(panes.covers) == max(covers - 1, 0)
        assert panes.depth == (depth if covers else max(depth - 1, 0))

    @precondition(lambda self: not self.typing)
    @rule()
    def mark(self) -> None:
        item, possible = self.table.item, self.app.possible(BY_NAME["mark"])
        self.press("space")
        if possible and item in self.marks:
            self.marks.remove(item)
        elif possible:
            self.marks.append(item)

    @precondition(lambda self: not self.typing)
    @rule(key=st.sampled_from(["/", "/", ":"]), text=st.sampled_from(FILTERS))
    def filter(self, key: str, text: str) -> None:
        self.press(key)
        assert self.typing or self.visit.notice == "/: there is nothing to filter"
        if self.typing:
            self.type(text)

    @precondition(lambda self: self.typing)
    @rule(text=st.sampled_from(FILTERS))
    def type(self, text: str) -> None:
        crumbs, before = self.app.navigation.crumbs(), self.app.filter_bar.input.value
        self.press(*text)
        assert self.app.filter_bar.input.value == before + text
        assert self.app.navigation.crumbs() == crumbs

    @precondition(lambda self: self.typing)
    @rule()
    def end_filter(self) -> None:
        self.enter()

    @rule()
    def escape(self) -> None:
        panes = self.app.panes
        nothing_else = not self.visit.notice and not self.typing and not self.table.current_query.terms
        if nothing_else and not panes.covers and panes.depth == 0:
            self.marks = []
        self.press("escape")

    @precondition(lambda self: not self.typing)
    @rule(data=st.data())
    def press_what_is_impossible(self, data: st.DataObject) -> None:
        impossible = [action for action in ACTIONS if not self.app.possible(action)]
        if impossible:
            action = data.draw(st.sampled_from(impossible))
            before = self.where()
            self.press(action.keys[0])
            assert self.where() == before
            assert self.visit.notice.startswith(f"{action.shown.split()[0]}: ")

    @rule(size=st.sampled_from(SIZES))
    def resize(self, size: tuple[int, int]) -> None:
        before = self.where()
        self.visit.resize(*size)
        assert self.where() == before

    # What always holds

    @invariant()
    def the_reader_is_somewhere(self) -> None:
        assert self.app.is_running
        assert self.app.failure is None
        assert 0 <= self.app.panes.depth <= 2
        assert self.table.has_focus != self.typing
        assert self.table.display
        assert len(self.visit.lines) == self.app.size.height

    @invariant()
    def the_cursor_is_on_a_row_that_passes_the_filter(self) -> None:
        for table in (t for t in self.app.panes.tables if t.display and t.listing is not None):
            assert table.listing is not None
            passing = table.listing.arrange(table.current_query, table.order, self.app.marks.__contains__).tolist()
            assert table.rows.tolist() == passing
            assert 0 <= table.cursor < max(len(passing), 1)
            if passing:
                assert table.row in set(passing) - table.listing.headings
                assert table.top <= table.cursor < table.top + table.page

    @invariant()
    def marks_are_kept(self) -> None:
        assert self.marked() == self.marks

    @invariant()
    def no_error_is_told(self) -> None:
        assert not any(word in self.visit.notice for word in ("damaged", "unexpected", "Error"))


def test_any_keys_in_any_order(tmp_path: Path) -> None:
    store = write_small(tmp_path / "small.nd.h5", layers=LAYERS, effects=True)
    homes = (tmp_path / f"home{i}" for i in itertools.count())
    run_state_machine_as_test(
        lambda: AnyKeys(store, next(homes)),
        settings=settings(max_examples=10, stateful_step_count=40, deadline=None),
    )
