"""The section of a report's page that tells of the network's classes: plain HTML, without a script."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from ndissect.store.layer_view import LayerView
from ndissect.store.text import clean_text
from ndissect.tui.tables.class_units import class_table, spoken_label
from ndissect.tui.tables.doubts import doubted
from ndissect.tui.tables.effects import SPEAKS, class_names, effects_notes, has_classes
from ndissect.tui.tables.formats import share, signed, signed_interval


def class_section(layers: Sequence[LayerView]) -> str:
    """The classes with the unit that each needs most, and that which speaks most for it; "" where nothing is known."""
    views = [view for view in layers if has_classes(view)]
    names = class_names(views[0]) if views else ()
    if not names:
        return ""
    rows = class_table(views, range(len(names)))
    ablated = any(view.effects is not None for view in views)
    heads = any("speaks" in row for row in rows)
    titles = [("class", False)]
    if ablated:
        titles += [("images", True), ("balanced accuracy", True), ("needs unit", False), ("label", False)]
        titles += [("change", True), ("95 %", True), ("random unit", True)]
    if heads:
        titles += [("spoken for by", False), ("label", False), ("weight", True)]
    head = "".join(f'<th scope="col"{_class(number)}>{_text(title)}</th>' for title, number in titles)
    body = "\n".join(_row(row, ablated, heads) for row in rows)
    notes = [*effects_notes(views), *([SPEAKS] if heads else [])]
    said = "".join(f"<li>{_text(line)}</li>" for line in notes)
    return (
        f'<section aria-labelledby="classes">\n<h2 id="classes">Classes</h2>\n<div class="scroll">\n'
        f'<table class="summary">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n'
        f'<ul class="note">{said}</ul>\n</section>'
    )


def _row(row: dict[str, Any], ablated: bool, heads: bool) -> str:
    cells: list[tuple[str, bool]] = []
    if ablated:
        images = "" if row["images"] is None else f"{row['images']:,}"
        label = doubted(row["label"] or "", row["doubt"] or "")
        cells += [(images, True), (share(row["balanced_accuracy"]), True), (row["unit"] or "-", False), (label, False)]
        cells += [(signed(row["change"]), True), (signed_interval(row["low"], row["high"]), True)]
        cells.append((signed(row["random"]), True))
    if heads:
        known = "speaks" in row
        cells += [(row["spoken_by"] if known else "-", False), (spoken_label(row), False)]
        cells.append((signed(row["speaks"]) if known else "-", True))
    told = "".join(f"<td{_class(number)}>{_text(text)}</td>" for text, number in cells)
    return f'<tr><th scope="row">{_text(row["class"])}</th>{told}</tr>'


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _text(value: str) -> str:
    return html.escape(clean_text(value))
