"""From what the user typed to a network that is ready to dissect, with its provenance."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.failures import failure_of_user_code
from ndissect.engine.networks.isolate import Scope
from ndissect.engine.networks.preprocess import Preprocess, make_preprocess
from ndissect.engine.networks.weights import apply_state, digest_of, read_checkpoint
from ndissect.store.errors import NDError, WrongUse, nearest
from ndissect.store.names import quoted
from ndissect.store.regular import open_regular, other_kind

DEMO = "ndissect.engine.demo.network:demo_cnn"
FORMS = "Networks are written torchvision:NAME[@WEIGHTS], path/file.py:FACTORY, package.module:FACTORY or demo."
FACTORY = "A factory takes no arguments and returns a torch.nn.Module, or (module, transform)."
_PLAIN_NAMES = {"factory", "build", "build_model", "create", "create_model", "get_model", "load", "load_model", "main"}
_PLAIN_NAMES |= {"make", "model", "net", "network"}


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


@dataclass(frozen=True)
class _Made:
    """What a spec leads to, before weights and preprocessing."""

    module: nn.Module
    transform: object
    name: str
    origin: dict[str, str]


def load_network(
    spec: str,
    weights: Path | None = None,
    partial: bool = False,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    max_weights: int | None = None,
) -> Network:
    """The network that ``spec`` names, with the weights of a file where one is given.

    ``spec``: ``torchvision:NAME[@WEIGHTS]``, ``path/file.py:FACTORY``, ``package.module:FACTORY``, or ``demo``.
    ``partial``: weights that do not cover the network, or go beyond it, are used as far as they fit. ``size``
    (rows, columns), ``mean`` and ``std`` (in [0, 1], by channel) prepare images where no transform of the network's
    own does. ``max_weights``: bytes that the weights may take, by default what their file lets expect. Raises WrongUse
    for a spec that names nothing, NDError where the network's code or weights fail.
    """
    if not spec.strip():
        raise WrongUse("no network given", FORMS)
    if partial and weights is None:
        raise WrongUse("--partial says how a weights file is used, and none is given", "Add --weights FILE.")
    made = _make(spec, weights is not None)
    module = _plain_module(made.module, spec)
    origin = made.origin
    notes: list[str] = []
    left_out: tuple[str, ...] = ()
    if weights is not None:
        origin, notes, left_out = _load_weights(module, weights, partial, origin, max_weights)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters()):
        module = module.float()
        notes.append("The network is in half precision: it runs in float32 here.")
    preprocess, told = make_preprocess(made.transform, made.name, size, mean, std)
    module.eval().requires_grad_(False)
    return Network(module, spec, made.name, preprocess, digest_of(module), origin, (*notes, *told), left_out)


def _make(spec: str, own_weights: bool) -> _Made:
    if spec == "demo":
        return _from_module(DEMO, "demo")
    left, colon, right = spec.rpartition(":")
    if not colon or not left or not right:
        raise _incomplete(spec)
    if left == "torchvision" or spec.startswith("torchvision:"):
        return _from_torchvision(spec.removeprefix("torchvision:"), own_weights)
    if left in ("timm", "hf", "huggingface", "hub"):
        raise WrongUse(f"{left}: networks are not loaded by name", f"Write a factory for it in a file. {FORMS}")
    if left.endswith(".py") or "/" in left or os.path.exists(left):  # noqa: PTH110 - Path.exists raises where a name is too long
        return _from_file(Path(left).expanduser(), right)
    return _from_module(spec)


def _from_torchvision(text: str, own_weights: bool) -> _Made:
    from ndissect.engine.networks import torchvision_models  # noqa: PLC0415 - seconds to import, not always needed

    name, at, weights = text.partition("@")
    found = torchvision_models.load_torchvision(name, weights if at else None, own_weights)
    origin = {
        "kind": "torchvision",
        "model": name,
        "weights": found.weights,
        "torchvision": torchvision_models.version(),
    }
    return _Made(found.module, found.transform, _file_name(name), origin)


def _from_file(path: Path, factory: str) -> _Made:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise WrongUse(f"{path} is {other_kind(path) or 'not there'}", f"Give the Python file. {FORMS}")
    file = path.resolve()
    if file.suffix != ".py":
        raise WrongUse(f"{path} is not a Python file", f"Weights go to --weights FILE. {FORMS}")
    scope = Scope([file.parent, Path.cwd()])
    with _users_code(scope, f"{path} cannot be imported"):
        module = scope.load_file(file)
    origin = {"kind": "file", "file": str(file), "sha256": _sha256(file), "factory": factory}
    return _call(module, factory, str(path), file.stem, origin, scope)


def _from_module(spec: str, name: str | None = None) -> _Made:
    dotted, _, factory = spec.rpartition(":")
    scope = Scope([Path.cwd()])
    if dotted.startswith("ndissect.") or not scope.owns(dotted.partition(".")[0]):
        _require_module(dotted)
        with _users_code(scope, f"{dotted} cannot be imported"):
            module = importlib.import_module(dotted)
    else:
        with _users_code(scope, f"{dotted} cannot be imported"):
            module = scope.load(dotted)
    file = getattr(module, "__file__", None)
    origin = {"kind": "module", "module": dotted, "factory": factory}
    if file:
        origin |= {"file": file, "sha256": _sha256(Path(file))}
    return _call(module, factory, dotted, name or dotted.rpartition(".")[2], origin, scope, name)


def _require_module(dotted: str) -> None:
    try:
        found = importlib.util.find_spec(dotted.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise WrongUse(f"there is no module named {dotted}, installed or in this folder", FORMS)


def _call(
    module: ModuleType,
    factory: str,
    where: str,
    stem: str,
    origin: dict[str, str],
    scope: Scope,
    name: str | None = None,
) -> _Made:
    """What ``factory`` of ``module`` returns, checked; the random numbers it draws are the same at every run."""
    made = getattr(module, factory, None)
    if made is None:
        known = _factories(module)
        near = nearest(factory, known)
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        raise WrongUse(f"{where} has no factory named {factory!r}", f"{hint}It defines: {', '.join(known) or 'none'}.")
    what = f"{where}:{factory}"
    if not isinstance(made, nn.Module):
        made = _run_factory(made, what, scope)
    transform = None
    if isinstance(made, tuple | list) and len(made) == 2:
        made, transform = made
    if not isinstance(made, nn.Module):
        raise NDError(f"{what} returned {_kind(made)} where a network was expected", FACTORY)
    short = name or (stem if factory in _PLAIN_NAMES else factory)
    return _Made(made, transform, _file_name(short), origin)


def _run_factory(factory: Callable[[], object], what: str, scope: Scope) -> object:
    if not callable(factory):
        raise WrongUse(f"{what} is {_kind(factory)}, not a factory", FACTORY)
    try:
        needed = [
            p.name
            for p in inspect.signature(factory).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needed = []
    if needed:
        raise WrongUse(
            f"{what} needs arguments: {', '.join(needed)}",
            f"{FACTORY} Wrap it, e.g. def my_network(): return {what.rpartition(':')[2]}(...)",
        )
    with torch.random.fork_rng(devices=[]), _users_code(scope, f"the factory {what} failed"):
        torch.default_generator.manual_seed(FACTORY_SEED)
        return factory()


@contextmanager
def _users_code(scope: Scope, what: str) -> Iterator[None]:
    try:
        with scope.running():
            yield
    except NDError:
        raise
    except (Exception, SystemExit) as error:
        raise failure_of_user_code(what, error, scope.path, clean=scope.public_name) from error


def _plain_module(module: nn.Module, spec: str) -> nn.Module:
    """The network itself, without the wrapper that trained or compiled it, whose layers nd can name and hook."""
    while isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(module, "_orig_mod"):
        inner = module._orig_mod if hasattr(module, "_orig_mod") else module.module
        assert isinstance(inner, nn.Module)
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise NDError(
            f"{spec} is a TorchScript module, whose layers cannot be watched", "Return the Python module instead."
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise NDError(f"{spec} has lazy layers without weights yet", "Run the network once on an image in the factory.")
    return module


def _load_weights(
    module: nn.Module, path: Path, partial: bool, origin: dict[str, str], max_weights: int | None
) -> tuple[dict[str, str], list[str], tuple[str, ...]]:
    """Where the weights came from, what to tell of them, and the keys to which they gave no value."""
    checkpoint = read_checkpoint(path, max_weights)
    fit = apply_state(module, checkpoint.state, str(path), partial)
    origin = origin | {"weights_file": str(path.resolve()), "weights_sha256": checkpoint.sha256}
    if checkpoint.key:
        origin["weights_key"] = checkpoint.key
    notes = []
    for title, keys in (("missing", fit.missing), ("unexpected", fit.unexpected), ("mismatched", fit.mismatched)):
        if keys:
            origin[f"weights_{title}"] = ", ".join(keys)
            notes.append(
                f"--partial: {len(keys)} {title} {'key' if len(keys) == 1 else 'keys'} left out: {', '.join(keys)}"
            )
    return origin, notes, (*fit.missing, *fit.mismatched)


def _incomplete(spec: str) -> WrongUse:
    path = Path(spec.rstrip(":")).expanduser()
    if path.suffix == ".py" and os.path.isfile(path):  # noqa: PTH113
        known = _defined_in(path)
        return WrongUse(
            f"{spec} does not say which factory builds the network",
            f"Write {quoted(path)}:FACTORY with one of: {', '.join(known) or 'none defined'}.",
        )
    if path.suffix in (".pt", ".pth", ".safetensors", ".ckpt", ".tar", ".bin"):
        return WrongUse(
            f"{spec} holds weights; the network that they belong to is needed too",
            f"Write NETWORK --weights {quoted(Path(spec))}. {FORMS}",
        )
    from torchvision.models import list_models  # noqa: PLC0415 - seconds to import, only for the suggestion

    near = nearest(spec, list_models()) if re.fullmatch(r"\w+", spec) else []
    return WrongUse(f"{spec!r} is not a network", (f"Did you mean torchvision:{near[0]}? " if near else "") + FORMS)


def _factories(module: ModuleType) -> list[str]:
    """Names that may be factories: what the module defines itself, else all that it can call."""
    public = {k: v for k, v in vars(module).items() if not k.startswith("_") and callable(v)}
    own = [
        k for k, v in public.items() if getattr(v, "__module__", None) == module.__name__ or isinstance(v, nn.Module)
    ]
    return own or [k for k in public if not inspect.isclass(public[k])]


def _defined_in(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(type(v).__name__ for v in value[:4])})"
    return "None" if value is None else f"a {type(value).__name__}"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "network"


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
