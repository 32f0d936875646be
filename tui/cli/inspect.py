"""``nd inspect`` and ``nd concepts``: quick look-ups in a store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.store.errors import WrongUse
from ndissect.store.names import quoted
from ndissect.tui.cli import output
from ndissect.tui.cli.options import JsonOption, LimitOption, StoreOption, complete_layer
from ndissect.tui.cli.output import PrintedColumn, PrintedTable
from ndissect.tui.tables.columns import BY_WORD, SORTS, Medium, UnitColumn
from ndissect.tui.tables.formats import iou, number

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView
    from ndissect.store.reader import Store
    from ndissect.tui.tables.selection import Filter
    from ndissect.tui.tables.units import Units


def _check_sort(sort: str) -> str:
    if sort not in SORTS:
        raise typer.BadParameter(f"{sort!r} is not one of {', '.join(map(repr, SORTS))}.")
    return sort


def _complete_sort(incomplete: str) -> list[str]:
    return [sort for sort in SORTS if sort.startswith(incomplete)]


def inspect(
    layer: Annotated[
        str | None,
        typer.Argument(
            metavar="LAYER[:UNIT]",
            help="A layer, or one of its units, counted from 0.",
            autocompletion=complete_layer,
        ),
    ] = None,
    store: StoreOption = None,
    category: Annotated[list[str] | None, typer.Option(help="Only labels of this category; repeatable.")] = None,
    concept: Annotated[
        str | None, typer.Option(help="Only labels that contain this text (or match this glob).")
    ] = None,
    min_iou: Annotated[float, typer.Option(help="Only units with at least this IoU.")] = 0.0,
    max_q: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only units whose label has at most this q, such as 0.05.")
    ] = None,
    min_low: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only units whose IoU's 95 % interval begins at least here.")
    ] = None,
    min_heldout: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only units with at least this IoU on held-out images.")
    ] = None,
    min_stability: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only units whose label stays in this share of resamples.")
    ] = None,
    min_auprc: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only units that find their label with at least this AUPRC.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar=f"<{'|'.join(SORTS)}>",
            callback=_check_sort,
            autocompletion=_complete_sort,
            help="Order; report is the papers': by category, label, IoU; low: where the interval begins.",
        ),
    ] = "iou",
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Units of a layer with their labels and IoUs; one unit's concepts; or the layers of the store.

    Units count from 0. A store of one layer needs no LAYER. The filters choose units by their label, and with a unit
    the concepts that it is compared with.
    """
    from ndissect.store.files import find_store
    from ndissect.store.reader import Store
    from ndissect.tui.tables.selection import Filter

    asked = {"q": max_q, "low": min_low, "heldout": min_heldout, "stability": min_stability, "auprc": min_auprc}
    bounds = {word: bound for word, bound in asked.items() if bound is not None}
    wanted = Filter(tuple(category or ()), concept, min_iou, bounds)
    with Store(find_store(store)) as opened:
        if layer is None and len(opened.layer_names) == 1:
            layer = opened.layer_names[0]
        if layer is None:
            if wanted != Filter():
                example = f"nd inspect {quoted(opened.layer_names[-1], positional=True)}"
                raise WrongUse(
                    "a filter chooses among the units of a layer, and no layer is named",
                    f"for example: {example}; nd concepts looks through all layers",
                )
            _layers(opened, json)
            return
        name, unit = _split(layer, opened)
        view = opened.layer(name)
        if unit is None:
            _layer(view, wanted, sort, limit, json)
        elif wanted.bounds:
            raise WrongUse(
                f"{_option(next(iter(wanted.bounds)))} chooses among units, and {layer} is one of them",
                f"name the layer alone: nd inspect {quoted(name, positional=True)}",
            )
        else:
            _unit(view, unit, wanted, limit, json)


def _option(word: str) -> str:
    """The option that asks for the number of a column by its ``word``."""
    return f"--{'min' if BY_WORD[word].falling else 'max'}-{word}"


def _check_known(units: Units, wanted: Filter, sort: str) -> None:
    """WrongUse where evidence is asked for, or sorted by, that is known of no unit."""
    asked = {word: _option(word) for word in wanted.bounds}
    if sort in BY_WORD and BY_WORD[sort].evidence:
        asked[sort] = f"--sort {sort}"
    (view,) = units.views
    name = quoted(view.name, positional=True)
    measured = dict.fromkeys(("effect", "concept_effect"), f"nd ablate {name} measures it")
    measured["coefficient"] = f"nd ace {name} learns it"
    for word, option in asked.items():
        if view.units and not units.any_known(BY_WORD[word]):
            raise WrongUse(
                f"{option}: {view.store.path} tells no {word} of any unit of {view.name}",
                measured.get(word, "imported tables and stores of older runs have none; dissect the network again"),
            )


def _split(text: str, store: Store) -> tuple[str, int | None]:
    if text in store.layer_names or ":" not in text:
        return text, None
    name, _, unit = text.rpartition(":")
    if not unit.isdigit():
        raise WrongUse(f"'{unit}' is no unit", f"write {name}:UNIT with a number, for example {name}:0")
    return name, int(unit)


def _layers(store: Store, json: bool) -> None:
    from ndissect.tui.tables.remarks import UNIQUE, evidence_line, layer_notes, protocol_line

    views = [store.layer(name) for name in store.layer_names]
    if json:
        output.print_json(layers_json(store, views))
        return
    columns, rows = layers_table(views)
    notes = [*layer_notes(views), UNIQUE, evidence_line(store), protocol_line(store.protocol)]
    output.print_table(PrintedTable(columns, rows, title=str(store.path), notes=notes))


def layers_json(store: Store, views: Sequence[LayerView]) -> dict[str, Any]:
    """The layers of a store with their summaries."""
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables.remarks import labels_json

    layers = [{"layer": view.name, "judged_on": view.judged_on, "summary": view.summary()} for view in views]
    return {
        "store": str(store.path),
        "protocol": store.protocol.to_json(),
        "marks": marks_json(store.marks),
        **labels_json(store),
        "layers": layers,
    }


def layers_table(
    views: Sequence[LayerView], categories: Sequence[str] = ()
) -> tuple[list[PrintedColumn], list[list[Any]]]:
    """Columns and rows of a table of layers; with the unique detectors of each of ``categories`` at its end.

    How many detectors are told from chance stands beside their number, where any layer has a null.
    """
    from ndissect.tui.tables.views import layer_row

    surviving = [n if (n := view.summary()["detectors_q05"]) is not None else math.nan for view in views]
    null = not all(map(math.isnan, surviving))
    columns = [
        PrintedColumn("layer"),
        PrintedColumn("units", right=True),
        PrintedColumn("detectors", right=True),
        *([PrintedColumn("q<0.05", lambda n: "-" if math.isnan(n) else str(n), right=True)] if null else []),
        PrintedColumn("unique/cat", right=True),
        PrintedColumn("unique/best", right=True),
        PrintedColumn("best unit"),  # the last that 80 columns hold: the categories then stand in a table below
        *(PrintedColumn(c, output.count, right=True) for c in categories),
    ]
    rows = [[*layer_row(view), *(view.summary()["by_category"][c] for c in categories)] for view in views]
    if null:
        for row, n in zip(rows, surviving, strict=True):
            row.insert(3, n)
    return columns, rows


def _layer(view: LayerView, wanted: Filter, sort: str, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import concept_effects, remarks, selection
    from ndissect.tui.tables.effects import effects_json, effects_notes
    from ndissect.tui.tables.units import Units, units_json

    every = Units(view.store, [view])
    _check_known(every, wanted, sort)
    selected = selection.select_units(view, wanted, sort)
    columns = every.shown(Medium.INSPECT)
    if view.descriptions is not None:  # of which there are no counts
        columns = [column for column in columns if not column.of_counts]
    evidence = any(column.evidence for column in columns)
    units = every.only(selected[: output.rows_to_print(limit, json, notes=2 if evidence else 0)])
    if json:
        output.print_json(
            {
                "store": str(view.store.path),
                "layer": view.name,
                "judged_on": view.judged_on,
                "protocol": view.store.protocol.to_json(),
                "marks": marks_json(view.marks),
                **remarks.labels_json(view.store),
                "units": units_json(units),
                "summary": view.summary(),
                **({"effects": effects_json(view)} if view.effects is not None else {}),
                **({"concept_effects": concept_effects.effects_json(view)} if view.concept_effects is not None else {}),
            }
        )
        return
    printed = [_printed(column, evidence) for column in columns]
    rows = list(zip(*(_values(units, column) for column in columns), strict=True))
    notes = [
        *remarks.summary_lines(view),
        remarks.evidence_line(view.store),
        *effects_notes([view]),
        *concept_effects.effects_notes([view]),
        f"{remarks.UNITS_FROM_0}; {remarks.protocol_line(view.store.protocol)}",
    ]
    if len(units) < len(selected):
        notes.insert(0, f"{len(units)} of {len(selected)} units; --limit 0 shows all")
    elif len(selected) < view.units:
        notes.insert(0, f"{len(selected)} of {view.units} units match")
    output.print_table(PrintedTable(printed, rows, title=f"{view.store.path}  {view.name}", notes=notes))


def _printed(column: UnitColumn, evidence: bool) -> PrintedColumn:
    """A unit's column as it is printed. Where ``evidence`` makes a table wide, what stands to the right may go."""
    if column.kind == "bar":
        return PrintedColumn(column.title, output.bar, terminal_only=True)
    drop = column.drop if evidence and column.right else 0
    return PrintedColumn(column.title, column.text, right=column.right, drop=drop, parts=column.parts)


def _values(units: Units, column: UnitColumn) -> list[Any]:
    values = units.listed(column)
    return [int(flag) for flag in values] if column.kind == "flag" else values  # 0 and 1 in a pipe


def _unit(view: LayerView, unit: int, wanted: Filter, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import concept_effects, effects, remarks, views
    from ndissect.tui.tables.evidence import sentences
    from ndissect.tui.tables.units import unit_json

    view.check_unit(unit)
    ranked = views.ranked_concepts(view, unit, wanted, output.rows_to_print(limit, json))
    tops = views.top_images(view, unit)
    if json:
        output.print_json(
            {
                "store": str(view.store.path),
                "layer": view.name,
                "judged_on": view.judged_on,
                "protocol": view.store.protocol.to_json(),
                "marks": marks_json(view.marks),
                **remarks.labels_json(view.store),
                **unit_json(view, unit),
                "nan": int(view.statistics.nan[unit]),
                "inf": int(view.statistics.inf[unit]),
                "best": views.best_json(view, unit),
                "concepts": ranked,
                "top_images": tops,
                **effects.unit_json(view, unit),
                **concept_effects.unit_json(view, unit),
            }
        )
        return
    one = unit_json(view, unit)
    about = f"{view.store.path}  {view.name}:{unit}  "
    known = "no counts" if view.descriptions is not None else f"IoU {one['iou']:.4f}"
    about += "dead" if one["dead"] else f"{one['label'] or 'no label'}  {known}"
    counted = "images" if view.judged_on == "images" else "px"
    columns = [
        PrintedColumn("concept"),
        PrintedColumn("category"),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("", output.bar, terminal_only=True),
    ]
    rows = [[c["concept"], c["category"], c["iou"], c["iou"]] for c in ranked]
    if not view.has_ious_alone:
        columns += [PrintedColumn(f"{of} {counted}", right=True) for of in ("both", "unit", "concept")]
        for row, c in zip(rows, ranked, strict=True):
            row += [c["intersection"], c["area"], c["concept_area"]]
    for title, show, of in concept_effects.beside_ious(view, unit):
        columns.append(PrintedColumn(title, show, right=True))
        for row, c in zip(rows, ranked, strict=True):
            row.append(of.get((c["concept"], c["category"]), math.nan))
    notes = [*remarks.layer_notes([view]), *sentences(view, unit), *effects.unit_sentences(view, unit)]
    notes += concept_effects.unit_sentences(view, unit)
    notes.append(f"threshold {number(one['threshold'])}")
    nan, infinite = int(view.statistics.nan[unit]), int(view.statistics.inf[unit])
    if nan or infinite:
        notes.append(f"left out: {nan} NaN and {infinite} infinite activations")
    if tops:
        notes.append("top images: " + ", ".join(f"{t['image']} ({t['peak']:.3g})" for t in tops[:5]))
        notes.append(f"see them: nd overlay {quoted(f'{view.name}:{unit}', positional=True)}")
    notes += [remarks.evidence_line(view.store), *effects.effects_notes([view])]
    notes += concept_effects.effects_notes([view])
    notes.append(remarks.protocol_line(view.store.protocol))
    output.print_table(PrintedTable(columns, rows, title=about, notes=notes))


def concepts(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Only concepts that contain this text (or match this glob).")
    ] = None,
    store: StoreOption = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="Only this layer; repeatable.", autocompletion=complete_layer),
    ] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    min_iou: Annotated[float, typer.Option(help="Count units with an IoU above this as detectors.")] = 0.04,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Concepts with the units that detect them; for a single concept, its best units in every layer."""
    from ndissect.store.files import find_store
    from ndissect.store.marks import marks_json
    from ndissect.store.reader import Store
    from ndissect.tui.tables import remarks, selection, views

    with Store(find_store(store)) as opened:
        chosen = [opened.layer(name) for name in (layer or opened.layer_names)]
        rows = selection.match_concepts(opened.concepts, pattern, tuple(category or ()))
        if pattern and len(rows) == 1:
            _one_concept(chosen, int(rows[0]), limit, json)
            return
        marks, made = [mark for view in chosen for mark in view.marks], remarks.labels_json(opened)
        against = [*remarks.layer_notes(chosen), remarks.evidence_line(opened), remarks.protocol_line(opened.protocol)]
        shown = views.concept_table(chosen, rows, min_iou)
        shown = shown[: output.rows_to_print(limit, json)]
    if json:
        output.print_json({"store": str(opened.path), "marks": marks_json(marks), **made, "concepts": shown})
        return
    columns = [
        PrintedColumn("concept"),
        PrintedColumn("category"),
        PrintedColumn("images", lambda n: "-" if n < 0 else str(n), right=True),
        PrintedColumn("detectors", right=True),
        PrintedColumn("best unit"),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("", output.bar, terminal_only=True),
    ]
    table = [
        [c["concept"], c["category"], c["images"], c["detectors"], c["best_unit"], c["iou"], c["iou"]] for c in shown
    ]
    if any("units" in c for c in shown):  # of descriptions nothing else is known
        columns = [PrintedColumn("description"), PrintedColumn("units", right=True)]
        table = [[c["concept"], c["units"]] for c in shown]
    notes = [f"{len(shown)} of {len(rows)} concepts; --limit 0 shows all"] if len(shown) < len(rows) else []
    output.print_table(PrintedTable(columns, table, title=str(opened.path), notes=[*notes, *against]))


def _one_concept(layers: list[LayerView], row: int, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import remarks, views

    units = views.units_of_concept(layers, row)
    concept = layers[0].store.concepts
    name, category = concept.label(row), concept.category_of(row)
    shown = units[: output.rows_to_print(limit, json)]
    if json:
        about = {"store": str(layers[0].store.path), "marks": marks_json([m for view in layers for m in view.marks])}
        about |= remarks.labels_json(layers[0].store)
        output.print_json({**about, "concept": name, "category": category, "units": shown})
        return
    columns = [
        PrintedColumn("layer"),
        PrintedColumn("unit", right=True),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("", output.bar, terminal_only=True),
        PrintedColumn("its label"),
    ]
    rows = [[u["layer"], u["unit"], u["iou"], u["iou"], u["label"]] for u in shown]
    notes = [f"{len(shown)} of {len(units)} units; --limit 0 shows all"] if len(shown) < len(units) else []
    notes += [
        *remarks.layer_notes(layers),
        remarks.evidence_line(layers[0].store),
        remarks.protocol_line(layers[0].store.protocol),
    ]
    title = f"{layers[0].store.path}  {name} ({category})"
    output.print_table(PrintedTable(columns, rows, title=title, notes=notes))
