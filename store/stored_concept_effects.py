"""Effects on concepts, coefficients and their pictures in a store: what is read is checked against what is known."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ndissect.store import limits, parts
from ndissect.store.concept_effects import ConceptEffects, EffectPictures
from ndissect.store.hdf5 import Axis, Checked
from ndissect.store.scores import Floats
from ndissect.store.stored_group import StoredGroup


def read_ious(layer: Checked, lengths: Mapping[str, Axis]) -> Floats | None:
    """(U, C) IoUs that were given without counts; None where there are none."""
    if not layer.has(parts.IOUS.name):
        return None
    g = StoredGroup.inside(layer, parts.IOUS, lengths)
    units, concepts = g.measure("iou")
    g.checked.demand("iou", units * concepts, limits.CONCEPT_EFFECTS)
    return g.shares("iou", unknown=False)


def read_concept_effects(
    layer: Checked, units: int, concepts: int, lengths: Mapping[str, Axis]
) -> ConceptEffects | None:
    """What the ``units`` of a layer do to the ``concepts`` of the store; None where nothing is told of it."""
    if not layer.has(parts.CONCEPT_EFFECTS.name):
        return None
    g = StoredGroup.inside(layer, parts.CONCEPT_EFFECTS, lengths)
    for name in ("after", "coefficient"):
        rows, across = g.measure(name)
        g.checked.demand(name, rows * across, limits.CONCEPT_EFFECTS)
    coefficient_concepts = g.rows("coefficient_concept", concepts, least=0)
    if len(set(coefficient_concepts.tolist())) < len(coefficient_concepts):
        raise g.broken("coefficient_concept", "names a concept twice")
    low, high = (np.where(np.isinf(values), np.nan, values) for values in (g.read("low"), g.read("high")))
    if (low > high).any():
        raise g.broken("low", "is above its upper end")
    return ConceptEffects(
        units=_rising(g, units),
        before=g.shares("before", unknown=True),
        after=g.shares("after", unknown=True),
        low=low,
        high=high,
        samples=int(g.counts("samples")),
        how=g.sentence("how"),
        coefficients=g.shares("coefficient", unknown=False),
        coefficient_concepts=coefficient_concepts,
    )


def read_effect_pictures(layer: Checked, units: int) -> EffectPictures | None:
    """All pictures of samples without a unit; None where there are none."""
    if not layer.has(parts.EFFECT_PICTURES.name):
        return None
    g = StoredGroup.inside(layer, parts.EFFECT_PICTURES)
    pictured = _pictured(g, units)
    return EffectPictures(pictured, tuple(_pair(g, row) for row in range(len(pictured))))


def read_effect_pair(layer: Checked, units: int, unit: int) -> tuple[bytes, bytes] | None:
    """A sample as it is and without ``unit``, two JPEG files; None where the store has none of it."""
    if not layer.has(parts.EFFECT_PICTURES.name):
        return None
    g = StoredGroup.inside(layer, parts.EFFECT_PICTURES)
    rows = np.flatnonzero(_pictured(g, units) == unit)
    return _pair(g, int(rows[0])) if len(rows) else None


def _pictured(g: StoredGroup, units: int) -> npt.NDArray[np.int32]:
    g.measure("unit")
    return _rising(g, units)


def _rising(g: StoredGroup, units: int) -> npt.NDArray[np.int32]:
    unit = g.rows("unit", units, least=0)
    if (np.diff(unit) <= 0).any():
        raise g.broken("unit", "is not in rising order")
    return unit


def _pair(g: StoredGroup, row: int) -> tuple[bytes, bytes]:
    """What should be two JPEG files (ndissect.store.jpeg looks)."""
    ends = g.counts("picture_end", at=slice(max(row - 1, 0), row + 1))
    bounds = [int(ends[0, 1]) if row else 0, *ends[-1].tolist()]
    size = g.dataset("pictures").shape[0]
    if sorted(bounds) != bounds or bounds[-1] > size:
        raise g.broken("picture_end", f"points outside the pictures in row {row}")
    pictures = []
    for start, end in pairwise(bounds):
        g.checked.demand("pictures", end - start, limits.THUMBNAIL)
        pictures.append(g.read("pictures", at=slice(start, end)).tobytes())
    return pictures[0], pictures[1]
