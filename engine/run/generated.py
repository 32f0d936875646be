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
from ndissect.engine.run.labelling import Labelling, make_labeller
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import Protocol

#: Samples of a dissection where none are named (Bau et al., PNAS 2020).
SAMPLES = 10_000
# The grid of a generator's labels: a quarter of the picture's rows and columns (Bau et al., ICLR 2019 and PNAS 2020).
_QUARTER = 4


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


def open_samples(
    options: Options, network: Network, protocol: Protocol, device: torch.device, console: Console
) -> Samples:
    """The samples of ``network`` that ``options`` ask for, labelled on the grid of ``protocol``.

    The grid of pnas2020 is a quarter of the picture's rows and columns. WrongUse where nothing labels them; NDError
    where the network draws no pictures.
    """
    generator = open_generator(options, network, device)
    if protocol.name.startswith("pnas2020") and options.grid is None:
        rows, columns = generator.size
        protocol = replace(protocol, grid=(max(1, rows // _QUARTER), max(1, columns // _QUARTER)))
    if options.labeller is None and not options.colors:
        raise WrongUse(
            f"nothing labels the pictures that {network.spec} draws",
            "--labeller NETWORK, a segmentation network, says what is in them; --colors labels them by colours",
        )
    count = options.samples or (len(generator.latents.values) if hasattr(generator.latents, "values") else SAMPLES)
    source = LatentSamples(
        "samples",
        count,
        lambda samples: carried(generator.latents.of(samples)),
        latents_identity(generator, options),
        generator.size,
        Path.cwd(),
    )
    labelling = make_labeller(options, source, protocol, device, console)
    made = labelling.labeller.made
    dataset = LabelledSamples(
        source,
        made,
        labelling.labeller,
        draw=lambda one: draw_one(generator, one, device),
        pictures=generator.pictures,
        record=_record(generator, options),
    )
    return Samples(generator, dataset, labelling, protocol)


def open_generator(options: Options, network: Network, device: torch.device) -> Generator:
    """``network`` as a generator with the latents that ``options`` ask for, tried; errors as of make_generator."""
    exact_arithmetic()
    given = _given(options.latents) if options.latents is not None else None
    return make_generator(
        network,
        latent=parse_shape(options.latent) if options.latent else None,
        seed=options.seed,
        truncation=options.truncation,
        given=given,
        device=device,
    )


def draw_one(generator: Generator, latents: npt.NDArray[np.uint8], device: torch.device) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the picture of one sample, whose latents are carried in (1, w, 3) bytes."""
    given = torch.from_numpy(latents.copy()).permute(2, 0, 1)[None].to(device)
    prepare = generator.network.preprocess
    assert isinstance(prepare, LatentInput)
    return np.asarray(draw(generator, prepare.apply(given))[0].permute(1, 2, 0).cpu().numpy())


def draw(generator: Generator, inputs: Tensor) -> Tensor:
    """(n, 3, H, W) uint8: the pictures of latents (n, *shape), in full float32."""
    with torch.no_grad(), computing("fp32", inputs.device):
        return generator.pictures(generator.network.module(inputs))


def latents_identity(generator: Generator, options: Options) -> str:
    """What says which latents the samples have."""
    said: list[Any] = [list(generator.latents.shape), options.seed, options.truncation, options.class_of]
    if hasattr(generator.latents, "values"):
        said = [hashlib.sha256(np.ascontiguousarray(generator.latents.values).tobytes()).hexdigest()]
    return repr([*said, generator.network.digest])


def _record(generator: Generator, options: Options) -> dict[str, Any]:
    """What a store says of a generator, as JSON values."""
    return {
        "latent": list(generator.latents.shape),
        "size": list(generator.size),
        "range": [*generator.span],
        "range_from": generator.span_from,
        "seed": options.seed,
        "truncation": options.truncation,
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


def _given(path: Path) -> npt.NDArray[np.float32]:
    """(N, ...) float32 from a .npy file, in which nothing is executed; NDError where it holds no such numbers."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise NDError(f"{path} holds no latents: {e}", "--latents takes a .npy file of numbers (samples, ...)") from e
    if not isinstance(values, np.ndarray) or values.ndim < 2 or not len(values) or values.dtype.kind != "f":
        raise NDError(f"{path} holds no latents", "--latents takes a .npy file of numbers (samples, ...)")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise NDError(f"{path} holds latents that are no numbers (NaN or infinite)", "make them again")
    return values


__all__ = ["SAMPLES", "Samples", "draw", "is_generator", "open_generator", "open_samples", "parse_shape"]
