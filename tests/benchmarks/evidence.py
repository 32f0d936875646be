"""What evidence costs: a dissection with null, image blocks, held-out split and AUPRC beside a plain one.

    python tests/benchmarks/evidence.py --network torchvision:resnet18@none --layers layer4 --images 512
    python tests/benchmarks/evidence.py                                             # the demo

The two take turns in one process; what is told is the median of each, in wall and in processor time, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread
from ndissect.engine.demo import scenes
from ndissect.engine.machine.device import choose_device
from ndissect.engine.machine.memory import budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import default_layers, list_layers, match_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.protocol import make_protocol


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--network", default="demo")
    options.add_argument("--layers", nargs="*", help="default: those that nd dissect takes")
    options.add_argument("--data", type=Path, help="a Broden folder; default: the demo's")
    options.add_argument("--images", type=int, default=0, help="so many of them; 0: all")
    options.add_argument("--device", default="auto")
    options.add_argument("--pairings", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()

    device = choose_device(asked.device)
    dataset = open_dataset(asked.data or scenes.ensure())
    dataset = spread(dataset, asked.images) if asked.images else dataset
    network = load_network(asked.network)
    known = list_layers(network, dataset.read(0).image.shape[:2])
    names = match_layers(asked.layers, known) if asked.layers else default_layers(known)
    layers = [layer for layer in known if layer.name in set(names)]
    memory = budget(None, device)
    forms = {
        "plain": Settings(device, memory=memory, evidence=False, null=0),
        "blocks, split, AUPRC": Settings(device, memory=memory, null=0),
        f"and a null of {asked.pairings}": Settings(device, memory=memory, null=asked.pairings),
    }
    took: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for _ in range(asked.rounds + 1):
        for form, settings in forms.items():
            began = time.perf_counter(), time.process_time()
            dissect(network, dataset, layers, make_protocol("netdissect"), settings, Progress())
            took[form].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    print(f"{asked.network} on {len(dataset)} images, {', '.join(names)}, on {device}; median of {asked.rounds} rounds")
    wall, cpu = (statistics.median(t[i] for t in took["plain"][1:]) for i in (0, 1))  # the first round warms up
    for form, times in took.items():
        w, c = (statistics.median(t[i] for t in times[1:]) for i in (0, 1))
        print(f"{form:26} {w:7.2f} s {w / wall:5.2f}   processor {c:7.2f} s {c / cpu:5.2f}")


if __name__ == "__main__":
    main()
