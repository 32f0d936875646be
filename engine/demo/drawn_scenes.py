"""Scenes as a smooth function of latents, many at a time: what the demo's generator learns to draw.

Every coordinate of a latent, standard normal, says one thing of a scene: where the horizon is, whether there is a tree
and how large it is, what colour the roof has. What is there grows from nothing, so that the picture changes smoothly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Rows and columns of a picture.
SIZE = 64
#: What the labels are, from 1; 0 is no concept, and no pixel has it.
CONCEPTS = (
    "sky", "grass", "sand", "road", "tree", "house", "roof", "door", "window", "sun", "cloud", "car", "mountain",
)  # fmt: skip
#: Coordinates of a latent.
FACTORS = 24

_SKY = ((0.45, 0.68, 0.95), (0.98, 0.72, 0.48))
_GRASS = ((0.25, 0.60, 0.22), (0.45, 0.68, 0.25))
_SAND = ((0.88, 0.78, 0.52), (0.80, 0.66, 0.40))
_WALL = ((0.93, 0.88, 0.75), (0.70, 0.32, 0.24))
_ROOF = ((0.66, 0.20, 0.16), (0.30, 0.30, 0.38))
_CAR = ((0.85, 0.12, 0.12), (0.12, 0.30, 0.80))
_MOUNTAIN = ((0.48, 0.48, 0.56), (0.62, 0.56, 0.52))


@dataclass
class _Scene:
    """Pictures (n, 3, H, W) in [0, 1] and labels (n, H, W) under construction."""

    picture: Tensor
    label: Tensor

    def paint(self, inside: Tensor, colour: Tensor, name: str | None, size: Tensor | None = None) -> None:
        """Paint where ``inside`` (n, H, W), signed pixels from the edge, is above 0; edges are smooth.

        ``size``: of what is painted, nothing where it is 0.
        """
        inside = inside if size is None else torch.where(size > 0.02, inside, -1.0)
        cover = (inside + 0.5).clamp(0, 1)[:, None]
        self.picture = self.picture * (1 - cover) + colour[:, :, None, None] * cover
        if name is not None:
            self.label = torch.where(inside > 0, CONCEPTS.index(name) + 1, self.label)


def draw_scenes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (n, 24) -> pictures (n, 3, 64, 64) in [0, 1], labels (n, 64, 64) int64, of CONCEPTS from 1."""
    u = (1 + torch.erf(z.float() / math.sqrt(2))) / 2
    f = [u[:, i, None, None] for i in range(FACTORS)]
    y = torch.arange(SIZE, dtype=torch.float32)[None, :, None] + 0.5
    x = torch.arange(SIZE, dtype=torch.float32)[None, None, :] + 0.5
    n = len(u)
    scene = _Scene(torch.zeros(n, 3, SIZE, SIZE), torch.zeros(n, SIZE, SIZE, dtype=torch.long))
    whole = torch.full((n, SIZE, SIZE), 1.0)

    scene.paint(whole, _between(_SKY, u[:, 1]), "sky")
    scene.picture = (scene.picture + 0.12 * (y[:, None] / SIZE)).clamp(0, 1)
    sun = _grown(f[16], 0.4) * 7
    scene.paint(sun - _distance(x - (10 + 24 * f[17]), y - 11), _flat(n, (1.0, 0.93, 0.45)), "sun", sun)
    cloud, at = _grown(f[18], 0.4) * 6.5, 30 + 24 * f[19]
    puffs = [cloud * s - _distance((x - at - dx * cloud) / 1.25, y - 14) for dx, s in ((-1, 0.7), (0, 1), (1.1, 0.75))]
    scene.paint(torch.stack(puffs).amax(0), _flat(n, (0.97, 0.97, 0.99)), "cloud", cloud)
    horizon = 28 + 12 * f[0]
    tall = _grown(f[22], 0.5) * 18
    scene.paint(
        tall - (x - (12 + 40 * f[23])).abs() * 0.7 - (horizon - y), _between(_MOUNTAIN, u[:, 1]), "mountain", tall
    )
    green = f[2] < 0.5
    ground = y - horizon
    scene.paint(torch.where(green, ground, -1.0), _between(_GRASS, 2 * u[:, 2]), "grass")
    scene.paint(torch.where(green, -1.0, ground), _between(_SAND, 2 * u[:, 2] - 1), "sand")

    size = _grown(f[9], 0.4)
    wide, high, middle, foot = 14 * size, 17 * size, 22 + 20 * f[10], horizon + 9
    wall = torch.minimum(torch.minimum(wide - (x - middle).abs(), foot - y), y - (foot - high))
    scene.paint(wall, _between(_WALL, u[:, 11]), "house", size)
    eave = foot - high
    slope = torch.minimum(eave - y, 12 * size - (eave - y) - (x - middle).abs() * 0.75)
    scene.paint(slope, _between(_ROOF, u[:, 12]), "roof", size)
    open_door = size * _grown(f[13], 0.3)
    side = torch.where(f[14] < 0.5, -1.0, 1.0)
    door = torch.minimum(3.8 * open_door - (x - middle - side * 6 * size).abs(), y - (foot - 12.5 * open_door))
    scene.paint(torch.minimum(door, foot - y), _flat(n, (0.36, 0.20, 0.10)), "door", open_door)
    pane = size * _grown(f[15], 0.3)
    across, down = (x - middle + side * 6 * size).abs(), (y - (foot - 9.5 * size)).abs()
    scene.paint(torch.minimum(3.8 * pane - across, 3.8 * pane - down), _flat(n, (0.62, 0.86, 0.96)), "window", pane)

    road = _grown(f[3], 0.4) * 15
    scene.paint(y - (SIZE - road), _flat(n, (0.34, 0.34, 0.37)), "road", road)
    scene.paint(torch.minimum(road / 15 - (y - (SIZE - road / 2)).abs(), road - 6), _flat(n, (0.9, 0.9, 0.8)), None)
    for there, where, large, low in ((4, 5, 6, 4.0), (7, 8, 6, 40.0)):
        _tree(scene, _grown(f[there], 0.45) * (0.75 + 0.5 * f[large]), low + 18 * f[where], horizon + 12, x, y)
    _car(scene, torch.where(road > 8, _grown(f[20], 0.3), 0.0), 18 + 28 * f[21], SIZE - road / 2 + 2, u[:, 14], x, y)
    return scene.picture, scene.label


def _tree(scene: _Scene, size: Tensor, at: Tensor, foot: Tensor, x: Tensor, y: Tensor) -> None:
    n = len(size)
    trunk = torch.minimum(1.7 * size - (x - at).abs(), torch.minimum(foot - y, y - (foot - 12 * size)))
    scene.paint(trunk, _flat(n, (0.40, 0.26, 0.14)), "tree", size)
    crown = [
        r * size - _distance(x - at - dx * size, y - (foot - up * size))
        for dx, up, r in ((0.0, 17.0, 7.5), (-4.0, 13.0, 5.0), (4.0, 13.0, 5.0))
    ]
    scene.paint(torch.stack(crown).amax(0), _flat(n, (0.08, 0.36, 0.14)), "tree", size)


def _car(scene: _Scene, size: Tensor, at: Tensor, foot: Tensor, colour: Tensor, x: Tensor, y: Tensor) -> None:
    n = len(size)
    body = torch.minimum(11 * size - (x - at).abs(), 3.2 * size - (y - (foot - 4.2 * size)).abs())
    cabin = torch.minimum(6 * size - (x - at).abs(), 2.8 * size - (y - (foot - 9 * size)).abs())
    scene.paint(torch.maximum(body, cabin), _between(_CAR, colour), "car", size)
    for dx in (-6.0, 6.0):
        scene.paint(
            2.6 * size - _distance(x - at - dx * size, y - foot + 0.8), _flat(n, (0.08, 0.08, 0.1)), "car", size
        )


def _grown(u: Tensor, absent: float) -> Tensor:
    """0 for the share ``absent`` of scenes, then quickly up to 1: what is there has nearly its whole size."""
    t = ((u - absent) / (0.5 * (1 - absent))).clamp(0, 1)
    return (1 - (1 - t) ** 3) * (u > absent)


def _distance(dx: Tensor, dy: Tensor) -> Tensor:
    return (dx * dx + dy * dy).sqrt()


def _flat(n: int, colour: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colour).expand(n, 3)


def _between(colours: tuple[tuple[float, float, float], ...], share: Tensor) -> Tensor:
    a, b = torch.tensor(colours[0]), torch.tensor(colours[1])
    return a + (b - a) * share.clamp(0, 1)[:, None]
