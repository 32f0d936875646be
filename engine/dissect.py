"""One dissection, from a network and labelled images to counts: read, thresholds, tally, top images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset, Sample
from ndissect.engine.device import DEFAULT_BATCH, Halving, exact_arithmetic, out_of_memory
from ndissect.engine.hooks import Capture
from ndissect.engine.labels import LabelBatch
from ndissect.engine.layers import LayerInfo
from ndissect.engine.loader import Loader, Survey, image_tensor
from ndissect.engine.networks.resolve import Network
from ndissect.engine.progress import Phase, Progress
from ndissect.engine.quantile import BUDGET, Quantile
from ndissect.engine.receptive import trace_fields
from ndissect.engine.tally import ConceptTally, Tally, upsample_dense
from ndissect.engine.thumbnails import image_table
from ndissect.engine.top import TopTracker
from ndissect.store import protocol as protocols
from ndissect.store import scores
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.model import Dissection, ImageTable, Layer, TopImages, UnitStatistics
from ndissect.store.upsampling import Axis, Field, make_axis

#: Takes what is known after so many images: equal to a dissection of those alone, but for thresholds and top images,
#: which are those of all.
Publish = Callable[[Dissection, int], None]
# Results so far take at most one part in this many of the tally's time.
_SHARE = 20


@dataclass(frozen=True)
class Settings:
    """How a dissection is run; none of it changes a count. 0 means: choose.

    ``batch``: images a forward pass; ``workers``: decoding threads; ``top``: top images kept for each unit;
    ``skip_bad``: go on without unreadable images; ``threshold_bytes``: memory for exact thresholds in one pass;
    ``publish_every``: seconds between results so far, more where making them takes long.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch: int = 0
    workers: int = 0
    top: int = 10
    skip_bad: bool = False
    threshold_bytes: int = BUDGET
    publish_every: float = 5.0


@dataclass(frozen=True)
class Outcome:
    """A dissection and how it went: ``survey`` of the data, ``seconds`` by phase, forward passes over the data."""

    dissection: Dissection
    survey: Survey
    seconds: dict[str, float]
    passes: int
    batch: int


def dissect(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: protocols.Protocol,
    settings: Settings,
    progress: Progress,
    publish: Publish | None = None,
) -> Outcome:
    """Dissect ``layers`` of ``network`` over ``dataset``: method.md sections 3 to 5 of the papers, exactly.

    Two forward passes, one for the thresholds and one for the tally; more where the thresholds do not fit their
    budget. Memory does not grow with the number of images, beyond the budgets. ``publish`` is handed what is known
    after the thresholds, then now and again during the tally. NDError for unreadable images, layers
    that change their shape, networks that fail; KeyboardInterrupt passes through, nothing is left behind.
    """
    exact_arithmetic()
    clock = _Clock()
    progress.plan(_phases(len(dataset), len(dataset), passes=1))
    loader = Loader(dataset, protocol, settings.workers)
    survey = loader.survey(progress, skip_bad=settings.skip_bad)
    clock.lap("read")
    run = _Run(network, loader, layers, protocol, settings, progress)
    try:
        network.module.to(settings.device)
        run.find_thresholds()
        clock.lap("thresholds")
        run.keep_images()
        clock.lap("images")
        run.count(publish)
        clock.lap("tally")
    except torch.OutOfMemoryError as e:
        raise NDError(
            f"{settings.device} has not enough free memory: {str(e).strip().splitlines()[0]}",
            "dissect fewer layers at a time, free the device, or use another --device",
        ) from e
    finally:
        network.module.to("cpu")
    dissection = run.dissection(survey.concepts, {})
    return Outcome(dissection, survey, clock.seconds, run.passes, run.batch.size)


def _phases(images: int, usable: int, *, passes: int) -> list[Phase]:
    thresholds = [Phase("thresholds", usable, forward=True)] * passes
    return [Phase("read", images), *thresholds, Phase("images"), Phase("tally", usable, forward=True)]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = round(now - self._since, 3)
        self._since = now


class Consumer(Protocol):
    """Takes one layer's maps (N, U, h, w) of N images; after running out of memory it must be as it was before."""

    def __call__(self, i: int, maps: Tensor, part: list[Sample], labels: LabelBatch | None, /) -> None: ...


class _Run:
    """The state of a dissection between its passes."""

    def __init__(
        self,
        network: Network,
        loader: Loader,
        layers: Sequence[LayerInfo],
        protocol: protocols.Protocol,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self.network, self.loader, self.layers = network, loader, layers
        self.protocol, self.settings, self.progress = protocol, settings, progress
        # Counting needs 64-bit integers and float64 comparisons, which MPS lacks: there the CPU counts.
        self.counting = torch.device("cpu") if settings.device.type == "mps" else settings.device
        self.batch = Halving(settings.batch or DEFAULT_BATCH.get(settings.device.type, 32), progress)
        self.images = len(loader.usable)
        self.passes = 0
        first = image_tensor([loader.read(loader.usable[0])])[0]
        self.axes = _layer_axes(network, network.preprocess.apply(first), layers, protocol, loader.grid)
        self.statistics: list[UnitStatistics] = []
        self.tops: list[TopTracker] = []
        self.top: list[TopImages] = []
        self.top_table: ImageTable | None = None
        self.tallies: list[Tally] = []

    def _map_size(self, layer: LayerInfo) -> tuple[int, int]:
        assert layer.map_size is not None  # a dissectable layer has a map
        return layer.map_size

    def _each_batch(
        self,
        phase: str,
        consumers: Sequence[Consumer],
        *,
        labelled: bool,
        after: Callable[[LabelBatch], None] | None = None,
    ) -> None:
        """One forward pass over the data set: every consumer gets each layer's maps of each batch.

        ``labelled``: and the batch's labels, which are then handed to ``after``, once a batch.
        """
        self.passes += 1
        self.progress.start(phase, self.images)
        with Capture(self.network.module, [layer.name for layer in self.layers]) as capture:
            for samples in self.loader.batches(self.batch.size):
                labels = self.loader.labels(samples).to(self.counting) if labelled else None
                self.batch.run(len(samples), partial(self._one_batch, capture, samples, labels, consumers))
                self.progress.advance(len(samples))
                if after and labels:
                    after(labels)

    def _one_batch(
        self,
        capture: Capture,
        samples: list[Sample],
        labels: LabelBatch | None,
        consumers: Sequence[Consumer],
        piece: slice,
    ) -> None:
        part, part_labels = samples[piece], labels[piece] if labels else None
        inputs = torch.cat([self.network.preprocess.apply(images) for images in image_tensor(part)])
        try:
            capture.run(inputs.to(self.settings.device))
        except Exception as e:
            if out_of_memory(e):
                raise torch.OutOfMemoryError(str(e)) from e
            raise _network_failed(self.network, inputs, e) from e
        maps = [capture[name].to(self.counting) for name in capture.names]
        # From here on counts change: what does not fit is cut further for that consumer alone, never counted twice.
        for number, layer_maps in enumerate(maps):
            for consume in consumers:

                def take(s: slice, i: int = number, x: Tensor = layer_maps, consume: Consumer = consume) -> None:
                    consume(i, x[s], part[s], part_labels[s] if part_labels else None)

                inner = Halving(len(part), self.progress)
                inner.run(len(part), take)
                if inner.size < len(part):  # it will not fit the next batch either
                    self.batch.size = min(self.batch.size, inner.size)

    def find_thresholds(self) -> None:
        """Fill ``statistics`` and ``tops``: the exact quantiles, and the images where units peak."""
        upsampled = self.protocol.quantile_over == "upsampled"
        share = self.settings.threshold_bytes // len(self.layers)
        quantiles = []
        for layer in self.layers:
            h, w = self.loader.grid if upsampled else self._map_size(layer)
            quantiles.append(Quantile(layer.units, self.images * h * w, self.protocol.q, self.counting, share))
            count = min(self.settings.top, self.images)
            self.tops.append(TopTracker(layer.units, count, self._map_size(layer), self.counting))
        pending = set(range(len(quantiles)))
        passes = max(q.passes for q in quantiles)
        self.progress.plan(_phases(len(self.loader.dataset), self.images, passes=passes))
        if passes > 1:
            mib = self.settings.threshold_bytes >> 20
            self.progress.note(f"the thresholds do not fit {mib} MiB: {passes} forward passes instead of one")

        def thresholds(i: int, maps: Tensor, part: list[Sample], labels: LabelBatch | None) -> None:
            if i in pending:
                self._feed(quantiles[i], i, maps)

        def tops(i: int, maps: Tensor, part: list[Sample], labels: LabelBatch | None) -> None:
            self.tops[i].update(maps, torch.tensor([s.index for s in part]))

        for number in range(passes):
            phase = "thresholds" if passes == 1 else f"thresholds {number + 1}/{passes}"
            self._each_batch(phase, [thresholds, tops] if number == 0 else [thresholds], labelled=False)
            pending -= {i for i in pending if not quantiles[i].end_pass()}
        self.statistics = [q.result() for q in quantiles]

    def _feed(self, quantile: Quantile, i: int, maps: Tensor) -> None:
        activations = maps.transpose(0, 1).reshape(maps.shape[1], -1)
        if self.protocol.quantile_over == "raw":
            quantile.update(activations)
            return
        rows, cols = self.axes[i]
        dense = [
            upsample_dense(image[None], rows, cols, self.protocol.upsampling)[0].reshape(maps.shape[1], -1)
            for image in maps
        ]
        quantile.update(torch.cat(dense, 1), activations)

    def keep_images(self) -> None:
        """Fill ``top`` and ``top_table``, and let go of ``tops``."""
        self.progress.busy("images")
        found = [tracker.result() for tracker in self.tops]
        self.tops = []
        distinct = np.unique(np.concatenate([image.ravel() for image, _, _ in found]))
        distinct = distinct[distinct >= 0]
        row_of = np.full(len(self.loader.dataset) + 1, -1, np.int32)
        row_of[distinct] = np.arange(len(distinct))
        self.top = [TopImages(row_of[image], peak, maps) for image, peak, maps in found]
        self.top_table = image_table(self.loader, [int(i) for i in distinct])

    def count(self, publish: Publish | None) -> None:
        """Fill ``tallies``; ``publish`` what they hold on the way."""
        concepts = self.loader.dataset.concepts
        thresholds = [torch.from_numpy(s.threshold).to(self.counting) for s in self.statistics]
        self.tallies = [
            Tally(layer.units, len(concepts), len(concepts.categories), device=self.counting) for layer in self.layers
        ]

        def tally(i: int, maps: Tensor, part: list[Sample], labels: LabelBatch | None) -> None:
            assert labels is not None
            rows, cols = self.axes[i]
            self.tallies[i].add(maps, thresholds[i], rows, cols, self.protocol.upsampling, labels)

        so_far = _SoFar(self, publish) if publish else None
        self._each_batch("tally", [tally], labelled=True, after=so_far.add if so_far else None)

    def dissection(self, concept_counts: ConceptCounts, provenance: Mapping[str, Any]) -> Dissection:
        """What the tallies hold, beside ``concept_counts`` of the same images."""
        concepts = self.loader.dataset.concepts
        layers = []
        for info, stats, tally, axes, top in zip(
            self.layers, self.statistics, self.tallies, self.axes, self.top, strict=True
        ):
            counts = tally.counts()
            best = scores.best_per_category(
                counts,
                concept_counts,
                concepts.category,
                len(concepts.categories),
                self.protocol.union,
                dead=stats.dead,
                min_images=self.protocol.min_images,
            )
            layers.append(Layer(info.name, info.module_type, best, stats, self._map_size(info), counts, top, axes))
        return Dissection(
            protocol=self.protocol,
            concepts=concepts,
            concept_counts=concept_counts,
            layers=tuple(layers),
            images=self.top_table,
            provenance=provenance,
            grid=self.loader.grid,
        )


class _SoFar:
    """Hands out what a run's tallies hold, at once and now and then, until memory does not suffice for it."""

    def __init__(self, run: _Run, publish: Publish) -> None:
        self._run, self._publish = run, publish
        self._concepts = ConceptTally(len(run.loader.dataset.concepts), device=run.counting)
        self._images = 0
        self._next = 0.0
        self._fits = True
        self.add(None)

    def add(self, labels: LabelBatch | None) -> None:
        """Take the labels of a batch that was tallied."""
        if not self._fits:
            return
        try:
            if labels:
                self._concepts.add(labels)
                self._images += len(labels.maps)
            if self._images < self._run.images and time.monotonic() >= self._next:
                self._hand_out()
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or out_of_memory(e)):
                raise
            self._fits = False
            self._run.progress.note("not enough memory to show results before the end")

    def _hand_out(self) -> None:
        began = time.monotonic()
        record = {"partial": {"images": self._images, "of": self._run.images}}
        self._publish(self._run.dissection(self._concepts.counts(), record), self._images)
        ended = time.monotonic()
        self._next = ended + max(self._run.settings.publish_every, _SHARE * (ended - began))


def _network_failed(network: Network, inputs: Tensor, error: Exception) -> NDError:
    if isinstance(error, NDError):
        return error
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return NDError(
        f"{network.spec} failed on a batch of shape {tuple(inputs.shape)}: {reason}",
        "the factory's transform must give what the network takes; --debug shows the traceback",
    )


def _layer_axes(
    network: Network, inputs: Tensor, layers: Sequence[LayerInfo], protocol: protocols.Protocol, grid: tuple[int, int]
) -> list[tuple[Axis, Axis]]:
    """For each layer, how the rows and the columns of its maps lie on the grid."""
    fields: dict[str, tuple[Field, Field] | str] = {}
    if protocol.upsampling == "receptive-field":
        fields = trace_fields(network.module, inputs, [layer.name for layer in layers])
    axes = []
    for layer in layers:
        assert layer.map_size is not None
        field = fields.get(layer.name)
        if isinstance(field, str):
            raise NDError(
                f"the receptive field of {layer.name} cannot be traced: {field}", "use --upsampling half-pixel"
            )
        rows, cols = (
            make_axis(protocol.upsampling, n, size, field[d] if field else None, inputs.shape[2 + d])
            for d, (n, size) in enumerate(zip(layer.map_size, grid, strict=True))
        )
        axes.append((rows, cols))
    return axes
