"""The listings of a store: each is made when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from textual.cache import LRUCache

from ndissect.store.live import Run, find_runs
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import Item, Listing
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.units import category_units, concept_units, layer_units
from ndissect.tui.app.watch import files_on_disk, open_session, waiting_listing

_MOST_LISTINGS = 32


def _of_classes() -> ModuleType:
    """The module with the tables of classes, which the first screen does not wait for."""
    from ndissect.tui.app import classes  # noqa: PLC0415

    return classes


class ListingCache:
    """The listings of the store ``target``, or of a run that has published nothing yet (``session`` is None then).

    ``files`` is what was last seen on disk. Raises NDError where there is neither store nor run, or the store is
    damaged.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.files = files_on_disk(target)
        self.session = open_session(target, self.files)
        self._waiting = waiting_listing(self.run)
        self._listings: LRUCache[tuple[str, Item | str], Listing] = LRUCache(_MOST_LISTINGS)
        self.root("layers")  # made now, so that what is damaged shows before anything else is given up

    @property
    def run(self) -> Run | None:
        """The run that will write the store."""
        return self.files.run

    def root(self, name: str, layer: str = "") -> Listing:
        """The listing on the left: one of ``ROOTS`` in state.py; ``layer`` narrows the summary. Raises NDError."""
        session = self.session
        if name == "stores":  # never kept: files come and go
            from ndissect.tui.app.stores import stores_listing  # noqa: PLC0415 - few readers look at it

            folder = self.target.parent
            return stores_listing(folder, self.target, [run.target for run in find_runs(folder)])
        if session is None:
            return self._waiting
        makers: dict[str, Callable[[], Listing]] = {
            "layers": lambda: layers_listing(session),
            "concepts": lambda: concepts_listing(session),
            "summary": lambda: summary_listing(session, layer),
            "classes": lambda: _of_classes().classes_listing(session),
        }
        return self._kept_or_made((name, layer), makers[name])

    def units(self, item: Item) -> Listing | None:
        """The units of the layer, concept, category or class ``item``, None where it is none. Raises NDError."""
        session = self.session
        if session is None:
            return None
        makers: dict[str, Callable[[], Listing]] = {
            "layer": lambda: layer_units(session, item.layer),
            "concept": lambda: concept_units(session, item.concept, item.layer),
            "category": lambda: category_units(session, item.name, item.layer),
            "class": lambda: _of_classes().class_units(session, item.output),
        }
        return self._kept_or_made(("units", item), makers[item.kind]) if item.kind in makers else None

    def unit(self, item: Item) -> Listing | None:
        """The page of the unit ``item``, None where it is none. Raises NDError."""
        session = self.session
        if session is None or item.kind != "unit":
            return None
        return self._kept_or_made(("unit", item), lambda: unit_listing(session, item.layer, item.unit))

    def _kept_or_made(self, key: tuple[str, Item | str], make: Callable[[], Listing]) -> Listing:
        listing = self._listings.get(key)
        if listing is None:
            listing = self._listings[key] = make()
        return listing
