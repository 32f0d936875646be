"""Results so far, handed out now and then while a run goes on, for a small share of its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.passes.thumbnails import ImageTables
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.engine.run.gatherer import Gatherer
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.store.marks import marks_json
from ndissect.store.model import Dissection

#: Takes what is known after so many images: equal to a dissection of those alone, but where a second forward pass is
#: needed, when thresholds and top images are those of all. Top images are left out while they would take too long.
Publish = Callable[[Dissection, int], None]
# Results so far take at most this share of the time of the pass during which they are made.
_SHARE = 0.02
# Seconds that an image is expected to take, its labels and its thumbnail, before any was read.
_IMAGE_SECONDS = 2e-3


class _TooDear(Exception):
    """Results so far would take more time than is left for them."""


class Allowance:
    """How many seconds results so far may take during a pass over ``total`` images: a share of the pass's own.

    The pass is taken to go on as fast as it went since ``look`` was called first. ``every``: seconds from then to the
    first results, and from results to the next at least.
    """

    def __init__(self, total: int, every: float) -> None:
        self._total, self._every = total, every
        self._first: tuple[float, int] | None = None
        self._next = 0.0
        self._spent = 0.0

    def look(self, now: float, done: int) -> float:
        """The seconds that results may take now, after ``done`` images; 0 where it is not their time."""
        if self._first is None:
            self._first, self._next = (now, done), now + self._every
        began, before = self._first
        if now < self._next or done <= before:
            return 0.0
        whole = (now - began) * (self._total - before) / (done - before)
        return max(_SHARE * whole - self._spent, 0.0)

    def spend(self, seconds: float, now: float) -> None:
        """Count what results took, or trying to make them; it is ``now`` afterwards."""
        self._spent += seconds
        self._next = now + max(self._every, seconds / _SHARE)


class Publisher:
    """Hands results so far to ``publish`` now and then, until memory does not suffice for it.

    ``images``: what was read of top images, to be used again.
    """

    def __init__(self, publish: Publish, forward_pass: ForwardPass, gatherer: Gatherer) -> None:
        self._publish, self._pass, self._gatherer = publish, forward_pass, gatherer
        total, every = len(forward_pass.loader.dataset), forward_pass.settings.publish_every
        self._gathering, self._counting = Allowance(total, every), Allowance(total, every)
        self.images = ImageTables(forward_pass.loader)
        self._image_seconds = _IMAGE_SECONDS
        self._fits = True

    def gathered(self) -> None:
        """During the first pass: a dissection of the images so far, where all that may fire is kept."""
        candidates = self._gatherer.candidates
        if self._gatherer.keeps_candidates and not candidates.full and candidates.batches:
            images = sum(len(batch.images) for batch in candidates.batches)
            self._now_and_then(self._gathering, images, self._count_gathered)

    def counted(self, counter: MaskCounter) -> None:
        """During the second pass."""
        self._now_and_then(self._counting, counter.images, lambda until: counter)

    def _count_gathered(self, until: float) -> MaskCounter:
        """The candidates so far, counted; :class:`_TooDear` as soon as that is not going to be done in time."""
        p, gatherer = self._pass, self._gatherer
        counter = MaskCounter(
            p.loader,
            gatherer.geometries,
            [quantile.so_far() for quantile in gatherer.quantiles],
            [top.result() for top in gatherer.tops],
            p.device,
            Clock(),
            Progress(),
            grouping=group_images(p.loader.dataset, by_block=False),
        )
        candidates, began = gatherer.candidates, time.monotonic()
        images = sum(len(batch.images) for batch in candidates.batches)

        def look() -> None:
            if began + (time.monotonic() - began) * images / counter.images > until:
                raise _TooDear

        counter.count_candidates(candidates.batches, candidates.labels, tell=False, after=look)
        self._keep_images(counter, until)
        return counter

    def _keep_images(self, counter: MaskCounter, until: float) -> None:
        """Give ``counter`` its top images, where there is time to read those that were not read before."""
        began, new = time.monotonic(), self.images.unread(counter.distinct_images())
        if began + new * self._image_seconds > until:
            return
        counter.keep_images(self.images)
        if new:
            self._image_seconds = (time.monotonic() - began) / new

    def _record(self, images: int) -> dict[str, Any]:
        """What is said of results so far: how many images they are of, and what is wrong with the network."""
        partial = {"partial": {"images": images, "of": len(self._pass.loader.dataset)}}
        marks = self._pass.examination.marks
        return partial | ({"marks": marks_json(marks)} if marks else {})

    def _now_and_then(self, allowance: Allowance, images: int, count: Callable[[float], MaskCounter]) -> None:
        began = time.monotonic()
        seconds = allowance.look(began, images) if self._fits else 0.0
        if not seconds:
            return
        try:
            counter = count(began + seconds)
            self._publish(conclude(counter, self._record(counter.images)), counter.images)
        except _TooDear:
            pass  # the more images are left, the more time there is
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or out_of_memory(e)):
                raise
            self._fits = False
            self._pass.progress.note("not enough memory to show results before the end")
        ended = time.monotonic()
        allowance.spend(ended - began, ended)
