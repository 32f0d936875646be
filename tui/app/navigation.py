"""Where in which store the reader is."""

from __future__ import annotations

from pathlib import Path

from ndissect.tui.app.covers import Cover
from ndissect.tui.app.listing import NOTHING, Item
from ndissect.tui.app.listing_cache import ListingCache
from ndissect.tui.app.panes import Panes
from ndissect.tui.app.session import Session
from ndissect.tui.app.state import Bookmark
from ndissect.tui.tables.formats import with_iou


class Navigation:
    """The open store, and which of its listings the panes show.

    ``root`` names the listing on the left, one of ``ROOTS`` in state.py. ``summary_of`` is the layer that the summary
    is of, "" for all layers. What shows a listing raises NDError where the store is damaged.
    """

    def __init__(self, cache: ListingCache, panes: Panes) -> None:
        self.cache = cache
        self.panes = panes
        self.root = "layers"
        self.summary_of = ""
        self._last_summary_of = ""
        self._before_stores = Bookmark()

    @property
    def session(self) -> Session | None:
        """The open store, None while a run has published nothing."""
        return self.cache.session

    @property
    def target(self) -> Path:
        """The file of the open store."""
        return self.cache.target

    def nothing_counted(self) -> str | None:
        """Why there is nothing to show but the names of layers, None where there is more."""
        return None if self.session else "the run has counted nothing yet"

    def no_classes(self) -> str | None:
        """Why there are no classes to show, None where there are."""
        session = self.session
        if session is None or session.classes:
            return self.nothing_counted()
        return session.how_to_get_effects()

    def no_unit_classes(self) -> str | None:
        """Why there is nothing to show of classes and the unit that the reader is at, None where there is."""
        session, unit = self.session, self.panes.unit_here
        if session is None or unit is None:
            return self.nothing_counted() or "this is no unit"
        return None if session.class_effects(unit.layer) else session.how_to_get_effects(unit.layer)

    def show_unit_classes(self) -> None:
        """Show the classes that need the unit that the reader is at, over the tables."""
        from ndissect.tui.app.unit_classes import unit_classes  # noqa: PLC0415 - the first screen is there sooner

        unit, session = self.panes.unit_here, self.session
        assert unit is not None and session is not None
        self.panes.show_cover(Cover(unit_classes(session, unit.layer, unit.unit), self.go_to))

    # To a place and back

    def bookmark(self) -> Bookmark:
        """Where the reader is in this store, to come back to."""
        if self.root == "stores":
            return self._before_stores
        root, units = self.panes.root.item, self.panes.units.item
        layer = root.layer if root.kind == "layer" else self.summary_of
        unit_layer, unit = (units.layer, units.unit) if units.kind == "unit" else (layer, -1)
        category = root.name if root.kind == "category" else ""
        return Bookmark(self.root, self.panes.depth, layer, unit_layer, unit, root.concept, category, root.output)

    def go(self, bookmark: Bookmark) -> None:
        """Show what ``bookmark`` is of, as far as the store has it."""
        self.panes.drop_covers()
        summary_of = bookmark.layer if bookmark.root == "summary" else ""
        item = NOTHING
        if bookmark.concept >= 0:
            item = Item("concept", summary_of, concept=bookmark.concept)
        elif bookmark.category:
            item = Item("category", summary_of, name=bookmark.category)
        elif bookmark.output >= 0:
            item = Item("class", output=bookmark.output)
        elif bookmark.root == "layers" and bookmark != Bookmark():
            item = Item("layer", bookmark.layer)
        unit = Item("unit", bookmark.unit_layer, bookmark.unit)
        self._show(bookmark.root, summary_of, bookmark.depth, item, unit)

    def go_to(self, item: Item) -> None:
        """Show the page of ``item``, wherever the reader is."""
        if item.kind == "concept":
            self.go(Bookmark("concepts", 1, concept=item.concept))
        elif item.kind == "class":
            self.go(Bookmark("classes", 1, "", item.layer, item.unit, output=item.output))
        elif item.kind == "unit":
            self.go(Bookmark("layers", 2, item.layer, item.layer, item.unit))
        elif item.kind == "layer":
            self.go(Bookmark("layers", 1, item.layer))

    def show_again(self) -> None:
        """Show the same listings from a new ``cache`` of the same store; the reader stays in place."""
        panes = self.panes
        self._show(self.root, self.summary_of, panes.depth, panes.root.item, panes.units.item)

    def _show(self, root: str, summary_of: str, depth: int, item: Item, unit: Item) -> None:
        """Show the listing ``root`` at ``item``, its units at ``unit``, and the unit, as far as ``depth`` says."""
        panes = self.panes
        known = self.session.store.layer_names if self.session else ()
        self.root, self.summary_of, panes.depth = root, summary_of if summary_of in known else "", 0
        try:
            panes.root.show(self.cache.root(root, self.summary_of), item)
            if depth > 0 and panes.root.item == item:
                self.show_units(unit if unit.unit >= 0 else None)
                panes.depth = 1 if panes.units.listing is not None else 0
            if depth > 1 and panes.depth == 1 and panes.units.item == unit:
                self.show_unit()
                panes.depth = 2 if panes.unit.listing is not None else 1
        finally:  # what is damaged is not shown, the rest is
            panes.rearrange()

    # In and out

    def show_units(self, at: Item | None = None) -> None:
        """List the units of what the cursor on the left is on, with the cursor on ``at`` where that is given."""
        listing = self.cache.units(self.panes.root.item)
        if listing is not self.panes.units.listing or at is not None:
            self.panes.units.show(listing, at)

    def show_unit(self) -> None:
        """Show the page of the unit that the cursor is on."""
        listing = self.cache.unit(self.panes.units.item)
        if listing is not self.panes.unit.listing:
            self.panes.unit.show(listing)

    def follow(self) -> None:
        """Show in the tables on the right what the cursors on their left are on."""
        panes = self.panes
        if panes.depth < 1 and panes.units.display:
            self.show_units()
        if panes.depth < 2 and panes.unit.display:
            self.show_unit()

    def enter(self) -> None:
        """Go from the table that has the keys into what its cursor is on, where that has a page."""
        item, depth = self.panes.table.item, self.panes.depth
        if depth == 0 and item.kind in ("layer", "concept", "category", "class"):
            self.show_units()
            self.panes.show_depth(1)
        elif depth == 1 and item.kind == "unit":
            self.show_unit()
            self.panes.show_depth(2)
        elif depth == 2 and item.kind in ("concept", "class"):
            self.go_to(item)

    def out(self) -> bool:
        """Go to the table that this one was opened from, at last to the layers. Returns False where it is these."""
        if self.panes.covers:
            self.panes.uncover()
        elif self.panes.depth:
            self.panes.show_depth(self.panes.depth - 1)
        elif self.root != "layers":
            self.show_root("layers")
        else:
            return False
        return True

    # What stands on the left

    def show_root(self, name: str) -> None:
        """Show the listing ``name`` on the left, and give it the keys."""
        if name == "stores":
            self._before_stores = self.bookmark()
        self.panes.drop_covers()
        here = Item("store", name=str(self.target)) if name == "stores" else None
        self.panes.root.show(self.cache.root(name, self.summary_of if name == "summary" else ""), here)
        self.root = name
        self.panes.show_depth(0)

    def show_summary(self) -> None:
        """Show the summary: of the layer that the cursor is on, and at the next call of all layers, or of one again."""
        self._last_summary_of = self.summary_of or self._last_summary_of
        if self.root != "summary":
            self.summary_of = self.panes.root.item.layer if self.root == "layers" else ""
        elif self.summary_of:
            self.summary_of = ""
        else:
            self.summary_of = self._one_layer()
        self.show_root("summary")

    def _one_layer(self) -> str:
        """The layer that the summary was of last, else the last one of the store."""
        names = self.session.store.layer_names if self.session else ()
        return self._last_summary_of if self._last_summary_of in names else names[-1] if names else ""

    # In words

    def crumbs(self) -> list[str]:
        """Where the reader is, from the store's name inwards."""
        crumbs = [self.target.name]
        if self.panes.cover is not None:
            return [*crumbs, self.panes.cover.listing.name]
        item, depth = self.panes.root.item, self.panes.depth
        if self.root != "layers" or depth == 0:
            crumbs.append(f"summary of {self.summary_of}" if self.root == "summary" and self.summary_of else self.root)
        if depth > 0:
            crumbs.append(self._name_of(item))
        if depth > 1:
            crumbs.append(self._name_of(self.panes.units.item).removeprefix(f"{item.layer}:"))
        return crumbs

    def _name_of(self, item: Item) -> str:
        session = self.session
        if session is None:
            return ""
        if item.kind == "layer":
            return item.layer or "all layers"
        if item.kind == "category":
            return item.name
        if item.kind == "concept":
            return session.labels[session.concept_row(item.concept)]
        if item.kind == "class":
            return session.classes[item.output]
        view = session.view(item.layer)
        label = session.labels[view.labels[0][item.unit]]
        return f"{item.layer}:{item.unit}" + (f" {with_iou(label, view.labels[1][item.unit])}" if label else "")
