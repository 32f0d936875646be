"""What a network's code does, followed by torch.fx: its operations, and in which module each of them happens."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import linecache
import math
import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn

from ndissect.engine.networks.failures import failure_of_user_code

_FX = Path(fx.__file__).parent
_NETWORK = "network"


@dataclass(frozen=True)
class Trace:
    """The operations of a network.

    ``inside``: by node, the dotted name of the module whose forward() calls it, "" for the network itself.
    ``returns``: nodes at which a module whose code was followed hands its output on; ``leaves``: names of the modules
    that are called as they are. ``whole``: by name, why a module of the network's own code could not be followed and is
    called as it is. ``constants``: tensors that the code made of no input, by the names that the graph gives them.
    """

    graph: fx.Graph
    inside: dict[fx.Node, str]
    returns: set[fx.Node]
    leaves: set[str]
    whole: dict[str, str]
    constants: dict[str, Tensor]


def trace(module: nn.Module, spec: str, folders: list[str]) -> Trace:
    """The operations of ``module`` for one input, with all other arguments at their defaults.

    Classes of torch.nn are called as they are, and so are modules that torch.fx cannot follow. NDError where it cannot
    follow the outermost forward(): with the line in ``folders``, where the user's code is.
    """
    whole = _Whole(module)
    tracer = _Tracer(folders)
    try:
        with torch.no_grad(), _len_as_an_operation(module), _through_compiled():
            graph = tracer.trace(whole)
    except Exception as error:
        raise failure_of_user_code(
            f"--functional: torch.fx cannot follow the code of {spec}",
            error,
            folders,
            "Put that code into a module of its own, which is then left whole, or leave --functional out",
            clean=first_sentence,
        ) from error
    constants = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            if node.op == "get_attr" and not node.target.startswith(f"{_NETWORK}."):
                constants[node.target] = getattr(whole, node.target)
            node.target = _name(node.target)
    returns = {node for node in graph.nodes if node in tracer.returns}
    leaves = {node.target for node in graph.nodes if node.op == "call_module" and node not in returns}
    return Trace(
        graph,
        {node: tracer.inside[node] for node in graph.nodes if node in tracer.inside},
        returns,
        leaves,
        {name: why for name, why in tracer.whole.items() if name in leaves},
        constants,
    )


class _Whole(nn.Module):
    """Calls the network with one input, as nd does: its hooks are called, other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        return self.network(x)


class _Value(fx.Proxy):
    """Stands for a value while code is followed; parts of it can be assigned to."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    """Follows the code of all modules but those of torch.nn, and of those that cannot be followed."""

    # What code does with a buffer is recorded, not done: it may change it, or ask for its device, which changes.
    proxy_buffer_attributes = True

    def __init__(self, folders: list[str]) -> None:
        super().__init__(autowrap_modules=(math,), autowrap_functions=(len,))
        self.inside: dict[fx.Node, str] = {}
        self.returns: set[fx.Node] = set()
        self.whole: dict[str, str] = {}
        self._folders = folders
        self._path = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == _NETWORK:
            return False
        compiled = isinstance(m, torch.jit.ScriptModule) or hasattr(m, "_orig_mod") or bool(m._compiled_call_impl)
        return (
            compiled or _name(module_qualified_name) in self.whole or super().is_leaf_module(m, module_qualified_name)
        )

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.inside[node] = self._path
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, torch.device):  # the network moves: a device stands for that of its input
            a = self.proxy(next(iter(self.graph.nodes))).device
        return super().create_arg(a)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        target = self.path_of_module(m)
        if self.is_leaf_module(m, target):
            return self.create_proxy("call_module", target, args, kwargs)
        name, outer, before = _name(target), self._path, next(iter(reversed(self.graph.nodes)))
        self._path = name
        try:
            output = forward(*args, **kwargs)
            if not name:
                return output
            self._path = outer
            handed_on = self.create_proxy("call_module", target, (output,), {})
            self.returns.add(handed_on.node)
            return _parts(output, handed_on)
        except Exception as error:
            self._path = outer
            # A module cannot be followed at one call and be left whole at another.
            if not name or any(node.target == target for node in self.returns):
                raise
            self._forget(before)
            why = failure_of_user_code("torch.fx cannot follow", error, self._folders, clean=first_sentence)
            self.whole[name] = why.message
            return self.create_proxy("call_module", target, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """True in an assertion, which held when the network ran; else a value decides what the code does: an error."""
        frame = sys._getframe(1)
        while frame.f_back is not None and _FX in Path(frame.f_code.co_filename).parents:
            frame = frame.f_back
        if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("assert "):
            return True
        return super().to_bool(obj)

    def _forget(self, before: fx.Node) -> None:
        """Takes out of the graph what was recorded after ``before``; weights stay, as torch.fx knows them by now."""
        nodes = list(self.graph.nodes)
        for node in reversed(nodes[nodes.index(before) + 1 :]):
            self.returns.discard(node)
            if node.op != "get_attr":
                self.graph.erase_node(node)


@contextlib.contextmanager
def _len_as_an_operation(module: nn.Module) -> Iterator[None]:
    """For the block, ``len`` of a tensor can be recorded where it is called in the code of the network's classes.

    torch.fx replaces functions only where they are names of a Python module, which what is built in is not.
    """
    codes = (kind.__dict__.get("forward") for m in module.modules() for kind in type(m).__mro__)
    spaces = {id(code.__globals__): code.__globals__ for code in codes if isinstance(code, FunctionType)}
    ours = [space for space in spaces.values() if "len" not in space]
    for space in ours:
        space["len"] = len
    try:
        yield
    finally:
        for space in ours:
            space.pop("len", None)


@contextlib.contextmanager
def _through_compiled() -> Iterator[None]:
    """For the block, functions that were compiled can be followed: what runs is their plain Python."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    config: Any = torch._dynamo.config
    with config.patch(error_on_nested_fx_trace=False):
        yield


def _name(target: str) -> str:
    """The network's own name of the module or weight ``target``."""
    return "" if target == _NETWORK else target.removeprefix(f"{_NETWORK}.")


def _parts(output: Any, handed_on: Any) -> Any:
    """``output`` of a module, each tensor in it taken out of what the module handed on."""
    if isinstance(output, fx.Proxy | Tensor):
        return handed_on
    if isinstance(output, tuple | list):
        parts = [_parts(part, handed_on[i]) if _traced(part) else part for i, part in enumerate(output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    changed: Any = output
    if isinstance(output, dict):
        changed = copy.copy(output)
        for key in [key for key, part in output.items() if _traced(part)]:
            changed[key] = _parts(output[key], handed_on[key])
    elif dataclasses.is_dataclass(output):
        changed = copy.copy(output)
        for key in [f.name for f in dataclasses.fields(output) if _traced(getattr(output, f.name))]:
            object.__setattr__(changed, key, _parts(getattr(output, key), getattr(handed_on, key)))
    return changed


def _traced(value: Any) -> bool:
    """Whether there is something of a tensor in ``value``."""
    return not isinstance(value, str | int | float | bool | torch.dtype | torch.device | None)


def first_sentence(text: str) -> str:
    """What ``text``, an error of torch.fx, says first; more of it is advice to programmers."""
    return text.strip().split(". ")[0].splitlines()[0]
