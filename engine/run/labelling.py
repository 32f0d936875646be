"""The labeller that the options name, and a data set with its labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from ndissect.engine.data.class_names import ClassName, class_names, distinct, read_class_names
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.made_labels import LabelsMade, MadeLabels
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, exact_arithmetic, too_large
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.passes.forward import Forward
from ndissect.engine.passes.labeller import Labeller, Segmenter, run_segmenter
from ndissect.engine.run.data_source import image_size, labels_are_made
from ndissect.engine.run.network_loader import parse_size
from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.store.protocol import Protocol

# Pixels of the inputs that batches are meant for.
_USUAL = 224 * 224


def label_images(
    options: Options, dataset: ConceptDataset, protocol: Protocol, device: torch.device, console: Console
) -> ConceptDataset:
    """``dataset`` with labels that are made of its images, where ``options`` ask for such; else as it is.

    Labels by a network come in place of its own, colours beside them. WrongUse where the classes of the labeller have
    no names or other numbers of them, NDError where it cannot be loaded or labels no pixels.
    """
    if not labels_are_made(options):
        return dataset
    labelling = make_labeller(options, dataset, protocol, device, console)
    if len(dataset.concepts) and not labelling.labeller.made.own:
        console.note(f"the labels of {dataset.name} are not used: {labelling.labeller.spec} labels its images")
    return MadeLabels(dataset, labelling.labeller.made, labelling.labeller)


@dataclass(frozen=True)
class Labelling:
    """A labeller, and the names of the network's classes: ``names`` of all of them, ``classes`` of the concepts.

    ``numbers``: of each class its concept's number from 1, 0 for none.
    """

    labeller: Labeller
    names: tuple[ClassName, ...]
    classes: tuple[tuple[str, str], ...]
    numbers: tuple[int, ...]


def make_labeller(
    options: Options,
    dataset: ConceptDataset,
    protocol: Protocol,
    device: torch.device,
    console: Console,
    size: tuple[int, int] | None = None,
) -> Labelling:
    """What labels the images of ``dataset`` as ``options`` ask for it; errors as for :func:`label_images`.

    ``size``: (rows, columns) of what is labelled, where that is not what the data set reads.
    """
    segmenter: Segmenter | None = None
    names: tuple[ClassName, ...] = ()
    classes: tuple[tuple[str, str], ...] = ()
    numbers: tuple[int, ...] = ()
    said: dict[str, Any] = {}
    batch = options.batch_size
    if options.labeller is not None:
        network = load_labeller(options)
        for note in network.notes:
            own_flag = re.sub(r"\(--size[^)]*\)", "(--labeller-size changes its size)", note)
            console.note(f"the labeller: {own_flag}")
        tried = _try(network, size or image_size(dataset), device)
        names, batch = _names(options, network, tried), options.batch_size or tried.batch
        classes, numbers = distinct(names)
        segmenter = Segmenter(network, numbers, options.labeller_min)
        said = _about(network, len(names), options.labeller_min)
    own = segmenter is None and len(dataset.concepts) > 0
    made = LabelsMade(classes, options.colors, own, protocol.grid or dataset.grid, said)
    first_color = made.first_number(dataset.concepts) + len(classes)
    labeller = Labeller(made, segmenter, first_color, device, batch=batch)
    return Labelling(labeller, names, classes, numbers)


def load_labeller(options: Options) -> Network:
    """The network that ``options.labeller`` names; WrongUse and NDError as for the network that is dissected."""
    assert options.labeller is not None
    size = parse_size(options.labeller_size, "--labeller-size") if options.labeller_size else None
    try:
        return load_network(options.labeller, size=size)
    except WrongUse as e:
        if size is None or "--size" not in e.message:
            raise
        raise WrongUse(
            f"{options.labeller} brings its own transform, which --labeller-size cannot change", e.hint
        ) from e


def _about(network: Network, classes: int, least: float) -> dict[str, Any]:
    """What a store says of the labeller, as JSON values."""
    return {
        "spec": network.spec,
        "name": network.name,
        "digest": network.digest,
        "code": network.origin.get("sha256"),
        "outputs": classes,
        "min": least,
        "preprocess": network.preprocess.describe(),
    }


def _names(options: Options, network: Network, tried: _Tried) -> tuple[ClassName, ...]:
    """The name of every class of the labeller, None for those that are no concept."""
    count, single = tried.classes, tried.single
    where = options.labeller_classes
    names = read_class_names(where) if where is not None else declared_classes(network)
    if names is None:
        raise WrongUse(
            f"the {count} classes of {network.spec} have no names",
            "--labeller-classes FILE names them, one a line; `background` is no concept",
        )
    if single and len(names) == 1:
        return (None, *names)
    if len(names) != count + single:
        raise WrongUse(
            f"{network.spec} has {count} classes, {where or 'it'} names {len(names)}",
            "--labeller-classes FILE names every class, one a line; `background` is no concept",
        )
    if not any(names):
        raise WrongUse(f"none of the classes of {network.spec} is a concept", "--labeller-classes FILE names them")
    return names


def declared_classes(network: Network) -> tuple[ClassName, ...] | None:
    """The classes that a network declares itself; None where it does not.

    They are what its source knows of it (``Network.classes``), an attribute ``classes`` of the module, or the
    ``id2label`` of its config.
    """
    declared = (
        network.classes,
        getattr(network.module, "classes", None),
        getattr(getattr(network.module, "config", None), "id2label", None),
    )
    return next((names for given in declared if (names := class_names(given)) is not None), None)


@dataclass(frozen=True)
class _Tried:
    """What a labeller says of an empty image: of how many ``classes``, and whether by a ``single`` score.

    ``batch``: so many inputs of its size take about as much memory as a batch of the usual ones.
    """

    classes: int
    single: bool
    batch: int


def _try(network: Network, size: tuple[int, int], device: torch.device) -> _Tried:
    exact_arithmetic()
    network.module.to(device)
    forward = Forward(network, (), device, progress=Progress(), clock=Clock())
    inputs = forward.inputs([torch.zeros((1, 3, *size), dtype=torch.uint8)], slice(0, 1))
    try:
        scores = run_segmenter(network, inputs, device)
    except torch.OutOfMemoryError as e:
        raise too_large() from e
    single = scores.shape[1] == 2 and bool((scores[:, 0] == 0).all())
    batch = DEFAULT_BATCH[device.type] * _USUAL // (inputs.shape[-2] * inputs.shape[-1])
    return _Tried(scores.shape[1] - single, single, min(max(batch, 1), DEFAULT_BATCH[device.type]))
