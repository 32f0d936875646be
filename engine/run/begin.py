"""What the passes of a dissection share, made before the first of them."""

from __future__ import annotations

from dataclasses import dataclass

from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.run.evidence_plan import Plan, plan
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.engine.run.gatherer import Gatherer
from ndissect.engine.run.resume import Start
from ndissect.engine.run.saved_run import SavedRun
from ndissect.engine.run.saving import Saver
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes


@dataclass(frozen=True)
class Run:
    """A dissection between its passes.

    ``start``: where it begins; ``images``: those of this process; ``memory``: what every process may use; ``plan``:
    what is counted beside the counts; ``gatherer``: what the first pass gathers; ``saver``: saves it now and then.
    """

    forward_pass: ForwardPass
    start: Start
    ranks: Ranks
    images: range
    memory: Budget
    plan: Plan
    gatherer: Gatherer
    saver: Saver


def begin(
    forward_pass: ForwardPass,
    start: Start,
    *,
    saved: SavedRun | None = None,
    ranks: Ranks = ALONE,
    part: range | None = None,
) -> Run:
    """A dissection that begins at ``start``; ``part``: its images, by default this process's part of all.

    NDError where ``start`` needs more memory than there is.
    """
    p, settings, dataset = forward_pass, forward_pass.settings, forward_pass.loader.dataset
    budgets = ranks.gather(settings.memory)  # all must need the same number of passes
    memory = Budget(min(b.host for b in budgets), min(b.gpu for b in budgets))
    evidence = Plan(by_block=False, peaks=False, pairings=0, budget=memory)
    if settings.evidence:
        choices = ranks.gather(start.choices)[0]
        evidence = plan(p.geometries, dataset, settings.null, memory, p.device, choices)
    images = ranks.part(len(dataset)) if part is None else part
    gatherer = Gatherer(
        p.geometries,
        p.loader.protocol,
        dataset.concepts,
        total=len(dataset),
        own=len(images),
        top=min(settings.top, len(dataset)),
        budget=evidence.budget,
        device=p.device,
        threshold_budget=start.threshold_budget,
        peaks=evidence.peaks,
    )
    saver = Saver(saved, p, gatherer, choices=evidence.choices, start=start, images=len(images))
    return Run(p, start, ranks, images, memory, evidence, gatherer, saver)


def demand_one_pass(run: Run, hint: str) -> None:
    """NDError with ``hint`` where the thresholds would take more than one forward pass."""
    if run.gatherer.passes == 1:
        return
    need = human_bytes(2 * run.gatherer.threshold_bytes)
    have = human_bytes(run.memory.on(run.forward_pass.device))
    raise NDError(f"the thresholds of these layers need {need} of memory in one pass, --memory is {have}", hint)
