"""Train the demo network from scratch: ``python -m ndissect.engine.demo.train``, a few minutes on two cores.

It learns from labels of whole images only: which scene or texture it is, which objects, parts and materials are in
it, and how much of each colour. Where things are it must find out by itself; that is what dissection then looks for.
The images are drawn from a seed of their own, so the network has never seen those that it is dissected on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ndissect.engine.data.colors import COLORS, color_map
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.demo.broden_writer import SOURCE
from ndissect.engine.demo.canvas import SIZE
from ndissect.engine.demo.network import CLASSES, PRESENT, WEIGHTS, DemoCNN, demo_transform
from ndissect.engine.demo.render import render
from ndissect.engine.demo.vocabulary import NUMBER
from ndissect.store.files import atomic

BATCH = 32
DROPOUT = 0.1


@dataclass(frozen=True)
class Lessons:
    """Images (N, 3, SIZE, SIZE) uint8 with what is said of each as a whole: ``kind`` (N,) int64, an index into
    CLASSES; ``present`` (N, len(PRESENT)) float32, 0 or 1; ``colors`` (N, 11) float32, shares of the pixels."""

    images: Tensor
    kind: Tensor
    present: Tensor
    colors: Tensor

    def take(self, rows: Tensor) -> Lessons:
        """The lessons of these rows."""
        return Lessons(self.images[rows], self.kind[rows], self.present[rows], self.colors[rows])


def draw(seed: int, images: int) -> tuple[Lessons, Lessons]:
    """The train and the val lessons of ``images`` images of ``seed``, parted by Broden's rule."""
    pixels = np.empty((images, SIZE, SIZE, 3), np.uint8)
    kind = np.empty(images, np.int64)
    present = np.zeros((images, 256), np.float32)
    colors = np.zeros((images, 256), np.float32)
    for index in range(images):
        rendered = render(seed, index)
        packed = io.BytesIO()
        rendered.picture.save(packed, "JPEG", quality=92)
        pixels[index] = np.asarray(Image.open(packed))
        (number,) = rendered.labels.values()
        kind[index] = _CLASS_OF[number]
        for maps in rendered.maps.values():
            present[index, np.unique(np.stack(maps))] = 1
        named = color_map(pixels[index])
        colors[index] = np.bincount(named.ravel(), minlength=256) / named.size
    every = Lessons(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(kind),
        torch.from_numpy(present[:, [NUMBER[name] for name in PRESENT]]),
        torch.from_numpy(colors[:, [NUMBER[f"{name}-c"] for name in COLORS]]),
    )
    train = torch.tensor([split_by_name(f"{SOURCE}/{index:05d}.jpg") == "train" for index in range(images)])
    return every.take(train), every.take(~train)


def loss_of(model: DemoCNN, batch: Tensor, lessons: Lessons, dropout: float = DROPOUT) -> Tensor:
    """The loss of one batch: kind, presence and colours, and a small price on activity.

    Presence is the soft maximum over places, so that one place that shows a wheel is enough; colours are the mean
    over places of what each place says. The share ``dropout`` of units is left out at random and activity has a price,
    which spreads the concepts over units and keeps each unit silent where it has nothing to say.
    """
    features = model.features(batch)
    dropped = F.dropout2d(features, dropout)
    kind = F.cross_entropy(model.classify(dropped.mean((2, 3))), lessons.kind, label_smoothing=0.05)
    places = model.present(dropped).flatten(2)
    evidence = torch.logsumexp(places, 2) - float(np.log(places.shape[2]) / 2)
    present = F.binary_cross_entropy_with_logits(evidence, lessons.present)
    said = model.color(dropped).softmax(1).mean((2, 3))
    colors = -(lessons.colors * (said + 1e-6).log()).sum(1).mean()
    total: Tensor = kind + 8 * present + 2 * colors + 0.02 * features.mean()
    return total


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` moved by up to six pixels and mirrored at random."""
    padded = F.pad(images.float(), (6, 6, 6, 6), "reflect").to(torch.uint8)
    y, x = torch.randint(13, (2,), generator=generator).tolist()
    out = padded[:, :, y : y + SIZE, x : x + SIZE]
    return out.flip(3) if torch.rand((), generator=generator) < 0.5 else out


def train(
    lessons: Lessons,
    epochs: int,
    seed: int,
    *,
    make: Callable[[], DemoCNN] = DemoCNN,
    dropout: float = DROPOUT,
    after: Callable[[int, DemoCNN], None] | None = None,
) -> DemoCNN:
    """The network after ``epochs`` passes over ``lessons``, in evaluation mode; prints the loss of every epoch.

    ``make``: the network at its beginning; ``after``: called with the number of steps made so far, 0 too.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = make().to(memory_format=torch.channels_last)
    transform = demo_transform()
    steps = epochs * (len(lessons.kind) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.2)
    done = 0
    if after:
        after(done, model)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(lessons.kind), generator=generator)
        batches = order[: len(order) // BATCH * BATCH].view(-1, BATCH)
        for rows in batches:
            chosen = lessons.take(rows)
            inputs = transform(shifted(chosen.images, generator)).contiguous(memory_format=torch.channels_last)
            loss = loss_of(model, inputs, chosen, dropout)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.item()
            done += 1
            if after:
                after(done, model)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(batches):.4f}, {seconds:.0f} s", flush=True)
    return model.eval()


@torch.inference_mode()
def accuracy(model: DemoCNN, lessons: Lessons) -> dict[str, float]:
    """Shares of right answers on ``lessons``: ``kind``, the scene or texture of an image; ``present``, the average
    precision over images, meaned over the objects, parts and materials that occur."""
    transform = demo_transform()
    kinds, evidence = [], []
    for images in torch.split(lessons.images, BATCH):
        features = model.features(transform(images))
        kinds.append(model.classify(features.mean((2, 3))).argmax(1))
        evidence.append(torch.logsumexp(model.present(features).flatten(2), 2))
    right = (torch.cat(kinds) == lessons.kind).float().mean().item()
    scores = torch.cat(evidence)
    precisions = []
    for column in range(len(PRESENT)):
        truth = lessons.present[:, column][scores[:, column].argsort(descending=True)]
        if truth.any():
            hits = truth.cumsum(0) / torch.arange(1, len(truth) + 1)
            precisions.append((hits * truth).sum().item() / truth.sum().item())
    return {"kind": round(right, 4), "present": round(float(np.mean(precisions)), 4)}


def save_weights(model: DemoCNN, path: Path) -> None:
    """Write the weights in half precision to ``path``."""
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic(path) as part:
        part.write_bytes(to_safetensors(state))


def save(model: DemoCNN, path: Path, facts: dict[str, object]) -> None:
    """Write the weights in half precision to ``path`` and how they came about to the .json beside it."""
    save_weights(model, path)
    facts = {**facts, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "torch": torch.__version__}
    with atomic(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Draw, train, measure on the val images, save."""
    parser = argparse.ArgumentParser(description="Train the demo network.")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--images", type=int, default=4000, help="images to draw; about 70 %% of them are for training")
    parser.add_argument("--seed", type=int, default=1, help="of the images and of the weights; not 0, the demo's own")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the .safetensors file; its .json lies beside it")
    options = parser.parse_args()
    start = time.perf_counter()
    print(f"drawing {options.images} images", flush=True)
    lessons, held_out = draw(options.seed, options.images)
    model = train(lessons, options.epochs, options.seed)
    # What is measured is what is shipped: the weights as half precision keeps them.
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    held = accuracy(model, held_out)
    minutes = (time.perf_counter() - start) / 60
    facts: dict[str, object] = {
        "seed": options.seed,
        "epochs": options.epochs,
        "train_images": len(lessons.kind),
        "held_out_images": len(held_out.kind),
        "held_out_accuracy": held["kind"],
        "held_out_presence_average_precision": held["present"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round(minutes, 1),
    }
    save(model, options.out, facts)
    print(f"held-out accuracy {held['kind']:.4f} over {len(CLASSES)} scenes and textures, {len(held_out.kind)} images")
    print(f"held-out presence: mean average precision {held['present']:.4f} over {len(PRESENT)} concepts")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {minutes:.1f} minutes")


_CLASS_OF = {NUMBER[name]: k for k, name in enumerate(CLASSES)}

if __name__ == "__main__":
    main()
