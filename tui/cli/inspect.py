"""``nd inspect`` and ``nd concepts``: quick look-ups in a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.store.errors import WrongUse
from ndissect.store.names import quoted
from ndissect.tui.cli import output
from ndissect.tui.cli.options import JsonOption, LimitOption, StoreOption, complete_layer
from ndissect.tui.cli.output import Column, Table

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView
    from ndissect.store.reader import Store
    from ndissect.tui.tables.views import Filter


class Sort(StrEnum):
    """The orders of ``nd inspect``."""

    iou = "iou"
    unit = "unit"
    label = "label"
    category = "category"
    threshold = "threshold"
    report = "report"
    q = "q"
    low = "low"
    heldout = "heldout"
    stability = "stability"
    auprc = "auprc"


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
        Sort,
        typer.Option(help="Order; report is the papers': by category, label, IoU; low: where the interval begins."),
    ] = Sort.iou,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Units of a layer with their labels and IoUs; one unit's concepts; or the layers of the store.

    Units count from 0. A store of one layer needs no LAYER. The filters choose units by their label, and with a unit
    the concepts that it is compared with.
    """
    from ndissect.store.files import find_store
    from ndissect.store.reader import Store
    from ndissect.tui.tables.views import Filter

    wanted = Filter(tuple(category or ()), concept, min_iou, max_q, min_low, min_heldout, min_stability, min_auprc)
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
        elif asked := [_option(name) for name in wanted.of_evidence]:
            raise WrongUse(
                f"{asked[0]} chooses among units, and {layer} is one of them",
                f"name the layer alone: nd inspect {quoted(name, positional=True)}",
            )
        else:
            _unit(view, unit, wanted, limit, json)


def _option(name: str) -> str:
    """The option that asks for the number ``name``."""
    return f"--{'max' if name == 'q' else 'min'}-{name}"


def _check_known(view: LayerView, asked: dict[str, str]) -> None:
    """WrongUse for a number that is known of no unit; ``asked``: its name -> the option that asks for it."""
    from ndissect.tui.tables.evidence import FIELDS, any_known

    for name, option in asked.items():
        if view.units and not any_known(view, FIELDS[name]):
            raise WrongUse(
                f"{option}: {view.store.path} tells no {name} of any unit of {view.name}",
                "imported tables and stores of older runs have none; dissect the network again",
            )


def _split(text: str, store: Store) -> tuple[str, int | None]:
    if text in store.layer_names or ":" not in text:
        return text, None
    name, _, unit = text.rpartition(":")
    if not unit.isdigit():
        raise WrongUse(f"'{unit}' is no unit", f"write {name}:UNIT with a number, for example {name}:0")
    return name, int(unit)


def _layers(store: Store, json: bool) -> None:
    from ndissect.tui.tables.views import UNIQUE, evidence_line, marks, protocol_line

    views = [store.layer(name) for name in store.layer_names]
    if json:
        output.print_json(layers_json(store, views))
        return
    columns, rows = layers_table(views)
    notes = [*marks(views), UNIQUE, evidence_line(store), protocol_line(store.protocol)]
    output.print_table(Table(columns, rows, title=str(store.path), notes=notes))


def layers_json(store: Store, views: Sequence[LayerView]) -> dict[str, Any]:
    """The layers of a store with their summaries."""
    from ndissect.store.marks import marks_json

    layers = [{"layer": view.name, "summary": view.summary()} for view in views]
    return {
        "store": str(store.path),
        "protocol": store.protocol.to_json(),
        "marks": marks_json(store.marks),
        "layers": layers,
    }


def layers_table(views: Sequence[LayerView], categories: Sequence[str] = ()) -> tuple[list[Column], list[list[Any]]]:
    """Columns and rows of a table of layers; with the unique detectors of each of ``categories`` at its end.

    How many detectors are told from chance stands beside their number, where any layer has a null.
    """
    from ndissect.tui.tables.views import layer_row

    surviving = [n if (n := view.summary()["detectors_q05"]) is not None else math.nan for view in views]
    null = not all(map(math.isnan, surviving))
    columns = [
        Column("layer"),
        Column("units", right=True),
        Column("detectors", right=True),
        *([Column("q<0.05", lambda n: "-" if math.isnan(n) else str(n), right=True)] if null else []),
        Column("unique/cat", right=True),
        Column("unique/best", right=True),
        Column("best unit"),  # the last that 80 columns hold: the categories then stand in a table below
        *(Column(c, output.count, right=True) for c in categories),
    ]
    rows = [[*layer_row(view), *(view.summary()["by_category"][c] for c in categories)] for view in views]
    if null:
        for row, n in zip(rows, surviving, strict=True):
            row.insert(3, n)
    return columns, rows


def _layer(view: LayerView, wanted: Filter, sort: Sort, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import views

    asked = {name: _option(name) for name in wanted.of_evidence}
    _check_known(view, asked | ({sort.value: f"--sort {sort.value}"} if sort.value in views.BY_EVIDENCE else {}))
    units = views.select_units(view, wanted, sort.value)
    evidence = _evidence_columns(view)
    total = len(units)
    shown = units[: output.rows_to_print(limit, json, notes=2 if evidence else 0)]
    if json:
        output.print_json(
            {
                "store": str(view.store.path),
                "layer": view.name,
                "protocol": view.store.protocol.to_json(),
                "marks": marks_json(view.marks),
                "units": [views.unit_json(view, int(u)) for u in shown],
                "summary": view.summary(),
            }
        )
        return
    columns = [
        Column("unit", right=True),
        Column("label"),
        Column("category"),
        Column("IoU", output.iou, right=True),
        Column("", output.bar, terminal_only=True),
        *(column for column, _ in evidence),
        Column("threshold", output.number, right=True, drop=9 if evidence else 0),
        Column("dead", lambda dead: "dead" if dead else ""),
    ]
    rows = []
    for u in map(int, shown):
        one = views.unit_json(view, u)
        known = [values(u) for _, values in evidence]
        about = [one[key] for key in ("unit", "label", "category", "iou", "iou")]
        rows.append([*about, *known, one["threshold"], int(one["dead"])])
    notes = [
        *views.summary_lines(view),
        views.evidence_line(view.store),
        f"{views.UNITS_FROM_0}; {views.protocol_line(view.store.protocol)}",
    ]
    if len(shown) < total:
        notes.insert(0, f"{len(shown)} of {total} units; --limit 0 shows all")
    elif total < view.units:
        notes.insert(0, f"{total} of {view.units} units match")
    output.print_table(Table(columns, rows, title=f"{view.store.path}  {view.name}", notes=notes))


def _evidence_columns(view: LayerView) -> list[tuple[Column, Callable[[int], Any]]]:
    """The columns of what is known of the labels, the most telling first, each with the value of a unit."""
    from ndissect.tui.tables.evidence import any_known, chance, interval, share

    def one(title: str, show: Callable[[float], str], drop: int, name: str) -> tuple[Column, Callable[[int], Any]]:
        return Column(title, show, right=True, drop=drop), lambda unit: float(view.known(name)[unit])

    def ends(unit: int) -> tuple[float, float]:
        return float(view.known("iou_low")[unit]), float(view.known("iou_high")[unit])

    between = Column("interval", lambda ends: interval(*ends), right=True, drop=1, parts=("low", "high"))
    found = [
        ("iou_low", (between, ends)),
        ("q", one("q", chance, 2, "q")),
        ("heldout_iou", one("held-out", share, 3, "heldout_iou")),
        ("stability", one("stability", share, 4, "stability")),
        ("auprc", one("AUPRC", share, 5, "auprc")),
    ]
    return [column for name, column in found if any_known(view, name)]


def _unit(view: LayerView, unit: int, wanted: Filter, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import views
    from ndissect.tui.tables.evidence import sentences

    view.check_unit(unit)
    ranked = views.ranked_concepts(view, unit, wanted, output.rows_to_print(limit, json))
    tops = views.top_images(view, unit)
    if json:
        output.print_json(
            {
                "store": str(view.store.path),
                "layer": view.name,
                "protocol": view.store.protocol.to_json(),
                "marks": marks_json(view.marks),
                **views.unit_json(view, unit),
                "nan": int(view.statistics.nan[unit]),
                "inf": int(view.statistics.inf[unit]),
                "best": views.best_json(view, unit),
                "concepts": ranked,
                "top_images": tops,
            }
        )
        return
    one = views.unit_json(view, unit)
    about = f"{view.store.path}  {view.name}:{unit}  "
    about += "dead" if one["dead"] else f"{one['label'] or 'no label'}  IoU {one['iou']:.4f}"
    columns = [
        Column("concept"),
        Column("category"),
        Column("IoU", output.iou, right=True),
        Column("", output.bar, terminal_only=True),
        Column("both px", right=True),
        Column("unit px", right=True),
        Column("concept px", right=True),
    ]
    rows = [
        [c["concept"], c["category"], c["iou"], c["iou"], c["intersection"], c["area"], c["concept_area"]]
        for c in ranked
    ]
    notes = [*views.marks([view]), *sentences(view, unit), f"threshold {output.number(one['threshold'])}"]
    nan, infinite = int(view.statistics.nan[unit]), int(view.statistics.inf[unit])
    if nan or infinite:
        notes.append(f"left out: {nan} NaN and {infinite} infinite activations")
    if tops:
        notes.append("top images: " + ", ".join(f"{t['image']} ({t['peak']:.3g})" for t in tops[:5]))
        notes.append(f"see them: nd overlay {quoted(f'{view.name}:{unit}', positional=True)}")
    notes += [views.evidence_line(view.store), views.protocol_line(view.store.protocol)]
    output.print_table(Table(columns, rows, title=about, notes=notes))


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
    from ndissect.tui.tables import views

    with Store(find_store(store)) as opened:
        chosen = [opened.layer(name) for name in (layer or opened.layer_names)]
        rows = views.match_concepts(opened.concepts, pattern, tuple(category or ()))
        if pattern and len(rows) == 1:
            _one_concept(chosen, int(rows[0]), limit, json)
            return
        marks = [mark for view in chosen for mark in view.marks]
        against = [*views.mark_lines(marks), views.evidence_line(opened), views.protocol_line(opened.protocol)]
        found = views.concept_table(chosen, rows, min_iou)
        found = found[: output.rows_to_print(limit, json)]
    if json:
        output.print_json({"store": str(opened.path), "marks": marks_json(marks), "concepts": found})
        return
    columns = [
        Column("concept"),
        Column("category"),
        Column("images", lambda n: "-" if n < 0 else str(n), right=True),
        Column("detectors", right=True),
        Column("best unit"),
        Column("IoU", output.iou, right=True),
        Column("", output.bar, terminal_only=True),
    ]
    table = [
        [c["concept"], c["category"], c["images"], c["detectors"], c["best_unit"], c["iou"], c["iou"]] for c in found
    ]
    notes = [f"{len(found)} of {len(rows)} concepts; --limit 0 shows all"] if len(found) < len(rows) else []
    output.print_table(Table(columns, table, title=str(opened.path), notes=[*notes, *against]))


def _one_concept(layers: list[LayerView], row: int, limit: int | None, json: bool) -> None:
    from ndissect.store.marks import marks_json
    from ndissect.tui.tables import views

    found = views.units_of_concept(layers, row)
    concept = layers[0].store.concepts
    name, category = concept.label(row), concept.category_of(row)
    shown = found[: output.rows_to_print(limit, json)]
    if json:
        about = {"store": str(layers[0].store.path), "marks": marks_json([m for view in layers for m in view.marks])}
        output.print_json({**about, "concept": name, "category": category, "units": shown})
        return
    columns = [
        Column("layer"),
        Column("unit", right=True),
        Column("IoU", output.iou, right=True),
        Column("", output.bar, terminal_only=True),
        Column("its label"),
    ]
    rows = [[u["layer"], u["unit"], u["iou"], u["iou"], u["label"]] for u in shown]
    notes = [f"{len(shown)} of {len(found)} units; --limit 0 shows all"] if len(shown) < len(found) else []
    notes += [*views.marks(layers), views.evidence_line(layers[0].store), views.protocol_line(layers[0].store.protocol)]
    title = f"{layers[0].store.path}  {name} ({category})"
    output.print_table(Table(columns, rows, title=title, notes=notes))
