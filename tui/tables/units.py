"""Units of a store's layers, with what is known of each: the values of the columns of ndissect.tui.tables.columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import report_order
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.tui.tables.columns import Medium, UnitColumn, columns_of
from ndissect.tui.tables.concept_effects import label_coefficients, label_effects
from ndissect.tui.tables.effects import worst

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Texts:
    """A text for each row: ``code`` (N,) picks one of ``strings``, so that equal texts are looked at once."""

    strings: tuple[str, ...]
    code: npt.NDArray[np.int64]

    def where(self, holds: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """(N,) bool: the rows whose text ``holds`` accepts."""
        return np.array([holds(s.casefold()) for s in self.strings], bool)[self.code]

    def objects(self) -> Array:
        """(N,) object: the texts, None for an empty one."""
        return np.array([s or None for s in self.strings], object)[self.code]


Values = Array | Texts


class Units:
    """N units of layers of one store, and what is known of each.

    ``views``: the layers; ``rows`` (N,): which of their units, counted through all layers, all of them by default.
    With the row of a ``concept`` the IoU is that with this concept, and evidence, which is for labels, is known only
    of the units that go by it. ``units[column]`` gives a column's values; they are read once.
    """

    def __init__(
        self,
        store: Store,
        views: Sequence[LayerView],
        rows: npt.NDArray[np.int64] | None = None,
        concept: int | None = None,
    ) -> None:
        self.store, self.views, self.concept = store, tuple(views), concept
        self.rows = np.arange(sum(view.units for view in views)) if rows is None else rows
        self._values: dict[str, Values] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: UnitColumn) -> Values:
        """(N,), of an interval (N, 2): the values of ``column``."""
        if column.key not in self._values:
            self._values[column.key] = column.values(self)
        return self._values[column.key]

    def read(self, columns: Iterable[UnitColumn]) -> None:
        """Read the values of ``columns`` now, so that they stay when the store is closed."""
        for column in columns:
            self[column]

    def only(self, rows: npt.NDArray[Any]) -> Units:
        """Those of these units that ``rows``, indices or flags, picks, in its order."""
        return Units(self.store, self.views, self.rows[rows], self.concept)

    # Columns in other forms

    def numbers(self, column: UnitColumn) -> Array:
        """(N,): the numbers of ``column``; of an interval where it begins; of texts their codes."""
        values = self[column]
        if isinstance(values, Texts):
            return values.code
        return values[:, 0] if values.ndim == 2 else values

    def listed(self, column: UnitColumn) -> list[Any]:
        """The values of ``column`` as plain Python: None for no text, NaN for an unknown number."""
        values = self[column]
        listed: list[Any] = (values.objects() if isinstance(values, Texts) else values).tolist()
        return listed

    def value(self, column: UnitColumn, row: int) -> Any:
        """One of the values of ``column`` as plain Python."""
        values = self[column]
        return (values.strings[values.code[row]] or None) if isinstance(values, Texts) else values[row].tolist()

    def any_known(self, column: UnitColumn) -> bool:
        """Whether the number or text is known of any unit of the layers, be it one of these or not."""
        values = self._every[column]
        if isinstance(values, Texts):
            return any(values.strings[code] for code in np.unique(values.code))
        return not np.isnan(values).all()

    @cached_property
    def _every(self) -> Units:
        """All units of the layers."""
        return Units(self.store, self.views)

    def shown(self, medium: Medium) -> list[UnitColumn]:
        """The columns that are seen in ``medium``, without evidence that is known of no unit of the layers."""
        return [column for column in columns_of(medium) if not column.evidence or self.any_known(column)]

    def told(self, columns: Iterable[UnitColumn]) -> list[UnitColumn]:
        """Those of ``columns`` that a program is told: all but the few that are for stores in which they are known."""
        return [column for column in columns if not column.only_known or self.any_known(column)]

    # Where the values come from

    def gather(self, of: Callable[[LayerView], Array], dtype: Any = np.float64) -> Array:
        """(N,): ``of`` gives the values of all units of a layer, and those of these units are taken.

        ``dtype`` is the type of the empty array that a store without layers gives.
        """
        parts = [of(view) for view in self.views]
        return (np.concatenate(parts) if parts else np.zeros(0, dtype))[self.rows]

    def statistic(self, name: str) -> Array:
        """(N,): the field ``name`` of ndissect.store.model.UnitStatistics."""
        return self.gather(lambda view: getattr(view.statistics, name))

    def evidence(self, name: str) -> Array:
        """(N,) float64: the number ``name`` of ndissect.store.evidence.Evidence."""
        known = self.gather(lambda view: view.known(name))
        return known if self.concept is None else np.where(self.label == self.concept, known, np.nan)

    @cached_property
    def layer(self) -> Array:
        """(N,) int64: which of ``views``."""
        counts = np.array([view.units for view in self.views], np.int64)
        return np.repeat(np.arange(len(counts)), counts)[self.rows]

    @property
    def layers(self) -> Texts:
        """The layers' names."""
        return Texts(tuple(view.name for view in self.views), self.layer)

    @cached_property
    def unit(self) -> Array:
        """(N,) int32: the units' numbers in their layers."""
        return self.gather(lambda view: np.arange(view.units, dtype=np.int32), np.int32)

    @cached_property
    def label(self) -> Array:
        """(N,) int32: the rows of the concepts that are the labels, -1 for none."""
        return self.gather(lambda view: view.labels[0], np.int32)

    @cached_property
    def iou(self) -> Array:
        """(N,) float64: the IoU with the label, or with the concept that was asked for."""
        concept = self.concept
        return self.gather(lambda view: view.labels[1] if concept is None else view.concept_ious(concept))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The concepts' names as reports show them, then "" for row -1, no concept."""
        concepts = self.store.concepts
        return (*(concepts.label(row) for row in range(len(concepts))), "")

    @property
    def labels(self) -> Texts:
        """The labels' names."""
        return Texts(self.names, self.label)

    @property
    def alphabet(self) -> Array:
        """(N,) int64: the label's place in the alphabet; units without a label come last."""
        order = sorted(range(len(self.names)), key=lambda i: (not self.names[i], self.names[i].casefold()))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank[self.label]

    @property
    def categories(self) -> Texts:
        """The categories of the labels, in report order."""
        concepts = self.store.concepts
        names = report_order(concepts.categories)
        code = [names.index(category) for category in concepts.categories]
        of_concept = np.append(np.array(code, np.int64)[concepts.category], len(names))
        return Texts((*names, ""), of_concept[self.label])

    @property
    def heldout_labels(self) -> Texts:
        """The labels that the train images alone choose."""
        return Texts(self.names, self.gather(lambda view: view.evidence.heldout_concept, np.int32))

    @property
    def interval(self) -> Array:
        """(N, 2) float64: both ends of the interval of the IoU."""
        return np.stack([self.evidence("iou_low"), self.evidence("iou_high")], 1)

    @property
    def concept_number(self) -> Array:
        """(N,) int64: the label's number in the data set, -1 for none."""
        return np.append(self.store.concepts.number, -1)[self.label]

    @property
    def concept_area(self) -> Array:
        """(N,) int64: C, the pixels of the label, or the images that hold it where the layer is judged on images."""
        return self.gather(lambda view: _concept_area(view)[view.labels[0]], np.int64)

    def behind_label(self, name: str) -> Array:
        """(N,) int64: I (``intersection``) or A (``area``) behind the label's IoU; 0 without a label."""
        category = np.append(self.store.concepts.category, -1)

        def counts(view: LayerView) -> Array:
            label, best = view.labels[0], getattr(view.best, name)
            if not best.shape[1]:
                return np.zeros(view.units, np.int64)
            return _counted(view, np.where(label >= 0, best[np.arange(view.units), category[label]], 0))

        return self.gather(counts, np.int64)

    def best(self, name: str, category: int) -> Array:
        """(N,): the field ``name`` of ndissect.store.scores.Best for the best concept of a category of the store."""

        def values(view: LayerView) -> Array:
            of: Array = getattr(view.best, name)[:, category]
            return _counted(view, of) if name in ("intersection", "area") else of

        return self.gather(values)

    def best_concept_area(self, category: int) -> Array:
        """(N,) int64: C of the best concept of a category of the store; 0 for none."""
        return self.gather(lambda view: _concept_area(view)[view.best.concept[:, category]], np.int64)

    @cached_property
    def _worst(self) -> Array:
        """(N, 4): see ndissect.tui.tables.effects.worst."""
        return self.gather(worst).reshape(-1, 4)  # a store without layers gives no rows at all

    @property
    def needed_by(self) -> Texts:
        """The classes that the units' absence hurts most."""
        names = self.store.classes.names if self.store.classes else ()
        return Texts((*names, ""), np.nan_to_num(self._worst[:, 0], nan=-1).astype(np.int64) % (len(names) + 1))

    @property
    def effect(self) -> Array:
        """(N,) float64: how the balanced accuracy of that class changes without the unit."""
        return np.asarray(self._worst[:, 1])

    @property
    def effect_interval(self) -> Array:
        """(N, 2) float64: both ends of the interval of that change."""
        return np.asarray(self._worst[:, 2:])

    @cached_property
    def _concept_effects(self) -> Array:
        """(N, 3): see ndissect.tui.tables.concept_effects.label_effects."""
        return self.gather(lambda view: label_effects(view, self.concept)).reshape(-1, 3)

    @property
    def concept_effect(self) -> Array:
        """(N,) float64: how the share of pixels of the label, or of the concept that was asked for, changes without
        the unit."""
        return np.asarray(self._concept_effects[:, 0])

    @property
    def concept_effect_interval(self) -> Array:
        """(N, 2) float64: both ends of the interval of that change."""
        return np.asarray(self._concept_effects[:, 1:])

    @property
    def coefficient(self) -> Array:
        """(N,) float64: the coefficient that was learned for that concept."""
        return self.gather(lambda view: label_coefficients(view, self.concept))

    @property
    def images(self) -> Array:
        """(N,) int64: how many images hold the label; -1 where that is not known, and without a label."""
        images = self.store.concept_counts.images
        known = np.where((images < 0).any(0), -1, images.sum(0))
        return np.append(known, -1).astype(np.int64)[self.label]

    @property
    def known_images(self) -> Array:
        """(N,) float64: the same, NaN for what is not known."""
        return np.where(self.images >= 0, self.images, np.nan)


def _concept_area(view: LayerView) -> Array:
    """(C + 1,) int64: C(c) as the layer counts it, then 0 for row -1, no concept; NaN where only IoUs are known."""
    return _counted(view, np.append(view.concept_counts.area.sum(0), 0))


def _counted(view: LayerView, counts: Array) -> Array:
    """``counts``; NaN, float64, where the layer has IoUs without the counts behind them."""
    return np.full(counts.shape, np.nan) if view.has_ious_alone else counts


def units_json(units: Units, columns: Sequence[UnitColumn] | None = None) -> list[dict[str, Any]]:
    """The units as ``nd inspect --json`` prints them, or these ``columns``: evidence that is not known is None."""
    columns = units.told(columns_of(Medium.JSON) if columns is None else columns)
    keys = [column.key for column in columns]
    values = [_or_none(units.listed(column)) if column.evidence else units.listed(column) for column in columns]
    return [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)]


def _or_none(values: list[Any]) -> list[Any]:
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def unit_json(view: LayerView, unit: int) -> dict[str, Any]:
    """One unit as ``nd inspect --json`` prints it; a dead or unlabelled unit has label null and IoU 0."""
    return units_json(Units(view.store, [view], np.array([unit])))[0]
