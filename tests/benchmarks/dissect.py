"""What a dissection costs beside the bare forward passes it needs: same images, same batches, one process.

    python tests/benchmarks/dissect.py [--data PATH] [--network SPEC] [--layers layer4 layer1] [--images 256]

Bare passes: preprocessing and the network alone, no hooks, run to its end. The dissection is all of it: reading,
thresholds, tally, top images. The two are taken in turn, several times; the ratio printed last is the median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from ndissect.engine.data.broden import open_dataset
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.demo import scenes
from ndissect.engine.device import DEFAULT_BATCH, choose_device, device_name, exact_arithmetic
from ndissect.engine.dissect import dissect
from ndissect.engine.layers import LayerInfo, list_layers, match_layers
from ndissect.engine.loader import image_tensor
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.progress import Progress
from ndissect.engine.settings import Settings
from ndissect.store.protocol import make_protocol


def bare_seconds(network: Network, data: ConceptDataset, device: torch.device, batch: int) -> float:
    """Seconds of one bare forward pass over images that are decoded already."""
    samples = [data.read(i) for i in range(len(data))]
    network.module.to(device)
    start = time.perf_counter()
    with torch.no_grad():
        for i in range(0, len(samples), batch):
            inputs = torch.cat([network.preprocess.apply(x) for x in image_tensor(samples[i : i + batch])])
            network.module(inputs.to(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class First:
    """The first images of a data set."""

    def __init__(self, data: ConceptDataset, images: int) -> None:
        self._data, self._images = data, min(images, len(data))
        self.names, self.splits = data.names[:images], data.splits[:images]

    def __len__(self) -> int:
        return self._images

    def __getattr__(self, name: str) -> object:
        return getattr(self._data, name)


def measure(network: Network, data: ConceptDataset, layers: list[LayerInfo], device: torch.device, runs: int) -> None:
    """Print a line for the layers together."""
    batch = DEFAULT_BATCH[device.type]
    ratios, rows = [], []
    for _ in range(runs):
        bare = bare_seconds(network, data, device, batch)
        start = time.perf_counter()
        outcome = dissect(network, data, layers, make_protocol(), Settings(device, batch), Progress())
        whole = time.perf_counter() - start
        passes = sum(s for phase, s in outcome.seconds.items() if phase in ("thresholds", "tally"))
        ratios.append((whole / (bare * outcome.passes), passes / (bare * outcome.passes)))
        rows.append((bare, whole))
    names = ",".join(x.name for x in layers)
    bare, whole = (statistics.median(x) for x in zip(*rows, strict=True))
    all_of_it, both_passes = (statistics.median(x) for x in zip(*ratios, strict=True))
    print(
        f"{names:<28} {sum(x.units for x in layers):5d} units  bare pass {bare:6.2f} s  dissection {whole:6.2f} s"
        f"  ratio to {outcome.passes} bare passes {all_of_it:.3f} (without reading and thumbnails {both_passes:.3f})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--network", default="torchvision:resnet18@none")
    parser.add_argument("--layers", nargs="+", default=["layer4"], help="each argument is a dissection of its own")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    exact_arithmetic()
    device = choose_device(a.device)
    data: ConceptDataset = First(open_dataset(a.data or scenes.ensure()), a.images)  # type: ignore[assignment]
    network = load_network(a.network)
    infos = list_layers(network, data.read(0).image.shape[:2])
    print(f"{a.network} on {len(data)} images, {device_name(device)}")
    for pattern in a.layers:
        names = match_layers([pattern], infos)
        measure(network, data, [i for i in infos if i.name in names], device, a.runs)
