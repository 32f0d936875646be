"""The table of ``nd compare`` where one of the stores holds descriptions: labels side by side, and where they agree."""

from __future__ import annotations

from typing import Any

from ndissect.tui.cli import output
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.compared_stores import Comparison
from ndissect.tui.tables.formats import iou, share
from ndissect.tui.tables.label_agreement import sentences


def print_agreement(comparison: Comparison, limit: int | None, json: bool) -> None:
    """Print where labels agree, those units first; at most ``limit`` rows of a pair, or what a terminal holds."""
    pairs: list[dict[str, Any]] = comparison.result["agreement"]
    rows = output.rows_to_print(limit, json, notes=4)
    if json:
        for pair in pairs:
            pair["rows"] = pair["rows"][:rows]
        output.print_json(comparison.result)
        return
    if output.on_terminal():
        for n, pair in enumerate(pairs):
            last = n == len(pairs) - 1
            notes = [*sentences(pair), *([comparison.result["rule"], *comparison.result["notes"]] if last else [])]
            shown = pair["rows"][:rows]
            if len(shown) < len(pair["rows"]):
                notes.insert(0, f"{len(shown)} of {len(pair['rows'])} units; --limit 0 shows all")
            title = [*(comparison.about if n == 0 else ()), f"{pair['a']['name']} and {pair['b']['name']}"]
            output.print_table(PrintedTable(_columns(pair)[2:], [_row(pair, row)[2:] for row in shown], title, notes))
        return
    long = [_row(pair, row) for pair in pairs for row in pair["rows"][:rows]]
    output.print_table(PrintedTable(_columns(pairs[0]), long))
    for pair in pairs:
        for line in sentences(pair):
            output.tell(f"{pair['a']['name']} and {pair['b']['name']}: {line}")
    for note in comparison.result["notes"]:
        output.tell(note)
    output.tell(comparison.result["rule"])


def _columns(pair: dict[str, Any]) -> list[PrintedColumn]:
    def number(title: str) -> PrintedColumn:
        return PrintedColumn(title, share if title.endswith("similarity") else iou, right=True)

    return [
        PrintedColumn("a"),
        PrintedColumn("b"),
        PrintedColumn("unit", right=True),
        PrintedColumn("A label", wraps=True),
        number("A IoU"),
        number("A similarity"),
        PrintedColumn("B label", wraps=True),
        number("B IoU"),
        number("B similarity"),
        PrintedColumn("agrees"),
    ]


def _row(pair: dict[str, Any], row: dict[str, Any]) -> list[Any]:
    sides = [row[side][key] for side in ("a", "b") for key in ("label", "iou", "similarity")]
    return [pair["a"]["name"], pair["b"]["name"], row["unit"], *sides, row["agrees"]]
