"""Layers that are no modules: what functions and operators in a network's code return, by their names in torch.fx.

::

    layer1.0.add        the ``+`` in the forward() of the module layer1.0
    layer1.0.relu_1     the second call of a function relu there, or of its child ``relu``

torch.fx follows the network's code once (ndissect.engine.networks.functional_trace), with names as
``torchvision.models.feature_extraction`` gives them. The network that comes of it runs the recorded operations, in
which every value of interest passes through a small module of its own: all else of nd sees it as any other layer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx, nn

from ndissect.engine.networks.failures import failure_of_user_code
from ndissect.engine.networks.first_pass import SIDES, failure_of_first_pass
from ndissect.engine.networks.functional_trace import Trace, first_sentence, trace
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.taps import tensors_inside
from ndissect.store.errors import NDError

#: What a network's ``origin`` says under ``functional`` where it has such layers.
BY = "torch.fx"

# Two images tell an axis that goes over images from one of one step.
_IMAGES = 2
_WITHOUT = "Leave --functional out"
# What takes a value out of another one, or tells of one.
_READS = ("getitem", "getattr", "size", "dim", "numel")


class Functional(nn.Module):
    """A layer that hands on what ``function`` returned; ``function`` may name a module that is called once more."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x


def type_of(module: nn.Module) -> str:
    """What kind of layer ``module`` is: the name of its class, or that of the function whose value it hands on."""
    return module.function if isinstance(module, Functional) else type(module).__name__


def with_functional_layers(network: Network) -> Network:
    """``network`` with a layer for every floating-point tensor that a function or an operator returns.

    Second and later calls of one module have layers of their own as well. All other modules keep their names and
    weights; those that torch.fx cannot follow inside are left whole, and the notes say so. NDError where it cannot
    follow the outermost forward(), or where what it recorded does not compute the same to the last bit.
    """
    images, expected = _first_images(network)
    folder = network.origin.get("file", "").rpartition("/")[0]
    folders = [folder] if folder else []
    traced = trace(network.module, network.spec, folders)
    try:
        module = _with_own_containers(network.module, traced)
        for name, value in traced.constants.items():
            module.register_buffer(name, value, persistent=False)
        seen = _Watching(module, traced.graph)
        _seeded(seen.run, images)
        _insert(module, traced, seen.floating)
        module.__dict__["forward"] = _Forward(module, traced.graph)
        made = _seeded(module, images)
    except Exception as error:
        what = f"what torch.fx recorded of {network.spec} fails"
        raise failure_of_user_code(what, error, folders, _WITHOUT, clean=first_sentence) from error
    if not _equal(expected, made):
        raise NDError(
            f"{network.spec} does not compute the same once torch.fx has recorded it: its code does what no operation "
            "on tensors shows (autocast, state, random numbers, types that it asks for)",
            _WITHOUT,
        )
    return replace(
        network, module=module, origin=network.origin | {"functional": BY}, notes=(*network.notes, *_notes(traced))
    )


def _notes(traced: Trace) -> tuple[str, ...]:
    if not traced.whole:
        return ()
    names = list(traced.whole)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    why = traced.whole[names[0]]
    return (f"--functional: no functions are layers inside of {', '.join(names[:4])}{more}, which {why}",)


def _first_images(network: Network) -> tuple[Tensor, Any]:
    """Random images of a size and a number that the network takes, and what it makes of them.

    NDError where it takes none, of the first that were tried.
    """
    first: tuple[Tensor, Exception] | None = None
    parameter = next(network.module.parameters(), None)
    generator = torch.Generator().manual_seed(0)
    for side in SIDES:
        images = torch.randint(0, 256, (_IMAGES, 3, side, side), dtype=torch.uint8, generator=generator)
        try:
            x = torch.cat([network.preprocess.apply(image[None]) for image in images])
        except NDError:
            raise
        except Exception:  # a transform that gives images of several sizes
            x = network.preprocess.apply(images[:1])
        x = x if parameter is None else x.to(parameter.device)
        for given in (x, x[:1]):
            try:
                return given, _seeded(network.module, given)
            except Exception as error:  # whatever the network's code raises
                first = first or (given, error)
    assert first is not None
    raise failure_of_first_pass(network, *first) from first[1]


def _seeded(run: Any, images: Tensor) -> Any:
    """What ``run`` makes of ``images``, of which it may change its own copy; random numbers are the same each time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run(images.clone())


class _Watching(fx.Interpreter):
    """Runs a graph and notes which nodes give floating-point tensors."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.extra_traceback = False
        self.floating: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.floating.add(n)
        return value


class _Forward:
    """Calls the operations of ``graph`` on the modules and weights of ``module``."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self._interpreter = fx.Interpreter(module, graph=graph)
        self._interpreter.extra_traceback = False

    def __call__(self, x: Any) -> Any:
        try:
            return _hand_on(self._interpreter.run(x))
        finally:
            self._interpreter.env = {}  # a pass that was ended early leaves its values there


def _insert(module: nn.Module, traced: Trace, floating: set[fx.Node]) -> None:
    """Gives the nodes that are layers their modules, under names that nothing in ``module`` has."""
    graph, calls = traced.graph, _Names(module)
    for node in list(graph.nodes):
        if node in traced.returns or node.op not in ("call_function", "call_method", "call_module"):
            continue
        if node.op == "call_module":
            name, function = calls.of_module(node.target), type(module.get_submodule(node.target)).__name__
        else:
            function = re.sub(r"(?<=.)_\d+$", "", node.name)
            name = calls.of_function(".".join(filter(None, (traced.inside[node], function))))
        if not name or node not in floating or function in _READS:
            continue
        holder, _, last = name.rpartition(".")
        module.get_submodule(holder).add_module(last, Functional(function))
        with graph.inserting_after(node):
            handed_on = graph.call_module(name, (node,))
        node.replace_all_uses_with(handed_on, delete_user_cb=lambda user, own=handed_on: user is not own)


class _Names:
    """Names of calls, each its own: ``add``, ``add_1``, ``add_2``, ... inside of the same module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._calls: dict[str, int] = {}

    def of_function(self, base: str) -> str:
        """The name of the next call of a function."""
        for number in count(self._calls.get(base, 0)):
            name = f"{base}_{number}" if number else base
            if not self._is_taken(name):
                self._calls[base] = number + 1
                return name
        raise AssertionError("numbers end")

    def of_module(self, base: str) -> str:
        """The name of the next call of a module; "" for its first, which needs none but the module's own."""
        if base in self._calls:
            return self.of_function(base)
        self._calls[base] = 1
        return ""

    def _is_taken(self, name: str) -> bool:
        holder, _, last = name.rpartition(".")
        return hasattr(self._module.get_submodule(holder), last)


def _with_own_containers(module: nn.Module, traced: Trace) -> nn.Module:
    """``module`` with copies of the modules whose code was followed, and of what holds them; all others are shared.

    A copy has the parameters and buffers of the module itself, and hands on what it is given: what the module makes of
    its input is in the graph.
    """
    followed = {"", *(str(node.target) for node in traced.returns)}
    holders = followed | {name.rpartition(".")[0] for name in traced.leaves}
    wanted = {".".join(parts[:n]) for parts in (name.split(".") for name in holders) for n in range(len(parts) + 1)}
    copies: dict[int, nn.Module] = {}

    def copy_of(original: nn.Module, name: str) -> nn.Module:
        if id(original) in copies:
            return copies[id(original)]
        if name not in wanted:
            return original
        copy = object.__new__(type(original))
        copies[id(original)] = copy
        copy.__dict__.update(original.__dict__)
        for own in ("_buffers", "_non_persistent_buffers_set"):  # the outermost copy gets buffers more
            copy.__dict__[own] = original.__dict__[own].copy()
        if name in followed:
            copy.__dict__.update({k: v for k, v in nn.Module().__dict__.items() if k.startswith("_forward")})
            copy.__dict__.pop("_compiled_call_impl", None)
            copy.__dict__["forward"] = _hand_on
        copy.__dict__["_modules"] = {
            key: child and copy_of(child, f"{name}.{key}" if name else key) for key, child in original._modules.items()
        }
        return copy

    return copy_of(module, "")


def _hand_on(value: Any) -> Any:
    """``value`` with lists and dictionaries that can be changed, as the network's code made them."""
    if isinstance(value, dict):
        return {key: _hand_on(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_hand_on(part) for part in value]
    return tuple(_hand_on(part) for part in value) if type(value) is tuple else value


def _equal(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, to the last bit; NaN equals NaN."""
    one, other = tensors_inside([a]), tensors_inside([b])
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
