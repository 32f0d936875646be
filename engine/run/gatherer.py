"""What one forward pass gathers of every layer, batch after batch: thresholds, top images and what may fire."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.state import State, under, within
from ndissect.engine.measures.candidates import CandidateBatch, Candidates
from ndissect.engine.measures.cells import Cells
from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.passes.loader import Batch
from ndissect.engine.run.data_survey import DataSurvey
from ndissect.engine.run.layer_gatherer import LayerGatherer, prepare
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.protocol import Protocol

# The part of the budget that thresholds may take; the rest is for what may fire.
_FOR_THRESHOLDS = 0.5

#: Of some images of a batch, of each layer what may fire in them.
FiringImages = tuple[slice, list[Cells | Tensor]]


class Gatherer:
    """Takes the maps of one process's images, and the labels of the same images.

    ``total``: images of all processes; ``own``: of this one, where it has not all.

    ``survey``: of the data; by layer ``quantiles`` for the thresholds and ``tops`` for the top images; ``peaks``: every
    image's peaks, for the AUPRC, None where they are not kept; ``candidates``: what may fire. ``passes``: how often all
    images must go through the network for the thresholds.

    ``threshold_budget``: bytes for the thresholds, as an unfinished run has settled on them; NDError where that is more
    than ``budget``.
    """

    def __init__(
        self,
        geometries: Sequence[LayerGeometry],
        protocol: Protocol,
        concepts: ConceptTable,
        *,
        total: int,
        own: int | None = None,
        top: int,
        budget: Budget,
        device: torch.device,
        threshold_budget: int | None = None,
        peaks: bool = False,
    ) -> None:
        self.geometries, self._protocol = geometries, protocol
        self.survey = DataSurvey(len(concepts))
        sizes = [p.grid if protocol.quantile_over == "upsampled" else p.map_size for p in geometries]
        needs = [
            Quantile.one_pass_bytes(p.units, total * h * w, protocol.q)
            for p, (h, w) in zip(geometries, sizes, strict=True)
        ]
        if threshold_budget is not None and min(sum(needs), threshold_budget) > budget.on(device):
            taken, have = human_bytes(min(sum(needs), threshold_budget)), human_bytes(budget.on(device))
            raise NDError(
                f"the thresholds of the unfinished run take {taken} of memory, --memory is {have}",
                "give more --memory, or throw away what was saved with --restart",
            )
        if threshold_budget is None:
            threshold_budget = int(_FOR_THRESHOLDS * budget.on(device))
        #: With as many bytes for the thresholds, another gatherer can go on from the state of this one.
        self.threshold_budget = threshold_budget
        fits = sum(needs) <= threshold_budget
        shares = needs if fits else [threshold_budget // len(geometries)] * len(geometries)
        self.quantiles = [
            Quantile(p.units, total * h * w, protocol.q, device, share)
            for p, (h, w), share in zip(geometries, sizes, shares, strict=True)
        ]
        self.peaks = Peaks(geometries, len(concepts)) if peaks else None
        self.tops = [TopTracker(p.units, top, p.map_size, device) for p in geometries]
        self._layers = [LayerGatherer(*layer) for layer in zip(geometries, repeat(protocol), self.quantiles, self.tops)]
        self.passes = max(q.passes for q in self.quantiles)
        #: Bytes that the thresholds take in one pass.
        self.threshold_bytes = sum(needs)
        left = Budget(budget.host - (device.type == "cpu") * sum(needs), max(budget.gpu - sum(needs), 0))
        self.candidates = Candidates(left, device, protocol.upsampling, total if own is None else own)

    @property
    def keeps_candidates(self) -> bool:
        """Whether what may fire can be told before the thresholds are known: where one pass is enough for them."""
        return self.passes == 1

    def bounds(self) -> list[Tensor]:
        """Of each layer (U,): no threshold will be below; [] where one pass is not enough to know."""
        return [q.bound for q in self.quantiles if q.bound is not None]

    def take_values(self, number: int, maps: Sequence[Tensor]) -> None:
        """Take the maps (N, U, h, w) of all layers for their thresholds, in pass ``number``, counted from 0.

        Not all layers need all passes.
        """
        layers = [layer for layer in self._layers if number < layer.quantile.passes]
        some = [m for m, layer in zip(maps, self._layers, strict=True) if number < layer.quantile.passes]
        for gathered in prepare(layers, some, None):
            gathered.take()

    def take(self, maps: Sequence[Tensor], images: Sequence[int]) -> list[Cells | Tensor] | None:
        """Take the maps of all layers of the images numbered ``images``: for thresholds, top images, and their peaks.

        What may fire in them; None where that cannot be told yet: these images go through the network once more.
        """
        if self.peaks:
            self.peaks.settle_if_due()
        gathered = prepare(self._layers, maps, images)
        for i, (layer, one) in enumerate(zip(self._layers, gathered, strict=True)):
            one.take()
            if one.rivals:
                layer.top.take(one.rivals, images)
            if self.peaks:
                self.peaks.add(i, images, one.peak)
        firing = [one.firing for one in gathered if one.firing is not None]
        return firing if self.keeps_candidates else None

    def add_labels(self, batch: Batch, labels: LabelBatch, firing: Sequence[FiringImages]) -> None:
        """Take the labels of a batch, which are ``labels`` on the device, and keep with them what may fire."""
        self.survey.add(batch)
        if self.peaks:
            self.peaks.add_labels(batch.images, batch.area)
        for images, layers in firing:
            some = labels if images == slice(0, len(batch)) else labels[images]
            self.candidates.add(CandidateBatch(batch.images[images], layers), self.bounds(), some)

    def state(self) -> State:
        """All but the candidates: tensors by name."""
        state = under("survey", self.survey.state())
        for i, (quantile, top) in enumerate(zip(self.quantiles, self.tops, strict=True)):
            state |= under(f"{i}.quantile", quantile.state()) | under(f"{i}.top", top.state())
        return state | (under("peaks", self.peaks.state()) if self.peaks else {})

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another gatherer of the same layers and images."""
        self.survey.restore(within(state, "survey"))
        self.restore_peaks(state)
        for i, (quantile, top) in enumerate(zip(self.quantiles, self.tops, strict=True)):
            quantile.restore(within(state, f"{i}.quantile"))
            top.restore(within(state, f"{i}.top"))

    def restore_peaks(self, state: State) -> None:
        """Go on from the peaks in ``state``."""
        if self.peaks:
            self.peaks.restore(within(state, "peaks"))
