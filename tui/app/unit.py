"""The Unit table: the best concept of every category, the evidence for the label, the top images, the runners-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from ndissect.store.limits import PAGE_PIXELS
from ndissect.tui.app.listing import NOTHING, Bar, Cell, Column, Item, Listing
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.pictures.glyphs import FULL_IOU
from ndissect.tui.tables import concept_effects
from ndissect.tui.tables.evidence import sentences
from ndissect.tui.tables.formats import interval, share, signed, with_iou
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.views import concept_json

#: How many concepts are listed beside the best of each category.
RUNNERS_UP = 12
if TYPE_CHECKING:
    from ndissect.tui.app.unit_classes import ClassLine

# The columns of counts, one heading for each part of the table.
_COUNTS = ("both", "mask", "concept")


@dataclass(frozen=True)
class _Row:
    """A concept, an image, a sentence, or a heading of titles only."""

    cells: tuple[Cell, ...]
    heading: bool = False
    item: Item = NOTHING
    plain: Mapping[str, Any] = field(default_factory=dict)


def unit_listing(session: Session, layer: str, unit: int) -> Listing:
    """The best concepts of ``layer``:``unit`` with the counts behind their IoU, its top images, other concepts.

    Where the store tells how far the label can be trusted, that stands between concepts and images, in sentences; so do
    the classes that need the unit most.
    Of an image the same columns tell the peak activation, and of the unit's label within that image the pixels in
    both, in the mask, and with the label.
    """
    best, others = _concept_rows(session, layer, unit)
    told = [*_evidence_rows(session, layer, unit), *_class_rows(session, layer, unit)]
    told += [*_drawn_rows(session, layer, unit), *_coefficient_rows(session, layer, unit)]
    rows = [*best, *told, *_image_rows(session, layer, unit), *others]

    def copied(i: int) -> str:
        return "\t".join([f"{layer}:{unit}", *(c for c in rows[i].cells if isinstance(c, str))])

    def fields() -> Fields:
        return Fields(
            words=(texts([str(row.cells[0]) for row in rows]),),
            numbers={name: np.array([row.plain.get(name, np.nan) for row in rows]) for name in ("iou", "peak")},
            choices={"cat": texts([row.plain.get("category", "") for row in rows])},
        )

    def widest(column: int, title: str) -> int:
        cells = (row.cells[column] for row in rows if len(row.cells) > 1)
        return max(cell_len(cell) for cell in (title, *cells) if isinstance(cell, str))

    first = "best by category"
    return Listing(
        name="unit",
        subject=f"{layer}:{unit}",
        columns=(
            Column(first, 14, grows=True, most=widest(0, first)),
            Column("category", 8, drop=1),
            Column("IoU", 6, right=True),
            Column("", 8, drop=2, bar=True),
            *(Column(title, widest(i, title), right=True, drop=i - 1) for i, title in enumerate(_COUNTS, 4)),
        ),
        count=len(rows),
        cells=lambda i: rows[i].cells,
        item=lambda i: rows[i].item,
        fields=fields,
        empty="no concept has an IoU above 0 with this unit",
        headings=frozenset(i for i, row in enumerate(rows) if row.heading),
        plain=lambda i: rows[i].plain,
        copied=copied,
        notes=(*layer_notes([session.view(layer)]), _told(session, layer, unit)),
    )


def _told(session: Session, layer: str, unit: int) -> str:
    """The unit in one line: label, IoU, threshold, and what is odd about it."""
    view = session.view(layer)
    label, value = view.labels
    s = view.statistics
    known = not np.isnan(s.threshold[unit])
    said = [f"threshold {s.threshold[unit]:.4g}"] if known else []
    if s.dead[unit]:
        said.append("dead: constant or never above zero")
    elif label[unit] >= 0:
        images = int(session.concept_images[label[unit]])
        named = with_iou(session.labels[label[unit]], float(value[unit]))
        said.append(named + (f" in {images} images" if images > 0 else ""))
    odd = int(s.nan[unit]) + int(s.inf[unit])
    if odd:
        said.append(f"{odd} activations are NaN or infinite")
    return "  ".join(said)


def _concept_rows(session: Session, layer: str, unit: int) -> tuple[list[_Row], list[_Row]]:
    """The best concept of each category, and the next ones, each below a heading."""
    view = session.view(layer)
    value, intersection, area = view.unit_ious(unit)
    concept_area = view.concept_counts.area.sum(0)
    concepts = session.store.concepts
    best = [int(row) for row in view.best.concept[unit]]
    by_category = [best[concepts.categories.index(c)] for c in session.categories]
    named = sorted((row for row in by_category if row >= 0), key=lambda row: -value[row])
    shown = set(named)
    order = np.argsort(-value, kind="stable")[: RUNNERS_UP + len(named)]
    others = [int(row) for row in order if value[row] > 0 and row not in shown][:RUNNERS_UP]

    def one(row: int) -> _Row:
        plain = concept_json(concepts, row, value[row], intersection[row], area[row], concept_area[row])
        counted = [plain[n] for n in ("intersection", "area", "concept_area")]
        counts = ("?" if n is None else f"{n:,}" for n in counted)
        return _Row(
            cells=(plain["concept"], plain["category"], f"{plain['iou']:.4f}", Bar(plain["iou"] / FULL_IOU), *counts),
            item=Item("concept", layer, concept=int(concepts.number[row])),
            plain=plain,
        )

    best_rows = [one(row) for row in named]
    heading = _heading("next concepts", "", "IoU", "", *_COUNTS)
    return best_rows, [heading, *map(one, others)] if others else []


def _heading(*cells: str) -> _Row:
    return _Row(cells, heading=True)


def _evidence_rows(session: Session, layer: str, unit: int) -> list[_Row]:
    view = session.view(layer)
    said = sentences(view, unit)
    heading = [_heading(f"evidence for {session.labels[view.labels[0][unit]]}")] if said else []
    items = [Item("none", layer, unit, name=f"evidence {i}") for i in range(len(said))]
    return heading + [_Row((s,), item=item, plain={"evidence": s}) for s, item in zip(said, items, strict=True)]


def _class_rows(session: Session, layer: str, unit: int) -> list[_Row]:
    """The classes that need the unit most, and those that it speaks for and against; `a` shows them all."""
    if session.class_effects(layer) is None:
        return []
    from ndissect.tui.app.unit_classes import unit_lines  # noqa: PLC0415 - few stores tell of classes

    lines = unit_lines(session, layer, unit)
    if not lines:
        return []
    measured = any(line.output >= 0 for line in lines)
    titles = ("classes", "", "change", "", "low", "high", "recall") if measured else ("classes",)
    return [_heading(*titles), *(_class_row(layer, unit, line) for line in lines)]


def _class_row(layer: str, unit: int, line: ClassLine) -> _Row:
    item = Item("none", layer, unit, name=str(line.cells[0]))
    if line.output >= 0:
        item = Item("class", layer, unit, output=line.output)
    return _Row(line.cells, item=item, plain=line.plain)


def _drawn_rows(session: Session, layer: str, unit: int) -> list[_Row]:
    """The concepts whose share of a generator's pictures changes most without the unit."""
    changed = concept_effects.concepts_of_unit(session.view(layer), unit, concept_effects.NAMED)
    if changed is None:
        return []
    rows = [_heading("without this unit", "category", "change", "", "before", "after", "95 %")]
    for c in changed:
        cells = (c["concept"], c["category"], signed(c["change"]), "", share(c["before"]), share(c["after"]))
        item = Item("concept", layer, unit, c["concept_number"], "without")
        rows.append(_Row((*cells, interval(c["low"], c["high"])), item=item, plain=c))
    return rows if changed else [*rows, _Row(("no concept changes",), item=Item("none", layer, unit, name="drawn"))]


def _coefficient_rows(session: Session, layer: str, unit: int) -> list[_Row]:
    """The unit's learned coefficients beside its IoUs."""
    known = concept_effects.coefficients_of_unit(session.view(layer), unit)
    rows = [_heading("learned coefficients, no effects", "category", "IoU", "", "coefficient", "", "")] if known else []
    for c in known:
        cells = (
            c["concept"],
            c["category"],
            f"{c['iou']:.4f}",
            Bar(c["iou"] / FULL_IOU),
            share(c["coefficient"]),
            "",
            "",
        )
        item = Item("concept", layer, unit, c["concept_number"], "coefficient")
        rows.append(_Row(cells, item=item, plain=c))
    return rows


def _image_rows(session: Session, layer: str, unit: int) -> list[_Row]:
    view = session.view(layer)
    if not view.has_top:
        return [_heading("no top images in this store")]
    top, store = view.top(unit), session.store
    row = int(view.labels[0][unit])
    number = int(store.concepts.number[row]) if row >= 0 else 0
    highest = float(np.nanmax(top.peak, initial=0)) or 1.0
    rows = [_heading("top images", "split", "peak", "", "both", "mask", "label")]
    pixels = 0
    for rank, (image_row, peak, values) in enumerate(zip(top.image.tolist(), top.peak, top.maps, strict=True)):
        name, split, counts = store.images.name(image_row), store.images.split(image_row), None
        if pixels < PAGE_PIXELS:
            mask, image = view.mask(unit, values), store.images.read(image_row)
            truth: npt.NDArray[np.bool_] = image.truth(number, mask.shape) if number else np.zeros_like(mask)
            counts = (int((mask & truth).sum()), int(mask.sum()), int(truth.sum()))
            pixels += mask.size + image.label_maps.size
        told = [f"{n:,}" for n in counts] if counts else [""] * 3
        known = dict(zip(("intersection", "area", "label_area"), counts or (None,) * 3, strict=True))
        rows.append(
            _Row(
                cells=(name, split, f"{peak:.4g}", Bar(float(peak) / highest), *told),
                item=Item("image", layer, unit, name=str(rank)),
                plain={"image": name, "split": split, "peak": float(peak), **known},
            )
        )
    return rows
