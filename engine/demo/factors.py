"""Networks that differ in one factor, saved while they learn: ``python -m ndissect.engine.demo.factors -o DIR``.

Four networks like the demo's: the baseline; one without batch norm; one with dropout; one twice as wide. Each is saved
after 0, 1, 2, 4, ... steps of its training and at its end. The folder is what ``nd series FOLDER`` reads.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ndissect.engine.demo.network import DemoCNN, demo_transform
from ndissect.engine.demo.train import BATCH, Lessons, accuracy, draw, save_weights, train
from ndissect.store.files import atomic
from ndissect.store.names import quoted

#: The columns of ``series.csv``: three that say what the network is, then the factors.
COLUMNS = ("name", "network", "weights", "iteration", "batch_norm", "dropout", "width")


def plain() -> tuple[nn.Module, Any]:
    """The demo's network without its weights, and its transform."""
    return DemoCNN(), demo_transform()


def without_batch_norm() -> tuple[nn.Module, Any]:
    """The same without batch norm."""
    return DemoCNN(batch_norm=False), demo_transform()


def wide() -> tuple[nn.Module, Any]:
    """The same with twice as many units in every layer."""
    return DemoCNN(width=2), demo_transform()


@dataclass(frozen=True)
class Variant:
    """A network of the series: its ``factory`` here, and the share of units that training leaves out at random."""

    name: str
    factory: Callable[[], tuple[nn.Module, Any]]
    batch_norm: bool = True
    dropout: float = 0.0
    width: int = 1

    def make(self) -> DemoCNN:
        """The network at its beginning."""
        model, _ = self.factory()
        assert isinstance(model, DemoCNN)
        return model

    def member(self, iteration: int) -> dict[str, object]:
        """Its row of ``series.csv`` after so many steps."""
        name = f"{self.name}-{iteration:04d}"
        spec = f"ndissect.engine.demo.factors:{self.factory.__name__}"
        values = (name, spec, f"{name}.safetensors", iteration, "yes" if self.batch_norm else "no", self.dropout)
        return dict(zip(COLUMNS, (*values, self.width), strict=True))


VARIANTS = (
    Variant("baseline", plain),
    Variant("no-batch-norm", without_batch_norm, batch_norm=False),
    Variant("dropout", plain, dropout=0.5),
    Variant("wide", wide, width=2),
)


def saved_at(last: int) -> Iterator[int]:
    """0, 1, 2, 4, ... and ``last``, without what comes shortly before it."""
    step = 0
    while 3 * step < 2 * last:
        yield step
        step = 2 * step or 1
    yield last


def write(folder: Path, variant: Variant, lessons: Lessons, epochs: int, seed: int) -> tuple[DemoCNN, list[Any]]:
    """Train ``variant`` and write its weights at each step of :func:`saved_at`; the network, and its rows."""
    rows = []
    wanted = set(saved_at(epochs * (len(lessons.kind) // BATCH)))

    def after(done: int, model: DemoCNN) -> None:
        if done in wanted:
            row = variant.member(done)
            save_weights(model, folder / str(row["weights"]))
            rows.append(row)

    return train(lessons, epochs, seed, make=variant.make, dropout=variant.dropout, after=after), rows


def write_table(folder: Path, rows: list[dict[str, object]]) -> None:
    """Write ``series.csv``."""
    with atomic(folder / "series.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Draw the images, train every variant on them, and say how well each has learnt."""
    parser = argparse.ArgumentParser(description="Train networks that differ in one factor, for nd series.")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the folder, made where it is missing")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=1200, help="images to draw; about 70 %% of them are for training")
    parser.add_argument("--seed", type=int, default=1, help="of the images and of the weights; not 0, the demo's own")
    parser.add_argument("--quick", action="store_true", help="two epochs of 96 images, to try it out")
    options = parser.parse_args()
    epochs, images = (2, 96) if options.quick else (options.epochs, options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    print(f"drawing {images} images", flush=True)
    lessons, held_out = draw(options.seed, images)
    rows: list[dict[str, object]] = []
    facts: dict[str, object] = {"seed": options.seed, "epochs": epochs, "train_images": len(lessons.kind)}
    for variant in VARIANTS:
        print(f"{variant.name}:", flush=True)
        model, saved = write(options.out, variant, lessons, epochs, options.seed)
        rows += saved
        write_table(options.out, rows)
        accuracies = accuracy(model, held_out)
        facts[variant.name] = {"parameters": sum(p.numel() for p in model.parameters()), **accuracies}
        print(f"{variant.name}: held-out accuracy {accuracies['kind']:.4f}, {len(held_out.kind)} images", flush=True)
    facts |= {"minutes": round((time.perf_counter() - start) / 60, 1), "torch": torch.__version__}
    with atomic(options.out / "factors.json") as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(rows)} networks, {facts['minutes']} minutes; next: nd series {quoted(options.out)}")


if __name__ == "__main__":
    main()
