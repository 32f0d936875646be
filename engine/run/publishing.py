"""What a run has found so far, handed out now and then while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.count_pass import CountPass
from ndissect.engine.run.gather_pass import GatherPass
from ndissect.engine.run.settings import Settings
from ndissect.store.marks import Mark, marks_json
from ndissect.store.model import Dissection

#: Takes what is known after so many images: equal to a dissection of those alone, but where a second forward pass is
#: needed, when thresholds and top images are those of all.
Publish = Callable[[Dissection, int], None]
# Results so far take at most one part in this many of a pass's time.
_SHARE = 20


class Publisher:
    """Hands out what a run has found so far, now and then, until memory does not suffice for it."""

    def __init__(
        self,
        publish: Publish,
        loader: Loader,
        gathering: GatherPass,
        settings: Settings,
        device: torch.device,
        progress: Progress,
        marks: Sequence[Mark] = (),
    ) -> None:
        self._marked = {"marks": marks_json(marks)} if marks else {}
        self._publish, self._loader, self._gathering = publish, loader, gathering
        self._settings, self._device, self._progress = settings, device, progress
        self._next = 0.0
        self._fits = True

    def gathered(self) -> None:
        """During the first pass: a dissection of the images so far, where all that may fire is kept."""
        g = self._gathering
        if g.keeps and not g.kept.full and g.kept.pieces:
            self._now_and_then(self._of_gathered)

    def counted(self, counting: CountPass) -> None:
        """During the second pass."""
        self._now_and_then(lambda: counting)

    def _of_gathered(self) -> CountPass:
        g = self._gathering
        statistics, tops = [q.so_far() for q in g.quantiles], [t.result() for t in g.tops]
        grouping = group_images(self._loader.dataset, by_block=False)
        counting = CountPass(
            *(self._loader, g.geometries, statistics, tops, self._device, Clock(), Progress()), grouping=grouping
        )
        counting.keep_images()
        counting.count_pieces(g.kept.pieces, tell=False)
        return counting

    def _now_and_then(self, find: Callable[[], CountPass]) -> None:
        began = time.monotonic()
        if not self._fits or began < self._next:
            return
        try:
            counting = find()
            images, of = counting.images, len(self._loader.dataset)
            record = {"partial": {"images": images, "of": of}, **self._marked}
            self._publish(conclude(counting, record), images)
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or out_of_memory(e)):
                raise
            self._fits = False
            self._progress.note("not enough memory to show results before the end")
        ended = time.monotonic()
        self._next = ended + max(self._settings.publish_every, _SHARE * (ended - began))
