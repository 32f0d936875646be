"""What the command line and the terminal UI show of a store, as plain rows: selected, ordered, summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import ConceptTable, report_order
from ndissect.store.errors import WrongUse, nearest
from ndissect.store.evidence import SIGNIFICANT, TRAIN, VAL
from ndissect.store.marks import MARKED, Mark
from ndissect.store.protocol import Protocol
from ndissect.store.reader import LayerView, Store
from ndissect.store.scores import DETECTOR_IOU, FEW_IMAGES
from ndissect.tui.tables.columns import BY_WORD
from ndissect.tui.tables.units import Units

UNITS_FROM_0 = "units count from 0"
#: What the two columns of unique detectors are; the papers' figures are the first.
UNIQUE = (
    "unique/cat: distinct winners of each category with IoU > 0.04, added up;"
    " unique/best: distinct labels with IoU >= 0.04"
)

# Units, or layers, that a caution lists by name.
_NAMED = 8


@dataclass(frozen=True)
class Filter:
    """Which units to show: by the category and the text of their label, their IoU, and the bounds of other numbers.

    ``bounds``: the word of a column (ndissect.tui.tables.columns) and how large its number is at least, or at most
    where small ones come first, as of q. A unit of which a number is unknown does not pass what is asked of it.
    """

    categories: tuple[str, ...] = ()
    concept: str | None = None
    min_iou: float = 0.0
    bounds: Mapping[str, float] = field(default_factory=dict)


def match_concepts(
    concepts: ConceptTable, pattern: str | None, categories: Sequence[str] = ()
) -> npt.NDArray[np.int64]:
    """The rows of the concepts whose name matches ``pattern``, in one of ``categories`` (none given: all).

    A name that equals the pattern is the only match; else a pattern with ``*``, ``?`` or ``[`` is a glob, and any
    other text is looked for inside names, as the data set spells them or as reports show them, without case. WrongUse
    for a category that the store has not, and for a pattern that matches none of its concepts.
    """
    for c in categories:
        if c not in concepts.categories:
            known = nearest(c, list(concepts.categories)) or concepts.categories
            raise WrongUse(f"no category '{c}' in this store", f"it has: {', '.join(known)}")
    inside = [i for i in range(len(concepts)) if not categories or concepts.category_of(i) in categories]
    if pattern is None:
        return np.array(inside, np.int64)
    text = pattern.lower()
    names = {i: (concepts.name[i].lower(), concepts.label(i).lower()) for i in inside}
    exact = [i for i in inside if text in names[i]]
    if exact:
        return np.array(exact, np.int64)
    is_glob = any(c in text for c in "*?[")

    def matches(i: int) -> bool:
        return any(fnmatchcase(n, text) if is_glob else text in n for n in names[i])

    matching = [i for i in inside if matches(i)]
    if not matching:
        where = f"category {' or '.join(categories)}" if categories else "this store"
        close = nearest(pattern, [concepts.label(i) for i in inside])
        raise WrongUse(
            f"no concept matches '{pattern}' in {where}",
            f"nearest: {', '.join(close)}" if close else "nd concepts lists them all",
        )
    return np.array(matching, np.int64)


def select_units(view: LayerView, wanted: Filter, sort: str = "iou") -> npt.NDArray[np.int64]:
    """The units that pass the filter, in the order ``sort``, one of ndissect.tui.tables.columns.SORTS.

    Ties by unit. What is unknown comes last.
    """
    label, value = view.labels
    concepts = view.store.concepts
    keep = value >= wanted.min_iou
    if wanted.categories or wanted.concept is not None:
        rows = match_concepts(concepts, wanted.concept, wanted.categories)
        keep &= np.isin(label, rows)
    for word, bound in wanted.bounds.items():
        values = Units(view.store, [view]).numbers(BY_WORD[word])
        keep &= values >= bound if BY_WORD[word].falling else values <= bound
    units = np.flatnonzero(keep)
    return units[_order(view, units, sort)]


def _order(view: LayerView, units: npt.NDArray[np.int64], sort: str) -> npt.NDArray[np.int64]:
    label, value = view.labels[0][units], view.labels[1][units]
    keys: list[npt.NDArray[Any]] = []  # of np.lexsort, which counts the last one first
    column = BY_WORD.get(sort)
    if column and column.right:
        numbers = Units(view.store, [view], units).numbers(column)
        by_iou = [-value] if column.evidence else []
        keys = [*by_iou, np.nan_to_num(-numbers if column.falling else numbers, nan=np.inf)]
    else:
        concepts = view.store.concepts
        # Row -1, no label, takes the last entry: after every real one.
        names = np.array([*(concepts.label(i) for i in range(len(concepts))), "\U0010ffff"])
        place = {c: i for i, c in enumerate(report_order(concepts.categories))}
        categories = np.array([*(place[concepts.category_of(i)] for i in range(len(concepts))), len(place)])
        by = {"label": [-value, names[label]], "category": [-value, categories[label]]}
        keys = by[sort] if sort in by else _report_keys(label, value, names, categories)
    return np.lexsort([units, *keys])


def _report_keys(
    label: npt.NDArray[np.int32], value: npt.NDArray[Any], names: npt.NDArray[Any], categories: npt.NDArray[Any]
) -> list[npt.NDArray[Any]]:
    """Units by category, then by how many units share the label, then by IoU; those below the threshold last."""
    below = value <= DETECTOR_IOU
    frequency = np.bincount(label[~below] + 1, minlength=len(names) + 1)[label + 1]
    return [-value, names[label], -frequency, categories[label], below]


def best_json(view: LayerView, unit: int) -> dict[str, Any]:
    """The best concept of each category for one unit, with the counts behind its IoU."""
    concepts, best = view.store.concepts, view.best
    area = view.store.concept_counts.area.sum(0)
    best_of: dict[str, Any] = {}
    for category in report_order(concepts.categories):
        k = concepts.categories.index(category)
        row = int(best.concept[unit, k])
        best_of[category] = None if row < 0 else concept_json(
            concepts, row, best.iou[unit, k], best.intersection[unit, k], best.area[unit, k], area[row]
        )  # fmt: skip
    return best_of


def ranked_concepts(
    view: LayerView, unit: int, wanted: Filter | None = None, count: int | None = None
) -> list[dict[str, Any]]:
    """The concepts with an IoU above 0 for one unit that pass the filter, best first, at most ``count`` of them."""
    wanted = wanted or Filter()
    value, intersection, area = view.unit_ious(unit)
    concepts = view.store.concepts
    concept_area = view.store.concept_counts.area.sum(0)
    rows = match_concepts(concepts, wanted.concept, wanted.categories)
    rows = rows[(value[rows] > 0) & (value[rows] >= wanted.min_iou)]
    order = rows[np.argsort(-value[rows], kind="stable")][:count]
    return [concept_json(concepts, int(c), value[c], intersection[c], area[c], concept_area[c]) for c in order]


def concept_json(concepts: ConceptTable, row: int, value: Any, i: Any, a: Any, c: Any) -> dict[str, Any]:
    """A concept with its IoU ``value`` with a unit, and the counts behind it: I, A and C."""
    return {
        "concept": concepts.label(row),
        "category": concepts.category_of(row),
        "iou": float(value),
        "intersection": int(i),
        "area": int(a),
        "concept_area": int(c),
    }


def top_images(view: LayerView, unit: int) -> list[dict[str, Any]]:
    """The unit's top images with their peak activations; none where the store holds no images."""
    if not view.has_top:
        return []
    return [
        {"image": view.store.image_name(int(row)), "peak": float(peak)}
        for row, peak in zip(*view.peaks(unit), strict=True)
    ]


def best_unit(view: LayerView) -> tuple[int | None, str, float]:
    """The unit with the largest IoU, its label and IoU; None where no unit has a label."""
    label, value = view.labels
    if not len(value) or value.max() <= 0:
        return None, "", 0.0
    u = int(value.argmax())
    return u, view.store.concepts.label(int(label[u])), float(value[u])


def layer_row(view: LayerView) -> list[Any]:
    """A layer in a table of layers: name, units, detectors, both counts of unique detectors, best unit."""
    s = view.summary()
    u, label, value = best_unit(view)
    best = "-" if u is None else f"{u} {label} {value:.2f}"
    return [view.name, s["units"], s["detectors"], s["unique_per_category"], s["unique_best_label"], best]


@dataclass(frozen=True)
class ConceptDetectors:
    """What the units of L layers detect of C concepts.

    ``units`` (L, C): units of each layer labelled with the concept, with an IoU above what was asked for; ``iou`` (C,):
    the best IoU of any unit labelled so.
    """

    units: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def concept_detectors(layers: Sequence[LayerView], concepts: int, above: float = DETECTOR_IOU) -> ConceptDetectors:
    """Which units of ``layers`` detect each of the store's ``concepts`` with an IoU above ``above``."""
    units, iou = np.zeros((len(layers), concepts), np.int64), np.zeros(concepts)
    for i, view in enumerate(layers):
        label, value = view.labels
        units[i] = np.bincount(label[value > above], minlength=concepts)[:concepts]
        known = label >= 0
        np.maximum.at(iou, label[known], value[known])
    return ConceptDetectors(units, iou)


@dataclass(frozen=True)
class BestUnits:
    """The unit of L layers with the largest IoU for each of C concepts, whether it is labelled with it or not.

    ``layer``, ``unit`` (C,): the first of equals, -1 where no unit has an IoU above 0; ``iou`` (C,): its IoU.
    """

    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def best_units(layers: Sequence[LayerView], concepts: int) -> BestUnits:
    """The best unit of ``layers`` for each of the store's ``concepts``, detector or not."""
    best = BestUnits(np.full(concepts, -1), np.full(concepts, -1), np.zeros(concepts))
    for i, view in enumerate(layers):
        unit, iou = view.best_units
        better = iou > best.iou
        best.layer[better], best.unit[better], best.iou[better] = i, unit[better], iou[better]
    return best


def concept_table(layers: Sequence[LayerView], rows: npt.NDArray[np.int64], above: float) -> list[dict[str, Any]]:
    """For each concept: how many units in ``layers`` are its detectors, and the best unit of all with its IoU.

    Most detectors come first, then the largest IoU.
    """
    if not layers:
        return []
    store = layers[0].store
    units = concept_detectors(layers, len(store.concepts), above).units.sum(0)
    best, images = best_units(layers, len(store.concepts)), store.concept_counts.images.sum(0)
    table = [
        {
            "concept": store.concepts.label(int(c)),
            "category": store.concepts.category_of(int(c)),
            "images": int(images[c]),
            "detectors": int(units[c]),
            "best_unit": f"{layers[best.layer[c]].name}:{best.unit[c]}" if best.unit[c] >= 0 else None,
            "iou": float(best.iou[c]),
        }
        for c in rows
    ]
    return sorted(table, key=lambda r: (-r["detectors"], -r["iou"], r["concept"]))


def units_of_concept(layers: Sequence[LayerView], row: int) -> list[dict[str, Any]]:
    """Every unit with an IoU above 0 with concept ``row``, best first, with the label it goes by."""
    units: list[dict[str, Any]] = []
    for view in layers:
        label, _ = view.labels
        value = view.concept_ious(row)
        for u in np.flatnonzero(value > 0):
            own = int(label[u])
            name = view.store.concepts.label(own) if own >= 0 else None
            units.append({"layer": view.name, "unit": int(u), "iou": float(value[u]), "label": name})
    return sorted(units, key=lambda r: -r["iou"])


def few_image_labels(view: LayerView) -> int | None:
    """How many units' labels rest on fewer than FEW_IMAGES images; None where the images are not known."""
    images = view.store.concept_counts.images.sum(0)
    label, value = view.labels
    rows = label[(value > DETECTOR_IOU) & (label >= 0)]
    if (images < 0).any():
        return None
    return int((images[rows] < FEW_IMAGES).sum())


def summary_lines(view: LayerView) -> list[str]:
    """A layer's summary in words: detectors, both counts of unique detectors, and what to beware of."""
    s = view.summary()
    by = ", ".join(f"{s['by_category'][c]} {c}" for c in report_order(view.store.concepts.categories))
    surviving = "" if s["detectors_q05"] is None else f", {s['detectors_q05']} of them with q < {SIGNIFICANT}"
    lines = [
        f"{s['units']} units, {s['detectors']} detectors (IoU > {DETECTOR_IOU}){surviving}",
        f"unique detectors: {s['unique_per_category']} per category ({by}); {s['unique_best_label']} by best label",
    ]
    return lines + cautions([view])


def cautions(views: Sequence[LayerView]) -> list[str]:
    """What to beware of in these layers of a store: marks, labels that rest on few images, dead units, NaN."""
    lines = marks(views)
    few = [few_image_labels(view) for view in views]
    if views and None not in few and not views[0].store.protocol.min_images:
        detectors = sum(int((view.labels[1] > DETECTOR_IOU).sum()) for view in views)
        count = sum(n for n in few if n)
        lines.append(
            f"labels that rest on fewer than {FEW_IMAGES} images: {count} of {detectors} detectors'"
            + ("; such labels win by chance, nd dissect --min-images leaves them out" if count else "")
        )
    dead = sum(int(view.statistics.dead.sum()) for view in views)
    if dead:
        lines.append(f"dead units (constant, or never above zero), which have no label: {dead}")
    full = 0
    for s in (view.statistics for view in views):
        full += int(((s.threshold >= s.maximum) & ~s.dead).sum())
    if full:
        lines.append(f"units whose threshold is their maximum (they saturate, so nothing exceeds it): {full}")
    broken = [
        f"{view.name}:{u} ({view.statistics.nan[u]} NaN, {view.statistics.inf[u]} infinite)"
        for view in views
        for u in np.flatnonzero(view.statistics.nan + view.statistics.inf)
    ]
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        named = ", ".join(broken[:_NAMED])
        lines.append(f"NaN or infinite activations, left out: {named}{more}")
    return lines


def marks(views: Sequence[LayerView]) -> list[str]:
    """What the runs of these layers were marked with, in words, the layers with the same words together."""
    return mark_lines([mark for view in views for mark in view.marks])


def mark_lines(marked: Sequence[Mark]) -> list[str]:
    """Marks in words: every view of marked numbers shows these lines before anything else that it notes."""
    layers: dict[str, list[str]] = {}
    for mark in marked:
        layers.setdefault(mark.sentence, []).append(mark.layer)
    return [f"{MARKED}{_named(names)} {sentence}" for sentence, names in layers.items()]


def _named(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:_NAMED]) + (f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else "")


def protocol_line(protocol: Protocol) -> str:
    """The protocol in one line."""
    return f"protocol {protocol.describe()}"


def evidence_line(store: Store) -> str:
    """What labels are held against, in one line: the threshold, the null, the split, the blocks."""
    # One run counts all layers: where one has a null, the others need not be looked at.
    pairings = next((n for name in store.layer_names if (n := store.layer(name).pairings)), 0)
    said = [
        f"detectors: IoU > {DETECTOR_IOU}",
        f"null: {pairings} wrong pairings" if pairings else "no null",
        "held out: train/val" if {TRAIN, VAL} <= set(store.groups) else "nothing held out",
    ]
    return "; ".join(said)
