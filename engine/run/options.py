"""What is dissected and how: the options that the commands share, for a command line and for a program alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ndissect.store.errors import WrongUse
from ndissect.store.names import BUNDLED_NETWORKS

if TYPE_CHECKING:
    from ndissect.store.protocol import Protocol

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DECODERS = ("cpu", "gpu", "auto")
#: The bundled generator; and its samples where none are named.
DEMO_GENERATOR, DEMO_SAMPLES = "demo-generator", 2_000


@dataclass(frozen=True)
class Options:
    """Everything that decides what a run counts and what it takes. Texts are written as on the command line.

    The network: ``network`` (``demo``, ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME``, ``hf:OWNER/NAME``,
    ``path/file.py:factory``, ``package.module:factory``); ``weights``: a file with its weights, of at most
    ``max_weights`` (``40GB``) of memory;
    ``weights_key`` and ``weights_prefix``: which of several sets of weights in it; ``partial``: accept missing and
    unexpected keys; ``size`` (``224``, ``360x480``), ``mean`` and ``std`` (``0.5,0.5,0.5``) and ``bgr``: its input,
    where it comes without a transform; ``classes``: a file with the names of its outputs; ``anyway``: mark what is
    refused else.

    Its layers: ``layers``, names and globs, or ``all_convs``; by default those that suit the network; ``map``: how
    maps are made of what they return (``tokens[1:] -> 14x14``, or ``path/file.py:function``); ``functional``: layers
    that are no modules as well, by their names in torch.fx.

    The images: ``data``, a folder or a downloaded data set, by default the demo's; ``format`` of the folder, where it
    could be of several; ``skip_bad``: go on without images that cannot be read; ``max_pixels`` of an image, or of its
    label maps together.

    Their labels, where not those of the data: ``labeller``, a segmentation network, written as ``network`` is;
    ``labeller_classes``: a file with the names of its classes; ``labeller_min``: the score below which a pixel has no
    label; ``labeller_size``: its input, as ``size``; ``colors``: the names of the pixels' colours.

    Where the network draws images: ``generator``, so that it is dissected over ``samples`` that it draws (0: 10,000) in
    place of data, by ``pnas2020`` where no protocol is named; ``seed`` of their latents; ``truncation``: none is
    farther from 0; ``latent``: their shape (``100``, ``32x28x28``); ``latents``: a .npy file with them; ``encode``:
    photographs, of which the network's own encoder makes them; ``class_of``: the class that is drawn, of a conditional
    generator.

    The protocol: its name, and ``quantile`` (``0.005``, ``5/999``), ``quantile_over``, ``upsampling``, ``grid``,
    ``union``, ``maps`` and ``min_images`` where they differ from it (ndissect.store.protocol).

    The machine: ``device``, ``precision`` of the forward pass, ``memory`` (``8GB``, ``8GB,40GB``), ``batch_size``
    (0 chooses), ``workers`` (0 chooses), ``decode``: where JPEGs are decoded, ``auto``: on the GPU where that
    is exact enough (ndissect.engine.run.drift).

    What is counted beside: ``top`` images kept for each unit; ``null``: wrong pairings of masks and labels, None: as
    many as are cheap.

    WrongUse for a precision or a decoder that is unknown.
    """

    network: str = "demo"
    layers: tuple[str, ...] = ()
    all_convs: bool = False
    data: str | None = None
    protocol: str | None = None
    quantile: str | None = None
    quantile_over: str | None = None
    upsampling: str | None = None
    grid: str | None = None
    union: str | None = None
    maps: str | None = None
    min_images: int = 0
    weights: Path | None = None
    weights_key: str | None = None
    weights_prefix: str | None = None
    partial: bool = False
    anyway: bool = False
    size: str | None = None
    mean: str | None = None
    std: str | None = None
    bgr: bool = False
    classes: Path | None = None
    map: str | None = None
    functional: bool = False
    format: str | None = None
    generator: bool = False
    samples: int = 0
    seed: int = 0
    truncation: float | None = None
    latent: str | None = None
    latents: Path | None = None
    encode: str | None = None
    class_of: str | None = None
    labeller: str | None = None
    labeller_classes: Path | None = None
    labeller_min: float = 0.0
    labeller_size: str | None = None
    colors: bool = False
    device: str = "auto"
    precision: str = "fp32"
    memory: str | None = None
    batch_size: int = 0
    workers: int = 0
    decode: str = "cpu"
    top: int = 10
    null: int | None = None
    skip_bad: bool = False
    max_pixels: int | None = None
    max_weights: str | None = None

    def __post_init__(self) -> None:
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--decode", self.decode, DECODERS)

    def make_protocol(self) -> Protocol:
        """The protocol with the choices that are given; WrongUse for a name or value that is unknown."""
        from ndissect.store.protocol import make_protocol  # noqa: PLC0415 - `nd dissect --help` needs no numpy

        return make_protocol(
            self.protocol or ("pnas2020" if self.generator else "netdissect"),
            q=self.quantile,
            quantile_over=self.quantile_over,
            upsampling=self.upsampling,
            grid=self.grid,
            union=self.union,
            maps=self.maps,
            min_images=self.min_images,
        )

    @property
    def may_draw(self) -> bool:
        """Whether the network is a generator, or one's own, which may say so itself once it is loaded."""
        library = self.network == "demo" or self.network.partition(":")[0] in ("torchvision", "timm", "hf")
        return self.generator or (self.data is None and not library)

    @property
    def names_its_network(self) -> bool:
        """Whether network and labeller are the same whenever they are called so; one's own code may have changed."""
        if self.weights is not None or self.labeller_classes is not None:
            return False
        if self.latents is not None or self.encode is not None:
            return False
        return all(n in BUNDLED_NETWORKS or n.startswith("torchvision:") for n in (self.network, self.labeller) if n)


def with_demo_defaults(options: Options) -> Options:
    """``options`` of the bundled generator with its labeller and samples that take seconds; others as they are."""
    if options.network != DEMO_GENERATOR:
        return options
    own = options.labeller is not None or options.colors
    samples = options.samples or (0 if options.latents or options.encode else DEMO_SAMPLES)
    return replace(options, generator=True, labeller=options.labeller if own else "demo-labeller", samples=samples)


def _one_of(option: str, text: str, known: tuple[str, ...]) -> None:
    if text not in known:
        raise WrongUse(f"{option} '{text}' is unknown", f"use {', '.join(known[:-1])} or {known[-1]}")
