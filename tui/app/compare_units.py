"""The Compare table of two units, called A and B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndissect.store.concepts import report_order
from ndissect.store.limits import PAGE_PIXELS
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.app.listing import Bar, Cell, Column, Listing
from ndissect.tui.app.matching import longest, matched, opens, subject
from ndissect.tui.app.origin import differences, same
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.app.unit import RUNNERS_UP
from ndissect.tui.pictures.glyphs import FULL_IOU
from ndissect.tui.tables.comparison import Matched, different_measures
from ndissect.tui.tables.formats import with_iou

_ONLY_BEST = "?: not known, as an imported table holds only the best concept of each category"
_NO_SUCH = "n/a: no such concept in that data"


@dataclass(frozen=True)
class _Unit:
    """A unit by concept: IoU, I and A; ``leading``: the best of each category, and the first few of all.

    ``absent``: why a concept is not in ``iou``.
    """

    told: str
    iou: Mapping[Matched, float]
    counts: Mapping[Matched, tuple[int, int]]
    leading: tuple[Matched, ...]
    absent: str

    def shown(self, concept: Matched) -> str:
        value = self.iou.get(concept)
        return self.absent if value is None else f"{value:.4f}" if value > 0 else "-"

    def bar(self, concept: Matched) -> Bar:
        return Bar(self.iou.get(concept, 0.0) / FULL_IOU)


def _unit(session: Session, layer: str, unit: int) -> _Unit:
    view = session.view(layer)
    value, intersection, area = view.unit_ious(unit)
    concepts = matched(session)
    best = {int(row) for row in view.best.concept[unit] if row >= 0}
    known = range(len(concepts)) if view.has_every_iou else sorted(best)
    first = [int(row) for row in np.argsort(-value, kind="stable")[:RUNNERS_UP] if value[row] > 0]
    label, iou = int(view.labels[0][unit]), float(view.labels[1][unit])
    dead = bool(view.statistics.dead[unit])
    named = "dead" if dead else with_iou(session.labels[label], iou) if label >= 0 else "no label"
    return _Unit(
        told=f"{layer}:{unit} {named}",
        iou={concepts[row]: float(value[row]) for row in known},
        counts={}
        if view.has_ious_alone
        else {concepts[row]: (int(intersection[row]), int(area[row])) for row in known},
        leading=tuple(concepts[row] for row in dict.fromkeys([*sorted(best), *first])),
        absent="n/a" if view.has_every_iou else "?",
    )


def compare_units(a: tuple[Session, str, int], b: tuple[Session, str, int], current: Session | None = None) -> Listing:
    """One row a concept that leads in either unit (session, layer, unit): both IoUs and the counts behind them.

    Those are the best concepts of each category and the first few of all; the row of the highest IoU comes first.
    Rows open concepts of ``current``, A's store where that is not given. WrongUse for a layer or unit there is not.
    """
    both = (_unit(*a), _unit(*b))
    item = opens(current or a[0])
    rows = list(dict.fromkeys(both[0].leading + both[1].leading))
    iou = np.array([[unit.iou.get(concept, np.nan) for concept in rows] for unit in both]).reshape(2, -1)
    highest = np.fmax(iou[0], iou[1])
    order = sorted(range(len(rows)), key=lambda i: (-highest[i], rows[i].label.casefold()))
    rows, iou, highest = [rows[i] for i in order], iou[:, order], highest[order]
    place = {c: i for i, c in enumerate(report_order(tuple({row.category for row in rows})))}

    def pair(concept: Matched, which: int) -> str:
        counts = [unit.counts.get(concept) for unit in both]
        return " ".join(f"{'' if c is None else format(c[which], ','):>9}" for c in counts)

    def cells(i: int) -> list[Cell]:
        row = rows[i]
        sides = [cell for unit in both for cell in (unit.shown(row), unit.bar(row))]
        return [row.label, row.category, *sides, pair(row, 0), pair(row, 1)]

    def plain(i: int) -> dict[str, Any]:
        row = rows[i]
        values: dict[str, Any] = {"concept": row.label, "category": row.category}
        for name, unit in zip("ab", both, strict=True):
            intersection, area = unit.counts.get(row, (None, None))
            values |= {f"{name}_iou": unit.iou.get(row), f"{name}_intersection": intersection, f"{name}_area": area}
        return values

    def copied(i: int) -> str:
        return "\t".join([rows[i].label, rows[i].category, *(unit.shown(rows[i]) for unit in both)])

    def alphabet() -> np.ndarray[Any, np.dtype[np.int64]]:
        rank = {row: i for i, row in enumerate(sorted(rows, key=lambda row: row.label.casefold()))}
        return np.array([rank[row] for row in rows], np.int64)

    shown = {unit.shown(row) for unit in both for row in rows}
    notes = [f"A {both[0].told}   B {both[1].told}", *_measures(a, b), *_shared_images(a, b), *differences(a[0], b[0])]
    notes += [text for sign, text in (("?", _ONLY_BEST), ("n/a", _NO_SUCH)) if sign in shown]
    bar = Column("", 8, drop=2, bar=True)
    return Listing(
        name="compare",
        subject=subject(a, b),
        columns=(
            Column("concept", 14, grows=True, most=longest([row.label for row in rows]), sort=alphabet),
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


def _measures(a: tuple[Session, str, int], b: tuple[Session, str, int]) -> list[str]:
    different = different_measures(a[0].view(a[1]), b[0].view(b[1]))
    return [f"beware: A {different}"] if different else []


def _shared_images(a: tuple[Session, str, int], b: tuple[Session, str, int]) -> list[str]:
    """How many top images the units of one store share, and how far their masks agree there."""
    if not same(a[0], b[0]):
        return []
    views, units = (a[0].view(a[1]), b[0].view(b[1])), (a[2], b[2])
    if not all(view.has_top for view in views) or different_measures(*views):
        return []
    tops = [view.top(unit) for view, unit in zip(views, units, strict=True)]
    _, *at = np.intersect1d(tops[0].image, tops[1].image, return_indices=True)
    if not len(at[0]):
        return ["no top image in common"]
    overlaps, pixels = [], 0
    for ranks in zip(*at, strict=True):
        if pixels >= PAGE_PIXELS:
            break
        mine, other = (
            view.mask(unit, top.maps[rank]) for view, unit, top, rank in zip(views, units, tops, ranks, strict=True)
        )
        pixels += 2 * mine.size
        if union := int((mine | other).sum()):
            overlaps.append(int((mine & other).sum()) / union)
    told = f"top images in common: {len(at[0])}"
    if not overlaps:
        return [f"{told}; neither unit's mask is in them"]
    return [f"{told}; mean IoU of the two masks there {float(np.mean(overlaps)):.3f}"]
