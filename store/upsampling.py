"""Where activation maps lie on the label grid, and how they are enlarged to it.

All three upsamplings of the papers are one thing: the samples of the map lie at known positions of the label grid,
values between two samples are linear, and beyond the outermost samples the map either continues its edge value or
falls to zero one step further out. They differ only in the positions and in the edge:

===================  =======================================  =========
upsampling           position of sample i of n on a grid of N  edge
===================  =======================================  =========
``half-pixel``       (i + 1/2) N/n - 1/2                      replicate
``half-pixel-zero``  (i + 1/2) N/n - 1/2                      zero
``receptive-field``  centre of the unit's receptive field      replicate
===================  =======================================  =========

Padding a map by one sample on each side (edge value or zero) turns both edges into ordinary cells: every target
pixel then lies in one cell between two neighbouring samples, at a weight in [0, 1).

Arithmetic, on every device: float32, rows first, then columns, each as a + w (b - a). In this form the result never
exceeds the larger of a and b, rounding included, so a cell without a corner above T holds no pixel above T. (Only
neighbours that differ by more than the largest float32, 3.4e38, are outside this: their difference overflows.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

Upsampling = Literal["half-pixel", "receptive-field", "half-pixel-zero"]
UPSAMPLINGS: tuple[Upsampling, ...] = ("half-pixel", "receptive-field", "half-pixel-zero")


@dataclass(frozen=True)
class Field:
    """A layer's receptive fields along one axis, in input pixels: unit i sees [offset + i step, ... + size)."""

    offset: int
    size: int
    step: int

    def then(self, later: Field) -> Field:
        """The field of what follows: ``later`` is its field on this layer's output (composition of the 2017 code)."""
        return Field(
            offset=later.offset * self.step + self.offset,
            size=(later.size - 1) * self.step + self.size,
            step=later.step * self.step,
        )


@dataclass(frozen=True)
class Axis:
    """How one axis of a map meets one axis of the label grid.

    ``positions`` (n,) float64: where the samples lie, in label pixels; ``cell`` (N,) int64: target pixel t lies
    between samples cell[t] and cell[t] + 1 of the padded axis (n + 2 samples); ``weight`` (N,) float32: how far.
    """

    positions: npt.NDArray[np.float64]
    cell: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]


#: The part of the image that a map shows along one axis, as shares of it: less or more than (0, 1) where the network
#: crops or pads it.
Part = tuple[Fraction, Fraction]
WHOLE: Part = (Fraction(0), Fraction(1))


def half_pixel_positions(n: int, size: int, part: Part = WHOLE) -> list[Fraction]:
    """Positions of n samples that share evenly the ``part`` of a grid of ``size`` pixels that their map shows."""
    low, high = part
    return [(low + (i + Fraction(1, 2)) * (high - low) / n) * size - Fraction(1, 2) for i in range(n)]


def receptive_field_positions(n: int, size: int, field: Field, input_size: int) -> list[Fraction]:
    """Centres of n receptive fields on a grid of ``size`` pixels that shows an input of ``input_size`` pixels.

    The 2017 code has a whole reduction r = iw / sw (227 / 113 and 224 / 112 are 2) and rounds centre and step down to
    whole label pixels. Where the step is no multiple of r, or r is no whole number, as for an input of 224 pixels on
    a grid of 113, that code cannot place the samples; here they lie where they are.
    """
    exact = Fraction(input_size, size)
    whole = round(exact)
    if whole and abs(whole * size - input_size) < whole:
        start, r = Fraction((field.size // 2 + field.offset) // whole), Fraction(whole)
    else:
        start, r = (field.size // 2 + field.offset) / exact, exact
    return [start + i * field.step / r for i in range(n)]


def axis_from_positions(positions: list[Fraction], size: int) -> Axis:
    """The table of cells and weights of ``size`` target pixels among samples at strictly rising ``positions``."""
    step = positions[1] - positions[0] if len(positions) > 1 else Fraction(size)
    nodes = [positions[0] - step, *positions, positions[-1] + step]
    cell = np.zeros(size, np.int64)
    weight = np.zeros(size, np.float32)
    k = 0
    for t in range(size):
        while k < len(nodes) - 2 and nodes[k + 1] <= t:
            k += 1
        cell[t] = k
        # Clamped: a pixel further out than the padding takes the padding's own value.
        weight[t] = float(min(max((t - nodes[k]) / (nodes[k + 1] - nodes[k]), Fraction(0)), Fraction(1)))
    return Axis(np.array([float(p) for p in positions]), cell, weight)


def make_axis(
    kind: Upsampling,
    n: int,
    size: int,
    field: Field | None = None,
    input_size: int = 0,
    *,
    part: Part = WHOLE,
    kept: slice | None = None,
) -> Axis:
    """The axis of ``n`` map samples on ``size`` label pixels; ``receptive-field`` needs the field and input size.

    ``part``: of the image, that the samples show (fields know it themselves); ``kept``: those of them that are used.
    """
    if kind == "receptive-field":
        if field is None:
            raise ValueError("receptive-field upsampling needs the layer's receptive field")
        positions = receptive_field_positions(n, size, field, input_size)
    else:
        positions = half_pixel_positions(n, size, part)
    return axis_from_positions(positions[kept or slice(None)], size)


def pad_map(maps: npt.NDArray[np.float32], kind: Upsampling) -> npt.NDArray[np.float32]:
    """(..., h, w) float32 -> (..., h + 2, w + 2): one more sample all round, the edge value or zero."""
    width = [(0, 0)] * (maps.ndim - 2) + [(1, 1), (1, 1)]
    return np.pad(maps, width, mode="constant" if kind == "half-pixel-zero" else "edge")


def upsample(maps: npt.NDArray[np.float32], rows: Axis, cols: Axis, kind: Upsampling) -> npt.NDArray[np.float32]:
    """(..., h, w) float32 -> (..., H, W) float32, dense: for drawing, where one map at a time is enlarged."""
    p = pad_map(np.asarray(maps, np.float32), kind)
    lerp: Callable[..., npt.NDArray[np.float32]] = lambda a, b, w: a + w * (b - a)  # noqa: E731
    v = lerp(p[..., rows.cell, :], p[..., rows.cell + 1, :], rows.weight[:, None])
    return lerp(v[..., cols.cell], v[..., cols.cell + 1], cols.weight)


def resize_labels(maps: npt.NDArray[np.uint16], grid: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """(M, H, W) label maps on another grid, (M, *grid): the label under each target pixel's centre.

    Where the centre falls between two pixels the first is taken. On a grid half as fine those are pixels 0, 2, 4, ...,
    as in the 2020 code.
    """
    H, W = maps.shape[-2:]
    if (H, W) == grid:
        return maps
    rows, cols = _under_centres(H, grid[0]), _under_centres(W, grid[1])
    return maps[..., rows[:, None], cols]


def _under_centres(size: int, count: int) -> npt.NDArray[np.int64]:
    """(count,): of ``size`` pixels those under the centres of ``count`` pixels that cover the same length.

    The centre of pixel t lies at c = (2t + 1) size / (2 count). That is in pixel floor(c), and between two pixels where
    c is whole: ceil(c) - 1 is the first of those, and floor(c) elsewhere.
    """
    return ((2 * np.arange(count) + 1) * size - 1) // (2 * count)
