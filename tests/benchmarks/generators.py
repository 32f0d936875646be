"""What dissecting a generator costs beside drawing and labelling the same samples.

    OMP_NUM_THREADS=2 python tests/benchmarks/generators.py GENERATOR --labeller NETWORK [--labeller-classes FILE]
                                       [--labeller-size N] [-l LAYER ...] [--samples 512] [--rounds 3]

In turns, each round:

    bare      the generator draws each batch of samples, and the labeller labels it on the grid
    dissect   nd dissect of the same samples and layers, without its null, written into a store

Told is the ratio of both by the clock; goal: 1.15. Loading and trying the networks is in both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import DEFAULT_BATCH, computing
from ndissect.engine.run.generated import open_samples
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options, with_demo_defaults
from ndissect.engine.run.to_store import dissect_to_store


def bare(options: Options) -> float:
    """Seconds to load both networks, to draw all samples and to label them."""
    since = time.perf_counter()
    network = network_loader(options)()
    device = torch.device("cpu")
    samples = open_samples(options, network, options.make_protocol(), device, Console())
    generator, labeller, size = samples.generator, samples.labelling.labeller, DEFAULT_BATCH["cpu"]
    with torch.no_grad(), computing("fp32", device):
        for start in range(0, options.samples, size):
            numbers = list(range(start, min(start + size, options.samples)))
            labeller.numbers([generator.pictures(generator.network.module(generator.inputs(numbers, device)))])
    return time.perf_counter() - since


def dissected(options: Options, folder: Path) -> float:
    """Seconds of a dissection."""
    since = time.perf_counter()
    dissect_to_store(options, Console(), output=folder / "bench.nd.h5", force=True)
    return time.perf_counter() - since


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("--labeller")
    parser.add_argument("--labeller-classes", type=Path)
    parser.add_argument("--labeller-size")
    parser.add_argument("-l", "--layer", action="append", default=[])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    options = with_demo_defaults(
        Options(
            network=given.generator,
            generator=True,
            layers=tuple(given.layer),
            samples=given.samples,
            labeller=given.labeller,
            labeller_classes=given.labeller_classes,
            labeller_size=given.labeller_size,
            null=0,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            alone, whole = bare(options), dissected(options, Path(folder))
            print(
                f"round {number + 1}: bare {alone:.2f} s, dissect {whole:.2f} s, ratio {whole / alone:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
