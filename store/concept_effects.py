"""What the units of a generator do to the concepts that are seen in its pictures, and coefficients that were learned.

Bau et al., PNAS 2020 and ICLR 2019; docs/method.md. An effect is measured: a unit is set to zero, the pictures are made
again and labelled again. A coefficient is learned: how strongly each unit takes part in a set of units that was
optimised for a concept. The two are different numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.counts import Ints
from ndissect.store.scores import Floats

# Shares of pixels are means of floats: the same samples measured twice may differ by so much.
_SAME_SHARE = 1e-9


def _empty(*shape: int) -> Callable[[], Floats]:
    return lambda: np.zeros(shape)


def _no_rows() -> npt.NDArray[np.int32]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True)
class ConceptEffects:
    """A units of one layer that were each set to zero alone, and learned coefficients of all U units for R concepts.

    C are all concepts of the store. ``units`` (A,) int32, rising, each once. ``before`` (C,) float64: the mean share of
    pixels of each concept in the unedited samples, NaN where it was not measured; ``after`` (A, C) float64: the same
    without the unit; ``low``, ``high`` (A, C) float64: a 95 % interval of ``after`` by the paired change of the
    samples, NaN where unknown. ``samples``: how many were measured. ``how``: one sentence that says how.

    ``coefficients`` (R, U) float64 between 0 and 1, learned for the concepts ``coefficient_concepts`` (R,) int32, rows
    of the store's concepts, each once. Either part may be empty.
    """

    units: npt.NDArray[np.int32]
    before: Floats
    after: Floats
    low: Floats
    high: Floats
    samples: int
    how: str
    coefficients: Floats = field(default_factory=_empty(0, 0))
    coefficient_concepts: npt.NDArray[np.int32] = field(default_factory=_no_rows)

    @property
    def change(self) -> Floats:
        """(A, C): the share of pixels without the unit less that with it: below 0 where the unit draws the concept."""
        return self.after - self.before

    def numbered(self, unit: int) -> int | None:
        """The row of ``unit``; None where it was not set to zero alone."""
        return next(iter(np.flatnonzero(self.units == unit).tolist()), None)

    def coefficients_of(self, concept: int) -> Floats | None:
        """(U,): the coefficients that were learned for the concept at this row; None where there are none."""
        rows = np.flatnonzero(self.coefficient_concepts == concept)
        return self.coefficients[rows[0]] if len(rows) else None


@dataclass(frozen=True)
class EffectPictures:
    """Samples as they are and without a unit: ``units`` (P,) int32, rising; ``pairs``: of each the two JPEG files."""

    units: npt.NDArray[np.int32]
    pairs: tuple[tuple[bytes, bytes], ...]


def learned(coefficients: Floats, concepts: npt.NDArray[np.int32], known: int, how: str) -> ConceptEffects:
    """Coefficients (R, U) of these ``concepts`` alone, of a store of ``known`` concepts; nothing was measured."""
    nothing = np.zeros((0, known))
    return ConceptEffects(_no_rows(), np.full(known, np.nan), nothing, nothing, nothing, 0, how, coefficients, concepts)


def comparable(old: ConceptEffects, new: ConceptEffects) -> bool:
    """Whether units of both can stand side by side: they were measured on the same samples in the same way.

    So it is, too, where one of them measured nothing.
    """
    if not len(old.units) or not len(new.units):
        return True
    same = np.allclose(old.before, new.before, rtol=0, atol=_SAME_SHARE, equal_nan=True)
    return bool(same) and old.samples == new.samples and old.how == new.how


def merged(old: ConceptEffects, new: ConceptEffects) -> ConceptEffects:
    """``new``, with the units of ``old`` that are not among its own where both are :func:`comparable`, and with the
    coefficients of ``old`` for other concepts."""
    other = ~np.isin(old.coefficient_concepts, new.coefficient_concepts)
    parts = [(e.coefficients[rows], e.coefficient_concepts[rows]) for e, rows in ((old, other), (new, ...)) if _any(e)]
    joined = new
    if parts:
        values, concepts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        joined = replace(joined, coefficients=values, coefficient_concepts=concepts)
    if not comparable(old, new) or not len(old.units):
        return joined
    if not len(new.units):
        measured = {name: getattr(old, name) for name in ("units", "before", "after", "low", "high", "samples", "how")}
        return replace(joined, **measured)
    stay = ~np.isin(old.units, new.units)
    units = np.concatenate([old.units[stay], new.units])
    order = np.argsort(units, kind="stable")
    rows: dict[str, Any] = {
        name: np.concatenate([getattr(old, name)[stay], getattr(new, name)])[order] for name in ("after", "low", "high")
    }
    return replace(joined, units=units[order], **rows)


def _any(effects: ConceptEffects) -> bool:
    return bool(len(effects.coefficient_concepts))


def merged_pictures(old: EffectPictures | None, new: EffectPictures) -> EffectPictures:
    """``new``, with the pictures of ``old`` of other units."""
    pairs = dict(zip(old.units.tolist(), old.pairs, strict=True)) if old else {}
    pairs |= dict(zip(new.units.tolist(), new.pairs, strict=True))
    units = sorted(pairs)
    return EffectPictures(np.array(units, np.int32), tuple(pairs[unit] for unit in units))


def in_order(effects: ConceptEffects) -> ConceptEffects:
    """The same with its units rising."""
    order: Ints = np.argsort(effects.units, kind="stable")
    rows: dict[str, Any] = {name: getattr(effects, name)[order] for name in ("units", "after", "low", "high")}
    return replace(effects, **rows)
