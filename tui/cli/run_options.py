"""The options of a run (ndissect.engine.run.options) on the command line: each is declared here once, with its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import MAX_PIXELS

#: The flags and the help of every field of Options, in the order in which help lists them. What is no argument is
#: called as its field unless it says otherwise.
DECLARED: Mapping[str, Any] = {
    "network": typer.Argument(
        metavar="NETWORK",
        help="demo, torchvision:NAME[@WEIGHTS], timm:NAME, hf:OWNER/NAME, path/file.py:factory or module:factory.",
    ),
    "layers": typer.Option(
        "--layers", "--layer", "-l", help="Layers by dotted name or glob ('layer?', 'features.*'); repeatable."
    ),
    "all_convs": typer.Option("--all-convs", help="Every convolution."),
    "data": typer.Option(
        "--data", "-d", help="A Broden folder, or broden1_224 and the like once downloaded. Default: the demo's."
    ),
    "protocol": typer.Option(
        "--protocol", "-p", help="netdissect (default), cvpr2017, lite or pnas2020 (default of generators)."
    ),
    "quantile": typer.Option(help="Share of activations above the threshold: 0.005, 5/999."),
    "quantile_over": typer.Option(help="raw or upsampled maps."),
    "upsampling": typer.Option(help="half-pixel, receptive-field or half-pixel-zero."),
    "grid": typer.Option(help="Where masks are counted: label, N or HxW."),
    "union": typer.Option(help="within-category or all-images."),
    "maps": typer.Option(help="A pixel that several maps call the same: once or once-a-map."),
    "min_images": typer.Option(help="Leave out concepts held by fewer images."),
    "weights": typer.Option(help="A .safetensors or .pt file with the network's weights."),
    "weights_key": typer.Option(metavar="KEY", help="Which of several sets of weights in the file: ema, teacher."),
    "weights_prefix": typer.Option(metavar="PREFIX", help="What the names of the network's weights begin with there."),
    "partial": typer.Option("--partial", help="Accept weights with missing or unexpected keys."),
    "anyway": typer.Option(
        "--anyway",
        help="Run a network that does not repeat itself, whose maps lie elsewhere or that lacks weights; marks it.",
    ),
    "size": typer.Option(help="Input size, N or HxW, of a network that comes without a transform."),
    "mean": typer.Option(help="Mean of each channel in [0, 1], R,G,B; likewise."),
    "std": typer.Option(help="Standard deviation of each channel, R,G,B; likewise."),
    "bgr": typer.Option("--bgr", help="The network takes blue, green, red; likewise."),
    "classes": typer.Option(
        metavar="FILE", help="Names of the network's outputs, one a line, or a table; by default its own."
    ),
    "map": typer.Option(
        metavar="HOW", help="Maps of what layers return: 'tokens[1:] -> 14x14', or path/file.py:function."
    ),
    "functional": typer.Option(
        "--functional", help="Also what functions return, such as layer1.0.add: layers by their names in torch.fx."
    ),
    "format": typer.Option(metavar="FORMAT", help="The format of the data, where a folder fits several."),
    "generator": typer.Option(
        "--generator", help="The network draws images: dissect it over its own samples, labelled by --labeller."
    ),
    "samples": typer.Option(min=0, help="Images that a generator draws. Default: 10000."),
    "seed": typer.Option(help="Of a generator's latents: sample i depends on it and on i alone."),
    "truncation": typer.Option(min=0.01, help="Latents farther from 0 than this are not drawn."),
    "latent": typer.Option(metavar="SHAPE", help="A generator's latents: 100, or 32x28x28. Default: its own `z`."),
    "latents": typer.Option(metavar="FILE.npy", help="Latents to use, (samples, ...), in place of drawn ones."),
    "encode": typer.Option(metavar="DATA", help="Photographs of which the generator's encoder makes the latents."),
    "class_of": typer.Option("--class-of", metavar="N", help="The class that a conditional generator draws."),
    "labeller": typer.Option(
        metavar="NETWORK", help="Label the images by this segmentation network; written as NETWORK."
    ),
    "labeller_classes": typer.Option(metavar="FILE", help="Names of the labeller's classes, one a line, or a table."),
    "labeller_min": typer.Option(min=0, max=1, help="Pixels that the labeller gives a lower score have no label."),
    "labeller_size": typer.Option(metavar="SIZE", help="The labeller's input, N or HxW; as --size."),
    "colors": typer.Option("--colors", help="Label every pixel by the name of its colour, eleven in all."),
    "device": typer.Option(help="auto, cpu, cuda, cuda:1 or mps."),
    "precision": typer.Option(
        help="Arithmetic of the forward pass: fp32 (exact), tf32, bf16 or fp16, which are measured."
    ),
    "memory": typer.Option(
        metavar="SIZE[,GPU]", help="For thresholds and what may fire: 8GB. Default: half of what is free."
    ),
    "batch_size": typer.Option("--batch-size", "-b", min=0, help="Images a forward pass; 0 chooses."),
    "workers": typer.Option(min=0, help="Processes or threads that decode images; 0 chooses."),
    "decode": typer.Option(
        help="Where JPEGs are decoded: cpu; gpu, which rounds otherwise and is measured; auto: gpu if no label changes."
    ),
    "top": typer.Option(min=1, max=1000, help="Top images kept for each unit."),
    "null": typer.Option(
        min=0, max=99, help="Wrong pairings of masks and labels, for p and q; 0: none. Default: 4 where that is cheap."
    ),
    "skip_bad": typer.Option("--skip-bad", help="Go on without images that cannot be read."),
    "max_pixels": MAX_PIXELS,
    "max_weights": typer.Option(
        metavar="SIZE", help="Weights may take so much memory: 40GB. Default: 16GB, and 8 times their file."
    ),
}
_TYPES = get_type_hints(Options)
_DEFAULTS = {field.name: field.default for field in fields(Options)}


def takes_options(
    *, first: str = "", only: str = "", without: str = "", texts: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``f(options, own parameters ...)`` the signature that Typer makes its flags from.

    Typer sees the fields of Options as parameters beside the command's own; the command gets them as one Options.
    ``only`` names the fields that the command takes, ``without`` those that it does not take; by default it takes all.
    The help lists the parameters of ``first`` first, then the other fields in the order of DECLARED, then the command's
    own. ``texts`` replaces the help of fields that mean something else here. KeyError for a name that is unknown.

        @takes_options(only="network data", first="network images data")
        def show(options: Options, images: Annotated[int, typer.Option(help="How many.")] = 3) -> None: ...
    """
    for name in (*only.split(), *without.split(), *(texts or {})):
        DECLARED[name]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        taken = [name for name in DECLARED if (name in only.split() if only else name not in without.split())]
        known = {p.name: p for p in (*(_parameter(name, texts or {}) for name in taken), *own)}
        order = dict.fromkeys([*first.split(), *known])

        def run(**given: Any) -> None:
            chosen = {name: _value(name, given.pop(name)) for name in taken}
            command(Options(**chosen), **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        signature = inspect.Signature([known[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in order])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {name: known[name].annotation for name in order}
        return run

    return decorate


def _parameter(name: str, texts: Mapping[str, str]) -> inspect.Parameter:
    """The field ``name`` as Typer takes it."""
    kind, default, declared = _TYPES[name], _DEFAULTS[name], copy(DECLARED[name])
    if kind == tuple[str, ...]:  # Typer takes lists, and None for an option that was not given
        kind, default = list[str] | None, None
    declared.help = texts.get(name, declared.help)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _value(name: str, given: Any) -> Any:
    """The value of the field ``name`` for what Typer gives."""
    return tuple(given or ()) if _TYPES[name] == tuple[str, ...] else given
