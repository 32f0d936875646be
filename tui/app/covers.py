"""Covers: the help, the palette, the choice of viewers and the comparison, shown over the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ndissect.tui.app.listing import Item, Listing


# No screens of Textual: a cover takes the place of the tables and leaves the lines and pictures around them as they
# are. A screen needs copies of all of these, and comes up 2.4 times as late (23 ms, not 10).
@dataclass(frozen=True)
class Cover:
    """A listing over the tables, until esc takes it away.

    ``open`` does what enter does with a row. ``sign`` stands before a filter. ``opens_when_filtered``: the enter that
    ends a filter opens the row too. ``only_filtered``: the cover is there to be filtered, and goes with its filter.
    """

    listing: Listing
    open: Callable[[Item], None]
    sign: str = "/"
    opens_when_filtered: bool = False
    only_filtered: bool = False
