"""Units of a layer taken away, each alone and all together, and what every class loses by it.

Bau et al., PNAS 2020; docs/method.md, section 7.5; docs/ablate.md.

::

    ablation = ablate(EffectRequest(Path("resnet18.nd.h5"), layer="layer4", images="photographs"))
    ablation.effects.change[-1]      # (E, K): how the balanced accuracy of each class changes without each unit
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ndissect.engine.experiments.classified import Classified, EffectRequest, open_classified
from ndissect.engine.experiments.effect_counts import count_effects
from ndissect.engine.experiments.predictions import Predictions, predict_without
from ndissect.engine.experiments.saved_predictions import SavedPredictions
from ndissect.engine.machine.console import Console
from ndissect.engine.run.from_store import demand_same_weights
from ndissect.store.add_effects import add_effects
from ndissect.store.bootstrap import block_of
from ndissect.store.effects import By, Classes, Effects, agreed, rows_of
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import cache_folder, check_writable
from ndissect.store.limits import check_effects
from ndissect.store.reader import Store

#: Random sets of as many units that a set is compared with.
DRAWS = 20
_SEED = 0
# Bytes in a store of one class in one ablation: two counts, a score and an interval.
_BYTES = 2 * 8 + 3 * 4


@dataclass(frozen=True)
class Ablation:
    """What the classes of a network lose without units of ``layer``, which has so many ``units``.

    ``class_number``: the class that was asked for, None where none was.
    ``effects``: of each unit that was asked for alone, by their numbers; where they are several, but were not all taken
    unasked, of all of them together at last. ``random``: the effects of sets of random units, by how many each has.
    ``reason``: why the whole network was run, "" where it was not. ``written``: the store that holds the effects now;
    ``unwritten``: why the store that was to hold them does not.
    ``notes``: what the user should know of images and classes.
    """

    network: str
    layer: str
    units: int
    classes: Classes
    class_number: int | None
    effects: Effects
    random: Mapping[int, Effects]
    truth: Literal["images", "prediction"]
    reason: str
    written: Path | None
    unwritten: NDError | None
    notes: tuple[str, ...]


def ablate(
    request: EffectRequest,
    units: Sequence[int] | None = None,
    by: By = "zero",
    *,
    class_name: str | None = None,
    draws: int = DRAWS,
    write: bool = True,
    console: Console | None = None,
) -> Ablation:
    """Take ``units`` of the layer that ``request`` names away, each alone, and all of them; None: every unit alone.

    ``by``: what stands in their place (ndissect.engine.experiments.stand_ins). ``draws``: random sets of as many units
    that they are compared with; all units are compared with each other. ``class_name``: a class that is looked up
    before anything is run. ``write``: put the effects into the store of
    ``request``, if there is one that has the layer. What is predicted is kept on the disk now and then, and the same
    call goes on from there. WrongUse and NDError as of open_classified, and for units that the layer does not have;
    what ``console`` makes of an interrupt passes through.
    """
    console = console or Console()
    left: list[SavedPredictions] = []
    try:
        with console.listening(), open_classified(request, console) as c:
            number = None if class_name is None else c.class_number(class_name)
            return _ablate(c, units, by, number, draws, write, console, left)
    except KeyboardInterrupt as e:
        again = shlex.join(console.goes_on)
        if left and left[0].there:
            raise console.stopped(e, "what was predicted is saved", f"go on: {again}") from None
        raise console.stopped(e, "nothing was written", f"start again: {again}") from None


def _ablate(
    c: Classified,
    units: Sequence[int] | None,
    by: By,
    class_number: int | None,
    draws: int,
    write: bool,
    console: Console,
    left: list[SavedPredictions],
) -> Ablation:
    asked = list(range(c.layer.units)) if units is None else sorted(set(units))
    sets: list[tuple[int, ...]] = [(unit,) for unit in asked]
    if units is not None and len(asked) > 1:
        sets.append(tuple(asked))
    drawn = {} if units is None else {n: random_sets(c.layer.units, n, draws) for n in sorted({1, len(asked)})}
    everything = [*sets, *(some for of_size in drawn.values() for some in of_size)]
    target = _target(c, sets) if write else None
    saved = saved_predictions(c, everything, c.images, by, beside=target)
    left.append(saved)
    with console.saving_first():
        predictions = predict_without(c, everything, c.images, by, saved=saved)
    c.progress.busy("effects")
    every_effect = effects_of(c, predictions, console.command)
    effects = rows_of(every_effect, range(len(sets)))
    random, start = {}, len(sets)
    for n, of_size in drawn.items():
        if of_size:
            random[n] = rows_of(every_effect, range(start, start + len(of_size)))
        start += len(of_size)
    notes = c.notes
    unwritten = None
    if target is not None:
        try:
            with Store(target) as there:  # perhaps another one by now
                demand_same_weights(there, c.network, anyway=c.settings.anyway)
            gone = add_effects(target, c.layer.name, c.classes, effects)
        except NDError as e:  # the store is gone, or another one: what was measured is shown all the same
            unwritten = e
        else:
            notes = notes if gone is None else (*notes, _replaced(gone, effects))
    if unwritten is None:
        saved.remove()
    return Ablation(
        network=c.network.name,
        layer=c.layer.name,
        units=c.layer.units,
        classes=c.classes,
        class_number=class_number,
        effects=effects,
        random=random,
        truth=c.truth_from,
        reason=predictions.reason,
        written=target if unwritten is None else None,
        unwritten=unwritten,
        notes=notes,
    )


def _replaced(gone: Effects, effects: Effects) -> str:
    """What is told where ``effects`` took the place of others in a store, beside which they could not stand."""
    words = {
        "by": "what takes a unit's place",
        "truth": "whose classes",
        "data": "the images",
        "network": "the network",
    }
    differ = [word for key, word in words.items() if gone.origin.get(key) != effects.origin.get(key)]
    why = f"they differ in {' and '.join(differ) or 'what was predicted'}"
    return f"the store's effects of {len(gone.units)} ablations are replaced: {why}"


def effects_of(c: Classified, predictions: Predictions, command: str = "") -> Effects:
    """The effects on the classes of ``c`` that follow from ``predictions``; ``command``: what made them."""
    names = c.dataset.names
    origin: dict[str, Any] = {
        "by": predictions.by,
        "truth": c.truth_from,
        "data": {"name": c.dataset.name, "digest": c.dataset.tables_digest(), "used": used_digest(c)},
        "network": {
            "spec": c.network.spec,
            "digest": c.network.digest,
            "preprocess": c.network.preprocess.describe(),
        },
        "command": command,
        "how": predictions.how,
    }
    return count_effects(
        predictions,
        classes=len(c.classes.names),
        splits=c.splits,
        split=c.split[predictions.images],
        block=np.array([block_of(names[i]) for i in predictions.images], np.int64),
        origin=origin,
    )


def used_digest(c: Classified) -> str:
    """sha256 over which images of the data set are used, of which class and in which split."""
    used = np.array(c.images, np.int64)
    digest = hashlib.sha256(f"{c.truth_from} {c.splits}".encode())
    for array in (used, c.truth[used], c.split[used]):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    return digest.hexdigest()


def random_sets(units: int, n: int, draws: int, seed: int = _SEED) -> list[tuple[int, ...]]:
    """``draws`` sets of ``n`` of so many units, each drawn without repeats, the same at every call; none of all."""
    rng = np.random.default_rng([seed, n])
    if n >= units:
        return []
    return [tuple(sorted(rng.choice(units, n, replace=False).tolist())) for _ in range(draws)]


def saved_predictions(
    c: Classified, sets: Sequence[tuple[int, ...]], images: Sequence[int], by: By, beside: Path | None
) -> SavedPredictions:
    """Where predictions without ``sets`` for ``images`` are kept meanwhile: ``beside`` a store, else in the cache."""
    network = c.network
    key = {
        "network": [network.spec, network.digest, dict(network.origin), network.preprocess.describe()],
        "layer": [c.layer.name, str(c.layer.tap)],
        "data": [c.dataset.name, c.dataset.tables_digest(), used_digest(c), list(images)],
        "sets": [list(some) for some in sets],
        "by": by,
        "precision": c.settings.precision,
    }
    return SavedPredictions(
        beside or cache_folder() / "ablations" / "predictions", key, c.progress, c.settings.save_every
    )


def _target(c: Classified, sets: Sequence[tuple[int, ...]]) -> Path | None:
    """The store to write to, None where there is none that has the layer; NDError where it cannot hold the effects of
    ``sets``, or be written."""
    if c.store is None:
        return None
    with Store(c.store) as store:
        if c.layer.name not in store.layer_names:
            return None
        if agreed(store.classes, c.classes) is None:
            raise WrongUse(
                f"{c.store} holds effects of other classes than these {len(c.classes.names)}",
                "name the classes as they were named then (--classes FILE), or --no-store",
            )
    needed = len(c.splits) * len(sets) * len(c.classes.names) * _BYTES
    try:
        check_effects(len(c.splits), [len(units) for units in sets], len(c.classes.names))
        check_writable(c.store, c.store.stat().st_size + needed)
    except NDError as e:
        raise type(e)(e.message, "--no-store leaves the store as it is") from e
    return c.store
