"""The average causal effect of a generator's units on a concept, and coefficients learned for it (``nd ace``).

Bau et al., ICLR 2019. The average causal effect of a set of units: the mean share of the concept's pixels with the
units at high values at chosen locations, less that with the same units at zero there. It is measured. Coefficients are
learned (ndissect.engine.experiments.unit_coefficients): they rank units and are no effects.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.experiments.concept_cells import Locations, draw_locations, presence_of
from ndissect.engine.experiments.concept_scores import ConceptScores
from ndissect.engine.experiments.generated import Generated, GeneratorRequest, open_generated
from ndissect.engine.experiments.unit_coefficients import (
    RATE,
    START,
    TAKES_PART,
    Learning,
    learn_coefficients,
    objective,
    setting,
)
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import computing
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.tail import Tail
from ndissect.store.add_concept_effects import add_concept_effects
from ndissect.store.concept_effects import learned as learned_alone
from ndissect.store.counts import Ints
from ndissect.store.errors import NDError
from ndissect.store.files import check_writable
from ndissect.store.intervals import margin
from ndissect.store.scores import Floats

#: What the high value of a unit is: its mean where the concept is, or a quantile of it.
High = Literal["mean", "quantile"]
#: How a set of units was chosen; ``weighted``: all units, each by its coefficient.
ChosenBy = Literal["iou", "coefficient", "weighted", "random"]
#: Samples that are looked through for the concept where no number is named, and locations of a step.
SAMPLES, BATCH = 1_000, 16


@dataclass(frozen=True)
class AceRequest:
    """What ``nd ace`` is asked for: the ``concept``, and how many ``units`` make a set.

    ``samples``: so many are looked through for the concept, 0: all of the store, at most 1,000; ``locations``: of
    training; ``held_out``: of evaluation; ``steps``: of learning, 0 learns nothing; ``penalty``: on the L2 norm of the
    coefficients; ``draws``: random sets of units; ``write``: put the coefficients into the store.
    """

    generator: GeneratorRequest
    concept: str
    units: int = 20
    samples: int = 0
    steps: int = 150
    penalty: float = 0.005
    locations: int = 1_000
    held_out: int = 200
    high: High = "mean"
    draws: int = 3
    write: bool = True


@dataclass(frozen=True)
class CausalEffect:
    """The average causal effect of a set of units: ``ace``, with both ends of a 95 % interval over samples.

    ``units``: those of the set; empty for ``weighted``, which are all, and for ``random``, which are several sets;
    ``inserted``, ``zeroed``: the two mean shares of pixels whose difference it is.
    """

    chosen_by: ChosenBy
    units: tuple[int, ...]
    ace: float
    low: float
    high: float
    inserted: float
    zeroed: float


@dataclass(frozen=True)
class Coefficients:
    """What was learned: ``values`` (U,) in [0, 1]; ``before``, ``after``: the objective at the held-out locations with
    the coefficients at the start and with these. ``batch``: locations of a step."""

    values: Floats
    before: float
    after: float
    batch: int

    @property
    def above(self) -> int:
        """How many take part."""
        return int((self.values > TAKES_PART).sum())


@dataclass(frozen=True)
class Ace:
    """All that ``nd ace`` has found of one concept, in row ``concept`` of the store.

    ``ious`` (U,): of the units with it; ``by_iou``, ``by_coefficient`` (U,): all units, the best first, the latter
    empty where nothing was learned. ``training``, ``held_out``: (locations, samples that they lie in). ``searched``:
    samples that were looked through. ``written``: the store that holds the coefficients; ``unwritten``: why it does
    not.
    """

    request: AceRequest
    network: str
    labeller: str
    layer: str
    concept: int
    name: str
    ious: Floats
    effects: tuple[CausalEffect, ...]
    coefficients: Coefficients | None
    by_iou: tuple[int, ...]
    by_coefficient: tuple[int, ...]
    training: tuple[int, int]
    held_out: tuple[int, int]
    searched: int
    notes: tuple[str, ...] = ()
    written: Path | None = None
    unwritten: NDError | None = field(default=None, compare=False)

    @property
    def n(self) -> int:
        """How many units make a set."""
        return len(self.effects[0].units)

    @property
    def overlap(self) -> int | None:
        """How many of the n best units by IoU are among the n best by coefficient; None where nothing was learned."""
        if not self.by_coefficient:
            return None
        return len(set(self.by_iou[: self.n]) & set(self.by_coefficient[: self.n]))


def ace(request: AceRequest, console: Console) -> Ace:
    """The effects of the best units of a generator for a concept, and coefficients of all units.

    WrongUse where the store has no IoUs of the layer, knows no such concept, or its labeller has no gradient; NDError
    where the concept is not seen. Nothing is written before all is computed.
    """
    with open_generated(request.generator, console) as g, console.progress() as progress:
        row = g.concept(request.concept)
        by_iou = g.best_units(row)
        scores = ConceptScores(g, row) if request.steps else None
        if request.write and scores is not None:
            check_writable(g.store, g.store.stat().st_size + 8 * len(by_iou))
        return _measured(request, g, row, by_iou, scores, progress)


def _measured(
    request: AceRequest, g: Generated, row: int, by_iou: list[int], scores: ConceptScores | None, progress: Progress
) -> Ace:
    samples = np.arange(min(request.samples or SAMPLES, g.count))
    random = np.random.default_rng(0)
    with Tail(g.network.module, g.tap) as tail:
        presence = presence_of(g, tail, row, samples, progress)
        training = draw_locations(presence, False, request.locations, random)
        held_out = draw_locations(presence, True, request.held_out, random)
        high = presence.mean_feature if request.high == "mean" else g.high_values().to(g.device)
        coefficients = (
            None if scores is None else _learn(request, g, tail, scores, (training, held_out), high, progress)
        )
        n = min(request.units, len(by_iou))
        sets: list[tuple[ChosenBy, Tensor, tuple[int, ...]]] = [("iou", *_set(by_iou[:n], high))]
        by_coefficient: list[int] = []
        if coefficients is not None:
            by_coefficient = np.argsort(-coefficients.values, kind="stable").tolist()
            sets.append(("coefficient", *_set(by_coefficient[:n], high)))
            sets.append(("weighted", torch.from_numpy(coefficients.values).to(high), ()))
        best = {*by_iou[:n], *by_coefficient[:n]}
        others = [unit for unit in range(len(by_iou)) if unit not in best]
        drawn_from = others if len(others) >= n else list(range(len(by_iou)))
        sets += [("random", _set(random.permutation(drawn_from)[:n], high)[0], ()) for _ in range(request.draws)]
        shares = _shares(g, tail, [weights for _, weights, _ in sets], row, held_out, high, progress)
    notes = _notes(request, g, n, others, tail)
    return _written(
        Ace(
            request=request,
            network=g.network.spec,
            labeller=g.labeller.spec,
            layer=g.layer.name,
            concept=row,
            name=g.concepts.label(row),
            ious=g.ious[:, row],
            effects=_effects(sets, shares, held_out),
            coefficients=coefficients,
            by_iou=tuple(by_iou),
            by_coefficient=tuple(by_coefficient),
            training=_size(training),
            held_out=_size(held_out),
            searched=len(samples),
            notes=(*g.notes, *notes),
        ),
        g,
    )


def _learn(
    request: AceRequest,
    g: Generated,
    tail: Tail,
    scores: ConceptScores,
    at: tuple[Locations, Locations],
    high: Tensor,
    progress: Progress,
) -> Coefficients:
    training, held_out = at
    how = Learning(request.steps, request.penalty, min(BATCH, g.at_once, len(training)))
    values = learn_coefficients(g, tail, scores, training, high, how, progress)
    progress.busy("held-out locations")
    before, after = (
        objective(g, tail, scores, held_out, high, c, how.penalty) for c in (torch.full_like(high, START), values)
    )
    return Coefficients(values.double().cpu().numpy(), before, after, how.batch)


def _set(units: list[int] | Ints, like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """1 for each unit of the set and 0 for all others, (U,); and the units, rising."""
    weights = torch.zeros_like(like)
    weights[torch.as_tensor(units, dtype=torch.long, device=like.device)] = 1
    return weights, tuple(sorted(map(int, units)))


def _shares(
    g: Generated, tail: Tail, sets: list[Tensor], row: int, at: Locations, high: Tensor, progress: Progress
) -> Floats:
    """(sets, 2, L): the share of the concept's pixels with each set at high values, and at zero, at each location."""
    shares = np.empty((len(sets), 2, len(at)))
    values = (high, torch.zeros_like(high))
    progress.start("causal effects", len(at))
    done = 0
    for some in at.batches(g.at_once):
        cells = torch.from_numpy(some.cells).to(g.device)
        with torch.no_grad(), computing("fp32", g.device):
            tail.start(g.inputs(some.samples.tolist()))
            for s, weights in enumerate(sets):
                for v, value in enumerate(values):
                    output = tail.run(setting(cells, weights, value))
                    areas = g.areas(g.pictures(output))[:, row]
                    shares[s, v, done : done + len(some)] = areas.cpu().numpy() / g.pixels
        done += len(some)
        progress.advance(len(some))
    return shares


def _effects(
    sets: list[tuple[ChosenBy, Tensor, tuple[int, ...]]], shares: Floats, at: Locations
) -> tuple[CausalEffect, ...]:
    """One effect for each way to choose; that of random sets is of their mean."""
    effects = []
    for by in dict.fromkeys(chosen_by for chosen_by, _, _ in sets):
        rows = [s for s, (chosen_by, _, _) in enumerate(sets) if chosen_by == by]
        inserted, zeroed = shares[rows].mean(0)
        value, low, high = average_effect(inserted - zeroed, at.samples)
        effects.append(
            CausalEffect(by, sets[rows[0]][2], value, low, high, float(inserted.mean()), float(zeroed.mean()))
        )
    return tuple(effects)


def average_effect(difference: Floats, samples: Ints) -> tuple[float, float, float]:
    """The mean of ``difference`` (L,) over locations, and both ends of a 95 % interval.

    The interval is the jackknife's over ``samples`` (L,), in which the locations lie; NaN where there is only one.
    """
    _, number = np.unique(samples, return_inverse=True)
    total, count = np.bincount(number, weights=difference), np.bincount(number)
    value = float(difference.mean())
    if len(total) < 2:
        return value, np.nan, np.nan
    half = float(margin((total.sum() - total) / (count.sum() - count) - value))
    return value, max(value - half, -1.0), min(value + half, 1.0)


def _size(at: Locations) -> tuple[int, int]:
    return len(at), len(np.unique(at.samples))


def _notes(request: AceRequest, g: Generated, n: int, others: list[int], tail: Tail) -> list[str]:
    notes = []
    if n < request.units:
        notes.append(f"{g.layer.name} has {n} units: a set is of all of them")
    elif request.draws and len(others) < n:
        notes.append(f"random sets are drawn from all units: only {len(others)} are not among the best {n}")
    if request.samples > g.count:
        notes.append(f"the store is of {g.count} samples: no more were looked through")
    if not tail.alone:
        notes.append(f"the whole network was run each time: {tail.reason}")
    return notes


def learned_how(found: Ace) -> str:
    """How the coefficients were learned, in a sentence."""
    r, c = found.request, found.coefficients
    assert c is not None
    places, samples = found.training
    return (
        f"learned by {r.steps} steps of Adam on {c.batch} locations each (rate {RATE} falling to 0, all from {START}),"
        f" of {places} in {samples} training samples: the softmax score that {found.labeller} gives {found.name} in the"
        f" cell of the location, units set by their coefficients to {high_in_words(r.high)}, less that with them set so"
        f" to zero; penalty {r.penalty:g} on the L2 norm"
    )


def high_in_words(high: High) -> str:
    """What the high values are."""
    return "their mean where the concept is" if high == "mean" else "their 99.5 % quantile"


def _written(found: Ace, g: Generated) -> Ace:
    """``found``, with its coefficients in the store where that is asked for; what cannot be written is shown."""
    if not found.request.write or found.coefficients is None:
        return found
    values, concepts = found.coefficients.values[None], np.array([found.concept], np.int32)
    try:
        effects = learned_alone(values, concepts, len(g.concepts), learned_how(found))
        add_concept_effects(g.store, g.layer.name, effects)
    except NDError as e:  # the store is gone, or the disk is full
        return replace(found, unwritten=e)
    return replace(found, written=g.store)
