"""Where networks come from: one loader for each scheme of ndissect.engine.networks.spec."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ndissect.engine.networks.factory import call_factory, users_code
from ndissect.engine.networks.isolate import Scope
from ndissect.engine.networks.spec import WRITTEN, NetworkSpec
from ndissect.store.errors import WrongUse
from ndissect.store.regular import open_regular, other_kind

_DEMO = ("ndissect.engine.demo.network", "demo_cnn")
# Names of factories that say nothing of the network: its file or module then gives it its name.
_PLAIN_NAMES = {"factory", "build", "build_model", "create", "create_model", "get_model", "load", "load_model", "main"}
_PLAIN_NAMES |= {"make", "model", "net", "network"}


@dataclass(frozen=True)
class LoadedModule:
    """What a scheme gives: the network as its code made it, its transform or None, a short name, where it came from.

    ``classes``: what its outputs are called, in their order; () where that is not known.
    """

    module: nn.Module
    transform: object
    name: str
    origin: dict[str, str]
    classes: tuple[str, ...] = ()


def load_module(spec: NetworkSpec, own_weights: bool) -> LoadedModule:
    """The network of ``spec``, before the user's own weights are loaded. ``own_weights``: whether there are any."""
    return _LOADERS[spec.scheme](spec, own_weights)


def _load_torchvision(spec: NetworkSpec, own_weights: bool) -> LoadedModule:
    from ndissect.engine.networks import torchvision_models  # noqa: PLC0415 - seconds to import, not always needed

    model = torchvision_models.load_torchvision(spec.target, spec.detail, own_weights)
    origin = {
        "kind": "torchvision",
        "model": spec.target,
        "weights": model.weights,
        "torchvision": torchvision_models.version(),
    }
    return LoadedModule(model.module, model.transform, _file_name(spec.target), origin, model.classes)


def _load_file(spec: NetworkSpec, own_weights: bool) -> LoadedModule:
    path, factory = Path(spec.target).expanduser(), spec.detail or ""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise WrongUse(f"{path} is {other_kind(path) or 'not there'}", f"Give the Python file. {WRITTEN}")
    file = path.resolve()
    if file.suffix != ".py":
        raise WrongUse(f"{path} is not a Python file", f"Weights go to --weights FILE. {WRITTEN}")
    scope = Scope([file.parent, Path.cwd()])
    with users_code(scope, f"{path} cannot be imported"):
        module = scope.load_file(file)
    origin = {"kind": "file", "file": str(file), "sha256": _sha256(file), "factory": factory}
    network, transform = call_factory(module, factory, str(path), scope)
    return LoadedModule(network, transform, _name(factory, file.stem), origin)


def _load_from_package(spec: NetworkSpec, own_weights: bool) -> LoadedModule:
    dotted, factory = spec.target, spec.detail or ""
    scope = Scope([Path.cwd()])
    if dotted.startswith("ndissect.") or not scope.owns(dotted.partition(".")[0]):
        _require_module(dotted)
        with users_code(scope, f"{dotted} cannot be imported"):
            module = importlib.import_module(dotted)
    else:
        with users_code(scope, f"{dotted} cannot be imported"):
            module = scope.load(dotted)
    file = getattr(module, "__file__", None)
    origin = {"kind": "module", "module": dotted, "factory": factory}
    if file:
        origin |= {"file": file, "sha256": _sha256(Path(file))}
    network, transform = call_factory(module, factory, dotted, scope)
    return LoadedModule(network, transform, _name(factory, dotted.rpartition(".")[2]), origin)


def _load_demo(spec: NetworkSpec, own_weights: bool) -> LoadedModule:
    module, factory = _DEMO
    return replace(_load_from_package(NetworkSpec(spec.text, "module", module, factory), own_weights), name="demo")


_LOADERS: dict[str, Callable[[NetworkSpec, bool], LoadedModule]] = {
    "torchvision": _load_torchvision,
    "file": _load_file,
    "module": _load_from_package,
    "demo": _load_demo,
}


def _require_module(dotted: str) -> None:
    try:
        top = importlib.util.find_spec(dotted.partition(".")[0])
    except (ImportError, ValueError):
        top = None
    if top is None:
        raise WrongUse(f"there is no module named {dotted}, installed or in this folder", WRITTEN)


def _name(factory: str, stem: str) -> str:
    return _file_name(stem if factory in _PLAIN_NAMES else factory)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "network"


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
