"""Coefficients in [0, 1] of a layer's units, learned so that they put a concept into pictures and take it out.

Bau et al., ICLR 2019. With coefficients alpha, the units go towards high values by alpha at a location, and towards
zero by alpha there; the difference of the concept's score is to be large, and few units are to take part. Coefficients
rank units. They are no effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.experiments.concept_cells import Locations
from ndissect.engine.experiments.concept_scores import ConceptScores
from ndissect.engine.experiments.generated import Generated
from ndissect.engine.machine.device import computing
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.tail import Tail
from ndissect.store.errors import NDError

#: Where all coefficients start, and Adam's rate at the first step, which falls to 0 over the steps.
START, RATE = 0.5, 0.02
#: A coefficient above this takes part.
TAKES_PART = 0.05


@dataclass(frozen=True)
class Learning:
    """How coefficients are learned: ``steps`` of Adam on ``batch`` locations each, ``penalty`` on their L2 norm."""

    steps: int
    penalty: float
    batch: int


def edited_at(maps: Tensor, cells: Tensor, coefficients: Tensor, values: Tensor) -> Tensor:
    """A copy of maps (N, U, h, w) in which, in one cell of each, the units go by their ``coefficients`` (U,) towards
    ``values`` (U,): 0 leaves a unit, 1 sets it. ``cells`` (N,): row * w + column."""
    N, U, h, w = maps.shape
    there = torch.zeros(N, 1, h * w, device=maps.device, dtype=maps.dtype)
    there[torch.arange(N, device=maps.device), 0, cells] = 1
    weight = coefficients.to(maps.dtype)[None, :, None, None] * there.view(N, 1, h, w)
    return torch.lerp(maps, values.to(maps.dtype)[None, :, None, None].expand(N, U, h, w), weight)


def setting(cells: Tensor, coefficients: Tensor, values: Tensor) -> Callable[[Tensor], Tensor]:
    """:func:`edited_at` as an edit of maps."""
    return lambda maps: edited_at(maps, cells, coefficients, values)


def score_gained(
    g: Generated, tail: Tail, scores: ConceptScores, at: Locations, high: Tensor, coefficients: Tensor
) -> Tensor:
    """(): the mean score with the units towards high values, less that with them towards zero.

    ``at``: at most as many locations as are drawn at once; the scores are those of their own cells.
    """
    cells = torch.from_numpy(at.cells).to(g.device)
    with computing("fp32", g.device):
        tail.start(g.inputs(at.samples.tolist()))
        inserted = scores.at(tail.run(setting(cells, coefficients, high)), cells)
        zeroed = scores.at(tail.run(setting(cells, coefficients, torch.zeros_like(high))), cells)
    return (inserted - zeroed).mean()


def objective(
    g: Generated, tail: Tail, scores: ConceptScores, at: Locations, high: Tensor, coefficients: Tensor, penalty: float
) -> float:
    """What learning makes small, at any number of locations: -(:func:`score_gained`) + penalty * L2 norm of the
    coefficients."""
    gained = 0.0
    with torch.no_grad():
        for some in at.batches(g.at_once):
            gained += float(score_gained(g, tail, scores, some, high, coefficients)) * len(some)
    return penalty * float(coefficients.norm()) - gained / len(at)


def learn_coefficients(
    g: Generated, tail: Tail, scores: ConceptScores, at: Locations, high: Tensor, how: Learning, progress: Progress
) -> Tensor:
    """(U,) float32 on the generator's device: coefficients learned at the locations ``at``.

    All begin at START. Batches go through the locations in an order that is always the same, and again in another.
    NDError where no gradient reaches the layer, or it is no number.
    """
    alpha = torch.full_like(high, START).requires_grad_()
    adam = torch.optim.Adam([alpha], lr=RATE)
    random = np.random.default_rng(0)
    order = np.zeros(0, np.int64)
    progress.start("learning coefficients", how.steps)
    progress.counts = "steps"
    for step in range(how.steps):
        while len(order) < how.batch:
            order = np.concatenate([order, random.permutation(len(at))])
        some, order = at.some(order[: how.batch]), order[how.batch :]
        adam.param_groups[0]["lr"] = RATE * (1 - step / how.steps)
        gained = score_gained(g, tail, scores, some, high, alpha)
        scores.demand_gradient(gained)
        alpha.grad = torch.autograd.grad(how.penalty * alpha.norm() - gained, alpha)[0]
        if not bool(alpha.grad.isfinite().all()):
            raise NDError(
                f"the gradient of the score of the labeller at {g.layer.name} is no number (NaN or infinite)",
                "look at the generator's and the labeller's weights; --steps 0 learns no coefficients",
            )
        adam.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
        progress.advance(1)
    return alpha.detach()
