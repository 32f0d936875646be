"""A network that draws pictures: what its latents are, and how its output is made a picture of whole levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ndissect.engine.networks.latents import GivenLatents, Latents, NormalLatents
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import shape_text
from ndissect.store.errors import NDError, WrongUse, first_line

# Samples that are drawn to find the range of values of a generator that declares none.
_TRIED = 16
#: Ranges of values that pictures have, and what shows which.
SIGNED, UNSIGNED = (-1.0, 1.0), (0.0, 1.0)


@dataclass(frozen=True)
class LatentInput(Preprocess):
    """What turns bytes that carry latents (:func:`carried`) into these: (N, 3, 1, w) -> (N, *shape)."""

    shape: tuple[int, ...] = ()

    def apply(self, images: Tensor) -> Tensor:
        """(N, 3, 1, w) uint8 -> (N, *shape) float32 on the same device."""
        count = 4 * math.prod(self.shape)
        carried_bytes = images.permute(0, 2, 3, 1).reshape(len(images), -1)[:, :count].reshape(-1)
        return carried_bytes.view(torch.float32).view(len(images), *self.shape)

    def describe(self) -> dict[str, object]:
        """What is given to the network, as JSON values."""
        return {"source": "latents", "shape": list(self.shape)}


def carried(latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(n, *shape) float32 -> (n, 1, w, 3) uint8: latents as bytes of images, as which they are read and batched."""
    raw = np.ascontiguousarray(latents, "<f4").reshape(len(latents), -1).view(np.uint8)
    return np.pad(raw, ((0, 0), (0, -raw.shape[1] % 3))).reshape(len(latents), 1, -1, 3)


@dataclass(frozen=True)
class Generator:
    """A generator: ``network`` takes latents (N, *shape), carried as bytes where images are, and draws pictures.

    ``size``: (rows, columns) of a picture; ``span``: the values that stand for black and white; ``span_from``: who
    says so, in words; ``latents``: of its samples.
    """

    network: Network
    size: tuple[int, int]
    span: tuple[float, float]
    span_from: str
    latents: Latents

    def inputs(self, samples: list[int], device: torch.device) -> Tensor:
        """(n, *shape): the network's input for samples by their numbers."""
        return torch.from_numpy(self.latents.of(samples)).to(device)

    def pictures(self, output: Any) -> Tensor:
        """(n, 3, H, W) uint8: the pictures in what the network returned; grey ones in three equal channels.

        NDError where it returns no pictures of one size, or values that are none.
        """
        drawn = _checked(self.network.spec, output)
        if tuple(drawn.shape[2:]) != self.size:
            raise NDError(
                f"{self.network.spec} draws pictures of several sizes: {self.size[0]} x {self.size[1]}, "
                f"then {drawn.shape[2]} x {drawn.shape[3]}",
                "all samples must have one size",
            )
        return as_levels(drawn, self.span)


def as_levels(drawn: Tensor, span: tuple[float, float]) -> Tensor:
    """(n, 3, H, W) uint8 of pictures (n, C, H, W) whose black and white are ``span``."""
    low, high = span
    levels = ((drawn.float() - low) * (255 / (high - low))).round_().clamp_(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels


def declares_itself(module: nn.Module) -> bool:
    """Whether a network says that it is a generator: by an attribute ``generator = True``."""
    return getattr(module, "generator", False) is True


def make_generator(
    network: Network,
    *,
    latent: tuple[int, ...] | None = None,
    seed: int = 0,
    truncation: float | None = None,
    given: npt.NDArray[np.float32] | None = None,
    device: torch.device | None = None,
) -> Generator:
    """``network`` as a generator, tried on a few samples.

    ``latent``: the shape of its latents, by default that of its attribute ``z``, or of what its ``sample`` draws;
    ``given``: (N, *shape) latents to use in place of drawn ones. WrongUse where the shape is not known; NDError where
    it fails, or draws no pictures.
    """
    module = network.module
    if not hasattr(module, "sample") and not hasattr(module, "z") and hasattr(module, "decode"):
        setattr(module, "forward", module.decode)  # noqa: B010 - a function of a module is no attribute to mypy
    sampler = getattr(module, "sample", None)
    latents: Latents
    if given is not None:
        latents = GivenLatents(np.ascontiguousarray(given, np.float32))
    else:
        shape = latent or _declared(module)
        if shape is None and callable(sampler):
            shape = tuple(sampler(1, torch.Generator().manual_seed(0)).shape[1:])
        if shape is None:
            raise WrongUse(
                f"the latents of {network.spec} have no known shape",
                "--latent 100 says it, or an attribute `z` of the module; --encode DATA takes those of photographs",
            )
        if truncation is not None and callable(sampler):
            raise WrongUse(f"{network.spec} draws its latents itself: --truncation does not reach them", "leave it out")
        latents = NormalLatents(shape, seed, truncation, sampler if callable(sampler) else None)
    network = replace(network, preprocess=LatentInput(shape=latents.shape, source="latents"))
    device = device or torch.device("cpu")
    module.to(device)
    many = _TRIED if given is None else min(_TRIED, len(given))
    inputs = torch.from_numpy(latents.of(range(many))).to(device)
    try:
        with torch.no_grad():
            output = module(inputs)
    except Exception as e:
        raise NDError(
            f"{network.spec} fails on latents {tuple(inputs.shape)}: {first_line(e)}", "--latent says their shape"
        ) from e
    drawn = _checked(network.spec, output)
    span, source = _span(module, drawn)
    size = (int(drawn.shape[2]), int(drawn.shape[3]))
    told = f"pictures of {size[0]} x {size[1]}; black and white are {span[0]:g} and {span[1]:g}, {source}"
    notes = tuple(note for note in network.notes if "without a transform" not in note)
    network = replace(network, draws=size, notes=(*notes, told))
    return Generator(network, size, span, source, latents)


def _declared(module: nn.Module) -> tuple[int, ...] | None:
    z = getattr(module, "z", None)
    if isinstance(z, int) and not isinstance(z, bool) and z > 0:
        return (z,)
    if isinstance(z, list | tuple | torch.Size) and z and all(isinstance(n, int) and n > 0 for n in z):
        return tuple(z)
    return None


def _checked(spec: str, output: Any) -> Tensor:
    """The pictures (n, 1 or 3, H, W) in what a generator returned; NDError where there are none."""
    hint = "a generator returns pictures (samples, 3 or 1, rows, columns): let the factory wrap it"
    if not isinstance(output, Tensor):
        raise NDError(f"{spec} draws no pictures: it returns a {type(output).__name__}", hint)
    if output.ndim != 4 or output.shape[1] not in (1, 3) or not output.is_floating_point():
        raise NDError(f"{spec} draws no pictures: it returns {shape_text(output.shape)}", hint)
    if not bool(output.isfinite().all()):
        raise NDError(f"{spec} draws pictures with values that are no numbers (NaN or infinite)", "look at its weights")
    return output


def _span(module: nn.Module, drawn: Tensor) -> tuple[tuple[float, float], str]:
    """The values of black and white, and who says so."""
    for name in ("range", "output_range"):
        declared = getattr(module, name, None)
        if isinstance(declared, list | tuple) and len(declared) == 2 and declared[0] < declared[1]:
            return (float(declared[0]), float(declared[1])), "as it declares"
    layers = [m for m in module.modules() if not list(m.children())]
    last = layers[-1] if layers else None
    if isinstance(last, nn.Tanh):
        return SIGNED, "as its last layer is a tanh"
    if isinstance(last, nn.Sigmoid):
        return UNSIGNED, "as its last layer is a sigmoid"
    low, high = float(drawn.min()), float(drawn.max())
    return (SIGNED if low < -0.25 else UNSIGNED), f"by its values, {low:.2f} to {high:.2f} in {len(drawn)} samples"
