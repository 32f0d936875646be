"""The screen: up to three tables side by side, each opened from the one on its left, and the lines around them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Static

from ndissect.tui.app import watch
from ndissect.tui.app.actions import ACTIONS, BY_NAME, FOOTER, Action
from ndissect.tui.app.filter_line import FilterLine
from ndissect.tui.app.help import shown
from ndissect.tui.app.listing import NOTHING, Item, Listing
from ndissect.tui.app.listing_cache import Shelf
from ndissect.tui.app.messages import Telling, told
from ndissect.tui.app.session import Session
from ndissect.tui.app.state import Bookmark
from ndissect.tui.app.strips import Line, Piece
from ndissect.tui.app.table import Table
from ndissect.tui.pictures.glyphs import ASCII, UNICODE

#: Columns from which two and three tables are shown.
TWO, THREE = 120, 160
# Seconds without a key after which the tables on the right follow the cursor.
_FOLLOW = 0.06

# Keys that the filter, while it is typed, has no use for.
WHILE_TYPING = ("escape", "down", "up", "pagedown", "pageup", "ctrl+c", "ctrl+q", "ctrl+z")


class Panes(Telling):
    """The tables and where the reader is among them.

    ``root`` names the table on the left, ``depth`` (0 to 2) the table that keys move: it, the units, the unit.
    ``covers`` are listings over all of them, such as the help; the last one has the keys.
    """

    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #panes { height: 1fr; }
    #run, #notice, #cover, #picture { display: none; }
    #notice { height: auto; max-height: 6; text-style: bold reverse; padding: 0 1; background: ansi_default; }
    #query { height: 1; }
    #sign { width: 1; }
    #filter, #filter:focus {
        height: 1; width: 1fr; border: none; padding: 0; background: ansi_default; color: ansi_default;
    }
    #picture { height: 50%; }
    #bottom { height: 1; }
    .beside { border-left: solid ansi_default; }
    .ascii .beside { border-left: ascii ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Priority: done before the next key is looked at. What follows a / is for the filter, however fast it comes.
        Binding(key, f"do('{a.name}', '{key}')", a.does, show=False, priority=True)
        for a in ACTIONS
        for key in a.keys
    ]
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None

    def __init__(self, unicode: bool = True) -> None:
        super().__init__()
        self.theme = "ansi-dark"  # its colours are the terminal's own: dark or light, as its owner has it
        encoding = sys.__stderr__.encoding if sys.__stderr__ else "ascii"  # Textual draws there
        self.glyphs = UNICODE if unicode else replace(ASCII, encoding=encoding)
        self.shelf: Shelf | None = None
        self.marks: list[Item] = []
        self.root, self.depth, self.summary_of = "layers", 0, ""
        self._before_stores = Bookmark()
        self.covers: list[Listing] = []
        self._timer: Timer | None = None
        self._levels = tuple(Table(self.glyphs, self.is_marked, id=name) for name in ("root", "units", "unit"))
        self._cover = Table(self.glyphs, self.is_marked, id="cover")
        self._crumbs, self._run = Line(self.glyphs, id="crumbs"), Line(self.glyphs, id="run")
        self._info, self._keys = Line(self.glyphs, id="info"), Line(self.glyphs, id="keys")
        self._position, self._room = Line(self.glyphs, id="position"), 0
        self.input = FilterLine(self.submit, id="filter")
        self._picture = Horizontal(id="picture")
        self._sign = Static("/", id="sign", markup=False)
        self._query = Horizontal(self._sign, self.input, id="query")
        self._query.display = False

    def compose(self) -> ComposeResult:
        """Crumbs, the run, the tables, a message, notes or the filter, keys and position."""
        self.screen.set_class(self.glyphs is not UNICODE, "ascii")
        yield self._crumbs
        yield self._run
        with Horizontal(id="panes"):
            yield from self._levels
            yield self._cover
        yield self._picture
        yield self._notice
        yield self._info
        yield self._query
        with Horizontal(id="bottom"):
            yield self._keys
            yield self._position

    # Where the reader is

    @property
    def session(self) -> Session | None:
        """The open store, None while a run has published nothing."""
        return self.shelf.session if self.shelf else None

    @property
    def table(self) -> Table:
        """The table that keys move."""
        return self._cover if self.covers else self._levels[self.depth]

    @property
    def listing(self) -> Listing | None:
        """What that table shows."""
        return self.table.listing

    def is_marked(self, item: Item) -> bool:
        """Whether ``item`` is marked."""
        return item in self.marks

    def place(self) -> Bookmark:
        """Where the reader is in this store, to come back to."""
        if self.root == "stores":
            return self._before_stores
        root, units = self._levels[0].item, self._levels[1].item
        layer = root.layer if root.kind == "layer" else self.summary_of
        unit_layer, unit = (units.layer, units.unit) if units.kind == "unit" else (layer, -1)
        category = root.name if root.kind == "category" else ""
        return Bookmark(self.root, self.depth, layer, unit_layer, unit, root.concept, category)

    @told
    def go(self, place: Bookmark) -> None:
        """Show ``place``, as far as the store has it."""
        self.covers.clear()
        summary_of = place.layer if place.root == "summary" else ""
        item = NOTHING
        if place.concept >= 0:
            item = Item("concept", summary_of, concept=place.concept)
        elif place.category:
            item = Item("category", summary_of, name=place.category)
        elif place.root == "layers" and place != Bookmark():
            item = Item("layer", place.layer)
        self._restore(place.root, summary_of, place.depth, item, Item("unit", place.unit_layer, place.unit))

    def _restore(self, root: str, summary_of: str, depth: int, item: Item, unit: Item) -> None:
        """Show the table ``root`` at ``item``, its units at ``unit``, and the unit: ``depth`` of them, if there are."""
        assert self.shelf is not None
        known = self.session.store.layer_names if self.session else ()
        self.root, self.depth, self.summary_of = root, 0, summary_of if summary_of in known else ""
        try:
            self._levels[0].show(self.shelf.root(root, self.summary_of), item)
            if depth > 0 and self._levels[0].item == item:
                self._show_units(unit)
                self.depth = 1 if self._levels[1].listing is not None else 0
            if depth > 1 and self.depth == 1 and self._levels[1].item == unit:
                self._show_unit()
                self.depth = 2 if self._levels[2].listing is not None else 1
        finally:  # what is damaged stays away, the rest is shown
            self.arrange()

    def _show_units(self, at: Item | None = None) -> None:
        assert self.shelf is not None
        listing = self.shelf.units(self._levels[0].item)
        if listing is not self._levels[1].listing or at is not None:
            self._levels[1].show(listing, at)

    def _show_unit(self) -> None:
        assert self.shelf is not None
        listing = self.shelf.unit(self._levels[1].item)
        if listing is not self._levels[2].listing:
            self._levels[2].show(listing)

    def cover(self, listing: Listing) -> None:
        """Show ``listing`` over the tables; esc takes it away."""
        self.covers.append(listing)
        self._cover.forget()
        self._cover.show(listing)
        self.arrange()

    def uncover(self) -> None:
        """Take the uppermost cover away."""
        self.covers.pop()
        self._cover.show(self.covers[-1] if self.covers else None)
        self.arrange()

    # What is shown

    def arrange(self) -> None:
        """Show the tables that fit, bring those to the right up to date, and give the keys to the one in use."""
        count = 1 if self.size.width < TWO else 2 if self.size.width < THREE else 3
        first = max(0, min(self.depth if count == 1 else self.depth - (self.depth == 2), 3 - count))
        with self.batch_update():  # one picture, not one for each change
            for level, table in enumerate(self._levels):
                table.display = not self.covers and first <= level < first + count
                table.set_class(level > first, "beside")
            self._cover.display = bool(self.covers)
            self.follow()
            if not self.typing:
                self.screen.set_focus(self.table)
            self.tell()

    @told
    def follow(self) -> None:
        """Show in the tables on the right what the cursors on their left are on."""
        self._timer = None
        if self.covers or self.shelf is None:
            return
        if self.depth < 1 and self._levels[1].display:
            self._show_units()
        if self.depth < 2 and self._levels[2].display:
            self._show_unit()
        self.illustrate()
        self.tell()

    def illustrate(self) -> None:
        """Nothing: what shows pictures of the unit that the reader is at overrides it."""

    def on_table_moved(self, message: Table.Moved) -> None:
        """The cursor moved: tell where it is at once, follow it when it rests."""
        if message.table is self.table:
            self.tell()
        level = self._levels.index(message.table) if message.table in self._levels else 2
        if level >= self.depth and (self._picture.display or any(t.display for t in self._levels[level + 1 :])):
            if self._timer is not None:
                self._timer.stop()
            self._timer = self.set_timer(_FOLLOW, self.follow)

    def on_resize(self, event: events.Resize) -> None:
        """As many tables as fit."""
        self.call_after_refresh(self.arrange)

    @property
    def typing(self) -> bool:
        """Whether a filter is being typed."""
        return bool(self._query.display)

    @property
    def sign(self) -> str:
        """What stands before a filter: the key that it is typed after."""
        return ":" if self.covers and self.covers[-1].name == "palette" else "/"

    def tell(self) -> None:
        """The lines around the tables: where this is, what the filter leaves, what can be done."""
        self._crumbs.say(*self._where())
        table, listing = self.table, self.listing
        notes = listing.notes if listing else ()
        if table.wanted.terms and not self.typing:
            self._info.say((self.sign, "strong"), (table.wanted.text, "strong"))
        else:
            self._info.say(*((f"{note}  ", "faint") for note in notes))
        position = self.position()
        # A line of its own: a cursor that moves then changes a few cells, and not the keys beside them. It only grows.
        self._room = max(self._room, len(position))
        self._position.styles.width = self._room
        self._position.say((position.rjust(self._room), ""))
        self._keys.say(*self._footer(self._room))

    def position(self) -> str:
        """How many rows are marked, and the cursor's row of those that pass the filter, of all."""
        table = self.table
        of = f" of {table.total}" if table.wanted.terms else ""
        marks = f"{len(self.marks)} marked  " if self.marks else ""
        return f" {marks}{table.number}/{table.count}{of}"

    def _where(self) -> list[Piece]:
        crumb, shelf = self.glyphs.crumb, self.shelf
        if shelf is None:
            return [("nd", "strong")]
        parts = [shelf.target.name]
        if self.covers:
            parts.append(self.covers[-1].name)
        else:
            item = self._levels[0].item
            names = {"summary": f"summary of {self.summary_of}" if self.summary_of else "summary"}
            if self.root != "layers" or self.depth == 0:
                parts.append(names.get(self.root, self.root))
            if self.depth > 0:
                parts.append(self._named(item))
            if self.depth > 1:
                unit = self._levels[1].item
                parts.append(self._named(unit).removeprefix(f"{item.layer}:"))
        return [(crumb.join(parts), "strong")]

    def _named(self, item: Item) -> str:
        session = self.session
        if session is None:
            return ""
        if item.kind == "layer":
            return item.layer or "all layers"
        if item.kind == "category":
            return item.name
        if item.kind == "concept":
            return session.labels[session.concept_row(item.concept)]
        view = session.view(item.layer)
        label = session.labels[view.labels[0][item.unit]]
        return f"{item.layer}:{item.unit}" + (f" {label} {view.labels[1][item.unit]:.3f}" if label else "")

    def _footer(self, taken: int) -> list[Piece]:
        """Help and quit, then as many other keys as there is room for; those that do nothing here stand back."""
        found: list[Piece] = []
        room = self.size.width - taken
        for action in (BY_NAME[name] for name in FOOTER):
            key = shown(action, self.glyphs is UNICODE).split()[0]
            if len(key) + len(action.short) + 3 > room:
                break
            room -= len(key) + len(action.short) + 3
            able = self.why_not(action) is None
            found += [(key, "key" if able else "faint"), (f" {action.short}  ", "" if able else "faint")]
        return found

    def why_not(self, action: Action) -> str | None:
        """Why ``action`` is impossible here and now, None where it is possible."""
        ask = getattr(self, f"why_not_{action.name}", None)
        return ask() if ask else None

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does what it does now, or is typed into the filter."""
        return action != "do" or not self.typing or parameters[1] in WHILE_TYPING

    def action_do(self, name: str, key: str) -> None:
        """Do the action ``name`` of the table in actions.py, or say why it is impossible."""
        self.do(name)

    def action_focus_next(self) -> None:
        """Nothing: tab is a key of its own, and what has the keys is never left to chance."""

    action_focus_previous = action_focus_next

    @told
    def do(self, name: str) -> None:
        """Do the action ``name``; esc takes away a message first."""
        action = BY_NAME[name]
        if self.hush() and name == "back":
            return
        why = self.why_not(action)
        if why is not None:
            self.say(f"{action.shown.split()[0]}: {why}")
            return
        getattr(self, f"do_{name}")()
        self.tell()

    async def on_event(self, event: events.Event) -> None:
        """Handle an event; after a key for the filter, wait until the filter has done with it."""
        for_filter = isinstance(event, events.Key) and self.typing
        await super().on_event(event)
        if for_filter:
            done = asyncio.Event()
            self.input.call_later(done.set)
            with contextlib.suppress(TimeoutError):  # it may be on its way out
                async with asyncio.timeout(1):
                    await done.wait()

    def submit(self, text: str) -> None:
        """The filter ``text`` was entered; what filters overrides it."""

    def show_run(self) -> None:
        """The line about the run that will write this store, where there is one."""
        run = self.shelf.run if self.shelf else None
        self._run.display = run is not None
        if run is not None:
            self._run.say((watch.progress(run, self.session), "strong"))
