"""What a bare forward pass costs by how it is run: gradients off in two ways, and where channels lie in memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/forward.py [--network torchvision:resnet18@none] [--rounds 5]

The ways take turns; what is told is the least processor time of each for an image. Decoded images have their channels
last, and keep them last through the standard preprocessing: that is "images last", what a dissection does.

ResNet-18 on one core of two busy ones, ms an image (torch 2.14):

    batch            1     8    16
    plain         49.2  43.1  47.8
    images last   52.8  37.3  39.9
    both last     48.8  38.2  39.6
    inference     47.3  45.0  48.7

So inference_mode gives nothing that can be seen, and weights with their channels last nothing beyond what the images
give: neither is used, and nothing need be found out of a network that could fail under them.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ndissect.engine.machine.device import exact_arithmetic
from ndissect.engine.networks.resolve import load_network

BATCHES = (1, 8, 16)


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--network", default="torchvision:resnet18@none")
    options.add_argument("--rounds", type=int, default=5)
    asked = options.parse_args()

    exact_arithmetic()
    plain = load_network(asked.network).module
    weights_last = load_network(asked.network).module.to(memory_format=torch.channels_last)

    def last(images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)

    ways: dict[str, tuple[torch.nn.Module, Callable[[Tensor], Tensor], Callable[[], contextlib.AbstractContextManager]]]
    ways = {
        "plain": (plain, torch.Tensor.contiguous, torch.no_grad),
        "images last": (plain, last, torch.no_grad),
        "both last": (weights_last, last, torch.no_grad),
        "inference": (plain, torch.Tensor.contiguous, torch.inference_mode),
    }
    least = {(way, n): float("inf") for way in ways for n in BATCHES}
    for _ in range(asked.rounds):
        for n in BATCHES:
            images = torch.rand(n, 3, 224, 224, generator=torch.Generator().manual_seed(n))
            for way, (module, laid_out, without_gradients) in ways.items():
                given = laid_out(images)
                began = time.process_time()
                with without_gradients():
                    module(given)
                least[way, n] = min(least[way, n], (time.process_time() - began) / n)
    print("batch      ", *(f"{n:6}" for n in BATCHES))
    for way in ways:
        print(f"{way:11}", *(f"{1000 * least[way, n]:6.1f}" for n in BATCHES), "ms an image")


if __name__ == "__main__":
    main()
