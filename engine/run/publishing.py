"""Results so far, handed out now and then while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.engine.run.gatherer import Gatherer
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.store.marks import marks_json
from ndissect.store.model import Dissection

#: Takes what is known after so many images: equal to a dissection of those alone, but where a second forward pass is
#: needed, when thresholds and top images are those of all.
Publish = Callable[[Dissection, int], None]
# Results so far take at most one part in this many of a pass's time.
_SHARE = 20


class Publisher:
    """Hands results so far to ``publish`` now and then, until memory does not suffice for it."""

    def __init__(self, publish: Publish, forward_pass: ForwardPass, gatherer: Gatherer) -> None:
        self._publish, self._pass, self._gatherer = publish, forward_pass, gatherer
        self._next = 0.0
        self._fits = True

    def gathered(self) -> None:
        """During the first pass: a dissection of the images so far, where all that may fire is kept."""
        candidates = self._gatherer.candidates
        if self._gatherer.keeps_candidates and not candidates.full and candidates.batches:
            self._now_and_then(self._count_gathered)

    def counted(self, counter: MaskCounter) -> None:
        """During the second pass."""
        self._now_and_then(lambda: counter)

    def _count_gathered(self) -> MaskCounter:
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
        counter.keep_images()
        counter.count_candidates(gatherer.candidates.batches, gatherer.candidates.labels, tell=False)
        return counter

    def _record(self, images: int) -> dict[str, Any]:
        """What is said of results so far: how many images they are of, and what is wrong with the network."""
        partial = {"partial": {"images": images, "of": len(self._pass.loader.dataset)}}
        marks = self._pass.examination.marks
        return partial | ({"marks": marks_json(marks)} if marks else {})

    def _now_and_then(self, count: Callable[[], MaskCounter]) -> None:
        began = time.monotonic()
        if not self._fits or began < self._next:
            return
        try:
            counter = count()
            self._publish(conclude(counter, self._record(counter.images)), counter.images)
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or out_of_memory(e)):
                raise
            self._fits = False
            self._pass.progress.note("not enough memory to show results before the end")
        ended = time.monotonic()
        self._next = ended + max(self._pass.settings.publish_every, _SHARE * (ended - began))
