"""torchvision's own networks by name: ``resnet18``, ``resnet18@IMAGENET1K_V1``, ``resnet18@none``."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from enum import Enum
from typing import Any

import torch
from torch import nn

from ndissect.engine.machine.torchvision_import import without_compiler
from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.class_names import class_names
from ndissect.engine.networks.loaded import UNTRAINED, LoadedModule, Request, file_name
from ndissect.store.errors import NDError, WrongUse, nearest

with without_compiler():
    import torchvision
    from torchvision import models
    from torchvision.models import WeightsEnum


def load_torchvision(request: Request) -> LoadedModule:
    """The network of ``request`` with the weights of that name (None: DEFAULT; ``none``: random, always the same).

    Nothing is downloaded where the user brings weights or wants the layers alone; the transform is still that of the
    weights. WrongUse for an unknown name or unknown weights, NDError where a download fails.
    """
    name = request.target
    known = models.list_models()
    if name not in known:
        near = nearest(name, known)
        raise WrongUse(
            f"torchvision has no network named {name!r}",
            f"Nearest: {', '.join(near)}" if near else f"It has {len(known)}: {', '.join(known)}",
        )
    chosen = _choose(name, request.detail)
    trained = None if request.own_weights or request.untrained else chosen
    try:
        with _nothing_loaded() if request.layers_only else nullcontext():
            module = _build(name, trained)
    except (OSError, RuntimeError) as error:
        if trained is None:
            raise
        raise NDError(
            f"the weights {trained} of torchvision's {name} could not be downloaded: {error}",
            f"Give a local file: torchvision:{name} --weights FILE (from {getattr(trained, 'url', '')}); "
            f"or use random weights: torchvision:{name}@none",
        ) from error
    transform = chosen.value.transforms() if chosen is not None else None
    weights = trained.name if trained is not None else UNTRAINED
    origin = {"kind": "torchvision", "model": name, "weights": weights, "torchvision": str(torchvision.__version__)}
    classes = class_names(trained.meta.get("categories")) if trained is not None else ()
    return LoadedModule(module, transform, file_name(name), origin, classes)


def _choose(name: str, weights: str | None) -> Any:
    """The member of the model's weights enum that is meant; for ``none`` the default, whose transform applies."""
    enum: Any = models.get_model_weights(name)
    if weights is None or weights.lower() == UNTRAINED or weights.upper() == "DEFAULT":
        return getattr(enum, "DEFAULT", None)
    members: dict[str, Enum] = dict(enum.__members__)
    by_upper = {key.upper(): member for key, member in members.items()}
    if weights.upper() not in by_upper:
        choices = ", ".join(["DEFAULT", *dict.fromkeys(m.name for m in members.values()), UNTRAINED])
        raise WrongUse(f"torchvision's {name} has no weights named {weights!r}", f"It has: {choices}")
    return by_upper[weights.upper()]


def _build(name: str, weights: Any) -> nn.Module:
    options: dict[str, Any] = {"weights": weights}
    takes = inspect.signature(models.get_model_builder(name)).parameters
    if weights is None and "weights_backbone" in takes:
        options["weights_backbone"] = None
    if weights is not None and "quantize" in takes:
        options["quantize"] = "Quantized" in type(weights).__name__
    if weights is not None:
        options["progress"] = sys.stderr.isatty()
    # A download is told on the standard output, which may hold JSON.
    told = redirect_stdout(sys.stderr)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), told:
        warnings.simplefilter("ignore")  # about slow or changing initialisations that nobody asked for here
        torch.default_generator.manual_seed(FACTORY_SEED)
        module: nn.Module = models.get_model(name, **options)
    return module


@contextmanager
def _nothing_loaded() -> Iterator[None]:
    """For the block torchvision builds networks as for their weights, and puts none into them.

    Weights decide more than values: heads that they were trained with, and sizes of inputs.
    """
    fetch, put = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    WeightsEnum.get_state_dict = lambda *_, **__: {}
    nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = fetch
        nn.Module.load_state_dict = put  # type: ignore[method-assign]
