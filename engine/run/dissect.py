"""One dissection, from a network and labelled images to counts.

One forward pass gathers thresholds, top images and what may fire (ndissect.engine.run.gather_pass); the tally then
counts what does. Images for which memory did not suffice go through the network a second time.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.examination.examine import examine
from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.device import exact_arithmetic, out_of_memory
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import State, as_tensor, from_tensor, under, within
from ndissect.engine.machine.timing import Clock
from ndissect.engine.measures.candidates import CandidateBatch, may_fire
from ndissect.engine.measures.cells import Cells
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.extremes import Extremes
from ndissect.engine.passes.forward import Consumer, Forward
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.count_pass import CountPass
from ndissect.engine.run.evidence_plan import CHEAP_SECONDS, CHEAP_SHARE, Plan, plan
from ndissect.engine.run.gather_pass import DataSummary, GatherPass
from ndissect.engine.run.publishing import Publish, Publisher
from ndissect.engine.run.resume import find_start, taking_up
from ndissect.engine.run.saved_run import RESTART, SavedRun
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store import protocol as protocols
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.model import Dissection


def dissect(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: protocols.Protocol,
    settings: Settings,
    progress: Progress,
    publish: Publish | None = None,
    *,
    saved: SavedRun | None = None,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Dissect ``layers`` of ``network`` over ``dataset``: method.md sections 3 to 5 of the papers, exactly.

    ``publish`` is handed what is known now and then; ``saved``: where what was counted is kept, and gone on from;
    ``ranks``: the processes that share the work, of which the first returns the dissection. NDError for unreadable
    images, layers that change their shape, networks that fail; what ``settings.stop`` gives and KeyboardInterrupt pass
    through.
    """
    exact_arithmetic()
    run = Run(network, dataset, layers, protocol, settings, progress, publish, saved, ranks)
    with run.on_device():
        run.gather()
        return run.count()


def gather_part(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: protocols.Protocol,
    settings: Settings,
    progress: Progress,
    *,
    saved: SavedRun,
    part: range,
    record: Callable[[Outcome, Sequence[LayerGeometry]], dict[str, Any]],
) -> Outcome:
    """The first half of a dissection for the images ``part``, left in ``saved`` for :func:`engine.merge.merge`.

    ``record``: what is to be saved beside it. NDError where the thresholds would take more than one forward pass, or
    what may fire more memory than there is.
    """
    exact_arithmetic()
    run = Run(network, dataset, layers, protocol, settings, progress, None, saved, ALONE, part)
    with run.on_device():
        return run.gather_alone(record)


#: Which images of a batch, and of each layer what may fire in them.
_Fires = tuple[slice, list[Cells | Tensor]]


class Run:
    """The state of a dissection between its passes.

    ``mine``: the images of this process; ``geometries``: the layers; ``gathering``: what the first pass finds.
    """

    def __init__(
        self,
        network: Network,
        dataset: ConceptDataset,
        layers: Sequence[LayerInfo],
        protocol: protocols.Protocol,
        settings: Settings,
        progress: Progress,
        publish: Publish | None,
        saved: SavedRun | None,
        ranks: Ranks,
        part: range | None = None,
    ) -> None:
        self.settings, self.progress, self.saved, self.ranks = settings, progress, saved, ranks
        self._start = find_start(saved, ranks, progress, len(dataset))
        self.clock = Clock(self._start.seconds)
        self._began = time.monotonic()
        self.loader = Loader(
            dataset, protocol, settings.workers, pin=settings.device.type == "cuda", jpeg_on=settings.jpeg_on
        )
        self.mine = ranks.part(len(dataset)) if part is None else part
        budgets = ranks.gather(settings.memory)  # all must need the same number of passes
        self.memory = Budget(min(b.host for b in budgets), min(b.gpu for b in budgets))
        self.forward = Forward(
            network,
            [layer.name for layer in layers],
            settings.device,
            batch=settings.batch,
            precision=settings.precision,
            progress=progress,
            clock=self.clock,
        )
        with self.on_device(), self.clock.during("check"):
            self.examined = examine(
                self.forward,
                self.loader,
                layers,
                progress,
                ranks,
                anyway=settings.anyway,
                skip_bad=settings.skip_bad,
            )
        self.geometries = list(self.examined.geometries)
        counting = self.forward.counting
        self.plan = Plan(False, False, 0, self.memory)
        if settings.evidence:
            chosen = ranks.gather(self._start.choices)[0]
            self.plan = plan(self.geometries, dataset, settings.null, self.memory, counting, chosen)
        self.gathering = GatherPass(
            self.geometries,
            protocol,
            dataset.concepts,
            self.loader.grid,
            total=len(dataset),
            top=min(settings.top, len(dataset)),
            budget=self.plan.budget,
            device=counting,
            allowed=self._start.thresholds,
            peaks=self.plan.peaks,
        )
        self._publisher = (
            Publisher(publish, self.loader, self.gathering, settings, counting, progress, self.examined.marks)
            if publish
            else None
        )
        self._saving = time.monotonic()

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """The network on its device for the block; NDError where that has not the memory for what is done there."""
        network, device = self.forward.network, self.settings.device
        try:
            network.module.to(device)
            yield
        except torch.OutOfMemoryError as e:
            raise NDError(
                f"{device} has not enough free memory: {str(e).strip().splitlines()[0]}",
                "dissect fewer layers at a time, free the device, or use another --device",
            ) from e
        finally:
            network.module.to("cpu")

    def demand_one_pass(self, hint: str) -> None:
        """NDError with ``hint`` where the thresholds would take more than one forward pass."""
        if self.gathering.keeps:
            return
        need = human_bytes(2 * self.gathering.threshold_bytes)
        have = human_bytes(self.memory.on(self.forward.counting))
        raise NDError(f"the thresholds of these layers need {need} of memory in one pass, --memory is {have}", hint)

    # Going on where an earlier run stopped

    def _save(
        self, phase: int, done: int, state: Callable[[], State], *, counted: int | None = None, now: bool = False
    ) -> None:
        """Save what was counted, and what is kept, if it is time; ``counted``: images, if the phase is the tally."""
        stop = self.settings.stop()
        due = time.monotonic() - self._saving >= self.settings.save_every
        if self.saved is not None and (due or now or stop):
            record = self._record(phase, done, counted)
            try:
                with self.clock.during("save"):
                    self.saved.save(phase, record, state(), self.gathering.kept)
            except NDError as e:
                self._not_saved(e)
            self._saving = time.monotonic()
        if stop is not None:
            raise stop

    def _record(self, phase: int, done: int, counted: int | None = None) -> dict[str, Any]:
        """What is saved beside a state."""
        g = self.gathering
        elapsed = self._start.elapsed + time.monotonic() - self._began
        status: dict[str, Any] = {
            "phase": "thresholds" if counted is None else "tally",
            "step": phase + 1,
            "steps": g.passes + 1,
        }
        status |= {"done": done if counted is None else counted, "total": len(self.mine), "elapsed": elapsed}
        return {
            "done": done,
            "batch": self.forward.batch.size,
            "full": g.kept.full,
            "labelled": g.kept.labelled,
            "thresholds": g.allowed,
            "choices": self.plan.choices,
            "seconds": self.clock.seconds(),
            "status": status,
        }

    def _not_saved(self, error: NDError) -> None:
        assert self.saved is not None
        if shutil.disk_usage(self.saved.folder.parent).free < self.saved.room:
            if self.saved.phases():
                error.hint += "; the same command goes on from what was saved before"
            raise error  # nor will the disk take the store: what was saved before is worth more than going on
        self.progress.note(f"{error.message}; the run goes on, but a kill would lose what it has counted since")

    # The first pass

    def gather(self) -> None:
        """All that the thresholds, the top images and, where memory allows, the masks need."""
        g = self.gathering
        for number in range(max(self._start.phase, 0), g.passes):  # none where only the second pass is left
            self._plan(number)
            self._gather_pass(number)
            for quantile in g.quantiles:
                if number < quantile.passes:
                    quantile.end_pass(self.ranks)

    def _gather_pass(self, number: int) -> None:
        g, first = self.gathering, number == 0
        done = self._restore() if self._start.phase == number else 0
        phase = "thresholds" if g.passes == 1 else f"thresholds {number + 1}/{g.passes}"
        self.progress.start(phase, len(self.mine), done)

        def thresholds(i: int, maps: Tensor, known: Extremes, images: slice) -> None:
            if number < g.quantiles[i].passes:
                g.feed(i, maps, known)

        with self.forward.captured() as capture:
            for batch in self.batches(self.mine[done:], skip_bad=self.settings.skip_bad):
                fires: list[_Fires] = []
                consumers: list[Consumer] = [thresholds, partial(self._tops, batch)] if first else [thresholds]
                self.forward.run(capture, batch, consumers, partial(self._find, fires) if first else None)
                if first:
                    self._read(batch, fires)
                done += len(batch) + len(batch.bad)
                self.progress.advance(len(batch) + len(batch.bad))
                self._save(number, done, g.state)
                if first and self._publisher and done < len(self.mine):
                    self._publisher.gathered()
        self._save(number, done, g.state, now=self.ranks.size > 1)  # the others may get further than this

    def _restore(self) -> int:
        """Take up what was saved of a pass; how many images it had done."""
        g, start = self.gathering, self._start
        with taking_up(self.saved):
            g.restore(start.state)
            if start.phase == 0 and start.done != g.reading.images + len(g.reading.bad):
                raise ValueError(f"{start.done} images done, {g.reading.images} read")
        if self.saved and g.keeps:
            g.kept.restore(self._labelled(self.saved.pieces(start.record, self.geometries, self.mine)), g.bounds())
            g.kept.full, g.kept.labelled = g.kept.full or start.full, g.kept.labelled and start.labelled
        self.forward.batch.size = min(self.forward.batch.size, start.batch)
        self.progress.note(f"going on after {start.done} of {len(self.mine)} images")
        return start.done

    def _labelled(self, pieces: Iterator[CandidateBatch]) -> Iterator[CandidateBatch]:
        """The pieces with their labels, if they had them: what is then decided by cost does not see that it paused."""
        for piece in pieces:
            labels = next(self.loader.read_labels([piece.images])) if self._start.labelled else None
            yield replace(piece, labels=labels)

    def batches(self, images: Sequence[int], *, skip_bad: bool) -> Iterator[Batch]:
        """Batches of these images; what it takes to wait for them is timed."""
        batches = self.loader.batches(images, self.forward.batch.size, skip_bad=skip_bad)
        try:
            while True:
                with self.clock.during("decode"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()

    def _tops(self, batch: Batch, i: int, maps: Tensor, known: Extremes, images: slice) -> None:
        self.gathering.tops[i].update(maps, torch.tensor(batch.images[images]), known)
        if self.gathering.peaks:
            self.gathering.peaks.add(i, batch.images[images], maps, known)

    def _find(self, fires: list[_Fires], maps: Sequence[Tensor], known: Sequence[Extremes], images: slice) -> None:
        """Add to ``fires`` what may fire of these maps, which come after their thresholds' update."""
        g, upsampling = self.gathering, self.loader.protocol.upsampling
        if not g.keeps:
            return
        try:
            found = [
                may_fire(x, bound, upsampling, e.peak if e.clean else None)
                for x, bound, e in zip(maps, g.bounds(), known, strict=True)
            ]
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or out_of_memory(e)):
                raise
            g.kept.full = True  # these images go through the network again
            return
        fires.append((images, found))

    def _read(self, batch: Batch, fires: Sequence[_Fires]) -> None:
        """Take the batch's labels, and keep with them what may fire."""
        g = self.gathering
        with self.clock.during("labels", self.forward.counting):
            labels = self.loader.labels(batch, self.forward.counting) if len(batch) else None
            g.reading.add(batch, labels)
            if labels is not None:
                if g.peaks:
                    g.peaks.add_labels(batch.images, labels)
                for images, layers in fires:
                    g.kept.add(CandidateBatch(batch.images[images], layers, labels[images]), g.bounds())

    def gather_alone(self, record: Callable[[Outcome, Sequence[LayerGeometry]], dict[str, Any]]) -> Outcome:
        """Gather for others to count: everything must have been kept."""
        assert self.saved is not None
        g = self.gathering
        self.demand_one_pass("give more --memory, or dissect fewer layers at a time")
        self._plan(0)
        self._gather_pass(0)
        if g.kept.full:
            self.saved.clear()  # what it left out is lost: with more memory it has to begin anew
            raise NDError(
                "what may fire does not fit --memory: it must all be kept for nd merge",
                "give more --memory, or dissect fewer layers at a time",
            )
        survey = g.reading.survey(self.loader.dataset.names)
        outcome = self._outcome(None, survey, 1)
        saved = self._record(0, len(self.mine))
        saved |= {"complete": record(outcome, self.geometries), "status": saved["status"] | {"whole": True}}
        self.saved.save(0, saved, g.state(), g.kept)
        return outcome

    # The tally

    def count(self) -> Outcome:
        """Count what fires, and put it all together."""
        g, ranks = self.gathering, self.ranks
        resumed = self._start.phase >= g.passes  # the tally had begun
        counting, missing, done = self._resume_counting() if resumed else self._begin_counting()
        survey = g.reading.survey(self.loader.dataset.names, ranks)
        kept = len(self.mine) - len(missing) - len(g.reading.bad)
        counted = counting.images - done  # of those that are kept

        def save(done: int, *, now: bool = False) -> None:
            self._save(g.passes, done, state, counted=counting.images, now=now)

        def state() -> State:
            known = {"missing": as_tensor(missing)} | (under("peaks", g.peaks.state()) if g.peaks else {})
            return counting.state() | under("reading", g.reading.state()) | known

        # What was chosen by its cost is kept, as soon as a later start would choose again.
        if not resumed and (ranks.size > 1 or (self.saved is not None and self.saved.phases())):
            save(0, now=True)
        self._say_passes(kept - counted, len(missing) - done)
        if ranks.rank == 0:
            self.progress.busy("images")
            counting.keep_images()
        if counted < kept:
            self.progress.start("tally", kept, counted)
            for pieces in self._pieces_left(missing, counted) if resumed else [g.kept.pieces]:
                counting.count_pieces(pieces, tell=True, after=lambda: save(0))
            g.kept.pieces.clear()
            if self.saved and counting.images < kept + done:
                raise NDError(f"what was saved in {self.saved.folder} is of {counting.images} images", RESTART)
        if done < len(missing):
            self._second_pass(counting, missing, done, save)
        counting.share(ranks)
        peaks = g.peaks if all(ranks.gather(g.peaks is not None)) else None
        if peaks:
            peaks.shared(ranks)
        dissection = conclude(counting, {}, peaks) if ranks.rank == 0 else None
        share = len(missing) / max(len(self.mine), 1)
        return self._outcome(dissection, survey, g.passes + share)

    def _outcome(self, dissection: Dissection | None, survey: DataSummary, passes: float) -> Outcome:
        examined = self.examined
        return Outcome(
            *(dissection, survey, self.clock.seconds(), passes, self.forward.batch.size),
            before=self._start.elapsed,
            notes=examined.notes,
            marks=examined.marks,
        )

    def _begin_counting(self) -> tuple[CountPass, list[int], int]:
        """The counting at the thresholds that were found, the images that are not kept, and that none is done."""
        g, bad = self.gathering, {number for number, _ in self.gathering.reading.bad}
        statistics, tops = [q.result() for q in g.quantiles], [t.result(self.ranks) for t in g.tops]
        begun = partial(
            CountPass, self.loader, self.geometries, statistics, tops, self.forward.counting, self.clock, self.progress
        )
        for note in self.plan.notes:
            self.progress.note(note)
        pairings = self._affordable(begun()) if self.settings.null is None else self.plan.pairings
        grouping = group_images(self.loader.dataset, by_block=self.plan.by_block)
        out = g.kept.images() | bad
        return begun(grouping=grouping, pairings=pairings), [i for i in self.mine if i not in out], 0

    def _affordable(self, counting: CountPass) -> int:
        """The null's pairings, if they cost little beside what was done so far; 0 else. The same in all processes."""
        pieces, pairings = self.gathering.kept.pieces, self.plan.pairings
        if not pairings or not pieces:
            costs = self.ranks.gather(None)
        else:
            costs = self.ranks.gather(counting.cost_of_pairings(pieces, pairings))
        spent = sum(s for what, s in self.clock.seconds().items() if what != "save")  # a pause is no work
        most, limit = max((c for c in costs if c), default=0.0), max(CHEAP_SHARE * spent, CHEAP_SECONDS)
        kept = self.ranks.gather(pairings if most <= limit else 0)[0]
        if pairings and not kept:
            self.progress.note(
                f"no null: it would take about {most:.0f} s beside {spent:.0f} s so far; --null {pairings} counts it"
            )
        return int(kept)

    def _resume_counting(self) -> tuple[CountPass, list[int], int]:
        """The same, as it was saved: of the first half it needs no more than its result."""
        state, done, on = self._start.state, self._start.done, self.forward.counting
        with taking_up(self.saved):
            counting = CountPass.resumed(self.loader, self.geometries, state, on, self.clock, self.progress)
            self.gathering.reading.restore(within(state, "reading"))
            self.gathering.restore_peaks(state)
            missing: list[int] = from_tensor(state["missing"])
            kept = len(self.mine) - len(missing) - len(self.gathering.reading.bad)
            first = min(counting.images, kept)  # what is kept is counted before the others
            if len(set(missing) & set(self.mine)) < len(missing) or done != counting.images - first:
                raise ValueError(f"{done} of {len(missing)} images done, {counting.images} counted")
        self.progress.note(f"going on with the tally, after {counting.images} of {len(self.mine)} images")
        return counting, missing, done

    def _pieces_left(self, missing: Sequence[int], counted: int) -> Iterator[list[CandidateBatch]]:
        """The saved pieces one by one, without those of the first ``counted`` images."""
        assert self.saved is not None
        out = set(missing)  # an earlier run with less memory may have let go of pieces that it had found saved
        for piece in self.saved.pieces(self._start.record, self.geometries, self.mine):
            if piece.images[0] in out:
                continue
            if counted <= 0:
                yield [piece]
            counted -= len(piece.images)

    def _second_pass(self, counting: CountPass, missing: list[int], done: int, save: Callable[[int], None]) -> None:
        self.progress.start("tally", len(missing), done)
        with self.forward.captured() as capture:
            for batch in self.batches(missing[done:], skip_bad=False):  # all of them could be read before
                self.forward.run(capture, batch, [counting.consumer(batch)])
                done += len(batch)
                self.progress.advance(len(batch))
                save(done)
                if self._publisher and done < len(missing):
                    self._publisher.counted(counting)

    def _thresholds_ahead(self) -> list[Phase]:
        """The passes for the thresholds, but those that an earlier run has made."""
        return [Phase("thresholds", len(self.mine), forward=True)] * (self.gathering.passes - max(self._start.phase, 0))

    def _plan(self, number: int) -> None:
        """Say what is ahead: as far as is known, everything that may fire can be kept."""
        passes, tally = self.gathering.passes, Phase("tally", len(self.mine), forward=not self.gathering.keeps)
        self.progress.plan([*self._thresholds_ahead(), Phase("images"), tally])
        if number == 0 and passes > 1:
            need, have = human_bytes(self.gathering.threshold_bytes), self.memory
            self.progress.note(
                f"one pass would need {need} for the thresholds, more than half of --memory {have}: {passes} forward "
                "passes for the thresholds and one for the tally"
            )

    def _say_passes(self, kept: int, missing: int) -> None:
        """Say what is ahead now that it is known: images that are kept, and others."""
        phases = [*self._thresholds_ahead(), Phase("images")]
        phases += [Phase("tally", kept)] * (kept > 0)
        phases += [Phase("tally", missing, forward=True)] * (missing > 0)
        self.progress.plan(phases)
        self.note_left_out(missing)

    def note_left_out(self, missing: int) -> None:
        """Say that memory did not suffice for so many images, if any."""
        if self.gathering.keeps and missing:
            self.progress.note(
                f"--memory {self.memory} did not suffice to keep what may fire in {missing} of {len(self.mine)} "
                "images: a second forward pass over those"
            )
