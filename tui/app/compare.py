"""The Compare tables: two units, two layers or two stores side by side, called A and B.

Concepts are matched by name and category, so that A and B may be of different stores, whose numbers may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from ndissect.store import scores
from ndissect.store.concepts import report_order
from ndissect.store.errors import WrongUse
from ndissect.store.reader import LayerView
from ndissect.store.scores import DETECTOR_IOU, Best
from ndissect.tui.app.listing import NOTHING, Bar, Cell, Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.app.stores import differences, same
from ndissect.tui.app.unit import RUNNERS_UP
from ndissect.tui.app.units import FULL_IOU
from ndissect.tui.views import UNIQUE

_ONLY_BEST = "?: not known, as an imported table holds only the best concept of each category"
_NO_SUCH = "n/a: no such concept in that data"
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


# Concepts of two stores


@dataclass(frozen=True)
class _Concept:
    """A concept as it is matched: by name as shown and category; ``nth`` tells apart those that share both."""

    label: str
    category: str
    nth: int = 0


def _concepts(session: Session) -> list[_Concept]:
    """The concepts of the store by row."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for row, label in enumerate(session.labels[:-1]):
        category = session.store.concepts.category_of(row)
        nth = seen[label, category] = seen.get((label, category), -1) + 1
        found.append(_Concept(label, category, nth))
    return found


def _items(current: Session) -> Callable[[_Concept], Item]:
    """What opens a concept in the store that is browsed: nothing where that has no such concept."""
    number = dict(zip(_concepts(current), current.store.concepts.number.tolist(), strict=True))
    return lambda concept: Item("concept", concept=number[concept]) if concept in number else NOTHING


def _subject(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    def one(session: Session, layer: str = "", unit: int = -1) -> str:
        return ":".join([str(session.target), layer, *([str(unit)] if unit >= 0 else [])])

    return f"{one(*a)} and {one(*b)}"


# Two units


@dataclass(frozen=True)
class _Unit:
    """A unit by concept: IoU, I and A; ``leading``: the best of each category, and the first few of all.

    ``absent``: why a concept is not in ``iou``.
    """

    told: str
    iou: Mapping[_Concept, float]
    counts: Mapping[_Concept, tuple[int, int]]
    leading: tuple[_Concept, ...]
    absent: str

    def shown(self, concept: _Concept) -> str:
        value = self.iou.get(concept)
        return self.absent if value is None else f"{value:.4f}" if value > 0 else "-"

    def bar(self, concept: _Concept) -> Bar:
        return Bar(self.iou.get(concept, 0.0) / FULL_IOU)


def _unit(session: Session, layer: str, unit: int) -> _Unit:
    view = session.view(layer)
    value, intersection, area = view.unit_ious(unit)
    concepts = _concepts(session)
    best = {int(row) for row in view.best.concept[unit] if row >= 0}
    known = range(len(concepts)) if view.has_counts else sorted(best)
    first = [int(row) for row in np.argsort(-value, kind="stable")[:RUNNERS_UP] if value[row] > 0]
    label, iou = int(view.labels[0][unit]), float(view.labels[1][unit])
    dead = bool(view.statistics.dead[unit])
    named = "dead" if dead else f"{session.labels[label]} {iou:.3f}" if label >= 0 else "no label"
    return _Unit(
        told=f"{layer}:{unit} {named}",
        iou={concepts[row]: float(value[row]) for row in known},
        counts={concepts[row]: (int(intersection[row]), int(area[row])) for row in known},
        leading=tuple(concepts[row] for row in dict.fromkeys([*sorted(best), *first])),
        absent="n/a" if view.has_counts else "?",
    )


def compare_units(a: tuple[Session, str, int], b: tuple[Session, str, int], current: Session | None = None) -> Listing:
    """One row a concept that leads in either unit (session, layer, unit): both IoUs and the counts behind them.

    Those are the best concepts of each category and the first few of all; the row of the highest IoU comes first.
    Rows open concepts of ``current``, A's store where that is not given. WrongUse for a layer or unit there is not.
    """
    both = (_unit(*a), _unit(*b))
    item = _items(current or a[0])
    rows = list(dict.fromkeys(both[0].leading + both[1].leading))
    iou = np.array([[unit.iou.get(concept, np.nan) for concept in rows] for unit in both]).reshape(2, -1)
    highest = np.fmax(iou[0], iou[1])
    order = sorted(range(len(rows)), key=lambda i: (-highest[i], rows[i].label.casefold()))
    rows, iou, highest = [rows[i] for i in order], iou[:, order], highest[order]
    place = {c: i for i, c in enumerate(report_order(tuple({row.category for row in rows})))}

    def pair(concept: _Concept, which: int) -> str:
        counts = [unit.counts.get(concept) for unit in both]
        return " ".join(f"{'' if c is None else format(c[which], ','):>9}" for c in counts)

    def cells(i: int) -> list[Cell]:
        row = rows[i]
        sides = [cell for unit in both for cell in (unit.shown(row), unit.bar(row))]
        return [row.label, row.category, *sides, pair(row, 0), pair(row, 1)]

    def plain(i: int) -> dict[str, Any]:
        row = rows[i]
        found: dict[str, Any] = {"concept": row.label, "category": row.category}
        for name, unit in zip("ab", both, strict=True):
            intersection, area = unit.counts.get(row, (None, None))
            found |= {f"{name}_iou": unit.iou.get(row), f"{name}_intersection": intersection, f"{name}_area": area}
        return found

    def copied(i: int) -> str:
        return "\t".join([rows[i].label, rows[i].category, *(unit.shown(rows[i]) for unit in both)])

    def alphabet() -> np.ndarray[Any, np.dtype[np.int64]]:
        rank = {row: i for i, row in enumerate(sorted(rows, key=lambda row: row.label.casefold()))}
        return np.array([rank[row] for row in rows], np.int64)

    shown = {unit.shown(row) for unit in both for row in rows}
    notes = [f"A {both[0].told}   B {both[1].told}", *_shared_images(a, b), *differences(a[0], b[0])]
    notes += [text for sign, text in (("?", _ONLY_BEST), ("n/a", _NO_SUCH)) if sign in shown]
    bar = Column("", 8, drop=2, bar=True)
    return Listing(
        name="compare",
        subject=_subject(a, b),
        columns=(
            Column("concept", 14, grows=True, most=_longest([row.label for row in rows]), sort=alphabet),
            Column("category", 9, drop=3, sort=lambda: np.array([place[row.category] for row in rows], np.int64)),
            Column("A IoU", 6, right=True, sort=lambda: iou[0], descending=True),
            bar,
            Column("B IoU", 6, right=True, sort=lambda: iou[1], descending=True),
            bar,
            Column(f"{'A both':>9} {'B both':>9}", 19, right=True, drop=4),
            Column(f"{'A mask':>9} {'B mask':>9}", 19, right=True, drop=5),
        ),
        count=len(rows),
        cells=cells,
        item=lambda i: item(rows[i]),
        fields=lambda: Fields(
            words=(texts([row.label for row in rows]),),
            numbers={"iou": highest},
            choices={"cat": texts([row.category for row in rows])},
        ),
        empty="no concept has an IoU above 0 with either unit",
        faint=lambda i: bool(highest[i] <= DETECTOR_IOU),
        plain=plain,
        copied=copied,
        notes=tuple(notes),
    )


def _shared_images(a: tuple[Session, str, int], b: tuple[Session, str, int]) -> list[str]:
    """How many top images the units of one store share, and how far their masks agree there."""
    if not same(a[0], b[0]):
        return []
    views, units = (a[0].view(a[1]), b[0].view(b[1])), (a[2], b[2])
    if not all(view.has_top for view in views):
        return []
    tops = [view.top(unit) for view, unit in zip(views, units, strict=True)]
    _, *at = np.intersect1d(tops[0].image, tops[1].image, return_indices=True)
    if not len(at[0]):
        return ["no top image in common"]
    masks = [view.masks(unit)[rows] for view, unit, rows in zip(views, units, at, strict=True)]
    union = (masks[0] | masks[1]).sum((1, 2))
    common = (masks[0] & masks[1]).sum((1, 2))[union > 0]
    told = f"top images in common: {len(at[0])}"
    if not len(common):
        return [f"{told}; neither unit's mask is in them"]
    return [f"{told}; mean IoU of the two masks there {float((common / union[union > 0]).mean()):.3f}"]


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
    units: Mapping[_Concept, int]
    best: Mapping[_Concept, float]


def _side(session: Session, views: Sequence[LayerView]) -> _Side:
    concepts, categories = session.store.concepts, session.store.concepts.categories
    nothing = np.zeros((0, len(categories)))
    best = Best(
        np.concatenate([nothing.astype(np.int32), *(view.best.concept for view in views)]),
        np.concatenate([nothing.astype(np.int64), *(view.best.intersection for view in views)]),
        np.concatenate([nothing.astype(np.int64), *(view.best.area for view in views)]),
        np.concatenate([nothing, *(view.best.iou for view in views)]),
    )
    per_category = scores.unique_per_category(best)
    label, value = scores.label_units(best)
    units = np.bincount(label[value > DETECTOR_IOU], minlength=len(concepts))
    highest = np.zeros(len(concepts))
    np.maximum.at(highest, label[label >= 0], value[label >= 0])
    keys = _concepts(session)
    return _Side(
        summary={
            "units": len(label),
            "detectors": int(scores.detectors(best).sum()),
            "unique/cat": int(per_category.sum()),
            "unique/best": scores.unique_best_label(best),
        },
        by_category={c: int(n) for c, n in zip(categories, per_category, strict=True)},
        units=dict(zip(keys, units.tolist(), strict=True)),
        best=dict(zip(keys, highest.tolist(), strict=True)),
    )


def compare_layers(a: tuple[Session, str], b: tuple[Session, str], current: Session | None = None) -> Listing:
    """The counts of two layers (session, layer; "" is all of them), then each concept that either detects.

    Concepts are sorted by how far the numbers of units differ, then by name. Rows open concepts of ``current``, A's
    store where that is not given. WrongUse for a layer there is not.
    """
    sides = tuple(_side(s, [s.view(layer)] if layer else s.views) for s, layer in (a, b))
    first, second = (layer or "all layers" for _, layer in (a, b))
    rows = [*_count_rows(sides[0], sides[1]), *_concept_rows(sides[0], sides[1], current or a[0])]
    return _listing(_subject(a, b), rows, [f"A {first}   B {second}", *differences(a[0], b[0]), *_EXPLAINED])


def compare_stores(a: Session, b: Session, current: Session | None = None) -> Listing:
    """The layers of two stores, those of both first, then each concept that either detects in any of its layers.

    Notes tell what differs in protocol, data and network, as not all numbers can be compared. Rows open concepts of
    ``current``, A where that is not given.
    """
    sides = _side(a, a.views), _side(b, b.views)
    rows = [*_layer_rows(a, b), *_count_rows(*sides), *_concept_rows(*sides, current or a)]
    return _listing(_subject((a,), (b,)), rows, [*differences(a, b), *_EXPLAINED])


def _listing(subject: str, rows: list[_Row], notes: list[str]) -> Listing:
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
        subject=subject,
        columns=(
            Column("", 19, grows=True, most=_longest([str(row.cells[0]) for row in rows if not row.heading])),
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


def _longest(names: list[str]) -> int:
    return max(map(cell_len, names), default=0)


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
    item = _items(current)
    detected = {c: (a.units.get(c, 0), b.units.get(c, 0)) for c in {**a.units, **b.units}}
    most = max((n for pair in detected.values() for n in pair), default=0)
    found = [c for c, pair in detected.items() if any(pair)]
    found.sort(key=lambda c: (-abs(detected[c][0] - detected[c][1]), c.label.casefold(), c.category, c.nth))

    def one(concept: _Concept) -> _Row:
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

    return [_heading("concepts, units", "IoU"), *map(one, found)] if found else []


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
