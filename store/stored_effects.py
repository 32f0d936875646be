"""Classes, heads and effects in a store: what is read is checked against what else is known of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store import limits, parts
from ndissect.store.effects import Classes, Effects, Head
from ndissect.store.hdf5 import Axis, Checked
from ndissect.store.stored_group import StoredGroup


def read_classes(root: Checked) -> Classes | None:
    """The network's classes; None where the store does not tell them."""
    if not root.has(parts.CLASSES.name):
        return None
    g = StoredGroup.inside(root, parts.CLASSES)
    return Classes(g.strings("name"), g.sentence("source"))


def read_head(layer: Checked, lengths: Mapping[str, Axis]) -> Head | None:
    """The linear head behind a layer, ``lengths`` being its units and classes; None where there is none."""
    if not layer.has(parts.HEAD.name):
        return None
    g = StoredGroup.inside(layer, parts.HEAD, lengths)
    head = Head(g.read("weight"), g.read("bias"))
    for name, values in (("weight", head.weight), ("bias", head.bias)):
        if not np.isfinite(values).all():
            raise g.broken(name, "holds what is no finite number")
    return head


def read_effects(layer: Checked, units: int, lengths: Mapping[str, Axis]) -> Effects | None:
    """What ablations of a layer's ``units`` do, ``lengths`` being the classes; None where none are in the store."""
    if not layer.has(parts.EFFECTS.name):
        return None
    g = StoredGroup.inside(layer, parts.EFFECTS, lengths)
    splits, ablations, classes = g.measure("hits_without")
    if not splits:
        raise g.broken("splits", "names no split")
    g.checked.demand("hits_without", splits * ablations * classes, limits.EFFECTS)
    images = g.counts("images")
    others = images.sum(-1, keepdims=True) - images
    read = {"images": images}
    for name, most in (("hits", images), ("false", others)):
        read[name] = g.counts(name)
        read[f"{name}_without"] = g.counts(f"{name}_without")
        if (read[name] > most).any():
            raise g.broken(name, "exceeds the number of images")
        if (read[f"{name}_without"] > most[:, None]).any():
            raise g.broken(f"{name}_without", "exceeds the number of images")
    low, high = _known(g.read("low")), _known(g.read("high"))
    if (low > high).any():
        raise g.broken("low", "is above its upper end")
    return Effects(
        units=_read_ablations(g, units),
        splits=g.strings("splits"),
        **read,
        score=_known(g.read("score")),
        score_without=_known(g.read("score_without")),
        low=low,
        high=high,
        origin=_read_origin(g),
    )


def _read_ablations(g: StoredGroup, units: int) -> tuple[tuple[int, ...], ...]:
    """The units of each ablation, rising, none of them twice."""
    unit = g.rows("unit", units, least=0).astype(np.int64)
    end = g.counts("unit_end")
    start = np.concatenate([np.zeros(1, np.int64), end[:-1]])[: len(end)]
    if (end <= start).any() or (int(end[-1]) if len(end) else 0) != len(unit):
        raise g.broken("unit_end", "points outside of unit")
    falls = np.diff(unit) <= 0
    falls[end[:-1] - 1] = False  # where the next ablation begins
    if falls.any():
        raise g.broken("unit", "is not in rising order")
    numbers = unit.tolist()
    ablations = tuple(tuple(numbers[a:b]) for a, b in zip(start.tolist(), end.tolist(), strict=True))
    if len(set(ablations)) < len(ablations):
        raise g.broken("unit", "names an ablation twice")
    return ablations


def _read_origin(g: StoredGroup) -> Mapping[str, Any]:
    value = g.json("origin", limits.ORIGIN)
    if not isinstance(value, dict):
        raise g.broken("origin", "is not a JSON object")
    return value


def _known(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``values``, NaN where they are infinite: what overflows says nothing."""
    return np.where(np.isinf(values), np.float32(np.nan), values)
