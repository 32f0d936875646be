"""Counting, exactly: mask pixels by unit and concept, with work in proportion to what fires.

Only the cells around what fires (ndissect.engine.measures.cells) are enlarged, compared, and looked up in the label
maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ndissect.engine.machine.ranks import Ranks
from ndissect.engine.machine.state import demand_form
from ndissect.engine.measures import fused
from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import Cells, active_cells, pad_maps
from ndissect.engine.measures.label_grid import Placement, enlarge, finite_or_nan
from ndissect.engine.measures.map_work import MapWork
from ndissect.engine.passes.labels import LabelBatch, Labelling
from ndissect.store.counts import ConceptCounts, Ints, LayerCounts
from ndissect.store.upsampling import Axis, Upsampling

# Interpolated values that are held at once, on a GPU and (to stay in its caches) on a CPU, and cells that are looked
# for at once: they bound the tally's memory.
_PIXELS_AT_ONCE = (1 << 24, 1 << 20)
_CELLS_AT_ONCE = 1 << 24
# Up to this many bins, a count of all of them is made of each piece of work; else hits are added one by one.
_DENSE_BINS = 1 << 20
# Up to this many (1 GB), a table of them all is made for the fused kernel, which adds to them one by one.
_TABLE_BINS = 1 << 27
# Hits that are held before equal ones are put together.
_HITS_AT_ONCE = 1 << 25


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
    """Counts of one layer over any number of batches: I(u, c) and A(u), by image group."""

    def __init__(
        self, units: int, concepts: int, categories: int, groups: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self._device = torch.device(device)
        # Column 0 gathers the unlabelled pixels; it is dropped in the end, so that none has to be left out on the way.
        self._intersection = torch.zeros((groups, units, concepts + 1), dtype=torch.int64, device=self._device)
        self._area = torch.zeros((groups, units), dtype=torch.int64, device=self._device)
        self._in_category = torch.zeros((groups, units, categories), dtype=torch.int64, device=self._device)
        self._placed: tuple[Axis, Axis, Placement] | None = None

    def add(
        self, maps: Tensor, threshold: Tensor, rows: Axis, cols: Axis, upsampling: Upsampling, labels: LabelBatch
    ) -> None:
        """Count N images: ``maps`` (N, U, h, w) floating, ``threshold`` (U,) float64.

        A mask pixel is an enlarged value strictly above its unit's threshold. Nothing is added if this fails half-way
        for want of memory.
        """
        add_maps([self], maps, threshold, rows, cols, upsampling, [labels])

    def add_cells(self, cells: Cells, threshold: Tensor, rows: Axis, cols: Axis, labels: LabelBatch) -> None:
        """The same, of cells among which are all that hold a mask pixel."""
        add_cells([self], cells, threshold, rows, cols, [labels])

    def _place(self, rows: Axis, cols: Axis) -> Placement:
        if self._placed is None or self._placed[0] is not rows or self._placed[1] is not cols:
            self._placed = (rows, cols, Placement(rows, cols, self._device))
        return self._placed[2]

    def _commit(self, area: Tensor, hits: _Hits, labels: LabelBatch) -> None:
        hits.add_to(self._intersection.view(-1))
        area = area.view(-1, self._area.shape[1])
        self._area.index_add_(0, labels.group, area)
        for k in range(self._in_category.shape[2]):
            self._in_category[:, :, k].index_add_(0, labels.group, area * labels.present[:, k, None])
        _, U, columns = self._intersection.shape
        bins = (labels.group[:, None] * U + torch.arange(U, device=self._device)) * columns
        for level in labels.image_level.T:
            # One flat index: on a GPU index_put_ would sort first.
            self._intersection.view(-1).index_add_(0, (bins + level[:, None]).view(-1), area.view(-1))

    def counts(self) -> LayerCounts:
        """What was counted so far."""
        return LayerCounts(
            self._intersection[:, :, 1:].contiguous().cpu().numpy(),
            self._area.cpu().numpy().copy(),
            self._in_category.cpu().numpy().copy(),
        )

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here; additive, tensor by tensor."""
        return {"intersection": self._intersection, "area": self._area, "in_category": self._in_category}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tally of the same size."""
        demand_form(state, self.state())
        for name, mine in self.state().items():
            mine.copy_(state[name])


def add_maps(
    tallies: Sequence[Tally],
    maps: Tensor,
    threshold: Tensor,
    rows: Axis,
    cols: Axis,
    upsampling: Upsampling,
    labels: Sequence[LabelBatch],
) -> None:
    """:meth:`Tally.add` the same maps to several tallies of one layer, to each with its own ``labels`` of the images.

    The masks are made once. Nothing is added to any if this fails half-way for want of memory.
    """
    N, U, h, w = maps.shape
    limit, count = compare_at(threshold).to(tallies[0]._device), _begin(tallies, N, rows, cols)
    done = count.add_maps(maps, limit, upsampling, labels)
    # A few images at a time, so that memory stays bounded even where nearly everything fires.
    step = max(1, _CELLS_AT_ONCE // (U * (h + 1) * (w + 1)))
    for start in range(0, N if done < len(tallies) else 0, step):
        images = slice(start, start + step)
        cells = active_cells(maps[images], limit, upsampling)
        count.add(cells, limit, [given[images] for given in labels], start, done)
    _commit(tallies, count, labels)


def add_cells(
    tallies: Sequence[Tally], cells: Cells, threshold: Tensor, rows: Axis, cols: Axis, labels: Sequence[LabelBatch]
) -> None:
    """The same, of cells among which are all that hold a mask pixel."""
    limit, count = compare_at(threshold).to(tallies[0]._device), _begin(tallies, cells.shape[0], rows, cols)
    count.add(cells.above(limit), limit, labels, 0)
    _commit(tallies, count, labels)


def _begin(tallies: Sequence[Tally], images: int, rows: Axis, cols: Axis) -> _Count:
    return _Count(images, [tally._intersection for tally in tallies], tallies[0]._place(rows, cols))


def _commit(tallies: Sequence[Tally], count: _Count, labels: Sequence[LabelBatch]) -> None:
    for tally, hits, given in zip(tallies, count.hits, labels, strict=True):
        tally._commit(count.area, hits, given)


class _Count:
    """Mask pixels of N images on their way into tallies: ``area`` (N U,), and ``hits`` of each flat intersection."""

    def __init__(self, images: int, into: Sequence[Tensor], placement: Placement) -> None:
        self._units = into[0].shape[1]
        self._into, self._at = into, placement
        self.area = torch.zeros(images * self._units, dtype=torch.int64, device=into[0].device)
        self.hits = [_Hits(x.numel(), x.device) for x in into]

    def add_maps(self, maps: Tensor, limit: Tensor, upsampling: Upsampling, labels: Sequence[LabelBatch]) -> int:
        """Count whole maps by the kernel that looks for active cells as well: into how many it could, the first."""
        if not fused.wanted(limit.device):
            return 0
        for k, (given, x) in enumerate(zip(labels, self._into, strict=True)):
            area = torch.zeros_like(self.area) if k else self.area  # the same masks: one counts
            work = MapWork(maps, limit, upsampling, Labelling.own(given), self._at, x.shape[2])
            if not fused.add_maps(work, area, self.hits[k].table, partial(self._apart, k)):
                return k
        return len(labels)

    def add(self, cells: Cells, limit: Tensor, labels: Sequence[LabelBatch], first: int, done: int = 0) -> None:
        """Count the cells of the images that ``labels`` are of, the first of which is image ``first`` of the batch.

        Into all but the first ``done``, which have them.
        """
        works = [
            CellWork(cells, limit, Labelling.own(given), self._at, first, x.shape[2])
            for given, x in zip(labels, self._into, strict=True)
        ]
        if fused.wanted(limit.device):
            areas = [self.area, *(torch.zeros_like(self.area) for _ in works[1:])]  # the same masks: one counts
            while done < len(works):
                k = done
                if not fused.add(works[k], areas[k], self.hits[k].table, partial(self._apart, k)):
                    break
                done += 1
        if done < len(works):
            self._add_plainly(works[done:], range(done, len(works)), self.area if not done else None)

    def _apart(self, k: int, work: CellWork) -> tuple[Tensor, Tensor]:
        """``work`` for intersection ``k`` counted by itself, without the fused kernel: area, and flat intersection."""
        alone = _Count(len(self.area) // self._units, [self._into[k]], self._at)
        alone._add_plainly([work], [0], alone.area)
        counts = torch.zeros_like(self._into[k]).view(-1)
        alone.hits[0].add_to(counts)
        return alone.area, counts

    def _add_plainly(self, works: Sequence[CellWork], which: Sequence[int], area: Tensor | None) -> None:
        """Count ``works``, of the same cells, into the intersections ``which``, and mask pixels into ``area``."""
        cells, limit, first = works[0].cells, works[0].limit, works[0].first
        at, (_, U, rows, cols) = self._at, cells.shape
        words = [work.labelling.labels.words() for work in works]
        step = max(1, _PIXELS_AT_ONCE[limit.device.type == "cpu"] // at.pixel.shape[1])
        # Numbers of 32 bits where they suffice: there are many of them, and what takes time is moving them.
        small = max(words[0].shape[0], *(x.numel() for x in self._into)) < 2**31
        kind = torch.int32 if small else torch.int64
        table = at.pixel.to(kind)
        for s in range(0, len(cells), step):
            index = cells.index[s : s + step].long()
            image, place = index // (rows * cols), index % (rows * cols)
            n, u = image // U, image % U
            value = enlarge(cells.corners[:, s : s + step], at.wy[place // cols], at.wx[place % cols])
            mask = (value > limit[u][:, None, None]).view(len(index), -1)
            per_cell = mask.sum(1)
            if area is not None:
                area.index_add_(0, image + first * U, per_cell)
            hit = mask.view(-1).nonzero()[:, 0]
            spot = table[place].view(-1).index_select(0, hit)
            for k, work, word in zip(which, works, words, strict=True):
                labels = work.labelling.labels.pixels
                for row, slot in zip(work.labelling.row, work.labelling.slot, strict=True):
                    base = torch.repeat_interleave(((slot[n] * U + u) * work.columns).to(kind), per_cell)
                    pixel = torch.repeat_interleave((row[n] * at.pixels).to(kind), per_cell) + spot
                    # One look-up for all the labels of a pixel; those that are 0 are counted in a column of their own.
                    words_hit = word[:, 0].index_select(0, pixel) if word.shape[1] == 1 else word.index_select(0, pixel)
                    label = words_hit.view(labels.dtype).view(len(hit), labels.shape[2])
                    self.hits[k].add((base[:, None] + label).view(-1))


class _Hits:
    """How often each of ``bins`` indices was hit, until it is added to a tally."""

    def __init__(self, bins: int, device: torch.device) -> None:
        self._bins, self._device = bins, device
        few = bins <= _DENSE_BINS
        self._dense = torch.zeros(bins, dtype=torch.int64, device=device) if few else None
        self._hits: list[Tensor] = []  # one by one, where there are too many bins to count all of them each time
        self._counted: list[tuple[Tensor, Tensor]] = []  # distinct hits, and how often

    def table(self) -> Tensor | None:
        """The counts themselves (bins,) int64, to add to; None where they are too many to hold once more."""
        if self._dense is None and self._bins <= _TABLE_BINS:
            self._dense = torch.zeros(self._bins, dtype=torch.int64, device=self._device)
        return self._dense

    def add(self, index: Tensor) -> None:
        if self._bins <= _DENSE_BINS and self._dense is not None:
            self._dense += torch.bincount(index, minlength=self._bins)
            return
        self._hits.append(index)
        if sum(map(len, self._hits)) > _HITS_AT_ONCE:
            table = self.table()
            if table is None:
                self._counted.append(torch.unique(torch.cat(self._hits), return_counts=True))
            else:
                self._add_hits_to(table)
            self._hits = []

    def _add_hits_to(self, counts: Tensor) -> None:
        one = torch.ones((), dtype=torch.int64, device=counts.device)
        for index in self._hits:
            counts.index_add_(0, index, one.expand(len(index)))

    def add_to(self, counts: Tensor) -> None:
        if self._dense is not None:
            counts += self._dense
        self._add_hits_to(counts)
        for distinct, count in self._counted:
            counts.index_add_(0, distinct, count)


class ConceptTally:
    """What the labels alone hold, by image group: C(c) in pixels, and the images that hold c."""

    def __init__(self, concepts: int, groups: int = 1, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._area = torch.zeros((groups, concepts + 1), dtype=torch.int64, device=self._device)
        self._images = torch.zeros((groups, concepts + 1), dtype=torch.int64, device=self._device)

    def add(self, labels: LabelBatch) -> None:
        """Count N images' labels."""
        self._area.index_add_(0, labels.group, labels.area)
        held = (labels.area > 0).long()
        held[:, 0] = 1  # column 0 counts the images themselves
        self._images.index_add_(0, labels.group, held)

    @property
    def counted(self) -> int:
        """How many images were counted."""
        return int(self._images[:, 0].sum())

    @property
    def images(self) -> Ints:
        """(G,) int64: how many images of each group were counted."""
        return self._images[:, 0].cpu().numpy().copy()

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs to go on from here; additive, tensor by tensor."""
        return {"area": self._area, "images": self._images}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the ``state`` of another tally of the same size."""
        demand_form(state, self.state())
        for name, mine in self.state().items():
            mine.copy_(state[name])

    def shared(self, ranks: Ranks) -> ConceptTally:
        """What all processes have counted, in a tally of its own."""
        everyone = ConceptTally(self._area.shape[1] - 1, len(self._area))
        everyone.restore(self.state())
        for total in everyone.state().values():
            ranks.sum(total)
        return everyone

    def counts(self) -> ConceptCounts:
        """What was counted so far."""
        return ConceptCounts(self._area[:, 1:].cpu().numpy().copy(), self._images[:, 1:].cpu().numpy().copy())
