"""One layer of an open store."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ndissect.store import limits, parts, scores
from ndissect.store.concept_effects import ConceptEffects, EffectPictures
from ndissect.store.counts import Blocks, ConceptCounts, JudgedOn, LayerCounts, Leading
from ndissect.store.descriptions import NO_PROTOCOL, SIMILARITY, Descriptions, find_descriptions, read_descriptions
from ndissect.store.effects import Effects, Head
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.evidence import NUMBERS, SIGNIFICANT, Evidence, NullBest, no_evidence
from ndissect.store.hdf5 import Checked
from ndissect.store.marks import Mark
from ndissect.store.model import Layer, TopImages, UnitStatistics
from ndissect.store.parts import Group
from ndissect.store.stored_concept_effects import (
    read_concept_effects,
    read_effect_pair,
    read_effect_pictures,
    read_ious,
)
from ndissect.store.stored_effects import read_effects, read_head
from ndissect.store.stored_group import StoredGroup
from ndissect.store.upsampling import Axis, upsample

if TYPE_CHECKING:
    from ndissect.store.reader import Store

# Counts of all units are read so many at a time: memory then does not grow with the layer.
_COUNTS_AT_A_TIME = 1 << 19
_INT32 = (1 << 31) - 1


class LayerView:
    """One layer of an open store: ``store.layer("layer4").labels``. What is read stays valid when the store is closed.

    What has one value for each unit is read once and kept. The counts of all concepts are large: they are read for one
    unit or one concept at a time.
    """

    def __init__(self, store: Store, name: str, group: Checked) -> None:
        self.store = store
        self.name = name
        self._group = group
        self.module = group.text("module") or ""
        self.map_size = group.size("map_size")
        self.judged_on: JudgedOn = "images" if group.text("encoding-type") == parts.LAYER_KINDS["images"] else "pixels"
        self._known: dict[str, npt.NDArray[np.float64]] = {}

    def _has(self, group: Group) -> bool:
        return self._group.has(group.name)

    @property
    def concept_counts(self) -> ConceptCounts:
        """What the labels hold, (G, C): ``area`` is C(c) as this layer counts it, in pixels or in images."""
        return self.store.concept_counts.judged_on(self.judged_on)

    @property
    def blocks(self) -> Blocks | None:
        """What the labels hold by image block, as this layer counts it; None where counts were not kept by block."""
        return self.store.blocks.judged_on(self.judged_on) if self.store.blocks else None

    @property
    def grid(self) -> tuple[int, int] | None:
        """The grid (H, W) on which masks and labels are compared: a single cell where the layer is judged on images."""
        return (1, 1) if self.judged_on == "images" else self.store.grid

    @cached_property
    def best(self) -> scores.Best:
        """The best concept of each category, for each unit."""
        g = StoredGroup.inside(self._group, parts.BEST, self.store.lengths)
        units, categories = g.measure("concept")
        concept = g.rows("concept", len(self.store.concepts))
        self.store.count_units(self.name, units, categories)
        intersection, area = g.counts("intersection"), g.counts("area")
        self._check_categories(g, concept, np.arange(categories))
        if self.ious is not None:
            return scores.best_of_ious(self.ious, self.store.concepts.category, categories)
        # An appended entry is that of row -1, no concept: with its area of 0 the IoU is 0.
        concept_area = np.append(self.concept_counts.area.sum(0), 0)[concept]
        if (intersection > concept_area)[concept >= 0].any():
            raise g.broken("intersection", "exceeds the area of the concept")
        return scores.Best(concept, intersection, area, scores.iou(intersection, area, concept_area))

    @cached_property
    def ious(self) -> scores.Floats | None:
        """(U, C): IoUs that were given without the counts behind them; None for a layer whose IoUs are counted."""
        return read_ious(self._group, self._lengths)

    def _check_categories(self, g: StoredGroup, concept: npt.NDArray[np.int32], expected: npt.NDArray[np.intp]) -> None:
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
        units, categories = StoredGroup.inside(self._group, parts.BEST).measure("concept")
        self.store.count_units(self.name, units, categories)
        return units

    @cached_property
    def labels(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Each unit's label, a concept row or -1, and its IoU; of a description, which has no counts, NaN."""
        if self.descriptions is not None:
            return self.descriptions.concept, np.full(self.units, np.nan)
        return scores.label_units(self.best)

    @cached_property
    def descriptions(self) -> Descriptions | None:
        """The labels that others gave, in place of counts; None for a layer that was dissected."""
        if self.store.protocol.name != NO_PROTOCOL.name:  # counted: its provenance, which is large, need not be read
            return None
        entry = find_descriptions(self.store.provenance, self.name)
        if entry is None:
            return None
        try:
            return read_descriptions(entry, self.units, len(self.store.concepts))
        except ValueError as e:
            raise self.store.broken("provenance", f"{e} of layer {self.name}") from e

    @cached_property
    def statistics(self) -> UnitStatistics:
        """Thresholds and what else is known of each unit's activations."""
        g = self._sized
        return UnitStatistics(
            threshold=g.read("threshold"),
            dead=g.read("dead").astype(bool),
            nan=g.counts("nan"),
            inf=g.counts("inf"),
            minimum=g.read("minimum"),
            maximum=g.read("maximum"),
        )

    @property
    def has_counts(self) -> bool:
        """Whether the counts of every concept are there: an imported table has only each category's best."""
        return self._has(parts.COUNTS)

    @cached_property
    def _counts(self) -> StoredGroup:
        return StoredGroup.inside(self._group, parts.COUNTS, self._lengths)

    @cached_property
    def _sized(self) -> StoredGroup:
        """The layer's own parts, which have a value for each unit."""
        return StoredGroup(self._group, parts.LAYER, {"U": self.units})

    @property
    def _lengths(self) -> dict[str, int]:
        return {**self.store.lengths, "U": self.units}

    def check_unit(self, unit: int) -> int:
        """``unit``, if the layer has it; WrongUse otherwise."""
        if not 0 <= unit < self.units:
            raise WrongUse(f"{self.name} has no unit {unit}", f"its units are 0 to {self.units - 1}")
        return unit

    def unit_ious(self, unit: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """IoU, I and A of one unit with every concept, (C,) each.

        An imported table knows them only for the best concept of each category; elsewhere they are 0. Where it has
        IoUs alone, I and A are -1.
        """
        self.check_unit(unit)
        concepts = self.store.concepts
        C = len(concepts)
        if self.ious is not None:
            unknown = np.full(C, -1, np.int64)
            return self.ious[unit].copy(), unknown, unknown
        if not self.has_counts:
            value, intersection, area = np.zeros(C), np.zeros(C, np.int64), np.zeros(C, np.int64)
            known = self.best.concept[unit] >= 0
            rows = self.best.concept[unit][known]
            value[rows] = self.best.iou[unit][known]
            intersection[rows] = self.best.intersection[unit][known]
            area[rows] = self.best.area[unit][known]
            return value, intersection, area
        g = self._counts
        row = np.s_[:, unit]
        intersection = g.counts("intersection", at=row).sum(0)
        if self.store.protocol.union == "within-category":
            area = g.counts("area_in_category", at=row).sum(0)[concepts.category]
        else:
            area = np.full(C, g.counts("area", at=row).sum(0))
        value = scores.iou(intersection, area, self.concept_counts.area.sum(0))
        if self._sized.read("dead", at=unit):
            value[:] = 0  # a dead unit detects nothing, whatever its constant or negative maps cover
        return value, intersection, area

    def concept_ious(self, row: int) -> npt.NDArray[np.float64]:
        """(U,) float64: the IoU of each unit with concept ``row``.

        An imported table knows the IoU only where the concept is the best of its category; elsewhere it is 0.
        """
        if self.ious is not None:
            return self.ious[:, row].copy()
        if not self.has_counts:
            return np.asarray(np.where(self.best.concept == row, self.best.iou, 0.0).max(1))
        g = self._counts
        intersection = g.counts("intersection", at=np.s_[:, :, row]).sum(0)
        if self.store.protocol.union == "within-category":
            area = g.counts("area_in_category", at=np.s_[:, :, int(self.store.concepts.category[row])])
        else:
            area = g.counts("area")
        value = scores.iou(intersection, area.sum(0), self.concept_counts.area.sum(0)[row])
        return np.where(self.statistics.dead, 0.0, value)

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
        if self.ious is not None:
            return self.ious[units]
        if not self.has_counts:
            C = len(concepts)
            value = np.zeros((units.stop - units.start, C + 1))  # the last column takes those of no concept
            np.put_along_axis(value, best.concept[units].astype(np.int64), best.iou[units], 1)
            return value[:, :C]
        g = self._counts
        intersection = g.counts("intersection", at=np.s_[:, units]).sum(0)
        area = g.counts("area", at=np.s_[:, units]).sum(0)
        in_category = g.counts("area_in_category", at=np.s_[:, units]).sum(0)
        concept_area = self.concept_counts.area.sum(0)
        value = scores.unit_ious(
            intersection, area, in_category, concept_area, concepts.category, self.store.protocol.union
        )
        value[self.statistics.dead[units]] = 0  # as in unit_ious
        return value

    def counts(self) -> LayerCounts | None:
        """Every count of the layer, None for an imported table. Large: 8 G U C bytes."""
        if not self.has_counts:
            return None
        g = self._counts
        return LayerCounts(
            g.counts("intersection", most=limits.LAYER),
            g.counts("area", most=limits.LAYER),
            g.counts("area_in_category", most=limits.LAYER),
        )

    @cached_property
    def evidence(self) -> Evidence:
        """How far each unit's label can be trusted; NaN for what the store does not tell."""
        if not self._has(parts.EVIDENCE):
            return no_evidence(self.units)
        concept = self._evidence.rows("heldout_concept", len(self.store.concepts))
        return Evidence(**{name: self.known(name) for name in NUMBERS}, heldout_concept=concept)

    @cached_property
    def _evidence(self) -> StoredGroup:
        return StoredGroup.inside(self._group, parts.EVIDENCE, {"U": self.units})

    def known(self, name: str) -> npt.NDArray[np.float64]:
        """(U,) float64: the number ``name`` of :class:`Evidence`, read without the others; NaN where it is unknown.

        ``similarity`` is that of :class:`Descriptions`.
        """
        if name not in self._known:
            if name == SIMILARITY:
                given = self.descriptions
                self._known[name] = np.full(self.units, np.nan) if given is None else given.similarity
            elif self._has(parts.EVIDENCE):
                self._known[name] = self._evidence.shares(parts.EVIDENCE.written(f"evidence.{name}"), unknown=True)
            else:
                self._known[name] = np.full(self.units, np.nan)
        return self._known[name]

    @cached_property
    def leading(self) -> Leading | None:
        """The leading concepts with their counts by image block; None where counts were not kept by block."""
        if not self._has(parts.LEADING):
            return None
        g = StoredGroup.inside(self._group, parts.LEADING, self._lengths)
        concept = g.rows("concept", len(self.store.concepts))
        self._check_categories(g, concept, np.arange(concept.shape[1])[:, None])
        return Leading(concept, g.counts("intersection"), g.counts("area"))

    @property
    def pairings(self) -> int:
        """How many wrong pairings of masks and labels were counted; 0 for none."""
        return self._null.measure("concept")[0] if self._has(parts.NULL) else 0

    @property
    def _null(self) -> StoredGroup:
        return StoredGroup.inside(self._group, parts.NULL, {"U": self.units})

    @cached_property
    def null(self) -> NullBest | None:
        """The best concepts under wrong pairings of masks and labels; None where there were none."""
        if not self._has(parts.NULL):
            return None
        g = self._null
        g.measure("concept")
        concept = g.rows("concept", len(self.store.concepts))
        intersection, concept_area = g.counts("intersection"), g.counts("concept_area")
        if (intersection > concept_area).any():
            raise g.broken("intersection", "exceeds the area of the concept")
        return NullBest(concept, intersection, g.counts("area"), concept_area)

    @cached_property
    def head(self) -> Head | None:
        """The linear head behind the layer; None where the scores are not linear in its means, or nobody looked."""
        return read_head(self._group, {"Y": self._classes, "U": self.units})

    @cached_property
    def effects(self) -> Effects | None:
        """What ablations of the layer do to the network's predictions; None where there were none."""
        return read_effects(self._group, self.units, {"Y": self._classes})

    @cached_property
    def concept_effects(self) -> ConceptEffects | None:
        """What a generator's units do to the concepts in its pictures; None where nothing was measured or learned."""
        return read_concept_effects(self._group, self.units, len(self.store.concepts), self._lengths)

    def effect_pictures(self, unit: int) -> tuple[bytes, bytes] | None:
        """A sample as the generator makes it and without ``unit``, two JPEG files; None where there are none of it."""
        return read_effect_pair(self._group, self.units, self.check_unit(unit))

    def all_effect_pictures(self) -> EffectPictures | None:
        """The pictures of all units, as :meth:`effect_pictures`, for what writes them again."""
        return read_effect_pictures(self._group, self.units)

    @property
    def _classes(self) -> int:
        return len(self.store.classes.names) if self.store.classes else 0

    @property
    def has_top(self) -> bool:
        """Whether the layer's top images are in the store."""
        return self._has(parts.TOP)

    def top(self, unit: int, images: int | None = None) -> TopImages:
        """The first ``images`` top images of a unit, by default all: (n,), (n,), (n, h, w) of :class:`TopImages`."""
        image, peak, rank = self._ranked(unit, images)
        part = slice(int(rank[0]), int(rank[-1]) + 1) if len(rank) else slice(0, 0)
        maps = self._top.read("map", at=(unit, part))
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
        image = self._top.counts("image", at=unit, least=-1)
        peak = self._top.read("peak", at=unit)
        rank = np.flatnonzero(image >= 0)[:images]
        # A row beyond 32 bits is as far outside of the table as the last one that they hold.
        return np.minimum(image, _INT32)[rank].astype(np.int32), peak[rank], rank

    @cached_property
    def _top(self) -> StoredGroup:
        lengths = {"h": self.map_size[0], "w": self.map_size[1]} if self.map_size else {}
        top = StoredGroup.inside(self._group, parts.TOP, {**lengths, "U": self.units})
        top.measure("image")
        return top

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """How the layer's maps lie on the label grid: rows, columns."""
        if self.map_size is None or self.grid is None:
            raise self._group.broken("@map_size", "is missing")
        (h, w), (H, W) = self.map_size, self.grid
        return self._axis(parts.ROWS, {"h": h, "H": H}, h), self._axis(parts.COLUMNS, {"w": w, "W": W}, w)

    def _axis(self, group: Group, lengths: dict[str, int], samples: int) -> Axis:
        g = StoredGroup.inside(self._group, group, lengths)
        cell = g.rows("cell", samples + 1, least=0).astype(np.int64)
        return Axis(weight=g.shares("weight", unknown=False), positions=g.read("position"), cell=cell)

    def masks(self, unit: int, images: int | None = None) -> npt.NDArray[np.bool_]:
        """(n, H, W) bool: the unit's masks in its first ``images`` top images, by default in all, on the label grid."""
        maps = self.top(unit, images).maps
        masks = np.empty((len(maps), *(len(axis.cell) for axis in self.axes)), bool)
        for mask, values in zip(masks, maps, strict=True):
            mask[:] = self.mask(unit, values)
        return masks

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
        detectors, q = scores.detectors(self.best), self.known("q")
        known = bool((~np.isnan(q)).any())
        return {
            "units": self.units,
            "detectors": int(detectors.sum()),
            "detectors_q05": int((detectors & (q < SIGNIFICANT)).sum()) if known else None,
            **scores.unique_counts(self.best, self.store.concepts.categories),
        }

    def load(self) -> Layer:
        """The whole layer in memory, as it was written."""
        top = None
        if self.has_top:
            g = self._top
            top = TopImages(g.read("image"), g.read("peak"), g.read("map", most=limits.LAYER))
        axes = self.axes if self._has(parts.ROWS) else None
        return Layer(
            self.name,
            self.module,
            self.best,
            self.statistics,
            self.map_size,
            self.counts(),
            top,
            axes,
            self.evidence if self._has(parts.EVIDENCE) else None,
            self.leading,
            self.null,
            self.judged_on,
            self.head,
            self.effects,
            self.ious,
            self.concept_effects,
            self.all_effect_pictures(),
        )
