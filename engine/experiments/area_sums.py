"""How many pixels hold each concept in a generator's pictures, with all units of a layer and without sets of them.

::

    areas = areas_without(g, [(3,), (7,), (3, 7)], range(500), progress=progress)
    areas.change[2]             # (C,): how the share of each concept's pixels changes without both
    areas.low[2], areas.high[2]

The whole generator runs once a batch, and for each set what follows the layer. All that is kept are whole numbers of
pixels by block of samples: their sums are the same however the work was cut, and after a kill it goes on with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.generated import Generated, set_units
from ndissect.engine.experiments.saved_predictions import SavedPredictions
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.tail import Tail
from ndissect.store.counts import BLOCKS, Ints
from ndissect.store.errors import WrongUse
from ndissect.store.intervals import margin
from ndissect.store.scores import Floats


@dataclass(frozen=True)
class Areas:
    """Pixels of C concepts in pictures, by block: sample i is in block i modulo B.

    ``samples`` (B,) int64; ``before`` (B, C) int64: pixels with all units; ``after`` (B, S, C) int64: the same without
    each of the S ``sets``. ``pixels``: of a picture. ``reason``: why the whole generator was run for each set, ""
    where only what follows the layer was.
    """

    sets: tuple[tuple[int, ...], ...]
    samples: Ints
    before: Ints
    after: Ints
    pixels: int
    reason: str = ""

    @property
    def share_before(self) -> Floats:
        """(C,): the mean share of a picture's pixels that hold each concept."""
        return np.asarray(self.before.sum(0) / self._all_pixels)

    @property
    def share_after(self) -> Floats:
        """(S, C): the same without each set."""
        return np.asarray(self.after.sum(0) / self._all_pixels)

    @property
    def change(self) -> Floats:
        """(S, C): the share without each set less that with all units."""
        return np.asarray((self.after.sum(0) - self.before.sum(0)) / self._all_pixels)

    @property
    def low(self) -> Floats:
        """(S, C): the lower end of a 95 % interval of :attr:`change`, by the jackknife over the blocks of samples.

        NaN where all samples lie in one block.
        """
        return np.maximum(self.change - self._margin, -1.0)

    @property
    def high(self) -> Floats:
        """(S, C): the upper end of that interval."""
        return np.minimum(self.change + self._margin, 1.0)

    @property
    def _all_pixels(self) -> int:
        return max(int(self.samples.sum()), 1) * self.pixels

    @cached_property
    def _margin(self) -> Floats:
        """(S, C): half the width of the intervals."""
        there = np.flatnonzero(self.samples)
        if len(there) < 2:
            return np.full(self.after.shape[1:], np.nan)
        n, every = self.samples[there], self.samples.sum()
        rows = []
        for s, change in enumerate(self.change):  # a set at a time: of many sets all would be much memory
            of_block = (self.after[there, s] - self.before[there]) / self.pixels  # (b, C)
            rows.append(margin(((n[:, None] * change - of_block) / (every - n)[:, None]).T))
        return np.stack(rows) if rows else np.zeros(self.after.shape[1:])


def areas_without(
    g: Generated,
    sets: Sequence[Sequence[int]],
    samples: Sequence[int],
    *,
    saved: SavedPredictions | None = None,
    progress: Progress | None = None,
    stop: Callable[[], BaseException | None] = lambda: None,
    phase: str = "removal",
) -> Areas:
    """The pixels of each concept in these ``samples`` with all units, and with each of ``sets`` set to zero.

    ``saved``: where sums are kept now and then, and those of an earlier try taken from; ``stop``: is asked between
    sets, and what it returns is raised once they are saved. WrongUse for no samples or units that the layer does not
    have; NDError where network or labeller fail, or the device has not the memory.
    """
    units = tuple(tuple(sorted(set(some))) for some in sets)
    _demand(g, units, samples)
    work = _Work(g, units, list(samples), saved, progress or Progress(), stop, phase)
    with g.running(), Tail(g.network.module, g.tap) as tail:
        work.run(tail)
    return work.areas()


def _demand(g: Generated, sets: Sequence[Sequence[int]], samples: Sequence[int]) -> None:
    """WrongUse where there is nothing to take away, or nothing to look at."""
    if not samples:
        raise WrongUse("there are no samples to draw", "name more: --samples 250")
    have = g.ious.shape[0]
    for some in sets:
        if outside := [u for u in some if not 0 <= u < have]:
            raise WrongUse(f"{g.layer.name} has no unit {outside[0]}", f"its {have} units are 0 to {have - 1}")
        if not some:
            raise WrongUse("a set without units takes nothing away", "name a unit for each set")


@dataclass
class _Work:
    """The samples as they go through the generator, batch after batch."""

    g: Generated
    sets: tuple[tuple[int, ...], ...]
    order: list[int]
    saved: SavedPredictions | None
    progress: Progress
    stop: Callable[[], BaseException | None]
    phase: str
    #: Samples that are over; of the next ``begun`` samples so many ``sets_done`` are.
    done: int = 0
    begun: int = 0
    sets_done: int = 0
    reason: str = ""
    sums: dict[str, npt.NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        S, C = len(self.sets), len(self.g.concepts)
        self.sums = {
            "samples": np.zeros(BLOCKS, np.int64),
            "before": np.zeros((BLOCKS, C), np.int64),
            "after": np.zeros((BLOCKS, S, C), np.int64),
        }

    def areas(self) -> Areas:
        return Areas(self.sets, **self.sums, pixels=self.g.pixels, reason=self.reason)

    def run(self, tail: Tail) -> None:
        self._restore()
        S, every = max(len(self.sets), 1), len(self.order)
        made = self.done * S + self.begun * self.sets_done
        if made:
            self.progress.note(f"going on after {made} of {every * S} pictures")
        self.progress.start(self.phase, every * S, made)
        self.progress.counts = "pictures"
        began, first = time.monotonic(), made
        while self.done < every:
            size = self.begun or min(self.g.at_once, every - self.done)
            for pictures in self._batch(tail, self.order[self.done : self.done + size]):
                made += pictures
                self.progress.left = (time.monotonic() - began) / (made - first) * (every * S - made)
                self.progress.advance(pictures)
                self._save()
            self.done, self.begun, self.sets_done = self.done + size, 0, 0
            self._save()
        if self.saved is not None and self.saved.there:
            self._save(now=True)  # nothing is lost where what follows cannot be written to a store

    def _batch(self, tail: Tail, samples: list[int]) -> Any:
        """Add what the samples show to the sums; how many pictures more are done comes out after each set."""
        g, n = self.g, len(samples)
        block = torch.tensor(samples, device=g.device) % BLOCKS
        before = g.areas(g.pictures(tail.start(g.inputs(samples))))
        self.reason = "" if tail.alone else tail.reason
        if not self.begun:
            np.add.at(self.sums["samples"], np.array(samples) % BLOCKS, 1)
            self.sums["before"] += _by_block(before, block)
            self.begun = n
        idle = (tail.maps == 0).flatten(2).all(2).all(0).tolist()  # of all samples: without it nothing changes
        for row in range(self.sets_done, len(self.sets)):
            units = self.sets[row]
            after = before if all(idle[u] for u in units) else self._without(tail, units)
            self.sums["after"][:, row] += _by_block(after, block)
            self.sets_done = row + 1
            yield n
        if not self.sets:
            yield n

    def _without(self, tail: Tail, units: Sequence[int]) -> Tensor:
        nothing = torch.zeros(len(units), device=tail.maps.device)
        output = tail.run(lambda maps: set_units(maps, units, nothing))
        self.reason = "" if tail.alone else tail.reason
        return self.g.areas(self.g.pictures(output))

    def _save(self, *, now: bool = False) -> None:
        """Save the sums if it is time, or the run was told to end, which it does here."""
        stop = self.stop()
        if self.saved is not None and (now or stop is not None or self.saved.due):
            state = {name: torch.from_numpy(array) for name, array in self.sums.items()}
            self.saved.save(state, {name: getattr(self, name) for name in ("done", "begun", "sets_done", "reason")})
        if stop is not None:
            raise stop

    def _restore(self) -> None:
        """Take over what was saved, if it is of this work."""
        there = self.saved.load() if self.saved is not None else None
        if there is None:
            return
        record, sums = there.record, {name: tensor.numpy() for name, tensor in there.state.items()}
        if set(sums) != set(self.sums) or not isinstance(record.get("reason"), str):
            return
        if any(sums[name].shape != a.shape or sums[name].dtype != a.dtype for name, a in self.sums.items()):
            return
        counts = [n for n in map(record.get, ("done", "begun", "sets_done")) if isinstance(n, int) and n >= 0]
        if len(counts) < 3:
            return
        done, begun, sets_done = counts
        if done + begun != sums["samples"].sum() or done + begun > len(self.order) or sets_done > len(self.sets):
            return
        self.done, self.begun, self.sets_done, self.reason = done, begun, sets_done, record["reason"]
        self.sums = {name: array.copy() for name, array in sums.items()}


def _by_block(areas: Tensor, block: Tensor) -> Ints:
    """(B, C) int64: areas (n, C) added up by block (n,)."""
    sums = torch.zeros((BLOCKS, areas.shape[1]), dtype=torch.int64, device=areas.device)
    return sums.index_add_(0, block.to(areas.device), areas).cpu().numpy()
