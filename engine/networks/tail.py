"""The part of a network behind a layer, run again on one batch with other maps in the layer's place.

::

    with Tail(network.module, tap) as tail:
        plain = tail.start(inputs)                                  # the whole network, once
        without = tail.run(lambda maps: maps * alive[:, None, None])  # what follows the layer alone
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.recorded_calls import Call, Departed, Recorder, Replay, calls_go_to
from ndissect.engine.networks.taps import Tap, tensors_inside
from ndissect.store.errors import NDError

# How far the scores of what follows the layer may be from those of the whole network, as a share of the largest.
_SAME = 1e-5
# Passes until it is known which values are changed in place: one finds out, the next one copies them.
_RECORDINGS = 3


class Tail:
    """Runs ``module`` from the layer at ``tap`` on, for a block.

    ``maps``: (N, U, h, w), those of the latest :meth:`start`. ``alone``: whether what follows the layer can be run by
    itself, which is tried on the first batch: it gives what the whole network gives with the same edit. Where not, each
    run is of the whole network, and ``reason`` says why.

    Gradients are recorded only behind maps that ask for them (``requires_grad``), and where the caller records any. The
    module is as it was after the block, and between runs.
    """

    maps: Tensor
    alone: bool
    reason: str

    def __init__(self, module: nn.Module, tap: Tap) -> None:
        self.alone, self.reason = True, ""
        self._module, self._tap = module, tap
        self._layer = module.get_submodule(tap.module)
        self._calls: list[Call] = []
        self._copied: set[int] = set()
        self._inputs = torch.empty(0)
        self._tried = self._leaves_inputs = False
        # A hook that does nothing: some networks take another way where a layer has one, as it has when it is edited.
        self._hook = self._capture(observe=lambda name, output: None)

    def _capture(self, **how: Any) -> Capture:
        return Capture(self._module, [self._tap.module], {self._tap.module: self._tap}, **how)

    def __enter__(self) -> Self:
        self._hook.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.__exit__(kind, error, trace)
        self._calls, self._inputs = [], torch.empty(0)

    def start(self, inputs: Tensor) -> Any:
        """What the network returns for ``inputs`` (N, C, H, W); what the layers before the tail returned is kept.

        NDError where the network does not call the layer, or where its output holds no maps.
        """
        self._inputs = inputs
        output = self._record() if self.alone else None
        if not self.alone:
            with self._capture() as capture, torch.no_grad():
                output = self._pass()
                self.maps = capture[self._tap.module]
        elif not self._tried:
            self._try(output)
        self._tried = True
        return output

    def run(self, edit: Callable[[Tensor], Tensor]) -> Any:
        """What the network returns for the inputs of the latest :meth:`start` with ``edit(maps)`` in the layer's place.

        ``edit`` gets maps (N, U, h, w) that it must not change, and returns others of that shape.
        """
        edited = _switching_gradients(edit)
        if self.alone:
            try:
                return self._replay(edited)
            except Departed as e:
                self._give_up(str(e))
        return self._whole(edited)

    def _whole(self, edited: Callable[[Tensor], Tensor]) -> Any:
        with self._capture(edit=lambda name, maps: edited(maps)), torch.no_grad():
            return self._pass()

    def _replay(self, edited: Callable[[Tensor], Tensor]) -> Any:
        tap = self._tap
        replay = Replay(self._calls, self._copied, lambda output: tap.put_back(output, edited(tap.maps(output))))
        with torch.no_grad(), calls_go_to(replay.called, {call.module for call in self._calls}):
            output = self._pass()
        if not replay.ended:
            raise Departed("its code calls fewer layers than before")
        if changed := {call.number for call in self._calls if call.overwritten}:
            self._copied |= changed  # what came of them may be wrong
            self._record()
            if self.alone:
                return self._replay(edited)
            raise Departed(self.reason)
        return output

    def _pass(self) -> Any:
        """The network's output for the inputs, which it may change in place."""
        if self._leaves_inputs:
            return self._module(self._inputs)
        given = self._inputs.clone()
        output = self._module(given)
        self._leaves_inputs = not given.is_inference() and given._version == 0
        return output

    def _record(self) -> Any:
        """The network's output; the calls before the layer's are recorded anew, or that is given up."""
        for _ in range(_RECORDINGS):
            recorder = Recorder(self._layer, self._tap.call or 1, self._copied)
            try:
                with torch.no_grad(), calls_go_to(recorder.called, self._module.modules()), recorder:
                    output = self._pass()
            except Exception as e:  # of the network's code, which then fails by itself as well, or of taking its place
                if out_of_memory(e):
                    raise
                return self._give_up(f"its layers cannot be answered for: {type(e).__name__}")
            if not recorder.calls:
                return self._give_up("its layers are not called one by one")
            if recorder.calls_of_layer > 1 and not self._tap.call:
                return self._give_up("the layer is called several times")
            self._calls, self.maps = recorder.calls, self._tap.maps(recorder.calls[-1].output)
            changed = {call.number for call in self._calls if call.overwritten}
            if not changed:
                return output
            self._copied |= changed
        return self._give_up("it changes values in place in other ways each time")

    def _try(self, output: Any) -> None:
        """Whether what follows the layer gives by itself what the whole network gives, unedited and edited."""
        alive = torch.arange(self.maps.shape[1], device=self.maps.device)[:, None, None] % 2

        def every_second(maps: Tensor) -> Tensor:
            return maps * alive.to(maps.dtype)

        try:
            same = _agree(output, self.run(lambda maps: maps))
            same = same and _agree(self._whole(_switching_gradients(every_second)), self.run(every_second))
        except Exception as e:  # whatever the network's code raises
            if isinstance(e, NDError) or out_of_memory(e):
                raise
            self._give_up(f"what follows the layer fails by itself: {type(e).__name__}")
        else:
            if self.alone and not same:
                self._give_up("what follows the layer gives other scores by itself")

    def _give_up(self, reason: str) -> None:
        self.alone, self.reason, self._calls = False, reason, []


def _switching_gradients(edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``edit``, for a pass without gradients that goes on with them where the edited maps ask for them."""
    records = torch.is_grad_enabled()

    def edited(maps: Tensor) -> Tensor:
        with torch.set_grad_enabled(records):
            changed = edit(maps)
            if changed.requires_grad:
                changed = changed.clone()  # the network may change it in place
        torch.set_grad_enabled(records and changed.requires_grad)
        return changed

    return edited


def _agree(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, up to rounding; NaN equals NaN."""
    one, other = tensors_inside([a]), tensors_inside([b])
    return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    finite = a.isfinite()
    largest = float(a[finite].abs().max()) if finite.any() else 0.0
    return torch.allclose(a, b, rtol=0, atol=_SAME * largest, equal_nan=True)
