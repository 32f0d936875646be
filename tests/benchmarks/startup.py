"""How long a command takes to start, as ratios to importing the libraries it stands on; whole processes, in turn.

python tests/benchmarks/startup.py [--runs 21]

Of ``nd dissect`` the time is told that is no phase of the run: start, imports, the network, a first look at its layers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from large_store import large_store

from ndissect.store.reader import Store

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cli import write_inputs

ND = str(Path(sys.executable).parent / "nd")


def seconds(command: list[str], folder: Path) -> float:
    """Wall-clock seconds of one run of ``command``, its output thrown away."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "ND_STORE": ""})
    return time.perf_counter() - start


def outside_of_phases(command: list[str], folder: Path) -> float:
    """Wall-clock seconds of a dissection by ``command``, less those of its phases."""
    store = folder / "started.nd.h5"
    took = seconds([*command, "--quiet", "--force", "-o", str(store)], folder)
    with Store(store) as written:
        return took - sum(written.provenance["run"]["seconds"].values())


def compare(
    name: str,
    command: list[str],
    base: str,
    limit: float,
    folder: Path,
    runs: int,
    measure: Callable[[list[str], Path], float] = seconds,
) -> None:
    """Print the median times of ``command`` and of Python running ``base``, and the median of their ratios."""
    pairs = []
    for turn in range(runs + 1):
        pair = measure(command, folder), seconds([sys.executable, "-c", base], folder)
        if turn:  # the first fills the caches
            pairs.append(pair)
    a, b = (statistics.median(x) for x in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    print(f"{name:<42} {a * 1000:6.0f} ms   {base:<34} {b * 1000:6.0f} ms   ratio {ratio:.2f} (target {limit})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compare("nd --help", [ND, "--help"], "import typer, rich", 1.5, folder, runs)
        for layers in (1, 50):
            store = large_store(folder / f"large{layers}.nd.h5", layers)
            title = f"nd inspect layer4 ({26_560 // layers} units of 26,560)"
            compare(title, [ND, "inspect", "layer4", "-s", str(store), "-n", "20"],
                    "import typer, rich.table, h5py", 2.0, folder, runs)  # fmt: skip
            store.unlink()
        write_inputs(folder)
        for network, limit in (("net.py:network", 1.5), ("torchvision:resnet18@none", 2.0)):
            compare(f"nd layers {network}", [ND, "layers", network], "import torch", limit, folder, runs)
            if network.startswith("torchvision:"):
                title, base = f"nd layers {network}", "import torchvision.models"
                compare(title, [ND, "layers", network], base, 1.5, folder, runs)
            command = [ND, "dissect", network, "--data", "small"]
            title = f"nd dissect {network}, no phase"
            compare(title, command, "import torch", limit, folder, runs, outside_of_phases)
