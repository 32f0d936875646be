"""``nd classes``: the network's classes with the units that they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.store.errors import WrongUse
from ndissect.store.names import quoted
from ndissect.tui.cli import output
from ndissect.tui.cli.options import JsonOption, LimitOption, StoreOption, complete_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.formats import iou, share, signed, signed_interval

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView
    from ndissect.store.reader import Store


#: Of labels with a question mark, where they are of several layers.
DOUBTED = "?: the label is not to be trusted; --json says why"


def classes(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="PATTERN", help="Only classes that contain this text (or match this glob), or a number."
        ),
    ] = None,
    store: StoreOption = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="Only this layer; repeatable.", autocompletion=complete_layer),
    ] = None,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """The network's classes with the unit that each needs most; for a single class, the units that it needs.

    What nd ablate has measured, and how much units speak for a class where the network's head is linear.
    """
    from ndissect.store.files import find_store
    from ndissect.store.reader import Store
    from ndissect.tui.tables.class_names import match_classes
    from ndissect.tui.tables.effects import has_classes

    with Store(find_store(store)) as opened:
        views = [opened.layer(name) for name in dict.fromkeys(layer or opened.layer_names)]
        known = [view for view in views if has_classes(view)]
        if opened.classes is None or not known:
            name = quoted((layer or list(opened.layer_names) or ["LAYER"])[-1], positional=True)
            raise WrongUse(
                f"{opened.path} does not tell what units do to classes", f"nd ablate {name} measures and adds it"
            )
        numbers = match_classes(opened.classes.names, pattern)
        if pattern is not None and len(numbers) == 1:
            _one_class(opened, known, numbers[0], limit, json)
        else:
            _all_classes(opened, known, numbers, limit, json)


def _about(store: Store, views: Sequence[LayerView]) -> dict[str, Any]:
    """What JSON says before the rows."""
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables.effects import effects_json
    from ndissect.tui.tables.remarks import labels_json

    return {
        "store": str(store.path),
        "marks": marks_json([mark for view in views for mark in view.marks]),
        **labels_json(store),
        "named_by": store.classes.source if store.classes else None,
        "effects": [about for view in views if (about := effects_json(view)) is not None],
    }


def _label(row: dict[str, Any]) -> str:
    """The label of a row's unit, marked where it is not to be trusted."""
    from ndissect.tui.tables.doubts import doubted

    return doubted(row["label"] or "", row["doubt"] or "")


def _notes(store: Store, views: Sequence[LayerView]) -> list[str]:
    from ndissect.tui.tables import remarks
    from ndissect.tui.tables.effects import SPEAKS, effects_notes

    named = [f"classes named by {store.classes.source}"] if store.classes else []
    heads = [SPEAKS] if any(view.head is not None for view in views) else []
    return [*remarks.layer_notes(views), *effects_notes(views), *heads, *named, remarks.evidence_line(store)]


def _all_classes(
    store: Store, views: Sequence[LayerView], numbers: Sequence[int], limit: int | None, json: bool
) -> None:
    from ndissect.tui.tables.class_units import class_table, spoken_label

    rows = class_table(views, numbers)
    shown = rows[: output.rows_to_print(limit, json, notes=2)]
    if json:
        output.print_json({**_about(store, views), "classes": shown})
        return
    columns, cells = [PrintedColumn("class")], [[row["class"]] for row in shown]

    def add(column: PrintedColumn, *keys: str) -> None:
        columns.append(column)
        for row, line in zip(shown, cells, strict=True):
            line.append(row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys))

    if any(view.effects is not None for view in views):
        add(PrintedColumn("images", lambda n: "-" if n is None else str(n), right=True, drop=3), "images")
        add(PrintedColumn("bal. acc.", share, right=True, drop=2), "balanced_accuracy")
        add(PrintedColumn("needs unit", lambda name: name or "-"), "unit")
        columns.append(PrintedColumn("label"))
        for row, line in zip(shown, cells, strict=True):
            line.append(_label(row))
        add(PrintedColumn("IoU", iou, right=True, drop=5), "iou")
        add(PrintedColumn("change", signed, right=True), "change")
        interval = PrintedColumn("95 %", lambda ends: signed_interval(*ends), right=True, drop=4, parts=("low", "high"))
        add(interval, "low", "high")
        add(PrintedColumn("random unit", signed, right=True, drop=1), "random")
    if any("speaks" in row for row in shown):
        add(PrintedColumn("spoken for by", lambda name: name or "-", drop=6), "spoken_by")
        columns.append(PrintedColumn("its label", lambda name: name or "-", drop=7))
        for row, line in zip(shown, cells, strict=True):
            line.append(spoken_label(row))
        add(PrintedColumn("weight", signed, right=True, drop=8), "speaks")
    more = [f"{len(shown)} of {len(rows)} classes; --limit 0 shows all"] if len(shown) < len(rows) else []
    more += [DOUBTED] if any(_label(row).endswith("?") or spoken_label(row).endswith("?") for row in shown) else []
    output.print_table(PrintedTable(columns, cells, title=str(store.path), notes=[*more, *_notes(store, views)]))


def _one_class(store: Store, views: Sequence[LayerView], k: int, limit: int | None, json: bool) -> None:
    from ndissect.tui.tables.class_units import class_json, class_sentence, units_of_class
    from ndissect.tui.tables.doubts import doubt_lines

    rows = units_of_class(views, k)
    shown = rows[: output.rows_to_print(limit, json, notes=2)]
    name = store.classes.names[k] if store.classes else str(k)
    if json:
        output.print_json({**_about(store, views), "class": name, "number": k, **class_json(views, k), "units": shown})
        return
    ablated = any(view.effects is not None for view in views)
    heads = any(view.head is not None for view in views)
    columns = [
        PrintedColumn("layer", drop=3),
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True, drop=2),
    ]
    cells = [[row["layer"], row["unit"], _label(row), row["iou"]] for row in shown]
    if ablated:
        columns += [
            PrintedColumn("change", signed, right=True),
            PrintedColumn("95 %", lambda ends: signed_interval(*ends), right=True, parts=("low", "high")),
            PrintedColumn("recall", signed, right=True, drop=1),
            PrintedColumn("score", signed, right=True, drop=4),
        ]
        for row, line in zip(shown, cells, strict=True):
            line += [row["change"], (row["low"], row["high"]), row["recall_change"], row["score_change"]]
    if heads:
        columns.append(PrintedColumn("speaks for", signed, right=True, drop=0 if not ablated else 5))
        for row, line in zip(shown, cells, strict=True):
            line.append(row["speaks"])
    more = [f"{len(shown)} of {len(rows)} units; --limit 0 shows all"] if len(shown) < len(rows) else []
    if len(views) == 1:
        more += doubt_lines((row["unit"], row["doubt"] or "") for row in shown)
    elif any(_label(row).endswith("?") for row in shown):
        more.append(DOUBTED)
    title = f"{store.path}  {class_sentence(views, k)}"
    output.print_table(PrintedTable(columns, cells, title=title, notes=[*more, *_notes(store, views)]))
