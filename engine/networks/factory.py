"""Factories of the researcher's own code: each takes no arguments and returns a network, or (network, transform)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import nn

from ndissect.engine.networks import FACTORY_SEED
from ndissect.engine.networks.failures import failure_of_user_code
from ndissect.engine.networks.isolate import Scope
from ndissect.engine.networks.readiness import exported
from ndissect.store.errors import NDError, WrongUse, nearest

_TAKES = "A factory takes no arguments and returns a torch.nn.Module, or (module, transform)"


def call_factory(module: ModuleType, factory: str, where: str, scope: Scope) -> tuple[nn.Module, object]:
    """The network that ``factory`` of ``module`` makes, and its transform or None.

    ``factory`` names a function, a class, or a network that is there already. The random numbers that it draws are the
    same in every run. ``where``: the module as the user knows it. WrongUse where there is no such factory or it takes
    arguments, NDError where it fails or returns something else.
    """
    made = getattr(module, factory, None)
    if made is None:
        factories = _factories(module)
        near = nearest(factory, factories)
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        raise WrongUse(
            f"{where} has no factory named {factory!r}", f"{hint}It defines: {', '.join(factories) or 'none'}"
        )
    what = f"{where}:{factory}"
    if not isinstance(made, nn.Module):
        made = _run(made, what, scope)
    transform = None
    if isinstance(made, tuple | list) and len(made) == 2:
        made, transform = made
    if type(made).__name__ == "ExportedProgram":
        raise exported(what)
    if not isinstance(made, nn.Module):
        weights = isinstance(made, Mapping) and any(isinstance(value, torch.Tensor) for value in made.values())
        hint = "These are weights: build the network that they belong to, and load them into it" if weights else _TAKES
        raise NDError(f"{what} returned {_kind(made)} where a network was expected", hint)
    return made, transform


@contextmanager
def users_code(scope: Scope, what: str) -> Iterator[None]:
    """While code of the network's own runs: an error in it becomes an NDError that begins with ``what``.

    What it sets for all of torch, the dtype and the device of new tensors, holds for its own code alone.
    """
    dtype, device = torch.get_default_dtype(), _default_device()
    try:
        with scope.running():
            yield
    except NDError:
        raise
    except (Exception, SystemExit) as error:
        raise failure_of_user_code(what, error, scope.path, clean=scope.public_name) from error
    finally:
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if _default_device() != device:
            torch.set_default_device(device)


def _default_device() -> torch.device | None:
    """The device of new tensors where somebody has chosen one, which imports what else nothing needs."""
    if "torch.utils._device" not in sys.modules:
        return None
    device = torch.get_default_device()
    return None if device.type == "cpu" else device


def _run(factory: Callable[[], object], what: str, scope: Scope) -> object:
    if not callable(factory):
        raise WrongUse(f"{what} is {_kind(factory)}, not a factory", _TAKES)
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
            f"{_TAKES}. Wrap it, e.g. def my_network(): return {what.rpartition(':')[2]}(...)",
        )
    with torch.random.fork_rng(devices=[]), users_code(scope, f"the factory {what} failed"):
        torch.default_generator.manual_seed(FACTORY_SEED)
        return factory()


def _factories(module: ModuleType) -> list[str]:
    """Names that may be factories: what the module defines itself, else all that it can call."""
    public = {k: v for k, v in vars(module).items() if not k.startswith("_") and callable(v)}
    own = [
        k for k, v in public.items() if getattr(v, "__module__", None) == module.__name__ or isinstance(v, nn.Module)
    ]
    return own or [k for k in public if not inspect.isclass(public[k])]


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(type(v).__name__ for v in value[:4])})"
    return "None" if value is None else f"a {type(value).__name__}"
