"""What a dissection tells of the network's outputs: the names of its classes, and the heads behind its layers.

Both are found on the two first images, before the images are counted, and go into the store with what is counted. A
shard saves them beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.examination.examine import second_image
from ndissect.engine.machine.device import computing
from ndissect.engine.machine.state import State, as_tensor, from_tensor
from ndissect.engine.networks.linear_head import LinearHead, find_linear_heads
from ndissect.engine.networks.output_names import class_names_of
from ndissect.engine.run.forward_pass import ForwardPass
from ndissect.store.effects import Classes, Head
from ndissect.store.model import Dissection

#: Under which name a shard's state has them.
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Outputs:
    """``classes``: None where the network gives no class scores, or nothing is told of them; ``heads``: by the number
    of the layer, of those layers in the means of whose maps the scores are linear."""

    classes: Classes | None = None
    heads: Mapping[int, Head] = field(default_factory=dict)

    def state(self) -> State:
        """The same as tensors."""
        if self.classes is None:
            return {}
        state = {"classes": as_tensor({"names": self.classes.names, "source": self.classes.source})}
        for i, head in self.heads.items():
            state |= {f"{i}.weight": torch.from_numpy(head.weight), f"{i}.bias": torch.from_numpy(head.bias)}
        return state

    @classmethod
    def from_state(cls, state: State, units: Sequence[int]) -> Outputs:
        """The inverse of :meth:`state`; ``units``: of each layer. ValueError where it is of other layers."""
        if not state:
            return NO_OUTPUTS
        said = from_tensor(state["classes"])
        classes = Classes(tuple(map(str, said["names"])), str(said["source"]))
        heads = {i: Head(_array(state[f"{i}.weight"]), _array(state[f"{i}.bias"])) for i in _numbers(state)}
        for i, head in heads.items():
            if head.weight.shape != (len(classes.names), units[i]) or head.bias.shape != (len(classes.names),):
                raise ValueError(f"a head of shape {head.weight.shape}")
        return cls(classes, heads)


NO_OUTPUTS = Outputs()


def find_outputs(forward_pass: ForwardPass) -> Outputs:
    """What is told of the outputs of a network that was examined: nothing where it gives no class scores, and no head
    where images are to pass one by one. No error, as a dissection does not need it, but WrongUse where a file of the
    user's names another number of outputs."""
    forward, network = forward_pass.forward, forward_pass.forward.network
    count, pooled = 0, {}
    with contextlib.suppress(Exception), forward_pass.clock.during("check", forward.device):
        first = forward_pass.loader.first(skip_bad=True)
        images = [first] if forward.batch.size < 2 else [first, second_image(forward_pass.loader, first)]
        with computing("fp32", forward.device):
            count, heads = find_linear_heads(network, forward.taps, forward.inputs(images, slice(0, len(images))))
<<<<<<< HEAD
        by_layer = [(i, heads[name]) for i, name in enumerate(forward.names) if name in heads]
        pooled = {i: _stored(head) for i, head in by_layer if head.pooled}
    return Outputs(_classes(network, count), pooled) if count and (pooled or network.classes) else NO_OUTPUTS
=======
        pooled = {
            i: _stored(heads[name]) for i, name in enumerate(forward.names) if name in heads and heads[name].pooled
        }
    if not count or not (pooled or network.classes):
        return NO_OUTPUTS
    return Outputs(class_names_of(network, outputs=count), pooled)
>>>>>>> classes


def with_outputs(dissection: Dissection, outputs: Outputs) -> Dissection:
    """``dissection`` with what is told of the network's outputs."""
    layers = [replace(layer, head=outputs.heads.get(i)) for i, layer in enumerate(dissection.layers)]
    return replace(dissection, layers=tuple(layers), classes=outputs.classes)


def _stored(head: LinearHead) -> Head:
    return Head(head.weight.numpy().astype(np.float32), head.bias.numpy().astype(np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.numpy(), np.float32)


def _numbers(state: State) -> list[int]:
    return sorted(int(name.partition(".")[0]) for name in state if name.endswith(".weight"))
