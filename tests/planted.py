"""A data set and a network in which it is known what every unit detects: a concept, or nothing.

Pictures carry what the network is to see: red holds the object's number and 16 times the part's, green and blue hold
noise that knows nothing of either. Unit k < ``planted`` fires on its concept, blurred by noise; the others are noise
alone, smoothed by filters of their own, and three of four louder in some pictures than in others, all in the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network

OBJECTS, PARTS = tuple(range(1, 9)), tuple(range(9, 16))
CONCEPTS = [
    *(Concept(n, f"object-{n}") for n in OBJECTS),
    *(Concept(n, f"part-{n}", "part") for n in PARTS),
    *(Concept(n, f"scene-{n}-s", "scene") for n in (20, 21, 22)),
]
#: What unit k < ``planted`` of the network fires on: object or part, one after the other.
FOLLOWS = tuple(n for pair in zip(OBJECTS, PARTS, strict=False) for n in pair)
SIZE, GRID = 32, 16

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class Planted(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.Identity()
        g = torch.Generator().manual_seed({seed})
        filters = torch.randn({units}, 2, 5, 5, generator=g)
        width = torch.rand({units}, 1, 1, 1, generator=g) * 2 + 0.3
        far = torch.arange(-2, 3.0).square()
        filters *= torch.exp(-(far[:, None] + far) / width.square())
        self.register_buffer("filters", filters / filters.square().sum((1, 2, 3), keepdim=True).sqrt())
        loud = torch.tensor([0.0, 0.5, 1.0, 2.0])[torch.arange({units}) % 4][:, None, None]
        loud[: len({follows})] = 0
        self.register_buffer("loud", loud)

    def forward(self, x):
        noise = (x[:, 1:] - 127.5) / 73.9
        volume = noise[:, :, :4, :4].mean((1, 2, 3)) * 32**0.5  # of the picture: normal, as a sum of 32 is
        maps = F.conv2d(noise, self.filters, padding=2) * torch.exp(self.loud * volume[:, None, None, None])
        held = torch.stack([x[:, 0] % 16, x[:, 0] // 16], 1)
        for k, number in enumerate({follows}):
            maps[:, k] = {strength} * (held == number).any(1) + maps[:, k]
        return self.units(F.avg_pool2d(maps, 2))


def network():
    return Planted(), lambda x: x.float()
"""


def write_planted_data(folder: Path, seed: int, images: int = 40) -> Path:
    """Objects with parts in them, some in few images; one scene an image, which no unit follows; two sources."""
    rng = np.random.default_rng(seed)
    often = rng.permutation(np.geomspace(0.06, 0.5, len(OBJECTS) + len(PARTS)))
    pictures = []
    for i in range(images):
        maps = np.zeros((2, GRID, GRID), np.uint16)
        for number, share in zip((*OBJECTS, *PARTS), often, strict=True):
            if rng.random() < share or i % 20 == number:  # each in two images at least
                top, left = rng.integers(0, GRID - 3, 2)
                height, width = rng.integers(3, 8, 2)
                maps[int(number in PARTS), top : top + height, left : left + width] = number
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        pixels[:, :, 0] = (maps[0] + 16 * maps[1]).repeat(2, 0).repeat(2, 1)
        pictures.append(
            Picture(
                maps={"object": maps[0], "part": maps[1]},
                labels={"scene": [int(rng.integers(20, 23))]},
                name=f"{('here', 'there')[i % 2]}/{i:03d}.png",
                pixels=pixels,
            )
        )
    return write_broden(folder, pictures, CONCEPTS, image_size=(SIZE, SIZE), grid=(GRID, GRID))


def write_planted_network(folder: Path, seed: int, *, units: int = 40, planted: int = 6, strength: float = 8.0) -> str:
    """What ``nd dissect`` takes as the network; its layer is called ``units``. ``planted`` is 14 at the most."""
    text = NETWORK.format(seed=seed, units=units, follows=FOLLOWS[:planted], strength=strength)
    return f"{write_network(folder, text, f'planted_{seed}.py')}:network"
