"""Which columns of a table are left out where there is no room for all: one rule for every table."""

from __future__ import annotations

from collections.abc import Sequence


def width_of(widths: Sequence[int], columns: Sequence[int], gap: int) -> int:
    """Cells that ``columns``, indices of ``widths``, take side by side, ``gap`` cells between two."""
    return sum(widths[i] for i in columns) + gap * (len(columns) - 1)


def fitting(widths: Sequence[int], drops: Sequence[int], room: int, gap: int) -> list[int]:
    """The columns that are shown in ``room`` cells, as indices of ``widths``, the cells that each takes.

    Columns with the highest of ``drops`` go first, the first of equals before the others, until the rest fits. Those
    with 0 stay even where they do not fit.
    """
    shown = list(range(len(widths)))
    while width_of(widths, shown, gap) > room and any(drops[i] for i in shown):
        shown.remove(max(shown, key=lambda i: drops[i]))
    return shown
