"""A concept's units set to a high value at one location of the map at a time: where does the concept appear?

Bau et al., PNAS 2020; docs/method.md, section 7.6; docs/insert.md.

::

    insertion = insert(GeneratorRequest(Path("church.nd.h5"), "layer4"), "door")
    insertion.by_context      # doors go where buildings are, and not into the sky

Every sample is drawn once. What follows the layer then runs for a batch of samples at a time, and each picture of the
batch is edited at another location.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.generated import HIGH, Generated, GeneratorRequest, open_generated, set_units
from ndissect.engine.experiments.insertion_counts import (
    ContextChange,
    Insertions,
    by_context,
    of_all,
)
from ndissect.engine.experiments.saved_predictions import How, SavedPredictions
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.state import State, demand_form
from ndissect.engine.networks.tail import Tail
from ndissect.store.bootstrap import block_of
from ndissect.store.errors import WrongUse
from ndissect.store.scores import Floats

#: Units that are set, and samples in which, unless others are named (PNAS: the 20 best units).
UNITS, SAMPLES = 20, 100
#: All locations of a map with no more of them; of a larger one so many of each sample, at random.
LOCATIONS = 64
#: Samples of which pictures are kept, the first ones.
SHOWN = 6
_SEED = 0


@dataclass(frozen=True)
class Example:
    """One sample, for a picture: before, and after the insertion that brought most pixels of the concept.

    ``before``, ``after`` (H, W, 3) uint8; ``change`` (h, w) float64: by location, NaN where nothing was inserted;
    ``best``: the row and the column of the location of ``after``.
    """

    number: int
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    change: Floats
    best: tuple[int, int]


@dataclass(frozen=True)
class Insertion:
    """What inserting the concept ``label`` by ``units`` of ``layer``, of the IoUs ``ious`` with it, did.

    ``values``: what the units were set to, their quantile ``quantile``. ``concepts``: names by row. ``counts``: each of
    the insertions; ``by_context`` and ``all``: their means, the largest change first. ``chosen``: which locations, in
    words. ``how``: what was run; ``reason``: why the whole network, where it was.
    """

    network: str
    layer: str
    label: str
    labeller: str
    units: tuple[int, ...]
    ious: tuple[float, ...]
    values: tuple[float, ...]
    quantile: float
    concepts: tuple[str, ...]
    picture: tuple[int, int]
    counts: Insertions
    by_context: tuple[ContextChange, ...]
    all: ContextChange
    chosen: str
    examples: tuple[Example, ...]
    how: How
    reason: str
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """In so many samples."""
        return len(self.counts.location)


def insert(
    request: GeneratorRequest,
    label: str,
    *,
    units: int | None = None,
    samples: int = SAMPLES,
    quantile: float = HIGH,
    every: int | None = None,
    console: Console | None = None,
) -> Insertion:
    """Set the ``units`` best units (by IoU) for the concept ``label`` to their ``quantile``, a location at a time.

    ``units``: None, 20, or all of a layer that has fewer. ``samples``: the first so many of the store, at most all.
    ``every``: only every so many-th row and column of the map; None: all locations, or 64 of each sample at random
    where there are more. What is measured is kept on the disk now and then, and the same call goes on from there.
    WrongUse for a concept that is not labelled, and for units that the layer does not have; NDError as of
    open_generated; what ``console`` makes of an interrupt passes through.
    """
    console = console or Console()
    left: list[SavedPredictions] = []
    try:
        with console.listening(), open_generated(request, console) as g, console.progress() as progress:
            return _insert(g, label, units, samples, quantile, every, console, progress, left)
    except KeyboardInterrupt as e:
        again = shlex.join(console.goes_on)
        if left and left[0].there:
            raise console.stopped(e, "what was measured is saved", f"go on: {again}") from None
        raise console.stopped(e, "nothing was measured to the end", f"start again: {again}") from None


def _insert(
    g: Generated,
    label: str,
    units: int | None,
    samples: int,
    quantile: float,
    every: int | None,
    console: Console,
    progress: Progress,
    left: list[SavedPredictions],
) -> Insertion:
    concept, there = g.concept(label), len(g.ious)
    if units is not None and not 0 < units <= there:
        raise WrongUse(f"{g.layer.name} has {there} units, not {units}", f"--units takes 1 to {there}")
    chosen = g.best_units(concept)[: min(units or UNITS, there)]
    samples = min(samples, g.count)
    location = np.stack([locations(number, g.map_size, every) for number in range(samples)])
    said: dict[str, Any] = {"concept": concept, "units": chosen, "quantile": quantile, "samples": samples}
    work = _Work(g, concept, chosen, location, console, progress, _saved(g, {**said, "every": every}, progress))
    left.append(work.saved)
    with g.running(), console.saving_first():
        work.run(quantile)
    work.saved.remove()
    block = np.array([block_of(g.samples.dataset.names[number]) for number in range(samples)], np.int64)
    counts = work.counts
    return Insertion(
        network=g.network.name,
        layer=g.layer.name,
        label=g.concepts.label(concept),
        labeller=g.labeller.spec,
        units=tuple(chosen),
        ious=tuple(g.ious[chosen, concept].tolist()),
        values=tuple(work.values.tolist()),
        quantile=quantile,
        concepts=tuple(g.concepts.label(row) for row in range(len(g.concepts))),
        picture=g.generator.size,
        counts=counts,
        by_context=by_context(counts, block, g.map_size),
        all=of_all(counts, block, g.map_size),
        chosen=_chosen(g.map_size, location.shape[1], every),
        examples=work.examples(),
        how=work.how,
        reason=work.reason,
        notes=g.notes,
    )


def locations(sample: int, map_size: tuple[int, int], every: int | None = None) -> npt.NDArray[np.int32]:
    """(L,) int32: the locations of a map, row by row, at which is inserted in a sample; as many in every sample."""
    height, width = map_size
    if every is not None:
        rows, columns = (np.arange(min(every // 2, n - 1), n, every) for n in (height, width))
        return np.asarray((rows[:, None] * width + columns).ravel(), np.int32)
    if height * width <= LOCATIONS:
        return np.arange(height * width, dtype=np.int32)
    rng = np.random.default_rng([_SEED, sample])
    return np.sort(rng.choice(height * width, LOCATIONS, replace=False)).astype(np.int32)


def _chosen(map_size: tuple[int, int], many: int, every: int | None) -> str:
    """Which locations of each sample, in words."""
    height, width = map_size
    if many == height * width:
        return f"all {height} x {width} locations of the map"
    if every is not None:
        return f"every {every}. row and column of the {height} x {width} map, {many} locations"
    return f"{many} random ones of the {height} x {width} locations of the map, other ones in each sample"


def middles(map_size: tuple[int, int], picture: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows (h,) and columns (w,) of the pixels at the middle of each location's square."""
    rows, columns = (
        (2 * torch.arange(cells) + 1) * pixels // (2 * cells) for cells, pixels in zip(map_size, picture, strict=True)
    )
    return rows, columns


def squares(map_size: tuple[int, int], picture: tuple[int, int]) -> Tensor:
    """(H, W) int64: the location in whose square each pixel lies."""
    row, column = (torch.arange(pixels) * cells // pixels for cells, pixels in zip(map_size, picture, strict=True))
    return row[:, None] * map_size[1] + column


def _saved(g: Generated, said: dict[str, Any], progress: Progress) -> SavedPredictions:
    """Where what is measured is kept meanwhile, beside the store."""
    key = {
        "experiment": "insert",
        "network": [g.network.spec, g.network.digest],
        "layer": [g.layer.name, str(g.layer.tap)],
        "samples": [g.samples.dataset.tables_digest(), dict(g.samples.dataset.record)],
        **said,
    }
    return SavedPredictions(g.store, key, progress)


class _Work:
    """The samples as they are edited, batch after batch."""

    def __init__(
        self,
        g: Generated,
        concept: int,
        units: Sequence[int],
        location: npt.NDArray[np.int32],
        console: Console,
        progress: Progress,
        saved: SavedPredictions,
    ) -> None:
        self._g, self._concept, self._units, self._location = g, concept, list(units), location
        self._console, self._progress, self.saved = console, progress, saved
        self.how: How = "tail"
        self.reason = ""
        self.values = torch.empty(0)
        n, (height, width) = len(location), g.generator.size
        shown = min(SHOWN, n)
        # The state that is saved. Of the shown samples, `after` is the picture of the best insertion so far.
        self._context, self._change, self._gained, self._inside = (
            torch.zeros(location.shape, dtype=torch.int32) for _ in range(4)
        )
        self._before = torch.zeros((shown, 3, height, width), dtype=torch.uint8)
        self._after = torch.zeros_like(self._before)
        self._done = 0
        self._squares = squares(g.map_size, g.generator.size).to(g.labeller.device)
        self._middles = tuple(x.to(g.labeller.device) for x in middles(g.map_size, g.generator.size))

    def run(self, quantile: float) -> None:
        """Insert into all samples that are not over yet."""
        g, progress = self._g, self._progress
        n, each = self._location.shape
        progress.busy("high values")
        self.values = g.high_values(quantile)[self._units].cpu()
        self._restore()
        if self._done:
            progress.note(f"going on after {self._done} of {n} samples")
        progress.start("insertion", n * each, self._done * each)
        progress.counts = "pictures"
        began, before = time.monotonic(), self._done * each
        made = before
        with Tail(g.network.module, g.tap) as tail:
            for samples in g.batches(range(self._done, n)):
                for _ in self._batch(tail, samples):
                    made += len(samples)
                    progress.left = (time.monotonic() - began) / (made - before) * (n * each - made)
                    progress.advance(len(samples))
                    self._stop()
                self._done = samples[-1] + 1
                self.how, self.reason = ("tail", "") if tail.alone else ("network", tail.reason)
                if self.saved.due:
                    self._save()

    def _batch(self, tail: Tail, samples: list[int]) -> Iterator[None]:
        """Insert into these samples, one location of each after another; yields after each."""
        g, concept = self._g, self._concept
        plain = g.pictures(tail.start(g.inputs(samples)))
        rows = g.rows(plain)
        was = (rows == concept).any(1)
        here = torch.from_numpy(self._location[samples]).long().to(rows.device)
        row, column = self._middles[0], self._middles[1]
        middle = rows[:, 0][:, row][:, :, column].flatten(1)  # the first map: by the network, where there is one
        self._context[samples] = middle.gather(1, here).int().cpu()
        shown = [(i, sample) for i, sample in enumerate(samples) if sample < len(self._before)]
        for i, sample in shown:
            self._before[sample] = plain[i].cpu()
        results: list[Tensor] = []
        best: dict[int, int] = {}
        for at in range(here.shape[1]):
            cells = self._cells(here[:, at])
            drawn = g.pictures(tail.run(partial(set_units, units=self._units, values=self.values, cells=cells)))
            holds = (g.rows(drawn) == concept).any(1)
            new = holds & ~was
            inside = new & (self._squares == here[:, at, None, None])
            change = holds.flatten(1).sum(1) - was.flatten(1).sum(1)
            results.append(torch.stack([change, new.flatten(1).sum(1), inside.flatten(1).sum(1)]).int().cpu())
            for i, sample in shown:
                if (by := int(results[-1][0, i])) > best.get(sample, -(1 << 31)):
                    best[sample] = by
                    self._after[sample] = drawn[i].cpu()
            yield
        self._change[samples], self._gained[samples], self._inside[samples] = torch.stack(results, 2)

    def _cells(self, location: Tensor) -> Tensor:
        """(n, h, w) bool: one location of each map."""
        height, width = self._g.map_size
        number = torch.arange(height * width, device=location.device)
        return (number == location[:, None]).view(-1, height, width)

    @property
    def counts(self) -> Insertions:
        """What each insertion changed."""
        measured = (self._context, self._change, self._gained, self._inside)
        return Insertions(self._location, *(x.numpy() for x in measured))

    def examples(self) -> tuple[Example, ...]:
        """The first samples, with what was inserted best."""
        height, width = self._g.map_size
        made = []
        for sample in range(len(self._before)):
            change = np.full(height * width, np.nan)
            change[self._location[sample]] = self._change[sample].numpy()
            best = int(self._location[sample][int(self._change[sample].argmax())])
            before, after = (x[sample].permute(1, 2, 0).numpy() for x in (self._before, self._after))
            made.append(Example(sample, before, after, change.reshape(height, width), divmod(best, width)))
        return tuple(made)

    # What is kept on the disk meanwhile

    def _state(self) -> State:
        named = ("context", "change", "gained", "inside", "before", "after")
        return {name: getattr(self, f"_{name}") for name in named}

    def _save(self) -> None:
        self.saved.save(self._state(), {"done": self._done, "how": self.how, "reason": self.reason})

    def _stop(self) -> None:
        stop = self._console.stop()
        if stop is not None:
            if self._done:
                self._save()
            raise stop

    def _restore(self) -> None:
        """Take over what was saved, if it is of this work."""
        there = self.saved.load()
        if there is None:
            return
        done, mine = there.record.get("done"), self._state()
        try:
            demand_form(there.state, mine)
        except (KeyError, ValueError):
            return
        if isinstance(done, int) and 0 <= done <= len(self._location):
            for name, tensor in mine.items():
                tensor.copy_(there.state[name])
            self._done, self.reason = done, str(there.record.get("reason", ""))
            self.how = "network" if self.reason else "tail"
