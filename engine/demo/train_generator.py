"""Train the demo's generator and its labeller: ``python -m ndissect.engine.demo.train_generator``, three quarters of
an hour on two cores.

No adversary: latents are drawn, engine/demo/drawn_scenes.py draws the scene of each, and the generator learns to draw
the same from the same latents. The labeller learns what is where in the drawn scenes, some of them blurred and noisy.
The generator is told as well where the labeller does not see in its picture what is in the scene, and its units pay
a small price for being active, which keeps each silent where it has nothing to draw.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ndissect.engine.demo.drawn_scenes import CONCEPTS, FACTORS, draw_scenes
from ndissect.engine.demo.generator import (
    GENERATOR_WEIGHTS,
    LABELLER_WEIGHTS,
    SceneGenerator,
    SceneLabeller,
    load_half,
)
from ndissect.store.files import atomic

STEPS_OF_LABELLER, STEPS_OF_GENERATOR = 600, 14_000
_SCENES_OF_LABELLER, _SCENES_OF_GENERATOR = 32, 16  # in a batch
# The labeller looks at every so many batches of the generator: it takes as long as all the rest.
_LOOKS_EVERY = 4
# How much each part of the generator's loss counts beside the difference of pixels.
_EDGES, _SEEN, _ACTIVE = 0.5, 0.03, 3e-4
# Small things cover so few pixels that a loss over all pixels hardly asks for them.
_SMALL, _TIMES = ("door", "window", "sun", "cloud", "car"), 4.0


@dataclass(frozen=True)
class Seen:
    """How well a labeller sees scenes: the share of pixels it labels rightly, and the IoU by concept."""

    accuracy: float
    iou: dict[str, float]


def train_labeller(steps: int, seed: int = 0, batch: int = _SCENES_OF_LABELLER) -> SceneLabeller:
    """A labeller that saw ``steps`` batches of drawn scenes."""
    torch.manual_seed(seed)
    model, random = SceneLabeller().to(memory_format=torch.channels_last), torch.Generator().manual_seed(seed)
    weight = _weight_by_concept(2.0)
    for number, optimiser in _steps(model, steps, 3e-3):
        picture, label = draw_scenes(torch.randn(batch, FACTORS, generator=random))
        if number % 2:
            picture = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), "replicate"), 3, 1)
        picture = picture + 0.04 * torch.randn(picture.shape, generator=random)
        _step(optimiser, F.cross_entropy(model(picture.clamp(0, 1)), label, weight))
        if number % 200 == 0:
            print(f"labeller {number}/{steps}", flush=True)
    return model.eval()


def train_generator(
    labeller: SceneLabeller, steps: int, seed: int = 1, batch: int = _SCENES_OF_GENERATOR, save: Path | None = None
) -> SceneGenerator:
    """A generator that saw ``steps`` batches of latents with their scenes; saved now and then where ``save`` says."""
    torch.manual_seed(seed)
    model, random = SceneGenerator().to(memory_format=torch.channels_last), torch.Generator().manual_seed(seed)
    weight = _weight_by_concept(_TIMES)
    labeller.requires_grad_(False)
    since = time.monotonic()
    for number, optimiser in _steps(model, steps, 3e-3):
        z = torch.randn(batch, FACTORS, generator=random)
        picture, label = draw_scenes(z)
        maps = model.features(z)
        drawn = (model.output(maps[-1]) + 1) / 2
        counts = weight[label][:, None]
        pixels, edges = (counts * (drawn - picture).abs()).mean() / counts.mean(), _edges(drawn, picture)
        loss = pixels + _EDGES * edges + _ACTIVE * sum(m.mean() for m in maps)
        if number % _LOOKS_EVERY == 0:
            seen = F.cross_entropy(labeller(drawn), label, weight)
            loss = loss + _LOOKS_EVERY * _SEEN * seen
        _step(optimiser, loss)
        if number % 200 == 0:
            took = time.monotonic() - since
            print(f"generator {number}/{steps}: pixels {pixels:.4f}, seen {seen:.3f}, {took:.0f} s", flush=True)
            if save is not None:
                save_half(model, save)
    return model.eval()


def look(labeller: nn.Module, pictures: Tensor, label: Tensor) -> Seen:
    """How ``labeller`` sees pictures (n, 3, H, W) in [0, 1] of which ``label`` (n, H, W) is true."""
    with torch.no_grad():
        said = torch.cat([labeller(part).argmax(1) for part in torch.split(pictures, 64)])
    iou = {}
    for number, name in enumerate(CONCEPTS, 1):
        one, other = said == number, label == number
        iou[name] = float((one & other).sum() / (one | other).sum().clamp(min=1))
    return Seen(float((said == label).float().mean()), iou)


def save_half(model: nn.Module, path: Path) -> None:
    """The weights of ``model`` in half precision."""
    values = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic(path) as partial:
        partial.write_bytes(to_safetensors({k: v.contiguous() for k, v in values.items()}))


def _weight_by_concept(small: float) -> Tensor:
    """(14,): 1 for each concept and for the background, ``small`` for concepts that cover few pixels."""
    weight = torch.ones(1 + len(CONCEPTS))
    weight[[1 + CONCEPTS.index(name) for name in _SMALL]] = small
    return weight


def _edges(a: Tensor, b: Tensor) -> Tensor:
    """How much pictures differ in what changes from a pixel to the next."""
    down = ((a[:, :, 1:] - a[:, :, :-1]) - (b[:, :, 1:] - b[:, :, :-1])).abs().mean()
    across = ((a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])).abs().mean()
    return down + across


def _steps(model: nn.Module, steps: int, rate: float) -> Iterator[tuple[int, torch.optim.Optimizer]]:
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    for number in range(steps):
        yield number, optimiser
        schedule.step()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def main() -> None:
    """Train both, save them, and print how well the labeller sees new scenes and the generator's pictures of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=GENERATOR_WEIGHTS.parent, help="folder of the weights")
    parser.add_argument("--labeller-steps", type=int, default=STEPS_OF_LABELLER)
    parser.add_argument("--generator-steps", type=int, default=STEPS_OF_GENERATOR)
    given = parser.parse_args()
    save_half(train_labeller(given.labeller_steps), given.output / LABELLER_WEIGHTS.name)
    labeller = SceneLabeller()  # as it is saved: the generator learns from what the demo has
    load_half(labeller, given.output / LABELLER_WEIGHTS.name)
    z = torch.randn(512, FACTORS, generator=torch.Generator().manual_seed(99))
    picture, label = draw_scenes(z)
    print("scenes:", look(labeller, picture, label), flush=True)
    path = given.output / GENERATOR_WEIGHTS.name
    generator = train_generator(labeller, given.generator_steps, save=path)
    save_half(generator, path)
    with torch.no_grad():
        drawn = torch.cat([(generator(part) + 1) / 2 for part in torch.split(z, 64)])
    print("the generator's pictures:", look(labeller, drawn, label))


if __name__ == "__main__":
    main()
