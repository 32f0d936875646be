"""The demo's generator, which draws scenes of 64 x 64 pixels, and the labeller that says what is in them.

Both are small networks that engine/demo/train_generator.py trains. The generator learned from latents and the scenes
that engine/demo/drawn_scenes.py draws of them, without an adversary: it is a renderer put into the weights of a
network, so that there is a truth to compare its units with.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ndissect.engine.demo.drawn_scenes import CONCEPTS, FACTORS

GENERATOR_WEIGHTS = Path(__file__).with_name("generator.safetensors")
LABELLER_WEIGHTS = Path(__file__).with_name("labeller.safetensors")
#: Units of layer1 (4 x 4) to layer5 (64 x 64).
WIDTHS = (96, 128, 96, 64, 32)
# Of each coordinate of a latent so many bumps say where it is, which a linear layer can then tell apart.
_BUMPS, _MAPPED = 8, 192


class Bumps(nn.Module):
    """(N, 24) -> (N, 192): how near each coordinate's share of the normal distribution is to each of eight values."""

    def forward(self, z: Tensor) -> Tensor:
        share = (1 + torch.erf(z / math.sqrt(2))) / 2
        centres = torch.linspace(0, 1, _BUMPS, device=z.device, dtype=z.dtype)
        return (-(((share[..., None] - centres) * (_BUMPS - 1)) ** 2)).exp().flatten(1)


class SceneGenerator(nn.Module):
    """Latents (N, 24), standard normal -> pictures (N, 3, 64, 64) in [-1, 1]."""

    generator = True
    z = FACTORS

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(Bumps(), nn.Linear(FACTORS * _BUMPS, _MAPPED), nn.ReLU())
        self.layer1 = _layer(nn.Linear(_MAPPED, WIDTHS[0] * 16), nn.Unflatten(1, (WIDTHS[0], 4, 4)), units=WIDTHS[0])
        for number, (before, units) in enumerate(itertools.pairwise(WIDTHS), 2):
            setattr(self, f"layer{number}", _layer(nn.ConvTranspose2d(before, units, 4, 2, 1), units=units))
        self.output = nn.Sequential(nn.Conv2d(WIDTHS[-1], 3, 3, padding=1), nn.Tanh())

    def features(self, z: Tensor) -> list[Tensor]:
        """The maps of all layers, the last one last."""
        maps, x = [], self.mapping(z)
        for number in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{number}")(x)
            maps.append(x)
        return maps

    def forward(self, z: Tensor) -> Tensor:
        picture: Tensor = self.output(self.features(z)[-1])
        return picture


class SceneLabeller(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1], sides divisible by 4 -> scores (N, 14, H, W) of ``classes``."""

    classes = ("background", *CONCEPTS)

    def __init__(self) -> None:
        super().__init__()
        self.fine = _block(3, 16)
        self.mid = nn.Sequential(nn.MaxPool2d(2), _block(16, 32))
        self.deep = nn.Sequential(nn.MaxPool2d(2), _block(32, 64), nn.Upsample(scale_factor=2))
        self.up = nn.Sequential(_block(96, 32), nn.Upsample(scale_factor=2))
        self.last = nn.Sequential(_block(48, 24), nn.Conv2d(24, len(self.classes), 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        mid = self.mid(fine)
        up = self.up(torch.cat([self.deep(mid), mid], 1))
        scores: Tensor = self.last(torch.cat([up, fine], 1))
        return scores


def demo_generator() -> nn.Module:
    """The trained generator in evaluation mode."""
    return load_half(SceneGenerator(), GENERATOR_WEIGHTS)


def demo_labeller() -> nn.Module:
    """The trained labeller in evaluation mode."""
    return load_half(SceneLabeller(), LABELLER_WEIGHTS)


def load_half(module: nn.Module, weights: Path) -> nn.Module:
    """``module`` in evaluation mode with the weights of a file that keeps them in half precision."""
    values = load_file(weights)
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in values.items()})
    return module.eval().to(memory_format=torch.channels_last)  # twice as fast on a CPU


def _layer(*parts: nn.Module, units: int) -> nn.Sequential:
    return nn.Sequential(*parts, nn.BatchNorm2d(units), nn.ReLU())


def _block(before: int, units: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(before, units, 3, padding=1), nn.BatchNorm2d(units), nn.ReLU()),
        *(nn.Conv2d(units, units, 3, padding=1), nn.BatchNorm2d(units), nn.ReLU()),
    )
