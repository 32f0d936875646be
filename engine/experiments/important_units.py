"""The units that a class needs most: by the effects that a store holds, else by taking every unit away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndissect.engine.experiments.ablate import effects_of
from ndissect.engine.experiments.classified import Classified
from ndissect.engine.experiments.predictions import predict_without
from ndissect.store.effects import Effects, needed_most
from ndissect.store.reader import Store

#: So many units of a class are followed, as in PNAS.
MOST = 4


@dataclass(frozen=True)
class ImportantUnits:
    """``units``: by class, those that it needs most, the most important first; () of a class without images.

    ``said_by``: where the ranking comes from, in words.
    """

    units: Mapping[int, tuple[int, ...]]
    said_by: str


def important_units(c: Classified, classes: Sequence[int], count: int = MOST) -> ImportantUnits:
    """The ``count`` units of ``c.layer`` that each of ``classes`` needs most.

    Ranked by the balanced accuracy that is left without each unit alone, on the first split (docs/method.md, section
    7.5). The effects in the store of ``c`` say it where they are of this network and of every unit; else every unit is
    taken away over the images of that split.
    """
    effects = _stored(c)
    if effects is not None:
        by = {"zero": "", "mean": " (units set to their means)", "resample": " (units with their maps in other images)"}
        said_by = "the effects in the store" + by.get(str(effects.origin.get("by")), "")
    else:
        images = [n for n in c.images if c.split[n] == 0]
        sets = [(unit,) for unit in range(c.layer.units)]
        effects = effects_of(c, predict_without(c, sets, images))
        said_by = f"every unit set to zero over {len(images)} images"
    ranked = {}
    for k in classes:
        rows = needed_most(effects, k)[:count]
        ranked[k] = tuple(effects.units[row][0] for row in rows.tolist())
    of = "their own predictions" if effects.origin.get("truth") == "prediction" else "their classes"
    split = "" if effects.splits == ("all",) else f", on {effects.splits[0]}"
    return ImportantUnits(ranked, f"{said_by}, images by {of}{split}")


def _stored(c: Classified) -> Effects | None:
    """The effects of every unit alone that the store of ``c`` holds of this network and layer; None without."""
    if c.store is None:
        return None
    with Store(c.store) as store:
        if c.layer.name not in store.layer_names:
            return None
        effects = store.layer(c.layer.name).effects
    if effects is None or len(effects.single()) != c.layer.units or effects.images.shape[1] != len(c.classes.names):
        return None
    network = effects.origin.get("network")
    same = {"digest": c.network.digest, "preprocess": c.network.preprocess.describe()}
    told = {name: network.get(name) for name in same} if isinstance(network, dict) else {}
    return effects if told == same else None
