"""The Compare tables: two units, two layers or two stores side by side, called A and B.

Concepts are matched by name and category, so that A and B may be of different stores, whose numbers may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndissect.store import scores
from ndissect.store.concepts import report_order
from ndissect.store.errors import WrongUse
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import Best
from ndissect.tui.app.compare_units import compare_units
from ndissect.tui.app.listing import NOTHING, Bar, Cell, Column, Item, Listing
from ndissect.tui.app.matching import longest, matched, opens, subject
from ndissect.tui.app.origin import differences
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.tables.comparison import Matched, detected
from ndissect.tui.tables.remarks import UNIQUE

_EXPLAINED = (
    "concepts: units labelled with them, with an IoU above 0.04, and the best IoU of a unit labelled so",
    UNIQUE,
)


def compare(a: Item, b: Item, current: Session, open_store: Callable[[Path], Session]) -> Listing:
    """What ``a`` and ``b``, two marked units, layers or stores, have in common and what only one has.

    Units and layers are of ``current``, the store that is browsed, unless their ``name`` is the path of another;
    ``open_store`` opens others, which may be closed afterwards. WrongUse where the two cannot be compared.
    """
    if a.kind != b.kind:
        raise WrongUse(f"a {a.kind} and a {b.kind} cannot be compared", "mark two units, two layers or two stores")
    if a == b:
        raise WrongUse(f"this is the same {a.kind} twice", f"mark another {a.kind}")

    def session(item: Item) -> Session:
        return current if item.name in ("", str(current.target)) else open_store(Path(item.name))

    if a.kind == "unit":
        return compare_units((session(a), a.layer, a.unit), (session(b), b.layer, b.unit), current)
    if a.kind == "layer":
        return compare_layers((session(a), a.layer), (session(b), b.layer), current)
    if a.kind == "store":
        return compare_stores(session(a), session(b), current)
    raise WrongUse(f"two {a.kind}s cannot be compared", "mark two units, two layers or two stores")


# Two layers, two stores


@dataclass(frozen=True)
class _Row:
    """A row of two counts; a heading where ``cells`` are titles only."""

    cells: tuple[Cell, ...]
    heading: bool = False
    item: Item = NOTHING
    plain: Mapping[str, Any] = field(default_factory=dict)
    category: str = ""
    layer: str = ""
    iou: float = np.nan
    detectors: float = np.nan
    equal: bool = False


@dataclass(frozen=True)
class _Side:
    """What some layers of a store detect: counts as in ``LayerView.summary``, over all of them, and by concept."""

    summary: Mapping[str, int]
    by_category: Mapping[str, int]
    units: Mapping[Matched, int]
    best: Mapping[Matched, float]


def _side(session: Session, views: Sequence[LayerView]) -> _Side:
    categories = session.store.concepts.categories
    nothing = np.zeros((0, len(categories)))
    best = Best(
        np.concatenate([nothing.astype(np.int32), *(view.best.concept for view in views)]),
        np.concatenate([nothing.astype(np.int64), *(view.best.intersection for view in views)]),
        np.concatenate([nothing.astype(np.int64), *(view.best.area for view in views)]),
        np.concatenate([nothing, *(view.best.iou for view in views)]),
    )
    per_category = scores.unique_per_category(best)
    concepts = detected(views, matched(session))
    return _Side(
        summary={
            "units": len(best.concept),
            "detectors": int(scores.detectors(best).sum()),
            "unique/cat": int(per_category.sum()),
            "unique/best": scores.unique_best_label(best),
        },
        by_category={c: int(n) for c, n in zip(categories, per_category, strict=True)},
        units={concept: here.units for concept, here in concepts.items()},
        best={concept: here.iou for concept, here in concepts.items()},
    )


def compare_layers(a: tuple[Session, str], b: tuple[Session, str], current: Session | None = None) -> Listing:
    """The counts of two layers (session, layer; "" is all of them), then each concept that either detects.

    Concepts are sorted by how far the numbers of units differ, then by name. Rows open concepts of ``current``, A's
    store where that is not given. WrongUse for a layer there is not.
    """
    sides = tuple(_side(s, [s.view(layer)] if layer else s.views) for s, layer in (a, b))
    first, second = (layer or "all layers" for _, layer in (a, b))
    rows = [*_count_rows(sides[0], sides[1]), *_concept_rows(sides[0], sides[1], current or a[0])]
    return _listing(subject(a, b), rows, [f"A {first}   B {second}", *differences(a[0], b[0]), *_EXPLAINED])


def compare_stores(a: Session, b: Session, current: Session | None = None) -> Listing:
    """The layers of two stores, those of both first, then each concept that either detects in any of its layers.

    Notes tell what differs in protocol, data and network, as not all numbers can be compared. Rows open concepts of
    ``current``, A where that is not given.
    """
    sides = _side(a, a.views), _side(b, b.views)
    rows = [*_layer_rows(a, b), *_count_rows(*sides), *_concept_rows(*sides, current or a)]
    return _listing(subject((a,), (b,)), rows, [*differences(a, b), *_EXPLAINED])


def _listing(name: str, rows: list[_Row], notes: list[str]) -> Listing:
    def fields() -> Fields:
        return Fields(
            words=(texts([str(row.cells[0]) for row in rows]),),
            numbers={
                "iou": np.array([row.iou for row in rows]),
                "detectors": np.array([row.detectors for row in rows]),
            },
            choices={"cat": texts([row.category for row in rows]), "layer": texts([row.layer for row in rows])},
        )

    bar = Column("", 6, drop=3, bar=True)
    return Listing(
        name="compare",
        subject=name,
        columns=(
            Column("", 19, grows=True, most=longest([str(row.cells[0]) for row in rows if not row.heading])),
            Column("category", 8, drop=4),
            Column("A", 6, right=True),
            bar,
            Column("B", 6, right=True),
            bar,
            Column("", 6, drop=1),
            Column("", 6, right=True, drop=2),
            Column("", 6, right=True, drop=2),
        ),
        count=len(rows),
        cells=lambda i: rows[i].cells,
        item=lambda i: rows[i].item,
        fields=fields,
        headings=frozenset(i for i, row in enumerate(rows) if row.heading),
        faint=lambda i: rows[i].equal,
        plain=lambda i: rows[i].plain,
        copied=lambda i: "\t".join(c for c in rows[i].cells if isinstance(c, str)),
        notes=tuple(notes),
    )


def _heading(name: str, more: str = "") -> _Row:
    return _Row((name, "", "", "", "", "", "", *((f"A {more}", f"B {more}") if more else ("", ""))), heading=True)


def _row(
    block: str,
    name: str,
    counts: tuple[int | None, int | None],
    full: int,
    more: tuple[str, str] = ("", ""),
    *,
    plain: Mapping[str, Any] | None = None,
    **rest: Any,
) -> _Row:
    a, b = counts
    only = "only A" if a and not b else "only B" if b and not a else ""
    shown = ["" if n is None else str(n) if n else "-" for n in counts]
    bars = [Bar((n or 0) / max(full, 1)) for n in counts]
    category = rest.get("category", "")
    values = {"block": block, "name": name, "category": category or None, "a": a, "b": b, "only": only or None}
    return _Row(
        cells=(name, category, shown[0], bars[0], shown[1], bars[1], only, *more),
        plain={**values, **(plain or {})},
        equal=a == b,
        **rest,
    )


def _count_rows(a: _Side, b: _Side) -> list[_Row]:
    rows = [_heading("counts")]
    unique = max(side.summary["unique/cat"] for side in (a, b))
    for name in a.summary:
        full = unique if name.startswith("unique") else max(side.summary["units"] for side in (a, b))
        rows.append(_row("counts", name, (a.summary[name], b.summary[name]), full))
    rows.append(_heading("unique/cat of each"))
    for category in report_order(tuple({**a.by_category, **b.by_category})):
        counts = a.by_category.get(category), b.by_category.get(category)
        rows.append(_row("unique/cat", category, counts, unique, category=category))
    return rows


def _concept_rows(a: _Side, b: _Side, current: Session) -> list[_Row]:
    item = opens(current)
    detected = {c: (a.units.get(c, 0), b.units.get(c, 0)) for c in {**a.units, **b.units}}
    most = max((n for pair in detected.values() for n in pair), default=0)
    concepts = [c for c, pair in detected.items() if any(pair)]
    concepts.sort(key=lambda c: (-abs(detected[c][0] - detected[c][1]), c.label.casefold(), c.category, c.nth))

    def one(concept: Matched) -> _Row:
        iou = [side.best.get(concept, 0.0) for side in (a, b)]
        return _row(
            "concepts",
            concept.label,
            detected[concept],
            most,
            (f"{iou[0]:.3f}" if iou[0] else "-", f"{iou[1]:.3f}" if iou[1] else "-"),
            plain={"a_iou": iou[0], "b_iou": iou[1]},
            item=item(concept),
            category=concept.category,
            iou=max(iou),
            detectors=max(detected[concept]),
        )

    return [_heading("concepts, units", "IoU"), *map(one, concepts)] if concepts else []


def _layer_rows(a: Session, b: Session) -> list[_Row]:
    names = (a.store.layer_names, b.store.layer_names)
    in_both = [name for name in names[0] if name in names[1]]
    rest = [name for side in names for name in side if name not in in_both]
    summaries = [{view.name: view.summary() for view in session.views} for session in (a, b)]
    most = max((s["detectors"] for side in summaries for s in side.values()), default=0)

    def one(name: str) -> _Row:
        here = [side.get(name) for side in summaries]
        counts, unique = (
            [None if s is None else int(s[k]) for s in here] for k in ("detectors", "unique_per_category")
        )
        return _row(
            "layers",
            name,
            (counts[0], counts[1]),
            most,
            ("" if unique[0] is None else str(unique[0]), "" if unique[1] is None else str(unique[1])),
            plain={"a_unique": unique[0], "b_unique": unique[1]},
            layer=name,
            detectors=max(n or 0 for n in counts),
        )

    return [_heading("layers, detectors", "/cat"), *map(one, [*in_both, *rest])] if in_both or rest else []
