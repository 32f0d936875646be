"""Which listing each table shows: made from the store when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ndissect.store.live import Run, find_runs
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import Item, Listing
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.units import category_units, concept_units, layer_units
from ndissect.tui.app.watch import look, open_session, waiting_listing

# Listings that are kept beside those of the table on the left.
_KEPT = 32


class Shelf:
    """The listings of the store ``target``, or of a run that has published nothing yet (``session`` None).

    ``sight`` is what was last seen on disk. NDError where there is neither store nor run, or the store is damaged.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.sight = look(target)
        self.session = open_session(target, self.sight)
        self._waiting = waiting_listing(self.run)
        self._kept: dict[tuple[str, Item | str], Listing] = {}
        self.root("layers")  # made now, so that what is damaged shows before anything else is given up

    @property
    def run(self) -> Run | None:
        """The run that will write the store."""
        return self.sight.run

    def root(self, name: str, layer: str = "") -> Listing:
        """The table on the left: one of ``ROOTS`` in state.py; ``layer`` narrows the summary. Raises NDError."""
        session = self.session
        if name == "stores":  # never kept: files come and go
            from ndissect.tui.app.stores import stores_listing  # noqa: PLC0415 - few readers look at it

            folder = self.target.parent
            return stores_listing(folder, self.target, [run.target for run in find_runs(folder)])
        if session is None:
            return self._waiting
        made: dict[str, Callable[[], Listing]] = {
            "layers": lambda: layers_listing(session),
            "concepts": lambda: concepts_listing(session),
            "summary": lambda: summary_listing(session, layer),
        }
        return self._keep((name, layer), made[name])

    def units(self, item: Item) -> Listing | None:
        """The units of the layer, concept or category ``item``, None where it is none of these. Raises NDError."""
        session = self.session
        if session is None:
            return None
        made: dict[str, Callable[[], Listing]] = {
            "layer": lambda: layer_units(session, item.layer),
            "concept": lambda: concept_units(session, item.concept, item.layer),
            "category": lambda: category_units(session, item.name, item.layer),
        }
        return self._keep(("units", item), made[item.kind]) if item.kind in made else None

    def unit(self, item: Item) -> Listing | None:
        """The page of the unit ``item``, None where it is none. Raises NDError."""
        session = self.session
        if session is None or item.kind != "unit":
            return None
        return self._keep(("unit", item), lambda: unit_listing(session, item.layer, item.unit))

    def _keep(self, key: tuple[str, Item | str], make: Callable[[], Listing]) -> Listing:
        found = self._kept.pop(key, None) or make()
        self._kept[key] = found
        if len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)))
        return found
