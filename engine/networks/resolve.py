"""From what the user typed to a network that is ready to dissect, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ndissect.engine.networks.class_names import class_names
from ndissect.engine.networks.input_channels import input_channels
from ndissect.engine.networks.preprocess import Preprocess, make_preprocess
from ndissect.engine.networks.readiness import set_to_run, watchable
from ndissect.engine.networks.sources import load_module
from ndissect.engine.networks.spec import parse_spec
from ndissect.engine.networks.weights import digest_of, load_weights
from ndissect.store.errors import WrongUse


@dataclass(frozen=True)
class Network:
    """A network to dissect: ``module`` in eval mode without gradients, and all that reproduces it.

    ``name``: short, for file names. ``digest``: sha256 of the state dict. ``origin``: where code and weights came
    from. ``notes``: what the user should be told. ``left_out``: keys of the state dict to which a weights file gave no
    value. ``classes``: what its outputs are called, in their order; () where that is not known; ``named_by``: who says
    so, in words. ``draws``: (rows, columns) of the pictures that it draws of latents, None: it sees images.
    """

    module: nn.Module
    spec: str
    name: str
    preprocess: Preprocess
    digest: str
    origin: dict[str, str]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    named_by: str = "the network"
    draws: tuple[int, int] | None = None


def load_network(
    spec: str,
    weights: Path | None = None,
    partial: bool = False,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    max_weights: int | None = None,
    *,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    bgr: bool = False,
    layers_only: bool = False,
) -> Network:
    """The network that ``spec`` names, with the weights of a file where one is given.

    ``spec`` is written as ndissect.engine.networks.spec says. ``partial``: weights that do not cover the network, or go
    beyond it, are used as far as they fit. ``size`` (rows, columns), ``mean`` and ``std`` (in [0, 1], by channel)
    prepare images where no transform of the network's own does. ``max_weights``: bytes that the weights may take, by
    default what their file lets expect; ``weights_key`` and ``weights_prefix``: which of several sets of weights in the
    file; ``bgr``: the network takes blue, green and red. ``layers_only``: a list of its layers is wanted alone, so
    that no weights are downloaded, and it has no digest. WrongUse for a spec that names nothing, NDError where the
    network's code or weights fail.
    """
    parsed = parse_spec(spec)
    if partial and weights is None:
        raise WrongUse("--partial says how a weights file is used, and none is given", "Add --weights FILE")
    if weights is None and (weights_key is not None or weights_prefix is not None):
        raise WrongUse(
            "--weights-key and --weights-prefix are of a weights file, and none is given", "Add --weights FILE"
        )
    made = load_module(parsed, weights is not None, layers_only, size)
    module = watchable(made.module, spec)
    origin = made.origin
    notes = list(made.notes)
    left_out = made.left_out
    if weights is not None:
        loaded = load_weights(
            module, weights, partial=partial, max_bytes=max_weights, key=weights_key, prefix=weights_prefix
        )
        origin, left_out = origin | loaded.origin, loaded.left_out
        notes += loaded.notes
    notes += set_to_run(module, spec)
    channels, grey = input_channels(module, size) if made.transform is None else (3, ())
    preprocess, told_of_input = make_preprocess(made.transform, made.name, size, mean, std, bgr=bgr, channels=channels)
    notes += (*grey, *told_of_input)
    classes = made.classes or class_names(getattr(module, "classes", None))
    digest = "" if layers_only else digest_of(module)
    return Network(module, spec, made.name, preprocess, digest, origin, tuple(notes), left_out, classes)
