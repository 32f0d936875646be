"""What named layers of a network return while it runs: kept as activation maps, looked at, or changed.

::

    with Capture(network, ["layer3", "layer4"]) as capture:
        capture.run(images)            # stops after the last layer that is wanted
        capture["layer4"]              # (N, U, h, w)

    with Capture(network, ["layer4"], edit=lambda name, maps: maps * alive[:, None, None]):
        network(images)                # scores without some units of layer4

Where a layer is called several times in one pass, the map of its last call is kept, unless its tap names another
(ndissect.engine.networks.taps). This is the one place where hooks are put on modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ndissect.engine.networks.taps import Tap
from ndissect.store.errors import NDError

#: Looks at what a layer returned, at every call of it, or at that which its tap names: its name, and the output, which
#: may be anything.
Observe = Callable[[str, Any], None]
#: The maps that the network goes on with in place of those of the layer: the same shape, from its name and its maps.
Edit = Callable[[str, Tensor], Tensor]


class _Enough(BaseException):
    """Ends a forward pass from inside a hook; no Exception, so that a network's own handlers let it through."""


class Capture:
    """Hooks on the layers ``names`` of ``module`` for a block.

    ``taps``: by name, where the maps of a layer are and how they are made; without one its name is that of a module
    that returns maps.

    By itself it keeps their activation maps, by name, after each forward pass. Maps are (N, U, h, w) tensors on the
    network's device, without gradients, and stay as they were when the layer returned them: a later in-place operation
    (ReLU) does not reach them. The first pass counts the layers' calls; later ones through ``run`` stop when all were
    seen (not with ``stop=False``).

    With ``observe`` it hands every output to that function instead; with ``edit`` it changes the maps on their way
    through the network. Both come before any capture that keeps maps, so that what is kept is what was edited.
    ``enter``, called with a layer's name before each of its calls, goes with ``observe``.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        taps: Mapping[str, Tap] | None = None,
        *,
        stop: bool = True,
        observe: Observe | None = None,
        edit: Edit | None = None,
        enter: Callable[[str], None] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._module = module
        self._taps = {name: (taps or {}).get(name) or Tap(name) for name in self.names}
        self._stop, self._observe, self._edit, self._enter = stop, observe, edit, enter
        self._maps: dict[str, Tensor] = {}
        self._shapes: dict[tuple[str, int], tuple[int, ...]] = {}
        self._calls = dict.fromkeys(self.names, 0)
        self._expected: dict[str, int] | None = None
        self._running = False
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        keeps = self._observe is None and self._edit is None
        # The outermost hook: a pass that the caller starts himself begins anew as well. Modules of TorchScript hide the
        # methods of their base class, and call hooks all the same where Python calls them.
        self._handles.append(nn.Module.register_forward_pre_hook(self._module, self._begin))
        for name, tap in self._taps.items():
            layer = self._module.get_submodule(tap.module)
            if self._enter is not None:
                self._handles.append(nn.Module.register_forward_pre_hook(layer, self._entering(name)))
            hook = self._keeping(name, tap) if keeps else self._passing(name, tap)
            # What keeps maps may end the pass from its hook, so that it comes last.
            self._handles.append(nn.Module.register_forward_hook(layer, hook, prepend=not keeps))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._maps.clear()

    def __getitem__(self, name: str) -> Tensor:
        """(N, U, h, w): the map of ``name`` in the latest pass; NDError where that pass did not call the layer."""
        if name not in self._taps:
            raise KeyError(name)
        if name not in self._maps:
            raise NDError(
                f"the layer {name} was not called in the forward pass", "`nd layers NETWORK` lists the layers that are"
            )
        return self._maps[name]

    def run(self, x: Tensor) -> Any:
        """Runs the network on ``x`` without gradients, no further than the last wanted layer.

        What it returns; None where it was stopped before its end.
        """
        output = None
        self._running = True
        try:
            with torch.no_grad():
                output = self._module(x)
            if self._expected is None:
                self._expected = dict(self._calls)
        except _Enough:
            pass
        finally:
            self._running = False
        return output

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._maps.clear()
        self._calls = dict.fromkeys(self.names, 0)

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(layer: nn.Module, args: Any) -> None:
            assert self._enter is not None
            self._enter(name)

        return hook

    def _meant(self, name: str, tap: Tap) -> bool:
        """Counts a call of the layer; whether the tap takes the maps of this one, or of all as long as they follow."""
        self._calls[name] += 1
        return tap.call in (0, self._calls[name])

    def _passing(self, name: str, tap: Tap) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(layer: nn.Module, args: Any, output: Any) -> Any:
            if not self._meant(name, tap):
                return None
            if self._edit is not None:
                output = tap.put_back(output, self._edit(name, _maps_of(name, tap, output)))
            if self._observe is not None:
                self._observe(name, tap.item(output))
            return output if self._edit is not None else None

        return hook

    def _keeping(self, name: str, tap: Tap) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            if not self._meant(name, tap):
                return
            maps = _maps_of(name, tap, output)
            shape = tuple(maps.shape[1:])
            before = self._shapes.setdefault((name, self._calls[name]), shape)
            if before != shape:
                raise NDError(
                    f"the layer {name} changed its shape between batches: {_times(before)}, then {_times(shape)}",
                    "All images must reach the network at one size: add a resize to its transform, or --size",
                )
            enough = self._running and self._stop and self._expected is not None and self._all_taken()
            self._maps[name] = _kept(maps, tap, last=enough)
            if enough:
                raise _Enough

        return hook

    def _all_taken(self) -> bool:
        """Whether the calls that the taps take are over, by how many there were in the first pass."""
        assert self._expected is not None
        return all(self._calls[name] >= (tap.call or self._expected[name]) for name, tap in self._taps.items())


def _maps_of(name: str, tap: Tap, output: object) -> Tensor:
    """The maps in the output of the layer ``name``; NDError where it has none."""
    try:
        return tap.maps(output)
    except NDError as e:
        said = e.message.removeprefix("not a map: ")
        raise NDError(
            f"the layer {name} is not a map: {said}", e.hint or "`nd layers NETWORK` says which layers are"
        ) from e


def _kept(maps: Tensor, tap: Tap, *, last: bool) -> Tensor:
    """The maps as they are now. Nothing runs after the ``last`` layer, so nothing can overwrite its map.

    What was made under inference_mode is copied outside of it, so that it can be worked on like any other tensor.
    """
    maps = maps.detach()
    with torch.inference_mode(False):
        if last and not maps.is_inference() and tap.layout.order == "NUhw":
            return maps
        return maps.clone() if tap.layout.order == "NUhw" else maps.clone(memory_format=torch.contiguous_format)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
