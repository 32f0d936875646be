"""The calls of modules that come before a layer's in a forward pass: recorded once, answered from the record later.

A module that is called before the layer, and does not call it, need not run again on the same inputs: what it returned
is handed out once more. Only the outermost of such calls count. Modules that call the layer (its containers) run their
own code again, which costs little; so what goes round the layer, as in a U-Net, arrives where it did before. Calls are
told apart by their number in the pass, so that a module may be called on both sides of the layer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ndissect.engine.networks.taps import copy_of, every_tensor, tensors_inside

#: Takes the place of a module's forward(): the module, its own forward(), arguments, and those by name.
Called = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


class Departed(BaseException):
    """Ends a pass that does not follow the record; no Exception, so that a network's own handlers let it through."""


class _Unused(Tensor):
    """Handed out in the place of what no operation takes, so that it need not be kept."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise Departed("its code takes values that it did not take before")


@dataclass(eq=False)
class Call:
    """A call of ``module``, the ``number``-th of the pass. ``enters``: it calls the layer, so that it runs again.

    ``output``: what it returned, or a tensor that complains when it is used where nothing took it. ``versions``: of the
    tensors in it, which tell whether they were changed in place; None where ``output`` is a copy.
    """

    number: int
    module: nn.Module
    enters: bool = False
    output: Any = None
    versions: tuple[int, ...] | None = None

    @property
    def overwritten(self) -> bool:
        """Whether the output was changed in place since the module returned it."""
        used = not isinstance(self.output, _Unused)
        return used and self.versions is not None and (self.versions != _versions(self.output) or -1 in self.versions)


@dataclass(eq=False)
class _Going:
    """A call that is going on: what it has called, and the outputs of these calls that its own code has taken."""

    call: Call
    inside: list[Call] = field(default_factory=list)
    taken: list[tuple[Call, Tensor]] = field(default_factory=list)


class Recorder(TorchFunctionMode):
    """Records one pass: ``calls``, in their order, the last of which is the ``which``-th of ``layer``.

    ``calls_of_layer``: how many there were in all.

    ``copied``: the numbers of calls whose outputs are changed in place later; copies of them are kept. Of the others
    no copy is made, and a tensor is kept only where an operation takes it. To be used as a context, with :meth:`called`
    in the place of each module's forward().
    """

    def __init__(self, layer: nn.Module, which: int, copied: set[int]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._layer, self._which, self._copied = layer, which, copied
        self._going: list[_Going] = []
        self._number = self.calls_of_layer = 0
        self._returned_by: MutableMapping[Tensor, list[Call]] = WeakTensorKeyDictionary()

    def called(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if self.calls:  # behind the layer
            self._take((args, kwargs))
            self.calls_of_layer += module is self._layer
            return forward(*args, **kwargs)
        going = _Going(Call(self._number, module, enters=True))
        self._number += 1
        self._going.append(going)
        try:
            output = forward(*args, **kwargs)
        finally:
            if not self.calls:
                self._going.remove(going)
        if not self.calls:
            with torch._C.DisableTorchFunction():  # what is looked at here, the network does not take
                self._returned(going.call, output)
        return output

    def _returned(self, call: Call, output: Any) -> None:
        """Notes a call that has ended before the layer's, or is the layer's."""
        call.enters, call.output, call.versions = False, output, _versions(output)
        self.calls_of_layer += call.module is self._layer
        reached = call.module is self._layer and self.calls_of_layer == self._which
        if call.number in self._copied:
            with torch.inference_mode(False):
                call.output, call.versions = copy_of(output), None
        elif isinstance(output, Tensor):
            calls = [*self._returned_by.get(output, ()), call]
            self._returned_by[output] = calls
            for earlier in calls:  # such as a normalization, whose output a ReLU changed in place and returned
                earlier.versions = call.versions
            if not reached:
                call.output = _UNUSED
        if not reached:
            if self._going:
                self._going[-1].inside.append(call)
            return
        for going in self._going:
            self.calls += [going.call, *going.inside]
            for taken, tensor in going.taken:
                taken.output = tensor
        self.calls.append(call)

    def _take(self, value: Any) -> None:
        for tensor in every_tensor(value):
            for call in self._returned_by.get(tensor, ()):
                if self.calls:
                    call.output = tensor
                elif self._going:
                    self._going[-1].taken.append((call, tensor))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._take((args, kwargs))
        return func(*args, **(kwargs or {}))


class Replay:
    """Answers the calls of a pass from ``calls``, as a :class:`Recorder` left them.

    ``edit`` makes of the layer's output what the pass goes on with.
    ``copied``: the numbers of calls whose outputs are handed out as copies, since the pass changes them in place.
    """

    def __init__(self, calls: Sequence[Call], copied: set[int], edit: Callable[[Any], Any]) -> None:
        self._calls, self._copied, self._edit = calls, copied, edit
        self._next = 0

    def called(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if self.ended:
            return forward(*args, **kwargs)
        call = self._calls[self._next]
        if call.module is not module:
            raise Departed("its code calls its layers in another order each time")
        self._next += 1
        if call.enters:
            return forward(*args, **kwargs)
        output = copy_of(call.output) if call.number in self._copied else _handed_out(call.output)
        return self._edit(output) if self.ended else output

    @property
    def ended(self) -> bool:
        """Whether all calls were answered, the layer's own too."""
        return self._next == len(self._calls)


@contextlib.contextmanager
def calls_go_to(called: Called, modules: Iterable[nn.Module]) -> Iterator[None]:
    """For the block, ``called`` takes the place of the forward() of each of ``modules``, which are then as before."""
    before: list[tuple[nn.Module, Any]] = []
    try:
        for module in modules:
            forward = module.forward
            before.append((module, module.__dict__.get("forward", _UNUSED)))
            module.__dict__["forward"] = _in_place_of(forward, called, module)
        yield
    finally:
        for module, own in before:
            if own is _UNUSED:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own


def _in_place_of(forward: Callable[..., Any], called: Called, module: nn.Module) -> Callable[..., Any]:
    @functools.wraps(forward)  # some code asks for the names of its arguments
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return called(module, forward, args, kwargs)

    return replaced


def _versions(output: Any) -> tuple[int, ...]:
    """How often each tensor of ``output`` was changed in place; -1 for those made in inference mode, which do not
    count."""
    tensors = [output] if isinstance(output, Tensor) else tensors_inside(output).values()
    return tuple(-1 if t.is_inference() else t._version for t in tensors)


def _handed_out(output: Any) -> Any:
    """``output`` with lists and dictionaries of its own, to which the network's code may append."""
    if type(output) is list:
        return [_handed_out(part) for part in output]
    return {key: _handed_out(part) for key, part in output.items()} if type(output) is dict else output


_UNUSED = torch.empty(0).as_subclass(_Unused)
