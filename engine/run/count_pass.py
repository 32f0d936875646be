"""The second half of a dissection: what fires at the thresholds is counted.

Most of it was kept from the first half. Images for which memory did not suffice go through the network a second time.
"""

from __future__ import annotations

import torch

from ndissect.engine.machine.state import State, as_tensor, under
from ndissect.engine.measures.tally import compare_at
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.run.announce import plan_tally
from ndissect.engine.run.begin import Run
from ndissect.engine.run.evidence_plan import CHEAP_SECONDS, CHEAP_SHARE
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.engine.run.publishing import Publisher
from ndissect.engine.run.restore import Tallying, restore_tally, saved_candidates
from ndissect.engine.run.saved_run import RESTART
from ndissect.store.errors import NDError


def count(run: Run, publisher: Publisher | None = None) -> Tallying:
    """The tally of all processes' images, with the top images in the first of them, after ``gather``."""
    p, gatherer, ranks, saved = run.forward_pass, run.gatherer, run.ranks, run.saver.saved
    resumed = run.start.phase >= gatherer.passes  # the tally had begun
    tallying = restore_tally(run) if resumed else _begin_tally(run)
    counter, missing, done = tallying.counter, tallying.missing, tallying.done
    kept = len(run.images) - len(missing) - len(gatherer.survey.bad)
    counted = counter.images - done  # of those that are kept

    def state() -> State:
        peaks = under("peaks", gatherer.peaks.state()) if gatherer.peaks else {}
        return counter.state() | under("survey", gatherer.survey.state()) | {"missing": as_tensor(missing)} | peaks

    def save(*, now: bool = False) -> None:
        run.saver.save(gatherer.passes, done, state, counted=counter.images, now=now)

    # What was chosen by its cost is kept, as soon as a later start would choose again.
    if not resumed and (ranks.size > 1 or (saved is not None and saved.phases())):
        save(now=True)
    plan_tally(run, kept - counted, len(missing) - done)
    if ranks.rank == 0:
        p.progress.busy("images")
        counter.keep_images(publisher.images if publisher else None)
    if counted < kept:
        p.progress.start("tally", kept, counted)
        if resumed:
            for candidates in saved_candidates(run, missing, counted):
                counter.count_candidates([candidates], tell=True, after=save)
        else:
            counter.count_candidates(gatherer.candidates.batches, gatherer.candidates.labels, tell=True, after=save)
        gatherer.candidates.clear()
        if saved and counter.images < kept + done:
            raise NDError(f"what was saved in {saved.folder} is of {counter.images} images", RESTART)
    if done < len(missing):
        p.progress.start("tally", len(missing), done)
        for batch in p.batches(missing[done:]):  # all of them could be read before
            p.forward.run(batch, [counter.consumer(batch)])
            done += len(batch)
            p.progress.advance(len(batch))
            save()
            if publisher and done < len(missing):
                publisher.counted(counter)
    counter.share(ranks)
    return Tallying(counter, missing, done)


def _begin_tally(run: Run) -> Tallying:
    """A tally at the thresholds of what was gathered, with nothing counted yet."""
    p, gatherer = run.forward_pass, run.gatherer
    statistics = [quantile.result() for quantile in gatherer.quantiles]
    tops = [top.result(run.ranks) for top in gatherer.tops]
    with p.clock.during("tally", p.device):  # of what might have fired, what does
        gatherer.candidates.cut([compare_at(torch.from_numpy(s.threshold)) for s in statistics])
    for note in run.plan.notes:
        p.progress.note(note)
    pairings = run.plan.pairings
    if p.settings.null is None:
        trial = MaskCounter(p.loader, p.geometries, statistics, tops, p.device, p.clock, p.progress)
        pairings = _affordable_pairings(run, trial)
    counter = MaskCounter(
        p.loader,
        p.geometries,
        statistics,
        tops,
        p.device,
        p.clock,
        p.progress,
        grouping=group_images(p.loader.dataset, by_block=run.plan.by_block),
        pairings=pairings,
    )
    without = gatherer.candidates.images() | {number for number, _ in gatherer.survey.bad}
    return Tallying(counter, [image for image in run.images if image not in without])


def _affordable_pairings(run: Run, counter: MaskCounter) -> int:
    """The null's pairings, if they cost little beside what was done so far; 0 else. The same in all processes."""
    p, ranks, candidates, pairings = run.forward_pass, run.ranks, run.gatherer.candidates, run.plan.pairings
    judged = pairings and candidates.batches
    cost = counter.cost_of_pairings(candidates.batches, candidates.labels, pairings) if judged else None
    costs = ranks.gather(cost)
    spent = sum(s for what, s in p.clock.seconds().items() if what != "save")  # a pause is no work
    most, limit = max((c for c in costs if c), default=0.0), max(CHEAP_SHARE * spent, CHEAP_SECONDS)
    affordable = int(ranks.gather(pairings if most <= limit else 0)[0])
    if pairings and not affordable:
        p.progress.note(
            f"no null: it would take about {most:.0f} s beside {spent:.0f} s so far; --null {pairings} counts it"
        )
    return affordable
