"""Networks in which unit 0 is the mask of one concept and unit 1 that of another, each in a layout of its own.

Red holds the first concept, green the second; a patch embedding averages them over patches of 4 x 4 pixels. Blue is
noise, as are the tokens that show nothing of the image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network

PATCH, UNITS = 4, 6

NETWORK = """
from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import nn

PATCH, UNITS = 4, 6


class Patches(nn.Module):
    def __init__(self, stride=PATCH):
        super().__init__()
        self.embed = nn.Conv2d(3, UNITS, PATCH, stride)
        self.embed.weight.data = torch.zeros(UNITS, 3, PATCH, PATCH)
        for unit in range(UNITS):
            self.embed.weight.data[unit, unit % 3] = (-1.0) ** (unit // 3) / PATCH**2
        self.embed.bias.data = torch.zeros(UNITS)
        self.layer = nn.Identity()
        self.end = nn.Identity()
        self.extra = nn.Parameter(torch.full((1, 5, UNITS), 99.0))

    def tokens(self, x, first=0, last=0):
        x = self.embed(x).flatten(2).transpose(1, 2)
        extra = self.extra.expand(len(x), -1, -1)
        return torch.cat([extra[:, :first], x, extra[:, first : first + last]], 1)

    def forward(self, x):
        return self.end(self.layer(self.tokens(x)))


class ClassToken(Patches):
    def forward(self, x):
        return self.end(self.layer(self.tokens(x, 1)))


class Distilled(Patches):
    def forward(self, x):
        return self.end(self.layer(self.tokens(x, 2)))


class Registers(Patches):
    def forward(self, x):
        return self.end(self.layer(self.tokens(x, 5)))


class RegistersBehind(Patches):
    def forward(self, x):
        return self.end(self.layer(self.tokens(x, 1, 4)))


class TokensFirst(Patches):
    def forward(self, x):
        return self.end(self.layer(self.tokens(x, 1).permute(1, 0, 2)))


class UnitsFirst(Patches):
    def forward(self, x):
        return self.end(self.layer(self.embed(x).flatten(2)))


class UnitsLast(Patches):
    def forward(self, x):
        return self.end(self.layer(self.embed(x).permute(0, 2, 3, 1)))


class LinearPatches(Patches):
    def forward(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(n, -1, PATCH * PATCH, c).mean(2)
        return self.end(self.layer(torch.cat([self.extra[:, :1, :3].expand(n, -1, -1), x], 1)))


class Unfolded(Patches):
    def forward(self, x):
        n, c, _, _ = x.shape
        x = nn.functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2)
        return self.end(self.layer(x.reshape(n, -1, c, PATCH * PATCH).mean(3)))


class Windows(Patches):
    def __init__(self):
        super().__init__()
        self.window = nn.Identity()

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.window(x).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return self.end(self.layer(x))


class ShiftedWindows(Windows):
    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = torch.roll(x, shifts=(-1, -1), dims=(1, 2))
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.window(x).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return self.end(self.layer(x.roll((1, 1), (1, 2))))


class Residual(Patches):
    # A window's own tokens are lost on the way, and what is added to them tells where they lie.
    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        inside = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        inside = torch.rand(len(inside), 4, 4) @ inside
        inside = inside.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return self.end(self.layer(x + 0 * inside))


class Folded(Patches):
    def forward(self, x):
        x = self.embed(x)
        size = x.shape[-2:]
        cells = nn.functional.unfold(x, 1)
        return self.end(self.layer(nn.functional.fold(cells, size, 1).permute(0, 2, 3, 1)))


class Unfollowed(Patches):
    def __init__(self):
        super().__init__()
        self.norm, self.layer, self.map = nn.LayerNorm(UNITS), nn.Identity(), nn.Identity()

    def forward(self, x):
        x = torch.from_numpy(self.embed(x).permute(0, 2, 3, 1).detach().numpy().copy())
        return self.end(self.map(self.layer(x + self.norm(x)).permute(0, 3, 1, 2)))


class Rolled(Patches):
    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        return self.end(x + self.layer(x.roll(1, 2)))


class Twice(Patches):
    def forward(self, x):
        first = self.layer(self.tokens(x, 1))
        return self.end(self.layer(first.flip(2)))


class Several(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, x):
        return self.give(x)


Named = namedtuple("Named", ["scores", "tokens"])


@dataclass
class Output:
    last_hidden_state: torch.Tensor
    pooled: torch.Tensor


class Holding(Patches):
    def __init__(self, give, take):
        super().__init__()
        self.layer, self.take = Several(give), take

    def forward(self, x):
        return self.end(self.take(self.layer(self.tokens(x, 1))))


class Attention(Patches):
    def __init__(self):
        super().__init__()
        self.query, self.weights = nn.Identity(), nn.Identity()

    def forward(self, x):
        x = self.tokens(x, 1)
        n, t, c = x.shape
        q = self.query(x.reshape(n, t, 2, c // 2).transpose(1, 2))
        weights = self.weights((q @ q.transpose(-2, -1)).softmax(-1))
        mixed = (weights @ q).transpose(1, 2).reshape(n, t, c)
        return self.end(self.layer(x + 0 * mixed))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Identity()

    def forward(self, x):
        return x + 0 * self.inside(x)


class Blocks(Patches):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.end(self.blocks(self.tokens(x, 1)))


class Hidden(Patches):
    # What happens to the tokens cannot be followed from outside.
    def forward(self, x):
        return self.end(self.layer(torch.from_numpy(self.tokens(x, 1).detach().numpy().copy())))


class Inference(ClassToken):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


def a_map(tokens):
    n, t, c = tokens.shape
    side = int((t - 1) ** 0.5)
    return tokens[:, 1:].view(n, side, side, c).permute(0, 3, 1, 2)


def _with_transform(make):
    return lambda: (make(), lambda x: x.float())


for _name, _class in list(globals().items()):
    if isinstance(_class, type) and issubclass(_class, Patches) and _class is not Holding:
        globals()[_name.lower()] = _with_transform(_class)
a_tuple = _with_transform(lambda: Holding(lambda x: (x, x[:, 0]), lambda out: out[0]))
a_dict = _with_transform(lambda: Holding(lambda x: {"deep": [x]}, lambda out: out["deep"][0]))
named = _with_transform(lambda: Holding(lambda x: Named(x[:, 0], x), lambda out: out.tokens))
a_dataclass = _with_transform(lambda: Holding(lambda x: Output(x, x[:, 0]), lambda out: out.last_hidden_state))
"""


def write_token_networks(folder: Path) -> str:
    """The file with the networks; each name of a class in lower case is a factory of it."""
    return str(write_network(folder, NETWORK, "tokens.py"))


def write_token_data(folder: Path, grid: tuple[int, int] = (8, 8), images: int = 8) -> Path:
    """Pictures of two concepts, whose masks are made of whole patches, as the grid of labels is."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(images):
        masks = rng.random((2, *grid)) < np.array([0.1, 0.2])[:, None, None]
        pixels = rng.integers(0, 256, (grid[0] * PATCH, grid[1] * PATCH, 3), np.uint8)
        pixels[:, :, :2] = 200 * masks.repeat(PATCH, 1).repeat(PATCH, 2).transpose(1, 2, 0)
        maps = [masks[0].astype(np.uint16), 2 * masks[1].astype(np.uint16)]
        pictures.append(Picture(maps={"object": maps[0], "part": maps[1]}, pixels=pixels))
    concepts = [Concept(1, "one"), Concept(2, "two", "part")]
    return write_broden(folder, pictures, concepts, image_size=(grid[0] * PATCH, grid[1] * PATCH), grid=grid)
