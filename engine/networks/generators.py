"""A network that draws pictures: what its latents are, and how its output is made a picture of whole levels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.networks.fixed_noise import FixedNoise
from ndissect.engine.networks.latents import ClassedLatents, GivenLatents, Latents, NormalLatents
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import shape_text
from ndissect.store.errors import NDError, WrongUse, first_line, nearest

# Samples that are drawn to find the range of values of a generator that declares none.
_TRIED = 16
#: Ranges of values that pictures have, and what shows which.
SIGNED, UNSIGNED = (-1.0, 1.0), (0.0, 1.0)
#: What is said in place of a class to draw each sample of another.
RANDOM_CLASS = "random"


@dataclass(frozen=True)
class LatentInput(Preprocess):
    """What turns bytes that carry latents (:func:`carried`) into these: (N, 3, 1, w) -> (N, *shape).

    ``classed``: the last number of each is that of a class (ndissect.engine.networks.latents.ClassedLatents).
    """

    shape: tuple[int, ...] = ()
    classed: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """(N, 3, 1, w) uint8 -> (N, *shape) float32 on the same device."""
        count = 4 * math.prod(self.shape)
        carried_bytes = images.permute(0, 2, 3, 1).reshape(len(images), -1)[:, :count].reshape(-1)
        return carried_bytes.view(torch.float32).view(len(images), *self.shape)

    def describe(self) -> dict[str, object]:
        """What is given to the network, as JSON values."""
        return {"source": "latents", "shape": list(self.shape)}

    def random(self, samples: int, generator: torch.Generator) -> Tensor:
        """(n, *shape): standard normal latents, of the class 0 where they have one."""
        latents = torch.randn((samples, *self.shape), generator=generator)
        if self.classed:
            latents[:, -1] = 0
        return latents

    def opposite(self, images: Tensor) -> Tensor:
        """Bytes like ``images``, (N, 3, 1, w) uint8, that carry the negative latents, of the same class."""
        latents = -self.apply(images)
        if self.classed:
            latents[:, -1] *= -1
        return torch.from_numpy(carried(latents.cpu().numpy())).permute(0, 3, 1, 2).to(images.device)


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
    given: npt.NDArray[np.floating] | None = None,
    class_of: str | None = None,
    device: torch.device | None = None,
) -> Generator:
    """``network`` as a generator, tried on a few samples.

    ``latent``: the shape of its latents, by default that of its attribute ``z``, or of what its ``sample`` draws;
    ``given``: (N, *shape) latents to use in place of drawn ones; ``class_of``: the class that a conditional generator
    draws, by number or name, or ``random``. Noise that the network draws while it runs is held fixed
    (ndissect.engine.networks.fixed_noise). The module's ``forward`` then takes latents alone. WrongUse where the shape
    or the class is not known; NDError where the network fails, or draws no pictures.
    """
    module = network.module
    draws = _drawing(module)
    own = GivenLatents(given) if given is not None else _drawn(network, latent, seed, truncation)
    conditional = _takes_class(draws, network.spec, class_of)
    latents: Latents = own
    shape = own.shape
    if conditional and class_of is not None:
        latents = _with_class(network, own, class_of, seed)
    elif conditional:
        wanted = _declared(module)
        if given is None or len(shape) != 1 or (wanted is not None and math.prod(wanted) != shape[0] - 1):
            raise WrongUse(
                f"{network.spec} draws pictures of classes", f"--class-of N, a name or {RANDOM_CLASS} says of which"
            )
        shape = wanted or (shape[0] - 1,)  # latents that were written with their classes
    if given is not None and not conditional:
        _demand_fitting(network, own.shape)
    prepare = LatentInput(shape=latents.shape, classed=conditional, source="latents")
    device = device or torch.device("cpu")
    module.to(device)
    many = min(_TRIED, latents.count or _TRIED)
    inputs = torch.from_numpy(latents.of(range(many))).to(device)
    _draw_by(module, _of_latents(draws, shape if conditional else None))
    noise = FixedNoise(module, len(inputs))
    try:
        with torch.no_grad(), noise:
            output = module(inputs)
    except Exception as e:
        if out_of_memory(e) or isinstance(e, NDError):
            raise
        raise NDError(
            f"{network.spec} fails on latents {tuple(inputs.shape)}: {first_line(e)}", "--latent says their shape"
        ) from e
    if noise.drawn:
        _draw_by(module, _without_chance(module, module.forward))
    drawn = _checked(network.spec, output, len(inputs))
    span, source = _span(module, drawn)
    size = (int(drawn.shape[2]), int(drawn.shape[3]))
    notes = [note for note in network.notes if "without a transform" not in note]
    notes.append(f"pictures of {size[0]} x {size[1]}; black and white are {span[0]:g} and {span[1]:g}, {source}")
    if noise.drawn:
        notes.append(f"it draws noise while it runs ({noise.drawn} times): all samples are given the same noise")
    network = replace(network, preprocess=prepare, draws=size, notes=tuple(notes))
    return Generator(network, size, span, source, latents)


def _drawing(module: nn.Module) -> Callable[..., Any]:
    """The module's own function that draws: ``forward``, or ``decode`` of an autoencoder; whatever was made of it."""
    name = "_draws"
    if name not in vars(module):
        decodes = not hasattr(module, "sample") and not hasattr(module, "z") and hasattr(module, "decode")
        object.__setattr__(module, name, module.decode if decodes else module.forward)
    drawing: Callable[..., Any] = vars(module)[name]
    return drawing


def _draw_by(module: nn.Module, draws: Callable[..., Any]) -> None:
    if draws != module.forward:
        setattr(module, "forward", draws)  # noqa: B010 - a function of a module is no attribute to mypy


def _of_latents(draws: Callable[..., Any], shape: tuple[int, ...] | None) -> Callable[[Tensor], Any]:
    """What draws of one tensor; ``shape``: of the latents before the class's number, None where there is none."""
    if shape is None:
        return draws

    def forward(x: Tensor) -> Any:
        return draws(x[:, :-1].reshape(len(x), *shape), x[:, -1].long())

    return forward


def _without_chance(module: nn.Module, draws: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Tensor) -> Any:
        with FixedNoise(module, len(x)):
            return draws(x)

    return forward


def _takes_class(draws: Callable[..., Any], spec: str, class_of: str | None) -> bool:
    """Whether a function that draws takes a class beside latents; WrongUse where a class is given and none is taken."""
    try:
        parameters = list(inspect.signature(draws).parameters.values())[1:]
    except (TypeError, ValueError):
        parameters = []
    parameters = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in parameters if p.default is p.empty]
    if len(needed) > 1:
        raise WrongUse(
            f"{spec} takes more than latents and a class: {', '.join(needed)}",
            "let the factory wrap it in a module that takes latents alone",
        )
    if class_of is not None and not parameters:
        raise WrongUse(f"{spec} takes no class", "leave --class-of out")
    return bool(needed) or class_of is not None


def _with_class(network: Network, own: NormalLatents | GivenLatents, class_of: str, seed: int) -> ClassedLatents:
    module, spec = network.module, network.spec
    named = network.classes or getattr(module, "classes", ())
    names = tuple(str(name) for name in named) if isinstance(named, list | tuple) else ()
    counted = next((n for a in ("num_classes", "n_classes") if isinstance(n := getattr(module, a, None), int)), 0)
    count = counted or len(names)
    if class_of == RANDOM_CLASS:
        if not count:
            raise WrongUse(f"{spec} does not say how many classes it has", "--class-of N names one; or `num_classes`")
        return ClassedLatents(own, None, count, seed)
    if class_of in names:
        return ClassedLatents(own, names.index(class_of), count, seed)
    if not class_of.isdecimal():
        near = nearest(class_of, list(names))
        raise WrongUse(
            f"{spec} has no class '{class_of}'", f"nearest: {', '.join(near)}" if near else "--class-of takes a number"
        )
    number = int(class_of)
    if number >= (count or 1 << 24):
        raise WrongUse(f"{spec} has no class {number}: it has {count or 'fewer'}", "classes count from 0")
    return ClassedLatents(own, number, count, seed)


def _drawn(network: Network, latent: tuple[int, ...] | None, seed: int, truncation: float | None) -> NormalLatents:
    module = network.module
    sampler = getattr(module, "sample", None)
    sampler = sampler if callable(sampler) and latent is None else None
    if truncation is not None and sampler is not None:
        raise WrongUse(f"{network.spec} draws its latents itself: --truncation does not reach them", "leave it out")
    if truncation is not None and not (math.isfinite(truncation) and truncation > 0):
        raise WrongUse(f"--truncation {truncation:g} leaves no latents", "write a number above 0, such as 2")
    shape = latent or _declared(module)
    if sampler is not None:
        shape = _sampled(network, sampler)
    if shape is None:
        encodes = "; --encode DATA takes those of photographs" if hasattr(module, "encode") else ""
        raise WrongUse(
            f"the latents of {network.spec} have no known shape",
            f"--latent 100 says it, or an attribute `z` of the module{encodes}",
        )
    return NormalLatents(shape, seed, truncation, sampler)


def _sampled(network: Network, sampler: Callable[..., Any]) -> tuple[int, ...]:
    """The shape of what the network's own ``sample`` draws; NDError where it draws no latents."""
    hint = "sample(n, generator) returns latents (n, ...), drawn by the torch.Generator `generator`"
    try:
        drawn = sampler(2, torch.Generator().manual_seed(0))
    except Exception as e:
        raise NDError(f"the sample() of {network.spec} fails: {first_line(e)}", hint) from e
    if not isinstance(drawn, Tensor) or drawn.ndim < 2 or len(drawn) != 2 or not drawn.is_floating_point():
        shape = shape_text(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise NDError(f"the sample() of {network.spec} draws no latents: it returns {shape}", hint)
    if not torch.equal(sampler(2, torch.Generator().manual_seed(0)), drawn):
        raise NDError(f"the sample() of {network.spec} does not draw by the generator that it is given", hint)
    return tuple(drawn.shape[1:])


def _demand_fitting(network: Network, shape: tuple[int, ...]) -> None:
    wanted = _declared(network.module)
    if wanted is not None and shape != wanted:
        raise WrongUse(
            f"{network.spec} takes latents {shape_text((0, *wanted))}, those given are {shape_text((0, *shape))}",
            "--latents takes a .npy file of numbers (samples, ...) that fit the generator",
        )


def _declared(module: nn.Module) -> tuple[int, ...] | None:
    z = getattr(module, "z", None)
    if isinstance(z, int) and not isinstance(z, bool) and z > 0:
        return (z,)
    if isinstance(z, list | tuple | torch.Size) and z and all(isinstance(n, int) and n > 0 for n in z):
        return tuple(z)
    return None


def _checked(spec: str, output: Any, samples: int | None = None) -> Tensor:
    """The pictures (n, 1 or 3, H, W) in what a generator returned; NDError where there are none.

    ``samples``: how many there should be.
    """
    hint = "a generator returns pictures (samples, 3 or 1, rows, columns): let the factory wrap it"
    if not isinstance(output, Tensor):
        raise NDError(f"{spec} draws no pictures: it returns a {type(output).__name__}", hint)
    if output.ndim != 4 or output.shape[1] not in (1, 3) or not output.is_floating_point() or not output.numel():
        raise NDError(f"{spec} draws no pictures: it returns {shape_text(output.shape)}", hint)
    if samples is not None and len(output) != samples:
        raise NDError(f"{spec} draws {len(output)} pictures of {samples} samples", hint)
    if not bool(output.isfinite().all()):
        raise NDError(f"{spec} draws pictures with values that are no numbers (NaN or infinite)", "look at its weights")
    return output


def _span(module: nn.Module, drawn: Tensor) -> tuple[tuple[float, float], str]:
    """The values of black and white, and who says so."""
    for name in ("range", "output_range"):
        declared = getattr(module, name, None)
        if not isinstance(declared, list | tuple) or len(declared) != 2:
            continue
        if all(isinstance(n, int | float) and math.isfinite(n) for n in declared) and declared[0] < declared[1]:
            return (float(declared[0]), float(declared[1])), "as it declares"
    layers = [m for m in module.modules() if not list(m.children())]
    last = layers[-1] if layers else None
    if isinstance(last, nn.Tanh):
        return SIGNED, "as its last layer is a tanh"
    if isinstance(last, nn.Sigmoid):
        return UNSIGNED, "as its last layer is a sigmoid"
    low, high = float(drawn.min()), float(drawn.max())
    return (SIGNED if low < -0.25 else UNSIGNED), f"by its values, {low:.2f} to {high:.2f} in {len(drawn)} samples"
