"""What ablations of single units cost beside one bare forward pass of the whole network over the same images.

    OMP_NUM_THREADS=1 python tests/benchmarks/ablation.py [--images 128] [--units 8] [--rounds 3] [--batch 32]

The network is torchvision's ResNet-18 without weights, at 224 px; images are noise, and in memory. In turns:

    bare      the network over all images, nothing else
    layer4    without each of its 512 units alone: the head behind it is linear, so all follow from one pass; goal: 1.5
    layer3    without each of ``units`` of its 256 units: what follows it runs again; goal: 0.35 for a unit
    a hook    that zeroes one channel of layer3, and the whole network again, as the authors' code does: 1.0 for a unit

Told are ratios to the bare pass of the same round, by the clock and by processor seconds, which other work on the
machine moves less: the least and the largest of all rounds. Of layer3 the share of a unit among all 256 counts: what is
done once (the pass itself, and trying whether what follows can be run alone) is measured with a single unit, and
divided by 256.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ndissect.engine.experiments.classified import Classified
from ndissect.engine.experiments.predictions import predict_without
from ndissect.engine.machine.device import choose_device, exact_arithmetic
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo, list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.run.settings import Settings
from ndissect.store.effects import Classes

SIZE, UNITS_OF_LAYER3, CLASSES = 224, 256, 1000


@dataclass(frozen=True)
class Held:
    """Images of a batch, by number."""

    images: list[int]
    bad: tuple[()] = ()

    def __len__(self) -> int:
        return len(self.images)


class InMemory(Classified):
    """A network, and images that lie in memory as it takes them; their classes are what it predicts."""

    def __init__(self, network: Network, layer: LayerInfo, inputs: Tensor, batch: int) -> None:
        number = len(inputs)
        super().__init__(
            network=network,
            layer=layer,
            classes=Classes(tuple(map(str, range(CLASSES))), "number"),
            dataset=SimpleNamespace(names=tuple(map(str, range(number)))),  # type: ignore[arg-type]
            truth=np.full(number, -1, np.int64),
            truth_from="prediction",
            images=list(range(number)),
            splits=("all",),
            split=np.zeros(number, np.int64),
            notes=(),
            store=None,
            settings=Settings(device=choose_device("cpu"), batch=batch),
            progress=Progress(),
            _reading=None,  # type: ignore[arg-type]
            _matching=None,  # type: ignore[arg-type]
        )
        object.__setattr__(self, "held", inputs)

    def batches(self, images: Sequence[int]) -> Iterator[Any]:
        size = self.settings.batch
        yield from (Held(list(images[start : start + size])) for start in range(0, len(images), size))

    def inputs(self, batch: Any) -> Tensor:
        held: Tensor = self.held  # type: ignore[attr-defined]
        return held[batch.images]

    def scores(self, output: Any) -> Tensor:
        return output  # type: ignore[no-any-return]

    def truth_of(self, images: Sequence[int], scores: Tensor) -> Tensor:
        return scores.argmax(1)


@dataclass(frozen=True)
class Seconds:
    """By the clock, and of the processors."""

    clock: float
    processor: float

    def of(self, bare: Seconds) -> tuple[float, float]:
        return self.clock / bare.clock, self.processor / bare.processor


def seconds(work: Callable[[], object]) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


def bare(network: Network, inputs: Tensor, batch: int) -> None:
    with torch.no_grad():
        for start in range(0, len(inputs), batch):
            network.module(inputs[start : start + batch])


def by_hook(network: Network, inputs: Tensor, batch: int, unit: int) -> None:
    def zeroed(module: object, args: object, output: Tensor) -> Tensor:
        output[:, unit] = 0
        return output

    with network.module.get_submodule("layer3").register_forward_hook(zeroed):
        bare(network, inputs, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--units", type=int, default=8, help="of layer3, two at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()

    exact_arithmetic()
    torch.manual_seed(0)
    network = load_network("torchvision:resnet18@none")
    layers = {info.name: info for info in list_layers(network, (SIZE, SIZE))}
    inputs = torch.randn(given.images, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def ablate(layer: str, units: int) -> Callable[[], object]:
        c = InMemory(network, layers[layer], inputs, given.batch)
        return lambda: predict_without(c, [(unit,) for unit in range(units)], c.images)

    bare(network, inputs[: given.batch], given.batch)
    ratios: dict[str, list[tuple[float, float]]] = {}
    for _ in range(given.rounds):
        whole = seconds(lambda: bare(network, inputs, given.batch))
        layer4 = seconds(ablate("layer4", layers["layer4"].units))
        once = seconds(ablate("layer3", 1))
        some = seconds(ablate("layer3", given.units))
        hooked = seconds(lambda: by_hook(network, inputs, given.batch, 0))
        each = [(b - a) / (given.units - 1) for a, b in ((once.clock, some.clock), (once.processor, some.processor))]
        first = [once.clock - each[0], once.processor - each[1]]
        unit = Seconds(each[0] + first[0] / UNITS_OF_LAYER3, each[1] + first[1] / UNITS_OF_LAYER3)
        for what, measured in (("layer4", layer4), ("layer3", unit), ("hook", hooked)):
            ratios.setdefault(what, []).append(measured.of(whole))
        print(f"bare {whole.clock:.2f} s, {1000 * whole.clock / given.images:.1f} ms an image", flush=True)

    says = {
        "layer4": "layer4, all 512 units one by one / bare pass (goal 1.5)",
        "layer3": "layer3, one unit of 256 / bare pass (goal 0.35)",
        "hook": "a hook and the whole network, one unit / bare pass",
    }
    for what, said in says.items():
        clock, processor = ([ratio[i] for ratio in ratios[what]] for i in (0, 1))
        print(
            f"{said:56} clock {min(clock):5.2f} to {max(clock):5.2f}"
            f"   processor {min(processor):5.2f} to {max(processor):5.2f}"
        )


if __name__ == "__main__":
    main()
