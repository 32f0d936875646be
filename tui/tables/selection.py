"""Which units and concepts are asked for, and the order of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.concepts import ConceptTable, report_order
from ndissect.store.errors import WrongUse, nearest
from ndissect.store.layer_view import LayerView
from ndissect.store.scores import DETECTOR_IOU
from ndissect.tui.tables.columns import BY_WORD
from ndissect.tui.tables.units import Units


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
    keep = value >= wanted.min_iou if wanted.min_iou > 0 else np.ones(len(value), bool)
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
