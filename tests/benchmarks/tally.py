"""What counting alone costs: maps of ResNet-18's four layers against four label maps an image, on a grid of 112.

    python tests/benchmarks/tally.py [--device auto] [--images 256] [--layers layer4 layer1] [--runs 5]

``plain`` and ``fused``: Tally.add with and without the fused kernel (where it works), and of it ``find``: looking for
the active cells. ``dense``: every map interpolated in full and multiplied with the one-hot labels of each image, in
single precision, as the obvious way to do it on a GPU. All that is compared must count the same: dense arithmetic
rounds otherwise, so of it only the sums are compared, to a thousandth.

On a CPU one thread is used and its own time taken, which other work on the machine disturbs least. On a GPU the clock
runs from a synchronised start to a synchronised end. Each figure is the median of the runs, after one that is not
taken.

Tried and measured
------------------
Plain PyTorch, one H200, in a trial before there was this kernel: layer4 102,600, layer3 104,400, layer2 117,000,
layer1 102,200 images/s; dense 5,060, 9,320, 16,700 and 31,300. The aim of the kernel: 300,000.
Plain PyTorch on one CPU thread of a shared machine, maps of 64 images, counting alone for layer4 (best of three):
indices of 64 bits and a look-up for each of the four label maps 364 images/s (623 in pieces of 2**20 pixels, which
stay in the caches: from here on everywhere); numbers of 32 bits and all labels of a pixel in one word of 64 bits
1,418; that with the pixels taken by nonzero and index_select instead of a mask 1,584; all labels of a cell looked up
first and those outside of the mask dropped 1,263; numpy for what indexes 1,770 on layer4 but 2,664 against 3,017 on
layer1, left out. In the product: layer4 271 before, 831 with the words, a further 1.6 times with 32 bits. Dense on the
same thread 11 to 14.

Runs of pixels in numpy (ndissect.engine.measures.host_count) on one CPU thread of a shared machine, before and after in
turn, whole Tally.add with the search for cells: layer4 886 to 1,892 images/s, layer3 1,286 to 2,148, layer2 1,331 to
1,468, layer1 807 to 968. The candidates of 1,024 images and 512 units of 7 x 7, with four pairings of the null in the
same tally: 16.7 million mask pixels lie in 2.6 million runs of a row, 2.8 million of one label, and the thread takes
0.8 s, of it 0.25 to enlarge and compare, 0.45 to cut runs and look labels up, 0.1 to add 39 million numbers. What it
took there: words.take(place, axis=0) for words[place] 1.3 against 9.8 ns a run; np.flatnonzero(label != 0) for
np.flatnonzero(label) 4 against 19; labels plane by plane or all at once no difference; torch's index_add_ and np.add.at
0.10 s, bincount by slot 0.16; whether labels change found column by column 0.06 s, by any(axis=1) 0.27; cells in pieces
of 2**16 rows of pixels 0.24 s, of 2**20 0.30. Not tried: two threads for a piece.

Fused kernel on a GPU: NOT MEASURED YET. Compiled for compute capability 9.0 it takes 62 to 118 registers, spills none,
and counts a cell of 16 x 16 pixels without shared memory.

Chosen by thought, with figures still to come:
- One warp for 256 pixels, so that sums and maxima are instructions of the warp (redux) and nothing waits.
- Labels counted together within a cell: an active cell of layer4 has up to 256 pixels but shows one to three labels of
  a map, so one addition takes the place of about a hundred to the same address. After 8 labels the rest of the cell is
  counted pixel by pixel, which bounds the work where labels are noise. Try 4 and 16.
- Pixels of a cell in a flat row rather than R x S each padded to a power of two: 13 to 113 takes 128, not 256.
- Small cells (2 x 2 in layer1) come 64 to a warp; equal labels of neighbouring cells are not joined. Try that if
  layer1 lags.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ndissect.engine.machine.device import choose_device, device_name, exact_arithmetic
from ndissect.engine.measures import fused
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.tally import Tally, compare_at
from ndissect.engine.passes.labels import LabelBatch, label_batch
from ndissect.store.upsampling import make_axis

LAYERS = {"layer4": (512, 7), "layer3": (256, 14), "layer2": (128, 28), "layer1": (64, 56)}
SIZE, CONCEPTS, CATEGORIES, MAPS = 112, 1197, 6, 4


def smooth_maps(images: int, units: int, size: int) -> Tensor:
    """(N, U, h, h) float32: blobs with some noise, nothing below zero, as after a ReLU."""
    g = torch.Generator().manual_seed(0)
    coarse = max(2, size // 3)
    blobs = F.interpolate(torch.randn((images, units, coarse, coarse), generator=g), size=(size, size), mode="bicubic")
    return F.relu(blobs + 0.2 * torch.randn((images, units, size, size), generator=g))


def label_maps(images: int) -> Tensor:
    """(N, M, H, W) int32: patches of about 19 pixels; label 0 is "no concept"."""
    g = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, CONCEPTS + 1, (images, MAPS, 6, 6), generator=g, dtype=torch.int32)
    return coarse.repeat_interleave(19, 2).repeat_interleave(19, 3)[:, :, :SIZE, :SIZE].contiguous()


def dense(maps: Tensor, threshold: Tensor, labels: LabelBatch) -> Tensor:
    """(U, C + 1) float32: the reference's counts."""
    counts = torch.zeros((maps.shape[1], CONCEPTS + 1), device=maps.device)
    for n in range(len(maps)):
        enlarged = F.interpolate(maps[n : n + 1], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0]
        mask = (enlarged > threshold[:, None, None]).view(len(counts), -1).float()
        for m in range(labels.pixels.shape[2]):
            held, which = torch.unique(labels.pixels[n, :, m], return_inverse=True)
            counts[:, held.long()] += mask @ F.one_hot(which, len(held)).float()
    return counts


def seconds(work: Callable[[], object], device: torch.device, runs: int) -> float:
    """The median of some runs."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(runs + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return statistics.median(taken[1:])


def measure(layer: str, images: int, device: torch.device, runs: int) -> None:
    """Print a line."""
    units, size = LAYERS[layer]
    maps = smooth_maps(images, units, size)
    threshold = torch.quantile(maps[:64].transpose(0, 1).reshape(units, -1), 0.995, dim=1).double().to(device)
    maps, axis = maps.to(device), make_axis("half-pixel", size, SIZE)
    labels = label_batch(
        list(label_maps(images).numpy()), [[]] * images, np.arange(CONCEPTS, dtype=np.int32) % CATEGORIES, CATEGORIES
    ).to(device)

    def counting(kernel: bool) -> tuple[Tally, float]:
        os.environ["ND_FUSED"] = str(int(kernel))
        tally = Tally(units, CONCEPTS, CATEGORIES, device=device)
        tally.add(maps, threshold, axis, axis, "half-pixel", labels)
        spare = Tally(units, CONCEPTS, CATEGORIES, device=device)
        return tally, seconds(lambda: spare.add(maps, threshold, axis, axis, "half-pixel", labels), device, runs)

    plain, plain_s = counting(False)
    find_s = seconds(lambda: active_cells(maps, compare_at(threshold), "half-pixel"), device, runs)
    some = slice(0, min(images, 8 if device.type == "cpu" else 64))
    dense_s = seconds(lambda: dense(maps[some], threshold.float(), labels[some]), device, 1) / (some.stop / images)
    reference = Tally(units, CONCEPTS, CATEGORIES, device=device)
    reference.add(maps[some], threshold, axis, axis, "half-pixel", labels[some])
    agrees = dense(maps[some], threshold.float(), labels[some])[:, 1:].sum().item()
    assert abs(reference.counts().intersection.sum() / agrees - 1) < 1e-3
    told = f"{layer}  find {images / find_s:9,.0f}  plain {images / plain_s:9,.0f}"
    os.environ.pop("ND_FUSED")
    if fused.wanted(device):
        kernel, kernel_s = counting(True)
        told += f"  fused {images / kernel_s:9,.0f}"
        for name in ("intersection", "area", "area_in_category"):
            np.testing.assert_array_equal(getattr(kernel.counts(), name), getattr(plain.counts(), name))
        told += f" ({plain_s / kernel_s:.1f} x plain, {dense_s / kernel_s:.1f} x dense)"
    print(f"{told}  dense {images / dense_s:9,.0f} (plain is {dense_s / plain_s:.1f} x)  images/s", flush=True)
    if fused.why_not():
        print(f"  no fused kernel: {fused.why_not()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int)
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    exact_arithmetic()
    torch.set_num_threads(1)
    where = choose_device(a.device)
    print(
        f"{device_name(where)}, torch {torch.__version__}" + ("" if where.type == "cuda" else "; fused: on a GPU only")
    )
    for name in a.layers:
        measure(name, a.images or (256 if where.type == "cuda" else 32), where, a.runs)
