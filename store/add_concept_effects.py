"""Putting what a generator's units do to concepts into a store that is there: atomically, all else as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store import parts
from ndissect.store.concept_effects import (
    ConceptEffects,
    EffectPictures,
    comparable,
    in_order,
    merged,
    merged_pictures,
)
from ndissect.store.disk import Disk
from ndissect.store.hdf5 import member_name
from ndissect.store.jpeg import check_thumbnail
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.rewriting import copied, rewrite
from ndissect.store.writer import check_concept_effects, write_concept_effects, write_effect_pictures

_Plan = tuple[ConceptEffects, EffectPictures | None, ConceptEffects | None]


def add_concept_effects(
    path: Path, layer: str, effects: ConceptEffects, pictures: EffectPictures | None = None
) -> ConceptEffects | None:
    """Write ``effects`` of ``layer`` into the store ``path``, beside those that it holds.

    Units that it holds stay where they were measured on the same samples in the same way, but for those that are
    measured anew (see :func:`ndissect.store.concept_effects.merged`); else they go with their pictures, and what was
    there is returned. Coefficients for other concepts and pictures of other units stay. The file is replaced as a
    whole or not at all. WrongUse for a store without the layer, and beyond its limits; ValueError for arrays of wrong
    shapes, shares beyond 0 to 1, and pictures that a store does not take; NDError as for
    ndissect.store.writer.write_store.
    """

    def plan(store: Store) -> _Plan:
        return _joined(store.layer(layer), effects, pictures)

    def write(disk: Disk, planned: _Plan) -> None:
        _write(path, disk, layer, *planned[:2])

    return rewrite(path, plan, write)[2]


def _joined(view: LayerView, effects: ConceptEffects, pictures: EffectPictures | None) -> _Plan:
    """The effects and pictures of the layer as they are to be, and what cannot stay beside them."""
    given = _checked(view, effects)
    known = view.concept_effects
    joined = given if known is None else merged(known, given)
    check_concept_effects(joined)
    gone = known if known is not None and not comparable(known, given) else None
    there = None if gone is not None else view.all_effect_pictures()
    if pictures is None:
        return joined, there, gone
    bare = tuple((check_thumbnail(before), check_thumbnail(after)) for before, after in pictures.pairs)
    for unit in pictures.units.tolist():
        view.check_unit(unit)
    return joined, merged_pictures(there, EffectPictures(pictures.units, bare)), gone


def _checked(view: LayerView, effects: ConceptEffects) -> ConceptEffects:
    """``effects`` with units rising and shares that rounding put beyond 0 to 1 put right; ValueError for other sizes
    and values than a store holds."""
    concepts, A, R = len(view.store.concepts), len(effects.units), len(effects.coefficient_concepts)
    shapes = {"before": (concepts,), "after": (A, concepts), "low": (A, concepts), "high": (A, concepts)}
    if R:
        shapes["coefficients"] = (R, view.units)
    for name, shape in shapes.items():
        if np.shape(getattr(effects, name)) != shape:
            raise ValueError(f"{name} has the shape {np.shape(getattr(effects, name))} where {shape} is expected")
    for unit in effects.units.tolist():
        view.check_unit(unit)
    rows = effects.coefficient_concepts
    if R and not 0 <= rows.min() <= rows.max() < concepts:
        raise ValueError("coefficient_concepts holds what is no row of the concepts")
    for name, numbers in (("units", effects.units), ("coefficient_concepts", rows)):
        if len(set(numbers.tolist())) < len(numbers):
            raise ValueError(f"{name} names one twice")
    if (effects.low > effects.high).any():
        raise ValueError("low is above high")
    right: dict[str, Any] = {
        name: _shares(name, getattr(effects, name)) for name in ("before", "after", "coefficients")
    }
    if R and np.isnan(right["coefficients"]).any():
        raise ValueError("coefficients holds NaN")
    return in_order(replace(effects, **right))


def _shares(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = np.clip(values, 0.0, 1.0)
    if not np.allclose(near, values, rtol=0, atol=1e-6, equal_nan=True):
        raise ValueError(f"{name} holds what is no share between 0 and 1")
    return near


def _write(path: Path, disk: Disk, layer: str, effects: ConceptEffects, pictures: EffectPictures | None) -> None:
    """All that the store at ``path`` holds, with these effects and pictures, to ``disk``."""
    name = f"{parts.LAYERS.name}/{member_name(layer)}"
    replaced = {f"/{name}/{group.name}" for group in (parts.CONCEPT_EFFECTS, parts.EFFECT_PICTURES)}
    with copied(path, disk, replaced) as (new, version):
        write_concept_effects(new[name], effects, version)
        if pictures is not None:
            write_effect_pictures(new[name], pictures, version)
