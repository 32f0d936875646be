"""Each unit's peak activation in every image, and how well it finds the images that hold the unit's label.

A second measure beside the IoU: one ranks whole images by what the other compares pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.ranks import ALONE, Ranks
from ndissect.engine.machine.state import State, as_tensor, demand_form, from_tensor

# Values that are ranked at once, and batches whose peaks are moved to the host at once.
_AT_ONCE = 1 << 24
_MOVED_AT_ONCE = 32

Bits = npt.NDArray[np.uint8]


class Peaks:
    """Peaks of all layers' units, and which concepts the images hold, of the images so far."""

    def __init__(self, geometries: Sequence[LayerGeometry], concepts: int) -> None:
        self._units = [p.units for p in geometries]
        self._concepts = concepts
        self._peaks: list[list[Tensor]] = [[] for _ in geometries]
        self._images: list[list[int]] = [[] for _ in geometries]
        # What images hold, a bit for each concept.
        self._held: list[Bits] = []
        self._held_by: list[int] = []

    @staticmethod
    def nbytes(geometries: Sequence[LayerGeometry], concepts: int, images: int) -> int:
        """Bytes that so many images take."""
        return images * (4 * sum(p.units for p in geometries) + concepts // 8)

    def add(self, i: int, images: Sequence[int], peak: Tensor) -> None:
        """Take layer ``i``'s ``peak`` (N, U) float32 of ``images``: each map's largest finite activation."""
        self._peaks[i].append(peak)
        self._images[i] += images

    def settle_if_due(self) -> None:
        """Move peaks to the host where they are many, so that it need not wait for those of each batch."""
        for i, peaks in enumerate(self._peaks):
            if sum(peak.device.type != "cpu" for peak in peaks) >= _MOVED_AT_ONCE:
                self._on_host(i)

    def add_labels(self, images: Sequence[int], area: Tensor) -> None:
        """Take what these images hold: ``area`` (N, C + 1), on the host, pixels of each concept."""
        self._held.append(np.packbits(area.numpy()[:, 1:] > 0, axis=1, bitorder="little"))
        self._held_by += images

    def _on_host(self, i: int) -> Tensor:
        """Layer ``i``'s peaks (N, U), which are then on the host."""
        self._peaks[i] = [torch.cat([torch.zeros(0, self._units[i]), *_moved(self._peaks[i])])]
        return self._peaks[i][0]

    def _all_held(self) -> Bits:
        self._held = [np.concatenate([np.zeros((0, -(-self._concepts // 8)), np.uint8), *self._held])]
        return self._held[0]

    def state(self) -> State:
        """All that :meth:`restore` and :meth:`merge` need."""
        state: State = {"images": as_tensor([self._images, self._held_by])}
        state["held"] = torch.from_numpy(self._all_held())
        return state | {f"{i}": self._on_host(i) for i in range(len(self._units))}

    def merge(self, state: State) -> None:
        """Take the peaks of other images; ValueError where it is of other layers or concepts."""
        images, held_by = from_tensor(state["images"])
        form = {f"{i}": torch.zeros(len(images[i]), units) for i, units in enumerate(self._units)}
        form["held"] = torch.zeros(len(held_by), -(-self._concepts // 8), dtype=torch.uint8)
        demand_form(state, form)
        if len(images) != len(self._units) or not all(set(some) <= set(held_by) for some in images):
            raise ValueError(f"peaks of {len(images)} layers")
        for i, some in enumerate(images):
            self._images[i] += some
            self._peaks[i] = [self._on_host(i), state[f"{i}"].cpu()]
        self._held.append(state["held"].cpu().numpy())
        self._held_by += held_by

    restore = merge

    def shared(self, ranks: Ranks = ALONE) -> None:
        """Take the peaks of the other processes."""
        if ranks.size > 1:
            for rank, state in enumerate(ranks.gather(self.state())):
                if rank != ranks.rank:
                    self.merge(state)

    def precision(self, i: int, label: Tensor, category: Tensor, within: bool) -> tuple[Tensor, Tensor]:
        """Average precision and base rate of layer ``i``'s units for their labels, (U,) float64 each; NaN for none.

        ``label`` (U,): concept rows, -1 for none; ``category`` (C,): of each concept. ``within``: only images that
        hold a concept of the label's category are ranked, as they alone were searched for it; else all.
        """
        U = self._units[i]
        precision, base_rate = (torch.full((U,), torch.nan, dtype=torch.float64) for _ in range(2))
        units = (label >= 0).nonzero()[:, 0]
        if not len(units) or not self._images[i]:
            return precision, base_rate
        order = np.argsort(self._images[i])
        peaks = self._on_host(i)[torch.from_numpy(order)]
        row_of = {image: row for row, image in enumerate(self._held_by)}
        rows = [row_of[self._images[i][n]] for n in order]
        bits = np.unpackbits(self._all_held()[rows], axis=1, count=self._concepts, bitorder="little")
        held = torch.from_numpy(bits.view(bool))
        in_category = held.float() @ torch.nn.functional.one_hot(category).float() > 0
        step = max(1, _AT_ONCE // len(peaks))
        for start in range(0, len(units), step):
            some = units[start : start + step]
            relevant = held[:, label[some]]
            counted = in_category[:, category[label[some]]] if within else torch.ones_like(relevant)
            precision[some], base_rate[some] = average_precision(peaks[:, some], relevant, counted)
        return precision, base_rate


def average_precision(score: Tensor, relevant: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The area under precision against recall, by steps, and the share that is relevant: (U,) float64 each.

    ``score`` (N, U), ``relevant``, ``counted`` (N, U) bool: only what is counted is ranked, and only that may be
    relevant. Equal scores rank together, so that the order of images means nothing. NaN where nothing is relevant.
    """
    # A row for each unit, sorted as whole numbers: falling scores, and among equals the image that comes first.
    score = (torch.where(counted, score, -torch.inf) + 0.0).T.contiguous()  # -0 becomes 0, its equal
    bits = score.view(torch.int32)
    falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))
    N = score.shape[1]
    key = torch.from_numpy(np.sort(((falling.long() << 32) | torch.arange(N)).numpy(), axis=1))  # faster than torch's
    order, falling = key & 0xFFFFFFFF, key >> 32
    counted, relevant = counted.T.gather(1, order), relevant.T.gather(1, order)
    # What is not counted comes last, among others of -inf: those are one group with it, whose count leaves it out.
    last = torch.ones_like(counted)
    last[:, :-1] = falling[:, 1:] != falling[:, :-1]
    end = torch.where(last, torch.arange(N), N).flip(1).cummin(1).values.flip(1)  # of the group that each belongs to
    hits, seen = relevant.cumsum(1).double(), counted.cumsum(1).double()
    precision = (hits / seen.clamp(min=1)).gather(1, end)
    total = relevant.sum(1).double()
    base_rate = torch.where(total > 0, total / counted.sum(1), torch.nan)
    return (precision * relevant).T.contiguous().sum(0) / total, base_rate


def _moved(peaks: Sequence[Tensor]) -> list[Tensor]:
    """The same, on the host, where those from a device are moved together."""
    there = [p for p in peaks if p.device.type != "cpu"]
    return [p for p in peaks if p.device.type == "cpu"] + ([torch.cat(there).cpu()] if there else [])
