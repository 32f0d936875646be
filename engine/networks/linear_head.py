"""Whether a network's class scores are linear in the maps of a layer, found by tracing and checked by numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from ndissect.engine.machine.device import out_of_memory
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.linear_rules import ValuesLookedAt, linear_in
from ndissect.engine.networks.resolve import Network
from ndissect.engine.networks.scores import raw_scores
from ndissect.engine.networks.taps import Tap
from ndissect.store.errors import NDError

#: How far the contributions and the bias may be from the score, as a share of the largest score.
EXACT = 1e-5

# Bytes that the weights of every place may take; those that one backward pass of several classes may take.
_LARGEST, _AT_ONCE = 1 << 30, 1 << 21
# How far weights of places may be apart that are taken as one, as a share of the largest.
_ALIKE = 1e-6


@dataclass(frozen=True)
class LinearHead:
    """score(k) = bias(k) + sum over units u and places p of weight(k, u, p) A_u(p).

    ``weight`` (K, U) float64 where every place counts alike: score = bias + weight @ mean(A_u); (K, U, h, w) float64
    where not; ``bias`` (K,) float64; both on the CPU.
    """

    weight: Tensor
    bias: Tensor

    @property
    def pooled(self) -> bool:
        """Whether the scores are linear in the mean of each map."""
        return self.weight.ndim == 2

    def contributions(self, maps: Tensor, classes: Tensor) -> Tensor:
        """(N, U) float64 on the CPU: what each unit adds to the score of one class of each image.

        ``maps`` (N, U, h, w), ``classes`` (N,) int64. With ``bias`` they sum to the score.
        """
        weight = self.weight[classes.cpu()]
        maps = maps.detach().cpu()
        if self.pooled:
            return weight * maps.double().mean((2, 3))
        return (weight * maps).sum((2, 3))


def find_linear_head(network: Network, tap: Tap, inputs: Tensor) -> LinearHead | None:
    """The head behind the layer at ``tap``, tried on ``inputs`` (N, C, H, W), two images or more, on the network's
    device.

    None where the scores are not linear in the layer's maps (a nonlinearity follows it, or another way goes round it),
    or where the weights of every place would take more than 1 GB. WrongUse where the network gives no class scores.
    """
    return find_linear_heads(network, {tap.module: tap}, inputs)[1].get(tap.module)


def find_linear_heads(network: Network, taps: Mapping[str, Tap], inputs: Tensor) -> tuple[int, dict[str, LinearHead]]:
    """The number of classes, and by name the heads behind those of the layers at ``taps`` that have one.

    As :func:`find_linear_head`, in two forward passes for all layers together; one, where no layer has a head, or where
    there is one image alone, of which every head would be right.
    """
    # No operation keeps its inputs in the first one: it takes no more memory than any other pass.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: torch.empty(0)):
        first = _followed(network, taps, inputs)
    if not first.linear or len(inputs) < 2:
        return first.scores.shape[1], {}
    again = _followed(network, {name: taps[name] for name in first.linear}, inputs)
    heads = {name: _head(again.scores, again.maps[name]) for name in taps if name in again.linear}
    return first.scores.shape[1], {name: head for name, head in heads.items() if head is not None}


@dataclass(frozen=True)
class _Followed:
    """A pass that autograd followed: ``scores`` (N, K), the ``maps`` on their way into the network, and the names of
    those in which the scores are ``linear``."""

    scores: Tensor
    maps: Mapping[str, Tensor]
    linear: set[str]


def _followed(network: Network, taps: Mapping[str, Tap], inputs: Tensor) -> _Followed:
    entered: dict[str, list[tuple[Tensor, Node]]] = {name: [] for name in taps}

    def enter(name: str, maps: Tensor) -> Tensor:
        maps = (maps if maps.requires_grad else maps.detach().requires_grad_()).clone()
        going_on = maps.clone()  # which the network may change in place
        assert going_on.grad_fn is not None
        entered[name].append((maps, going_on.grad_fn))
        return going_on

    watching = ValuesLookedAt()
    try:
        with warnings.catch_warnings(), Capture(network.module, list(taps), taps, edit=enter), torch.enable_grad():
            warnings.simplefilter("ignore")  # of values that are looked at while they are followed
            with watching:
                output = network.module(inputs.clone())
    except Exception as e:  # of code that runs without gradients alone
        if isinstance(e, NDError) or out_of_memory(e):
            raise
        with torch.no_grad():
            return _Followed(raw_scores(network.spec, network.module(inputs.clone())), {}, set())
    scores = raw_scores(network.spec, output)
    once = {name: calls[0] for name, calls in entered.items() if len(calls) == 1}
    every = [node for calls in entered.values() for _, node in calls]
    # What scripted code looks at is not seen.
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in network.module.modules())
    marked = {} if scripted else {name: node for name, (_, node) in once.items()}
    linear = linear_in(marked, scores, watching.nodes, every)
    return _Followed(scores, {name: maps for name, (maps, _) in once.items()}, linear)


def _head(scores: Tensor, maps: Tensor) -> LinearHead | None:
    """The head that gives ``scores`` (N, K) of ``maps`` (N, U, h, w), to which autograd leads; None where none does."""
    pooled = _weights(scores, maps, pooled=True)
    full = scores.shape[1] * maps[0].numel() * 8 <= _LARGEST
    weight = pooled if pooled is not None else _weights(scores, maps, pooled=False) if full else None
    if weight is None:
        return None
    given, values = scores.detach().cpu().double(), maps.detach().cpu().double()
    parts = values.mean((2, 3)) @ weight.T if weight.ndim == 2 else values.flatten(1) @ weight.flatten(1).T
    # What the maps do not explain is the same for all images, or comes another way.
    rest = given - parts
    bias = rest.mean(0)
    exact = (rest - bias).abs().max() <= EXACT * given.abs().max()
    return LinearHead(weight, bias) if exact else None


def _weights(scores: Tensor, maps: Tensor, *, pooled: bool) -> Tensor | None:
    """(K, U) float64 on the CPU, if ``pooled``, else (K, U, h, w): the slopes of the scores, each at one of the images.

    None where it is to be pooled, and the places differ.
    """
    (n, k), places = scores.shape, maps.shape[2] * maps.shape[3]
    passes = max(1, _AT_ONCE // max(1, maps.numel() * maps.element_size()))
    parts = []
    for classes in torch.split(torch.arange(k, device=scores.device), passes * n):
        rows = torch.arange(len(classes), device=scores.device)
        asked = torch.zeros(-(-len(classes) // n), n, k, dtype=scores.dtype, device=scores.device)
        asked[rows // n, rows % n, classes] = 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that are not quick for several classes at a time
            (slopes,) = torch.autograd.grad(scores, maps, asked, retain_graph=True, is_grads_batched=True)
        part = slopes.flatten(0, 1)[: len(classes)]
        if pooled:
            first = part[:, :, :1, :1]
            if not (part - first).abs().max() <= _ALIKE * part.abs().max():
                return None
            part = first[:, :, 0, 0] * places
        parts.append(part.cpu().double())
    return torch.cat(parts)
