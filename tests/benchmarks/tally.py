"""What counting alone costs: maps of ResNet-18's four layers against four label maps an image, on a grid of 112.

    python tests/benchmarks/tally.py [--device auto] [--images 256] [--layers layer4 layer1] [--runs 5]

One table, in images a second. ``find``: looking for the active cells in plain operations; ``plain``: Tally.add without
kernels; ``dense``: every map interpolated in full and multiplied with the one-hot labels of each image, in single
precision, as the obvious way to do it on a GPU. And where the kernels work: ``search``, looking for the active cells
with them; ``cells``, counting cells that were found before, as a run does that kept them; ``maps``, looking for and
counting them in one launch; ``fused``: Tally.add with the kernels. All that is compared must count the same: dense
arithmetic rounds otherwise, so of it only the sums are compared, to a thousandth.

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

One H200, torch 2.11, Triton 3.6, 256 images, with the kernel as it was then, which counted cells in tables of cells x
pixels and was given them by plain operations (find / fused / plain): layer4 414,903 / 144,496 / 85,017; layer3
298,768 / 194,674 / 109,616; layer2 115,273 / 48,303 / 52,215; layer1 55,080 / 42,048 / 28,227. Without finding that
leaves 222,000, 559,000, 83,000 and 178,000 for counting. Looking for cells in layer1 ran at 1 % of what memory gives.

The kernels as they are now: NOT MEASURED YET. Compiled for compute capability 9.0 by Triton 3.6, of the kernel then
and the one for cells now: moves from layout to layout, of which those in the loop over rounds are repeated for each
round of each label map; instructions; registers; bytes of shared memory.
  cells of    moves      in a round  instructions  registers  shared
  16 x 16     17 -> 0    0 -> 0      1168 -> 1072  68 -> 80   0 -> 0
  8 x 8       17 -> 0    3 -> 0      2032 -> 536   74 -> 32   1024 -> 0
  4 x 4       17 -> 0    3 -> 0      2392 -> 832   96 -> 62   1024 -> 0
  2 x 2       27 -> 0    3 -> 0      1392 -> 824   72 -> 64   512 -> 0
A program has one cell of 64 pixels now where it had four, and half as many of 16 and 4 pixels as it had. The kernel for
maps has 1,872 to 2,056 instructions and 114 to 127 registers, of which a tile without an active cell passes 500.

Chosen by thought, with figures still to come:
- Pixels of a program in one row, in one layout. A table of cells x pixels costs moves through shared memory, with a
  barrier each, of what is summed by rows.
- One warp a program, so that sums and maxima are instructions of the warp (redux) and nothing waits.
- Labels counted together within a large cell: an active cell of layer4 has up to 256 pixels but shows one to three
  labels of a map, so one addition takes the place of about a hundred to the same address. After 8 labels the rest of
  the cell is counted pixel by pixel, which bounds the work where labels are noise. Try 1, 4 and 16.
- Cells of 4 and 16 pixels add pixel by pixel: layer2 has 8,000 mask pixels an image and four labels of each, 32,000
  additions, where an H200 does some 10^11 a second to different addresses.
- Numbers of 32 bits wherever all places fit; three divisions a cell. Tiles of maps in powers of two need one where a
  tile has several maps, none where it is part of one.
- Reading maps twice in the search (counting, then writing) rather than once with an order that atomics make: layer1 of
  256 images is 205 MB, 50 microseconds at 4.2 TB/s, and the order needs no sort.
- Corners are loaded four times, from the cache, rather than passed from lane to lane.
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
from ndissect.engine.measures import cell_search, fused
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.measures.map_work import MapWork
from ndissect.engine.measures.tally import Tally, compare_at
from ndissect.engine.passes.labels import LabelBatch, Labelling, label_batch
from ndissect.store.upsampling import make_axis

LAYERS = {"layer4": (512, 7), "layer3": (256, 14), "layer2": (128, 28), "layer1": (64, 56)}
SIZE, CONCEPTS, CATEGORIES, MAPS = 112, 1197, 6, 4
COLUMNS = ["find", "search", "plain", "cells", "maps", "fused", "dense"]


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


def synthetic(layer: str, images: int, device: torch.device) -> tuple[Tensor, Tensor, LabelBatch]:
    """Maps of a layer, thresholds of its units, and labels of the images."""
    units, size = LAYERS[layer]
    maps = smooth_maps(images, units, size)
    threshold = torch.quantile(maps[:64].transpose(0, 1).reshape(units, -1), 0.995, dim=1).double()
    category = np.arange(CONCEPTS, dtype=np.int32) % CATEGORIES
    labels = label_batch(list(label_maps(images).numpy()), [[]] * images, category, CATEGORIES)
    return maps.to(device), threshold.to(device), labels.to(device)


def measure(layer: str, images: int, device: torch.device, runs: int) -> dict[str, float]:
    """Images a second by column, of those that there are on the device."""
    units, size = LAYERS[layer]
    axis = make_axis("half-pixel", size, SIZE)
    maps, threshold, labels = synthetic(layer, images, device)
    limit = compare_at(threshold)

    def added(kernels: bool) -> tuple[Tally, float]:
        os.environ["ND_FUSED"] = str(int(kernels))
        tally = Tally(units, CONCEPTS, CATEGORIES, device=device)
        tally.add(maps, threshold, axis, axis, "half-pixel", labels)
        spare = Tally(units, CONCEPTS, CATEGORIES, device=device)
        return tally, seconds(lambda: spare.add(maps, threshold, axis, axis, "half-pixel", labels), device, runs)

    taken = {}
    plain, taken["plain"] = added(False)
    taken["find"] = seconds(lambda: active_cells(maps, limit, "half-pixel"), device, runs)
    some = slice(0, min(images, 8 if device.type == "cpu" else 64))
    dense_s = seconds(lambda: dense(maps[some], threshold.float(), labels[some]), device, 1)
    taken["dense"] = dense_s / (some.stop / images)
    reference = Tally(units, CONCEPTS, CATEGORIES, device=device)
    reference.add(maps[some], threshold, axis, axis, "half-pixel", labels[some])
    agrees = dense(maps[some], threshold.float(), labels[some])[:, 1:].sum().item()
    assert abs(reference.counts().intersection.sum() / agrees - 1) < 1e-3
    os.environ.pop("ND_FUSED")
    if fused.wanted(device):
        kernel, taken["fused"] = added(True)
        for name in ("intersection", "area", "area_in_category"):
            np.testing.assert_array_equal(getattr(kernel.counts(), name), getattr(plain.counts(), name))
        if fused.why_not() is None:
            taken |= alone(
                MapWork(maps, limit, "half-pixel", Labelling.own(labels), Placement(axis, axis, device), CONCEPTS + 1),
                plain,
                runs,
            )
        for reason in {fused.why_not(), cell_search.why_not()} - {None}:
            print(f"  plain operations, because: {reason}", flush=True)
    return {column: images / taken[column] for column in COLUMNS if column in taken}


def alone(work: MapWork, expected: Tally, runs: int) -> dict[str, float]:
    """Seconds of each kernel by itself, without what stands around it. Each counts what was ``expected``."""
    from ndissect.engine.measures import fused_kernel, map_kernel

    (N, U, _, _), device, cells = work.maps.shape, work.maps.device, work.cells()
    area = torch.zeros(N * U, dtype=torch.int64, device=device)
    hits = torch.zeros(U * work.columns, dtype=torch.int64, device=device)
    taken = {"search": seconds(lambda: active_cells(work.maps, work.limit, work.upsampling), device, runs)}
    counts = {
        "cells": lambda: fused_kernel.launch(cells, area, hits),
        "maps": lambda: map_kernel.launch(work, area, hits),
    }
    for name, count in counts.items():
        area.zero_()
        hits.zero_()
        count()
        np.testing.assert_array_equal(hits.view(U, -1)[:, 1:].cpu().numpy(), expected.counts().intersection[0])
        np.testing.assert_array_equal(area.view(N, U).sum(0).cpu().numpy(), expected.counts().area[0])
        taken[name] = seconds(count, device, runs)
    return taken


def table(layers: list[str], images: int, device: torch.device, runs: int) -> None:
    """Print images a second, a line for each layer."""
    print(f"{'images/s':10}" + "".join(f"{column:>12}" for column in COLUMNS), flush=True)
    for layer in layers:
        rates = measure(layer, images, device, runs)
        told = [f"{rates[column]:12,.0f}" if column in rates else f"{'-':>12}" for column in COLUMNS]
        print(f"{layer:10}" + "".join(told), flush=True)


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
    print(f"{device_name(where)}, torch {torch.__version__}" + ("" if where.type == "cuda" else "; kernels: on a GPU"))
    table(a.layers, a.images or (256 if where.type == "cuda" else 32), where, a.runs)
