"""What named layers of a network return while it runs: kept as activation maps, looked at, or changed.

::

    with Capture(network, ["layer3", "layer4"]) as capture:
        capture.run(images)            # stops after the last layer that is wanted
        capture["layer4"]              # (N, U, h, w)

    with Capture(network, ["layer4"], edit=lambda name, maps: maps * alive[:, None, None]):
        network(images)                # scores without some units of layer4

Where a layer is called several times in one pass, the map of its last call is kept. This is the one place where hooks
are put on modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ndissect.store.errors import NDError

#: Looks at what a layer returned, at every call: its name, and the output, which may be anything.
Observe = Callable[[str, Any], None]
#: The maps that the network goes on with in place of those of the layer: the same shape, from its name and its maps.
Edit = Callable[[str, Tensor], Tensor]


class _Enough(BaseException):
    """Ends a forward pass from inside a hook; no Exception, so that a network's own handlers let it through."""


class Capture:
    """Hooks on the layers ``names`` of ``module`` for a block.

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
        *,
        stop: bool = True,
        observe: Observe | None = None,
        edit: Edit | None = None,
        enter: Callable[[str], None] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._module = module
        self._layers = {name: module.get_submodule(name) for name in self.names}
        self._stop, self._observe, self._edit, self._enter = stop, observe, edit, enter
        self._maps: dict[str, Tensor] = {}
        self._shapes: dict[tuple[str, int], tuple[int, ...]] = {}
        self._calls = dict.fromkeys(self.names, 0)
        self._expected: dict[str, int] | None = None
        self._running = False
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        keeps = self._observe is None and self._edit is None
        if keeps:
            # The outermost hook: a pass that the caller starts himself begins anew as well.
            self._handles.append(nn.Module.register_forward_pre_hook(self._module, self._begin))
        for name, layer in self._layers.items():
            if self._enter is not None:
                self._handles.append(nn.Module.register_forward_pre_hook(layer, self._entering(name)))
            hook = self._keeping(name) if keeps else self._passing(name)
            # What keeps maps may end the pass from its hook, so that it comes last. Modules of TorchScript hide the
            # method of their base class, and call hooks all the same where Python calls them.
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
        if name not in self._layers:
            raise KeyError(name)
        if name not in self._maps:
            raise NDError(
                f"the layer {name} was not called in the forward pass", "`nd layers NETWORK` lists the layers that are"
            )
        return self._maps[name]

    def run(self, x: Tensor) -> None:
        """Runs the network on ``x`` without gradients, no further than the last wanted layer."""
        self._running = True
        try:
            with torch.no_grad():
                self._module(x)
            if self._expected is None:
                self._expected = dict(self._calls)
        except _Enough:
            pass
        finally:
            self._running = False

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._maps.clear()
        self._calls = dict.fromkeys(self.names, 0)

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(layer: nn.Module, args: Any) -> None:
            assert self._enter is not None
            self._enter(name)

        return hook

    def _passing(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(layer: nn.Module, args: Any, output: Any) -> Any:
            if self._edit is not None:
                _demand_map(name, output)
                output = self._edit(name, output)
            if self._observe is not None:
                self._observe(name, output)
            return output if self._edit is not None else None

        return hook

    def _keeping(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            _demand_map(name, output)
            shape = tuple(output.shape[1:])
            before = self._shapes.setdefault((name, self._calls[name]), shape)
            if before != shape:
                raise NDError(
                    f"the layer {name} changed its shape between batches: {_times(before)}, then {_times(shape)}",
                    "All images must reach the network at one size: add a resize to its transform, or --size",
                )
            self._calls[name] += 1
            enough = self._running and self._stop and self._calls == self._expected
            # Nothing runs after the last layer, so nothing can overwrite its map.
            self._maps[name] = output.detach() if enough else output.detach().clone()
            if enough:
                raise _Enough

        return hook


def _demand_map(name: str, output: object) -> None:
    """NDError where the output of the layer ``name`` is no activation map."""
    reason = not_a_map(output)
    if reason:
        raise NDError(f"the layer {name} is not a map: {reason}", "`nd layers NETWORK` says which layers are")


def not_a_map(output: object) -> str:
    """Why a layer's output is no activation map of shape (N, U, h, w); "" where it is one."""
    if not isinstance(output, Tensor):
        if isinstance(output, tuple | list):
            return f"returns a {type(output).__name__} of {len(output)}"
        return f"returns a {type(output).__name__}"
    if output.ndim != 4:
        return f"shape (N{''.join(f', {n}' for n in output.shape[1:])})"
    if not output.is_floating_point():
        return f"{str(output.dtype).removeprefix('torch.')} values"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
