"""From what insertions changed, one by one, to means by what stood there before and by where they were.

Numpy alone: what :mod:`ndissect.engine.experiments.insert` measured goes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndissect.store.intervals import margin
from ndissect.store.scores import Floats

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ContextChange:
    """What insertions did where the unedited picture shows one concept.

    ``context``: its row, -1 for no concept, None for insertions of all contexts. ``locations``: how many insertions;
    ``samples``: in so many pictures. ``change``: of the concept's pixels, the mean over them, with a 95 % interval
    ``low`` to ``high``, NaN where all lie in one block of samples. ``succeeded``: the share of them that brought any
    new pixel. ``inside``: the share of the new pixels that lie within the location's own square, NaN without any.
    ``by_location`` (h, w) float64: the mean change over samples by location, NaN where nothing was inserted.
    """

    context: int | None
    locations: int
    samples: int
    change: float
    low: float
    high: float
    succeeded: float
    inside: float
    by_location: Floats


@dataclass(frozen=True)
class Insertions:
    """What each of L insertions in each of N samples changed, all (N, L) int32.

    ``location``: the place in the map, row by row; ``context``: the row of the concept that stood there, -1 for none;
    ``change``: of the number of pixels of the inserted concept; ``gained``: pixels that hold it now and did not before;
    ``inside``: how many of these lie in the location's own square.
    """

    location: Ints
    context: Ints
    change: Ints
    gained: Ints
    inside: Ints


def by_context(
    insertions: Insertions, block: npt.NDArray[np.int64], map_size: tuple[int, int]
) -> tuple[ContextChange, ...]:
    """The means by context, the largest change first; ``block`` (N,): the block of each sample."""
    contexts = np.unique(insertions.context).tolist()
    rows = [_of(insertions, insertions.context == context, block, map_size, context) for context in contexts]
    return tuple(sorted(rows, key=lambda row: (-row.change, row.context)))


def of_all(insertions: Insertions, block: npt.NDArray[np.int64], map_size: tuple[int, int]) -> ContextChange:
    """The means over all insertions."""
    return _of(insertions, np.ones(insertions.context.shape, bool), block, map_size, None)


def _of(
    insertions: Insertions,
    which: npt.NDArray[np.bool_],
    block: npt.NDArray[np.int64],
    map_size: tuple[int, int],
    context: int | None,
) -> ContextChange:
    gained = int(insertions.gained[which].sum())
    low, high = _interval(insertions.change, which, block)
    return ContextChange(
        context=context,
        locations=int(which.sum()),
        samples=int(which.any(1).sum()),
        change=float(insertions.change[which].mean()),
        low=low,
        high=high,
        succeeded=float((insertions.gained[which] > 0).mean()),
        inside=int(insertions.inside[which].sum()) / gained if gained else float("nan"),
        by_location=_by_location(insertions.location[which], insertions.change[which], map_size),
    )


def _by_location(location: Ints, change: Ints, map_size: tuple[int, int]) -> Floats:
    """(h, w): the mean change by location; NaN where nothing was inserted."""
    height, width = map_size
    total = np.bincount(location, change, height * width)
    count = np.bincount(location, minlength=height * width)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count).reshape(height, width)


def _interval(change: Ints, which: npt.NDArray[np.bool_], block: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Both ends of a 95 % interval of the mean change, by the jackknife over the blocks that hold such insertions.

    The insertions of a sample are alike, so that blocks of samples are left out, and not single insertions.
    """
    total = np.bincount(block, np.where(which, change, 0).sum(1))
    count = np.bincount(block, which.sum(1))
    total, count = total[count > 0], count[count > 0]
    if len(count) < 2:
        return float("nan"), float("nan")
    mean = total.sum() / count.sum()
    without = (total.sum() - total) / (count.sum() - count)
    half = float(margin(without - mean))
    return float(mean - half), float(mean + half)
