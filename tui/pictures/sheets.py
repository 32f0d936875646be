"""A unit's contact sheet, rendered from the store alone: no torch, no data set."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.jpeg import check_thumbnail
from ndissect.store.layer_view import LayerView
from ndissect.store.names import quoted
from ndissect.tui.pictures.headed_sheet import PAPER
from ndissect.tui.pictures.overlay import Panel, contact_sheet
from ndissect.tui.tables.concept_effects import effects_notes, unit_sentences
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.selection import match_concepts
from ndissect.tui.tables.units import unit_json

# Pixels of the longer edge of a picture with or without a unit.
_EFFECT_SIDE = 256


@dataclass(frozen=True)
class Sheet:
    """A drawn contact sheet and what it is called."""

    image: Image.Image
    title: str


def unit_sheet(
    view: LayerView, unit: int, *, images: int = 10, truth: bool = False, concept: str | None = None
) -> Sheet:
    """The top ``images`` of ``unit`` with its masks; with ``truth``, beside each where the label really is.

    ``concept`` shows another concept's truth than the label's. NDError where the store holds no images.
    """
    row = _truth_row(view, unit, concept) if truth else None
    panels = unit_panels(view, unit, images=images, concept=row)
    one = unit_json(view, unit)
    label = "dead" if one["dead"] else one["label"] or "no label"
    title = f"{view.name}  unit {unit}  {label}"
    if one["label"]:
        title += f" ({one['category']})  IoU {one['iou']:.3f}"
    subtitle = f"mask: activation > {one['threshold']:.4g}, {view.store.protocol.describe()}"
    if row is not None:
        subtitle = f"truth: {view.store.concepts.label(row)}.  {subtitle}"
    subtitle = "\n".join([*layer_notes([view]), subtitle])
    return Sheet(contact_sheet(panels, title, subtitle, columns=3 if row is not None else 5), title)


def effect_sheet(view: LayerView, unit: int) -> Sheet:
    """A sample of a generator with ``unit`` and the same without it, side by side.

    NDError where the store has no such pictures of the unit.
    """
    pair = view.effect_pictures(unit)
    if pair is None:
        raise NDError(
            f"{view.store.path} holds no pictures of what {view.name}:{unit} draws",
            f"nd ablate {quoted(view.name, positional=True)} measures units of a generator, and keeps pictures",
        )
    label = int(view.labels[0][unit])
    name = view.store.concepts.label(label) if label >= 0 else "no label"
    panels = []
    for jpeg, caption in zip(pair, ("with the unit", "without it"), strict=True):
        picture = _decode(view, jpeg)
        panels.append(Panel(picture, np.ones(picture.shape[:2], bool), None, caption))
    title = f"{view.name}  without unit {unit}  {name}"
    subtitle = "\n".join([*layer_notes([view]), *unit_sentences(view, unit), *effects_notes([view])])
    return Sheet(contact_sheet(panels, title, subtitle, columns=2, side=_EFFECT_SIDE), title)


def with_effect(sheet: Sheet, view: LayerView, unit: int) -> Sheet:
    """``sheet``, with the pictures of :func:`effect_sheet` below it where the store has them."""
    if view.effect_pictures(unit) is None:
        return sheet
    below = effect_sheet(view, unit).image
    size = (max(sheet.image.width, below.width), sheet.image.height + below.height)
    both = Image.new("RGB", size, PAPER)
    both.paste(sheet.image, (0, 0))
    both.paste(below, (0, sheet.image.height))
    return Sheet(both, sheet.title)


def unit_panels(view: LayerView, unit: int, *, images: int = 10, concept: int | None = None) -> list[Panel]:
    """The top ``images`` of ``unit`` with its masks and, where the row of a ``concept`` is given, with its truth."""
    top, store = view.top(unit, images), view.store
    number = None if concept is None else int(store.concepts.number[concept])
    panels = []
    for row, peak, values in zip(top.image.tolist(), top.peak, top.maps, strict=True):
        mask, picture = view.mask(unit, values), _decode(view, store.images.thumbnail(row))
        there = None if number is None else store.images.read(row).truth(number, mask.shape)
        panels.append(Panel(picture, mask, there, f"{peak:.3g}  {store.images.name(row)}"))
    return panels


def _truth_row(view: LayerView, unit: int, concept: str | None) -> int:
    concepts = view.store.concepts
    if concept is not None:
        rows = match_concepts(concepts, concept)
        if len(rows) != 1:
            few = ", ".join(concepts.label(int(r)) for r in rows[:6])
            raise WrongUse(f"--concept '{concept}' matches {len(rows)} concepts: {few}", "nd concepts lists them")
        return int(rows[0])
    row = int(view.labels[0][unit])
    if row < 0:
        raise WrongUse(f"{view.name}:{unit} has no label whose truth could be shown", "name one with --concept")
    return row


def _decode(view: LayerView, jpeg: bytes) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(check_thumbnail(jpeg)), formats=["JPEG"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as e:
        raise NDError(
            f"{view.store.path} is damaged: a thumbnail is no small JPEG ({e})", "copy the store again"
        ) from e
