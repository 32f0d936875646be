"""Where networks come from: one loader for each scheme of ndissect.engine.networks.spec."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from torch import nn

from ndissect.engine.networks.class_names import class_names
from ndissect.engine.networks.factory import call_factory, users_code
from ndissect.engine.networks.isolate import Scope
from ndissect.engine.networks.lfs import refuse_pointer
from ndissect.engine.networks.loaded import LoadedModule, Request, file_name
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.spec import WRITTEN, NetworkSpec
from ndissect.store.errors import WrongUse, nearest
from ndissect.store.regular import open_regular, other_kind

# The bundled networks (ndissect.store.names.BUNDLED_NETWORKS): the module and the factory of each.
_DEMO = {
    "demo": ("ndissect.engine.demo.network", "demo_cnn"),
    "demo-generator": ("ndissect.engine.demo.generator", "demo_generator"),
    "demo-labeller": ("ndissect.engine.demo.generator", "demo_labeller"),
}
# Names of factories that say nothing of the network: its file or module then gives it its name.
_PLAIN_NAMES = {"factory", "build", "build_model", "create", "create_model", "get_model", "load", "load_model", "main"}
_PLAIN_NAMES |= {"make", "model", "net", "network"}


def load_module(
    spec: NetworkSpec, own_weights: bool, layers_only: bool = False, size: tuple[int, int] | None = None
) -> LoadedModule:
    """The network of ``spec``, before the user's own weights are loaded.

    ``own_weights``: whether there are any; ``layers_only`` and ``size``: as of ndissect.engine.networks.loaded.Request.
    """
    if spec.scheme in _BY_NAME:
        request = Request(spec.text, spec.target, spec.detail, own_weights, layers_only, size)
        return _BY_NAME[spec.scheme](request)
    return _OWN[spec.scheme](spec)


def _torchvision(request: Request) -> LoadedModule:
    from ndissect.engine.networks.torchvision_models import load_torchvision  # noqa: PLC0415 - seconds to import

    return load_torchvision(request)


def _timm(request: Request) -> LoadedModule:
    from ndissect.engine.networks.timm_networks import load_timm  # noqa: PLC0415 - likewise

    return load_timm(request)


def _transformers(request: Request) -> LoadedModule:
    from ndissect.engine.networks.transformers_networks import load_transformers  # noqa: PLC0415 - likewise

    return load_transformers(request)


def _load_file(spec: NetworkSpec) -> LoadedModule:
    path, factory = Path(spec.target).expanduser(), spec.detail or ""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise WrongUse(f"{path} is {other_kind(path) or 'not there'}", f"Give the Python file. {WRITTEN}")
    file = path.resolve()
    if file.suffix != ".py":
        raise WrongUse(f"{path} is not a Python file", f"Weights go to --weights FILE. {WRITTEN}")
    refuse_pointer(file)
    scope = Scope([file.parent, Path.cwd()])
    with users_code(scope, f"{path} cannot be imported"):
        module = scope.load_file(file)
    origin = {"kind": "file", "file": str(file), "sha256": _sha256(file), "factory": factory}
    network, transform = call_factory(module, factory, str(path), scope)
    _take_over_generator(module, factory, network)
    return LoadedModule(network, transform, _name(factory, file.stem), origin, _classes(module, factory))


def _load_from_package(spec: NetworkSpec) -> LoadedModule:
    dotted, factory = spec.target, spec.detail or ""
    scope = Scope([Path.cwd()])
    if dotted.startswith("ndissect.") or not scope.owns(dotted.partition(".")[0]):
        _require_module(spec)
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
    name = _name(factory, dotted.rpartition(".")[2])
    _take_over_generator(module, factory, network)
    return LoadedModule(network, transform, name, origin, _classes(module, factory))


def _load_demo(spec: NetworkSpec) -> LoadedModule:
    module, factory = _DEMO[spec.target]
    made = _load_from_package(NetworkSpec(spec.text, "module", module, factory))
    if spec.target == "demo-labeller":  # it takes pictures of any size as they are
        made = replace(made, transform=Preprocess(source=spec.target))
    return replace(made, name=spec.target)


_BY_NAME: dict[str, Callable[[Request], LoadedModule]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _transformers,
}
_OWN: dict[str, Callable[[NetworkSpec], LoadedModule]] = {
    "file": _load_file,
    "module": _load_from_package,
    "demo": _load_demo,
}


def _require_module(spec: NetworkSpec) -> None:
    """WrongUse, with what was probably meant, where the module that ``spec`` names is not there."""
    try:
        top = importlib.util.find_spec(spec.target.partition(".")[0])
    except (ImportError, ValueError):
        top = None
    if top is None:
        near = nearest(spec.target, list(_BY_NAME))
        raise WrongUse(
            f"there is no module named {spec.target}, installed or in this folder",
            (f"Did you mean {near[0]}:{spec.detail}? " if near else "") + WRITTEN,
        )


def _classes(module: ModuleType, factory: str) -> tuple[str, ...]:
    """The names of the outputs, where the factory has them as its attribute ``classes``."""
    return class_names(getattr(getattr(module, factory, None), "classes", None))


def _take_over_generator(module: ModuleType, factory: str, network: nn.Module) -> None:
    """Where the factory says `generator = True`, the network says it as well."""
    if getattr(getattr(module, factory, None), "generator", False) is True:
        setattr(network, "generator", True)  # noqa: B010 - to mypy a module has tensors and modules alone


def _name(factory: str, stem: str) -> str:
    return file_name(stem if factory in _PLAIN_NAMES else factory)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
