"""Counting, exactly: mask pixels by unit and concept, with work in proportion to what fires.

Only the cells around what fires (ndissect.engine.measures.cells) are enlarged, compared, and looked up in the label
maps, once for all the ways of labelling the images (ndissect.engine.passes.labels.Labelling).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures import fused
from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import Cells, active_cells, pad_maps
from ndissect.engine.measures.hits import Hits, has_table
from ndissect.engine.measures.host_count import count_on_host
from ndissect.engine.measures.label_grid import Placement, finite_or_nan
from ndissect.engine.measures.map_work import MapWork
from ndissect.engine.measures.plain_count import count_plainly
from ndissect.engine.passes.labels import LabelBatch, Labelling
from ndissect.store.counts import ConceptCounts, Ints, LayerCounts
from ndissect.store.upsampling import Axis, Upsampling

# Cells that are looked for at once: they bound the tally's memory.
_CELLS_AT_ONCE = 1 << 24
# Pixels of cells, once for each way of labelling, that a host counts before it adds them up where there is no table of
# hits: so few are held as they come. To put equal ones together first takes longer than to count them.
_PIXELS_AT_ONCE = 1 << 25
_ALL = slice(None)


def compare_at(threshold: Tensor) -> Tensor:
    """(U,) float32: the largest float32 not above each float64 threshold. For float32 v: v > T iff v > this."""
    single = threshold.to(torch.float32)
    below = torch.nextafter(single, torch.full_like(single, -torch.inf))
    return torch.where(single.to(torch.float64) > threshold, below, single)


def upsample_dense(maps: Tensor, rows: Axis, cols: Axis, upsampling: Upsampling) -> Tensor:
    """(N, U, h, w) -> (N, U, H, W) float32: for quantiles over enlarged maps, where every pixel counts."""
    p = pad_maps(finite_or_nan(maps.to(torch.float32)), upsampling)

    def lerp(p: Tensor, axis: Axis, dim: int) -> Tensor:
        cell = torch.from_numpy(axis.cell).to(p.device)
        weight = torch.from_numpy(axis.weight).to(p.device)
        a, b = p.index_select(dim, cell), p.index_select(dim, cell + 1)
        return a + weight.view(-1, *[1] * (p.ndim - 1 - dim)) * (b - a)

    return lerp(lerp(p, rows, 2), cols, 3)


class Tally:
    """Counts of one layer over any number of batches: I(u, c) and A(u), by slot.

    A slot is what images are counted for: their image group under their own labels, or a wrong pairing of the null.
    """

    def __init__(
        self, units: int, concepts: int, categories: int, slots: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self._device = torch.device(device)
        # Column 0 gathers the unlabelled pixels; it is dropped in the end, so that none has to be left out on the way.
        self._intersection = torch.zeros((slots, units, concepts + 1), dtype=torch.int64, device=self._device)
        self._area = torch.zeros((slots, units), dtype=torch.int64, device=self._device)
        self._in_category = torch.zeros((slots, units, categories), dtype=torch.int64, device=self._device)
        self._placed: tuple[Axis, Axis, Placement] | None = None

    def add(
        self,
        maps: Tensor,
        threshold: Tensor,
        rows: Axis,
        cols: Axis,
        upsampling: Upsampling,
        labels: LabelBatch | Labelling,
    ) -> None:
        """Count N images: ``maps`` (N, U, h, w) floating, ``threshold`` (U,) float64, under their own labels or others.

        A mask pixel is an enlarged value strictly above its unit's threshold. Nothing is added if this fails half-way
        for want of memory.
        """
        labelling = _labelling(labels)
        N, U, h, w = maps.shape
        limit, count = compare_at(threshold).to(self._device), _Count(N, self._intersection, self._place(rows, cols))
        work = MapWork(maps, limit, upsampling, labelling, count.at, self._intersection.shape[2])
        if fused.wanted(limit.device) and fused.add_maps(work, count.area, count.hits.table, count.apart):
            self._commit(count, labelling)
            return
        # A few images at a time, so that memory stays bounded even where nearly everything fires.
        step = max(1, _CELLS_AT_ONCE // (U * (h + 1) * (w + 1)))
        for start in range(0, N, step):
            images = slice(start, start + step)
            count.add(active_cells(maps[images], limit, upsampling), limit, labelling[images], start)
        self._commit(count, labelling)

    def add_cells(
        self, cells: Cells, threshold: Tensor, rows: Axis, cols: Axis, labels: LabelBatch | Labelling
    ) -> None:
        """The same, of cells among which are all that hold a mask pixel; a part of them is added if this fails."""
        labelling, limit = _labelling(labels), compare_at(threshold).to(self._device)
        place = self._place(rows, cols)
        parts = 1
        if self._device.type == "cpu" and not has_table(self._intersection.numel(), self._device):
            pixels = len(cells) * place.pixel.shape[1] * len(labelling.row)
            parts = max(1, min(cells.shape[0], -(-pixels // _PIXELS_AT_ONCE)))
        step = -(-cells.shape[0] // parts)
        for start in range(0, cells.shape[0], step):
            some = cells if parts == 1 else cells.of_images(slice(start, start + step))
            labelled = labelling[start : start + step]
            count = _Count(some.shape[0], self._intersection, place)
            count.add(some, limit, labelled, 0)
            self._commit(count, labelled)

    def _place(self, rows: Axis, cols: Axis) -> Placement:
        if self._placed is None or self._placed[0] is not rows or self._placed[1] is not cols:
            self._placed = (rows, cols, Placement(rows, cols, self._device))
        return self._placed[2]

    def _commit(self, count: _Count, labelling: Labelling) -> None:
        S, U, columns = self._intersection.shape
        (P, N), area = labelling.row.shape, count.area.view(-1, U)
        row, slot = labelling.row.reshape(-1), labelling.slot.reshape(-1)
        # A(u) by slot and category, and by slot alone in a last column: sums of whole numbers, in float64 exact.
        ones = F.pad(labelling.labels.present.index_select(0, row).to(torch.float64), (0, 1), value=1.0)
        image = torch.arange(N, device=self._device).repeat(P)
        by_slot = ones.new_zeros(N * S, ones.shape[1]).index_add_(0, image * S + slot, ones)
        areas = (area.T.to(torch.float64) @ by_slot.view(N, -1)).to(torch.int64).view(U, S, -1).transpose(0, 1)
        # A label of a whole image holds all mask pixels. One flat index: on a GPU index_put_ would sort first.
        level = labelling.labels.image_level.index_select(0, row)
        bins = (slot[:, None] * U + torch.arange(U, device=self._device)) * columns
        bins = (bins[:, None] + level[:, :, None]).view(-1)
        times = area.repeat(P, 1)[:, None].expand(-1, level.shape[1], -1).reshape(-1)
        count.hits.add_to(self._intersection.view(-1))
        self._intersection.view(-1).index_add_(0, bins, times)
        self._area += areas[:, :, -1]
        self._in_category += areas[:, :, :-1]

    def counts(self, slots: slice = _ALL) -> LayerCounts:
        """What was counted so far for some slots; on a CPU ``intersection`` is the tally's own and counts on."""
        return LayerCounts(
            self._intersection[slots, :, 1:].cpu().numpy(),
            self._area[slots].cpu().numpy().copy(),
            self._in_category[slots].cpu().numpy().copy(),
        )

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here; additive, tensor by tensor."""
        return {"intersection": self._intersection, "area": self._area, "in_category": self._in_category}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tally of the same size."""
        demand_form(state, self.state())
        for name, mine in self.state().items():
            mine.copy_(state[name])


def _labelling(labels: LabelBatch | Labelling) -> Labelling:
    return labels if isinstance(labels, Labelling) else Labelling.own(labels)


class _Count:
    """Mask pixels of N images on their way into a tally: ``area`` (N U,), and ``hits`` of its flat intersection."""

    def __init__(self, images: int, into: Tensor, placement: Placement) -> None:
        self._into, self.at = into, placement
        self.area = torch.zeros(images * into.shape[1], dtype=torch.int64, device=into.device)
        self.hits = Hits(into.numel(), into.device)

    def add(self, cells: Cells, limit: Tensor, labelling: Labelling, first: int) -> None:
        """Count the cells of the images of ``labelling``, the first of which is image ``first`` of the batch."""
        work = CellWork(cells, limit, labelling, self.at, first, self._into.shape[2])
        if fused.wanted(limit.device) and fused.add(work, self.area, self.hits.table, self.apart):
            return
        count = count_on_host if limit.device.type == "cpu" else count_plainly
        count(work, self.area, self.hits.add)

    def apart(self, work: CellWork) -> tuple[Tensor, Tensor]:
        """``work`` counted by itself, in plain PyTorch: area, and flat intersection."""
        area, hits = torch.zeros_like(self.area), Hits(self._into.numel(), self._into.device)
        count_plainly(work, area, hits.add)
        counts = torch.zeros_like(self._into).view(-1)
        hits.add_to(counts)
        return area, counts


class ConceptTally:
    """What the labels alone hold, by slot (:class:`Tally`): C(c) in pixels, and the images that hold c."""

    def __init__(self, concepts: int, slots: int = 1, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._area = torch.zeros((slots, concepts + 1), dtype=torch.int64, device=self._device)
        self._images = torch.zeros((slots, concepts + 1), dtype=torch.int64, device=self._device)

    def add(self, labels: LabelBatch | Labelling) -> None:
        """Count N images' own labels, or those that they are to be counted under."""
        if isinstance(labels, Labelling):
            slot = labels.slot.reshape(-1)
            area = labels.labels.area.index_select(0, labels.row.reshape(-1)).to(torch.int64)
        else:
            slot, area = labels.group, labels.area
        self._area.index_add_(0, slot, area)
        held = (area > 0).long()
        held[:, 0] = 1  # column 0 counts the images themselves
        self._images.index_add_(0, slot, held)

    def images(self, slots: slice = _ALL) -> Ints:
        """(S,) int64: how many images were counted for each of some slots."""
        return self._images[slots, 0].cpu().numpy().copy()

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here; additive, tensor by tensor."""
        return {"area": self._area, "images": self._images}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tally of the same size."""
        demand_form(state, self.state())
        for name, mine in self.state().items():
            mine.copy_(state[name])

    def counts(self, slots: slice = _ALL) -> ConceptCounts:
        """What was counted so far for some slots."""
        return ConceptCounts(self._area[slots, 1:].cpu().numpy().copy(), self._images[slots, 1:].cpu().numpy().copy())
