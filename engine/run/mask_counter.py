"""Counts masks at known thresholds: under the images' own labels, and under the other images' of the null."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
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
from ndissect.engine.measures.pairing import Pairings
from ndissect.engine.measures.tally import ConceptTally, Tally, add_cells, add_maps
from ndissect.engine.measures.top import Top
from ndissect.engine.passes.extremes import Extremes
from ndissect.engine.passes.forward import Consumer
from ndissect.engine.passes.grouping import Grouping, ungrouped
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.passes.thumbnails import ImageTables
from ndissect.store.model import ImageTable, TopImages, UnitStatistics


class Totals:
    """What was counted of all layers under one labelling of the images: the observed one, or the null's."""

    def __init__(
        self, geometries: Sequence[LayerGeometry], concepts: int, categories: int, groups: int, device: torch.device
    ):
        self.concepts = ConceptTally(concepts, groups, device)
        self.tallies = [Tally(p.units, concepts, categories, groups, device) for p in geometries]

    def state(self) -> State:
        """All that :meth:`restore` needs; additive, tensor by tensor."""
        state = under("concepts", self.concepts.state())
        for i, tally in enumerate(self.tallies):
            state |= under(f"{i}", tally.state())
        return state

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another of the same size."""
        self.concepts.restore(within(state, "concepts"))
        for i, tally in enumerate(self.tallies):
            tally.restore(within(state, f"{i}"))


class MaskCounter:
    """Counts the masks of layers at known thresholds, over any number of images, by group of images.

    ``statistics``: of each layer's units, with their thresholds; ``tops``: their top images; ``device``: where to
    count. ``observed``: what was counted under the images' own labels; ``null``: under the labels of other images,
    paired in ``pairings`` ways, None without any. ``top_images``, ``images_table``: after :meth:`keep_images`.
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
        concepts = loader.dataset.concepts
        self.loader, self.geometries, self.statistics, self.tops = loader, geometries, statistics, tops
        self.device, self.clock, self._progress = device, clock, progress
        self.grouping = grouping or ungrouped(len(loader.dataset))
        self._thresholds = [torch.from_numpy(s.threshold).to(device) for s in statistics]
        C, K = len(concepts), len(concepts.categories)
        self.observed = Totals(geometries, C, K, self.grouping.count, device)
        self.pairings = Pairings(loader, pairings)
        self.null = Totals(geometries, C * pairings, K * pairings, 1, device) if pairings else None
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
        *,
        tell: bool,
        after: Callable[[], None] | None = None,
        labelled: Sequence[CandidateBatch] | None = None,
    ) -> None:
        """Count what fires of what may fire; ``tell``: let the progress know; ``after``: to do after each batch.

        ``labelled``: batches, these or more, whose labels need not be read again for the null.
        """
        read = self.loader.read_labels([batch.images for batch in batches if batch.labels is None])
        paired = self.pairings.labels(batches, labelled or batches) if self.null else None
        for batch in batches:
            labels = batch.labels
            if labels is None:
                with self.clock.during("labels"):
                    labels = next(read)
            null_labels = None
            if paired:
                with self.clock.during("null"):
                    null_labels = next(paired)
            with self.clock.during("tally", self.device):
                self._count_batch(batch, self._add_labels(batch.images, labels, null_labels))
            if tell:
                self._progress.advance(len(batch.images))
            if after:
                after()

    def _add_labels(
        self, images: Sequence[int], labels: LabelBatch, null_labels: LabelBatch | None
    ) -> list[LabelBatch]:
        """Count what the labels of some images hold; the labels of each of :meth:`_tallies`, on the device."""
        observed = labels.to(self.device).grouped(self.grouping.of[list(images)])
        self.observed.concepts.add(observed)
        if self.null is None or null_labels is None:
            return [observed]
        paired = null_labels.to(self.device)
        self.null.concepts.add(paired)
        return [observed, paired]

    def _tallies(self, i: int) -> list[Tally]:
        """The tallies that count the masks of layer ``i``, each under labels of its own."""
        return [totals.tallies[i] for totals in (self.observed, self.null) if totals is not None]

    def _count_batch(self, batch: CandidateBatch, labels: Sequence[LabelBatch]) -> None:
        for i, layer in enumerate(batch.layers):
            if isinstance(layer, Cells):
                rows, cols = self.geometries[i].axes
                add_cells(self._tallies(i), layer.to(self.device), self._thresholds[i], rows, cols, labels)
            else:
                Halving(len(layer), self._progress).run(len(layer), partial(self._count_some, i, layer, labels))

    def _count_some(self, i: int, maps: Tensor, labels: Sequence[LabelBatch], images: slice) -> None:
        self._count_maps(labels, i, maps[images].to(self.device), None, images)

    def cost_of_pairings(self, batches: Sequence[CandidateBatch], count: int) -> float:
        """About how many seconds ``count`` pairings of the null take for these batches, judged by some of them."""
        some = batches[:: max(1, len(batches) // 4)][:4]
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
            began = time.perf_counter()
            trial.count_candidates(some, tell=False, labelled=batches)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - began)
        share = sum(len(batch.images) for batch in some) / sum(len(batch.images) for batch in batches)
        return max(seconds[1] - seconds[0], 0.0) / share

    # Of maps, as the network gives them

    def consumer(self, batch: Batch) -> Consumer:
        """What counts the layers of a batch (ndissect.engine.passes.forward); its labels are counted now."""
        labels, null_labels = batch.labels.to(self.device), None
        if self.null:
            with self.clock.during("null", self.device):
                null_labels = next(self.pairings.labels_of([batch.images]))
        return partial(self._count_maps, self._add_labels(batch.images, labels, null_labels))

    def _count_maps(
        self, labels: Sequence[LabelBatch], i: int, maps: Tensor, _: Extremes | None, images: slice
    ) -> None:
        """Count layer ``i`` of some images, ``maps`` (N, U, h, w); after running out of memory nothing is counted."""
        rows, cols = self.geometries[i].axes
        add_maps(
            self._tallies(i),
            maps,
            self._thresholds[i],
            rows,
            cols,
            self.loader.protocol.upsampling,
            [given[images] for given in labels],
        )

    @property
    def images(self) -> int:
        """How many images were counted."""
        return self.observed.concepts.counted

    def share(self, ranks: Ranks) -> None:
        """Add up what all processes have counted."""
        for totals in (self.observed, self.null):
            for total in totals.state().values() if totals else ():
                ranks.sum(total)

    # Saved, and gone on from

    def state(self) -> State:
        """All that :meth:`resumed` needs."""
        state = under("observed", self.observed.state()) | {"pairings": torch.tensor(self.pairings.count)}
        if self.null:
            state |= under("null", self.null.state())
        for i, (stats, top) in enumerate(zip(self.statistics, self.tops, strict=True)):
            state |= under(f"{i}.statistics", _tensors(stats)) | under(f"{i}.top", _tensors(top))
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
        pairings = int(state["pairings"])
        columns = state["null.concepts.area"].shape[1] - 1 if pairings else 0
        if pairings < 0 or columns != pairings * len(loader.dataset.concepts):
            raise ValueError(f"{pairings} pairings of the null in {columns} columns")
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
        counter.observed.restore(within(state, "observed"))
        if counter.null:
            counter.null.restore(within(state, "null"))
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
