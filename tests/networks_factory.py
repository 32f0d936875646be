"""Small networks for tests, written as the files that a researcher would have."""

from __future__ import annotations

from pathlib import Path

# Whole-number weights on whole-number pixels: every activation is exact in float32, whatever the batch.
EXACT = '''
import torch
from torch import nn


class Pixels(nn.Module):
    def forward(self, x):
        return x


def network():
    """Two layers of whole numbers: first (6 units, 8 x 8), second (5 units, 4 x 4)."""
    g = torch.Generator().manual_seed(3)
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 6, 3, stride=4, padding=1))
    net.add_module("relu", nn.ReLU(inplace=True))
    net.add_module("second", nn.Conv2d(6, 5, 3, stride=2, padding=1))
    for layer in (net.first, net.second):
        layer.weight.data = torch.randint(-3, 4, layer.weight.shape, generator=g).float()
        layer.bias.data = torch.zeros_like(layer.bias)
    return net, lambda x: x.float()
'''

# Each channel of the input is a unit: what the picture shows is what the unit fires on.
CHANNELS = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.Identity()

    def forward(self, x):
        return self.units(x)


def network():
    return Net(), lambda x: x.float()


class Odd(Net):
    """Units: constant; never above zero; NaN on the left half; infinite at one place; as it should be."""

    def forward(self, x):
        x = x[:, :1]
        bad = x.clone()
        bad[..., : x.shape[-1] // 2] = float("nan")
        far = x.clone()
        far[..., 0, 0] = float("inf")
        return self.units(torch.cat([torch.full_like(x, 7.0), -x - 1, bad, far, x], 1))


def odd():
    return Odd(), lambda x: x.float()


class OutOfMemory(Net):
    """Stands in for a GPU that holds four images at a time."""

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.units(x)


def out_of_memory():
    return OutOfMemory(), lambda x: x.float()


class TooLarge(Net):
    def forward(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def vector():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)), lambda x: x.float()
'''


def write_network(folder: Path, text: str, name: str = "net.py") -> Path:
    """Write the network's file and return its path."""
    path = folder / name
    path.write_text(text)
    return path
