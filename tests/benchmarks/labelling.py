"""What labels by a network cost beside its own forward pass: no more than 1.1 times that.

The same batches go through the labeller alone, and through all that labels them; then a small network is dissected with
its data set's own labels and with the labeller's. Each is done in turn, and the medians are compared: on a CPU of the
time that this process had it, which other programs change little, else of the time that went by.

python tests/benchmarks/labelling.py [--labeller torchvision:deeplabv3_mobilenet_v3_large@none] [--images 64]
    [--batch 16] [--device auto] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.made_labels import MadeLabels
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import choose_device
from ndissect.engine.machine.progress import Progress
from ndissect.engine.machine.timing import Clock
from ndissect.engine.networks.layers import default_layers, list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.forward import Forward
from ndissect.engine.passes.labeller import with_labels
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.labelling import make_labeller
from ndissect.engine.run.options import Options
from ndissect.engine.run.settings import Settings


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labeller", default="torchvision:deeplabv3_mobilenet_v3_large@none")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = folder / "classes.txt"
        names.write_text("\n".join(f"class {n}" for n in range(given.classes)))
        options = Options(labeller=given.labeller, labeller_classes=names, batch_size=given.batch)
        source = open_dataset(write_synthetic(folder / "data", given.images))
        protocol, device = options.make_protocol(), choose_device(given.device)
        labeller = make_labeller(options, source, protocol, device, Console()).labeller
        segmenter = load_network(given.labeller)
        module = segmenter.module.to(device)
        forward = Forward(segmenter, (), device, progress=Progress(), clock=Clock())

        def fresh() -> MadeLabels:
            return MadeLabels(source, labeller.made, labeller)

        batches = list(Loader(fresh(), protocol).batches(range(given.images), given.batch, skip_bad=False))

        def alone() -> None:
            with torch.no_grad():
                for batch in batches:
                    module(forward.inputs(batch.pixels, slice(0, len(batch))))

        def labelled() -> None:
            dataset = fresh()
            for batch in batches:
                with_labels(batch, dataset, labeller)

        network = load_network("demo")
        infos = list_layers(network, (224, 224))
        layers = [info for info in infos if info.name == default_layers(infos)[-1]]
        settings = Settings(device=device, batch=given.batch, evidence=False)

        def dissected(dataset: object) -> None:
            dissect(network, dataset, layers, protocol, settings, Progress())

        work = {
            "labeller alone": alone,
            "labels": labelled,
            "dissection": lambda: dissected(source),
            "dissection, labels made": lambda: dissected(fresh()),
        }
        seconds = in_turn(work, given.rounds, device)
    for what, s in seconds.items():
        print(f"{what:24} {s:8.3f} s")
    bare = seconds["labeller alone"]
    more = seconds["dissection, labels made"] - seconds["dissection"]
    print(f"labels / labeller alone: {seconds['labels'] / bare:.3f}")
    print(f"what a dissection takes more / labeller alone: {more / bare:.3f}")


def in_turn(work: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, float]:
    """The median of the seconds that each takes, after a round that does not count."""
    taken: dict[str, list[float]] = {what: [] for what in work}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for number in range(rounds + 1):
        for what, do in work.items():
            began = clock()
            do()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                taken[what].append(clock() - began)
    return {what: statistics.median(s) for what, s in taken.items()}


if __name__ == "__main__":
    main()
