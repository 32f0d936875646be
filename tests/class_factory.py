"""Small networks of classes and images of them, for tests of what is measured by class.

Class k of three is the colour of an image: red, green, blue. Unit k of ``units`` is channel k, so that the network,
whose scores are the means of its units, is right of every image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from broden_factory import Concept, Picture, write_broden
from PIL import Image

COLORS = ("red", "green", "blue")
SIZE = 16

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 3, 1)
        self.scores = nn.Linear(3, 3)
        with torch.no_grad():
            for layer in (self.units, self.scores):
                layer.weight.copy_(torch.eye(3).reshape(layer.weight.shape))
                layer.bias.zero_()

    def forward(self, x):
        return self.scores(torch.relu(self.units(x)).mean((2, 3)))


def network():
    return Net(), lambda x: x.float()


def named():
    return network()


named.classes = ["crimson_red-s", "green", "/b/blue"]


class OfPixels(Net):
    def forward(self, x):
        return torch.relu(self.units(x))


def of_pixels():
    return OfPixels(), lambda x: x.float()


def failing():
    net = network()[0]
    net.scores = nn.Linear(4, 3)
    return net, lambda x: x.float()
"""


def write_network(folder: Path) -> str:
    """The spec of ``net.py`` in ``folder``, without the factory's name: ``FOLDER/net.py:``."""
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    return f"{folder / 'net.py'}:"


def picture(color: int, seed: int = 0) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 of noise, brighter in one colour."""
    pixels = np.random.default_rng(seed).integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[..., color] += 150
    return pixels


def write_folders(root: Path, images: Mapping[str, Sequence[int]]) -> Path:
    """``root`` with a PNG of each colour in each folder: ``{"train/red": [0, 0]}``."""
    for folder, colors in images.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for n, color in enumerate(colors):
            Image.fromarray(picture(color, n)).save(root / folder / f"{n}.png")
    return root


def write_labelled(folder: Path, names: Sequence[str] = ("crimson red-s", "green", "blue-s"), images: int = 9) -> Path:
    """Images in Broden's format: image n is of colour n % 3, whose name is its scene; one has two scenes."""
    rng = np.random.default_rng(1)
    concepts = [Concept(1, "tree"), *(Concept(n + 2, name, "scene") for n, name in enumerate(names))]
    pictures = [
        Picture(
            maps={"object": rng.choice([0, 1], (8, 8)).astype(np.uint16)},
            labels={"scene": [n % 3 + 2] if n else [2, 3]},
            split="val" if n % 4 == 3 else "train",
            pixels=picture(n % 3, n),
        )
        for n in range(images)
    ]
    return write_broden(folder, pictures, concepts, image_size=(SIZE, SIZE), grid=(8, 8))
