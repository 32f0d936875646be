"""What ``nd compare`` prints: several small tables on a terminal, one long one in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndissect.tui.cli import output
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.comparison import all_categories, mark
from ndissect.tui.tables.formats import number
from ndissect.tui.tables.remarks import UNIQUE

_RULES = (("unique/cat", "unique_per_category"), ("unique/best", "unique_best_label"))
_INTERVALS = (
    "in brackets: 95 % intervals, by image blocks; of a count, of what as many other images would give on average"
)


# On a terminal


def draw(result: dict[str, Any], about: Sequence[str], rows: int | None) -> None:
    """Print the layers' counts, then each pair's differences, at most ``rows`` units of each."""
    marked = mark(result["differences"])
    tables = (about[0], _summary(result)), ("unique/cat", _unique(result)), ("detectors", _detectors(result))
    for title, (columns, lines) in tables:
        output.print_table(PrintedTable(columns, lines, title=(marked, title)))
        output.emit("\n")
    for pair in result["pairs"]:
        _draw_pair(pair, marked, rows)
        output.emit("\n")
    has_intervals = any(layer["intervals"] for layer in result["layers"])
    output.print_table(
        PrintedTable([], [], notes=[*([_INTERVALS] if has_intervals else []), UNIQUE, *result["notes"], *about[1:]])
    )


def _count(value: int, interval: Sequence[int] | None) -> str:
    return str(value) if interval is None else f"{value} ({interval[0]}-{interval[1]})"


def _change(value: int, low: int | None, high: int | None) -> str:
    return f"{value:+}" + ("" if low is None or high is None else f" ({low:+} to {high:+})")


def _summary(result: dict[str, Any]) -> tuple[list[PrintedColumn], list[list[Any]]]:
    titles = ("units", "detectors", "q < 0.05", *(title for title, _ in _RULES))
    columns = [PrintedColumn(""), *(PrintedColumn(title, right=True) for title in titles)]
    rows = []
    for layer in result["layers"]:
        s, intervals = layer["summary"], layer["intervals"] or {}
        q05 = "-" if s["detectors_q05"] is None else s["detectors_q05"]
        rows.append(
            [layer["name"], s["units"], s["detectors"], q05, *(_count(s[k], intervals.get(k)) for _, k in _RULES)]
        )
    return columns, rows


def _unique(result: dict[str, Any]) -> tuple[list[PrintedColumn], list[list[Any]]]:
    def cell(layer: dict[str, Any], category: str) -> str:
        n = layer["summary"]["by_category"].get(category)
        return "-" if n is None else _count(n, layer["intervals"] and layer["intervals"]["by_category"][category])

    categories = all_categories(result["layers"])
    columns = [PrintedColumn(""), *(PrintedColumn(c, right=True) for c in categories)]
    return columns, [[layer["name"], *(cell(layer, c) for c in categories)] for layer in result["layers"]]


def _detectors(result: dict[str, Any]) -> tuple[list[PrintedColumn], list[list[Any]]]:
    categories = all_categories(result["layers"])
    columns = [
        PrintedColumn(""),
        *(PrintedColumn(c, lambda n: "-" if n is None else output.count(n), right=True) for c in categories),
    ]
    return columns, [
        [layer["name"], *(layer["detectors_by_category"].get(c, None) for c in categories)]
        for layer in result["layers"]
    ]


def _draw_pair(pair: dict[str, Any], marked: str, rows: int | None) -> None:
    changes = [f"{title} {_change(**pair['difference'][key])}" for title, key in _RULES]
    title = f"from {pair['a']['name']} to {pair['b']['name']}: {', '.join(changes)}"
    lines = [
        *([marked] if marked else []),
        title,
        f"gained {_concepts(pair['gained'], rows)}",
        f"lost {_concepts(pair['lost'], rows)}",
    ]
    units = pair["units"]
    if units is None:
        output.print_table(PrintedTable([], [], notes=[*lines, "not as many units: none are matched"]))
        return
    apart = units["apart"]
    lines.append(
        f"labels changed: {units['changed']} of {units['matched']} units',"
        f" {units['changed_detectors']} of {units['detectors']} detectors'"
        + ("" if apart is None else f"; IoU differs in {apart} units, by their intervals")
    )
    output.print_table(PrintedTable([], [], notes=lines))
    shown = units["rows"][:rows]
    columns = [
        PrintedColumn("unit", right=True),
        PrintedColumn("A", wraps=True),
        PrintedColumn("IoU", right=True),
        PrintedColumn("B", wraps=True),
        PrintedColumn("IoU", right=True),
        PrintedColumn("B - A", right=True),
        *([] if apart is None else [PrintedColumn("95 %", right=True)]),
    ]
    columns[1] = PrintedColumn(pair["a"]["name"], wraps=True)
    columns[3] = PrintedColumn(pair["b"]["name"], wraps=True)
    notes = (
        [f"{len(shown)} of {len(units['rows'])} units; --limit 0 shows all"] if len(shown) < len(units["rows"]) else []
    )
    output.print_table(PrintedTable(columns, [_unit(unit, apart is not None) for unit in shown], notes=notes))


def _unit(unit: dict[str, Any], intervals: bool) -> list[Any]:
    def name(side: dict[str, Any]) -> str:
        return side["label"] or ("dead" if side["dead"] else "no label")

    b = name(unit["b"]) if unit["changed"] or unit["b"]["label"] is None else "same"
    low, high = (number(unit[k]) if unit[k] != unit[k] else f"{unit[k]:+.3f}" for k in ("low", "high"))
    cells = [unit["unit"], name(unit["a"]), f"{unit['a']['iou']:.3f}", b, f"{unit['b']['iou']:.3f}"]
    return [*cells, f"{unit['difference']:+.3f}", *([f"{low} to {high}"] if intervals else [])]


def _concepts(concepts: list[dict[str, Any]], rows: int | None) -> str:
    """So many labels by name, each with its units where these are several."""
    if not concepts:
        return "no label"
    names = [
        c["concept"]
        + (f" x{c['units']}" if c["units"] > 1 else "")
        + ("" if c["known"] else " (no such concept there)")
        for c in concepts[:rows]
    ]
    more = f" and {len(concepts) - len(names)} more" if len(names) < len(concepts) else ""
    return f"{len(concepts)} label{'s' * (len(concepts) > 1)}: {', '.join(names)}{more}"


# In a pipe

_LONG = (
    "a", "b", "block", "name", "category", "A label", "A category", "A", "A low", "A high", "B label", "B category",
    "B", "B low", "B high", "B - A", "low", "high", "comparable",
)  # fmt: skip


def long(result: dict[str, Any], rows: int | None) -> PrintedTable:
    """All as one table with a line a number: ``block`` says of what it is, ``a`` and ``b`` are the layers compared."""
    layers = {layer["name"]: layer for layer in result["layers"]}
    lines = []
    for pair in result["pairs"]:
        a, b = (layers[pair[side]["name"]] for side in ("a", "b"))
        who = {k: f"{pair[k]['store']}:{pair[k]['layer']}" for k in ("a", "b")}
        comparable = "yes" if result["comparable"] and a["judged_on"] == b["judged_on"] else "no"
        for line in (
            *_counts(a, b, pair),
            *_gained_lost(pair),
            *_units((pair["units"] or {"rows": []})["rows"][:rows]),
        ):
            lines.append({**who, **line, "comparable": comparable})
    return PrintedTable(
        [PrintedColumn(title) for title in _LONG], [[line.get(title) for title in _LONG] for line in lines]
    )


def _counts(a: dict[str, Any], b: dict[str, Any], pair: dict[str, Any]) -> list[dict[str, Any]]:
    def line(
        block: str, name: str, counts: Sequence[int | None], intervals: Sequence[Sequence[int] | None] = (None, None),
        change: dict[str, Any] | None = None, category: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        (x, y), (of_x, of_y) = counts, intervals
        cells = {"block": block, "name": name, "category": category, "A": x, "B": y}
        for side, interval in (("A", of_x), ("B", of_y)):
            cells |= dict(zip((f"{side} low", f"{side} high"), interval or (None, None), strict=True))
        change = change or {"value": None if x is None or y is None else y - x, "low": None, "high": None}
        return cells | {"B - A": change["value"], "low": change["low"], "high": change["high"]}

    both = a["summary"], b["summary"]
    intervals = [side["intervals"] or {} for side in (a, b)]
    lines = [
        line("counts", name, [s[key] for s in both])
        for name, key in (("units", "units"), ("detectors", "detectors"), ("detectors q < 0.05", "detectors_q05"))
    ]
    lines += [
        line("counts", name, [s[key] for s in both], [i.get(key) for i in intervals], pair["difference"][key])
        for name, key in _RULES
    ]
    for c in all_categories([a, b]):
        of = [i.get("by_category", {}).get(c) for i in intervals]
        lines.append(line("unique/cat", c, [s["by_category"].get(c) for s in both], of, category=c))
        counts = [side["detectors_by_category"].get(c) for side in (a, b)]
        lines.append(line("detectors", c, counts, category=c))
    return lines


def _gained_lost(pair: dict[str, Any]) -> list[dict[str, Any]]:
    def line(block: str, concept: dict[str, Any], own: str, other: str) -> dict[str, Any]:
        change = concept["units"] if block == "gained" else -concept["units"]
        cells = {"block": block, "name": concept["concept"], "category": concept["category"], "B - A": change}
        return cells | {own: concept["units"], other: 0}

    return [line("gained", c, "B", "A") for c in pair["gained"]] + [line("lost", c, "A", "B") for c in pair["lost"]]


def _units(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "block": "units",
            "name": u["unit"],
            "A label": u["a"]["label"],
            "A category": u["a"]["category"],
            "A": u["a"]["iou"],
            "B label": u["b"]["label"],
            "B category": u["b"]["category"],
            "B": u["b"]["iou"],
            "B - A": u["difference"],
            "low": u["low"],
            "high": u["high"],
        }
        for u in units
    ]
