"""The Units tables: the units of a layer, of all layers, of a category, or those that a concept is found in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.app.listing import Bar, Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields, Texts
from ndissect.tui.app.session import Session
from ndissect.tui.pictures.glyphs import FULL_IOU
from ndissect.tui.tables.evidence import FIELDS, TOLD, chance, interval, share
from ndissect.tui.tables.views import marks

# Columns that go where there is no room, the first of them first: without evidence, and with it.
_GO = ("images", "layer", "threshold", "category", "")
_GO_BEFORE_EVIDENCE = (
    "images", "threshold", "AUPRC", "stability", "", "layer", "held-out", "category", "q", "interval"
)  # fmt: skip
_IMAGES = "images: how many hold the concept; a label that rests on few may win by chance"
_EVIDENCE = "interval of the IoU: 95 %; q: share of false labels; held-out: IoU on val"


@dataclass(frozen=True)
class _Units:
    """N units: (N,) arrays; ``layer`` points into ``names``, ``label`` is a concept row or -1.

    ``evidence`` has the numbers of ndissect.tui.tables.evidence.TOLD that are known of any of the units.
    """

    names: tuple[str, ...]
    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]
    evidence: Mapping[str, npt.NDArray[np.float64]]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> _Units:
        layer, unit, label = self.layer[rows], self.unit[rows], self.label[rows]
        evidence = {name: values[rows] for name, values in self.evidence.items()}
        return _Units(self.names, layer, unit, label, self.iou[rows], self.threshold[rows], self.dead[rows], evidence)


def _units(views: Sequence[LayerView], iou: Sequence[npt.NDArray[np.float64]]) -> _Units:
    def joined(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)

    evidence = {name: joined([view.known(name) for view in views], np.float64) for name in TOLD}
    return _Units(
        tuple(view.name for view in views),
        joined([np.full(view.units, i) for i, view in enumerate(views)], np.int64),
        joined([np.arange(view.units) for view in views], np.int64),
        joined([view.labels[0] for view in views], np.int64),
        joined(list(iou), np.float64),
        joined([view.statistics.threshold for view in views], np.float64),
        joined([view.statistics.dead for view in views], np.bool_),
        {name: values for name, values in evidence.items() if not np.isnan(values).all()},
    )


def layer_units(session: Session, layer: str) -> Listing:
    """The units of ``layer``, or of every layer where it is "": unit, label, category, IoU, threshold, dead or not."""
    views = [session.view(layer)] if layer else session.views
    found = _units(views, [view.labels[1] for view in views])
    return _listing(session, f"layer {layer}" if layer else "all layers", found, with_layer=not layer)


def concept_units(session: Session, concept: int, layer: str = "") -> Listing:
    """The units with an IoU above 0 with the concept ``concept``, a number of the data set, best first.

    Their IoU is that with the concept; the label is what each unit goes by. Evidence is for labels, so that it is known
    here only of the units that go by the concept.
    """
    row = session.concept_row(concept)
    views = [session.view(layer)] if layer else session.views
    found = _units(views, [view.concept_ious(row) for view in views])
    found = found[np.flatnonzero(found.iou > 0)]
    mine = found.label == row
    found = replace(found, evidence={name: np.where(mine, x, np.nan) for name, x in found.evidence.items()})
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
    evidence = _evidence_columns(found.evidence)
    flags: dict[str, Callable[[], npt.NDArray[np.bool_]]] = {
        "dead": lambda: found.dead,
        "detector": lambda: found.iou > DETECTOR_IOU,
    }
    if "q" in found.evidence:
        flags["significant"] = lambda: found.evidence["q"] < SIGNIFICANT
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
        cells[5:5] = [shown(row) for _, shown in evidence]
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
            **{name: float(values[row]) for name, values in found.evidence.items()},
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
                **{short: found.evidence[name] for short, name in FIELDS.items() if name in found.evidence},
            },
            choices={"cat": Texts(categories, code), "layer": layer},
            flags=flags,
        )

    layer_column = Column("layer", 10, sort=lambda: found.layer)
    columns = (
        Column("unit", 5, right=True, sort=lambda: found.unit),
        Column("label", 12, grows=True, most=session.longest_label, sort=lambda: session.label_rank[found.label]),
        Column("category", 9, sort=lambda: code),
        Column("IoU", 5, right=True, sort=lambda: found.iou, descending=True),
        Column("", 10, bar=True),
        *(column for column, _ in evidence),
        Column("threshold", 10, right=True, sort=lambda: found.threshold, descending=True),
        Column("images", 7, right=True, sort=lambda: images, descending=True),
    )
    if with_layer:
        columns = (layer_column, *columns)
    go = _GO_BEFORE_EVIDENCE if evidence else _GO
    columns = tuple(replace(c, drop=len(go) - go.index(c.title) if c.title in go else 0) for c in columns)
    return Listing(
        name="units",
        subject=subject,
        columns=columns,
        count=len(found.unit),
        cells=cells,
        item=lambda row: Item("unit", found.names[found.layer[row]], int(found.unit[row])),
        fields=fields,
        empty=empty,
        order=Order(4 if with_layer else 3, descending=True),
        faint=lambda row: bool(found.iou[row] <= DETECTOR_IOU),
        plain=plain,
        copied=copied,
        notes=(*marks([session.view(name) for name in found.names]), *((_EVIDENCE,) if evidence else ()), _IMAGES),
    )


def _evidence_columns(known: Mapping[str, npt.NDArray[np.float64]]) -> list[tuple[Column, Callable[[int], str]]]:
    """The columns of what is known of the labels, the most telling first, each with the cell of a row."""
    found: list[tuple[Column, Callable[[int], str]]] = []

    def add(name: str, title: str, width: int, shown: Callable[[int], str], *, descending: bool = True) -> None:
        if name in known:
            sort = known[name]
            found.append((Column(title, width, right=True, sort=lambda: sort, descending=descending), shown))

    add("iou_low", "interval", 11, lambda row: interval(known["iou_low"][row], known["iou_high"][row]))
    add("q", "q", 6, lambda row: chance(known["q"][row]), descending=False)
    add("heldout_iou", "held-out", 8, lambda row: share(known["heldout_iou"][row]))
    add("stability", "stability", 9, lambda row: share(known["stability"][row]))
    add("auprc", "AUPRC", 5, lambda row: share(known["auprc"][row]))
    return found
