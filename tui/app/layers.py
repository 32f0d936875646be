"""The Layers table: what each layer of a store detects."""

from __future__ import annotations

from string import ascii_letters, digits
from typing import Any

import numpy as np
from rich.cells import cell_len

from ndissect.tui.app.listing import Cell, Column, Item, Listing, Order, Stack
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.views import best_unit


def category_letters(categories: list[str]) -> dict[str, str]:
    """A letter for each category: its first one that no category before it has."""
    found: dict[str, str] = {}
    for category in categories:
        # Of one cell, or the bar would be too long; a category of which every letter is taken gets a digit.
        letters = [c for c in category if cell_len(c) == 1 and c.strip()]
        found[category] = next(c for c in [*letters, *digits, *ascii_letters] if c not in found.values())
    return found


def layers_listing(session: Session) -> Listing:
    """One row a layer: units, detectors, both counts of unique detectors, best unit, a bar by category.

    A store of several layers has a last row for the units of all of them.
    """
    views = session.views
    summaries = [view.summary() for view in views]
    bests = [best_unit(view) for view in views]
    letters = category_letters(session.categories)
    most = max((s["unique_per_category"] for s in summaries), default=0)
    all_units = len(views) > 1
    count = len(views) + all_units

    def cells(row: int) -> list[Cell]:
        if row == len(views):
            units, detectors = (str(sum(s[k] for s in summaries)) for k in ("units", "detectors"))
            return ["all layers", units, detectors, "", "", "", ""]
        s, (unit, label, iou) = summaries[row], bests[row]
        parts = tuple((letters[c], s["by_category"][c]) for c in session.categories)
        return [
            views[row].name,
            str(s["units"]),
            str(s["detectors"]),
            str(s["unique_per_category"]),
            str(s["unique_best_label"]),
            "-" if unit is None else f"{unit} {label} {iou:.2f}",
            Stack(parts, most),
        ]

    def plain(row: int) -> dict[str, Any]:
        if row == len(views):
            return {"layer": "all layers", **{k: sum(s[k] for s in summaries) for k in ("units", "detectors")}}
        unit, label, iou = bests[row]
        s = dict(summaries[row])
        by_category = s.pop("by_category")
        return {"layer": views[row].name, **s, **by_category, "best_unit": unit, "best_label": label, "best_iou": iou}

    def key(name: str) -> Any:
        last = [sum(s[name] for s in summaries)] if all_units else []
        return lambda: np.array([s[name] for s in summaries] + last, np.int64)

    names = [view.name for view in views] + ["all layers"] * all_units
    best_iou = np.array([iou for _, _, iou in bests] + [0.0] * all_units)

    def fields() -> Fields:
        return Fields(
            words=(texts(names),),
            numbers={
                "units": key("units")().astype(np.float64),
                "detectors": key("detectors")().astype(np.float64),
                "iou": best_iou,
            },
            choices={"layer": texts(names)},
        )

    legend = ", ".join(f"{letter} {category}" for category, letter in letters.items())
    return Listing(
        name="layers",
        subject="",
        columns=(
            Column("layer", 10, grows=True, most=max(map(len, names), default=0), sort=lambda: np.arange(count)),
            Column("units", 6, right=True, sort=key("units"), descending=True),
            Column("detect", 7, right=True, sort=key("detectors"), descending=True),
            Column("/cat", 5, right=True, drop=3, sort=key("unique_per_category"), descending=True),
            Column("/best", 6, right=True, drop=4, sort=key("unique_best_label"), descending=True),
            Column("best unit", 18, drop=1, sort=lambda: best_iou, descending=True),
            Column("by category", 12, drop=2, bar=True),
        ),
        count=count,
        cells=cells,
        item=lambda row: Item("layer", names[row] if row < len(views) else ""),
        fields=fields,
        empty="this store holds no layer",
        order=Order(0),
        plain=plain,
        copied=lambda row: names[row],
        notes=(legend, "/cat /best: unique detectors, per category and by best label"),
    )
