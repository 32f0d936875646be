"""From what the user typed to a network that is ready to dissect, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ndissect.engine.networks.preprocess import Preprocess, make_preprocess
from ndissect.engine.networks.sources import load_module
from ndissect.engine.networks.spec import parse_spec
from ndissect.engine.networks.weights import digest_of, load_weights
from ndissect.store.errors import NDError, WrongUse


@dataclass(frozen=True)
class Network:
    """A network to dissect: ``module`` in eval mode without gradients, and all that reproduces it.

    ``name``: short, for file names. ``digest``: sha256 of the state dict. ``origin``: where code and weights came
    from. ``notes``: what the user should be told. ``left_out``: keys of the state dict to which a weights file gave no
    value.
    """

    module: nn.Module
    spec: str
    name: str
    preprocess: Preprocess
    digest: str
    origin: dict[str, str]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


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
) -> Network:
    """The network that ``spec`` names, with the weights of a file where one is given.

    ``spec`` is written as ndissect.engine.networks.spec says. ``partial``: weights that do not cover the network, or go
    beyond it, are used as far as they fit. ``size`` (rows, columns), ``mean`` and ``std`` (in [0, 1], by channel)
    prepare images where no transform of the network's own does. ``max_weights``: bytes that the weights may take, by
    default what their file lets expect; ``weights_key`` and ``weights_prefix``: which of several sets of weights in the
    file; ``bgr``: the network takes blue, green and red. WrongUse for a spec that names nothing, NDError where the
    network's code or weights fail.
    """
    parsed = parse_spec(spec)
    if partial and weights is None:
        raise WrongUse("--partial says how a weights file is used, and none is given", "Add --weights FILE")
    if weights is None and (weights_key is not None or weights_prefix is not None):
        raise WrongUse(
            "--weights-key and --weights-prefix are of a weights file, and none is given", "Add --weights FILE"
        )
    made = load_module(parsed, weights is not None)
    module = _plain_module(made.module, spec)
    origin = made.origin
    notes: list[str] = []
    left_out: tuple[str, ...] = ()
    if weights is not None:
        loaded = load_weights(
            module, weights, partial=partial, max_bytes=max_weights, key=weights_key, prefix=weights_prefix
        )
        origin, notes, left_out = origin | loaded.origin, [*loaded.notes], loaded.left_out
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters()):
        module = module.float()
        notes.append("The network is in half precision: it runs in float32 here")
    preprocess, told = make_preprocess(made.transform, made.name, size, mean, std, bgr=bgr)
    module.eval().requires_grad_(False)
    return Network(module, spec, made.name, preprocess, digest_of(module), origin, (*notes, *told), left_out)


def _plain_module(module: nn.Module, spec: str) -> nn.Module:
    """The network itself, without the wrapper that trained or compiled it, whose layers nd can name and hook."""
    while isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(module, "_orig_mod"):
        inner = module._orig_mod if hasattr(module, "_orig_mod") else module.module
        assert isinstance(inner, nn.Module)
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise NDError(
            f"{spec} is a TorchScript module, whose layers cannot be watched", "Return the Python module instead"
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise NDError(f"{spec} has lazy layers without weights yet", "Run the network once on an image in the factory")
    return module
