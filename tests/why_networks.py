"""Small networks, images and data for tests of explanations; what units add, by plain hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from broden_factory import Concept, Picture, write_broden
from PIL import Image
from torch import Tensor, nn

SIZE, IMAGES, UNITS, CLASSES = 16, 12, 5, ("red", "green", "blue")

#: Factories of a network file. ``units`` of ``linear`` is followed by a mean and a linear layer; that of ``bent`` by
#: another convolution and a ReLU; in ``quarters`` each quarter of a map has a weight of its own; ``dead`` has no
#: unit that is ever active; ``sealed`` lets no gradient through.
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, bent):
        super().__init__()
        torch.manual_seed(3)
        self.units = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
        self.then = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()) if bent else nn.Identity()
        self.scores = nn.Linear(6 if bent else 5, 3)

    def forward(self, x):
        return self.scores(self.then(self.units(x)).mean((2, 3)))


def prepare(x):
    return x.float() / 64 - 1


def linear():
    return Net(False), prepare


def quarters():
    net = Net(False)
    net.then, net.scores = nn.AdaptiveAvgPool2d(2), nn.Linear(20, 3)
    net.forward = lambda x: net.scores(net.then(net.units(x)).flatten(1))
    return net, prepare


def bent():
    return Net(True), prepare


def dead():
    net = Net(False)
    nn.init.zeros_(net.units[0].weight)
    nn.init.constant_(net.units[0].bias, -1)
    return net, prepare


def sealed():
    net = Net(True)
    inner = net.then.forward
    net.then.forward = lambda maps: inner(maps.detach())
    return net, prepare


def generator():
    net = nn.Sequential()
    net.add_module("units", nn.Conv2d(3, 5, 1))
    net.add_module("image", nn.Conv2d(5, 3, 1))
    return net, prepare


linear.classes = quarters.classes = bent.classes = dead.classes = ["red", "green", "blue"]
"""


def write_all(folder: Path) -> Path:
    """``folder`` with ``net.py``, the data set ``small`` (scenes red, green and blue) and image files."""
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    concepts = [Concept(1, "tree"), *(Concept(n + 2, f"{name}-s", "scene") for n, name in enumerate(CLASSES))]
    rng = np.random.default_rng(1)
    pictures = [
        Picture(
            {"object": rng.choice([0, 1], (8, 8)).astype(np.uint16)},
            {"scene": [n % 3 + 2]},
            split="val" if n % 4 == 3 else "train",
            pixels=picture(n % 3, n),
        )
        for n in range(IMAGES)
    ]
    write_broden(folder / "small", pictures, concepts, image_size=(SIZE, SIZE), grid=(8, 8))
    for n in range(3):
        Image.fromarray(picture(n, 100 + n)).save(folder / f"{CLASSES[n]}.png")
    return folder


def picture(color: int, seed: int, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) uint8 of noise, brighter in one colour in its upper left quarter."""
    pixels = np.random.default_rng(seed).integers(0, 90, (size, size, 3), dtype=np.uint8)
    pixels[: size // 2, : size // 2, color] += 150
    return pixels


def lost_by_hooks(module: nn.Module, layer: str, inputs: Tensor, value: Callable[[Tensor], Tensor]) -> np.ndarray:
    """(U,) float64: ``value`` of the scores less that with each channel of the layer set to zero, one pass for each."""

    def without(unit: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, unit] = 0
            return changed

        return hook

    with torch.no_grad():
        whole = value(module(inputs).double())
        lost = []
        for unit in range(UNITS):
            handle = module.get_submodule(layer).register_forward_hook(without(unit))
            lost.append(float(whole - value(module(inputs).double())))
            handle.remove()
    return np.array(lost)
