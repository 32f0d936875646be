"""Taking up what an earlier start of a run has saved: of the first half, or of the tally."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ndissect.engine.machine.state import from_tensor, within
from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.run.begin import Run
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.engine.run.resume import taking_up


@dataclass(frozen=True)
class Tallying:
    """A tally that has begun: ``missing``, the images whose candidates were not kept, of which ``done`` are counted."""

    counter: MaskCounter
    missing: list[int]
    done: int = 0


def restore_gatherer(run: Run) -> int:
    """Put what was saved of the pass that ``run`` starts with into its gatherer; how many images the pass had done."""
    p, gatherer, start, saved = run.forward_pass, run.gatherer, run.start, run.saver.saved
    survey, candidates = gatherer.survey, gatherer.candidates
    with taking_up(saved):
        gatherer.restore(start.state)
        if start.phase == 0 and start.done != survey.images + len(survey.bad):
            raise ValueError(f"{start.done} images done, {survey.images} read")
    if saved and gatherer.keeps_candidates:
        batches = saved.candidates(start.record, p.geometries, run.images)
        # With their labels, if they had them: what is then decided by cost does not see that it paused.
        read = partial(_read_labels, run) if start.labelled else None
        candidates.restore(batches, gatherer.bounds(), read)
        candidates.full = candidates.full or start.full
        candidates.labelled = candidates.labelled and start.labelled
    p.forward.batch.size = min(p.forward.batch.size, start.batch)
    p.progress.note(f"going on after {start.done} of {len(run.images)} images")
    return start.done


def _read_labels(run: Run, images: Sequence[int]) -> LabelBatch:
    return next(run.forward_pass.loader.read_labels([images]))


def restore_tally(run: Run) -> Tallying:
    """The tally that ``run`` starts with, as it was saved: of the first half it needs no more than its result."""
    p, survey, start = run.forward_pass, run.gatherer.survey, run.start
    by_block = start.choices is not None and start.choices["intervals"]
    with taking_up(run.saver.saved):
        counter = MaskCounter.resumed(
            p.loader,
            p.geometries,
            start.state,
            group_images(p.loader.dataset, by_block=by_block),
            p.device,
            p.clock,
            p.progress,
        )
        survey.restore(within(start.state, "survey"))
        run.gatherer.restore_peaks(start.state)
        missing: list[int] = from_tensor(start.state["missing"])
        kept = len(run.images) - len(missing) - len(survey.bad)
        first = min(counter.images, kept)  # what is kept is counted before the others
        if len(set(missing) & set(run.images)) < len(missing) or start.done != counter.images - first:
            raise ValueError(f"{start.done} of {len(missing)} images done, {counter.images} counted")
    p.progress.note(f"going on with the tally, after {counter.images} of {len(run.images)} images")
    return Tallying(counter, missing, start.done)


def saved_candidates(run: Run, missing: Sequence[int], counted: int) -> Iterator[CandidateBatch]:
    """The saved candidates batch by batch, without those of the first ``counted`` images."""
    saved = run.saver.saved
    assert saved is not None
    left_out = set(missing)  # an earlier run with less memory may have let go of batches that it had saved
    for batch in saved.candidates(run.start.record, run.forward_pass.geometries, run.images):
        if batch.images[0] in left_out:
            continue
        if counted <= 0:
            yield batch
        counted -= len(batch.images)
