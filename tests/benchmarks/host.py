"""What the host costs beside decoding and the network, on two CPU cores: one table, each figure with its goal.

    python tests/benchmarks/host.py [PART ...] [--images 1024] [--rounds 3] [--data FOLDER] [--json FILE]

Parts, and about how long each takes on two quiet cores (without names: all, in this order; images are made once, which
takes half a minute); no bench of them goes on for more than five minutes on a busy machine, and says what it left out:

    operations   torch operations and waits a batch, ResNet-18 layer4, batch of 64                      40 s
    free         a network that costs nothing, its whole dissection / decoding and forward pass         60 s
    layer4       ResNet-18 layer4, likewise, and the forward pass inside of it / the bare one          180 s
    layers       likewise, layer1 to layer4                                                            220 s
    start        time of nd dissect that is no phase of the run / python -c "import torch"              60 s
    quantile     thresholds of enlarged maps / of raw maps, protocol pnas2020, 128 images               10 s
                 (minutes, where every map is enlarged in full)

The free network is an average pool to 7 x 7 and a fixed 1 x 1 convolution to 512 units, so that all time is decoding
and the dissection's own. Dissections are those of ``nd bench``: with evidence, a null of 4 pairings, results so far and
the store; those marked "no null" are without the null. Ratios are of the same round; seconds are the least of all
rounds. Other work on the machine moves every figure but the counts: look at the load, and take several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.experiments.bench import Bench, bench
from ndissect.engine.experiments.steady import count_batch
from ndissect.engine.machine.device import choose_device, device_name
from ndissect.engine.machine.memory import budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo, list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.files import cache_folder
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store

ND = str(Path(sys.executable).parent / "nd")
BATCH = 64
#: Seconds after which nd bench takes fewer rounds or images; here it is to take all.
PATIENCE = 240.0
GATHERED, COUNTED = ("thresholds", "labels", ""), ("tally", "null")

FREE = '''
import torch
from torch import nn


class Free(nn.Module):
    """An average pool and a fixed convolution: 512 units of 7 x 7 for next to nothing."""

    def __init__(self):
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(7), nn.Conv2d(3, 512, 1)

    def forward(self, x):
        return self.conv(self.pool(x))


def free():
    torch.manual_seed(0)
    return Free()
'''


@dataclass(frozen=True)
class Figure:
    """One line of the table: ``measured`` in words, ``value`` to be compared with its ``goal``, None without one."""

    part: str
    what: str
    measured: str
    value: float
    goal: float | None = None


@dataclass(frozen=True)
class Machine:
    """How and over what everything is measured."""

    data: Path
    images: int
    rounds: int
    device: torch.device

    @property
    def settings(self) -> Settings:
        """As ``nd dissect`` chooses them, but in batches of 64, and with a null that is not left out for its cost."""
        return Settings(device=self.device, batch=BATCH, memory=budget(None, self.device, 1))

    def some(self, images: int | None = None) -> ConceptDataset:
        """So many images, all by default."""
        return spread(open_dataset(self.data), images or self.images)


def free_network() -> Network:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "free.py").write_text(FREE, encoding="utf-8")
        return load_network(f"{folder}/free.py:free")


def resnet18() -> Network:
    torch.manual_seed(0)
    return load_network("torchvision:resnet18@none")


def layers_of(network: Network, *names: str) -> list[LayerInfo]:
    return [info for info in list_layers(network, (224, 224)) if info.name in names]


def benched(machine: Machine, network: Network, *names: str, null: int = 4) -> Bench:
    settings, layers = replace(machine.settings, null=null), layers_of(network, *names)
    some = machine.some()
    return bench(
        network,
        some,
        layers,
        make_protocol(),
        settings,
        images=len(some),
        rounds=machine.rounds,
        budget=PATIENCE,
        tell=told,
    )


def told(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def of_bench(part: str, what: str, m: Bench, goal: float) -> list[Figure]:
    """The ratio of a bench, without the writing as well, and where its time goes."""
    told(m.bottleneck)
    if m.cut:
        told(f"cut short: {m.cut}")
    told(", ".join(f"{phase} {s:.2f}" for phase, s in m.phases.items()))
    seconds = f"{m.dissect_s:.2f} s / {m.decode_forward_s:.2f} s ({m.decode_s:.2f} decoding, {m.forward_s:.2f} forward)"
    unwritten = m.dissect_s - m.phases["write"]
    return [
        Figure(part, f"{what}: dissection / decoding and forward, {m.included[-3]}", seconds, m.ratio, goal),
        Figure(
            part,
            "- the store's writing not counted",
            f"{unwritten:.2f} s / {m.decode_forward_s:.2f} s",
            unwritten / m.decode_forward_s,
        ),
    ]


def operations(machine: Machine) -> list[Figure]:
    network, batches = resnet18(), 16
    layers = layers_of(network, "layer4")
    settings = replace(machine.settings, null=4)

    def run(progress: Progress) -> None:
        dissect(network, machine.some(BATCH * batches), layers, make_protocol(), settings, progress)

    found = count_batch(run, BATCH, batches)
    figures = []
    for what, phases in (("gathering", GATHERED), ("tally with its null", COUNTED)):
        for kind, counts, goal in (("operations", found.operations, 80), ("waits", found.waits, 1)):
            by = {p or "between": counts[p] for p in phases if counts.get(p)}
            told_by = ", ".join(f"{p} {n:.1f}" for p, n in by.items())
            figures.append(Figure("operations", f"{kind} a batch, {what}", told_by, sum(by.values()), goal))
    return figures


def free(machine: Machine) -> list[Figure]:
    network = free_network()
    return [
        *of_bench("free", "free network", benched(machine, network, "conv"), 1.7),
        *of_bench("free", "free network", benched(machine, network, "conv", null=0), 1.7),
    ]


def layer4(machine: Machine) -> list[Figure]:
    m = benched(machine, resnet18(), "layer4")
    inside = m.phases["forward"]
    return [
        *of_bench("layer4", "ResNet-18 layer4", m, 1.15),
        Figure(
            "layer4",
            "forward inside of the dissection / bare",
            f"{inside:.2f} s / {m.forward_s:.2f} s",
            inside / m.forward_s,
            1.05,
        ),
        Figure(
            "layer4",
            "- decoding and forward / bare forward: what sharing the cores with decoding costs",
            f"{m.decode_forward_s:.2f} s / {m.forward_s:.2f} s",
            m.decode_forward_s / m.forward_s,
        ),
    ]


def layers(machine: Machine) -> list[Figure]:
    names = [f"layer{n}" for n in range(1, 5)]
    return of_bench("layers", "ResNet-18 layer1-4", benched(machine, resnet18(), *names), 1.4)


def start(machine: Machine) -> list[Figure]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "free.py").write_text(FREE, encoding="utf-8")
        few = write_synthetic(folder / "few", 2 * BATCH)
        kinds = {"factory in a file": ("free.py:free", "conv", 1.5)}
        kinds["torchvision network"] = ("torchvision:resnet18@none", "layer4", 2.0)
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in (*kinds, "import torch")}
        for turn in range(machine.rounds + 3):
            plain = wall([sys.executable, "-c", "import torch"], folder)[0]
            taken = {kind: beside(spec, layer, few, folder) for kind, (spec, layer, _) in kinds.items()}
            if turn:  # the first fills the caches
                times["import torch"].append((plain, 0.0))
                for kind, pair in taken.items():
                    times[kind].append(pair)
    base = statistics.median(t for t, _ in times["import torch"])
    figures = []
    for kind, (_, _, goal) in kinds.items():
        no_phase, check = (statistics.median(column) for column in zip(*times[kind], strict=True))
        ratio = statistics.median(t / b for (t, _), (b, _) in zip(times[kind], times["import torch"], strict=True))
        seconds = f"{no_phase:.2f} s / {base:.2f} s (and {check:.2f} s of examining the network)"
        figures.append(Figure("start", f"no phase of the run / import torch, {kind}", seconds, ratio, goal))
    return figures


def beside(spec: str, layer: str, data: Path, folder: Path) -> tuple[float, float]:
    """Seconds of ``nd dissect`` that are no phase of the run, and of the phase that examines the network."""
    store = folder / "start.nd.h5"
    store.unlink(missing_ok=True)
    took, said = wall([ND, "dissect", spec, "-l", layer, "-d", str(data), "-o", str(store), "--quiet"], folder)
    with Store(store) as written:
        seconds = written.provenance["run"]["seconds"]
    write = re.search(r"write ([0-9.]+) s", said)
    return took - sum(seconds.values()) - (float(write[1]) if write else 0.0), seconds["check"]


def wall(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of a process, and what it said."""
    since = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return time.perf_counter() - since, done.stderr


def quantile(machine: Machine) -> list[Figure]:
    network = free_network()
    layers = layers_of(network, "conv")
    some, settings = machine.some(min(128, machine.images)), replace(machine.settings, null=0)
    seconds: dict[str, list[float]] = {"upsampled": [], "raw": []}
    for _ in range(machine.rounds):
        for over, taken in seconds.items():
            protocol = make_protocol("pnas2020", quantile_over=over)
            outcome = dissect(network, some, layers, protocol, settings, Progress())
            taken.append(outcome.seconds["thresholds"])
    large, raw = min(seconds["upsampled"]), min(seconds["raw"])
    what = f"thresholds phase, upsampled / raw maps, pnas2020, {len(some)} images"
    return [Figure("quantile", what, f"{large:.2f} s / {raw:.2f} s", large / raw, 2.0)]


PARTS: dict[str, Callable[[Machine], list[Figure]]] = {
    "operations": operations,
    "free": free,
    "layer4": layer4,
    "layers": layers,
    "start": start,
    "quantile": quantile,
}


def shown(f: Figure) -> str:
    goal = "" if f.goal is None else f"goal {f.goal:g}{'' if f.value <= f.goal else '  NOT REACHED'}"
    return f"{f.what:<78} {f.value:>9,.2f}  {goal:<22} {f.measured}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a Broden folder; default: synthetic images, made once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    a = parser.parse_args()
    if unknown := set(a.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    root = a.data or write_synthetic(cache_folder() / f"bench-{a.images}", a.images)
    here = Machine(root, a.images, a.rounds, choose_device(a.device))
    print(
        f"{device_name(here.device)}, {os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    figures: list[Figure] = []
    for name in a.parts or PARTS:
        told(f"{name} ...")
        try:
            added = PARTS[name](here)
        except Exception as error:
            told(f"{name} failed: {type(error).__name__}: {error}")
            continue
        figures += added
        for figure in added:
            print(shown(figure), flush=True)
    if a.json:
        a.json.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n", encoding="utf-8")
