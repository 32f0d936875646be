"""What a dissection says is ahead of it: the phases to come, and why there are more than usual."""

from __future__ import annotations

from ndissect.engine.machine.progress import Phase
from ndissect.engine.run.begin import Run
from ndissect.store.files import human_bytes


def plan_passes(run: Run, number: int) -> None:
    """Before pass ``number`` of the first half: as far as is known, everything that may fire can be kept."""
    gatherer, progress = run.gatherer, run.forward_pass.progress
    tally = Phase("tally", len(run.images), forward=not gatherer.keeps_candidates)
    progress.plan([*_passes_ahead(run), Phase("images"), tally])
    if number == 0 and gatherer.passes > 1:
        need = human_bytes(gatherer.threshold_bytes)
        progress.note(
            f"one pass would need {need} for the thresholds, more than half of --memory {run.memory}: "
            f"{gatherer.passes} forward passes for the thresholds and one for the tally"
        )


def plan_tally(run: Run, kept: int, missing: int) -> None:
    """Before the tally, when it is known how many images' candidates are kept and how many images are left."""
    phases = [*_passes_ahead(run), Phase("images")]
    phases += [Phase("tally", kept)] * (kept > 0)
    phases += [Phase("tally", missing, forward=True)] * (missing > 0)
    run.forward_pass.progress.plan(phases)
    note_second_pass(run, missing)


def note_second_pass(run: Run, missing: int) -> None:
    """Say that memory did not suffice for the candidates of so many images, if any."""
    if run.gatherer.keeps_candidates and missing:
        run.forward_pass.progress.note(
            f"--memory {run.memory} did not suffice to keep what may fire in {missing} of {len(run.images)} "
            "images: a second forward pass over those"
        )


def _passes_ahead(run: Run) -> list[Phase]:
    """The passes for the thresholds, but those that an earlier start has made."""
    passes = run.gatherer.passes - max(run.start.phase, 0)
    return [Phase("thresholds", len(run.images), forward=True)] * passes
