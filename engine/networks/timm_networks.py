"""Networks of timm: by name and tag, from Hugging Face's hub, and from a folder that timm saved one to."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ndissect.engine.machine.torchvision_import import without_compiler
from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.class_names import class_names
from ndissect.engine.networks.hub import checked_folder, loading, optional_library
from ndissect.engine.networks.loaded import UNTRAINED, LoadedModule, Request, file_name
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.store.errors import NDError, WrongUse, nearest

_HUB, _FOLDER = "hf-hub:", "local-dir:"


def load_timm(request: Request) -> LoadedModule:
    """The network that ``request`` names, with timm's weights unless it asks for none.

    WrongUse where timm is not installed and for a name or tag that it does not know, NDError where it cannot be loaded.
    """
    with without_compiler():
        timm: Any = optional_library("timm", request.spec)
    name = _model_name(timm, request)
    trained = request.downloads and not request.untrained
    online = name.startswith(_HUB) or (trained and not name.startswith(_FOLDER))
    with loading(request.spec, online=online), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(FACTORY_SEED)
        module: nn.Module = timm.create_model(name, pretrained=trained)
        if request.size is not None:
            _set_size(module, request.size)
        config: dict[str, Any] = timm.data.resolve_model_data_config(module)
    known: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    weights = str(known.get("tag") or "default") if trained else UNTRAINED
    origin = {"kind": "timm", "model": name, "weights": weights, "timm": str(timm.__version__)}
    classes = () if request.untrained else class_names(known.get("label_names"))
    if trained and not classes:
        classes = imagenet_names(timm, module)
    return LoadedModule(module, _preprocess(config, name), file_name(Path(request.target).name), origin, classes)


def imagenet_names(timm: Any, module: nn.Module) -> tuple[str, ...]:
    """What the outputs of a network of ImageNet or a part of it are called; () for any other network."""
    try:
        subset = timm.data.infer_imagenet_subset(module)
        if not subset:
            return ()
        known = timm.data.ImageNetInfo(subset)
        if known.num_classes() != getattr(module, "num_classes", None):
            return ()
        return class_names([known.index_to_description(n) for n in range(known.num_classes())])
    except (AttributeError, KeyError, ValueError, AssertionError, OSError):  # another version of timm has other tables
        return ()


def _model_name(timm: Any, request: Request) -> str:
    """The name as timm takes it; errors as ``load_timm``."""
    name = request.target
    if name.startswith(_FOLDER):
        return _FOLDER + str(checked_folder(Path(name.removeprefix(_FOLDER)).expanduser(), request.spec))
    if name.startswith(_HUB):
        return name if request.detail is None or request.untrained else f"{name}@{request.detail}"
    architecture, _, tag = name.partition(".")
    if request.detail is not None and not request.untrained:
        tag = request.detail
    if not timm.is_model(architecture):
        near = nearest(architecture, timm.list_models())
        raise WrongUse(
            f"timm has no network named {architecture!r}",
            f"Nearest: {', '.join(near)}" if near else "python -c 'import timm; print(timm.list_models())' lists them",
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise WrongUse(
            f"timm's {architecture} has no weights tagged {tag!r}", f"It has: {', '.join([*tags, UNTRAINED])}"
        )
    if not tags and request.downloads and not request.untrained:
        raise NDError(
            f"timm has no trained weights of {architecture}",
            f"Give a local file: timm:{architecture} --weights FILE; or use random weights: timm:{architecture}@none",
        )
    return f"{architecture}.{tag}" if tag else architecture


def _set_size(module: nn.Module, size: tuple[int, int]) -> None:
    """Networks of a fixed input size, as vision transformers, are made for ``size`` where they can be."""
    change = getattr(module, "set_input_size", None)
    if change is not None and "img_size" in inspect.signature(change).parameters:
        change(img_size=size)


def _preprocess(config: dict[str, Any], name: str) -> Preprocess:
    channels, rows, columns = config["input_size"]
    interpolation = str(config["interpolation"])
    return Preprocess(
        size=(int(rows), int(columns)),
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        interpolation=interpolation if interpolation in ("bilinear", "nearest") else "bicubic",
        channels=int(channels),
        source=f"timm's data config of {name}, whole image without crop",
    )
