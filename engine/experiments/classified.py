"""A network with its layer, its classes and images of them: what the experiments on effects begin with.

::

    with open_classified(request, console) as c:
        for batch in c.batches(c.images):
            inputs = c.inputs(batch)                  # (n, C, H, W) of the images that batch.images numbers
            scores = c.scores(c.network.module(inputs))
            truth = c.truth_of(batch.images, scores)  # (n,) int64
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.class_images import ClassImages, Truth, labels_of_data, match_images, open_class_images
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.experiments.named_by_images import named_by_images
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, choose_device, exact_arithmetic
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.layers import LayerInfo, taps_of
from ndissect.engine.networks.output_names import NUMBERS, named_outputs
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.scores import class_scores
from ndissect.engine.networks.taps import Tap
from ndissect.engine.passes.forward import Forward, network_failed
from ndissect.engine.passes.input_size import demand_one_size
from ndissect.engine.passes.loader import Batch, Loader
from ndissect.engine.passes.transfer import on_device
from ndissect.engine.run.data_source import open_named
from ndissect.engine.run.forward_pass import make_loader, network_on
from ndissect.engine.run.from_store import demand_same_weights, stored_options, told_of_code
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.preparation import make_settings, one_layer
from ndissect.engine.run.settings import Settings
from ndissect.store.class_matching import ClassMatching
from ndissect.store.effects import Classes
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store

__all__ = ["Classified", "EffectRequest", "open_classified"]

TruthFrom = Literal["images", "prediction"]


@dataclass(frozen=True)
class Classified:
    """A network on its device, and images of its classes.

    ``truth`` (N,) int64: the class of each image of ``dataset``, -1 for none; ``truth_from``: ``images``, the images
    say their class, or ``prediction``: nothing does, and the network's own prediction stands for it. ``images``: the
    numbers of those that are used: all that have a class. ``splits``: ``("train", "val")`` or ``("all",)``;
    ``split`` (N,) int64: a row of ``splits`` for each image. ``notes``: what every table says of classes and images.
    """

    network: Network
    layer: LayerInfo
    classes: Classes
    dataset: ConceptDataset
    truth: npt.NDArray[np.int64]
    truth_from: TruthFrom
    images: list[int]
    splits: tuple[str, ...]
    split: npt.NDArray[np.int64]
    notes: tuple[str, ...]
    store: Path | None
    settings: Settings
    progress: Progress
    _reading: _Reading = field(repr=False)
    _matching: ClassMatching = field(repr=False)

    @property
    def tap(self) -> Tap:
        """Where the layer's maps are taken."""
        return taps_of([self.layer])[self.layer.name]

    @property
    def at_once(self) -> int:
        """How many images, or copies of one, go through the network at a time."""
        return self.settings.batch or DEFAULT_BATCH.get(self.settings.device.type, 32)

    def batches(self, images: Sequence[int]) -> Iterator[Batch]:
        """These images in their order, a batch at a time, decoded ahead; unreadable ones raise unless settings skip."""
        return self._reading.batches(images)

    def inputs(self, batch: Batch) -> Tensor:
        """(n, C, H, W): the network's input for a batch, on its device."""
        return self._reading.inputs(batch.pixels)

    def scores(self, output: Any) -> Tensor:
        """(n, K) float32: the class scores in what the network returned."""
        return class_scores(self.network.spec, output)

    def truth_of(self, images: Sequence[int], scores: Tensor) -> Tensor:
        """(n,) int64: the class of each of these images, or, by prediction, that of its largest score."""
        if self.truth_from == "prediction":
            return scores.argmax(1)
        return torch.from_numpy(self.truth[list(images)]).to(scores.device)

    def class_number(self, name: str) -> int:
        """The class that is called ``name``, or has this number; WrongUse with the nearest names for none."""
        return self._matching.number(name)


class _Reading:
    """Images of a data set on their way into a network, which is on its device."""

    def __init__(
        self, network: Network, layer: LayerInfo, dataset: ConceptDataset, settings: Settings, progress: Progress
    ) -> None:
        self.loader: Loader = make_loader(dataset, make_protocol("netdissect"), settings)
        self.settings, self.progress, self.network = settings, progress, network
        self._open = contextlib.ExitStack()
        self._forward = Forward(
            network,
            [layer.name],
            settings.device,
            taps=taps_of([layer]),
            batch=settings.batch,
            progress=progress,
            clock=Clock(),
        )
        self._told: set[int] = set()

    @contextlib.contextmanager
    def on_device(self) -> Iterator[Self]:
        """The same with the network on its device for the block."""
        with (
            network_on(self.network, self.settings.device, "use another --device, or a smaller --batch-size"),
            self._open,
        ):
            yield self

    def batches(self, images: Sequence[int]) -> Iterator[Batch]:
        batches = self._batches(images)
        self._open.callback(batches.close)  # where an error ends the loop over them
        return batches

    def _batches(self, images: Sequence[int]) -> Generator[Batch, None, None]:
        device = self._forward.counting_device
        loaded = self.loader.loaded(images, self._forward.batch.size, skip_bad=self.settings.skip_bad)
        # A researcher's own transform may hold tensors on the CPU.
        own_transform = self.network.preprocess.transform is not None
        with contextlib.closing(on_device(loaded, device, pixels=not own_transform)) as batches:
            for batch in batches:
                for number, error in batch.bad:
                    if number not in self._told:
                        self.progress.note(f"skipped {self.loader.dataset.names[number]}: {error.message}")
                        self._told.add(number)
                yield batch

    def inputs(self, pixels: Sequence[Tensor]) -> Tensor:
        return self._forward.inputs(pixels, slice(0, sum(len(x) for x in pixels)))

    def scores(self, pixels: Sequence[Tensor]) -> Tensor:
        """(n, K) float32: the class scores of these images."""
        inputs = self.inputs(pixels)
        try:
            with torch.no_grad():
                output = self.network.module(inputs)
        except Exception as e:  # whatever the researcher's code raises
            raise network_failed(self.network, inputs, e) from e
        return class_scores(self.network.spec, output)

    def predictions(self, images: Sequence[int]) -> dict[int, int]:
        """The class of the largest score of each of these images that can be read."""
        found: dict[int, int] = {}
        for batch in self.batches(images):
            if len(batch):
                found |= dict(zip(batch.images, self.scores(batch.pixels).argmax(1).tolist(), strict=True))
        return found


@contextlib.contextmanager
def open_classified(request: EffectRequest, console: Console) -> Iterator[Classified]:
    """What ``request`` asks for, the network on its device for the block.

    WrongUse and NDError for what cannot be: no network, weights that are not those of the store, classes that do not
    match, images without classes, a network that gives no class scores.
    """
    exact_arithmetic()
    with nullcontext() if request.store is None else Store(request.store) as store:  # closed: effects go into it later
        options = _options(request, store, console)
        network, images, layer, notes = _what(request, options, store, console)
    device = choose_device(options.device)
    what = f"{network.spec}, {layer.name}, {layer.units} units"
    data = f"{images.dataset.name} ({len(images)} image{'s' * (len(images) != 1)})"  # not all of them need be used
    console.tell(f"{what}, data {data}, on {device}")
    settings = make_settings(options, device, console)
    with (
        console.progress() as progress,
        _Reading(network, layer, images.dataset, settings, progress).on_device() as reading,
    ):
        classes, matching, truth, told = _classes(reading, images, request.classes or options.classes)
        number = np.full(len(images), -1, np.int64) if truth is None else truth.number
        truth_from: TruthFrom = "prediction" if truth is None else "images"
        used, splits, split = _splits(images, number, truth_from)
        yield Classified(
            network,
            layer,
            classes,
            images.dataset,
            number,
            truth_from,
            used,
            splits,
            split,
            (*notes, *told),
            request.store,
            settings,
            progress,
            reading,
            matching,
        )


def _what(
    request: EffectRequest, options: Options, store: Store | None, console: Console
) -> tuple[Network, ClassImages, LayerInfo, tuple[str, ...]]:
    """The network, the images, the layer, and what a reader should know of the labels of its units."""
    load = network_loader(options)  # what can be refused is refused before anything is read
    choose_device(options.device)
    if request.images is not None:
        images = open_class_images(request.images, options.max_pixels)
    else:
        images = labels_of_data(open_named(options, console))
    network = load()
    for note in network.notes:
        console.note(note)
    of_weights = () if store is None else demand_same_weights(store, network, anyway=options.anyway)
    demand_one_size(network, images.dataset)
    layer = one_layer(request.layer, options, network, images.dataset, store)
    return network, images, layer, (*of_weights, *_of_labels(store, layer))


def _classes(
    reading: _Reading, images: ClassImages, file: Path | None
) -> tuple[Classes, ClassMatching, Truth | None, tuple[str, ...]]:
    """The classes, how they are found by name, those of the images, and what a reader should know of them.

    NDError where images say classes, and none is of a single one.
    """
    network = reading.network
    outputs = reading.scores([reading.loader.first(skip_bad=reading.settings.skip_bad)]).shape[1]
    classes, known = named_outputs(network, file, outputs)
    matching = ClassMatching(known.names, known.ids)
    notes: tuple[str, ...] = ()
    if file is None and len(network.classes) not in (0, outputs):
        notes = (f"{network.spec} names {len(network.classes)} classes and gives {outputs} scores: these have numbers",)
    nameless = classes.source == NUMBERS
    truth = match_images(images, matching, must=not (nameless and len(images.names) == outputs))
    if truth is None and nameless:
        by_images = named_by_images(images, outputs, reading.predictions)
        if by_images is not None:
            classes, truth = by_images
            matching = ClassMatching(classes.names)
    if truth is None:
        why = f"{images.said_by} are no classes of the network" if images.names else "nothing says the images' classes"
        return classes, matching, None, (*notes, f"{why}: its own prediction is taken for the class")
    if not (truth.number >= 0).any():
        raise NDError(f"{images.said_by}: no image is of one class of the network alone", "--images DIR names others")
    return classes, matching, truth, (*notes, *truth.notes)


def _options(request: EffectRequest, store: Store | None, console: Console) -> Options:
    """How network and data are opened; it is told what code a store has run."""
    named = request.options.network
    network = request.network or (named if named != Options().network else None)
    if store is not None:
        options = stored_options(store, request.options, network, with_data=request.images is None)
        for line in told_of_code(store, options, request.options, network):
            console.note(line)
        return options
    if network is None:
        raise WrongUse("no network is named, and there is no store that names one", "--network NETWORK, or -s STORE")
    return replace(request.options, network=network)


def _of_labels(store: Store | None, layer: LayerInfo) -> list[str]:
    """What a reader should know of the labels of the layer's units; WrongUse where they are of other units."""
    if store is None:
        return ["no store: units have no labels"]
    if layer.name not in store.layer_names:
        return [f"{store.path.name} has no labels of {layer.name}: it has {', '.join(store.layer_names[:6])}"]
    labelled = store.layer(layer.name).units
    if labelled != layer.units:
        raise WrongUse(
            f"{layer.name} has {layer.units} units, and {labelled} in {store.path}",
            "-s STORE names the store of this network; nd dissect makes one",
        )
    return []


def _splits(
    images: ClassImages, truth: npt.NDArray[np.int64], truth_from: TruthFrom
) -> tuple[list[int], tuple[str, ...], npt.NDArray[np.int64]]:
    """The images that are used, and how they are split: in train and val where both are there."""
    used = list(range(len(images))) if truth_from == "prediction" else np.flatnonzero(truth >= 0).tolist()
    there = {images.dataset.splits[n] for n in used}
    if images.split and there == {"train", "val"}:
        return used, ("train", "val"), np.array([int(s == "val") for s in images.dataset.splits], np.int64)
    return used, ("all",), np.zeros(len(images), np.int64)
