"""Vision networks of transformers: from Hugging Face's hub, and from a folder that one was saved to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.class_names import class_names
from ndissect.engine.networks.hub import checked_folder, loading, optional_library
from ndissect.engine.networks.loaded import UNTRAINED, LoadedModule, Request, file_name
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.store.errors import NDError

_PIXELS = "pixel_values"
# Numbers of PIL's filters; tensors have no Lanczos filter, which is nearest to the bicubic one.
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 1: "bicubic", 3: "bicubic"}


def load_transformers(request: Request) -> LoadedModule:
    """The network that ``request`` names, as the class that its configuration names: with its head, where it has one.

    WrongUse where transformers is not installed or there is no such folder, NDError where the network cannot be loaded
    or takes no images. Code that lies beside a network is not run.
    """
    transformers: Any = optional_library("transformers", request.spec)
    source, online, revision = _source(request)
    options = {"revision": revision, "trust_remote_code": False} if online else {"local_files_only": True}
    trained = request.downloads and not request.untrained
    notes: list[str] = []
    left_out: tuple[str, ...] = ()
    with loading(request.spec, online=online), torch.random.fork_rng(devices=[]), _no_bars(transformers):
        torch.default_generator.manual_seed(FACTORY_SEED)
        config = transformers.AutoConfig.from_pretrained(source, **options)
        kind = _class_of(transformers, config, request.spec)
        if trained:
            module, info = kind.from_pretrained(source, output_loading_info=True, **options)
            left_out = tuple(sorted({*info["missing_keys"], *(str(k[0]) for k in info["mismatched_keys"])}))
            if left_out:
                notes.append(f"{len(left_out)} weights of {request.spec} are not in its files: {', '.join(left_out)}")
        else:
            module = kind(config if kind.config_class is type(config) else config.vision_config)
        preprocess = _preprocess(_processor(transformers, source, options), request.target)
    origin = {
        "kind": "transformers",
        "model": kind.__name__,
        "source": source,
        "weights": (revision or getattr(config, "_commit_hash", None) or "here") if trained else UNTRAINED,
        "transformers": str(transformers.__version__),
    }
    classes = () if request.untrained else _classes(config, kind)
    return LoadedModule(
        module, preprocess, file_name(Path(request.target).name), origin, classes, tuple(notes), left_out
    )


def _source(request: Request) -> tuple[str, bool, str | None]:
    """What transformers loads from, whether that is the hub, and which revision there."""
    path = Path(request.target).expanduser()
    if os.path.isdir(path) or request.target.startswith(("/", "~", ".")):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return str(checked_folder(path, request.spec)), False, None
    return request.target, True, None if request.untrained else request.detail


def _class_of(transformers: Any, config: Any, spec: str) -> Any:
    """The class of the network; NDError where it takes no image."""
    names = list(getattr(config, "architectures", None) or [])
    # The half of a network of images and text that takes images.
    names += [name.removesuffix("Model") + "VisionModel" for name in names if name.endswith("Model")]
    classes = [getattr(transformers, name) for name in names if hasattr(transformers, name)]
    mapping = transformers.MODEL_MAPPING
    if not classes and type(config) in mapping:
        classes = [mapping[type(config)]]
    for kind in classes:
        if issubclass(kind, nn.Module) and getattr(kind, "main_input_name", "") == _PIXELS:
            return kind
    raise NDError(
        f"{spec} ({', '.join(names) or getattr(config, 'model_type', 'unknown')}) takes no images, or is not of "
        "transformers itself",
        "nd takes networks that see an image. Code beside a network on the hub is not run: write a factory for it",
    )


def _processor(transformers: Any, source: str, options: dict[str, Any]) -> Any:
    """The image processor that was saved with the network, or None."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(source, **options)
    except (OSError, ValueError):  # it has none, or one by code of its own
        return None


def _preprocess(processor: Any, name: str) -> Preprocess | None:
    """What ``processor`` does to an image, but for its crop, None without one."""
    if processor is None:
        return None
    factor = float(_given(processor, "rescale_factor", 1 / 255)) if _given(processor, "do_rescale", True) else 1.0
    shift = 1.0 if _given(processor, "rescale_offset", False) else 0.0
    normalised = bool(_given(processor, "do_normalize", False))
    mean = _numbers(processor.image_mean) if normalised else (0.0, 0.0, 0.0)
    std = _numbers(processor.image_std) if normalised else (1.0, 1.0, 1.0)
    scale = 255 * factor  # images are scaled to [0, 1] here
    return Preprocess(
        size=_size(processor),
        mean=tuple((m + shift) / scale for m in mean),
        std=tuple(s / scale for s in std),
        interpolation=_INTERPOLATIONS.get(int(_given(processor, "resample", 2)), "bilinear"),
        bgr=bool(_given(processor, "do_flip_channel_order", False)),
        channels=len(mean),
        source=f"the image processor of {name}, whole image without crop",
    )


def _size(processor: Any) -> tuple[int, int] | None:
    """The size at which the network sees an image: that of the crop, if any; square where one edge alone is given."""
    size = _given(processor, "size", None) if _given(processor, "do_resize", True) else None
    if _given(processor, "do_center_crop", False):
        size = _given(processor, "crop_size", size)
    if size is None:
        return None
    edges = {key: value for key, value in dict(size).items() if value is not None}
    if "height" in edges and "width" in edges:
        return int(edges["height"]), int(edges["width"])
    edge = edges.get("shortest_edge") or edges.get("longest_edge")
    return (int(edge), int(edge)) if edge else None


def _given(processor: Any, name: str, default: Any) -> Any:
    value = getattr(processor, name, None)
    return default if value is None else value


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def _classes(config: Any, kind: Any) -> tuple[str, ...]:
    """The names of the outputs of a head; numbers alone, which a configuration has by default, are no names."""
    if "For" not in kind.__name__:
        return ()
    names = class_names(getattr(config, "id2label", None))
    return () if all(name == f"LABEL_{n}" for n, name in enumerate(names)) else names


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """For the block transformers draws no bars while it puts weights in their places, and warns of nothing."""
    logging = transformers.utils.logging
    before, drawn = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if drawn:
            logging.enable_progress_bar()
