"""Pictures of samples as a generator draws them, and without units of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.experiments.generated import Generated, set_units
from ndissect.engine.machine.device import computing
from ndissect.engine.networks.tail import Tail
from ndissect.engine.passes.forward import failures_of
from ndissect.engine.passes.thumbnails import thumbnail
from ndissect.store.concept_effects import EffectPictures
from ndissect.store.limits import THUMBNAIL
from ndissect.store.reader import Store
from ndissect.store.scores import Floats


@dataclass(frozen=True)
class RemovedFrom:
    """A sample: ``pictures`` (1 + T, H, W, 3) uint8, as it is and without each of T sets of units.

    ``shares`` (1 + T,): of the pixels of each that hold the concept.
    """

    sample: int
    pictures: npt.NDArray[np.uint8]
    shares: Floats


def pictures_without(
    g: Generated, sets: Sequence[tuple[int, ...]], concept: int, samples: Sequence[int], most: int
) -> tuple[RemovedFrom, ...]:
    """The first of ``samples`` that show ``concept``, ``most`` at most, as they are and without each of ``sets``."""
    shown: list[RemovedFrom] = []
    with torch.no_grad(), computing("fp32", g.device), failures_of(g.network), Tail(g.network.module, g.tap) as tail:
        for some in g.batches(samples):
            before = g.pictures(tail.start(g.inputs(some)))
            holds = (g.areas(before)[:, concept] > 0).nonzero()[: most - len(shown), 0]
            if len(holds):
                every = [before, *(_without(g, tail, units) for units in sets)]
                areas = [g.areas(pictures)[:, concept] for pictures in every]
                for i in holds.tolist():
                    pictures = torch.stack([one[i] for one in every]).permute(0, 2, 3, 1).cpu().numpy()
                    shares = np.array([float(area[i]) / g.pixels for area in areas])
                    shown.append(RemovedFrom(some[i], pictures, shares))
            if len(shown) >= most:
                break
    return tuple(shown)


def pictures_of_units(g: Generated, units: Sequence[int]) -> EffectPictures | None:
    """The sample in which each of ``units`` is highest, as it is and without the unit; None where the store has none.

    Units that are nowhere above zero have none.
    """
    chosen = _top_samples(g, units)
    pairs: dict[int, tuple[bytes, bytes]] = {}
    with torch.no_grad(), computing("fp32", g.device), failures_of(g.network), Tail(g.network.module, g.tap) as tail:
        for some in g.batches(sorted(chosen)):
            before = g.pictures(tail.start(g.inputs([chosen[unit] for unit in some])))
            rows = torch.arange(len(some), device=tail.maps.device)
            numbers = torch.tensor(some, device=tail.maps.device)

            def each_without_its_own(maps: Tensor, rows: Tensor = rows, numbers: Tensor = numbers) -> Tensor:
                edited = maps.clone()
                edited[rows, numbers] = 0
                return edited

            after = g.pictures(tail.run(each_without_its_own))
            for i, unit in enumerate(some):
                pairs[unit] = (_jpeg(before[i]), _jpeg(after[i]))
    if not pairs or any(len(jpeg) > THUMBNAIL.most for pair in pairs.values() for jpeg in pair):
        return None
    return EffectPictures(np.array(sorted(pairs), np.int32), tuple(pairs[unit] for unit in sorted(pairs)))


def _without(g: Generated, tail: Tail, units: Sequence[int]) -> Tensor:
    nothing = torch.zeros(len(units), device=tail.maps.device)
    return g.pictures(tail.run(lambda maps: set_units(maps, units, nothing)))


def _top_samples(g: Generated, units: Sequence[int]) -> dict[int, int]:
    """The sample in which each unit is highest, by its number, as far as the store knows."""
    chosen = {}
    with Store(g.store) as store:
        view = store.layer(g.layer.name)
        if not view.has_top:
            return {}
        for unit in units:
            image, peak = view.peaks(unit)
            if len(image) and peak[0] > 0:
                sample = store.images.read(int(image[0])).index
                if 0 <= sample < g.count:
                    chosen[unit] = sample
    return chosen


def _jpeg(picture: Tensor) -> bytes:
    """A picture (3, H, W) uint8 as a small JPEG file, as a store keeps them."""
    return thumbnail(picture.permute(1, 2, 0).cpu().numpy())
