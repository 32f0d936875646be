"""The Summary: the papers' bar chart of detectors by category and concept, for one layer or all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU, detectors, unique_best_label
from ndissect.tui.app.listing import Bar, Cell, Column, Item, Listing
from ndissect.tui.app.query import Fields
from ndissect.tui.app.session import Session
from ndissect.tui.tables.evidence import any_known
from ndissect.tui.tables.remarks import NO_COUNTS, cautions, evidence_line
from ndissect.tui.tables.units import Texts


@dataclass(frozen=True)
class _Line:
    """A heading (category -1), a category, or a concept of one."""

    text: str
    category: int = -1
    concept: int = -1


def _surviving(session: Session, views: list[LayerView]) -> list[_Line]:
    """How many detectors are told from chance, of the layers that have a null, and by what; nothing where none has."""
    known = [view for view in views if any_known(view, "q")]
    pairs = [(detectors(view.best), view.known("q") < SIGNIFICANT) for view in known]
    if not pairs:
        return []
    surviving, of = sum(int((d & q).sum()) for d, q in pairs), sum(int(d.sum()) for d, _ in pairs)
    return [_Line(f"{surviving} of {of} detectors have q < {SIGNIFICANT}"), _Line(evidence_line(session.store))]


def summary_listing(session: Session, layer: str = "") -> Listing:
    """A bar for each category's unique detectors, then one for each concept; ``layer`` "" is all layers.

    As in the papers, a unit counts once in each category in which its best concept has an IoU above 0.04, so the
    concepts below a heading are the category's unique detectors. Where there is a null, a heading tells how many
    detectors it tells from chance.
    """
    views = [session.view(layer)] if layer else session.views
    concepts = session.store.concepts
    C = len(concepts)
    winners, labelled, best = np.zeros(C, np.int64), np.zeros(C, np.int64), np.zeros(C)
    for view in views:
        won = view.best.iou > DETECTOR_IOU
        rows = view.best.concept[won]
        winners += np.bincount(rows, minlength=C)[:C]
        np.maximum.at(best, rows, view.best.iou[won])
        label, value = view.labels
        labelled += np.bincount(label[value > DETECTOR_IOU], minlength=C)[:C]
    most = max(int(winners.max(initial=0)), 1)

    categories, code = session.categories, session.category_code[:C]
    distinct = [int(np.count_nonzero(winners[code == k])) for k in range(len(categories))]
    units = [int(winners[code == k].sum()) for k in range(len(categories))]
    lines: list[_Line] = []
    if any(distinct):
        lines = [
            *_surviving(session, views),
            _Line("unique detectors by category"),
            *(_Line(c, category=k) for k, c in enumerate(categories)),
        ]
    for k, category in enumerate(categories):
        winning = np.flatnonzero((code == k) & (winners > 0))
        winning = winning[np.lexsort([session.label_rank[winning], -best[winning], -winners[winning]])]
        if len(winning):
            lines.append(_Line(f"{category}: {distinct[k]} unique, in {units[k]} units"))
            lines += [_Line(session.labels[row], k, int(row)) for row in winning]
    if lines:
        lines += [_Line(caution) for caution in cautions(views)]
    headings = frozenset(i for i, line in enumerate(lines) if line.category < 0)

    def cells(i: int) -> list[Cell]:
        line = lines[i]
        if line.category < 0:
            return [line.text]
        if line.concept < 0:
            count = distinct[line.category]
            return [line.text, str(count), Bar(count / max(distinct)), "", ""]
        row = line.concept
        return [
            line.text,
            str(winners[row]),
            Bar(winners[row] / most),
            str(labelled[row]) if labelled[row] else "-",
            f"{best[row]:.3f}",
        ]

    def item(i: int) -> Item:
        line = lines[i]
        if line.concept >= 0:
            return Item("concept", layer, concept=int(concepts.number[line.concept]))
        return Item("category", layer, name=line.text)

    def plain(i: int) -> dict[str, Any]:
        line = lines[i]
        category = categories[line.category]
        if line.concept < 0:
            return {"category": category, "unique": distinct[line.category], "detectors": units[line.category]}
        return {
            "category": category,
            "concept": line.text,
            "detectors": int(winners[line.concept]),
            "labels": int(labelled[line.concept]),
            "best_iou": float(best[line.concept]),
        }

    def fields() -> Fields:
        row = np.array([line.concept for line in lines], np.int64)
        category = np.array([line.category for line in lines], np.int64)
        return Fields(
            words=(Texts(session.labels, np.where(row < 0, C, row)),),
            numbers={"iou": np.append(best, np.nan)[row], "detectors": np.append(winners, np.nan)[row]},
            choices={"cat": Texts((*categories, ""), category)},
        )

    where = layer or ("all layers" if len(views) != 1 else views[0].name)
    total = sum(view.units for view in views)
    beware = () if lines else tuple(cautions(views))
    note = f"{where}: {total} units, {sum(distinct)} unique detectors per category"
    if len(views) == 1:
        note += f", {unique_best_label(views[0].best)} by best label"
    counted = not views or any(view.descriptions is None for view in views)
    return Listing(
        name="summary",
        subject=layer,
        columns=(
            Column("concept", 18, grows=True, most=session.longest_label),
            Column("units", 5, right=True),
            Column("", 12, bar=True),
            Column("labels", 6, right=True, drop=2),
            Column("best IoU", 8, right=True, drop=1),
        ),
        count=len(lines),
        cells=cells,
        item=item,
        fields=fields,
        empty=f"no unit of {where} has an IoU above {DETECTOR_IOU} with any concept" if counted else NO_COUNTS,
        headings=headings,
        plain=plain,
        copied=lambda i: "\t".join(str(v) for v in plain(i).values()),
        notes=(note, *beware),
    )
