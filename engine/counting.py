"""From thresholds and what may fire to counts, and with the top images to a dissection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.cells import Cells
from ndissect.engine.device import Halving
from ndissect.engine.kept import Piece
from ndissect.engine.labels import LabelBatch
from ndissect.engine.loader import Loader
from ndissect.engine.places import Place
from ndissect.engine.progress import Progress
from ndissect.engine.state import State, under, within
from ndissect.engine.tally import ConceptTally, Tally
from ndissect.engine.thumbnails import image_table
from ndissect.engine.timing import Clock
from ndissect.engine.together import Together
from ndissect.engine.top import Top
from ndissect.store import scores
from ndissect.store.counts import ConceptCounts
from ndissect.store.model import Dissection, ImageTable, Layer, TopImages, UnitStatistics


class Counting:
    """Counts of layers at known thresholds, over any number of images: ``concepts`` of those that were counted."""

    def __init__(
        self,
        loader: Loader,
        places: Sequence[Place],
        statistics: Sequence[UnitStatistics],
        tops: Sequence[Top],
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ) -> None:
        concepts = loader.dataset.concepts
        self.loader, self.places, self.statistics, self.tops = loader, places, statistics, tops
        self.device, self.clock, self._progress = device, clock, progress
        self.concepts = ConceptTally(len(concepts), device=device)
        self._thresholds = [torch.from_numpy(s.threshold).to(device) for s in statistics]
        self._tallies = [Tally(p.units, len(concepts), len(concepts.categories), device=device) for p in places]
        self._top: list[TopImages] = []
        self._images: ImageTable | None = None

    def keep_images(self) -> None:
        """Read the top images of all layers, for their thumbnails and labels."""
        distinct = np.unique(np.concatenate([top.image.ravel() for top in self.tops]))
        distinct = distinct[distinct >= 0]
        row_of = np.full(len(self.loader.dataset) + 1, -1, np.int32)
        row_of[distinct] = np.arange(len(distinct))
        self._top = [TopImages(row_of[top.image], top.peak, top.maps) for top in self.tops]
        with self.clock.during("images"):
            self._images = image_table(self.loader, [int(i) for i in distinct])

    def count_pieces(self, pieces: Sequence[Piece], *, tell: bool, after: Callable[[], None] | None = None) -> None:
        """Count what was kept of some images; ``tell``: let the progress know; ``after``: to do after each piece."""
        unlabelled = [piece.images for piece in pieces if piece.labels is None]
        read = self.loader.read_labels(unlabelled)
        for piece in pieces:
            labels = piece.labels
            if labels is None:
                with self.clock.during("labels"):
                    labels = next(read)
            with self.clock.during("tally", self.device):
                labels = labels.to(self.device)
                self.concepts.add(labels)
                for i, layer in enumerate(piece.layers):
                    rows, cols = self.places[i].axes
                    if isinstance(layer, Cells):
                        cells = layer.to(self.device)
                        self._tallies[i].add_cells(cells, self._thresholds[i], rows, cols, labels)
                    else:
                        self._count_whole(i, layer, labels)
            if tell:
                self._progress.advance(len(piece.images))
            if after:
                after()

    def _count_whole(self, i: int, maps: Tensor, labels: LabelBatch) -> None:
        """Count whole maps, in pieces that fit the device."""

        def count(s: slice) -> None:
            self.count_maps(i, maps[s].to(self.device), labels[s])

        Halving(len(maps), self._progress).run(len(maps), count)

    def count_maps(self, i: int, maps: Tensor, labels: LabelBatch) -> None:
        """Count layer ``i`` of some images, ``maps`` (N, U, h, w); after running out of memory nothing is counted."""
        rows, cols = self.places[i].axes
        self._tallies[i].add(maps, self._thresholds[i], rows, cols, self.loader.protocol.upsampling, labels)

    @property
    def images(self) -> int:
        """How many images were counted."""
        return self.concepts.counted

    def share(self, together: Together) -> None:
        """Add up what all processes have counted."""
        for state in (self.concepts.state(), *(tally.state() for tally in self._tallies)):
            for total in state.values():
                together.sum(total)

    def state(self) -> State:
        """All that :meth:`resumed` needs."""
        found = under("concepts", self.concepts.state())
        for i, (tally, stats, top) in enumerate(zip(self._tallies, self.statistics, self.tops, strict=True)):
            found |= under(f"{i}.tally", tally.state())
            found |= under(f"{i}.statistics", _tensors(stats)) | under(f"{i}.top", _tensors(top))
        return found

    @classmethod
    def resumed(
        cls,
        loader: Loader,
        places: Sequence[Place],
        state: State,
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ) -> Counting:
        """The counting whose ``state`` was saved."""
        layers = range(len(places))
        statistics = [UnitStatistics(**_arrays(within(state, f"{i}.statistics"))) for i in layers]
        tops = [Top(**_arrays(within(state, f"{i}.top"))) for i in layers]
        counting = cls(loader, places, statistics, tops, device, clock, progress)
        counting.concepts.restore(within(state, "concepts"))
        for i, tally in enumerate(counting._tallies):
            tally.restore(within(state, f"{i}.tally"))
        return counting

    def dissection(self, concept_counts: ConceptCounts, provenance: Mapping[str, Any]) -> Dissection:
        """What was counted, beside ``concept_counts`` of the same images; after :meth:`keep_images`."""
        concepts, protocol = self.loader.dataset.concepts, self.loader.protocol
        layers = []
        for place, stats, tally, top in zip(self.places, self.statistics, self._tallies, self._top, strict=True):
            counts = tally.counts()
            best = scores.best_per_category(
                counts,
                concept_counts,
                concepts.category,
                len(concepts.categories),
                protocol.union,
                dead=stats.dead,
                min_images=protocol.min_images,
            )
            layers.append(Layer(place.name, place.module, best, stats, place.map_size, counts, top, place.axes))
        return Dissection(
            protocol=protocol,
            concepts=concepts,
            concept_counts=concept_counts,
            layers=tuple(layers),
            images=self._images,
            provenance=provenance,
            grid=self.loader.grid,
        )


def _tensors(arrays: UnitStatistics | Top) -> State:
    return {name: torch.from_numpy(array) for name, array in vars(arrays).items()}


def _arrays(state: State) -> dict[str, Any]:
    return {name: t.cpu().numpy() for name, t in state.items()}
