"""What each unit of a layer adds to the score of a class, in three ways (docs/method.md, section 7.4).

Where the scores are linear in the layer's maps: in closed form. Elsewhere: the score less the score with that unit set
to zero at the layer's output, for each unit alone. Or, approximately: activation times gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.machine.device import computing, out_of_memory
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.linear_head import LinearHead
from ndissect.engine.networks.tail import Tail
from ndissect.engine.passes.forward import network_failed
from ndissect.store.errors import NDError

#: Hears how many ablations more are done.
Done = Callable[[int], None]


@dataclass(frozen=True)
class Question:
    """Whose score is explained: that of class ``wanted``, by None that of each image's prediction, less that of class
    ``versus``, by None that of none."""

    wanted: int | None = None
    versus: int | None = None

    def classes(self, scores: Tensor) -> Tensor:
        """(n,) int64: the class that is explained in each image; ``scores`` (n, K)."""
        return scores.argmax(1) if self.wanted is None else torch.full((len(scores),), self.wanted)

    def value(self, scores: Tensor, classes: Tensor) -> Tensor:
        """(n,) float64: the score that is explained, of ``scores`` (n, K)."""
        scores = scores.double()
        value = scores.gather(1, classes[:, None])[:, 0]
        return value if self.versus is None else value - scores[:, self.versus]

    def of_class(self, given: Callable[[Tensor], Tensor], classes: Tensor) -> Tensor:
        """What ``given`` says of ``classes`` (n,), less what it says of the class that these are held against."""
        value = given(classes)
        return value if self.versus is None else value - given(torch.full_like(classes, self.versus))


@dataclass(frozen=True)
class Answer:
    """``contributions`` (n, U) float64 to the score of ``classes`` (n,), ``scores`` (n, K) and the layer's ``maps``
    (n, U, h, w) of n images; ``bias`` (n,) float64, None where the head is not linear. All on the CPU."""

    classes: Tensor
    scores: Tensor
    maps: Tensor
    contributions: Tensor
    bias: Tensor | None = None


def in_closed_form(c: Classified, head: LinearHead, inputs: Tensor, question: Question) -> Answer:
    """The contributions by the weights of a linear head."""
    with (
        running(c, inputs),
        torch.no_grad(),
        Capture(c.network.module, [c.layer.name], {c.layer.name: c.tap}) as capture,
    ):
        scores = c.scores(c.network.module(inputs)).cpu()
        maps = capture[c.layer.name].cpu()
    classes = question.classes(scores)
    contributions = question.of_class(lambda k: head.contributions(maps, k), classes)
    bias = question.of_class(lambda k: head.bias[k], classes)
    return Answer(classes, scores, maps, contributions, bias)


def by_ablation(c: Classified, tail: Tail, inputs: Tensor, question: Question, done: Done) -> Answer:
    """The contributions as the score less the score with each unit alone set to zero.

    Where a batch has room for more than these images, it holds copies of them, in each of which another unit is zero.
    """
    images = len(inputs)
    copies = max(1, c.at_once // images)
    with running(c, inputs), torch.no_grad():
        scores = c.scores(tail.start(inputs.repeat(copies, 1, 1, 1))).cpu()
        units = tail.maps.shape[1]
        classes = question.classes(scores[:images])
        every = classes.repeat(copies)
        value = question.value(scores, every)
        lost = torch.empty(units, images, dtype=torch.float64)
        for first in range(0, units, copies):
            count = min(copies, units - first)
            without = c.scores(tail.run(partial(_without_one_each, images=images, first=first, count=count))).cpu()
            change = value - question.value(without, every)
            lost[first : first + count] = change[: count * images].view(count, images)
            done(count * images)
        maps = tail.maps[:images].float().cpu()
    return Answer(classes, scores[:images], maps, lost.T)


def _without_one_each(maps: Tensor, images: int, first: int, count: int) -> Tensor:
    """``maps`` of copies of some ``images``, copy after copy, without unit ``first`` in the first copy, without the
    next in the second, and so on, ``count`` in all."""
    changed = maps.clone()
    for copy in range(count):
        changed[copy * images : (copy + 1) * images, first + copy] = 0
    return changed


def by_gradient(c: Classified, inputs: Tensor, question: Question) -> Answer:
    """The contributions as activation times gradient, added up over the places of a map: approximate, one pass."""
    kept: list[Tensor] = []

    def leaf(_: str, maps: Tensor) -> Tensor:
        kept.append(maps.detach().requires_grad_())
        return kept[-1].clone()  # which the network may change in place

    name = c.layer.name
    with (
        running(c, inputs),
        torch.enable_grad(),
        Capture(c.network.module, [name], {name: c.tap}, edit=leaf),
    ):
        scores = c.scores(c.network.module(inputs)).cpu()
        classes = question.classes(scores.detach())
        value = question.value(scores, classes).sum()
        leads = bool(kept) and value.requires_grad
        gradient = torch.autograd.grad(value, kept[-1], allow_unused=True)[0] if leads else None
    if gradient is None:
        raise NDError(
            f"no gradient leads from the scores of {c.network.spec} back to {name}",
            "leave out --fast: units are then set to zero one by one",
        )
    maps = kept[-1].detach().float().cpu()
    contributions = (maps.double() * gradient.cpu().double()).sum((2, 3))
    return Answer(classes, scores.detach(), maps, contributions)


@contextlib.contextmanager
def running(c: Classified, inputs: Tensor) -> Iterator[None]:
    """The network may be run on ``inputs`` in the block; NDError where that fails."""
    try:
        with torch.inference_mode(False), computing("fp32", c.settings.device):
            yield
    except NDError:
        raise
    except Exception as e:
        if out_of_memory(e):
            raise NDError(
                f"the device ran out of memory over {c.network.spec}", "use a smaller --batch-size, or --device cpu"
            ) from e
        raise network_failed(c.network, inputs, e) from e
