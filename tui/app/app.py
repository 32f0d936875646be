"""The app: puts the parts of the screen together, hands keys to the actions, and watches the file."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widget import Widget

from ndissect.tui.app import watch
from ndissect.tui.app.ablations import Ablations
from ndissect.tui.app.actions import ACTIONS, BY_NAME, Action
from ndissect.tui.app.covers import Cover
from ndissect.tui.app.export import export
from ndissect.tui.app.filter_bar import FilterBar
from ndissect.tui.app.help import help_listing, palette_listing
from ndissect.tui.app.image_pane import ImagePane
from ndissect.tui.app.keyed_app import KeyedApp, bindings_of
from ndissect.tui.app.listing import Item, Listing
from ndissect.tui.app.listing_cache import ListingCache
from ndissect.tui.app.marks import Marks
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.navigation import Navigation
from ndissect.tui.app.panes import Panes
from ndissect.tui.app.session import Session
from ndissect.tui.app.state import Bookmark, last_bookmark, remember
from ndissect.tui.app.status_lines import StatusLines
from ndissect.tui.app.style_sheet import CSS
from ndissect.tui.app.table import Table
from ndissect.tui.app.terminal import copy_to_clipboard
from ndissect.tui.pictures.glyphs import ASCII, UNICODE

# Seconds between looks at the file.
_WATCH = 1.0
# Seconds without a key after which the tables on the right follow the cursor.
_FOLLOW = 0.06
# Keys that the filter, while it is typed, has no use for.
_WHILE_TYPING = ("escape", "down", "up", "pagedown", "pageup", "ctrl+c", "ctrl+q", "ctrl+z")


class Browser(KeyedApp):
    """The terminal UI over the store ``target``, which need not exist while a run is writing it.

    It opens at ``bookmark``; None: where the reader left it. ``failure`` is the error that ended it, if one did.
    Raises NDError, before the screen is taken, where nothing can be opened.
    """

    CSS = CSS
    BINDINGS: ClassVar[list[BindingType]] = bindings_of(ACTIONS)
    ACTIONS_BY_NAME = BY_NAME
    WHILE_TYPING = _WHILE_TYPING

    def __init__(
        self, target: Path, bookmark: Bookmark | None = None, *, unicode: bool = True, preview: bool = False
    ) -> None:
        super().__init__()
        self._opens_at = bookmark
        self._follow_timer: Timer | None = None
        image_widget = None
        if preview:
            from ndissect.tui.app.preview import image_widget as make  # noqa: PLC0415 - most readers never ask for it

            image_widget = make()
        encoding = sys.__stderr__.encoding if sys.__stderr__ else "ascii"  # Textual draws there
        self.glyphs = UNICODE if unicode else replace(ASCII, encoding=encoding)
        # The types are written out for mypy: the table of actions refers to these parts, and is read first.
        self.notice = Notice()
        self.marks: Marks = Marks()
        self.panes = Panes(self.glyphs, self.marks.__contains__, self._rearranged)
        self.navigation: Navigation = Navigation(ListingCache(target), self.panes)
        self.lines = StatusLines(self.navigation, self.marks, self.possible, self.glyphs)
        self.filter_bar: FilterBar = FilterBar(
            self.navigation, self.marks, self.lines, self.notice, self._open_row_by_key
        )
        self.images: ImagePane = ImagePane(self.navigation, self.notice, unicode=unicode, image_widget=image_widget)
        self.ablations: Ablations = Ablations(
            self.navigation, self.marks, self.notice, self.lines.background, self._reopen
        )

    def compose(self) -> ComposeResult:
        """Crumbs, the run, the tables, images, a message, notes or the filter, keys and position."""
        self.screen.set_class(self.glyphs is not UNICODE, "ascii")
        yield self.lines.crumbs
        yield self.lines.run
        yield self.lines.background
        yield self.panes
        yield self.images
        yield self.notice
        yield self.lines.info
        yield self.filter_bar
        with Horizontal(id="bottom"):
            yield self.lines.keys
            yield self.lines.position

    # Beginning and end

    def on_mount(self) -> None:
        """Show where the reader was, and watch the file from now on."""
        self.end_on_signals(self._remember)
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self.lines.update_run()
        self._go(self._opens_at or last_bookmark(self.navigation.target) or Bookmark())
        self.set_interval(_WATCH, self._watch)

    def quit(self) -> None:
        """End, and remember where the reader was."""
        self._remember()
        self.exit()

    def _remember(self) -> None:
        if self.navigation.session is not None:
            remember(self.navigation.target, self.navigation.bookmark())

    # Keys

    def update(self) -> None:
        """Bring the lines around the tables up to date."""
        self.lines.update()

    def possible(self, action: Action[Browser]) -> bool:
        """Whether ``action`` is possible here and now."""
        return action.why_not(self) is None

    @property
    def typed_into(self) -> Widget | None:
        """The line of the filter while one is typed."""
        return self.filter_bar.input if self.filter_bar.typing else None

    # The tables

    @property
    def table(self) -> Table:
        """The table that keys move."""
        return self.panes.table

    @property
    def listing(self) -> Listing:
        """What that table shows, where it shows anything."""
        assert self.panes.listing is not None
        return self.panes.listing

    def _go(self, bookmark: Bookmark) -> None:
        with self.notice.telling_errors():
            self.navigation.go(bookmark)

    def _rearranged(self) -> None:
        """Other tables are shown: bring them up to date, and give the keys to the one in use."""
        self._follow_cursor()
        if not self.filter_bar.typing:
            self.screen.set_focus(self.table)

    def _follow_cursor(self) -> None:
        """Show on the right and below what the cursor is on."""
        self._follow_timer = None
        with self.notice.telling_errors():
            if not self.panes.covers:
                self.navigation.follow()
                self.images.follow()
        self.lines.update()

    def on_table_moved(self, message: Table.Moved) -> None:
        """The cursor moved: tell where it is at once, follow it when it rests."""
        if message.table is self.table:
            self.lines.update()
        levels = self.panes.levels
        level = levels.index(message.table) if message.table in levels else 2
        if level >= self.panes.depth and (self.images.display or any(t.display for t in levels[level + 1 :])):
            if self._follow_timer is not None:
                self._follow_timer.stop()
            self._follow_timer = self.set_timer(_FOLLOW, self._follow_cursor)

    def on_table_clicked(self, message: Table.Clicked) -> None:
        """A click gives its table the keys."""
        self.notice.hush()
        if message.table in self.panes.levels and not self.filter_bar.typing:
            self.panes.show_depth(self.panes.levels.index(message.table))

    def on_table_opened(self, message: Table.Opened) -> None:
        """A double click opens."""
        self._open_row_by_key()

    def on_resize(self, event: events.Resize) -> None:
        """As many tables as fit."""
        self.call_after_refresh(self.panes.rearrange)

    # In and out

    def _open_row_by_key(self) -> None:
        self.do(BY_NAME["enter"])

    def why_not_open_row(self) -> str | None:
        """Why what the cursor is on cannot be opened, None where it can."""
        item = self.table.item
        if item.kind in ("layer", "concept", "category"):
            return self.navigation.nothing_counted()
        return "there is nothing to open here" if item.kind == "none" else None

    def open_row(self) -> None:
        """Open what the cursor is on."""
        item, cover = self.table.item, self.panes.cover
        if cover is not None:
            cover.open(item)
        elif item.kind == "store":
            self._open_store(Path(item.name))
        elif item.kind == "image":
            self.images.draw()
        else:
            self.navigation.enter()

    def back(self) -> None:
        """Leave the most transient thing: the filter, the marks, the page."""
        if self.filter_bar.typing or self.table.current_query.terms:
            self.filter_bar.drop()
        elif self.marks and not self.panes.covers and self.panes.depth == 0:
            self.marks.clear()
            self.panes.redraw()
        else:
            self.out()

    def out(self) -> None:
        """Go to the table that this one was opened from."""
        if not self.navigation.out():
            self.notice.say("q quits")

    # Covers

    @cached_property
    def _help(self) -> Cover:
        return Cover(help_listing(self.glyphs is UNICODE), self._do_listed)

    def why_not_show_help(self) -> str | None:
        """Why the help cannot be shown, None where it can."""
        return "it is shown; esc leaves it" if self.panes.cover is self._help else None

    def show_help(self) -> None:
        """List the keys and the filter language."""
        self.panes.show_cover(self._help)

    def show_palette(self) -> None:
        """List the actions that are possible now, to be filtered."""
        listing = palette_listing(self.glyphs is UNICODE, lambda action: action.why_not(self))
        self.panes.show_cover(Cover(listing, self._do_listed, sign=":", opens_when_filtered=True, only_filtered=True))
        self.filter_bar.begin()

    def _do_listed(self, item: Item) -> None:
        """Do the action that a row of the help or of the palette stands for, to what is below."""
        self.panes.uncover()
        self.do(BY_NAME[item.name])

    # Marks, taking away

    def mark(self) -> None:
        """Mark the row or unmark it, and go to the next one."""
        self.marks.toggle(self.table.item)
        self.table.redraw_row()
        self.table.move(1)

    def why_not_compare(self) -> str | None:
        """Why nothing can be compared, None where something can."""
        if self.marks.pair(self.table.item) is None:
            return "mark two units, layers or stores with space first"
        return self.navigation.nothing_counted()

    def compare(self) -> None:
        """Compare what was marked."""
        from ndissect.tui.app.compare import compare  # noqa: PLC0415 - the first screen is there sooner without it

        pair, session = self.marks.pair(self.table.item), self.navigation.session
        assert pair is not None and session is not None
        self.panes.show_cover(Cover(compare(*pair, session, Session), self.navigation.go_to))

    def why_not_copy_row(self) -> str | None:
        """Why no row can be copied, None where one can."""
        return "there is no row here" if self.table.row is None else None

    def copy_row(self) -> None:
        """Put the row on the clipboard."""
        row = self.table.row
        assert row is not None
        text = self.listing.copied(row)
        copy_to_clipboard(self, text)
        self.notice.say(f"copied: {' '.join(text.split(chr(9)))}")

    def why_not_export_rows(self) -> str | None:
        """Why the table cannot be exported, None where it can."""
        return None if self.table.count else "there are no rows"

    def export_rows(self) -> None:
        """Write the rows that are shown to a file in the working directory."""
        path = export(self.listing, self.table.rows, Path(), self.navigation.target)
        self.notice.say(f"{self.table.count} rows written to {path.absolute()}")

    # The store

    def reload(self) -> None:
        """Read the store again. NDError: what was there stays."""
        self._reopen()
        self.notice.say("read again")

    def _reopen(self) -> None:
        """Read the store again; cursors, filters and marks stay as they were."""
        self.navigation.cache = ListingCache(self.navigation.target)
        self.lines.update_run()
        self.navigation.show_again()

    def _open_store(self, target: Path) -> None:
        """Browse another store. NDError: the one that is open stays."""
        cache = ListingCache(target)
        self._remember()
        self.navigation.cache = cache
        self.panes.forget()
        self.marks.keep_stores()
        self.lines.update_run()
        self._go(last_bookmark(target) or Bookmark())

    def _watch(self) -> None:
        """Look at the file: a run goes on or has ended, the store was replaced, or is gone."""
        with self.notice.telling_errors():
            self.ablations.look()
            cache, session = self.navigation.cache, self.navigation.session
            before, now = cache.files, watch.files_on_disk(cache.target)
            cache.files = now
            self.lines.update_run()
            name = cache.target.name
            live = session is None or session.path != session.target
            if live and now.run is None and now.store is None:
                if before.run is not None:
                    self.notice.say(f"the run that was to write {name} has ended without it")
            elif live and (now.store is not None or now.partial != before.partial):
                self._reopen()
                if now.store is not None:
                    self.notice.say("the run has ended: this is its store")
            elif not live and now.store != before.store and not self.ablations.running:
                gone = f"{name} is gone from the disk"
                self.notice.say(f"{name} was replaced: r reads the new one" if now.store else gone)
