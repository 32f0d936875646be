"""The experiments with one network, from options to results: what the commands call, and a program may."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.experiments.bench import BUDGET, Bench, bench
from ndissect.engine.experiments.rotate import Rotated, rotate
from ndissect.engine.experiments.sweep import Sweep, sweep
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import choose_device
from ndissect.engine.networks.layers import LayerInfo, default_layers, list_layers, match_layers
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.data_source import image_size, open_named
from ndissect.engine.run.labelling import label_images
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.preparation import choose_layers, describe_layers, make_settings
from ndissect.store.errors import WrongUse
from ndissect.store.files import cache_folder
from ndissect.store.names import quoted


@dataclass(frozen=True)
class SweepResult:
    """What ``sweep`` counted of the ``network`` (its spec) over the data set ``data``."""

    network: str
    data: str
    sweep: Sweep


def sweep_quantiles(options: Options, quantiles: Sequence[Fraction], console: Console) -> SweepResult:
    """Dissect at every quantile from one forward pass; that of ``options`` does not count. Nothing is written.

    WrongUse and NDError as in a dissection, and where memory does not suffice (ndissect.engine.experiments.sweep).
    """
    protocols = [replace(options, quantile=str(q)).make_protocol() for q in quantiles]
    load = network_loader(options)
    dataset, device = open_named(options, console), choose_device(options.device)
    settings = make_settings(options, device, console)
    network = load()
    dataset = label_images(options, dataset, protocols[0], device, console)
    layers = choose_layers(options, network, dataset, console.tell)
    _note(network, console)
    what = f"{network.spec} on {dataset.name}: {len(dataset)} images"
    console.tell(f"{what}, {describe_layers(layers)}, {len(quantiles)} quantiles, on {device}")
    with console.progress() as progress:
        result = sweep(network, dataset, layers, protocols, settings, progress)
    _tell_skipped(result.survey.skipped, console)
    return SweepResult(network.spec, dataset.name, result)


@dataclass(frozen=True)
class RotationResult:
    """What ``rotated`` counted of the ``network`` (its spec), called ``name``, over the data set ``data``."""

    network: str
    name: str
    data: str
    rotated: Rotated


def rotate_layer(
    options: Options, alphas: Sequence[float], console: Console, *, seeds: int = 3, images: int | None = None
) -> RotationResult:
    """Dissect one layer in bases between its own and random ones (ndissect.engine.experiments.rotate).

    ``alphas``: how far, from 0 to 1, for each of ``seeds`` random rotations; ``images``: so many, spread evenly, by
    default all. The layer is the one that ``options`` name, by default the last that a dissection takes; WrongUse
    where they name several.
    """
    protocol, load = options.make_protocol(), network_loader(options)
    dataset = open_named(options, console)
    if images is not None:
        dataset = spread(dataset, images)
    device = choose_device(options.device)
    network = load()
    dataset = label_images(options, dataset, protocol, device, console)
    layer = _one_layer(options, network, dataset)
    _note(network, console)
    bases = sum(1 if a == 0 else seeds for a in alphas)
    what = f"{network.spec} on {dataset.name}: {len(dataset)} images"
    console.tell(f"{what}, {layer.name}, {layer.units} units, {bases} bases")
    settings = make_settings(options, device, console)
    with console.progress() as progress:
        rotated = rotate(network, dataset, layer, protocol, settings, progress, alphas=alphas, seeds=seeds)
    _tell_skipped(rotated.skipped, console)
    return RotationResult(network.spec, network.name, dataset.name, rotated)


def _one_layer(options: Options, network: Network, dataset: ConceptDataset) -> LayerInfo:
    infos = list_layers(network, image_size(dataset), map_rule=options.map, patterns=options.layers)
    names = match_layers(options.layers, infos) if options.layers else default_layers(infos)[-1:]
    if len(names) != 1:
        listed = ", ".join(names[:6]) + " ..." * (len(names) > 6)
        raise WrongUse(
            f"one layer is rotated, '{', '.join(options.layers)}' means {len(names)}: {listed}",
            f"name one: -l {quoted(names[-1])}",
        )
    return next(info for info in infos if info.name == names[0])


def bench_network(options: Options, console: Console, *, images: int = 256, rounds: int = 3) -> Bench:
    """Time a dissection of some images beside decoding and the bare forward pass (ndissect.engine.experiments.bench).

    Without ``options.data`` the images are of Broden's size, and made once; making them takes from the time that
    measuring may take.
    """
    budget = BUDGET
    if options.data is None:
        since = time.monotonic()
        with console.progress() as progress:
            folder = write_synthetic(
                cache_folder() / f"bench-{images}", images, progress=progress.step("making images")
            )
        budget = max(BUDGET / 2, BUDGET - (time.monotonic() - since))
        dataset = open_dataset(folder, console.tell, options.max_pixels)
    else:
        dataset = open_named(options, console)
    device = choose_device(options.device)
    network = network_loader(options)()
    layers = choose_layers(options, network, dataset)
    settings, protocol = make_settings(options, device, console), options.make_protocol()
    dataset = label_images(options, dataset, protocol, device, console)
    return bench(
        network, dataset, layers, protocol, settings, images=images, rounds=rounds, budget=budget, tell=console.tell
    )


def _note(network: Network, console: Console) -> None:
    for note in network.notes:
        console.note(note)


def _tell_skipped(skipped: Sequence[tuple[str, str]], console: Console) -> None:
    for name, why in skipped:
        console.tell(f"skipped {name}: {why}")
