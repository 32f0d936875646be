"""Axis alignment: a layer dissected in bases between its own and a random one (PAMI 2018; method.md 7.1).

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
from ndissect.engine.examination.examine import examine
from ndissect.engine.experiments.cached import Cached, cached
from ndissect.engine.experiments.counter_rotation import Check, check
from ndissect.engine.experiments.rotation import Rotation, random_rotation
from ndissect.engine.machine.device import exact_arithmetic
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.measures.tally import ConceptTally, Tally
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.extremes import extremes
from ndissect.engine.passes.forward import Forward
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.gather_pass import GatherPass
from ndissect.engine.run.settings import Settings
from ndissect.store import scores
from ndissect.store.counts import ConceptCounts, LayerCounts
from ndissect.store.errors import NDError
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
class Found:
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
    found: tuple[Found, ...]
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
    exact_arithmetic()
    progress.plan([Phase("activations", len(dataset), forward=True), Phase("thresholds"), Phase("tally")])
    try:
        network.module.to(settings.device)
        forward = _forward(network, layer, settings, progress)
        loader = _loader(dataset, protocol, settings)
        examined = examine(forward, loader, [layer], progress, anyway=settings.anyway, skip_bad=settings.skip_bad)
        (geometry,) = examined.geometries
        known = cached(forward, loader, geometry, settings.memory, progress, skip_bad=settings.skip_bad)
        rotations = [Rotation(random_rotation(geometry.units, seed)) for seed in range(seeds)]
        bases = _bases(alphas, rotations)
        concepts = dataset.concepts
        found = []
        for counted, concept_counts in count(known, loader, bases, settings.memory, forward.counting, progress):
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
            basis = counted.basis
            found.append(Found(basis.alpha, basis.seed, int(scores.detectors(best).sum()), **unique))
        progress.busy("check")
        checked = check(network, _some(forward, dataset, protocol, settings), layer, [r.power(1) for r in rotations])
        of = (geometry.name, geometry.units, len(known.images), known.skipped)
        return Rotated(*of, tuple(found), checked, examined.marks)
    except torch.OutOfMemoryError as e:
        raise NDError(
            f"{settings.device} has not enough free memory: {str(e).strip().splitlines()[0]}",
            "free the device, or use another --device",
        ) from e
    finally:
        network.module.to("cpu")


def count(
    known: Cached,
    loader: Loader,
    bases: Sequence[Basis],
    budget: Budget,
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[CountedBasis, ConceptCounts]]:
    """What ``known`` counts in each of ``bases``, and what the labels of the same images hold, on ``device``.

    ``budget``: what the activations have left of it is for thresholds and counts; where the counts of all bases do
    not fit, the labels are read more than once.
    """
    left = budget.on(device) - (known.maps.nbytes if known.maps.device.type == device.type else 0)
    units, concepts = known.geometry.units, len(loader.dataset.concepts)
    progress.start("thresholds", len(bases) * len(known.images))
    statistics = [_thresholds(known, loader, basis, max(left, 0), device, progress) for basis in bases]
    progress.start("tally", len(bases) * len(known.images))
    at_once = max(1, left // (8 * units * (concepts + 1) + 4 * units * units))
    for start in range(0, len(bases), at_once):
        some = slice(start, start + at_once)
        yield from _tally(known, loader, bases[some], statistics[some], device, progress)


def _thresholds(
    known: Cached, loader: Loader, basis: Basis, budget: int, device: torch.device, progress: Progress
) -> UnitStatistics:
    g = GatherPass(
        [known.geometry],
        loader.protocol,
        loader.dataset.concepts,
        loader.grid,
        total=len(known.images),
        top=1,
        budget=Budget(budget, budget),
        device=device,
    )
    matrix = basis.matrix(device)
    for number in range(g.passes):
        for images in known.pieces():
            maps = basis.turn(known.maps[images].to(device), matrix)
            g.feed(0, maps, extremes(maps))
            if number == 0:
                progress.advance(len(maps))
        g.quantiles[0].end_pass()
    return g.quantiles[0].result()


def _tally(
    known: Cached,
    loader: Loader,
    bases: Sequence[Basis],
    statistics: Sequence[UnitStatistics],
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[CountedBasis, ConceptCounts]]:
    concepts, (rows, cols) = loader.dataset.concepts, known.geometry.axes
    held = ConceptTally(len(concepts), device=device)
    tallies = [Tally(known.geometry.units, len(concepts), len(concepts.categories), device=device) for _ in bases]
    matrices = [basis.matrix(device) for basis in bases]
    limits = [torch.from_numpy(s.threshold).to(device) for s in statistics]
    pieces = list(known.pieces())
    read = loader.read_labels([known.images[images] for images in pieces], device)
    for images, labels in zip(pieces, read, strict=True):
        held.add(labels)
        maps = known.maps[images].to(device)
        for basis, matrix, limit, tally in zip(bases, matrices, limits, tallies, strict=True):
            tally.add(basis.turn(maps, matrix), limit, rows, cols, loader.protocol.upsampling, labels)
            progress.advance(len(maps))
    for basis, s, tally in zip(bases, statistics, tallies, strict=True):
        yield CountedBasis(basis, s, tally.counts()), held.counts()


def _bases(alphas: Sequence[float], rotations: Sequence[Rotation]) -> list[Basis]:
    found = []
    for alpha in sorted(set(alphas)):
        for seed, rotation in enumerate(rotations[:1] if alpha == 0 else rotations):
            found.append(Basis(alpha, seed, rotation))
    return found


def _forward(network: Network, layer: LayerInfo, settings: Settings, progress: Progress) -> Forward:
    return Forward(
        network,
        [layer.name],
        settings.device,
        batch=settings.batch,
        precision=settings.precision,
        progress=progress,
        clock=Clock(),
    )


def _loader(dataset: ConceptDataset, protocol: Protocol, settings: Settings) -> Loader:
    return Loader(dataset, protocol, settings.workers, pin=settings.device.type == "cuda", jpeg_on=settings.jpeg_on)


def _some(forward: Forward, dataset: ConceptDataset, protocol: Protocol, settings: Settings) -> Iterator[Tensor]:
    """The network's inputs for a check, a batch at a time."""
    few = spread(dataset, CHECKED)
    loader = _loader(few, protocol, settings)
    for batch in loader.batches(range(len(few)), min(forward.batch.size, 32), skip_bad=True):
        if len(batch.pixels) == 1:
            yield forward.inputs(batch.pixels, slice(0, len(batch)))
        else:
            yield from (forward.inputs(batch.pixels, slice(n, n + 1)) for n in range(len(batch)))
