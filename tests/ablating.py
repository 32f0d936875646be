"""Small networks whose units are taken away, over images that are tensors: what a Classified is, without files.

c = classified(network("linear"), images(40))
predict_without(c, [(0,), (1, 2)], c.images)
by_hooks(c, [(0,), (1, 2)], "zero")      # the same by hooks, an image at a time
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.loader import Batch
from ndissect.engine.run.settings import Settings
from ndissect.store.effects import Classes

UNITS, CLASSES, SIDE = 6, 5, 8
Head = Literal["linear", "places", "nonlinear"]


def network(head: Head) -> nn.Module:
    """Conv, ReLU, ``units`` (6 units, 4 x 4), then what gives 5 scores; unit 4 is dead."""
    torch.manual_seed(5)
    conv = nn.Conv2d(3, UNITS, 3, stride=2, padding=1)
    with torch.no_grad():
        conv.weight *= 3
        conv.weight[4], conv.bias[4] = 0, -1
    net = nn.Sequential()
    for name, module in {"conv": conv, "relu": nn.ReLU(), "units": nn.Identity()}.items():
        net.add_module(name, module)
    if head == "places":
        rest: list[nn.Module] = [nn.Flatten(), nn.Linear(UNITS * 16, CLASSES)]
    elif head == "linear":
        rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(UNITS, CLASSES)]
    else:
        between = nn.Conv2d(UNITS, 7, 3, padding=1)
        rest = [between, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, CLASSES)]
    for i, module in enumerate(rest):
        net.add_module(f"rest{i}", module)
    last = cast(nn.Linear, rest[-1])
    with torch.no_grad():
        last.weight *= 6
    return net.eval().requires_grad_(False)


def images(count: int) -> Tensor:
    """(count, 3, 8, 8): noise, each image of another colour and contrast."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 8, generator=g) * 2 * torch.rand(count, 1, 1, 1, generator=g) + torch.randn(
        count, 3, 1, 1, generator=g
    )


@dataclass(frozen=True)
class OfTensors(Classified):
    """Images that are tensors; ``bad``: numbers of those that cannot be read."""

    pixels: Tensor = field(default_factory=lambda: torch.empty(0))
    bad: tuple[int, ...] = ()

    def batches(self, images: Sequence[int]) -> Iterator[Batch]:
        size = self.settings.batch
        for start in range(0, len(images), size):
            asked = images[start : start + size]
            some = [i for i in asked if i not in self.bad]
            bad = [(i, None) for i in asked if i in self.bad]
            yield cast(Batch, Batch(some, bad, [self.pixels[some]], None, None, 0))  # type: ignore[arg-type]

    def inputs(self, batch: Batch) -> Tensor:
        return batch.pixels[0]

    def scores(self, output: Any) -> Tensor:
        return cast(Tensor, output)

    def truth_of(self, images: Sequence[int], scores: Tensor) -> Tensor:
        if self.truth_from == "prediction":
            return scores.argmax(1)
        return torch.from_numpy(self.truth[list(images)])


def classified(
    net: nn.Module,
    pixels: Tensor,
    *,
    layer: str = "units",
    units: int = UNITS,
    batch: int = 7,
    splits: tuple[str, ...] = ("train", "val"),
    truth_from: Literal["images", "prediction"] = "images",
    bad: tuple[int, ...] = (),
    **settings: Any,
) -> OfTensors:
    """Every third image is of ``val``; the truth is what the network says, wrong for every fourth image."""
    count = len(pixels)
    with torch.no_grad():
        truth = net(pixels).argmax(1).numpy()
    truth[::4] = (truth[::4] + 1) % CLASSES
    names = tuple(f"{i}.png" for i in range(count))
    return OfTensors(
        network=cast(
            Network,
            SimpleNamespace(
                module=net,
                spec="net",
                digest="d",
                name="net",
                origin={},
                preprocess=SimpleNamespace(describe=lambda: "none"),
            ),
        ),
        layer=LayerInfo(layer, "Identity", units, (4, 4)),
        classes=Classes(("kitchen", "street", "ski_resort", "attic", "sky"), "the network"),
        dataset=cast(Any, SimpleNamespace(name="tensors", names=names, tables_digest=lambda: "t")),
        truth=truth.astype(np.int64),
        truth_from=truth_from,
        images=list(range(count)),
        splits=splits,
        split=(np.arange(count) % 3 == 2).astype(np.int64) * (len(splits) - 1),
        notes=(),
        store=None,
        settings=Settings(batch=batch, **settings),
        progress=Progress(),
        _reading=cast(Any, None),
        _matching=cast(Any, None),
        pixels=pixels,
        bad=bad,
    )


def by_hooks(
    c: OfTensors, sets: Sequence[tuple[int, ...]], stand_in: Tensor, layer: str = "units"
) -> tuple[Tensor, Tensor]:
    """(N, E) classes and (N, E, K) scores without each set: the whole network for every image alone, by an edit.

    ``stand_in`` (N, U, h, w) or (1, U, 1, 1).
    """
    stand_in = stand_in.expand(len(c.pixels), *stand_in.shape[1:])
    scores = torch.empty(len(c.pixels), len(sets), CLASSES)
    for i, pixels in enumerate(c.pixels):
        for e, units in enumerate(sets):

            def edit(name: str, maps: Tensor, units: tuple[int, ...] = units, i: int = i) -> Tensor:
                changed = maps.clone()
                changed[:, list(units)] = stand_in[i : i + 1, list(units)].expand_as(maps[:, list(units)])
                return changed

            with torch.no_grad(), Capture(c.network.module, [layer], edit=edit):
                scores[i, e] = c.network.module(pixels[None])[0]
    return scores.argmax(2), scores
