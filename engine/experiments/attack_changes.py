"""What an attack does to the units of a layer: mean changes over images, with intervals, and beside random units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ndissect.engine.experiments.important_units import MOST
from ndissect.store.intervals import margin
from ndissect.store.scores import Floats

if TYPE_CHECKING:
    from ndissect.engine.experiments.attack import Attacked

#: ``peak``: the peak activation after the attack less that before it (PNAS); ``map``: the mean over the map of how far
#: activations moved, whichever way (the authors' notebook).
Measure = Literal["peak", "map"]
#: Random groups of units that important ones are held against.
DRAWS = 1000
_SEED = 0
_NORMAL = 1.959964  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class GroupChange:
    """The mean change of some units: those that a class needs most, all others, or as many random ones.

    ``name``: ``target``, ``source``, ``others`` or ``random``; ``units``: () where they differ by image. ``low`` to
    ``high``: a 95 % interval over images; of random ones what 95 % of groups lie in.
    """

    name: Literal["target", "source", "others", "random"]
    units: tuple[int, ...]
    change: float
    low: float
    high: float


def changes(attacked: Attacked, measure: Measure = "peak") -> Floats:
    """(m, U) float64: how each unit changed in each of the m images that reach the target."""
    hit = attacked.reached
    if measure == "map":
        return attacked.moved[hit].astype(np.float64)
    return attacked.peak_after[hit].astype(np.float64) - attacked.peak_before[hit].astype(np.float64)


def unit_changes(attacked: Attacked, measure: Measure = "peak") -> tuple[Floats, Floats, Floats]:
    """The mean change of each unit over the images that reach the target, and both ends of its interval, (U,) each."""
    return mean_interval(changes(attacked, measure))


def group_changes(attacked: Attacked, measure: Measure = "peak") -> tuple[GroupChange, ...]:
    """The change of the units that the target needs most, of those that the source needs, of all others, and of random
    groups of as many units.

    Where the images are of several classes, the source is each image's own. A class whose units are not known is left
    out. Nothing without an image that reaches the target.
    """
    change = changes(attacked, measure)
    if not len(change):
        return ()
    needed, truth = attacked.important.units, attacked.truth[attacked.reached].tolist()
    of_target = needed.get(attacked.target, ())
    of_source = [needed.get(k, ()) for k in truth]
    one_source = of_source[0] if len(set(of_source)) == 1 else ()
    found = []
    others = np.ones(change.shape, bool)
    others[:, list(of_target)] = False
    if of_target:
        found.append(_group("target", of_target, change[:, list(of_target)].mean(1)))
    known = [row for row, units in enumerate(of_source) if units]
    for row in known:
        others[row, list(of_source[row])] = False
    if known:
        values = np.array([change[row, list(of_source[row])].mean() for row in known])
        found.append(_group("source", one_source, values))
    if others.any(1).all():
        found.append(_group("others", (), (change * others).sum(1) / others.sum(1)))
    return (*found, _random(change))


def _group(name: Literal["target", "source", "others"], units: tuple[int, ...], values: Floats) -> GroupChange:
    mean, low, high = mean_interval(values)
    return GroupChange(name, units, float(mean), float(low), float(high))


def _random(change: Floats) -> GroupChange:
    """What random groups of units change by, over the same images."""
    mean = change.mean(0)
    rng = np.random.default_rng(_SEED)
    size = min(MOST, len(mean))
    drawn = np.array([mean[rng.choice(len(mean), size, replace=False)].mean() for _ in range(DRAWS)])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return GroupChange("random", (), float(mean.mean()), float(low), float(high))


def mean_interval(values: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The mean (...) of values (n, ...) of n images, and both ends of its 95 % interval; NaN for fewer than two."""
    x = np.asarray(values, np.float64)
    if not len(x):
        nothing = np.full(x.shape[1:], np.nan)
        return nothing, nothing, nothing
    mean = np.asarray(x.mean(0))
    if len(x) < 2:
        return mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    half = margin(np.moveaxis((mean - x) / (len(x) - 1), 0, -1))
    return mean, np.asarray(mean - half), np.asarray(mean + half)


def share_interval(hits: int, images: int) -> tuple[float, float]:
    """Both ends of a 95 % interval of the share ``hits / images`` (Wilson, 1927); 0 to 1 without images."""
    if not images:
        return 0.0, 1.0
    z, p = _NORMAL**2 / images, hits / images
    middle, half = p + z / 2, (z * (p * (1 - p) + z / 4)) ** 0.5
    return max((middle - half) / (1 + z), 0.0), min((middle + half) / (1 + z), 1.0)
