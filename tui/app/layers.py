"""The Layers table: what each layer of a store detects."""

from __future__ import annotations

from string import ascii_letters, digits
from typing import Any

import numpy as np
from rich.cells import cell_len

from ndissect.tui.app.listing import Cell, Column, Item, Listing, Order, Stack
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.tables.remarks import NO_COUNTS, layer_notes
from ndissect.tui.tables.views import best_unit


def category_letters(categories: list[str]) -> dict[str, str]:
    """A letter for each category: its first one that no category before it has."""
    letter_of: dict[str, str] = {}
    for category in categories:
        # Of one cell, or the bar would be too long; a category of which every letter is taken gets a digit.
        letters = [c for c in category if cell_len(c) == 1 and c.strip()]
        letter_of[category] = next(c for c in [*letters, *digits, *ascii_letters] if c not in letter_of.values())
    return letter_of


def layers_listing(session: Session) -> Listing:
    """One row a layer: units, detectors, both counts of unique detectors, best unit, a bar by category.

    Where any layer has a null, also how many detectors it tells from chance. A store of several layers has a last row
    for the units of all of them.
    """
    views = session.views
    summaries = [view.summary() for view in views]
    bests = [best_unit(view) for view in views]
    letters = category_letters(session.categories)
    most = max((s["unique_per_category"] for s in summaries), default=0)
    all_units = len(views) > 1
    count = len(views) + all_units
    surviving = np.array([np.nan if s["detectors_q05"] is None else s["detectors_q05"] for s in summaries])
    null = not np.isnan(surviving).all()
    surviving = np.append(surviving, [np.nansum(surviving)] * all_units)

    def surviving_cell(row: int) -> list[Cell]:
        return ["-" if np.isnan(surviving[row]) else f"{surviving[row]:.0f}"] if null else []

    def cells(row: int) -> list[Cell]:
        if row == len(views):
            units, detectors = (str(sum(s[k] for s in summaries)) for k in ("units", "detectors"))
            return ["all layers", units, detectors, *surviving_cell(row), "", "", "", ""]
        s, (unit, label, iou) = summaries[row], bests[row]
        if views[row].descriptions is not None:
            return [views[row].name, str(s["units"]), "-", *surviving_cell(row), "-", "-", "-", ""]
        parts = tuple((letters[c], s["by_category"][c]) for c in session.categories)
        return [
            views[row].name,
            str(s["units"]),
            str(s["detectors"]),
            *surviving_cell(row),
            str(s["unique_per_category"]),
            str(s["unique_best_label"]),
            "-" if unit is None else f"{unit} {label} {iou:.2f}",
            Stack(parts, most),
        ]

    def plain(row: int) -> dict[str, Any]:
        if row == len(views):
            total = {"layer": "all layers", **{k: sum(s[k] for s in summaries) for k in ("units", "detectors")}}
            return total | ({"detectors_q05": int(surviving[row])} if null else {})
        unit, label, iou = bests[row]
        s = dict(summaries[row])
        by_category = s.pop("by_category")
        if not null:
            s.pop("detectors_q05")
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

    longest = max(map(len, names), default=0)
    # With a column more, what is less telling goes before the names of layers are cut.
    name_width = min(max(10, longest), 17) if null else 10
    legend = ", ".join(f"{letter} {category}" for category, letter in letters.items())
    told = ("q<0.05: detectors told from chance",) if null else ()
    counted = not views or any(view.descriptions is None for view in views)
    unique = (legend, "/cat /best: unique detectors, per category and by best label", *told)
    return Listing(
        name="layers",
        subject="",
        columns=(
            Column("layer", name_width, grows=True, most=longest, sort=lambda: np.arange(count)),
            Column("units", 6, right=True, sort=key("units"), descending=True),
            Column("detect", 7, right=True, sort=key("detectors"), descending=True),
            *([Column("q<0.05", 6, right=True, sort=lambda: surviving, descending=True)] if null else []),
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
        notes=(*layer_notes(views), *(unique if counted else (NO_COUNTS,))),
    )
