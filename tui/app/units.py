"""The Units tables: the units of a layer, of all layers, of a category, or those that a concept is found in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.app.effect_columns import class_fields, worst_effect
from ndissect.tui.app.listing import Bar, Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields
from ndissect.tui.app.session import Session
from ndissect.tui.pictures.glyphs import FULL_IOU
from ndissect.tui.tables.columns import BY_WORD, Medium, UnitColumn, columns_of
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.units import Array, Texts, Units


def layer_units(session: Session, layer: str) -> Listing:
    """The units of ``layer``, or of every layer where it is "": unit, label, category, IoU, threshold, dead or not."""
    return _listing(session, f"layer {layer}" if layer else "all layers", _units(session, layer), with_layer=not layer)


def concept_units(session: Session, concept: int, layer: str = "") -> Listing:
    """The units with an IoU above 0 with the concept ``concept``, a number of the data set, best first.

    Their IoU is that with the concept; the label is what each unit goes by. Evidence is for labels, so that it is known
    here only of the units that go by the concept.
    """
    row = session.concept_row(concept)
    units = _units(session, layer, row)
    described = any(view.descriptions is not None for view in units.views)  # by words alone, without counts
    return _listing(
        session,
        f"concept {concept} {layer}".rstrip(),
        units.only(units.label == row if described else units.iou > 0),
        with_layer=True,
        empty=f"no unit has an IoU above 0 with {session.labels[row]}",
    )


def category_units(session: Session, category: str, layer: str = "") -> Listing:
    """The units labelled with a concept of ``category`` (one of the session's), best first."""
    units = _units(session, layer)
    return _listing(
        session,
        f"category {category} {layer}".rstrip(),
        units.only(units.categories.code == session.categories.index(category)),
        with_layer=True,
        empty=f"no unit is labelled with a concept of the category {category}",
    )


def _units(session: Session, layer: str, concept: int | None = None) -> Units:
    return Units(session.store, [session.view(layer)] if layer else session.views, concept=concept)


def _listing(session: Session, subject: str, units: Units, *, with_layer: bool, empty: str = "no units") -> Listing:
    effects = worst_effect(units, with_layer)
    shown = (column for column in units.shown(Medium.BROWSE) if with_layer or column.key != "layer")
    seen = [*shown, *effects]
    return units_listing(
        session,
        subject,
        units,
        seen,
        [columns_of(Medium.BROWSE)[0], *units.shown(Medium.JSON)],
        order=Order([column.key for column in seen].index("iou"), descending=True),
        with_layer=with_layer,
        empty=empty,
    )


def units_listing(
    session: Session,
    subject: str,
    units: Units,
    seen: Sequence[UnitColumn],
    told: Sequence[UnitColumn],
    *,
    order: Order,
    with_layer: bool = True,
    empty: str = "no units",
    notes: Sequence[str] = (),
) -> Listing:
    """The listing of ``units``: columns that are ``seen``, those that an export has (``told``).

    ``order``: how rows are sorted at first; ``notes`` stand before those of the columns.
    """
    filters = _filters(session, units, told, with_layer)
    units.read([*seen, *told])  # now: a store that is replaced is closed while its tables are still looked at
    names = [view.name for view in units.views]
    layer, number, iou, dead = units.layer, units.unit, units.iou, units.statistic("dead")

    def cells(row: int) -> list[Cell]:
        return [_cell(column, units.value(column, row), dead[row]) for column in seen]

    @cache
    def exported() -> dict[str, list[Any]]:
        return {column.key: units.listed(column) for column in told}

    def plain(row: int) -> dict[str, Any]:
        return {key: values[row] for key, values in exported().items()}

    def copied(row: int) -> str:
        p = plain(row)
        return "\t".join([f"{p['layer']}:{p['unit']}", p["label"] or "", p["category"] or "", f"{p['iou']:.6g}"])

    evidence = any(column.evidence for column in seen)
    return Listing(
        name="units",
        subject=subject,
        columns=tuple(_column(column, units, session, evidence) for column in seen),
        count=len(units),
        cells=cells,
        item=lambda row: Item("unit", names[layer[row]], int(number[row])),
        fields=lambda: filters,
        empty=empty,
        order=order,
        faint=lambda row: bool(iou[row] <= DETECTOR_IOU),
        plain=plain,
        copied=copied,
        notes=(
            *layer_notes(units.views),
            *notes,
            *(["; ".join(_notes(seen, evidence=True))] if evidence else []),
            *_notes(seen, evidence=False),
        ),
    )


def _notes(columns: Sequence[UnitColumn], *, evidence: bool) -> list[str]:
    """What is noted of those ``columns`` that are evidence, or of the others."""
    return [column.note for column in columns if column.note and column.evidence is evidence]


def _column(column: UnitColumn, units: Units, session: Session, evidence: bool) -> Column:
    drop = column.drop if evidence or column.drop_alone is None else column.drop_alone

    def keys() -> Array:
        ordered = column.order(units) if column.order else units.numbers(column)
        return ordered.code if isinstance(ordered, Texts) else ordered

    return Column(
        column.title,
        column.width,
        right=column.right,
        grows=column.grows,
        most=session.longest_label if column.grows else 1000,
        drop=drop,
        sort=None if column.kind == "bar" else keys,
        descending=column.kind != "bar" and column.falling,
        bar=column.kind == "bar",
    )


def _cell(column: UnitColumn, value: Any, dead: bool) -> Cell:
    if column.kind == "bar":
        return Bar(value / FULL_IOU)
    if column.key == "label" and dead:
        return "dead"
    return (column.short or column.text)("" if value is None else value)


def _filters(session: Session, units: Units, told: Sequence[UnitColumn], with_layer: bool) -> Fields:
    """What the words of columns mean for these units; ``detector`` and ``significant`` are bounds of two columns."""
    known = BY_WORD | {column.word: column for column in told if column.word}
    values = {word: units[column] for word, column in known.items() if not column.evidence or units.any_known(column)}
    texts = {word: some for word, some in values.items() if isinstance(some, Texts)}
    flags = {word: units.numbers(known[word]) for word in values if known[word].kind == "flag"}
    flags["detector"] = units.iou > DETECTOR_IOU
    if "q" in values:
        flags["significant"] = units.numbers(BY_WORD["q"]) < SIGNIFICANT

    def given(flag: Array) -> Callable[[], Array]:
        return lambda: flag

    return Fields(
        words=(units.labels, texts["layer"]) if with_layer else (units.labels,),
        numbers={word: units.numbers(known[word]) for word in values if word not in texts and word not in flags},
        choices={word: texts[word] for word in ("cat", "layer")},
        flags={name: given(flag) for name, flag in flags.items()},
        classes=class_fields(session, units),
    )
