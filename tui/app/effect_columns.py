"""Columns of units that tell what the units do to the network's classes, and what filters know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ndissect.tui.app.query import ClassFields
from ndissect.tui.app.session import Session
from ndissect.tui.tables.columns import Medium, UnitColumn
from ndissect.tui.tables.formats import signed
from ndissect.tui.tables.units import Array, Units

if TYPE_CHECKING:
    from ndissect.tui.app.effects import ClassEffects

_HERE = Medium.BROWSE
_WORST = "effect: change of the balanced accuracy of the class that the unit's absence hurts most"


def worst_effect(units: Units, with_layer: bool) -> list[UnitColumn]:
    """How far each unit, taken away, hurts the class that needs it most, and which class that is.

    No columns where no layer of ``units`` has effects.
    """
    known = {column.key: column for column in units.shown(Medium.JSON)}
    if "effect" not in known:
        return []
    effect, needed_by = known["effect"], known["needed_by"]
    # Beside the name of the layer it goes first: the name tells which unit it is.
    drop = 6 if with_layer else 3
    return [
        replace(effect, heading="effect", width=7, drop=drop, note=_WORST, evidence=False),
        replace(needed_by, width=14, drop=8, short=lambda name: name or "-", evidence=False),
    ]


def effects_on(session: Session, units: Units, output: int) -> list[UnitColumn]:
    """What each unit does to the class ``output``: changes without it, with an interval, and how much it speaks for it.

    No column for what is known of no unit.
    """
    known = _known(session, units)

    measured = {name: some for name, some in known.items() if some.effects is not None}

    def column(
        key: str, of: Callable[[ClassEffects], Array], *, drop: int, heading: str | None = None, word: str = ""
    ) -> UnitColumn:
        those = known if key == "speaks" else measured
        return UnitColumn(
            key, lambda units: _gathered(units, those, lambda some: of(some)[:, output], np.nan), heading=heading,
            where=_HERE, word=word, falling=key == "speaks", text=signed, width=7, drop=drop,
        )  # fmt: skip

    changes = [
        column("change", lambda some: some.change, drop=0, word="effect"),
        column("change_low", lambda some: some.low, drop=1, heading="low"),
        column("change_high", lambda some: some.high, drop=1, heading="high"),
        column("recall_change", lambda some: some.recall, drop=2, heading="recall"),
        column("score_change", lambda some: some.score, drop=4, heading="score"),
    ]
    heads = [column("speaks", lambda some: some.speaks, drop=3, heading="speaks")]
    return [
        *(changes if measured else ()),
        *(heads if any(some.head is not None for some in known.values()) else ()),
    ]


def class_fields(session: Session, units: Units) -> ClassFields | None:
    """What filters know of ``units`` and classes; None where the store tells nothing of either."""
    known = _known(session, units)
    if not known:
        return None

    measured = {name: some for name, some in known.items() if some.effects is not None}

    def effect(classes: Sequence[int]) -> Array:
        nothing = np.full((1, len(classes)), np.nan)
        return _gathered(units, measured, lambda some: some.change[:, classes], nothing)

    def tied(classes: Sequence[int]) -> Array:
        nothing = np.zeros((1, len(classes)), bool)
        return _gathered(units, known, lambda some: some.tied[:, classes], nothing)

    return ClassFields(session.classes, effect, tied)


def _known(session: Session, units: Units) -> dict[str, ClassEffects]:
    """What the store tells of the classes, by the name of the layer."""
    told = ((view.name, session.class_effects(view.name)) for view in units.views)
    return {name: some for name, some in told if some is not None}


def _gathered(
    units: Units, known: dict[str, ClassEffects], of: Callable[[ClassEffects], Array], nothing: float | Array
) -> Array:
    """A value of ``of`` for each of ``units``; ``nothing`` for those of a layer of which nothing is known."""

    def values(name: str, count: int) -> Array:
        return of(known[name]) if name in known else np.repeat(np.atleast_1d(nothing), count, axis=0)

    return units.gather(lambda view: values(view.name, view.units))
