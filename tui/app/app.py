"""The app: which store is open, going in and out of its tables, marks, taking away; how it begins and ends."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from ndissect.tui.app import export as taking
from ndissect.tui.app import watch
from ndissect.tui.app.filter_actions import Finding
from ndissect.tui.app.help import help_listing, palette_listing
from ndissect.tui.app.image_actions import Looking
from ndissect.tui.app.listing import Item
from ndissect.tui.app.listing_cache import Shelf
from ndissect.tui.app.messages import told
from ndissect.tui.app.query import EVERYTHING
from ndissect.tui.app.session import Session
from ndissect.tui.app.state import Bookmark, last_bookmark, remember
from ndissect.tui.app.table import Table
from ndissect.tui.pictures.glyphs import UNICODE

# Seconds between looks at the file.
_WATCH = 1.0
#: What can be marked and compared.
COMPARED = ("unit", "layer", "store")


class Browser(Finding, Looking):
    """The terminal UI over the store ``target``, which need not exist while a run is writing it.

    ``place`` is where it opens, None: where it was left. ``failure`` is the error that ended it, if one did, and
    ``paths`` are pictures that no viewer could show. NDError, before the screen is taken, where nothing can be opened.
    """

    def __init__(self, target: Path, place: Bookmark | None = None, *, unicode: bool = True, preview: bool = False):
        super().__init__(unicode)
        self.failure: BaseException | None = None
        self._wanted = place
        self._summed_up = ""
        if preview:
            self.begin_preview()
        self.shelf = Shelf(target)

    # Beginning and end

    def on_mount(self) -> None:
        """Show where the reader was, and watch the file from now on."""
        assert self.shelf is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop, number)
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self.show_run()
        self.go(self._wanted or last_bookmark(self.shelf.target) or Bookmark())
        self.set_interval(_WATCH, self._watch)

    def _stop(self, number: signal.Signals) -> None:
        self._keep_place()
        self.exit(return_code=128 + number)

    def _keep_place(self) -> None:
        if self.shelf is not None and self.session is not None:
            remember(self.shelf.target, self.place())

    def _fatal_error(self) -> None:
        # Textual would print a traceback over the restored screen; the command line says it in two lines instead.
        self.failure = getattr(self._exception, "error", self._exception)  # what is inside a WorkerFailed
        self._close_messages_no_wait()

    # Going in and out

    def do_enter(self) -> None:
        item = self.table.item
        if item.kind == "action":
            self.uncover()
            self.do(item.name)
        elif item.kind == "viewer":
            self.uncover()
            self.show_pictures(self.viewers[item.unit])
        elif item.kind == "store":
            self.open(Path(item.name))
        elif item.kind == "image":
            self.do_overlay()
        elif self.covers:
            self._leave_for(item)
        elif self.depth == 0 and item.kind in ("layer", "concept", "category"):
            self._show_units()
            self.depth = 1
            self.arrange()
        elif self.depth == 1 and item.kind == "unit":
            self._show_unit()
            self.depth = 2
            self.arrange()
        elif self.depth == 2 and item.kind == "concept":
            self._leave_for(Item("concept", concept=item.concept))

    def why_not_enter(self) -> str | None:
        item = self.table.item
        if item.kind in ("layer", "concept", "category") and self.session is None:
            return "the run has counted nothing yet"
        return "there is nothing to open here" if item.kind == "none" else None

    def _leave_for(self, item: Item) -> None:
        """Go to the page of ``item``, wherever the reader is."""
        self.covers.clear()
        self._cover.show(None)
        if item.kind == "concept":
            self.go(Bookmark("concepts", 1, concept=item.concept))
        elif item.kind == "unit":
            self.go(Bookmark("layers", 2, item.layer, item.layer, item.unit))
        elif item.kind == "layer":
            self.go(Bookmark("layers", 1, item.layer))

    def do_back(self) -> None:
        if self.typing:
            self.stop_typing()
            if self.covers and self.covers[-1].name == "palette":
                self.uncover()
            else:
                self.table.filter(EVERYTHING)
        elif self.table.wanted.terms:
            self.table.filter(EVERYTHING)
        elif self.marks and not self.covers and self.depth == 0:
            self._unmark_all()
        else:
            self.do_out()

    def do_out(self) -> None:
        if self.covers:
            self.uncover()
        elif self.depth:
            self.depth -= 1
            self.arrange()
        elif self.root != "layers":
            self._root("layers")
        else:
            self.say("q quits")

    def _unmark_all(self) -> None:
        self.marks.clear()
        for table in (*self._levels, self._cover):
            table.refresh()

    # What is shown

    def _root(self, name: str) -> None:
        assert self.shelf is not None
        if name == "stores":
            self._before_stores = self.place()
        self.covers.clear()
        self._cover.show(None)
        here = Item("store", name=str(self.shelf.target)) if name == "stores" else None
        self._levels[0].show(self.shelf.root(name, self.summary_of if name == "summary" else ""), here)
        self.root, self.depth = name, 0
        self.arrange()

    def do_layers(self) -> None:
        self._root("layers")

    def do_concepts(self) -> None:
        self._root("concepts")

    def do_summary(self) -> None:
        self._summed_up = self.summary_of or self._summed_up
        if self.root != "summary":
            self.summary_of = self._levels[0].item.layer if self.root == "layers" else ""
        elif self.summary_of:
            self.summary_of = ""
        else:
            self.summary_of = self._one_layer()
        self._root("summary")

    def _one_layer(self) -> str:
        """The layer that the summary was of last, else the last one of the store."""
        names = self.session.store.layer_names if self.session else ()
        return self._summed_up if self._summed_up in names else names[-1] if names else ""

    def do_stores(self) -> None:
        self._root("stores")

    def why_not_concepts(self) -> str | None:
        return None if self.session else "the run has counted nothing yet"

    why_not_summary = why_not_concepts

    def do_help(self) -> None:
        self.cover(help_listing(self.glyphs is UNICODE))

    def why_not_help(self) -> str | None:
        return "it is shown; esc leaves it" if self.covers and self.covers[-1].name == "help" else None

    def do_palette(self) -> None:
        self.cover(palette_listing(self.glyphs is UNICODE, self.why_not))
        self.do_filter()

    # Marks, taking away

    def why_not_compare(self) -> str | None:
        if self._compared() is None:
            return "mark two units, layers or stores with space first"
        return None if self.session else "the run has counted nothing yet"

    def _compared(self) -> tuple[Item, Item] | None:
        """The two last marks of one kind; of only one mark, it and what the cursor is on."""
        item = self.table.item
        marks = [m for m in self.marks if m.kind == (self.marks[-1].kind if self.marks else "")]
        if len(marks) >= 2:
            return marks[-2], marks[-1]
        if marks and item.kind == marks[0].kind and item != marks[0]:
            return marks[0], item
        return None

    def do_compare(self) -> None:
        from ndissect.tui.app.compare import compare  # noqa: PLC0415 - the first screen is there sooner without it

        pair = self._compared()
        assert pair is not None and self.session is not None
        self.cover(compare(*pair, self.session, Session))

    def why_not_mark(self) -> str | None:
        item = self.table.item
        if item.kind not in COMPARED or (item.kind == "layer" and not item.layer):
            return "units, layers and stores can be marked"
        return None

    def do_mark(self) -> None:
        item = self.table.item
        if item in self.marks:
            self.marks.remove(item)
        else:
            self.marks.append(item)
        self.table.redraw_row()
        self.table.move(1)

    def why_not_copy(self) -> str | None:
        return "there is no row here" if self.table.row is None else None

    def do_copy(self) -> None:
        listing, row = self.listing, self.table.row
        assert listing is not None and row is not None
        text = listing.copied(row)
        self.to_clipboard(text)
        self.say(f"copied: {' '.join(text.split(chr(9)))}")

    def why_not_export(self) -> str | None:
        return None if self.table.count else "there are no rows"

    def do_export(self) -> None:
        assert self.listing is not None and self.shelf is not None
        path = taking.export(self.listing, self.table.rows, Path(), self.shelf.target)
        self.say(f"{self.table.count} rows written to {path.absolute()}")

    # The store

    def do_reload(self) -> None:
        self._reopen()
        self.say("read again")

    def _reopen(self) -> None:
        """Read the store again, cursors, filters and marks as they were. NDError: what was there stays."""
        assert self.shelf is not None
        self.shelf = Shelf(self.shelf.target)
        self.show_run()
        self._restore(self.root, self.summary_of, self.depth, self._levels[0].item, self._levels[1].item)

    def open(self, target: Path) -> None:
        """Browse another store. NDError: the one that is open stays."""
        shelf = Shelf(target)
        self._keep_place()
        self.shelf = shelf
        for table in (*self._levels, self._cover):
            table.forget()
        self.marks = [item for item in self.marks if item.kind == "store"]
        self.show_run()
        self.go(last_bookmark(target) or Bookmark())

    @told
    def _watch(self) -> None:
        """Look at the file: a run goes on or has ended, the store was replaced, or is gone."""
        assert self.shelf is not None
        before, now = self.shelf.sight, watch.look(self.shelf.target)
        self.shelf.sight = now
        self.show_run()
        session = self.session
        live = session is None or session.path != session.target
        if live and now.run is None and now.store is None:
            if before.run is not None:
                self.say(f"the run that was to write {self.shelf.target.name} has ended without it")
        elif live and (now.store is not None or now.partial != before.partial):
            self._reopen()
            if now.store is not None:
                self.say("the run has ended: this is its store")
        elif not live and now.store != before.store:
            name = self.shelf.target.name
            self.say(f"{name} was replaced: r reads the new one" if now.store else f"{name} is gone from the disk")

    def do_suspend(self) -> None:
        self.action_suspend_process()

    def do_quit(self) -> None:
        self._keep_place()
        self.exit()

    def on_table_clicked(self, message: Table.Clicked) -> None:
        """A click gives its table the keys."""
        self.hush()
        if message.table in self._levels and not self.typing:
            self.depth = self._levels.index(message.table)
            self.arrange()

    def on_table_opened(self, message: Table.Opened) -> None:
        """A double click opens."""
        self.do("enter")
