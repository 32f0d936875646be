"""Images and networks of which it is known what decides each class: unit k alone decides class k.

A picture shows a patch of one of six colours on grey; its class is the colour. Unit k of the layer ``units`` lights up
where colour k is, and the score of class k is the mean of unit k, or what a nonlinear head makes of it. Ten more units
are faintly active everywhere, and no class looks at them. A seventh class, ``nothing``, has no images: it is said where
no unit lights up.

The rotated networks have the units turned by a random rotation Q, and Q^T in the weights that follow: they predict the
same, and no unit of theirs decides anything by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network
from PIL import Image

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "pink": (255, 0, 255),
    "cyan": (0, 255, 255),
}
CLASSES = (*COLOURS, "nothing")
UNITS, SIZE, IMAGES_A_CLASS = 16, 32, 6
GREY = 128

_NETWORK = """
import torch
from torch import nn

from ndissect.engine.experiments.rotation import random_rotation

COLOURS = torch.tensor({colours}) / 255.0
UNITS, PLANTED = {units}, len(COLOURS)
CLASSES = {classes}


class Lights(nn.Module):
    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.register_buffer("colours", COLOURS[None, :, :, None, None])
        self.register_buffer("others", torch.rand(UNITS - PLANTED, 3, generator=g) / 10)

    def forward(self, x):
        lit = (1 - 4 * (x[:, None] - self.colours).square().sum(2)).relu()
        return torch.cat([lit, torch.einsum("uc,nchw->nuhw", self.others, x)], 1)


class Turned(nn.Module):
    def __init__(self, q):
        super().__init__()
        self.register_buffer("q", q)

    def forward(self, maps):
        return torch.einsum("vu,nuhw->nvhw", self.q, maps)


class Net(nn.Module):
    classes = CLASSES

    def __init__(self, seed, nonlinear):
        super().__init__()
        q = torch.eye(UNITS) if seed is None else torch.from_numpy(random_rotation(UNITS, seed)).float()
        self.lights = Lights()
        self.units = Turned(q)
        self.back = nn.Conv2d(UNITS, UNITS, 1, bias=False) if nonlinear else nn.Identity()
        self.after = nn.ReLU() if nonlinear else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.scores = nn.Linear(UNITS, len(CLASSES))
        with torch.no_grad():
            weight = torch.eye(len(CLASSES), UNITS)
            weight[PLANTED] = 0
            if nonlinear:
                self.back.weight.copy_(q.T[:, :, None, None])
            self.scores.weight.copy_(weight if nonlinear else weight @ q.T)
            self.scores.bias.zero_()
            self.scores.bias[PLANTED] = 0.02

    def forward(self, x):
        maps = self.after(self.back(self.units(self.lights(x))))
        return self.scores(self.pool(maps).flatten(1))


def prepared(x):
    return x.float() / 255


def linear():
    return Net(None, False), prepared


def nonlinear():
    return Net(None, True), prepared


def linear_rotated():
    return Net(3, False), prepared


def nonlinear_rotated():
    return Net(3, True), prepared
"""


def write_planted_network(folder: Path) -> str:
    """The file of the networks: add ``:linear``, ``:nonlinear``, or either of them with ``_rotated``."""
    text = _NETWORK.format(colours=list(COLOURS.values()), units=UNITS, classes=CLASSES)
    return str(write_network(folder, text, "planted_classes.py"))


def write_planted_images(folder: Path) -> Path:
    """A CSV file ``image,class,split`` of the pictures."""
    folder.mkdir(parents=True)
    lines = ["image,class,split"]
    for name, split, pixels, _ in _pictures():
        file = f"{name}-{len(lines)}.png"
        Image.fromarray(pixels).save(folder / file)
        lines.append(f"{file},{name},{split}")
    table = folder / "classes.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def write_planted_data(folder: Path) -> Path:
    """The pictures as labelled images: the scene of each is its class, and its patch is an object, ``red patch``."""
    names = list(COLOURS)
    concepts = [Concept(1 + k, f"{name}_patch") for k, name in enumerate(names)]
    concepts += [Concept(11 + k, f"{name}-s", "scene") for k, name in enumerate(names)]
    pictures = [
        Picture(
            maps={"object": np.where(patch, 1 + names.index(name), 0).astype(np.uint16)[::2, ::2]},
            labels={"scene": [11 + names.index(name)]},
            pixels=pixels,
            split=split,
        )
        for name, split, pixels, patch in _pictures()
    ]
    return write_broden(folder, pictures, concepts, image_size=(SIZE, SIZE), grid=(SIZE // 2, SIZE // 2))


def _pictures() -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """For each picture its class, its split, its pixels, and where its patch is."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for i in range(IMAGES_A_CLASS):
            y, x = 2 * rng.integers(0, SIZE // 8, 2)
            height, width = 2 * rng.integers(SIZE // 4, 3 * SIZE // 8, 2)
            patch = np.zeros((SIZE, SIZE), bool)
            patch[y : y + height, x : x + width] = True
            pixels = np.full((SIZE, SIZE, 3), GREY, np.uint8)
            pixels[patch] = colour
            yield name, ("train", "val")[i % 2], pixels, patch
