"""The Concepts table: every concept, the units that detect it, and the best unit for it, detector or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from ndissect.tui.app.listing import Bar, Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.pictures.glyphs import FULL_IOU
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.units import Texts
from ndissect.tui.tables.views import best_units, concept_detectors


def concepts_listing(session: Session) -> Listing:
    """One row a concept: how many units are labelled with it as detectors, in which layers, and the best of all units
    for it with its IoU."""
    views, concepts = session.views, session.store.concepts
    C = len(concepts)
    detect = concept_detectors(views, C)
    best = best_units(views, C)
    detectors, best_iou = detect.units.sum(0), best.iou
    images, code = session.concept_images[:C], session.category_code[:C]

    def where(row: int) -> str:
        counts = detect.units[:, row]
        return "  ".join(f"{views[i].name} {counts[i]}" for i in np.flatnonzero(counts)[::-1])

    def best_name(row: int) -> str:
        return f"{views[best.layer[row]].name}:{best.unit[row]}" if best.unit[row] >= 0 else "-"

    def cells(row: int) -> list[Cell]:
        value = float(best_iou[row])
        return [
            session.labels[row],
            session.categories[code[row]],
            str(detectors[row]) if detectors[row] else "-",
            f"{value:.3f}" if value > 0 else "-",
            Bar(value / FULL_IOU),
            best_name(row),
            where(row),
            str(images[row]) if images[row] >= 0 else "?",
        ]

    def plain(row: int) -> dict[str, Any]:
        return {
            "concept": session.labels[row],
            "category": session.categories[code[row]],
            "detectors": int(detectors[row]),
            "best_unit": best_name(row) if best.unit[row] >= 0 else None,
            "iou": float(best_iou[row]),
            "images": int(images[row]) if images[row] >= 0 else None,
            **{view.name: int(n) for view, n in zip(views, detect.units[:, row], strict=True)},
        }

    def fields() -> Fields:
        return Fields(
            words=(texts(list(session.labels[:C])),),
            numbers={
                "iou": best_iou,
                "detectors": detectors.astype(np.float64),
                "images": np.where(images >= 0, images, np.nan),
            },
            choices={
                "cat": Texts(tuple(session.categories), code),
                "layer": Texts((*(view.name for view in views), ""), best.layer % (len(views) + 1)),
            },
        )

    alphabet = session.label_rank[:C]
    # Most detectors first, among equals the best IoU, then by name: the order in which rows come is that.
    rows = np.lexsort([alphabet, -best_iou, -detectors])
    return Listing(
        name="concepts",
        subject="",
        columns=(
            Column("concept", 14, grows=True, most=session.longest_label, sort=lambda: alphabet[rows]),
            Column("category", 9, drop=3, sort=lambda: code[rows]),
            Column("detect", 7, right=True, sort=lambda: detectors[rows], descending=True),
            Column("IoU", 5, right=True, sort=lambda: best_iou[rows], descending=True),
            Column("", 8, drop=4, bar=True),
            Column("best unit", 14, drop=1),
            Column("detectors by layer", 18, drop=2, cut_end=True),
            Column("images", 7, right=True, drop=5, sort=lambda: images[rows], descending=True),
        ),
        count=C,
        cells=lambda row: cells(rows[row]),
        item=lambda row: Item("concept", concept=int(concepts.number[rows[row]])),
        fields=lambda: _reordered(fields(), rows),
        empty="this store has no concepts",
        order=Order(2, descending=True),
        faint=lambda row: not detectors[rows[row]],
        plain=lambda row: plain(rows[row]),
        copied=lambda row: f"{session.labels[rows[row]]}\t{best_name(rows[row])}\t{best_iou[rows[row]]:.6g}",
        notes=(
            *layer_notes(views),
            "detect: units labelled with the concept, with an IoU above 0.04; best unit: of all, whatever its label",
        ),
    )


def _reordered(fields: Fields, rows: Any) -> Fields:
    def moved(x: Texts) -> Texts:
        return Texts(x.strings, x.code[rows])

    return Fields(
        tuple(moved(x) for x in fields.words),
        {name: values[rows] for name, values in fields.numbers.items()},
        {name: moved(x) for name, x in fields.choices.items()},
        fields.flags,
    )
