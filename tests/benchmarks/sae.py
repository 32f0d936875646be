"""What a sparse autoencoder's layer costs beside the layer that it reads: the time must grow with what fires.

    python tests/benchmarks/sae.py [--images 512] [--units 16384] [--firing 32] [--rounds 2] [--data FOLDER]

The network is torchvision's ResNet-18 without weights, with an encoder behind layer4: units = ReLU(W x + b) at each of
its 7 x 7 places, W random, b such that about ``firing`` of ``units`` fire at a place of the data. Dissections of
layer4, and of the encoder, are those of ``nd dissect`` on the host: with evidence, a null of 4 pairings and the store.
Told are the seconds of each phase, of the whole, and of the processors, which other work on the machine moves less;
their ratios, with the encoder's own forward pass and without it; and the size of the store.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.machine.device import choose_device
from ndissect.engine.machine.memory import budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.resolve import Network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.files import cache_folder
from ndissect.store.protocol import make_protocol
from ndissect.store.writer import write_store

BATCH = 64


class WithEncoder(nn.Module):
    """ResNet-18, whose layer4 an encoder of ``units`` reads."""

    def __init__(self, units: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = resnet18(weights=None)
        self.encoder = nn.Sequential(nn.Conv2d(512, units, 1), nn.ReLU())
        self.eval()

    def layer4(self, x: Tensor) -> Tensor:
        n = self.network
        x = n.maxpool(n.relu(n.bn1(n.conv1(x))))
        return n.layer4(n.layer3(n.layer2(n.layer1(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.layer4(x))  # type: ignore[no-any-return]


def calibrated(units: int, firing: int, inputs: Tensor) -> WithEncoder:
    """The network, with about ``firing`` of ``units`` above 0 at each place of the ``inputs``."""
    model = WithEncoder(units)
    conv = model.encoder[0]
    with torch.no_grad():
        features = model.layer4(inputs)
        conv.bias.zero_()
        at = conv(features).transpose(0, 1).flatten(1)
        conv.bias.copy_(-at.quantile(1 - firing / units, dim=1))
        share = (model.encoder(features) > 0).float().mean()
    print(f"{share * units:.1f} of {units} units fire at a place")
    return model


def measured(network: Network, layer: str, dataset: ConceptDataset, rounds: int) -> dict[str, float]:
    """The least seconds of each phase of a dissection of ``layer``, with those of the store."""
    device = choose_device("cpu")
    settings = Settings(device=device, batch=BATCH, memory=budget(None, device), null=4)
    infos = [info for info in list_layers(network) if info.name == layer]
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began, worked = time.perf_counter(), time.process_time()
            outcome = dissect(network, dataset, infos, make_protocol(), settings, Progress())
            assert outcome.dissection is not None
            store = Path(folder) / "store.nd.h5"
            writing = time.perf_counter()
            write_store(store, outcome.dissection)
            ended = time.perf_counter()
            seconds = {**outcome.seconds, "store": ended - writing, "whole": ended - began}
            seconds["processors"] = time.process_time() - worked
            if not best or seconds["whole"] < best["whole"]:
                best = seconds | {"MB of store": store.stat().st_size / 1e6}
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--units", type=int, default=16_384)
    parser.add_argument("--firing", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=cache_folder() / "bench-1024")
    given = parser.parse_args()
    if not given.data.exists():
        write_synthetic(given.data, images=1024)
    dataset = spread(open_dataset(given.data), given.images)
    prepare = Preprocess()
    first = [torch.from_numpy(dataset.read(i).image.copy()).permute(2, 0, 1)[None] for i in range(0, len(dataset), 8)]
    model = calibrated(given.units, given.firing, torch.cat([prepare.apply(x) for x in first[:64]]))
    network = Network(model.requires_grad_(False), "resnet18 with an encoder", "sae", prepare, "", {})
    plain = measured(network, "network.layer4", dataset, given.rounds)
    sparse = measured(network, "encoder", dataset, given.rounds)
    for phase in sparse:
        print(f"{phase:<12} layer4 {plain.get(phase, 0):8.2f}   encoder {sparse[phase]:8.2f}")
    own = sparse["forward"] - plain["forward"]
    for what in ("whole", "processors"):
        both, alone = sparse[what] / plain[what], (sparse[what] - own) / plain[what]
        print(f"{what}: encoder / layer4 {both:.2f}; without the encoder's own forward pass {alone:.2f}")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
