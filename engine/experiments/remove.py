"""Units of a generator set to zero, and what is then missing in its pictures.

Bau et al., PNAS 2020 and ICLR 2019; docs/method.md, section 7.6; docs/remove.md.

::

    removal = remove(GeneratorRequest(Path("church.nd.h5"), "layer4"), "tree", [1, 2, 4, 8, 20])
    removal.top[-1].after[removal.concept]      # the share of pixels that are tree without its 20 best units
    effects = remove_each(GeneratorRequest(Path("church.nd.h5"), "layer4"))
    effects.effects.change                      # (A, C): of each unit alone, on every concept
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ndissect.engine.experiments.ablate import random_sets
from ndissect.engine.experiments.area_sums import Areas, areas_without
from ndissect.engine.experiments.generated import Generated, GeneratorRequest, open_generated
from ndissect.engine.experiments.removal_pictures import RemovedFrom, pictures_of_units, pictures_without
from ndissect.engine.experiments.saved_predictions import SavedPredictions
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.progress import Progress
from ndissect.engine.run.from_store import demand_same_weights
from ndissect.store.add_concept_effects import add_concept_effects
from ndissect.store.concept_effects import ConceptEffects
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import check_writable
from ndissect.store.limits import check_concept_values
from ndissect.store.reader import Store
from ndissect.store.scores import Floats

#: By what the best units for a concept are chosen: their IoU with it, or how much of it goes without each of them.
By = Literal["iou", "effect"]
BYS = get_args(By)
#: Of which units random ones are drawn: of those that are not removed, or of all where there are too few others.
RandomOf = Literal["others", "all"]
#: How many of the best units, samples, and random sets of as many units, where none are named.
TOPS, SAMPLES, DRAWS = (1, 2, 4, 8, 20), 250, 4
# Bytes in a store of one concept without one unit: a share and its interval.
_BYTES = 3 * 8


@dataclass(frozen=True)
class WithoutUnits:
    """What pictures show without ``units``, all of them at once; C: all concepts.

    ``after`` (C,): the mean share of a picture's pixels of each concept; ``change`` (C,): that less the share before;
    ``low``, ``high`` (C,): a 95 % interval of the change, over samples. ``random`` (D, C): the shares without as many
    random units, of each of D sets; none where the layer has no others. ``random_of``: which units these are drawn of.
    """

    units: tuple[int, ...]
    after: Floats
    change: Floats
    low: Floats
    high: Floats
    random: Floats
    random_of: RandomOf


@dataclass(frozen=True)
class Removal:
    """The units that are best for a concept, set to zero in ``network``'s ``layer``, which has ``units``.

    ``concepts`` (C,): what they are called; ``concept``: the row of the one that is asked for. ``before`` (C,): the
    mean share of a picture's pixels of each, with all units. ``top``: without more and more of the best units.
    ``samples``: their numbers. ``how``: how it was computed, in a sentence. ``pictures``: of some of the samples.
    """

    network: str
    layer: str
    units: int
    concepts: tuple[str, ...]
    concept: int
    before: Floats
    top: tuple[WithoutUnits, ...]
    samples: range
    draws: int
    by: By
    how: str
    notes: tuple[str, ...]
    pictures: tuple[RemovedFrom, ...] = ()


@dataclass(frozen=True)
class UnitRemovals:
    """Units of ``layer`` that were each set to zero alone: their ``effects`` on all ``concepts``.

    ``written``: whether the store holds them now; ``unwritten``: why it does not, where it was to hold them.
    """

    network: str
    layer: str
    concepts: tuple[str, ...]
    effects: ConceptEffects
    samples: range
    notes: tuple[str, ...]
    written: bool = False
    unwritten: NDError | None = None


def remove(
    request: GeneratorRequest,
    label: str,
    tops: Sequence[int] | None = None,
    by: By = "iou",
    samples: int = SAMPLES,
    draws: int = DRAWS,
    seed: int = 0,
    *,
    pictures: int = 0,
    write: bool = True,
    console: Console | None = None,
) -> Removal:
    """Set the n best units for the concept ``label`` to zero, for each n of ``tops``, beside random ones.

    ``samples``: the first so many; ``draws``: random sets of n units, drawn by ``seed`` of those that are not among the
    n best, or of all where fewer than n others are left; ``pictures``: so many samples that show the concept are given
    as pictures. ``by`` effect: the effects of each unit alone are those of the store, where it has them; else they are
    measured first, and written into it with ``write``. What is measured is kept beside the store now and then, and the
    same call goes on from there. WrongUse for a concept or a number of units that is
    not there; else errors as of open_generated and areas_without.
    """
    console = console or Console()
    with _opened(request, console) as (g, progress):
        row = g.concept(label)
        tops = _demanded(tops, g)
        chosen = _chosen_samples(g, samples)
        ranked, notes = _ranked(g, row, by, chosen, write, progress, console)
        sets: list[tuple[int, ...]] = [tuple(ranked[:n]) for n in tops]
        drawn = [_random_beside(ranked, n, draws, seed) for n in tops]
        everything = [*sets, *(some for of_size in drawn for some in of_size)]
        areas = _measured(g, everything, chosen, progress, console)
        if not areas.before[:, row].any():
            notes += (f"none of these pictures shows {g.concepts.label(row)} before anything is removed",)
        return Removal(
            network=g.network.name,
            layer=g.layer.name,
            units=len(ranked),
            concepts=_names(g),
            concept=row,
            before=areas.share_before,
            top=_without(areas, sets, [len(of_size) for of_size in drawn], len(ranked)),
            samples=chosen,
            draws=draws,
            by=by,
            how=_how(g, areas),
            notes=(*g.notes, *notes),
            pictures=pictures_without(g, sets, row, chosen, pictures) if pictures else (),
        )


def remove_each(
    request: GeneratorRequest,
    units: Sequence[int] | None = None,
    samples: int = SAMPLES,
    *,
    write: bool = True,
    console: Console | None = None,
) -> UnitRemovals:
    """Set each of ``units`` to zero alone, None: every unit of the layer; the effects on all concepts.

    They are written into the store of ``request`` with ``write``, if it has the layer and is of the same weights. What
    is measured is kept beside the store meanwhile, and errors are, as for :func:`remove`.
    """
    console = console or Console()
    with _opened(request, console) as (g, progress):
        return _each(g, units, _chosen_samples(g, samples), write, progress, console)


@contextlib.contextmanager
def _opened(request: GeneratorRequest, console: Console) -> Iterator[tuple[Generated, Progress]]:
    """The generator for the block, in which an interrupt is answered with what is kept of the work."""
    try:
        with console.listening(), console.progress() as progress, open_generated(request, console) as g:
            yield g, progress
    except KeyboardInterrupt as e:
        again = shlex.join(console.goes_on)
        raise console.stopped(e, "what was measured is kept", f"go on: {again}") from None


def _demanded(tops: Sequence[int] | None, g: Generated) -> list[int]:
    """How many units are removed at a time, rising; WrongUse for more than the layer has."""
    have = g.ious.shape[0]
    if tops is None:
        return [n for n in TOPS if n <= have]
    if not tops or min(tops) < 1 or max(tops) > have:
        wrong = [n for n in tops if not 1 <= n <= have]
        raise WrongUse(
            f"{g.layer.name} has {have} units, of which {wrong[0] if wrong else 0} cannot be removed",
            f"--top takes numbers from 1 to {have}, as 1,2,4",
        )
    return sorted(set(tops))


def _chosen_samples(g: Generated, samples: int) -> range:
    """The first so many samples of the store, or all of them; WrongUse for less than one."""
    if samples < 1:
        raise WrongUse("there are no samples to draw", "name more: --samples 250")
    return range(min(samples, g.count))


def _ranked(
    g: Generated, row: int, by: By, samples: range, write: bool, progress: Progress, console: Console
) -> tuple[list[int], tuple[str, ...]]:
    """All units, the best for the concept in ``row`` first, and what is to be told of their order."""
    if by not in BYS:
        raise WrongUse(f"--by '{by}' is none of {', '.join(BYS)}", "iou ranks units by the IoU in the store")
    if by == "iou":
        return g.best_units(row), ()
    known = _stored_effects(g)
    told: tuple[str, ...] = ()
    if known is None:
        done = _each(g, None, samples, write, progress, console)
        known = done.effects
        told = () if done.unwritten is None else (f"effects are not written: {done.unwritten.message}",)
    order = np.argsort(known.change[:, row], kind="stable")
    same = "these samples, so that the change is flattered" if known.samples >= len(samples) else "some of these"
    said = f"units are ranked by their effects alone, measured on {known.samples} samples: on {same}"
    return known.units[order].tolist(), (said, *told)


def _stored_effects(g: Generated) -> ConceptEffects | None:
    """The effects of all units of the layer in the store, if they are of the weights that run here."""
    with Store(g.store) as store:
        if g.layer.name not in store.layer_names or not _of_same_weights(store, g):
            return None
        effects = store.layer(g.layer.name).concept_effects
    if effects is None or len(effects.units) < g.ious.shape[0] or np.isnan(effects.after).any():
        return None
    return effects


def _of_same_weights(store: Store, g: Generated) -> bool:
    try:
        demand_same_weights(store, g.network, anyway=False)
    except WrongUse:
        return False
    return True


def _each(
    g: Generated, units: Sequence[int] | None, samples: range, write: bool, progress: Progress, console: Console
) -> UnitRemovals:
    asked = sorted(set(units)) if units is not None else list(range(g.ious.shape[0]))
    target = write and _can_hold(g, len(asked))
    saved = _saved(g, [(unit,) for unit in asked], samples, progress)
    areas = _measured(g, [(unit,) for unit in asked], samples, progress, console, saved=saved)
    before = areas.share_before
    effects = ConceptEffects(
        units=np.array(asked, np.int32),
        before=before,
        after=areas.share_after,
        low=np.clip(before + areas.low, 0, 1),
        high=np.clip(before + areas.high, 0, 1),
        samples=len(samples),
        how=_how(g, areas),
    )
    unwritten, notes = None, g.notes
    if target:
        progress.busy("writing")
        try:
            with Store(g.store) as there:  # perhaps another one by now
                demand_same_weights(there, g.network, anyway=False)
            gone = add_concept_effects(g.store, g.layer.name, effects, pictures_of_units(g, asked))
        except NDError as e:  # what was measured is shown all the same
            unwritten = e
        else:
            notes += () if gone is None else ("the store's effects of other samples, or measured otherwise, are gone",)
    if unwritten is None:
        saved.remove()
    return UnitRemovals(
        g.network.name, g.layer.name, _names(g), effects, samples, notes, target and unwritten is None, unwritten
    )


def _can_hold(g: Generated, units: int) -> bool:
    """Whether the store is to hold the effects of so many units; NDError where it should, and cannot."""
    with Store(g.store) as store:
        if g.layer.name not in store.layer_names or not _of_same_weights(store, g):
            return False
    try:
        check_concept_values((units, len(g.concepts)))
        check_writable(g.store, g.store.stat().st_size + units * len(g.concepts) * _BYTES)
    except NDError as e:
        raise type(e)(e.message, "--no-store leaves the store as it is") from e
    return True


def _measured(
    g: Generated,
    sets: Sequence[tuple[int, ...]],
    samples: range,
    progress: Progress,
    console: Console,
    saved: SavedPredictions | None = None,
) -> Areas:
    """The areas without each set; what is kept meanwhile goes at the end, unless ``saved`` is the caller's."""
    own = saved or _saved(g, sets, samples, progress)
    with console.saving_first():
        areas = areas_without(g, sets, samples, saved=own, progress=progress, stop=console.stop)
    if saved is None:
        own.remove()
    return areas


def _saved(g: Generated, sets: Sequence[tuple[int, ...]], samples: range, progress: Progress) -> SavedPredictions:
    """Where sums of areas are kept meanwhile: beside the store."""
    key = {
        "network": [g.network.spec, g.network.digest, dict(g.network.origin)],
        "layer": [g.layer.name, str(g.tap)],
        "data": [g.samples.dataset.tables_digest(), list(samples)],
        "sets": [list(some) for some in sets],
    }
    return SavedPredictions(g.store, key, progress)


def _random_of(n: int, units: int) -> RandomOf:
    """Of which units as many random ones as the ``n`` best of so many are drawn."""
    return "others" if units - n >= n else "all"


def _random_beside(ranked: Sequence[int], n: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """``draws`` sets of ``n`` random units to compare with the n best, the first of ``ranked``; none of all units."""
    if _random_of(n, len(ranked)) == "all":
        return random_sets(len(ranked), n, draws, seed)
    others = sorted(ranked[n:])
    if len(others) == n:
        return [tuple(others)] * draws
    return [tuple(others[i] for i in some) for some in random_sets(len(others), n, draws, seed)]


def _without(
    areas: Areas, sets: Sequence[tuple[int, ...]], drawn: Sequence[int], layer_units: int
) -> tuple[WithoutUnits, ...]:
    """What is said of each of ``sets``, behind which the random ones of each come, so many as ``drawn`` says."""
    after, change, low, high = areas.share_after, areas.change, areas.low, areas.high
    top, start = [], len(sets)
    for i, units in enumerate(sets):
        random, of = after[start : start + drawn[i]], _random_of(len(units), layer_units)
        top.append(WithoutUnits(units, after[i], change[i], low[i], high[i], random, of))
        start += drawn[i]
    return tuple(top)


def _names(g: Generated) -> tuple[str, ...]:
    """What the concepts are called; of several with one name each with its category."""
    labels = [g.concepts.label(row) for row in range(len(g.concepts))]
    return tuple(
        f"{label} ({g.concepts.category_of(row)})" if labels.count(label) > 1 else label
        for row, label in enumerate(labels)
    )


def _how(g: Generated, areas: Areas) -> str:
    again = f"the whole generator run again ({areas.reason})" if areas.reason else "what follows it run again"
    return f"zeroed at the layer's output, {again}"
