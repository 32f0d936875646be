"""torchvision's own networks by name: ``resnet18``, ``resnet18@IMAGENET1K_V1``, ``resnet18@none``."""

from __future__ import annotations

import inspect
import sys
import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from ndissect.engine.machine.torchvision_import import without_compiler
from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.class_names import class_names
from ndissect.store.errors import NDError, WrongUse, nearest

with without_compiler():
    import torchvision
    from torchvision import models

UNTRAINED = "none"


@dataclass(frozen=True)
class TorchvisionModel:
    """A network of torchvision, its transform (torchvision's preset), and the weights' name or ``none``.

    ``classes``: what its outputs are called, where it has torchvision's weights.
    """

    module: nn.Module
    transform: object
    weights: str
    classes: tuple[str, ...]


def load_torchvision(name: str, weights: str | None, own_weights: bool = False) -> TorchvisionModel:
    """The network ``name`` with the weights of that name (None: DEFAULT; ``none``: random, the same at every run).

    ``own_weights``: the caller brings a file, so nothing is downloaded; the transform is still that of ``weights``.
    WrongUse for an unknown name or unknown weights, NDError where a download fails.
    """
    known = models.list_models()
    if name not in known:
        near = nearest(name, known)
        raise WrongUse(
            f"torchvision has no network named {name!r}",
            f"Nearest: {', '.join(near)}" if near else f"It has {len(known)}: {', '.join(known)}",
        )
    chosen = _choose(name, weights)
    trained = None if own_weights or _is_none(weights) else chosen
    try:
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
    if trained is None:
        return TorchvisionModel(module, transform, UNTRAINED, ())
    return TorchvisionModel(module, transform, trained.name, class_names(trained.meta.get("categories")))


def _choose(name: str, weights: str | None) -> Any:
    """The member of the model's weights enum that is meant; for ``none`` the default, whose transform applies."""
    enum: Any = models.get_model_weights(name)
    if weights is None or _is_none(weights) or weights.upper() == "DEFAULT":
        return getattr(enum, "DEFAULT", None)
    members: dict[str, Enum] = dict(enum.__members__)
    by_upper = {key.upper(): member for key, member in members.items()}
    if weights.upper() not in by_upper:
        choices = ", ".join(["DEFAULT", *dict.fromkeys(m.name for m in members.values()), UNTRAINED])
        raise WrongUse(f"torchvision's {name} has no weights named {weights!r}", f"It has: {choices}")
    return by_upper[weights.upper()]


def _is_none(weights: str | None) -> bool:
    return weights is not None and weights.lower() == UNTRAINED


def _build(name: str, weights: Any) -> nn.Module:
    options: dict[str, Any] = {"weights": weights}
    takes = inspect.signature(models.get_model_builder(name)).parameters
    if weights is None and "weights_backbone" in takes:
        options["weights_backbone"] = None
    if weights is not None:
        options["progress"] = sys.stderr.isatty()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about slow or changing initialisations that nobody asked for here
        torch.default_generator.manual_seed(FACTORY_SEED)
        module: nn.Module = models.get_model(name, **options)
    return module


def version() -> str:
    """torchvision's version, for the provenance."""
    return str(torchvision.__version__)
