"""A rotated layer in its network: what follows it, fed W Q^T in place of W, predicts what it did before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.scores import first_tensor
from ndissect.engine.networks.taps import Tap

_PASSES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_PASSING = (nn.functional.adaptive_avg_pool2d, nn.functional.avg_pool2d, nn.functional.dropout)
_MEANS = ((2, 3), (-2, -1), (3, 2), (-1, -2))


@dataclass(frozen=True)
class Check:
    """``same`` of ``images`` predictions did not change; scores, up to ``scale``, differ by at most ``difference``.

    The layer was rotated by each of several random rotations, the worst of which counts. ``folded``: the layers into
    whose weights the counter-rotation went; empty where that cannot be, and the map itself was rotated back.
    """

    folded: tuple[str, ...]
    images: int
    same: int
    difference: float
    scale: float

    def __str__(self) -> str:
        how = f"in the weights of {' and '.join(self.folded)}" if self.folded else "right after it"
        said = f"{self.same} of {self.images} predictions are the same"
        return (
            f"rotated, and rotated back {how}: {said}, scores of up to {self.scale:.3g} move by {self.difference:.1g}"
        )


def check(
    network: Network, inputs: Iterable[Tensor], layer: LayerInfo, rotations: Sequence[np.ndarray]
) -> Check | None:
    """Compare the predictions of ``network`` with those of it rotated at ``layer`` by each of ``rotations`` (U, U).

    ``inputs``: batches as the network takes them. None where its output is not scores: a tensor (n, classes, ...).
    """
    module = network.module
    tap = layer.tap or Tap(layer.name)
    consumers = linear_consumers(module, layer.name) if layer.calls == 1 and tap == Tap(layer.name) else ()
    images = same = 0
    difference = scale = 0.0
    for x in inputs:
        with torch.no_grad():
            plain = _scores(module(x))
            if plain is None:
                return None
            agree = torch.ones(len(x), dtype=torch.bool, device=plain.device)
            for matrix in rotations:
                with _rotated(module, tap, torch.from_numpy(matrix), plain.device, consumers):
                    rotated = _scores(module(x))
                assert rotated is not None
                agree &= (rotated.argmax(1) == plain.argmax(1)).reshape(len(x), -1).all(1)
                difference = max(difference, float((rotated - plain).abs().max()))
        images, same = images + len(x), same + int(agree.sum())
        scale = max(scale, float(plain.abs().max()))
    return Check(tuple(consumers), images, same, difference, scale) if images else None


def _scores(output: object) -> Tensor | None:
    """The scores (n, classes, ...) in what a network returns, of whole images or of every pixel."""
    scores = first_tensor(output)
    return None if scores is None or scores.ndim < 2 or not scores.is_floating_point() else scores.float()


@contextlib.contextmanager
def _rotated(module: nn.Module, tap: Tap, q: Tensor, device: torch.device, consumers: Sequence[str]) -> Iterator[None]:
    """The network with the maps at ``tap`` rotated by ``q``, float64 on the CPU, and back by what follows."""
    single = q.float().to(device)

    def rotate(name: str, maps: Tensor) -> Tensor:
        turned = torch.einsum("vu,nuhw->nvhw", single, maps)
        return turned if consumers else torch.einsum("vu,nvhw->nuhw", single, turned)

    before = {name: _weight(module, name).clone() for name in consumers}
    try:
        for name, weight in before.items():
            # W Q^T: for each place of a kernel, or of a flattened map, over the units.
            w = weight.cpu().double().view(len(weight), len(q), -1)
            _weight(module, name).copy_(torch.einsum("ouk,vu->ovk", w, q).reshape(weight.shape))
        with Capture(module, [tap.module], {tap.module: tap}, edit=rotate):
            yield
    finally:
        for name, weight in before.items():
            _weight(module, name).copy_(weight)


def _weight(module: nn.Module, name: str) -> Tensor:
    weight = module.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def linear_consumers(module: nn.Module, layer: str) -> tuple[str, ...]:
    """The plain convolutions and linear layers that take all of the layer's output, through nothing but averaging.

    Empty where something else takes it too (a ReLU, a sum, max pooling), or where the network's code cannot be traced.
    """
    tracer = _Tracer()
    tracer.layer = layer
    try:
        graph = tracer.trace(module)
    except Exception:  # whatever the network's own code makes of a traced value
        return ()
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    start = [node for node in graph.nodes if node.op == "call_module" and node.target == layer]
    consumers = _follow(module, start[0], flat=False) if len(start) == 1 else None
    if not consumers or any(calls.count(name) != 1 for name in consumers):
        return ()
    return tuple(dict.fromkeys(consumers))


class _Tracer(fx.Tracer):
    """Records what a network does, with one layer as a single step."""

    layer = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self.layer or super().is_leaf_module(m, module_qualified_name)


def _follow(module: nn.Module, node: fx.Node, *, flat: bool) -> list[str] | None:
    """The consumers behind ``node``; None where one of its users is none. ``flat``: units and places in one axis."""
    consumers: list[str] = []
    for user in node.users:
        behind = _user(module, user, node, flat)
        if behind is None:
            return None
        consumers += behind
    return consumers


def _user(module: nn.Module, user: fx.Node, node: fx.Node, flat: bool) -> list[str] | None:
    if user.op == "call_module":
        name = str(user.target)
        m = module.get_submodule(name)
        if (type(m) is nn.Conv2d and m.groups == 1 and not flat) or (type(m) is nn.Linear and flat):
            return [name]
        if isinstance(m, nn.Flatten):
            return _follow(module, user, flat=True) if (m.start_dim, m.end_dim) == (1, -1) else None
        return _follow(module, user, flat=flat) if type(m) in _PASSES else None
    if _asks_for_the_shape(user):
        return []
    passing = (user.op == "call_function" and user.target in _PASSING) or user.target == "contiguous"
    if passing:
        return _follow(module, user, flat=flat)
    return _follow(module, user, flat=True) if not flat and _flattens(user, node) else None


def _asks_for_the_shape(user: fx.Node) -> bool:
    return user.target == "size" or bool(user.target is getattr and user.args[1] == "shape")


def _flattens(user: fx.Node, node: fx.Node) -> bool:
    """Whether ``user`` makes (N, U) or (N, U h w) of a map: a mean over places, or flattening."""
    if not user.args or user.args[0] is not node:
        return False
    rest = user.args[1:]
    if user.target in ("mean", torch.mean):
        dims = rest[0] if rest else user.kwargs.get("dim")
        keep = rest[1] if len(rest) > 1 else user.kwargs.get("keepdim", False)
        return isinstance(dims, tuple | list) and tuple(dims) in _MEANS and not keep
    if user.target in ("flatten", torch.flatten):
        return bool(rest == (1,) or user.kwargs.get("start_dim") == 1)
    return bool(user.target in ("view", "reshape") and len(rest) == 2 and rest[1] == -1)
