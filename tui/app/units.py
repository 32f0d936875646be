"""The Units tables: the units of a layer, of all layers, of a category, or those that a concept is found in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.reader import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.app.listing import Bar, Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields, Texts
from ndissect.tui.app.session import Session
from ndissect.tui.glyphs import FULL_IOU


@dataclass(frozen=True)
class _Units:
    """N units: (N,) arrays; ``layer`` points into ``names``, ``label`` is a concept row or -1."""

    names: tuple[str, ...]
    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> _Units:
        layer, unit, label = self.layer[rows], self.unit[rows], self.label[rows]
        return _Units(self.names, layer, unit, label, self.iou[rows], self.threshold[rows], self.dead[rows])


def _units(views: Sequence[LayerView], iou: Sequence[npt.NDArray[np.float64]]) -> _Units:
    def joined(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)

    return _Units(
        tuple(view.name for view in views),
        joined([np.full(view.units, i) for i, view in enumerate(views)], np.int64),
        joined([np.arange(view.units) for view in views], np.int64),
        joined([view.labels[0] for view in views], np.int64),
        joined(list(iou), np.float64),
        joined([view.statistics.threshold for view in views], np.float64),
        joined([view.statistics.dead for view in views], np.bool_),
    )


def layer_units(session: Session, layer: str) -> Listing:
    """The units of ``layer``, or of every layer where it is "": unit, label, category, IoU, threshold, dead or not."""
    views = [session.view(layer)] if layer else session.views
    found = _units(views, [view.labels[1] for view in views])
    return _listing(session, f"layer {layer}" if layer else "all layers", found, with_layer=not layer)


def concept_units(session: Session, concept: int, layer: str = "") -> Listing:
    """The units with an IoU above 0 with the concept ``concept``, a number of the data set, best first.

    Their IoU is that with the concept; the label is what each unit goes by.
    """
    row = session.concept_row(concept)
    views = [session.view(layer)] if layer else session.views
    found = _units(views, [view.concept_ious(row) for view in views])
    found = found[np.flatnonzero(found.iou > 0)]
    name = session.labels[row]
    return _listing(
        session,
        f"concept {concept} {layer}".rstrip(),
        found,
        with_layer=True,
        empty=f"no unit has an IoU above 0 with {name}",
    )


def category_units(session: Session, category: str, layer: str = "") -> Listing:
    """The units labelled with a concept of ``category`` (one of the session's), best first."""
    views = [session.view(layer)] if layer else session.views
    found = _units(views, [view.labels[1] for view in views])
    code = session.categories.index(category)
    found = found[np.flatnonzero(session.category_code[found.label] == code)]
    return _listing(
        session,
        f"category {category} {layer}".rstrip(),
        found,
        with_layer=True,
        empty=f"no unit is labelled with a concept of the category {category}",
    )


def _listing(session: Session, subject: str, found: _Units, *, with_layer: bool, empty: str = "no units") -> Listing:
    labels, categories = session.labels, (*session.categories, "")
    code = session.category_code[found.label]
    images = session.concept_images[found.label]

    def cells(row: int) -> list[Cell]:
        dead, value = found.dead[row], float(found.iou[row])
        threshold, seen = float(found.threshold[row]), int(images[row])
        named = "dead" if dead else labels[found.label[row]] or "-"
        cells: list[Cell] = [
            str(found.unit[row]),
            named,
            categories[code[row]],
            f"{value:.3f}" if value > 0 else "-",
            Bar(value / FULL_IOU),
            "-" if math.isnan(threshold) else f"{threshold:#.4g}".rstrip("."),
            str(seen) if seen > 0 else "",
        ]
        return [found.names[found.layer[row]], *cells] if with_layer else cells

    def plain(row: int) -> dict[str, Any]:
        return {
            "layer": found.names[found.layer[row]],
            "unit": int(found.unit[row]),
            "label": labels[found.label[row]] or None,
            "category": categories[code[row]] or None,
            "iou": float(found.iou[row]),
            "threshold": float(found.threshold[row]),
            "dead": bool(found.dead[row]),
        }

    def copied(row: int) -> str:
        p = plain(row)
        return "\t".join([f"{p['layer']}:{p['unit']}", p["label"] or "", p["category"] or "", f"{p['iou']:.6g}"])

    def fields() -> Fields:
        label, layer = Texts(labels, found.label % len(labels)), Texts(found.names, found.layer)
        return Fields(
            words=(label, layer) if with_layer else (label,),
            numbers={
                "iou": found.iou,
                "unit": found.unit.astype(np.float64),
                "threshold": found.threshold,
                "images": np.where(images >= 0, images, np.nan),
            },
            choices={"cat": Texts(categories, code), "layer": layer},
            flags={"dead": lambda: found.dead, "detector": lambda: found.iou > DETECTOR_IOU},
        )

    layer_column = Column("layer", 10, drop=4, sort=lambda: found.layer)
    columns = (
        Column("unit", 5, right=True, sort=lambda: found.unit),
        Column("label", 12, grows=True, most=session.longest_label, sort=lambda: session.label_rank[found.label]),
        Column("category", 9, drop=2, sort=lambda: code),
        Column("IoU", 5, right=True, sort=lambda: found.iou, descending=True),
        Column("", 10, drop=1, bar=True),
        Column("threshold", 10, right=True, drop=3, sort=lambda: found.threshold, descending=True),
        Column("images", 7, right=True, drop=5, sort=lambda: images, descending=True),
    )
    return Listing(
        name="units",
        subject=subject,
        columns=(layer_column, *columns) if with_layer else columns,
        count=len(found.unit),
        cells=cells,
        item=lambda row: Item("unit", found.names[found.layer[row]], int(found.unit[row])),
        fields=fields,
        empty=empty,
        order=Order(4 if with_layer else 3, descending=True),
        faint=lambda row: bool(found.iou[row] <= DETECTOR_IOU),
        plain=plain,
        copied=copied,
        notes=("images: how many hold the concept; a label that rests on few may win by chance",),
    )
