"""A generator with its layer, its samples and its labeller: what the experiments on generators begin with.

::

    with open_generated(request, console) as g, Tail(g.network.module, g.tap) as tail:
        row = g.concept("tree")
        for samples in g.batches(range(100)):
            before = g.areas(g.pictures(tail.start(g.inputs(samples))))   # (n, C) pixels of each concept
            after = g.areas(g.pictures(tail.run(lambda maps: set_units(maps, units, zeros))))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.concept_images import concept_row
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, choose_device, computing, out_of_memory
from ndissect.engine.measures.quantile import hazen_position
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.generators import Generator
from ndissect.engine.networks.layers import LayerInfo, taps_of
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import Tap
from ndissect.engine.passes.forward import failures_of
from ndissect.engine.passes.labeller import Labeller
from ndissect.engine.run.forward_pass import network_on
from ndissect.engine.run.from_store import demand_same_labeller, demand_same_weights, stored_options, told_of_code
from ndissect.engine.run.generated import Samples, open_samples
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.preparation import one_layer
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store

#: The high value of a unit (Bau et al., PNAS 2020).
HIGH = 0.995
# Samples, and bytes of their maps, of which high values are taken.
_SAMPLES, _BYTES = 1_000, 512 << 20


@dataclass(frozen=True)
class GeneratorRequest:
    """What an experiment on a generator is asked for.

    ``store``: of its dissection; ``layer``: None, the last one of the store; ``options``: what differs from those of
    the run that wrote the store, and how the machine is used.
    """

    store: Path
    layer: str | None = None
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Generated:
    """A generator on its device, with the layer that is edited and what labels its pictures.

    ``concepts``: those of the store, in its order; ``ious`` (U, C) float64: of the layer's units in the store, NaN
    where it has none; ``count``: how many samples the store is of; ``notes``: what every table says.
    """

    generator: Generator
    layer: LayerInfo
    concepts: ConceptTable
    ious: npt.NDArray[np.float64]
    count: int
    device: torch.device
    notes: tuple[str, ...]
    store: Path
    samples: Samples
    at_once: int

    @property
    def network(self) -> Network:
        """The generator as a network, which takes what :meth:`inputs` gives."""
        return self.generator.network

    @property
    def tap(self) -> Tap:
        """Where the layer's maps are taken."""
        return taps_of([self.layer])[self.layer.name]

    @property
    def labeller(self) -> Labeller:
        """What labels pictures, on the grid of the pictures themselves."""
        return self.samples.labelling.labeller

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the layer's maps."""
        assert self.layer.map_size is not None
        return self.layer.map_size

    def concept(self, name: str) -> int:
        """The row of the concept ``name``; WrongUse with the nearest names for none."""
        return concept_row(self.concepts, name)

    def best_units(self, concept: int) -> list[int]:
        """All units, those of the highest IoU with the concept in row ``concept`` first; of equal ones the lower first.

        WrongUse where the store has no IoUs of the layer.
        """
        ious = self.ious[:, concept]
        if np.isnan(ious).all():
            raise WrongUse(
                f"{self.store} has no IoUs of {self.layer.name}", "nd dissect GENERATOR --layer NAME measures them"
            )
        return [int(u) for u in np.argsort(-np.nan_to_num(ious, nan=-1.0), kind="stable")]

    def batches(self, samples: Sequence[int]) -> Iterator[list[int]]:
        """These samples, as many at a time as are drawn at once."""
        for start in range(0, len(samples), self.at_once):
            yield list(samples[start : start + self.at_once])

    def inputs(self, samples: Sequence[int]) -> Tensor:
        """(n, *shape): the generator's input for samples by their numbers, on its device."""
        return self.generator.inputs(list(samples), self.device)

    def pictures(self, output: Any) -> Tensor:
        """(n, 3, H, W) uint8: the pictures in what the generator returned; NDError where they are none."""
        return self.generator.pictures(output)

    def rows(self, pictures: Tensor) -> Tensor:
        """(n, M, H, W) int64 on the labeller's device: of each pixel the row of its concept, -1 for none.

        M: maps that label a pixel, one by the network and one by colours.
        """
        return self.labeller.numbers([pictures]).long() - 1  # their numbers count from 1, in the order of the rows

    def areas(self, pictures: Tensor) -> Tensor:
        """(n, C) int64: how many pixels of each picture hold each concept."""
        rows, concepts = self.rows(pictures), len(self.concepts)
        flat = rows.flatten(1) + 1 + torch.arange(len(rows), device=rows.device)[:, None] * (concepts + 1)
        counts = torch.bincount(flat.flatten(), minlength=len(rows) * (concepts + 1)).view(len(rows), concepts + 1)
        return counts[:, 1:]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Generator and labeller are run in the block, in full float32 and without gradients.

        NDError for what their code raises, and where the device has not the memory for so many samples at once.
        """
        try:
            with torch.no_grad(), computing("fp32", self.device), failures_of(self.network):
                yield
        except RuntimeError as e:
            if not out_of_memory(e):
                raise
            full = f"{self.device} has not enough memory for {self.at_once} samples at a time"
            raise NDError(full, f"--batch-size {max(1, self.at_once // 4)} takes fewer") from e

    @property
    def pixels(self) -> int:
        """Pixels of a picture, of which areas are shares."""
        return self.generator.size[0] * self.generator.size[1]

    def high_values(self, share: float = HIGH) -> Tensor:
        """(U,) float32: the ``share`` quantile (Hazen) of each unit's activations over the first samples of the store.

        They are of 1,000 samples, or as many as 512 MB of maps hold.
        """
        units, (height, width) = self.ious.shape[0], self.map_size
        many = max(1, min(self.count, _SAMPLES, _BYTES // (4 * units * height * width)))
        taken: list[Tensor] = []
        name = self.tap.module
        with Capture(self.network.module, [name], {name: self.tap}) as capture:
            for samples in self.batches(range(many)):
                with computing("fp32", self.device):
                    capture.run(self.inputs(samples))
                taken.append(capture[name].permute(1, 0, 2, 3).flatten(1))
        ordered = torch.cat(taken, 1).sort(1).values
        below, between = hazen_position(ordered.shape[1], 1 - Fraction(str(share)))
        above = min(below + 1, ordered.shape[1] - 1)
        return torch.lerp(ordered[:, below], ordered[:, above], between)


def set_units(
    maps: Tensor, units: Sequence[int] | Tensor, values: Tensor, cells: Tensor | None = None, strength: float = 1.0
) -> Tensor:
    """A copy of maps (N, U, h, w) with some units set to ``values`` (n,), one each.

    ``cells`` (h, w) or (N, h, w) bool: only there; ``strength``: 1 sets them, 0.5 goes half of the way.
    """
    numbers = torch.as_tensor(units, dtype=torch.long, device=maps.device)
    changed = maps.clone()
    old = changed[:, numbers]
    new = old + strength * (values.to(maps.device, maps.dtype)[None, :, None, None] - old)
    if cells is not None:
        where = cells.to(maps.device)
        new = torch.where(where[None, None] if where.ndim == 2 else where[:, None], new, old)
    changed[:, numbers] = new
    return changed


@contextlib.contextmanager
def open_generated(request: GeneratorRequest, console: Console) -> Iterator[Generated]:
    """The generator of a store, for the block, on its device.

    WrongUse where the store is of no generator, or of one whose weights were others (unless ``options.anyway``);
    NDError where network or labeller are gone or fail.
    """
    with Store(request.store) as store:
        options = generator_options(store, request.options)
        for line in told_of_code(store, options, request.options):
            console.note(line)
        network = network_loader(options)()
        notes = demand_same_weights(store, network, anyway=options.anyway)
        device = choose_device(options.device)
        samples = _samples(options, network, device, console)
        digest = samples.labelling.labeller.made.network.get("digest")
        notes += demand_same_labeller(store, digest, anyway=options.anyway)
        _demand_same_latents(store, samples, request.options, anyway=options.anyway)
        concepts = store.concepts
        if samples.dataset.concepts.name != concepts.name:
            raise WrongUse(
                f"the labeller of {request.store} names other concepts now than then",
                "--labeller and --labeller-classes say what it was",
            )
        layer = one_layer(request.layer, options, samples.generator.network, samples.dataset, store)
        ious = _ious(store, layer)
        said = store.provenance.get("data")
        count = said.get("images") if isinstance(said, dict) else None
    count = count if isinstance(count, int) and 0 < count <= len(samples.dataset) else len(samples.dataset)
    at_once = options.batch_size or DEFAULT_BATCH.get(device.type, 32)
    generated = Generated(
        samples.generator, layer, concepts, ious, count, device, notes, request.store, samples, at_once
    )
    with network_on(samples.generator.network, device, "use another --device, or a smaller --batch-size"):
        yield generated


def generator_options(store: Store, given: Options) -> Options:
    """The options that open the generator of ``store`` again; WrongUse where it is of no generator."""
    if not isinstance(store.provenance.get("generator"), dict):
        raise WrongUse(
            f"{store.path} is of no generator: its network sees images and draws none",
            "nd dissect GENERATOR --generator --labeller NETWORK makes a store of one",
        )
    options = stored_options(store, given, with_data=False)
    return replace(options, generator=True, data=None)


def _demand_same_latents(store: Store, samples: Samples, given: Options, *, anyway: bool) -> None:
    """WrongUse where the samples of ``store`` cannot be made again, unless other latents are asked for, or ``anyway``.

    A file of latents, or the photographs that they are of, may have changed since.
    """
    asked = (given.seed, given.truncation, given.latent, given.latents, given.encode, given.class_of, given.samples)
    recorded = store.provenance["generator"].get("latents_digest")
    same = recorded is None or recorded == samples.dataset.record["latents_digest"]
    if not same and not any(asked) and not anyway:
        raise WrongUse(
            f"the samples of {store.path} cannot be made again: their latents have changed since",
            "nd dissect makes a store of the new ones, --anyway goes on",
        )


def _samples(options: Options, network: Network, device: torch.device, console: Console) -> Samples:
    """The samples, labelled pixel by pixel: shares are of the whole picture, whatever the grid of the store was."""
    protocol = replace(options.make_protocol(), grid=None)
    options = replace(options, grid="label")
    return open_samples(options, network, protocol, device, console)


def _ious(store: Store, layer: LayerInfo) -> npt.NDArray[np.float64]:
    """(U, C): the IoUs of the layer's units in the store; NaN where it has none."""
    units = layer.units or 0
    ious = np.full((units, len(store.concepts)), np.nan)
    if layer.name not in store.layer_names:
        return ious
    view = store.layer(layer.name)
    if view.units != units:
        raise NDError(f"{layer.name} has {units} units, and {view.units} in {store.path}", "dissect it again")
    for row in range(len(store.concepts)):
        ious[:, row] = view.concept_ious(row)
    return ious
