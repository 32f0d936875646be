"""Axis alignment: a layer dissected in bases between its own and a random one.

Zhou et al., PAMI 2018; docs/method.md, section 7.1.

The layer's activations are computed once. A basis Q^alpha makes of them the units that the rotated layer would have,
negative values too, and these are dissected as any others: thresholds of their own, exact counts, labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.subset import spread
from ndissect.engine.experiments.cached import Cached, cached
from ndissect.engine.experiments.counter_rotation import Check, check
from ndissect.engine.experiments.rotation import Rotation, random_rotation
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.measures.tally import ConceptTally, Tally
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.forward_pass import ForwardPass, make_loader, open_pass
from ndissect.engine.run.gatherer import Gatherer
from ndissect.engine.run.settings import Settings
from ndissect.store import scores
from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.marks import Mark
from ndissect.store.model import UnitStatistics
from ndissect.store.protocol import Protocol

#: Images over which the rotated network's predictions are compared with its own.
CHECKED = 128


@dataclass(frozen=True)
class Basis:
    """Units turned by ``rotation`` to the power ``alpha``; ``seed``: what the rotation was drawn from."""

    alpha: float
    seed: int
    rotation: Rotation

    def turn(self, maps: Tensor, matrix: Tensor | None) -> Tensor:
        """``maps`` (N, U, h, w) in this basis, ``matrix`` being :meth:`matrix`."""
        return maps if matrix is None else torch.einsum("vu,nuhw->nvhw", matrix, maps)

    def matrix(self, device: torch.device) -> Tensor | None:
        """(U, U) float32; None for the identity, which must not touch what is infinite or NaN."""
        if self.alpha == 0:
            return None
        return torch.from_numpy(self.rotation.power(self.alpha)).to(device, torch.float32)


@dataclass(frozen=True)
class CountedBasis:
    """What was counted in a basis: all that labels follow from."""

    basis: Basis
    statistics: UnitStatistics
    counts: LayerCounts


@dataclass(frozen=True)
class BasisLabels:
    """The units of a basis summed up; ``by_category``: unique detectors, adding up to ``unique_per_category``."""

    alpha: float
    seed: int
    detectors: int
    unique_per_category: int
    unique_best_label: int
    by_category: dict[str, int]


@dataclass(frozen=True)
class Rotated:
    """A layer in all its bases: by alpha, then by seed; of alpha 0, which is the same for all seeds, there is one.

    ``check``: whether the network predicts the same; None where it gives no scores to compare. ``marks``: of the
    network (ndissect.engine.examination.examine).
    """

    layer: str
    units: int
    images: int
    skipped: tuple[tuple[str, str], ...]
    bases: tuple[BasisLabels, ...]
    check: Check | None
    marks: tuple[Mark, ...] = ()


def rotate(
    network: Network,
    dataset: ConceptDataset,
    layer: LayerInfo,
    protocol: Protocol,
    settings: Settings,
    progress: Progress,
    *,
    alphas: Sequence[float],
    seeds: int,
) -> Rotated:
    """Dissect ``layer`` in the bases Q^alpha of ``seeds`` random rotations Q, and check what the network predicts.

    NDError where the activations of all images do not fit ``settings.memory``, and as in a dissection.
    """
    progress.plan([Phase("activations", len(dataset), forward=True), Phase("thresholds"), Phase("tally")])
    with open_pass(
        network,
        dataset,
        [layer],
        protocol,
        settings,
        progress,
        when_full="free the device, or use another --device",
    ) as examined:
        activations = cached(examined)
        units = activations.geometry.units
        rotations = [Rotation(random_rotation(units, seed)) for seed in range(seeds)]
        counts = count(
            activations, examined.loader, _bases(alphas, rotations), settings.memory, examined.device, progress
        )
        bases = [_label(counted, concept_counts, dataset, protocol) for counted, concept_counts in counts]
        progress.busy("check")
        checked = check(network, _some(examined, dataset), layer, [r.power(1) for r in rotations])
        return Rotated(
            layer=activations.geometry.name,
            units=units,
            images=len(activations.images),
            skipped=activations.skipped,
            bases=tuple(bases),
            check=checked,
            marks=examined.examination.marks,
        )


def _label(
    counted: CountedBasis, concept_counts: ConceptCounts, dataset: ConceptDataset, protocol: Protocol
) -> BasisLabels:
    """The labels of a basis's units, summed up."""
    concepts = dataset.concepts
    best = scores.best_per_category(
        counted.counts,
        concept_counts,
        concepts.category,
        len(concepts.categories),
        protocol.union,
        dead=counted.statistics.dead,
        min_images=protocol.min_images,
    )
    unique = scores.unique_counts(best, concepts.categories)
    return BasisLabels(counted.basis.alpha, counted.basis.seed, int(scores.detectors(best).sum()), **unique)


def count(
    activations: Cached,
    loader: Loader,
    bases: Sequence[Basis],
    budget: Budget,
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[CountedBasis, ConceptCounts]]:
    """What ``activations`` counts in each of ``bases``, and what the labels of the same images hold, on ``device``.

    ``budget``: what the activations have left of it is for thresholds and counts; where the counts of all bases do
    not fit, the labels are read more than once.
    """
    left = budget.on(device) - (activations.maps.nbytes if activations.maps.device.type == device.type else 0)
    units, concepts = activations.geometry.units, len(loader.dataset.concepts)
    progress.start("thresholds", len(bases) * len(activations.images))
    statistics = [_thresholds(activations, loader, basis, max(left, 0), device, progress) for basis in bases]
    progress.start("tally", len(bases) * len(activations.images))
    at_once = max(1, left // (8 * units * (concepts + 1) + 4 * units * units))
    for start in range(0, len(bases), at_once):
        some = slice(start, start + at_once)
        yield from _tally(activations, loader, bases[some], statistics[some], device, progress)


def _thresholds(
    activations: Cached, loader: Loader, basis: Basis, budget: int, device: torch.device, progress: Progress
) -> UnitStatistics:
    gatherer = Gatherer(
        [activations.geometry],
        loader.protocol,
        loader.dataset.concepts,
        total=len(activations.images),
        top=1,
        budget=Budget(budget, budget),
        device=device,
    )
    matrix = basis.matrix(device)
    for number in range(gatherer.passes):
        for images in activations.slices():
            maps = basis.turn(activations.maps[images].to(device), matrix)
            gatherer.take_values(number, [maps])
            if number == 0:
                progress.advance(len(maps))
        gatherer.quantiles[0].end_pass()
    return gatherer.quantiles[0].result()


def _tally(
    activations: Cached,
    loader: Loader,
    bases: Sequence[Basis],
    statistics: Sequence[UnitStatistics],
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[CountedBasis, ConceptCounts]]:
    concepts, geometry, (rows, cols) = loader.dataset.concepts, activations.geometry, activations.geometry.axes
    held = ConceptTally(len(concepts), device=device)
    tallies = [Tally(geometry.units, len(concepts), len(concepts.categories), device=device) for _ in bases]
    matrices = [basis.matrix(device) for basis in bases]
    limits = [torch.from_numpy(s.threshold).to(device) for s in statistics]
    slices = list(activations.slices())
    read = loader.read_labels([activations.images[images] for images in slices], device)
    for images, labels in zip(slices, read, strict=True):
        held.add(labels)
        judged = labels.of_images() if geometry.judged_on == "images" else labels
        maps = activations.maps[images].to(device)
        for basis, matrix, limit, tally in zip(bases, matrices, limits, tallies, strict=True):
            tally.add(basis.turn(maps, matrix), limit, rows, cols, loader.protocol.upsampling, judged)
            progress.advance(len(maps))
    for basis, s, tally in zip(bases, statistics, tallies, strict=True):
        yield CountedBasis(basis, s, tally.counts()), held.counts().judged_on(geometry.judged_on)


def _bases(alphas: Sequence[float], rotations: Sequence[Rotation]) -> list[Basis]:
    bases = []
    for alpha in sorted(set(alphas)):
        for seed, rotation in enumerate(rotations[:1] if alpha == 0 else rotations):
            bases.append(Basis(alpha, seed, rotation))
    return bases


def _some(examined: ForwardPass, dataset: ConceptDataset) -> Iterator[Tensor]:
    """The network's inputs for a check, a batch at a time."""
    few, forward = spread(dataset, CHECKED), examined.forward
    loader = make_loader(few, examined.loader.protocol, examined.settings)
    for batch in loader.batches(range(len(few)), min(forward.batch.size, 32), skip_bad=True):
        if len(batch.pixels) == 1:
            yield forward.inputs(batch.pixels, slice(0, len(batch)))
        else:
            yield from (forward.inputs(batch.pixels, slice(n, n + 1)) for n in range(len(batch)))
