"""What dissecting costs beside what cannot be avoided: decoding the images, and the bare forward pass.

All of it on one machine, in one process, through one loader, so that the ratios mean something whatever the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.subset import spread
from ndissect.engine.machine.device import computing, device_name
from ndissect.engine.machine.progress import Progress
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.tally import Tally, compare_at
from ndissect.engine.networks.layers import LayerInfo
from ndissect.engine.networks.resolve import Network
from ndissect.engine.passes.labels import LabelBatch
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.forward_pass import ForwardPass, open_pass
from ndissect.engine.run.settings import Settings
from ndissect.store.marks import marks_json
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import make_axis

# Images whose maps are held for the tally alone, and of those the ones that the dense reference counts, which is slow.
_TALLIED, _DENSE = 64, 8


@dataclass(frozen=True)
class Bench:
    """Seconds, each the least of several rounds taken in turn.

    ``forward_s``: the network alone over decoded images; ``decode_forward_s``: with decoding; ``dissect_s``: the whole
    dissection; ``ratio``: dissect_s / decode_forward_s, the median of the rounds; ``tally_s``, ``dense_tally_s``: of
    all images, extrapolated from a few, this tally (cells looked for anew) and one that enlarges every map and
    multiplies with one-hot labels. ``marks``: of the network (ndissect.engine.examination.examine).
    """

    device: str
    network: str
    layers: list[str]
    precision: str
    images: int
    units: int
    forward_s: float
    decode_forward_s: float
    dissect_s: float
    ratio: float
    tally_s: float
    dense_tally_s: float
    marks: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def bench(
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    protocol: Protocol,
    settings: Settings,
    *,
    images: int,
    rounds: int = 3,
    tell: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure the dissection of ``layers`` over ``images`` of the data set's images, spread evenly over it."""
    some = spread(dataset, images)
    with open_pass(network, some, layers, protocol, settings, Progress()) as p:
        seconds = _time_rounds(p, network, some, layers, rounds, tell)
        tell("the tally alone")
        tally, dense = _tallies(p, len(some))
    # The ratio of each round, not of the least of each: what slows the machine down slows both.
    ratios = sorted(d / f for d, f in zip(seconds["dissect"], seconds["decode_forward"], strict=True))
    return Bench(
        device=device_name(settings.device),
        network=network.spec,
        layers=[layer.name for layer in layers],
        precision=settings.precision,
        images=len(some),
        units=sum(layer.units or 0 for layer in layers),
        forward_s=min(seconds["forward"]),
        decode_forward_s=min(seconds["decode_forward"]),
        dissect_s=min(seconds["dissect"]),
        ratio=ratios[len(ratios) // 2],
        tally_s=tally,
        dense_tally_s=dense,
        marks=marks_json(sorted(set(p.examination.marks), key=str)),
    )


def _time_rounds(
    p: ForwardPass,
    network: Network,
    dataset: ConceptDataset,
    layers: Sequence[LayerInfo],
    rounds: int,
    tell: Callable[[str], None],
) -> dict[str, list[float]]:
    """The seconds of each round of the bare forward pass, of it with decoding, and of the whole dissection."""
    settings, size, everything = p.settings, p.forward.batch.size, range(len(dataset))
    decoded = next(p.loader.batches(everything[:size], size, skip_bad=False)).pixels

    def bare(pixels: list[Tensor]) -> None:
        inputs = p.forward.inputs(pixels, slice(0, sum(len(x) for x in pixels)))
        with torch.no_grad(), computing(settings.precision, settings.device):
            network.module(inputs)

    def only_forward() -> None:
        for start in range(0, len(dataset), size):
            rest = min(size, len(dataset) - start)
            bare([decoded[0][:rest]] if len(decoded) == 1 else decoded[:rest])

    def with_decoding() -> None:
        for batch in p.loader.batches(everything, size, skip_bad=False):
            bare(batch.pixels)

    def whole() -> None:
        dissect(network, dataset, layers, p.loader.protocol, settings, Progress())

    bare(decoded)  # the first pass chooses algorithms and takes memory
    seconds: dict[str, list[float]] = {"forward": [], "decode_forward": [], "dissect": []}
    for number in range(rounds):
        for name, work in (("forward", only_forward), ("decode_forward", with_decoding), ("dissect", whole)):
            tell(f"round {number + 1} of {rounds}: {name}")
            seconds[name].append(_seconds(work, settings.device))
    return seconds


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    since = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - since


def _tallies(p: ForwardPass, images: int) -> tuple[float, float]:
    """Seconds for so many images: this tally, and the dense one, each over all layers."""
    loader, forward, device, concepts = p.loader, p.forward, p.device, p.loader.dataset.concepts
    batch = next(loader.batches(range(min(_TALLIED, len(loader.dataset))), _TALLIED, skip_bad=False))
    labels = batch.labels.to(device)
    with forward.captured() as capture:
        capture.run(forward.inputs(batch.pixels, slice(0, len(batch))))
        maps = [capture[name].to(device, torch.float32).contiguous() for name in capture.names]
    sparse = dense = 0.0
    few = slice(0, min(_DENSE, len(batch)))
    for layer_maps in maps:
        U, (h, w) = layer_maps.shape[1], layer_maps.shape[2:]
        quantile = Quantile(U, layer_maps.numel() // U, loader.protocol.q, device)
        quantile.update(layer_maps.transpose(0, 1).reshape(U, -1))
        quantile.end_pass()
        threshold = torch.from_numpy(quantile.result().threshold).to(device)
        rows, cols = (make_axis("half-pixel", n, size) for n, size in zip((h, w), loader.grid, strict=True))
        counted = Tally(U, len(concepts), len(concepts.categories), device=device)

        def tally(
            tallied: Tally = counted, x: Tensor = layer_maps, t: Tensor = threshold, r: Any = rows, c: Any = cols
        ) -> None:
            tallied.add_cells(active_cells(x, compare_at(t), "half-pixel"), t, r, c, labels)

        def reference(x: Tensor = layer_maps, t: Tensor = threshold) -> None:
            dense_tally(x[few], t, labels[few], loader.grid, len(concepts))

        sparse += min(_seconds(tally, device) for _ in range(5)) / len(batch)
        reference()
        dense += min(_seconds(reference, device) for _ in range(2)) / (few.stop - few.start)
    return sparse * images, dense * images


def dense_tally(
    maps: Tensor, threshold: Tensor, labels: LabelBatch, grid: tuple[int, int], concepts: int
) -> tuple[Tensor, Tensor]:
    """I (U, C + 1) and A (U,), float64, by enlarging every map and multiplying masks with one-hot labels.

    The reference for speed, as one would write it in torch: half-pixel upsampling, one image at a time, and only the
    concepts that the image holds.
    """
    both = torch.zeros((maps.shape[1], concepts + 1), dtype=torch.float64, device=maps.device)
    area = torch.zeros(maps.shape[1], dtype=torch.float64, device=maps.device)
    for n in range(len(maps)):
        large = F.interpolate(maps[n : n + 1], size=grid, mode="bilinear", align_corners=False)[0]
        mask = (large > threshold[:, None, None]).flatten(1).float()
        area += mask.sum(1)
        for m in range(labels.pixels.shape[2]):
            held, which = torch.unique(labels.pixels[n, :, m], return_inverse=True)
            both[:, held.long()] += (mask @ F.one_hot(which).float()).double()
    return both, area
