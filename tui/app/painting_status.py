"""What the lines below the picture say: the cursor and what is selected, and what the edits did."""

from __future__ import annotations

from ndissect.tui.app.painting_selection import Selection
from ndissect.tui.app.painting_server import Drawn, Ready
from ndissect.tui.app.strips import StyledText


def status_line(selection: Selection, concept: str, strength: float) -> list[StyledText]:
    """Concept and strength of the next edit, and the cells that it is for."""
    count, cursor = len(selection.cells), selection.cursor
    cells = f"{count} of {selection.grid[0]} x {selection.grid[1]} cells selected" if count else "no cells selected"
    return [
        (concept or "/ chooses a concept", "strong" if concept else "faint"),
        (f"  strength {strength:g}  ", ""),
        (f"row {cursor[0]}, column {cursor[1]}{' (selected)' if cursor in selection.cells else ''}  ", ""),
        (cells, "" if count else "faint"),
    ]


def effect_line(ready: Ready | None, drawn: Drawn | None, *, before: bool, busy: bool) -> str:
    """What the edits did to the last one's concept and elsewhere, and how long it took from the key to the picture.

    ``before``: the picture before the edits is shown.
    """
    if ready is None:
        return "the network is being loaded ..."
    if before:
        return "before the edits; b shows what they did"
    if drawn is None:
        return "the sample is being drawn ..."
    if busy:
        return "the network works ..."
    parts = []
    if drawn.effect is not None:
        concept = drawn.wish.edits[-1].concept
        parts += [f"{name} {was} -> {now} px" for name, was, now in drawn.effect.concepts if name == concept][:1]
        elsewhere = f"{drawn.effect.changed_outside} of {drawn.effect.pixels_outside} px changed elsewhere"
        parts.append(elsewhere)
    elif drawn.wish.edits:
        parts.append("pixels are being counted ...")
    return "  ".join([*parts, f"{drawn.seconds:.2f} s"])
