"""The demo network: a small residual CNN whose layers are named as in a ResNet.

model, transform = demo_cnn()
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ndissect.engine.data.colors import COLORS
from ndissect.engine.demo.vocabulary import MATERIALS, NAMES, OBJECTS, PARTS, SCENES, TEXTURES
from ndissect.engine.machine.torchvision_import import without_compiler

with without_compiler():
    from torchvision.transforms import v2

WEIGHTS = Path(__file__).with_name("weights.safetensors")

#: What the whole image is: a scene or a texture.
CLASSES: tuple[str, ...] = (*(f"{name}-s" for name in SCENES), *TEXTURES)
#: What may be present in an image, each by itself: objects, parts and materials.
PRESENT: tuple[str, ...] = tuple(name for name in NAMES if name in {*OBJECTS, *PARTS, *MATERIALS})

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


def demo_cnn() -> tuple[nn.Module, Any]:
    """The trained network in evaluation mode, and the transform that takes (..., 3, H, W) uint8 RGB to its input."""
    model = DemoCNN()
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return model.eval(), demo_transform()


def demo_transform() -> Any:
    """A torchvision transform: (..., 3, H, W) uint8 RGB to float32, scaled to about -2..2; the size stays."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def _norm(units: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(units) if batch_norm else nn.Identity()


class Block(nn.Module):
    """Two 3x3 convolutions with a skip connection; the last step is a ReLU, so the output is never negative."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, batch_norm: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not batch_norm)
        self.bn1 = _norm(outputs, batch_norm)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=not batch_norm)
        self.bn2 = _norm(outputs, batch_norm)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=not batch_norm)
            self.skip = nn.Sequential(convolution, _norm(outputs, batch_norm))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, h / stride, w / stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.skip(x))
        return out


class DemoCNN(nn.Module):
    """(N, 3, H, W) -> (N, 27) scores of scenes and textures; maps of layer1 to layer4: H/4, H/4, H/8, H/8.

    ``width``: times as many units in every layer; ``batch_norm``: without it convolutions have a bias instead.
    """

    classes = CLASSES

    def __init__(self, width: int = 1, batch_norm: bool = True) -> None:
        super().__init__()
        stem, one, two, three, four = (width * units for units in (24, 32, 48, 96, 128))
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 5, 2, 2, bias=not batch_norm), _norm(stem, batch_norm), nn.ReLU())
        self.layer1 = Block(stem, one, 2, batch_norm)
        self.layer2 = Block(one, two, 1, batch_norm)
        self.layer3 = Block(two, three, 2, batch_norm)
        self.layer4 = Block(three, four, 1, batch_norm)
        self.classify = nn.Linear(four, len(CLASSES))
        self.present = nn.Conv2d(four, len(PRESENT), 1)
        # Most things are absent from most images; starting from that belief saves the first epoch.
        self.present.bias = nn.Parameter(torch.full((len(PRESENT),), -5.0))
        self.color = nn.Conv2d(four, len(COLORS), 1)

    def features(self, x: Tensor) -> Tensor:
        """(N, 128 width, H/8, W/8): the output of layer4."""
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(N, 27) scores of CLASSES."""
        scores: Tensor = self.classify(self.features(x).mean((2, 3)))
        return scores
