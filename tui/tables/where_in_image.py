"""Where in an image a unit is active, in its map of that image: the place of its peak in words, and its mask."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ndissect.store.layer_view import LayerView
from ndissect.store.upsampling import Axis, make_axis, upsample

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Without a store a unit has no threshold: it counts as active above this share of the way from the least to the
#: largest of its map.
SHARE_OF_PEAK = 0.5
_ROWS, _COLUMNS = ("upper", "", "lower"), ("left", "", "right")
_ALONE = {"upper": "top", "lower": "bottom", "": "centre"}
# The grid on which masks are drawn where no store says one.
_GRID = (112, 112)


def place_of_peak(values: Map, view: LayerView | None) -> str:
    """In which ninth of the image a map (h, w) is largest: ``upper left``, ``top``, ``centre``.

    "" where the map has no place that stands out: a single one, all alike, or no numbers.
    """
    finite = np.where(np.isfinite(values), values, -np.inf)
    if values.size < 2 or finite.max() in (finite.min(), -np.inf):
        return ""
    axes = _axes(values, view)
    peak = np.unravel_index(int(finite.argmax()), values.shape)
    thirds = [
        min(max(int(3 * (axis.positions[at] + 0.5) / len(axis.cell)), 0), 2)
        for at, axis in zip(peak, axes, strict=True)
    ]
    row, column = _ROWS[thirds[0]], _COLUMNS[thirds[1]]
    if row and column:
        return f"{row} {column}"
    return column or _ALONE[row]


def mask_of(unit: int, values: Map, view: LayerView | None) -> Mask:
    """(H, W) bool: where the map (h, w) of a unit lies above the unit's threshold in the store, once it is enlarged.

    A map of another size than those of the store lies evenly over the image. Without a store: where the map lies in
    the upper half of its own range.
    """
    if view is not None and values.shape == view.map_size:
        return view.mask(unit, values)
    known = np.where(np.isfinite(values), values, np.float32(np.nan))
    kind = "half-pixel" if view is None else view.store.protocol.upsampling
    with np.errstate(invalid="ignore"):
        enlarged = upsample(known, *_axes(values, view), kind).astype(np.float64)
    if view is not None:
        return np.asarray(enlarged > view.statistics.threshold[unit])
    if not np.isfinite(values).any():
        return np.zeros(enlarged.shape, bool)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    return np.asarray(enlarged > low + SHARE_OF_PEAK * (high - low))


def _axes(values: Map, view: LayerView | None) -> tuple[Axis, Axis]:
    """How the map lies on the label grid, rows and columns: as the store says, else evenly."""
    if view is not None and values.shape == view.map_size:
        return view.axes
    H, W = (view.grid if view is not None else None) or _GRID
    return _evenly(values.shape[0], H), _evenly(values.shape[1], W)


@lru_cache(maxsize=16)
def _evenly(samples: int, size: int) -> Axis:
    return make_axis("half-pixel", samples, size)
