"""The help screen, the palette and the choice of viewers: listings whose rows are things to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ndissect.tui.app.actions import ACTIONS, GROUPS, Action
from ndissect.tui.app.listing import NOTHING, Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.pictures.viewer import Viewer

LANGUAGE = (
    ("street", "rows that hold the word; several words: all of them"),
    ('"traffic light"', "the two words together"),
    ("!street", "not that; before any term"),
    ("cat:object,part", "of these categories; beginnings of names will do"),
    ("layer:layer4*", "of these layers; * and ? stand for what may differ"),
    ("iou>0.1  iou<=0.2", "iou unit threshold images detectors units peak coefficient concept_effect"),
    ("q<0.05  low>0.04", "q p low heldout stability auprc similarity of a label"),
    ("unit:100-200,300", "units in these ranges"),
    ("class:street", "units it needs (interval < 0), or that speak for it"),
    ("effect<-0.02", "effect of its absence on the class hurt most"),
    ("class:street effect<-0.1", "effect on that class; with commas, on any of them"),
    ("dead  detector  marked", "dead units; IoU above 0.04; marked rows"),
    ("significant", "q below 0.05: told from chance"),
)


def help_listing(unicode: bool) -> Listing:
    """Every action by group with its keys, then the filter language; enter does what the cursor is on."""
    rows: list[tuple[str, str, Item]] = []
    headings = []
    for group in GROUPS:
        headings.append(len(rows))
        rows.append((group, "", NOTHING))
        rows += [(shown(a, unicode), a.does, Item("action", name=a.name)) for a in ACTIONS if a.group == group]
    headings.append(len(rows))
    rows.append(("Filter", "terms with spaces between them: a row passes that passes all", NOTHING))
    rows += [(term, does, Item("none", name=term)) for term, does in LANGUAGE]
    return _listing("help", rows, frozenset(headings))


def palette_listing(unicode: bool, why_not: Callable[[Action[Any]], str | None]) -> Listing:
    """The actions that are possible now; enter does one."""
    able = [a for a in ACTIONS if a.name != "palette" and why_not(a) is None]
    rows = [(f"{a.name.replace('_', ' '):<12}{shown(a, unicode)}", a.does, Item("action", name=a.name)) for a in able]
    return _listing("palette", rows, frozenset())


def viewers_listing(viewers: Sequence[Viewer]) -> Listing:
    """The image viewers that can be used here, best first; enter shows the picture with one."""
    how = {
        "window": "opens a window",
        "terminal": "draws in this terminal",
        "print": "prints the picture's path and copies it",
    }
    rows = [
        (v.name, f"{how[v.kind]} ({v.why})" if v.argv else how[v.kind], Item("viewer", unit=i))
        for i, v in enumerate(viewers)
    ]
    return _listing("viewers", rows, frozenset())


def shown(action: Action[Any], unicode: bool) -> str:
    """The keys of ``action`` as people write them."""
    return action.shown if unicode else " ".join(k for k in action.shown.split() if k.isascii())


def _listing(name: str, rows: list[tuple[str, str, Item]], headings: frozenset[int]) -> Listing:
    first = {"palette": "action      key", "viewers": "viewer"}.get(name, "key")
    return Listing(
        name=name,
        subject="",
        columns=(Column(first, 24), Column("does", 40, grows=True)),
        count=len(rows),
        cells=lambda row: rows[row][:2],
        item=lambda row: rows[row][2],
        fields=lambda: Fields(words=(texts([f"{key} {does}" for key, does, _ in rows]),)),
        headings=headings,
        copied=lambda row: "\t".join(rows[row][:2]),
        plain=lambda row: {"key": rows[row][0], "does": rows[row][1]},
    )
