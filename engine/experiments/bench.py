"""What dissecting costs beside what cannot be avoided: decoding the images, and the bare forward pass.

All of it on one machine, in one process, so that the ratios mean something whatever the machine. A dissection is what
``nd dissect`` does once it has looked at the network: with its evidence and its null, results so far shown as usual,
and its store written, to a temporary file.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.subset import spread
from ndissect.engine.examination.examine import Examination
from ndissect.engine.experiments.bottleneck import name_bottleneck, other_share
from ndissect.engine.experiments.rounds import Rounds, measure_rounds
from ndissect.engine.experiments.steady import BatchOperations, count_batch
from ndissect.engine.machine.device import computing, device_name
from ndissect.engine.machine.progress import Progress
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.tally import Tally, compare_at
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.forward_pass import ForwardPass, open_pass
from ndissect.engine.run.live_progress import LiveProgress
from ndissect.engine.run.settings import Settings
from ndissect.store.files import SUFFIX
from ndissect.store.live import RunWriter
from ndissect.store.marks import marks_json
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import make_axis
from ndissect.store.writer import write_store

#: Seconds for the rounds, and about how many each of the two measurements after them may take.
BUDGET, _AFTER = 40.0, 4.0
# Images whose maps are held for the tally alone, and of those the ones that the dense reference counts, which is slow.
_TALLIED, _DENSE = 64, 8
# Batches over which operations are counted, and fewer of which none are.
_BATCHES = 6


@dataclass(frozen=True)
class Bench:
    """Seconds for ``images`` images, each the least of several ``rounds`` taken in turn; ``cut``: what was left out.

    ``forward_s``: the network alone over decoded images; ``decode_s``: decoding alone, by ``workers``;
    ``decode_forward_s``: both, as far as they can be at once; ``copy_s``: copying the images to the device alone, None
    where there is nothing to copy; ``dissect_s``: the whole dissection but for ``check_s``, which looking at the
    network takes, once; ``ratio``: dissect_s / decode_forward_s, the median of the rounds.

    ``phases``: of dissect_s, by what was done, in the terms of ndissect.engine.machine.timing.Clock; with ``write`` for
    the store, and ``other`` for what is none of them. ``included``: what the dissection counted beside its masks.
    ``operations``: what a batch asks of torch, None where there were too few images. ``bottleneck``: in words;
    ``other_share``: of dissect_s, what neither decoding nor the network takes.

    ``tally_s``, ``dense_tally_s``: of all images, extrapolated from a few, this tally (cells looked for anew) and one
    that enlarges every map and multiplies with one-hot labels. ``marks``: of the network
    (ndissect.engine.examination.examine).
    """

    device: str
    network: str
    layers: list[str]
    precision: str
    images: int
    units: int
    batch: int
    workers: int
    rounds: int
    cut: str
    included: list[str]
    forward_s: float
    decode_s: float
    copy_s: float | None
    decode_forward_s: float
    dissect_s: float
    check_s: float
    ratio: float
    phases: dict[str, float]
    other_share: float
    bottleneck: str
    operations: BatchOperations | None
    tally_s: float
    dense_tally_s: float
    marks: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Round:
    """Seconds by what was measured; those of the dissection by phase; the null's pairings; the images of a batch."""

    seconds: dict[str, float]
    phases: dict[str, float]
    pairings: int
    batch: int


@dataclass(frozen=True)
class _Subject:
    """What is dissected, ``dataset`` at most, once the network was examined."""

    network: Network
    dataset: ConceptDataset
    layers: Sequence[LayerInfo]
    protocol: Protocol
    settings: Settings
    examination: Examination

    def dissect(self, images: int, progress: Progress) -> tuple[dict[str, float], int]:
        """Dissect some images into a temporary store: seconds by phase, and the null's pairings."""
        names = [(layer.name, layer.units or 0) for layer in self.layers]
        with tempfile.TemporaryDirectory(prefix="nd-bench-") as folder:
            target = Path(folder) / f"bench{SUFFIX}"
            with RunWriter(target, "", names) as live:
                outcome = dissect(
                    self.network,
                    spread(self.dataset, images),
                    self.layers,
                    self.protocol,
                    self.settings,
                    LiveProgress(progress, live),
                    live.publish,
                    examination=self.examination,
                )
                assert outcome.dissection is not None
                live.make_room()
                since = time.perf_counter()
                write_store(target, outcome.dissection)
                written = time.perf_counter() - since
        null = outcome.dissection.layers[0].null
        return outcome.seconds | {"write": written}, 0 if null is None else len(null.concept)


def bench(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    settings: Settings,
    *,
    images: int,
    rounds: int = 3,
    budget: float = BUDGET,
    tell: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure the dissection of ``layers`` over ``images`` of the data set's images, spread evenly over it.

    Fewer images, or fewer ``rounds``, where they and looking at the network would take more than ``budget`` seconds.
    """
    some = spread(dataset, images)
    with open_pass(network, some, layers, protocol, settings, Progress()) as p:
        subject = _Subject(network, some, layers, protocol, settings, p.examination)
        check_s, workers = p.clock.seconds()["check"], p.loader.workers
    left = max(budget - check_s, budget / 4)
    measured = measure_rounds(lambda n: _round(subject, n), len(some), rounds, left, tell)
    least = _least(measured)
    an_image = least["dissect"] / measured.images
    tell("operations of a batch")
    operations = _operations(subject, measured.results[-1], an_image)
    tell("the tally alone")
    with open_pass(network, some, layers, protocol, settings, Progress(), examination=p.examination) as p:
        held = max(1, min(_TALLIED, int(_AFTER / an_image)))
        tally, dense = (seconds * measured.images for seconds in _tallies(p, held))
    # The ratio of each round, not of the least of each: what slows the machine down slows both.
    ratios = sorted(r.seconds["dissect"] / r.seconds["decode_forward"] for r in measured.results)
    phases = min(measured.results, key=lambda r: r.seconds["dissect"]).phases
    return Bench(
        device=device_name(settings.device),
        network=network.spec,
        layers=[layer.name for layer in layers],
        precision=settings.precision,
        images=measured.images,
        units=sum(layer.units or 0 for layer in layers),
        batch=measured.results[-1].batch,
        workers=workers,
        rounds=len(measured.results),
        cut=measured.cut,
        included=_included(settings, measured.results[-1].pairings),
        forward_s=least["forward"],
        decode_s=least["decode"],
        copy_s=least.get("copy"),
        decode_forward_s=least["decode_forward"],
        dissect_s=least["dissect"],
        check_s=check_s,
        ratio=ratios[len(ratios) // 2],
        phases=phases,
        other_share=other_share(least),
        bottleneck=name_bottleneck(least, measured.images, workers, phases),
        operations=operations,
        tally_s=tally,
        dense_tally_s=dense,
        marks=marks_json(sorted(set(p.examination.marks), key=str)),
    )


def _included(settings: Settings, pairings: int) -> list[str]:
    evidence = ["blocks of images", "peaks"] if settings.evidence else []
    return [*evidence, f"a null of {pairings} pairings" if pairings else "no null", "results so far", "the store"]


def _least(measured: Rounds[_Round]) -> dict[str, float]:
    return {name: min(r.seconds[name] for r in measured.results) for name in measured.results[0].seconds}


def _round(subject: _Subject, images: int) -> _Round:
    """The seconds of the bare forward pass, of decoding, of both, of copying alone, and of the whole dissection."""
    settings, device = subject.settings, subject.settings.device
    with open_pass(
        subject.network,
        spread(subject.dataset, images),
        subject.layers,
        subject.protocol,
        settings,
        Progress(),
        examination=subject.examination,
    ) as p:
        size, everything = p.forward.batch.size, range(images)
        decoded = next(p.loader.batches(everything[:size], size, skip_bad=False)).pixels

        def pieces() -> list[list[Tensor]]:
            rests = (min(size, images - start) for start in range(0, images, size))
            return [[decoded[0][:rest]] if len(decoded) == 1 else decoded[:rest] for rest in rests]

        def bare(pixels: list[Tensor]) -> None:
            inputs = p.forward.inputs(pixels, slice(0, sum(len(x) for x in pixels)))
            with torch.no_grad(), computing(settings.precision, device):
                subject.network.module(inputs)

        def only_forward() -> None:
            for pixels in pieces():
                bare(pixels)

        def only_decoding() -> None:
            for _ in p.loader.batches(everything, size, skip_bad=False):
                pass

        def only_copying() -> None:
            for pixels in pieces():
                for x in pixels:
                    x.to(device, non_blocking=True)

        def with_decoding() -> None:
            for batch in p.loader.batches(everything, size, skip_bad=False):
                bare(batch.pixels)

        works = {"forward": only_forward, "decode": only_decoding, "decode_forward": with_decoding}
        if device.type != "cpu":
            works["copy"] = only_copying
        bare(decoded if device.type != "cpu" else [decoded[0][:1]])  # algorithms are chosen, memory is taken
        seconds = {name: _seconds(work, device) for name, work in works.items()}
    since = time.perf_counter()
    phases, pairings = subject.dissect(images, Progress())
    seconds["dissect"] = time.perf_counter() - since
    phases["other"] = max(0.0, seconds["dissect"] - sum(phases.values()))
    return _Round(seconds, phases, pairings, size)


def _operations(subject: _Subject, example: _Round, an_image: float) -> BatchOperations | None:
    """What a batch asks of torch, of fewer images than in ``example`` where counting would take long."""
    most = min(len(subject.dataset) / _BATCHES, _AFTER / an_image / _BATCHES)
    if len(subject.dataset) < _BATCHES:
        return None
    batch = max(1, min(example.batch, int(most)))
    alike = replace(subject, settings=replace(subject.settings, batch=batch, null=example.pairings))
    return count_batch(partial(alike.dissect, batch * _BATCHES), batch, _BATCHES)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    since = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - since


def _tallies(p: ForwardPass, images: int) -> tuple[float, float]:
    """Seconds an image, measured on so many: this tally, and the dense one, each over all layers."""
    loader, forward, device, concepts = p.loader, p.forward, p.device, p.loader.dataset.concepts
    batch = next(loader.batches(range(min(images, len(loader.dataset))), images, skip_bad=False))
    labels = batch.labels.to(device)
    with forward.captured() as capture:
        capture.run(forward.inputs(batch.pixels, slice(0, len(batch))))
        maps = [capture[name].to(device, torch.float32).contiguous() for name in capture.names]
    sparse = dense = 0.0
    most = _AFTER / len(maps) / 2
    for layer_maps in maps:
        U, (h, w) = layer_maps.shape[1], layer_maps.shape[2:]
        quantile = Quantile(U, layer_maps.numel() // U, loader.protocol.q, device)
        quantile.update(layer_maps.transpose(0, 1).reshape(U, -1))
        quantile.end_pass()
        threshold = torch.from_numpy(quantile.result().threshold).to(device)
        rows, cols = (make_axis("half-pixel", n, size) for n, size in zip((h, w), loader.grid, strict=True))
        counted = Tally(U, len(concepts), len(concepts.categories), device=device)

        def tally(
            tallied: Tally = counted, x: Tensor = layer_maps, t: Tensor = threshold, r: Any = rows, c: Any = cols
        ) -> None:
            tallied.add_cells(active_cells(x, compare_at(t), "half-pixel"), t, r, c, labels)

        def reference(few: slice = slice(0, 1), x: Tensor = layer_maps, t: Tensor = threshold) -> None:
            dense_tally(x[few], t, labels[few], loader.grid, len(concepts))

        sparse += _least_of(tally, device, 5, most) / len(batch)
        few = max(1, min(_DENSE, len(batch), int(most / _seconds(reference, device) / 2)))
        dense += _least_of(partial(reference, slice(0, few)), device, 2, most) / few
    return sparse, dense


def _least_of(work: Callable[[], None], device: torch.device, runs: int, most: float) -> float:
    """The least seconds of several runs, of one where they would take more than ``most`` seconds."""
    took = [_seconds(work, device)]
    while len(took) < runs and sum(took) < most:
        took.append(_seconds(work, device))
    return min(took)


def dense_tally(
    maps: Tensor, threshold: Tensor, labels: LabelBatch, grid: tuple[int, int], concepts: int
) -> tuple[Tensor, Tensor]:
    """I (U, C + 1) and A (U,), float64, by enlarging every map and multiplying masks with one-hot labels.

    The reference for speed, as one would write it in torch: half-pixel upsampling, one image at a time, and only the
    concepts that the image holds.
    """
    both = torch.zeros((maps.shape[1], concepts + 1), dtype=torch.float64, device=maps.device)
    area = torch.zeros(maps.shape[1], dtype=torch.float64, device=maps.device)
    for n in range(len(maps)):
        large = F.interpolate(maps[n : n + 1], size=grid, mode="bilinear", align_corners=False)[0]
        mask = (large > threshold[:, None, None]).flatten(1).float()
        area += mask.sum(1)
        for m in range(labels.pixels.shape[2]):
            held, which = torch.unique(labels.pixels[n, :, m], return_inverse=True)
            both[:, held.long()] += (mask @ F.one_hot(which).float()).double()
    return both, area
