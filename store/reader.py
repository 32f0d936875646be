"""An HDF5 store -> numpy, a piece at a time: opening one costs a few milliseconds whatever its size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store import limits, scores
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import BLOCKS, PER_CATEGORY, Blocks, ConceptCounts, LayerCounts, Leading
from ndissect.store.errors import NDError, WrongUse, nearest
from ndissect.store.evidence import NUMBERS, SIGNIFICANT, Evidence, NullBest, no_evidence
from ndissect.store.hdf5 import Checked, member_name, open_hdf5
from ndissect.store.limits import Limit
from ndissect.store.marks import Mark, read_marks
from ndissect.store.model import Layer, TopImages, UnitStatistics
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import Axis, upsample

#: The format versions that this program reads: any 1.x.
READS_MAJOR = 1
# Counts of all units are read so many at a time: memory then does not grow with the layer.
_COUNTS_AT_A_TIME = 1 << 19
# Thumbnails are read one at a time: how long they are together is no matter.
_ANY = Limit(1 << 62, "bytes")
_INT32 = (1 << 31) - 1


@dataclass(frozen=True)
class StoredImage:
    """One top image: where it came from, its JPEG thumbnail, its label maps (M, H, W) and image labels (numbers)."""

    name: str
    index: int
    split: str
    thumbnail: bytes
    label_maps: npt.NDArray[np.uint16]
    labels: tuple[int, ...]

    def truth(self, number: int, grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(H, W) bool: where the image holds concept ``number``; everywhere if it is an image-level label."""
        if number in self.labels:
            return np.ones(grid, bool)
        return np.asarray((self.label_maps == number).any(0))


class Store:
    """A store opened for reading: ``with Store(path) as store: store.layer("layer4").labels``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._units, self._best = 0, 0
        try:
            self._root = Checked(path, self._file, self._file.id.get_filesize())
            self._check_version()
            self.layer_names = self._root.strings("layer_names", limits.LAYERS)
            self.groups = self._root.strings("groups", limits.GROUPS)
            if len(set(self.layer_names)) < len(self.layer_names):
                raise self._root.broken("layer_names", "names a layer twice")
        except BaseException:
            self.close()
            raise

    def _check_version(self) -> None:
        if self._root.text("encoding-type") != "ndissect-store":
            raise NDError(f"{self.path} is an HDF5 file, but not an ndissect store", "a store is what nd dissect wrote")
        version = self._root.text("encoding-version") or ""
        major = version.partition(".")[0]
        if not re.fullmatch("[1-9][0-9]{0,8}", major):
            raise self._root.broken("@encoding-version", f"is no version: {version[:40]!r}")
        if int(major) > READS_MAJOR:
            raise NDError(
                f"{self.path} has the store format {version}; this program reads {READS_MAJOR}.x",
                "update nd: pip install --upgrade ndissect",
            )

    def close(self) -> None:
        """Close the file; views that were read stay valid."""
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @cached_property
    def protocol(self) -> Protocol:
        """What was computed."""
        try:
            return Protocol.from_json(self._root.json("protocol", limits.PROTOCOL))
        except (ValueError, KeyError, TypeError, IndexError) as e:
            raise self._root.broken("protocol", f"is no protocol ({e})") from e

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Where the numbers came from: command, network, data, versions, device, timing."""
        value = self._root.json("provenance", limits.PROVENANCE)
        if not isinstance(value, dict):
            raise self._root.broken("provenance", "is not a JSON object")
        return value

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """What the run was warned of and went on in spite of, by layer; none for most stores."""
        return read_marks(self.provenance.get("marks"), self.layer_names)

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """The label grid (H, W), None for an imported table."""
        return self._root.size("grid")

    @cached_property
    def concepts(self) -> ConceptTable:
        """The concepts of the data set."""
        g = self._root.group("concepts", "ndissect-concepts")
        name, categories = g.strings("name", limits.CONCEPTS), g.strings("categories", limits.CATEGORIES)
        number = g.rows("number", (len(name),), limits.CONCEPTS.most + 1, least=1)
        if (np.diff(number) <= 0).any():
            raise g.broken("number", "is not in rising order")
        return ConceptTable(number, name, g.rows("category", (len(name),), len(categories), least=0), categories)

    @cached_property
    def concept_counts(self) -> ConceptCounts:
        """Pixels and images of each concept, (G, C)."""
        g = self._root.group("concepts", "ndissect-concepts")
        shape = (len(self.groups), len(self.concepts))
        return ConceptCounts(g.counts("area", shape), g.counts("images", shape, least=-1))

    @cached_property
    def blocks(self) -> Blocks | None:
        """What the labels hold by image block; None where counts were not kept by block."""
        if not self._root.has("blocks"):
            return None
        g = self._root.group("blocks", "ndissect-blocks")
        return Blocks(g.counts("images", (BLOCKS,)), g.counts("concept_area", (BLOCKS, len(self.concepts))))

    @cached_property
    def _layers(self) -> Checked:
        return self._root.group("layers", "ndissect-layers")

    def layer(self, name: str) -> LayerView:
        """The layer ``name``; WrongUse with the nearest names where the store has none of that name."""
        if name not in self.layer_names:
            close = nearest(name, list(self.layer_names)) or list(self.layer_names)[:8]
            raise WrongUse(f"no layer '{name}' in {self.path}", f"it has: {', '.join(close)}")
        return LayerView(self, name, self._layers.group(member_name(name), "ndissect-layer"))

    @property
    def has_images(self) -> bool:
        """Whether thumbnails of top images are in the store: not for an imported table."""
        return self._root.has("images")

    def image(self, row: int) -> StoredImage:
        """Row ``row`` of the image table, with its label maps: who needs none of these reads less below."""
        g, count = self._images, self._image_count(row)
        labels = g.read("image_labels", (count, limits.IMAGE_LABELS), at=row)
        shape = (count, limits.LABEL_MAPS, *(self.grid or (limits.SIDE, limits.SIDE)))
        size = g.dataset("label_maps", shape, chunk=limits.LABEL_BYTES).nbytes // count
        g.demand("label_maps", size, limits.LABEL_BYTES)
        return StoredImage(
            name=self.image_name(row),
            index=int(g.read("index", (count,), at=row)),
            split=self.image_split(row),
            thumbnail=self.thumbnail(row),
            label_maps=g.read("label_maps", shape, at=row, chunk=limits.LABEL_BYTES).astype(np.uint16),
            labels=tuple(int(n) for n in labels if n),
        )

    def image_name(self, row: int) -> str:
        """The name of the image in row ``row``."""
        return self._images.string("name", self._image_count(row), row, limits.IMAGE_NAME)

    def image_split(self, row: int) -> str:
        """Which split the image in row ``row`` is of."""
        return self._images.string("split", self._image_count(row), row)

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail of the image in row ``row``: what should be a JPEG (ndissect.store.jpeg looks)."""
        g, count = self._images, self._image_count(row)
        ends = g.counts("thumbnail_end", (count,), at=slice(max(row - 1, 0), row + 1))
        start, end = int(ends[0]) if row else 0, int(ends[-1])
        size = g.dataset("thumbnails", (_ANY,), "u").shape[0]
        if not start <= end <= size:
            raise g.broken("thumbnail_end", f"points outside the thumbnails in row {row}")
        g.demand("thumbnails", end - start, limits.THUMBNAIL)
        return g.read("thumbnails", (size,), "u", at=slice(start, end)).astype(np.uint8).tobytes()

    @cached_property
    def _images(self) -> Checked:
        return self._root.group("images", "ndissect-images")

    @cached_property
    def _images_there(self) -> int:
        return int(self._images.dataset("index", (limits.IMAGES,)).shape[0])

    def _image_count(self, row: int) -> int:
        """How many images there are, one of them in row ``row``."""
        if not 0 <= row < self._images_there:
            raise self._images.broken("index", f"has no row {row}")
        return self._images_there

    def count_units(self, layer: str, units: int, categories: int) -> None:
        """Take note of the size of a layer; NDError where all that were met are more than a store may hold."""
        before = self._sizes.get(layer, (0, 0))
        self._sizes[layer] = after = (units, units * categories)
        self._units += after[0] - before[0]
        self._best += after[1] - before[1]
        self._root.demand("layers", self._units, limits.UNITS)
        self._root.demand("layers", self._best, limits.BEST)


class LayerView:
    """One layer of an open store. What is cheap is read at once, the counts a row at a time."""

    def __init__(self, store: Store, name: str, group: Checked) -> None:
        self.store = store
        self.name = name
        self._group = group
        self.module = group.text("module") or ""
        self.map_size = group.size("map_size")
        self._known: dict[str, npt.NDArray[np.float64]] = {}

    @cached_property
    def best(self) -> scores.Best:
        """The best concept of each category, for each unit."""
        g = self._group.group("best", "ndissect-best")
        K, C = len(self.store.concepts.categories), len(self.store.concepts)
        concept = g.rows("concept", (limits.UNITS, K), C)
        self.store.count_units(self.name, *concept.shape)
        intersection, area = g.counts("intersection", concept.shape), g.counts("area", concept.shape)
        self._check_categories(g, concept, np.arange(K))
        # An appended entry is that of row -1, no concept: with its area of 0 the IoU is 0.
        concept_area = np.append(self.store.concept_counts.area.sum(0), 0)[concept]
        if (intersection > concept_area)[concept >= 0].any():
            raise g.broken("intersection", "exceeds the area of the concept")
        return scores.Best(concept, intersection, area, scores.iou(intersection, area, concept_area))

    def _check_categories(self, g: Checked, concept: npt.NDArray[np.int32], expected: npt.NDArray[np.intp]) -> None:
        category = np.append(self.store.concepts.category, -1)[concept]
        if ((category != expected) & (concept >= 0)).any():
            raise g.broken("concept", "points to a concept of another category")

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What is wrong with the layer's numbers, by the run that made them."""
        return tuple(mark for mark in self.store.marks if mark.layer == self.name)

    @cached_property
    def units(self) -> int:
        """How many units the layer has."""
        if "best" in self.__dict__:  # read already, and counted
            return len(self.best.concept)
        g = self._group.group("best", "ndissect-best")
        shape = g.dataset("concept", (limits.UNITS, limits.CATEGORIES)).shape
        self.store.count_units(self.name, *shape)
        return int(shape[0])

    @cached_property
    def labels(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Each unit's label, a concept row or -1, and its IoU."""
        return scores.label_units(self.best)

    @cached_property
    def statistics(self) -> UnitStatistics:
        """Thresholds and what else is known of each unit's activations."""
        g, U = self._group, self.units
        return UnitStatistics(
            threshold=g.read("threshold", (U,), "f").astype(np.float64),
            dead=g.read("dead", (U,), "iub").astype(bool),
            nan=g.counts("nan", (U,)),
            inf=g.counts("inf", (U,)),
            minimum=g.read("minimum", (U,), "f").astype(np.float32),
            maximum=g.read("maximum", (U,), "f").astype(np.float32),
        )

    @property
    def has_counts(self) -> bool:
        """Whether the counts of every concept are there: an imported table has only each category's best."""
        return self._group.has("counts")

    def check_unit(self, unit: int) -> int:
        """``unit``, if the layer has it; WrongUse otherwise."""
        if not 0 <= unit < self.units:
            raise WrongUse(f"{self.name} has no unit {unit}", f"its units are 0 to {self.units - 1}")
        return unit

    def unit_ious(self, unit: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """IoU, I and A of one unit with every concept, (C,) each. An imported table has zeros but for the best."""
        self.check_unit(unit)
        concepts = self.store.concepts
        C = len(concepts)
        if not self.has_counts:
            value, intersection, area = np.zeros(C), np.zeros(C, np.int64), np.zeros(C, np.int64)
            known = self.best.concept[unit] >= 0
            rows = self.best.concept[unit][known]
            value[rows] = self.best.iou[unit][known]
            intersection[rows] = self.best.intersection[unit][known]
            area[rows] = self.best.area[unit][known]
            return value, intersection, area
        g = self._group.group("counts", "ndissect-counts")
        G, U, K = len(self.store.groups), self.units, len(concepts.categories)
        row = np.s_[:, unit]
        intersection = g.counts("intersection", (G, U, C), at=row).sum(0)
        if self.store.protocol.union == "within-category":
            area = g.counts("area_in_category", (G, U, K), at=row).sum(0)[concepts.category]
        else:
            area = np.full(C, g.counts("area", (G, U), at=row).sum(0))
        value = scores.iou(intersection, area, self.store.concept_counts.area.sum(0))
        if self._group.read("dead", (self.units,), "iub", at=unit):
            value[:] = 0  # a dead unit detects nothing, whatever its constant or negative maps cover
        return value, intersection, area

    def concept_ious(self, row: int) -> npt.NDArray[np.float64]:
        """(U,) float64: the IoU of each unit with concept ``row``; an imported table knows it only where it is best."""
        if not self.has_counts:
            return np.asarray(np.where(self.best.concept == row, self.best.iou, 0.0).max(1))
        g = self._group.group("counts", "ndissect-counts")
        concepts = self.store.concepts
        G, U, K = len(self.store.groups), self.units, len(concepts.categories)
        intersection = g.counts("intersection", (G, U, len(concepts)), at=np.s_[:, :, row]).sum(0)
        if self.store.protocol.union == "within-category":
            area = g.counts("area_in_category", (G, U, K), at=np.s_[:, :, int(concepts.category[row])])
        else:
            area = g.counts("area", (G, U))
        found = scores.iou(intersection, area.sum(0), self.store.concept_counts.area.sum(0)[row])
        return np.where(self.statistics.dead, 0.0, found)

    @cached_property
    def best_units(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """For each concept the unit with the largest IoU, the first of equals, and that IoU, (C,) each.

        The unit need not be labelled with the concept. -1 and 0.0 where no unit has an IoU above 0. An imported table
        knows only the best concepts of each unit.
        """
        C, U = len(self.store.concepts), self.units
        unit, value = np.full(C, -1, np.int64), np.zeros(C)
        some = max(_COUNTS_AT_A_TIME // max(len(self.store.groups) * C, 1), 1)
        for start in range(0, U, some):
            ious = self._ious(slice(start, min(start + some, U)))
            first = ious.argmax(0)
            here = ious[first, np.arange(C)]
            better = here > value
            unit[better], value[better] = start + first[better], here[better]
        return unit, value

    def _ious(self, units: slice) -> npt.NDArray[np.float64]:
        """IoU of each of these units with every concept, (n, C)."""
        concepts, best = self.store.concepts, self.best
        G, U, C = len(self.store.groups), self.units, len(concepts)
        if not self.has_counts:
            found = np.zeros((units.stop - units.start, C + 1))  # the last column takes those of no concept
            np.put_along_axis(found, best.concept[units].astype(np.int64), best.iou[units], 1)
            return found[:, :C]
        g = self._group.group("counts", "ndissect-counts")
        intersection = g.counts("intersection", (G, U, C), at=np.s_[:, units]).sum(0)
        area = g.counts("area", (G, U), at=np.s_[:, units]).sum(0)
        in_category = g.counts("area_in_category", (G, U, len(concepts.categories)), at=np.s_[:, units]).sum(0)
        concept_area = self.store.concept_counts.area.sum(0)
        found = scores.unit_ious(
            intersection, area, in_category, concept_area, concepts.category, self.store.protocol.union
        )
        found[self.statistics.dead[units]] = 0  # as in unit_ious
        return found

    def counts(self) -> LayerCounts | None:
        """Every count of the layer, None for an imported table. Large: 8 G U C bytes."""
        if not self.has_counts:
            return None
        g = self._group.group("counts", "ndissect-counts")
        G, U = len(self.store.groups), self.units
        C, K = len(self.store.concepts), len(self.store.concepts.categories)
        return LayerCounts(
            g.counts("intersection", (G, U, C), most=limits.LAYER),
            g.counts("area", (G, U), most=limits.LAYER),
            g.counts("area_in_category", (G, U, K), most=limits.LAYER),
        )

    @cached_property
    def evidence(self) -> Evidence:
        """How far each unit's label can be trusted; NaN for what the store does not tell."""
        U = self.units
        if not self._group.has("evidence"):
            return no_evidence(U)
        concept = self._evidence_group.rows("heldout_concept", (U,), len(self.store.concepts))
        return Evidence(**{name: self.known(name) for name in NUMBERS}, heldout_concept=concept)

    @cached_property
    def _evidence_group(self) -> Checked:
        return self._group.group("evidence", "ndissect-evidence")

    def known(self, name: str) -> npt.NDArray[np.float64]:
        """(U,) float64: what ``evidence`` has by the name ``name``, one of its numbers, read without the others."""
        if name not in self._known:
            found = np.full(self.units, np.nan)
            if self._group.has("evidence"):
                found = self._evidence_group.read(name, (self.units,), "f").astype(np.float64)
                if ((found < 0) | (found > 1)).any():
                    raise self._evidence_group.broken(name, "holds what is no share between 0 and 1")
            self._known[name] = found
        return self._known[name]

    @cached_property
    def leading(self) -> Leading | None:
        """The leading concepts with their counts by image block; None where counts were not kept by block."""
        if not self._group.has("leading"):
            return None
        g = self._group.group("leading", "ndissect-leading")
        U, K = self.units, len(self.store.concepts.categories)
        concept = g.rows("concept", (U, K, PER_CATEGORY), len(self.store.concepts))
        self._check_categories(g, concept, np.arange(K)[:, None])
        return Leading(
            concept,
            g.counts("intersection", (U, BLOCKS, K, PER_CATEGORY)),
            g.counts("area", (U, BLOCKS, K)),
        )

    @property
    def pairings(self) -> int:
        """How many wrong pairings of masks and labels were counted; 0 for none."""
        if not self._group.has("null"):
            return 0
        shape = (limits.PAIRINGS, self.units)
        return int(self._group.group("null", "ndissect-null").dataset("concept", shape).shape[0])

    @cached_property
    def null(self) -> NullBest | None:
        """The best concepts under wrong pairings of masks and labels; None where there were none."""
        if not self._group.has("null"):
            return None
        g = self._group.group("null", "ndissect-null")
        shape = g.dataset("concept", (limits.PAIRINGS, self.units)).shape
        concept = g.rows("concept", shape, len(self.store.concepts))
        intersection, concept_area = g.counts("intersection", shape), g.counts("concept_area", shape)
        if (intersection > concept_area).any():
            raise g.broken("intersection", "exceeds the area of the concept")
        return NullBest(concept, intersection, g.counts("area", shape), concept_area)

    @property
    def has_top(self) -> bool:
        """Whether the layer's top images are in the store."""
        return self._group.has("top")

    def top(self, unit: int, images: int | None = None) -> TopImages:
        """The first ``images`` top images of a unit, by default all: (n,), (n,), (n, h, w) of :class:`TopImages`."""
        image, peak, rank = self._ranked(unit, images)
        part = slice(int(rank[0]), int(rank[-1]) + 1) if len(rank) else slice(0, 0)
        shape = (self.units, self._top_count, *(self.map_size or (limits.SIDE, limits.SIDE)))
        maps = self._top.read("map", shape, "f", at=(unit, part)).astype(np.float32)
        return TopImages(image, peak, maps[rank - part.start])

    def peaks(self, unit: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The rows of a unit's top images in the image table, and the peaks there: (n,) each, without the maps."""
        return self._ranked(unit, None)[:2]

    def _ranked(
        self, unit: int, images: int | None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.intp]]:
        """As :meth:`peaks`, of the first ``images``, and at which ranks of the stored table they are."""
        self.check_unit(unit)
        if not self.has_top:
            raise NDError(
                f"{self.store.path} holds no top images for {self.name}",
                "an imported table has none: dissect the network to see its images",
            )
        shape = (self.units, self._top_count)
        image = self._top.counts("image", shape, at=unit, least=-1)
        peak = self._top.read("peak", shape, "f", at=unit).astype(np.float32)
        rank = np.flatnonzero(image >= 0)[:images]
        # A row beyond 32 bits is as far outside of the table as the last one that they hold.
        return np.minimum(image, _INT32)[rank].astype(np.int32), peak[rank], rank

    @cached_property
    def _top(self) -> Checked:
        return self._group.group("top", "ndissect-top")

    @cached_property
    def _top_count(self) -> int:
        return int(self._top.dataset("image", (self.units, limits.TOP)).shape[1])

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """How the layer's maps lie on the label grid: rows, columns."""
        if self.map_size is None or self.store.grid is None:
            raise self._group.broken("@map_size", "is missing")
        found = []
        for name, n, size in zip(("rows", "columns"), self.map_size, self.store.grid, strict=True):
            g = self._group.group(name, "ndissect-axis")
            cell = g.rows("cell", (size,), n + 1, least=0).astype(np.int64)
            weight = g.read("weight", (size,), "f").astype(np.float32)
            if not ((weight >= 0) & (weight <= 1)).all():
                raise g.broken("weight", "holds what is no share between 0 and 1")
            found.append(Axis(g.read("position", (n,), "f").astype(np.float64), cell, weight))
        return found[0], found[1]

    def masks(self, unit: int, images: int | None = None) -> npt.NDArray[np.bool_]:
        """(n, H, W) bool: the unit's masks in its first ``images`` top images, by default in all, on the label grid."""
        maps = self.top(unit, images).maps
        found = np.empty((len(maps), *(len(axis.cell) for axis in self.axes)), bool)
        for mask, values in zip(found, maps, strict=True):
            mask[:] = self.mask(unit, values)
        return found

    def mask(self, unit: int, values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """(H, W) bool: where ``values`` (h, w), a map of the unit, lies above its threshold once it is enlarged."""
        rows, columns = self.axes
        # Non-finite samples take no part, as in the counts: whatever is interpolated from one is not in the mask.
        values = np.where(np.isfinite(values), values, np.float32(np.nan))
        with np.errstate(over="ignore", invalid="ignore"):  # float32 at its limits is counted as it comes out
            enlarged = upsample(values, rows, columns, self.store.protocol.upsampling)
        return np.asarray(enlarged.astype(np.float64) > self.statistics.threshold[unit])

    def summary(self) -> dict[str, Any]:
        """Units, detectors and both counts of unique detectors; ``by_category`` adds up to ``unique_per_category``.

        ``detectors_q05``: the detectors that are told from chance, q < 0.05; None where there is no null.
        """
        found, q = scores.detectors(self.best), self.known("q")
        known = bool((~np.isnan(q)).any())
        return {
            "units": self.units,
            "detectors": int(found.sum()),
            "detectors_q05": int((found & (q < SIGNIFICANT)).sum()) if known else None,
            **scores.unique_counts(self.best, self.store.concepts.categories),
        }

    def load(self) -> Layer:
        """The whole layer in memory, as it was written."""
        top = None
        if self.has_top:
            shape, size = (self.units, self._top_count), self.map_size or (limits.SIDE, limits.SIDE)
            top = TopImages(
                self._top.read("image", shape).astype(np.int32),
                self._top.read("peak", shape, "f").astype(np.float32),
                self._top.read("map", (*shape, *size), "f", most=limits.LAYER).astype(np.float32),
            )
        axes = self.axes if self._group.has("rows") else None
        return Layer(
            self.name,
            self.module,
            self.best,
            self.statistics,
            self.map_size,
            self.counts(),
            top,
            axes,
            self.evidence if self._group.has("evidence") else None,
            self.leading,
            self.null,
        )
