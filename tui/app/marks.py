"""What the reader marked, and which two of it are compared."""

from __future__ import annotations

from ndissect.tui.app.listing import Item

_MARKABLE = ("unit", "layer", "store")


class Marks:
    """The marked items, in the order in which they were marked."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __len__(self) -> int:
        return len(self._items)

    @property
    def units(self) -> list[Item]:
        """The marked units."""
        return [item for item in self._items if item.kind == "unit"]

    def why_not(self, item: Item) -> str | None:
        """Why ``item`` cannot be marked, None where it can."""
        if item.kind not in _MARKABLE or (item.kind == "layer" and not item.layer):
            return "units, layers and stores can be marked"
        return None

    def toggle(self, item: Item) -> None:
        """Mark ``item``, or unmark it where it is marked."""
        if item in self._items:
            self._items.remove(item)
        else:
            self._items.append(item)

    def clear(self) -> None:
        """Unmark everything."""
        self._items.clear()

    def keep_stores(self) -> None:
        """Unmark all but stores: another store is opened."""
        self._items = [item for item in self._items if item.kind == "store"]

    def pair(self, here: Item) -> tuple[Item, Item] | None:
        """The two items of one kind that were marked last. Of one mark alone: it and ``here``, if of the same kind."""
        alike = [item for item in self._items if item.kind == self._items[-1].kind]
        if len(alike) >= 2:
            return alike[-2], alike[-1]
        if alike and here.kind == alike[0].kind and here != alike[0]:
            return alike[0], here
        return None
