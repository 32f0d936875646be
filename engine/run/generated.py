"""A generator and its samples, from the options."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.samples import LabelledSamples, LatentSamples
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import computing, exact_arithmetic
from ndissect.engine.networks.generators import Generator, LatentInput, carried, declares_itself, make_generator
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.data_survey import DataSummary
from ndissect.engine.run.encoded import Encoded, encode_photographs, read_latents
from ndissect.engine.run.labelling import Labelling, make_labeller
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import Protocol

#: Samples of a dissection where none are named (Bau et al., PNAS 2020), and the most that a run takes.
SAMPLES, MOST_SAMPLES = 10_000, 10_000_000
# The grid of a generator's labels: a quarter of the picture's rows and columns (Bau et al., ICLR 2019 and PNAS 2020).
_QUARTER = 4
# Concepts that are named of those that were found.
_TOLD = 5


@dataclass(frozen=True)
class Samples:
    """A generator with its samples: ``dataset``, labelled on the grid of ``protocol`` by ``labelling``."""

    generator: Generator
    dataset: LabelledSamples
    labelling: Labelling
    protocol: Protocol


def is_generator(options: Options, network: Network) -> bool:
    """Whether the samples of ``network`` are dissected: it is asked for, or the network says that it draws."""
    return options.generator or declares_itself(network.module)


def as_drawing(options: Options, network: Network) -> Network:
    """``network`` as it takes latents, where it is a generator, for a list of its layers; else as it is.

    Errors as of make_generator.
    """
    if not is_generator(options, network):
        demand_no_latents(options, network)
        return network
    return open_generator(options, network, torch.device("cpu")).network


def demand_no_latents(options: Options, network: Network) -> None:
    """WrongUse where options are of latents, and ``network`` is no generator."""
    for name in ("samples", "truncation", "latent", "latents", "encode", "class_of"):
        if getattr(options, name) not in (None, 0):
            raise WrongUse(
                f"--{name.replace('_', '-')} is for a generator, and {network.spec} does not say that it is one",
                "add --generator where it draws images of latents",
            )


def open_samples(
    options: Options, network: Network, protocol: Protocol, device: torch.device, console: Console
) -> Samples:
    """The samples of ``network`` that ``options`` ask for, labelled on the grid of ``protocol``.

    The grid of pnas2020 is a quarter of the picture's rows and columns. WrongUse where nothing labels them, and where
    there are not so many latents; NDError where the network draws no pictures.
    """
    if options.data is not None:
        raise WrongUse(
            f"{network.spec} draws its images itself: --data is not for it",
            "--encode DATA takes photographs, where it has an encoder",
        )
    if options.labeller is None and not options.colors:
        raise WrongUse(
            f"nothing labels the pictures that {network.spec} draws",
            "--labeller NETWORK, a segmentation network, says what is in them; --colors labels them by colours",
        )
    generator, encoded = _opened(options, network, device, console)
    if protocol.name.startswith("pnas2020") and options.grid is None:
        rows, columns = generator.size
        protocol = replace(protocol, grid=(max(1, rows // _QUARTER), max(1, columns // _QUARTER)))
    source = LatentSamples(
        encoded.name if encoded else "samples",
        _count(options, generator),
        lambda samples: carried(generator.latents.of(samples)),
        f"{generator.latents.identity} {generator.network.digest}",
        generator.size,
        encoded.root if encoded else Path.cwd(),
        names=encoded.names if encoded else (),
        splits=encoded.splits if encoded else (),
    )
    labelling = make_labeller(options, source, protocol, device, console, generator.size)
    dataset = LabelledSamples(
        source,
        labelling.labeller.made,
        labelling.labeller,
        draw=lambda latents: draw_carried(generator, latents, device),
        pictures=generator.pictures,
        record=_record(generator, options),
    )
    return Samples(generator, dataset, labelling, protocol)


def demand_labels(dataset: LabelledSamples, survey: DataSummary) -> str:
    """How much of the samples the labeller has labelled, in words; NDError where it is not a single pixel."""
    made, (rows, columns) = dataset.made, dataset.grid
    area = survey.concepts.area.sum(0)[: len(made.classes) or None]
    pixels = max(1, survey.images * rows * columns)
    spec = made.network.get("spec") or "the names of colours"
    if not area.any():
        raise NDError(
            f"{spec} finds none of its {len(area)} concepts in {survey.images} samples: not a single pixel is labelled",
            "look at some: nd sample draws them; --labeller-size enlarges what it sees, --labeller names another",
        )
    most = sorted(range(len(area)), key=lambda row: -int(area[row]))[:_TOLD]
    names = dataset.concepts.name
    shares = ", ".join(f"{names[row]} {area[row] / pixels:.1%}" for row in most if area[row])
    found = f"{int((area > 0).sum())} of {len(area)} concepts"
    return f"{spec} labels {area.sum() / pixels:.0%} of the samples' pixels, {found}: {shares}"


def open_generator(
    options: Options, network: Network, device: torch.device, console: Console | None = None
) -> Generator:
    """``network`` as a generator with the latents that ``options`` ask for, tried; errors as of make_generator."""
    return _opened(options, network, device, console or Console())[0]


def _opened(
    options: Options, network: Network, device: torch.device, console: Console
) -> tuple[Generator, Encoded | None]:
    exact_arithmetic()
    if options.latents is not None and options.encode is not None:
        raise WrongUse("--latents and --encode both say which latents are used", "use one of them")
    given, encoded = None, None
    if options.latents is not None:
        given = read_latents(options.latents)
    elif options.encode is not None:
        encoded = encode_photographs(options, network, device, console)
        given = encoded.latents
    if given is not None and (options.truncation is not None or options.latent is not None):
        raise WrongUse(
            "--truncation and --latent are of latents that are drawn, and others are given", "leave them out"
        )
    if given is not None and options.samples > len(given):
        what = "photographs" if encoded else "latents"
        raise WrongUse(f"there are {len(given)} {what}, and --samples asks for {options.samples}", "leave it out")
    generator = make_generator(
        network,
        latent=parse_shape(options.latent) if options.latent else None,
        seed=options.seed,
        truncation=options.truncation,
        given=given,
        class_of=options.class_of,
        device=device,
    )
    return generator, encoded


def _count(options: Options, generator: Generator) -> int:
    if options.samples > MOST_SAMPLES:
        raise WrongUse(f"--samples {options.samples}: at most {MOST_SAMPLES:,} are dissected", "write a smaller number")
    return options.samples or generator.latents.count or SAMPLES


def draw_carried(generator: Generator, latents: npt.NDArray[np.uint8], device: torch.device) -> npt.NDArray[np.uint8]:
    """(n, H, W, 3) uint8: the pictures of n samples, whose latents are carried in (n, 1, w, 3) bytes."""
    given = torch.from_numpy(latents).permute(0, 3, 1, 2).to(device)
    prepare = generator.network.preprocess
    assert isinstance(prepare, LatentInput)
    return np.asarray(draw(generator, prepare.apply(given)).permute(0, 2, 3, 1).cpu().numpy())


def draw(generator: Generator, inputs: Tensor) -> Tensor:
    """(n, 3, H, W) uint8: the pictures of latents (n, *shape), in full float32."""
    with torch.no_grad(), computing("fp32", inputs.device):
        return generator.pictures(generator.network.module(inputs))


def _record(generator: Generator, options: Options) -> dict[str, Any]:
    """What a store says of a generator, as JSON values."""
    return {
        "latent": list(generator.latents.shape),
        "size": list(generator.size),
        "range": [*generator.span],
        "range_from": generator.span_from,
        "seed": options.seed,
        "truncation": options.truncation,
        "latents_digest": hashlib.blake2b(generator.latents.identity.encode(), digest_size=16).hexdigest(),
        "latents": str(options.latents) if options.latents else None,
        "encode": options.encode,
        "class": options.class_of,
    }


def parse_shape(text: str) -> tuple[int, ...]:
    """``100`` -> (100,), ``32x28x28`` -> (32, 28, 28); WrongUse for what is no shape."""
    try:
        shape = tuple(int(n) for n in text.split("x"))
    except ValueError:
        shape = (0,)
    if min(shape) < 1 or math.prod(shape) > 1 << 24:
        raise WrongUse(f"--latent '{text}' is no shape", "write 100, or 32x28x28")
    return shape


__all__ = ["SAMPLES", "Samples", "draw", "is_generator", "open_generator", "open_samples", "parse_shape"]
