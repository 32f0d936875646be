"""What it costs to set units of a generator to zero one by one, beside (tail + labeller) for each unit.

    OMP_NUM_THREADS=1 python tests/benchmarks/removal.py STORE.nd.h5 [--layer NAME] [--units 4] [--samples 32]
                                                         [--rounds 3] [--batch 16]

STORE is one of ``nd dissect GENERATOR --generator --labeller NETWORK``. In turns:

    bare      for each batch and unit, what follows the layer, run from its maps, and the labeller on the pictures
    removal   ndissect.engine.experiments.area_sums, with one unit, and with two times ``units``: their difference is
              what more units cost, without what is done once (the whole generator and its own labels); goal: 1.1

Told is the ratio of both for a unit, in each round, by the clock and by processor seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ndissect.engine.experiments.area_sums import areas_without
from ndissect.engine.experiments.generated import Generated, GeneratorRequest, open_generated, set_units
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import computing
from ndissect.engine.networks.tail import Tail
from ndissect.engine.run.options import Options


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the processors."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def bare(g: Generated, units: list[int], samples: range) -> tuple[float, float]:
    """Seconds of the tail and the labeller alone, for these units."""
    spent = [0.0, 0.0]

    def each(tail: Tail) -> None:
        for unit in units:
            output = tail.run(lambda maps, unit=unit: set_units(maps, [unit], torch.zeros(1)))
            g.labeller.numbers([g.pictures(output)])

    with torch.no_grad(), computing("fp32", g.device), Tail(g.network.module, g.tap) as tail:
        for some in g.batches(samples):
            tail.start(g.inputs(some))
            clock, processor = seconds(lambda: each(tail))
            spent = [spent[0] + clock, spent[1] + processor]
    return spent[0], spent[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--layer")
    parser.add_argument("--units", type=int, default=4)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    request = GeneratorRequest(given.store, given.layer, Options(device="cpu", batch_size=given.batch))
    samples = range(given.samples)
    with open_generated(request, Console()) as g:
        many = list(range(min(2 * given.units + 1, g.ious.shape[0])))
        areas_without(g, [(0,)], samples[: given.batch])  # what is done at the first call alone
        for _ in range(given.rounds):
            least = bare(g, many[1:], samples)
            once = seconds(lambda: areas_without(g, [(0,)], samples))
            all_of_them = seconds(lambda: areas_without(g, [(unit,) for unit in many], samples))
            clock, processor = ((a - b) / c for a, b, c in zip(all_of_them, once, least, strict=True))
            each = 1000 * least[0] / (len(many) - 1) / len(samples)
            print(
                f"tail + labeller {each:.1f} ms a picture; a unit more / (tail + labeller), goal 1.1:"
                f" clock {clock:.2f}, processor {processor:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
