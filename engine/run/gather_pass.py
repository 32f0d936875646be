"""What the first forward pass gathers: thresholds, top images, what the labels hold, and what may fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import State, as_tensor, demand_form, from_tensor, under, within
from ndissect.engine.measures.candidates import Candidates
from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.tally import ConceptTally, upsample_dense
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.passes.extremes import Extremes
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.passes.loader import Batch
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.protocol import Protocol

# The part of the budget that thresholds may take; the rest is for what may fire.
_FOR_THRESHOLDS = 0.5


@dataclass(frozen=True)
class DataSummary:
    """What one reading of the whole data set found.

    ``images``: how many can be used; ``skipped``: (name, reason) of the others; ``digest``: of the names and bytes of
    all that was read, the same for any order.
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    concepts: ConceptCounts
    digest: str


class DataSurvey:
    """What the images and labels hold that were read so far."""

    def __init__(self, concepts: int, device: torch.device | str = "cpu") -> None:
        self.concepts = ConceptTally(concepts, device=device)
        self.images = 0
        self.bad: list[tuple[int, str]] = []
        self._digest = 0

    def add(self, batch: Batch, labels: LabelBatch | None) -> None:
        """Take a batch with its labels, None where no image of it can be used."""
        if labels is not None:
            self.concepts.add(labels)
        self.images += len(batch)
        self.bad += [(number, error.message) for number, error in batch.bad]
        self._digest = (self._digest + batch.digest) % 2**128

    def state(self) -> State:
        """All that :meth:`restore` needs to go on from here."""
        record = {"images": self.images, "bad": self.bad, "digest": f"{self._digest:x}"}
        return {"record": as_tensor(record)} | self.concepts.state()

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another reading."""
        record = from_tensor(state["record"])
        self.images, self.bad = record["images"], [(int(n), str(why)) for n, why in record["bad"]]
        self._digest = int(record["digest"], 16)
        self.concepts.restore(state)

    def merge(self, state: State) -> None:
        """Take what another reading found in other images."""
        record = from_tensor(state["record"])
        self.images += record["images"]
        self.bad += [(int(n), str(why)) for n, why in record["bad"]]
        self._digest = (self._digest + int(record["digest"], 16)) % 2**128
        demand_form(state, self.concepts.state())
        for name, mine in self.concepts.state().items():
            mine.add_(state[name].to(mine.device))

    def survey(self, names: Sequence[str], ranks: Ranks = ALONE) -> DataSummary:
        """What was found, by all processes."""
        everyone = ranks.gather((self.images, self.bad, self._digest))
        concepts = self.concepts.shared(ranks)
        bad = sorted(one for _, some, _ in everyone for one in some)
        return DataSummary(
            sum(images for images, _, _ in everyone),
            tuple((names[number], why) for number, why in bad),
            concepts.counts(),
            f"{sum(digest for _, _, digest in everyone) % 2**128:032x}",
        )


class GatherPass:
    """All that one process gathers of ``total`` images, its own among them.

    ``allowed``: bytes for the thresholds, as an unfinished run has settled on them; NDError where that is more than
    ``budget``.
    """

    def __init__(
        self,
        geometries: Sequence[LayerGeometry],
        protocol: Protocol,
        concepts: ConceptTable,
        grid: tuple[int, int],
        *,
        total: int,
        top: int,
        budget: Budget,
        device: torch.device,
        allowed: int | None = None,
        peaks: bool = False,
    ) -> None:
        self.geometries, self._protocol = geometries, protocol
        self.reading = DataSurvey(len(concepts), device)
        sizes = [grid if protocol.quantile_over == "upsampled" else geometry.map_size for geometry in geometries]
        needs = [
            Quantile.one_pass_bytes(p.units, total * h * w, protocol.q)
            for p, (h, w) in zip(geometries, sizes, strict=True)
        ]
        if allowed is not None and min(sum(needs), allowed) > budget.on(device):
            taken, have = human_bytes(min(sum(needs), allowed)), human_bytes(budget.on(device))
            raise NDError(
                f"the thresholds of the unfinished run take {taken} of memory, --memory is {have}",
                "give more --memory, or throw away what was saved with --restart",
            )
        #: Bytes for the thresholds: with as many, another gathering takes up the state of this one.
        self.allowed = int(_FOR_THRESHOLDS * budget.on(device)) if allowed is None else allowed
        shares = needs if sum(needs) <= self.allowed else [self.allowed // len(geometries)] * len(geometries)
        self.quantiles = [
            Quantile(p.units, total * h * w, protocol.q, device, share)
            for p, (h, w), share in zip(geometries, sizes, shares, strict=True)
        ]
        #: Every image's peaks, for the AUPRC; None where they are not kept.
        self.peaks = Peaks(geometries, len(concepts)) if peaks else None
        self.tops = [TopTracker(p.units, top, p.map_size, device) for p in geometries]
        self.passes = max(q.passes for q in self.quantiles)
        self.threshold_bytes = sum(needs)
        left = Budget(budget.host - (device.type == "cpu") * sum(needs), max(budget.gpu - sum(needs), 0))
        self.kept = Candidates(left, device, protocol.upsampling)
        #: Whether what may fire can be told before the thresholds are known.
        self.keeps = self.passes == 1

    def bounds(self) -> list[Tensor]:
        """Of each layer (U,): no threshold will be below."""
        found = [q.bound for q in self.quantiles]
        return [b for b in found if b is not None]

    def feed(self, i: int, maps: Tensor, extremes: Extremes) -> None:
        """Take the maps (N, U, h, w) of layer ``i`` for its thresholds."""
        if self._protocol.quantile_over == "raw":
            self.quantiles[i].update_maps(maps, extremes)
            return
        rows, cols = self.geometries[i].axes
        dense = [
            upsample_dense(image[None], rows, cols, self._protocol.upsampling)[0].reshape(maps.shape[1], -1)
            for image in maps
        ]
        self.quantiles[i].update(torch.cat(dense, 1), maps.transpose(0, 1).reshape(maps.shape[1], -1))

    def state(self) -> State:
        """All but what is kept: tensors by name."""
        found = under("reading", self.reading.state())
        for i, (quantile, top) in enumerate(zip(self.quantiles, self.tops, strict=True)):
            found |= under(f"{i}.quantile", quantile.state()) | under(f"{i}.top", top.state())
        return found | (under("peaks", self.peaks.state()) if self.peaks else {})

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of another gathering of the same layers and images."""
        self.reading.restore(within(state, "reading"))
        self.restore_peaks(state)
        for i, (quantile, top) in enumerate(zip(self.quantiles, self.tops, strict=True)):
            quantile.restore(within(state, f"{i}.quantile"))
            top.restore(within(state, f"{i}.top"))

    def restore_peaks(self, state: State) -> None:
        """Go on from the peaks in ``state``."""
        if self.peaks:
            self.peaks.restore(within(state, "peaks"))
