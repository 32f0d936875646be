"""What the axes of a network's tensors stand for: the images, rows and columns of maps, or units.

Transformers lay a map out as a row of tokens, put class tokens before it, cut it into windows and put it together
again. All of that is slicing, joining and reordering of axes, so it can be followed from operation to operation
(ndissect.engine.networks.axes_rules): at the end it is known which token shows which place of which map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

IMAGES, ROWS, COLUMNS, UNITS = "images", "rows", "columns", "units"
_PLACES = (ROWS, COLUMNS)


@dataclass(frozen=True)
class Factor:
    """A part of an axis: ``size`` steps over ``kind``, which is IMAGES, ROWS, COLUMNS, or UNITS for anything else.

    Of rows and columns: a step goes over ``stride`` samples of a map that has ``total`` of them. ``source``: the tensor
    (its id) in which that map had its last two axes to itself, and which of the two this is; of its extent the map
    shows the part from ``low`` to ``high``, as shares. ``rolled``: by how many samples the map was rolled.
    """

    kind: str
    size: int
    stride: int = 1
    total: int = 0
    source: tuple[int, int] = (0, 0)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(1)
    rolled: int = 0

    @property
    def place(self) -> bool:
        """Whether it goes over places of a map."""
        return self.kind in _PLACES

    @property
    def whole(self) -> bool:
        """Whether its steps go over the whole map from edge to edge, not over a window of it."""
        return self.all_of_it and not self.rolled

    @property
    def all_of_it(self) -> bool:
        """Whether its steps go over all of the map, which may be rolled, so that they begin somewhere inside of it."""
        return self.place and self.size * self.stride == self.total

    def split(self, inner: int) -> tuple[Factor, Factor]:
        """It as an outer and an inner factor, the inner of ``inner`` steps, of which its size is a multiple."""
        outer = replace(self, size=self.size // inner, stride=self.stride * inner)
        return outer, replace(self, size=inner)

    def joined(self, inner: Factor) -> Factor | None:
        """It with ``inner`` behind it as one factor; None where they do not belong together."""
        if self.kind != inner.kind or self.kind == IMAGES:
            return None
        same_map = (self.total, self.rolled) == (inner.total, inner.rolled)
        if self.place and not (same_map and self.stride == inner.size * inner.stride):
            return None
        return replace(inner, size=self.size * inner.size)

    def sliced(self, start: int, step: int, size: int) -> Factor:
        """``size`` of its steps, from ``start`` on; a negative start or too large a size stands for padding."""
        if not self.whole:
            return Factor(UNITS, size)
        cell = (self.high - self.low) / self.size
        low = self.low + start * cell
        return Factor(self.kind, size, 1, size, self.source, low, low + size * step * cell)

    def windows(self, span: int, step: int, padding: int = 0) -> Factor:
        """Windows of ``span`` samples over it, one every ``step`` samples, with padding at both of its ends."""
        count = (self.size + 2 * padding - span) // step + 1
        if not self.whole:
            return Factor(UNITS, count)
        cell = (self.high - self.low) / self.size
        low = self.low + (Fraction(span - step, 2) - padding) * cell
        return Factor(self.kind, count, 1, count, self.source, low, low + count * step * cell)

    def roll(self, by: int) -> Factor:
        """It after its steps moved on by so many, those at the end to the beginning."""
        if not self.all_of_it:
            return Factor(UNITS, self.size)
        return replace(self, rolled=(self.rolled + by * self.stride) % self.total)

    def alike(self, other: Factor) -> bool:
        """Whether both go over the same steps, of whichever maps of one size."""
        mine = (self.kind, self.size, self.stride, self.total, self.rolled)
        return mine == (other.kind, other.size, other.stride, other.total, other.rolled)


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor: its ``factors`` from the outermost to the innermost, as in a reshape.

    ``before`` and ``after``: entries at its ends that are none of them, such as class tokens.
    """

    factors: tuple[Factor, ...]
    before: int = 0
    after: int = 0

    @property
    def size(self) -> int:
        return math.prod(f.size for f in self.factors) + self.before + self.after

    @property
    def images(self) -> bool:
        """Whether it goes over the images and nothing else."""
        return [f.kind for f in self.factors] == [IMAGES] and not self.before + self.after

    @property
    def holds_images(self) -> bool:
        return any(f.kind == IMAGES for f in self.factors)

    @property
    def places(self) -> bool:
        """Whether it goes over places of a map, in whichever way."""
        return any(f.place for f in self.factors)

    @property
    def rolled(self) -> bool:
        """Whether it goes over places of a map that was rolled."""
        return any(f.rolled for f in self.factors)

    def roll(self, by: int) -> Axis:
        """It after its entries moved on by so many, those at the end to the beginning."""
        alone = len(self.factors) == 1 and not self.before + self.after
        return Axis((self.factors[0].roll(by),)) if alone else units(self.size)

    @property
    def line(self) -> Factor | None:
        """The rows or the columns of a map that it goes over, if it goes over these alone."""
        alone = len(self.factors) == 1 and self.factors[0].whole and not self.before + self.after
        return self.factors[0] if alone else None

    @property
    def grid(self) -> tuple[Factor, Factor] | None:
        """The rows and the columns of a map that it goes over, row by row, between what is before and after them."""
        if [f.kind for f in self.factors] != [ROWS, COLUMNS] or not all(f.whole for f in self.factors):
            return None
        return self.factors[0], self.factors[1]

    def alike(self, other: Axis) -> bool:
        same = (self.before, self.after, len(self.factors)) == (other.before, other.after, len(other.factors))
        return same and all(a.alike(b) for a, b in zip(self.factors, other.factors, strict=True))

    def sliced(self, start: int, step: int, size: int) -> Axis:
        """``size`` of its entries, every ``step``-th from ``start`` on."""
        if (start, step, size) == (0, 1, self.size):
            return self
        if self.line:
            return Axis((self.line.sliced(start, step, size),))
        inner = self.size - self.before - self.after
        before, after = self.before - start, size + start - self.before - inner
        if step == 1 and self.places and before >= 0 and after >= 0:
            return Axis(self.factors, before, after)
        return units(size)


Axes = tuple[Axis, ...]


def units(size: int) -> Axis:
    """An axis of ``size`` entries that are no images and no places."""
    return Axis((Factor(UNITS, size),))


def input_axes(shape: Sequence[int], identity: int) -> Axes:
    """Those of a network's input (N, C, H, W), whose id is ``identity``."""
    n, channels, height, width = shape
    return Axis((Factor(IMAGES, n),)), units(channels), *map_axes((height, width), identity)


def map_axes(size: tuple[int, int], identity: int, kinds: tuple[str, str] = (ROWS, COLUMNS)) -> tuple[Axis, Axis]:
    """The last two axes of a tensor with maps of ``size``, whose id is ``identity``."""
    rows, cols = (Axis((Factor(k, n, 1, n, (identity, d)),)) for d, (k, n) in enumerate(zip(kinds, size, strict=True)))
    return rows, cols


def common(axes: Sequence[Axis]) -> Axis:
    """What an axis stands for on which several of one size meet, as in a sum: of places those that come first.

    Units tell nothing. Where a map in its order is added to windows or to a map that was rolled, as in a residual sum,
    it alone tells. Two that go over places in different ways have no meaning together.
    """
    telling = [a for a in axes if a.places or a.holds_images] or list(axes)
    telling = [a for a in telling if a.line or a.grid or a.images] or telling
    return telling[0] if all(a.alike(telling[0]) for a in telling) else units(axes[0].size)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes of ``shape`` after a reshape of ``axes``; None where one of the new ones cuts through images or tokens.

    Factors of one step belong to no axis for sure: they go to the next.
    """
    left: list[Axis] = []
    for axis in axes:
        whole = axis.before + axis.after > 0
        left += [axis] if whole else [Axis((f,)) for f in axis.factors if f.size > 1 or f.kind != UNITS]
    out = []
    for size in shape:
        taken: list[Axis] = []
        missing = size
        while left and (missing > 1 or (left[0].size == 1 and not taken)):
            part = left.pop(0)
            if missing % part.size == 0:
                taken.append(part)
                missing //= part.size
                continue
            if part.size % missing or len(part.factors) > 1 or part.factors[0].kind == IMAGES:
                return None
            outer, inner = part.factors[0].split(part.size // missing)
            taken.append(Axis((outer,)))
            left.insert(0, Axis((inner,)))
            missing = 1
        if missing > 1:
            return None
        out.append(_together(taken))
    return tuple(out)


def _together(parts: Sequence[Axis]) -> Axis:
    """One axis of several, from the outermost to the innermost."""
    if len(parts) == 1:
        return parts[0]
    if any(p.before + p.after for p in parts):
        return units(math.prod(p.size for p in parts))
    factors: list[Factor] = []
    for f in (f for p in parts for f in p.factors):
        both = factors[-1].joined(f) if factors else None
        if both is None:
            factors.append(f)
        else:
            factors[-1] = both
    return Axis(tuple(factors) or units(1).factors)
