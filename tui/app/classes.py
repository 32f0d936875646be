"""The Classes table: every output of the network with the units that it needs most; and the units of one class."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from ndissect.tui.app.effect_columns import effects_on
from ndissect.tui.app.effects import ClassEffects, before, notes
from ndissect.tui.app.listing import Cell, Column, Item, Listing, Order
from ndissect.tui.app.query import Fields, texts
from ndissect.tui.app.session import Session
from ndissect.tui.app.units import units_listing
from ndissect.tui.tables.columns import Medium, UnitColumn, columns_of
from ndissect.tui.tables.doubts import doubted
from ndissect.tui.tables.formats import share, signed
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.units import Units

# Units that the row of a class names.
_NAMED = 3
# Cells that the name of a class takes at most.
_LONGEST = 24
_UNSURE = "?: a label that is not to be trusted; the page of the unit says why"
_COLUMNS = "effect: without the unit that hurts most; units: how many it needs, their intervals below 0"
# Of the columns of units those that stand beside effects on a class, with the order in which they go.
_BESIDE = {"layer": 0, "unit": 0, "label": 0, "category": 7, "iou": 0, "interval": 9, "q": 5}


def classes_listing(session: Session) -> Listing:
    """One row a class: images, balanced accuracy and recall before, how far one unit hurts it, how many units it needs,
    and which most; without effects, the units that speak for it most.

    Units are those of all layers of which the store tells it; images and accuracy those of the last of them.
    """
    names = session.classes
    K = len(names)
    known = _layers_with_effects(session)
    told = next((some.effects for some in reversed(known) if some.effects is not None), None)
    images, accuracy, recall = before(told) if told else (np.full(K, np.nan),) * 3
    ablated = [some for some in known if some.effects is not None]
    needed = sum((some.needs.sum(0) for some in ablated), np.zeros(K, np.int64))
    of = f" of {known[0].layer}" if len(known) == 1 else ""

    @cache
    def first(k: int) -> list[str]:
        return [
            f"{some.layer}:{u} {_label(session, some, u)} {signed(some.strength(u, k))}"
            for some, u in _first_units(known, k)
        ]

    worst, said = _worst(ablated, K), _notes(session, known)

    def shown(k: int) -> str:
        return "  ".join(text.removeprefix(f"{known[0].layer}:") if of else text for text in first(k))

    def cells(k: int) -> list[Cell]:
        return [
            names[k],
            "-" if np.isnan(images[k]) else f"{images[k]:.0f}",
            share(accuracy[k]),
            share(recall[k]),
            signed(worst[k]),
            str(needed[k]) if ablated else "-",
            shown(k),
        ]

    def plain(k: int) -> dict[str, Any]:
        return {
            "class": names[k],
            "number": k,
            "images": int(images[k]) if told else None,
            "balanced_accuracy": float(accuracy[k]),
            "recall": float(recall[k]),
            "worst_change": float(worst[k]),
            "units_needed": int(needed[k]) if ablated else None,
            "most": "; ".join(first(k)),
        }

    def fields() -> Fields:
        return Fields(
            words=(texts([f"{name}\n{'  '.join(first(k))}" for k, name in enumerate(names)]),),
            numbers={
                "images": images,
                "effect": worst,
                "units": needed.astype(np.float64),
            },
        )

    alphabet = np.argsort(np.argsort(np.array([name.casefold() for name in names], object), kind="stable"))
    return Listing(
        name="classes",
        subject="",
        columns=(
            Column("class", min(max(map(cell_len, names), default=0), _LONGEST), sort=lambda: alphabet),
            Column("images", 6, right=True, drop=5, sort=lambda: images, descending=True),
            Column("bal acc", 7, right=True, drop=3, sort=lambda: accuracy, descending=True),
            Column("recall", 6, right=True, drop=4, sort=lambda: recall, descending=True),
            Column("effect", 7, right=True, drop=1, sort=lambda: worst),
            Column("units", 5, right=True, drop=2, sort=lambda: needed, descending=True),
            Column(f"{'needs most' if ablated else 'spoken for by'}{of}", 22, cut_end=True, grows=True),
        ),
        count=K,
        cells=cells,
        item=lambda k: Item("class", output=k),
        fields=fields,
        empty=session.how_to_get_effects(),
        order=Order(4) if ablated else Order(),
        faint=lambda k: bool(ablated) and not needed[k],
        plain=plain,
        copied=lambda k: "\t".join([names[k], share(accuracy[k]), signed(worst[k]), *first(k)]),
        notes=(
            *layer_notes([session.view(some.layer) for some in known]),
            *said[:1],
            *([_COLUMNS] if told else []),
            _UNSURE,
            *said[1:],
        ),
    )


def class_units(session: Session, output: int) -> Listing:
    """The units of all layers of which the store tells what they do to the class ``output``, the most needed first."""
    known = _layers_with_effects(session)
    units = Units(session.store, [session.view(some.layer) for some in known])
    units = units.only(_ranks(known, output))
    effects = effects_on(session, units, output)
    beside = [_beside(column) for column in units.shown(Medium.BROWSE) if column.key in _BESIDE]
    return units_listing(
        session,
        f"class {output}",
        units,
        [*(column for column in beside if column.key not in ("interval", "q")), *effects,
         *(column for column in beside if column.key in ("q", "interval"))],
        [columns_of(Medium.BROWSE)[0], *units.shown(Medium.JSON), *effects],
        order=Order(),
        empty=session.how_to_get_effects(),
        notes=_notes(session, known),
    )  # fmt: skip


def _beside(column: UnitColumn) -> UnitColumn:
    return replace(column, drop=_BESIDE[column.key], drop_alone=None)


def _layers_with_effects(session: Session) -> list[ClassEffects]:
    """What the store tells of classes, by layer; layers with effects alone where any has them."""
    known = [some for view in session.views if (some := session.class_effects(view.name)) is not None]
    return [some for some in known if some.effects is not None] or known


def _ranks(known: list[ClassEffects], k: int) -> npt.NDArray[np.intp]:
    """The units of these layers, counted through all, those first that class ``k`` needs most."""
    change, score = (np.concatenate([some.rank[i][:, k] for some in known] or [np.zeros(0)]) for i in (0, 1))
    return np.lexsort((score, change))


def _first_units(known: list[ClassEffects], k: int) -> list[tuple[ClassEffects, int]]:
    """The units that class ``k`` needs most, or without effects those that speak for it most, of all layers."""
    of = [(some, u) for some in known for u in range(some.units)]
    ranked = (of[i] for i in _ranks(known, k)[:_NAMED])
    return [(some, u) for some, u in ranked if some.rank[0][u, k] < 0]


def _worst(known: list[ClassEffects], K: int) -> npt.NDArray[np.float64]:
    """(K,): the change of each class without the unit, of all layers, that it needs most; NaN where none is known."""
    if not any(some.units for some in known):
        return np.full(K, np.nan)
    change, score, told = (np.concatenate(x) for x in zip(*((*some.rank, some.change) for some in known), strict=True))
    lowest = change == change.min(0, keepdims=True)
    first = np.where(lowest, score, np.inf).argmin(0)
    return np.asarray(told[first, np.arange(K)])


def _label(session: Session, some: ClassEffects, unit: int) -> str:
    """The unit's label, with a question mark where it is not to be trusted."""
    return doubted(session.labels[session.view(some.layer).labels[0][unit]], some.doubts[unit])


def _notes(session: Session, known: list[ClassEffects]) -> list[str]:
    """What is to be known of the numbers; where there are none but a head's, how to get them."""
    more = [] if any(some.effects is not None for some in known) or not known else [session.how_to_get_effects()]
    return [*notes([session.view(some.layer) for some in known]), *more] if known else []
