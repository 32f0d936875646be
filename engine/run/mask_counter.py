"""Counts masks at known thresholds: under the images' own labels, and under the other images' of the null."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.device import Halving
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.ranks import Ranks
from ndissect.engine.machine.state import State, demand_form, under, within
from ndissect.engine.machine.timing import Clock
from ndissect.engine.measures.candidates import CandidateBatch
from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.label_store import LabelStore
from ndissect.engine.measures.pairing import null_images
from ndissect.engine.measures.pieces import first_images, in_pieces, together
from ndissect.engine.measures.tally import ConceptTally, Tally
from ndissect.engine.measures.top import Top
from ndissect.engine.passes.forward import Consumer
from ndissect.engine.passes.grouping import Grouping, ungrouped
from ndissect.engine.passes.labels import Labelling
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.passes.thumbnails import ImageTables
from ndissect.store.model import ImageTable, TopImages, UnitStatistics

# What the null costs is judged by one in this many images: a few percent of what it takes.
_TRIAL_SHARE = 64
# Images whose labels are read at once.
_READ_AT_ONCE = 64


class MaskCounter:
    """Counts the masks of layers at known thresholds, over any number of images, by group of images.

    ``statistics``: of each layer's units, with their thresholds; ``tops``: their top images; ``device``: where to
    count. ``tallies`` of the layers' masks, and ``concepts`` of the labels alone, each in slots: those of ``observed``
    are the image groups under their own labels, those of ``null`` the ways in which images are paired with the labels
    of others. ``top_images``, ``images_table``: after :meth:`keep_images`.
    """

    def __init__(
        self,
        loader: Loader,
        geometries: Sequence[LayerGeometry],
        statistics: Sequence[UnitStatistics],
        tops: Sequence[Top],
        device: torch.device,
        clock: Clock,
        progress: Progress,
        *,
        grouping: Grouping | None = None,
        pairings: int = 0,
    ) -> None:
        self.loader, self.geometries, self.statistics, self.tops = loader, geometries, statistics, tops
        self.device, self.clock, self._progress = device, clock, progress
        self.grouping = grouping or ungrouped(len(loader.dataset))
        self._group_of = self.grouping.of.numpy()
        self._thresholds = [torch.from_numpy(s.threshold).to(device) for s in statistics]
        concepts, groups, slots = loader.dataset.concepts, self.grouping.count, self.grouping.count + pairings
        self.observed, self.null = slice(groups), slice(groups, slots)
        self.concepts = ConceptTally(len(concepts), slots, device)
        self.tallies = [Tally(p.units, len(concepts), len(concepts.categories), slots, device) for p in geometries]
        self._paired = null_images(loader.dataset.names, pairings)
        self.top_images: list[TopImages] = []
        self.images_table: ImageTable | None = None

    def distinct_images(self) -> list[int]:
        """The top images of all layers, each once, in rising order."""
        images = np.unique(np.concatenate([top.image.ravel() for top in self.tops]))
        return [int(i) for i in images if i >= 0]

    def keep_images(self, tables: ImageTables | None = None) -> None:
        """Read the top images of all layers, for their thumbnails and labels; ``tables`` may know some of them."""
        distinct = self.distinct_images()
        row_of = np.full(len(self.loader.dataset) + 1, -1, np.int32)
        row_of[distinct] = np.arange(len(distinct))
        self.top_images = [TopImages(row_of[top.image], top.peak, top.maps) for top in self.tops]
        with self.clock.during("images"):
            self.images_table = (tables or ImageTables(self.loader)).table(distinct)

    # Of candidates, kept from the first pass

    def count_candidates(
        self,
        batches: Sequence[CandidateBatch],
        labels: LabelStore | None = None,
        *,
        tell: bool,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Count what fires of what may fire; ``tell``: let the progress know; ``after``: to do after some batches.

        ``labels``: of these images and others; what is not there is read again.
        """
        held = LabelStore() if labels is None else labels
        images = np.array([image for batch in batches for image in batch.images], np.int64)
        if not len(held.lacks(images)):
            self._add_others(held, images)
        at_hand = self._at_hand(images, held)
        # Where labels are gathered for it, a piece is a batch, so that they stay few.
        pieces = list(in_pieces(batches, self.device)) if at_hand else [[batch] for batch in batches]
        gathered = None if at_hand else self._gathered([piece[0].images for piece in pieces], held)
        for piece in pieces:
            store = held if gathered is None else next(gathered)
            with self.clock.during("tally", self.device):
                batch = together(piece, self.device)
                self._count_batch(batch, self._labellings(batch.images, store))
            if tell:
                self._progress.advance(len(batch.images))
            if after:
                after()

    def _add_others(self, held: LabelStore, images: npt.NDArray[np.int64]) -> None:
        """Add what ``held`` lacks for the null of ``images`` if it has the room: few, that could not be used."""
        lacking = held.lacks(self._labelled_as(images))
        if 0 < len(lacking) <= held.spare:
            with self.clock.during("null"):
                some = [lacking[s : s + _READ_AT_ONCE] for s in range(0, len(lacking), _READ_AT_ONCE)]
                read = self.loader.read_labels([numbers.tolist() for numbers in some], unreadable_as_none=True)
                for numbers, labels in zip(some, read, strict=True):
                    held.add(numbers, labels)

    def _at_hand(self, images: npt.NDArray[np.int64], held: LabelStore) -> bool:
        """Whether all labels that some images are counted under can be looked up in ``held`` where they are counted."""
        return held.device == self.device and not len(held.lacks(self._labelled_as(images)))

    def _labelled_as(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(P, N): the images whose labels these are counted under, first their own."""
        return np.concatenate([images[None], self._paired[:, images]])

    def _labellings(self, images: Sequence[int], labels: LabelStore) -> list[Labelling]:
        """What some images are counted under by each layer, all in ``labels``; what it holds is counted now."""
        numbers = np.asarray(images, np.int64)
        wanted = self._labelled_as(numbers)
        slots = np.empty_like(wanted)
        slots[0], slots[1:] = self._group_of[numbers], np.arange(self.null.start, self.null.stop)[:, None]
        labelling = labels.labelling(wanted, slots)
        self.concepts.add(labelling)
        judged_on = [geometry.judged_on for geometry in self.geometries]
        of_images = labelling.of_images() if "images" in judged_on else labelling
        return [of_images if what == "images" else labelling for what in judged_on]

    def _gathered(self, pieces: Sequence[Sequence[int]], held: LabelStore) -> Iterator[LabelStore]:
        """For the images of each piece all labels that they are counted under, from ``held`` or read ahead."""
        own = [np.array(images, np.int64) for images in pieces]
        missing = [held.lacks(images) for images in own]
        others = [np.setdiff1d(self._paired[:, images], images) for images in own]
        missing_others = [held.lacks(images) for images in others]
        read = self.loader.read_labels([images.tolist() for images in missing if len(images)])
        read_others = self.loader.read_labels(
            [images.tolist() for images in missing_others if len(images)], unreadable_as_none=True
        )
        for mine, absent, theirs, absent_others in zip(own, missing, others, missing_others, strict=True):
            store = LabelStore(self.device, len(mine) + len(theirs))
            with self.clock.during("labels"):
                store.add_from(held, np.setdiff1d(mine, absent))
                if len(absent):
                    store.add(absent, next(read))
            with self.clock.during("null"):
                store.add_from(held, np.setdiff1d(theirs, absent_others))
                if len(absent_others):
                    store.add(absent_others, next(read_others))
            yield store

    def _count_batch(self, batch: CandidateBatch, labellings: Sequence[Labelling]) -> None:
        for i, (layer, labelling) in enumerate(zip(batch.layers, labellings, strict=True)):
            if isinstance(layer, Cells):
                rows, cols = self.geometries[i].axes
                self.tallies[i].add_cells(layer.to(self.device), self._thresholds[i], rows, cols, labelling)
            else:
                count = partial(self._count_some, i, layer, labellings)
                Halving(len(layer), self._progress).run(len(layer), count)

    def _count_some(self, i: int, maps: Tensor, labellings: Sequence[Labelling], images: slice) -> None:
        self._count_maps(labellings, i, maps[images].to(self.device), images)

    def cost_of_pairings(self, batches: Sequence[CandidateBatch], labels: LabelStore, count: int) -> float:
        """About how many seconds ``count`` pairings of the null take for these batches, judged by some images."""
        images = sum(len(batch.images) for batch in batches)
        piece = self._trial_piece(batches, max(1, images // _TRIAL_SHARE))
        seconds = []
        for pairings in (0, count):
            trial = MaskCounter(
                self.loader,
                self.geometries,
                self.statistics,
                self.tops,
                self.device,
                Clock(),
                self._progress,
                pairings=pairings,
            )
            # On an image first: what is only done once, such as compiling a kernel, is no part of it.
            trial._seconds([first_images(piece[0], 1)], labels)
            seconds.append(trial._seconds(piece, labels))
        return max(seconds[1] - seconds[0], 0.0) * images / sum(len(batch.images) for batch in piece)

    def _seconds(self, batches: Sequence[CandidateBatch], labels: LabelStore) -> float:
        """How long it takes to count some batches."""
        images = np.array([image for batch in batches for image in batch.images], np.int64)
        # Where this thread does it all, other programs that take the processor for a moment are no part of it.
        alone = self.device.type == "cpu" and self._at_hand(images, labels)
        clock = time.thread_time if alone else time.perf_counter
        began = clock()
        self.count_candidates(batches, labels, tell=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return clock() - began

    def _trial_piece(self, batches: Sequence[CandidateBatch], most: int) -> list[CandidateBatch]:
        """Up to ``most`` images of those that would be counted together, from the middle of the batches."""
        pieces = list(in_pieces(batches, self.device))
        piece = []
        for batch in pieces[len(pieces) // 2]:
            if most > 0:
                piece.append(first_images(batch, most))
            most -= len(batch.images)
        return piece

    # Of maps, as the network gives them

    def consumer(self, batch: Batch) -> Consumer:
        """What counts the layers of a batch (ndissect.engine.passes.forward); its labels are counted now."""
        store = LabelStore(self.device, len(batch) * (1 + self.pairings))
        store.add(batch.images, batch.labels)
        with self.clock.during("null", self.device):
            others = store.lacks(self._paired[:, batch.images])
            if len(others):
                [labels] = self.loader.read_labels([others.tolist()], unreadable_as_none=True)
                store.add(others, labels)
        return partial(self._count_maps, self._labellings(batch.images, store))

    def _count_maps(self, labellings: Sequence[Labelling], i: int, maps: Tensor, images: slice) -> None:
        """Count layer ``i`` of some images, ``maps`` (N, U, h, w); after running out of memory nothing is counted."""
        rows, cols = self.geometries[i].axes
        upsampling = self.loader.protocol.upsampling
        self.tallies[i].add(maps, self._thresholds[i], rows, cols, upsampling, labellings[i][images])

    @property
    def pairings(self) -> int:
        """In how many ways the null pairs the images."""
        return len(self._paired)

    @property
    def images(self) -> int:
        """How many images were counted."""
        return int(self.concepts.images(self.observed).sum())

    def share(self, ranks: Ranks) -> None:
        """Add up what all processes have counted."""
        for total in self._counted().values():
            ranks.sum(total)

    # Saved, and gone on from

    def state(self) -> State:
        """All that :meth:`resumed` needs."""
        state = self._counted() | {"pairings": torch.tensor(self.pairings)}
        for i, (stats, top) in enumerate(zip(self.statistics, self.tops, strict=True)):
            state |= under(f"{i}.statistics", _tensors(stats)) | under(f"{i}.top", _tensors(top))
        return state

    def _counted(self) -> State:
        """What was counted, additive, tensor by tensor."""
        state = under("concepts", self.concepts.state())
        for i, tally in enumerate(self.tallies):
            state |= under(f"{i}.tally", tally.state())
        return state

    @classmethod
    def resumed(
        cls,
        loader: Loader,
        geometries: Sequence[LayerGeometry],
        state: State,
        grouping: Grouping,
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ) -> MaskCounter:
        """The counter whose ``state`` was saved, and which counted by ``grouping``.

        ValueError or KeyError where the state is of other layers, groups or data.
        """
        layers = range(len(geometries))
        for i, geometry in enumerate(geometries):
            _demand_layer(state, i, geometry, len(loader.dataset))
        pairings, slots = int(state["pairings"]), len(state["concepts.area"])
        if pairings < 0 or slots != grouping.count + pairings:
            raise ValueError(f"{pairings} pairings of the null and {grouping.count} groups in {slots} slots")
        counter = cls(
            loader,
            geometries,
            [UnitStatistics(**_arrays(within(state, f"{i}.statistics"))) for i in layers],
            [Top(**_arrays(within(state, f"{i}.top"))) for i in layers],
            device,
            clock,
            progress,
            grouping=grouping,
            pairings=pairings,
        )
        counter.concepts.restore(within(state, "concepts"))
        for i, tally in enumerate(counter.tallies):
            tally.restore(within(state, f"{i}.tally"))
        return counter


def _demand_layer(state: State, i: int, geometry: LayerGeometry, images: int) -> None:
    """ValueError or KeyError where the statistics and the top images in ``state`` are not of layer ``i``."""
    one, top = torch.zeros(geometry.units), within(state, f"{i}.top")
    statistics = {"threshold": one.double(), "dead": one.bool(), "nan": one.long(), "inf": one.long()}
    demand_form(within(state, f"{i}.statistics"), statistics | {"minimum": one, "maximum": one})
    shape = (geometry.units, *top["image"].shape[1:2])
    demand_form(top, {"image": torch.zeros(shape, dtype=torch.int64), "peak": torch.zeros(shape)})
    demand_form(top, {"maps": torch.zeros(*shape, *geometry.map_size)})
    if not bool(((top["image"] >= -1) & (top["image"] < images)).all()):
        raise ValueError(f"top images of {geometry.name} that are not in the data")


def _tensors(arrays: UnitStatistics | Top) -> State:
    return {name: torch.from_numpy(array) for name, array in vars(arrays).items()}


def _arrays(state: State) -> dict[str, Any]:
    return {name: t.cpu().numpy() for name, t in state.items()}
