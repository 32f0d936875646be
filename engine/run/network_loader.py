"""Loading the network that the options name: its options are looked at now, torch is imported later."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.store.regular import other_kind

if TYPE_CHECKING:
    from ndissect.engine.networks.resolve import Network


def network_loader(options: Options, *, layers_only: bool = False) -> Callable[[], Network]:
    """What loads the network; WrongUse for files that are not there and for numbers that are none.

    ``layers_only``: for a list of its layers, which needs no weights, so that none are downloaded.
    """
    file = options.network.rpartition(":")[0]
    if file.endswith(".py"):
        _require_file(Path(file).expanduser(), "a network of your own is written path/file.py:factory")
    if options.weights is not None:
        _require_file(options.weights, "--weights takes a .safetensors or .pt file")
    if options.classes is not None:
        _require_file(options.classes, "--classes takes a file with the names of the network's outputs")
    size = parse_size(options.size, "--size") if options.size else None
    mean, std = _floats(options.mean, "--mean"), _floats(options.std, "--std")
    if std is not None and min(std) <= 0:
        raise WrongUse(
            f"--std '{options.std}': images are divided by it, so each is above 0", "for example 0.229,0.224,0.225"
        )

    def load() -> Network:
        from ndissect.engine.data.output_names import read_output_names  # noqa: PLC0415 - hardly ever asked for
        from ndissect.engine.machine.memory import parse_bytes  # noqa: PLC0415 - torch takes seconds to import
        from ndissect.engine.networks.resolve import load_network  # noqa: PLC0415

        most = options.max_weights
        network = load_network(
            options.network,
            weights=options.weights,
            partial=options.partial,
            size=size,
            mean=mean,
            std=std,
            max_weights=None if most is None else parse_bytes(most, "--max-weights", "write it as 40GB"),
            weights_key=options.weights_key,
            weights_prefix=options.weights_prefix,
            bgr=options.bgr,
            layers_only=layers_only,
        )
        if options.classes is not None:
            network = replace(network, classes=read_output_names(options.classes).names, named_by=options.classes.name)
        if not options.functional:
            return network
        from ndissect.engine.networks.functional import with_functional_layers  # noqa: PLC0415 - asked for alone

        return with_functional_layers(network)

    return load


def parse_size(text: str, option: str) -> tuple[int, int]:
    """``224`` -> (224, 224), ``360x480`` -> (360, 480); WrongUse, which names ``option``, for what is no size."""
    height, _, width = text.partition("x")
    try:
        size = int(height), int(width or height)
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise WrongUse(f"{option} '{text}' is no size", "write a number such as 224, or HxW such as 360x480")
    return size


def _require_file(path: Path, hint: str) -> None:
    if kind := other_kind(path):
        raise WrongUse(f"{path} is {kind}, not a regular file", hint)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise WrongUse(f"there is no file {path}", hint)


def _floats(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(x) for x in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise WrongUse(f"{option} '{text}' is no list of numbers", "for example 0.485,0.456,0.406")
    return numbers
