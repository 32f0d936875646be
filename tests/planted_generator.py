"""A generator whose units are known to draw concepts, and a labeller that reads them back.

Unit k of ``layer`` draws concept k (building, sky, tree, door) in the cells where it is 1; a door shows where a
building stands alone. Units 4 to 7 are as busy and draw nothing. A picture of 32 x 32 has 8 x 8 cells of 4 x 4 pixels.
A unit is above 0 in less than 0.6 of its places: with --quantile 0.6 its mask is where it draws.

    nd dissect tests/planted_generator.py:generator --labeller tests/planted_generator.py:labeller
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CELLS, SCALE, IDLE = 8, 4, 4
CONCEPTS = ("building", "sky", "tree", "door")
#: A colour each: no two of them, nor black, are alike in every channel.
COLORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])


class Layout(nn.Module):
    """Latents (N, 16) -> (N, 8, 8, 8): where each unit is 1, else 0."""

    def forward(self, z: Tensor) -> Tensor:
        n = len(z)
        maps = torch.zeros(n, len(CONCEPTS) + IDLE, CELLS, CELLS, device=z.device)
        row, column = torch.arange(CELLS, device=z.device)[:, None], torch.arange(CELLS, device=z.device)
        horizon = (z[:, 0].abs() * 2).long().clamp(1, 4)[:, None, None]
        maps[:, 1] = (row < horizon).expand(n, CELLS, CELLS).float()
        building = (row >= horizon) & (column < 4) & (z[:, 1] > -0.5)[:, None, None]
        maps[:, 0] = building.float()
        tree = (row >= 5) & (column >= 5) & (z[:, 2] > 0)[:, None, None]
        maps[:, 2] = tree.float()
        door = (row >= 6) & (column == 1) & ((z[:, 3] > 0) & (z[:, 1] > -0.5))[:, None, None]
        maps[:, 3] = door.float()
        for idle in range(IDLE):
            spot = (row + column + (z[:, 8 + idle].abs() * 3).long()[:, None, None]) % 5 == 0
            maps[:, len(CONCEPTS) + idle] = spot.float()
        return maps


class PlantedGenerator(nn.Module):
    """Latents (N, 16) -> pictures (N, 3, 32, 32) in [0, 1]."""

    z = 16
    generator = True
    range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layout()

    def forward(self, z: Tensor) -> Tensor:
        maps = self.layer(z)
        shown = maps[:, : len(CONCEPTS)] > 0.5
        building, sky, tree, door = shown.unbind(1)
        # In front of another: a door of its building, a tree of all; a door without a building does not show.
        top = torch.zeros_like(maps[:, 0], dtype=torch.long)
        for number, where in ((2, sky), (1, building), (4, door & building), (3, tree)):
            top = torch.where(where, number, top)
        colors = torch.cat([torch.zeros(1, 3), COLORS]).to(z.device)
        picture = colors[top].permute(0, 3, 1, 2)
        return picture.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)


class PlantedLabeller(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] -> scores (N, 5, H, W): the nearest colour is the largest."""

    classes = ("background", *CONCEPTS)

    def forward(self, x: Tensor) -> Tensor:
        colors = torch.cat([torch.zeros(1, 3), COLORS]).to(x.device)
        return -((x[:, None] - colors[None, :, :, None, None]) ** 2).sum(2)


def generator() -> nn.Module:
    return PlantedGenerator()


def labeller() -> nn.Module:
    return PlantedLabeller()


class SmoothGenerator(PlantedGenerator):
    """The same pictures, of which each unit draws as much as it is active: colours are mixed, not chosen."""

    def forward(self, z: Tensor) -> Tensor:
        maps = self.layer(z)
        building, sky, tree, door = maps[:, : len(CONCEPTS)].clamp(0, 1).unbind(1)
        colors = COLORS.to(z.device)
        picture = torch.zeros(len(z), 3, CELLS, CELLS, device=z.device)
        for concept, amount in ((1, sky), (0, building), (3, door * building), (2, tree)):
            picture = torch.lerp(picture, colors[concept][None, :, None, None].expand_as(picture), amount[:, None])
        return picture.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)


def generator_smooth() -> nn.Module:
    return SmoothGenerator()
