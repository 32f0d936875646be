"""From thresholds and what may fire to counts: of the images' own labels, and of the wrong ones of the null."""

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
from ndissect.engine.measures.tally import Also, ConceptTally, Tally
from ndissect.engine.measures.top import Top
from ndissect.engine.passes.extremes import Extremes
from ndissect.engine.passes.forward import Consumer
from ndissect.engine.passes.grouping import Grouping, group_images, ungrouped
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.passes.thumbnails import image_table
from ndissect.store.counts import BLOCKS
from ndissect.store.model import ImageTable, TopImages, UnitStatistics


class Totals:
    """What was counted of all layers under one labelling of the images: the right one, or the null's wrong ones."""

    def __init__(
        self, geometries: Sequence[LayerGeometry], concepts: int, categories: int, groups: int, device: torch.device
    ):
        self.concepts = ConceptTally(concepts, groups, device)
        self.tallies = [Tally(p.units, concepts, categories, groups, device) for p in geometries]

    def state(self) -> State:
        """All that :meth:`restore` needs; additive, tensor by tensor."""
        found = under("concepts", self.concepts.state())
        for i, tally in enumerate(self.tallies):
            found |= under(f"{i}", tally.state())
        return found

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another of the same size."""
        self.concepts.restore(within(state, "concepts"))
        for i, tally in enumerate(self.tallies):
            tally.restore(within(state, f"{i}"))


class CountPass:
    """Counts of layers at known thresholds, over any number of images, by group and with ``pairings`` wrong labels."""

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
        self.right = Totals(geometries, C, K, self.grouping.count, device)
        self.pairings = Pairings(loader, pairings)
        self.wrong = Totals(geometries, C * pairings, K * pairings, 1, device) if pairings else None
        self.top_images: list[TopImages] = []
        self.images_table: ImageTable | None = None

    def keep_images(self) -> None:
        """Read the top images of all layers, for their thumbnails and labels."""
        distinct = np.unique(np.concatenate([top.image.ravel() for top in self.tops]))
        distinct = distinct[distinct >= 0]
        row_of = np.full(len(self.loader.dataset) + 1, -1, np.int32)
        row_of[distinct] = np.arange(len(distinct))
        self.top_images = [TopImages(row_of[top.image], top.peak, top.maps) for top in self.tops]
        with self.clock.during("images"):
            self.images_table = image_table(self.loader, [int(i) for i in distinct])

    def count_pieces(
        self,
        pieces: Sequence[CandidateBatch],
        *,
        tell: bool,
        after: Callable[[], None] | None = None,
        there: Sequence[CandidateBatch] | None = None,
    ) -> None:
        """Count what was kept of some images; ``tell``: let the progress know; ``after``: to do after each piece.

        ``there``: more pieces whose labels need not be read again.
        """
        read = self.loader.read_labels([piece.images for piece in pieces if piece.labels is None])
        paired = self.pairings.labels(pieces, there or pieces) if self.wrong else None
        for piece in pieces:
            labels = piece.labels
            if labels is None:
                with self.clock.during("labels"):
                    labels = next(read)
            wrong = None
            if paired:
                with self.clock.during("null"):
                    wrong = next(paired)
            with self.clock.during("tally", self.device):
                self._count_piece(piece, self._labelled(piece.images, labels, wrong))
            if tell:
                self._progress.advance(len(piece.images))
            if after:
                after()

    def _labelled(self, images: Sequence[int], labels: LabelBatch, wrong: LabelBatch | None) -> list[LabelBatch]:
        """The right labels of some images, and the wrong ones where they are counted, themselves counted now."""
        found = [labels.to(self.device).grouped(self.grouping.of[list(images)])]
        self.right.concepts.add(found[0])
        if self.wrong and wrong:
            found.append(wrong.to(self.device))
            self.wrong.concepts.add(found[1])
        return found

    def _count_piece(self, piece: CandidateBatch, labels: Sequence[LabelBatch]) -> None:
        for i, layer in enumerate(piece.layers):
            if isinstance(layer, Cells):
                rows, cols = self.geometries[i].axes
                self.right.tallies[i].add_cells(
                    layer.to(self.device), self._thresholds[i], rows, cols, labels[0], self._also(i, labels)
                )
            else:
                Halving(len(layer), self._progress).run(len(layer), partial(self._some, i, layer, labels))

    def _some(self, i: int, maps: Tensor, labels: Sequence[LabelBatch], images: slice) -> None:
        self.count_maps(labels, i, maps[images].to(self.device), None, images)

    def count_maps(self, labels: Sequence[LabelBatch], i: int, maps: Tensor, _: Extremes | None, images: slice) -> None:
        """Count layer ``i`` of some images, ``maps`` (N, U, h, w); after running out of memory nothing is counted."""
        rows, cols = self.geometries[i].axes
        mine = [x[images] for x in labels]
        self.right.tallies[i].add(
            *(maps, self._thresholds[i], rows, cols, self.loader.protocol.upsampling, mine[0], self._also(i, mine))
        )

    def _also(self, i: int, labels: Sequence[LabelBatch]) -> Also:
        return (self.wrong.tallies[i], labels[1]) if self.wrong else None

    def consumer(self, batch: Batch) -> Consumer:
        """What counts the layers of a batch; its labels are counted now."""
        labels, wrong = self.loader.labels(batch, self.device), None
        if self.wrong:
            with self.clock.during("null", self.device):
                wrong = next(self.pairings.labels_of([batch.images]))
        return partial(self.count_maps, self._labelled(batch.images, labels, wrong))

    def cost_of_pairings(self, pieces: Sequence[CandidateBatch], count: int) -> float:
        """About how many seconds ``count`` wrong pairings of these pieces take, judged by some of them."""
        given = self.loader, self.geometries, self.statistics, self.tops, self.device, Clock(), self._progress
        some = pieces[:: max(1, len(pieces) // 4)][:4]
        took = []
        for pairings in (0, count):
            trial = CountPass(*given, pairings=pairings)
            began = time.perf_counter()
            trial.count_pieces(some, tell=False, there=pieces)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            took.append(time.perf_counter() - began)
        share = sum(len(piece.images) for piece in some) / sum(len(piece.images) for piece in pieces)
        return max(took[1] - took[0], 0.0) / share

    @property
    def images(self) -> int:
        """How many images were counted."""
        return self.right.concepts.counted

    def share(self, ranks: Ranks) -> None:
        """Add up what all processes have counted."""
        for counted in (self.right, self.wrong):
            for total in counted.state().values() if counted else ():
                ranks.sum(total)

    def state(self) -> State:
        """All that :meth:`resumed` needs."""
        found = under("right", self.right.state()) | {"pairings": torch.tensor(self.pairings.count)}
        if self.wrong:
            found |= under("wrong", self.wrong.state())
        for i, (stats, top) in enumerate(zip(self.statistics, self.tops, strict=True)):
            found |= under(f"{i}.statistics", _tensors(stats)) | under(f"{i}.top", _tensors(top))
        return found

    @classmethod
    def resumed(
        cls,
        loader: Loader,
        geometries: Sequence[LayerGeometry],
        state: State,
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ) -> CountPass:
        """The counting whose ``state`` was saved; ValueError or KeyError where it is of other layers or data."""
        layers = range(len(geometries))
        for i, geometry in enumerate(geometries):
            _demand_layer(state, i, geometry, len(loader.dataset))
        statistics = [UnitStatistics(**_arrays(within(state, f"{i}.statistics"))) for i in layers]
        tops = [Top(**_arrays(within(state, f"{i}.top"))) for i in layers]
        # How it grouped shows in the sizes.
        grouping = group_images(loader.dataset, by_block=len(state["right.concepts.area"]) >= BLOCKS)
        pairings = int(state["pairings"])
        columns = state["wrong.concepts.area"].shape[1] - 1 if pairings else 0
        if pairings < 0 or columns != pairings * len(loader.dataset.concepts):
            raise ValueError(f"{pairings} wrong pairings in {columns} columns")
        counting = cls(
            loader, geometries, statistics, tops, device, clock, progress, grouping=grouping, pairings=pairings
        )
        counting.right.restore(within(state, "right"))
        if counting.wrong:
            counting.wrong.restore(within(state, "wrong"))
        return counting


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
