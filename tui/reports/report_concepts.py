"""The section of a report's page that tells what a generator's units do to concepts: plain HTML, without a script."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from ndissect.store.layer_view import LayerView
from ndissect.store.text import clean_text
from ndissect.tui.tables.concept_effects import concept_rows, effects_notes
from ndissect.tui.tables.formats import interval, iou, share


def concept_section(layers: Sequence[LayerView]) -> str:
    """Each concept with the unit without which it loses most, and the unit of the largest learned coefficient; "" where
    nothing is known."""
    rows = concept_rows(layers)
    if not rows:
        return ""
    measured = any(row["unit"] for row in rows)
    learned = any(row["coefficient_unit"] for row in rows)
    titles = [("concept", False), ("best IoU", False), ("IoU", True)]
    if measured:
        titles += [("share of pixels", True), ("falls most without", False), ("label", False), ("to", True)]
        titles.append(("95 %", True))
    if learned:
        titles += [("largest coefficient", False), ("coefficient", True)]
    head = "".join(f'<th scope="col"{_class(number)}>{_text(title)}</th>' for title, number in titles)
    body = "\n".join(_row(row, measured, learned) for row in rows)
    said = "".join(f"<li>{_text(line)}</li>" for line in effects_notes(layers))
    return (
        f'<section aria-labelledby="concepts-drawn">\n<h2 id="concepts-drawn">What units draw</h2>\n'
        f'<div class="scroll">\n<table class="summary">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        f'</table>\n</div>\n<ul class="note">{said}</ul>\n</section>'
    )


def _row(row: dict[str, Any], measured: bool, learned: bool) -> str:
    cells = [(row["iou_unit"] or "-", False), (iou(row["iou"]), True)]
    if measured:
        cells += [(share(row["before"]), True), (row["unit"] or "-", False), (row["label"] or "-", False)]
        cells += [(share(row["after"]), True), (interval(row["low"], row["high"]), True)]
    if learned:
        cells += [(row["coefficient_unit"] or "-", False), (share(row["coefficient"]), True)]
    told = "".join(f"<td{_class(number)}>{_text(text)}</td>" for text, number in cells)
    return f'<tr><th scope="row">{_text(row["concept"])}</th>{told}</tr>'


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _text(value: str) -> str:
    return html.escape(clean_text(value))
