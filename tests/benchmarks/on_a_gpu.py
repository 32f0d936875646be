"""The kernels on a GPU: first whether they count right, then how fast, in under four minutes.

    python tests/benchmarks/on_a_gpu.py

1. A pixel that lies on a sample which is the threshold, cells of one pixel or none: on one H200 with Triton 3.6 an
   earlier kernel, or the plain tally there, counted it. Each path is compared with the plain tally on the CPU, and the
   one that is wrong is named.
2. Layers of ResNet-18 of all four sizes, in every precision: counts on the GPU by every path, with one way of labelling
   and with four, against those on the CPU.
3. Images a second, as tests/benchmarks/tally.py.
4. The same kernels with other constants, to choose those by.

Nothing stops at the first difference; the last line says how many there were. On a machine without a GPU only the
paths of plain operations are compared with themselves, which tells whether the script works.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tally import CATEGORIES, CONCEPTS, LAYERS, SIZE, seconds, synthetic, table
from torch import Tensor

from ndissect.engine.machine.device import choose_device, device_name, exact_arithmetic
from ndissect.engine.measures import cell_search, fused
from ndissect.engine.measures.cell_work import CellWork
from ndissect.engine.measures.cells import CellGuess, CellSearch, Limits, active_cells
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.measures.map_work import MapWork
from ndissect.engine.measures.tally import Tally, compare_at
from ndissect.engine.passes.labels import LabelBatch, Labelling, label_batch
from ndissect.store.upsampling import Axis, Field, Upsampling, make_axis

DIFFERENCES = []


def compare(what: str, got: Callable[[], Any], expected: Any, *, tell: bool = True) -> None:
    """Print whether all arrays are equal; where they are, only with ``tell``."""
    try:
        given = got()
    except Exception as e:
        DIFFERENCES.append(what)
        print(f"  FAILED    {what}: {type(e).__name__}: {str(e).splitlines()[:1]}", flush=True)
        return
    same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(given, expected, strict=True))
    if not same:
        DIFFERENCES.append(what)
        for a, b in zip(given, expected, strict=True):
            at = np.argwhere(np.asarray(a) != np.asarray(b)) if np.shape(a) == np.shape(b) else []
            told = [(tuple(map(int, i)), int(a[tuple(i)]), int(b[tuple(i)])) for i in at[:4]]
            print(f"            shape {np.shape(a)}, {len(at)} differ, (at, given, right): {told}")
    if tell or not same:
        print(f"  {'equal' if same else 'DIFFERENT':9} {what}", flush=True)


def counts(
    by: str, maps: Tensor, threshold: Tensor, axes: tuple[Axis, Axis], kind: Upsampling, labels: LabelBatch
) -> tuple[Any, Any]:
    """(intersection, area) of the images, by a path."""
    os.environ["ND_FUSED"] = str(int("kernel" in by))
    tally = Tally(maps.shape[1], CONCEPTS, CATEGORIES, device=maps.device)
    if "cells" in by:
        tally.add_cells(active_cells(maps, compare_at(threshold), kind), threshold, *axes, labels)
    else:
        tally.add(maps, threshold, *axes, kind, labels)
    counted = tally.counts()
    return counted.intersection, counted.area


PATHS = ["plain, maps", "plain, cells", "kernel, maps", "kernel, cells"]


def on_a_sample(device: torch.device) -> None:
    """Thresholds that are a sample's value, and one float32 beside it, where a pixel lies on or beside the sample."""
    maps = torch.tensor([[[[1.3040, 0.94708097, -0.7037]], [[0.5, 0.04132598, 0.02]]]])
    value = maps[0, :, 0, 1]
    labels = label_batch([np.ones((1, 1, 1), np.int32)], [[]], np.arange(CONCEPTS) % CATEGORIES, CATEGORIES)
    limits = [value, torch.nextafter(value, value - 1), torch.nextafter(value, value + 1)]
    for offset in range(-9, 3):
        field = Field(offset, 3, 3)
        axes = make_axis("receptive-field", 1, 1, field, 1), make_axis("receptive-field", 3, 1, field, 1)
        for step, limit in zip(("at", "below", "above"), limits, strict=True):
            given = maps, limit.double(), axes, "receptive-field", labels
            expected = counts(PATHS[0], *given)
            for by in PATHS:
                compare(
                    f"{by}: field from {offset}, threshold {step} a sample",
                    lambda by=by, given=given: counts(
                        by, given[0].to(device), given[1].to(device), *given[2:4], labels.to(device)
                    ),
                    expected,
                    tell=False,
                )
    print(f"  kernels in use: {fused.why_not() or 'yes'}; search: {cell_search.why_not() or 'yes'}")


def layers(device: torch.device, images: int) -> None:
    """Every layer by every path, and the search for its cells."""
    for layer, (_, size) in LAYERS.items():
        axis = make_axis("half-pixel", size, SIZE)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            maps, threshold, labels = synthetic(layer, images, torch.device("cpu"))
            maps = maps.to(dtype)
            kind: Upsampling = "half-pixel-zero" if dtype == torch.float16 else "half-pixel"
            expected = counts(PATHS[0], maps, threshold, (axis, axis), kind, labels)
            there = maps.to(device), threshold.to(device), (axis, axis), kind, labels.to(device)
            for by in PATHS:
                compare(f"{by}: {layer}, {dtype}, {kind}", lambda by=by, there=there: counts(by, *there), expected)
            limit = compare_at(threshold)
            cells = active_cells(maps, limit, kind)
            os.environ["ND_FUSED"] = "1"

            def search(there: Any = there, limit: Tensor = limit) -> list[Any]:
                given = active_cells(there[0], limit.to(there[0].device), there[3])
                return [given.index.cpu(), given.corners.cpu()]

            compare(f"search: {layer}, {dtype}", search, [cells.index, cells.corners])

            def guessed(there: Any = there, limit: Tensor = limit) -> list[Any]:
                limits, guess, peak = Limits(limit.to(there[0].device)), CellGuess(), there[0].amax((2, 3)).float()
                for _ in range(2):  # at first nothing can be guessed
                    search = CellSearch(there[0], peak, limits, there[3], guess)
                    given = search.end([int(count) for count in search.counts])
                return [given.index.cpu(), given.corners.cpu()]

            compare(f"search without a wait: {layer}, {dtype}", guessed, [cells.index, cells.corners])
        in_four_ways(layer, images, device)
    print(f"  kernels in use: {fused.why_not() or 'yes'}; search: {cell_search.why_not() or 'yes'}")


def four_ways(layer: str, images: int, device: torch.device) -> MapWork:
    """A layer under its own labels and those of three other images, each for a slot."""
    axis = make_axis("half-pixel", LAYERS[layer][1], SIZE)
    maps, threshold, labels = synthetic(layer, images, device)
    row = torch.stack([torch.arange(images).roll(way) for way in range(4)]).to(device)
    slot = torch.arange(4, device=device)[:, None].expand(4, images)
    at = Placement(axis, axis, device)
    return MapWork(maps, compare_at(threshold), "half-pixel", Labelling(labels, row, slot), at, CONCEPTS + 1)


def in_four_ways(layer: str, images: int, device: torch.device) -> None:
    """All ways in one launch, against a plain tally of each way by itself, on the CPU."""
    if not fused.wanted(device):
        return
    from ndissect.engine.measures import fused_kernel, map_kernel

    axis = make_axis("half-pixel", LAYERS[layer][1], SIZE)
    maps, threshold, labels = synthetic(layer, images, torch.device("cpu"))
    expected = []
    for way in range(4):
        row = torch.arange(images).roll(way)
        other = LabelBatch(**{name: tensor[row] for name, tensor in vars(labels).items()})
        expected.append(counts(PATHS[0], maps, threshold, (axis, axis), "half-pixel", other)[0][0])
    os.environ["ND_FUSED"] = "1"
    work = four_ways(layer, images, device)
    (N, U, _, _), cells = work.maps.shape, work.cells()

    def launched(launch: Callable[..., None], what: Any) -> list[Any]:
        area = torch.zeros(N * U, dtype=torch.int64, device=device)
        hits = torch.zeros((4, U, work.columns), dtype=torch.int64, device=device)
        launch(what, area, hits.view(-1))
        return list(hits[:, :, 1:].cpu().numpy())

    compare(f"kernel, cells: {layer}, four ways", lambda: launched(fused_kernel.launch, cells), expected)
    compare(f"kernel, maps: {layer}, four ways", lambda: launched(map_kernel.launch, work), expected)


def other_constants(device: torch.device, images: int) -> None:
    """Images a second of the kernels alone, with one and four ways of labelling, as constants are moved."""
    if not fused.wanted(device):
        return
    from ndissect.engine.measures import fused_kernel, map_kernel, map_tiles

    as_they_are = {(fused_kernel, n): getattr(fused_kernel, n) for n in ("ROUNDS", "SMALL_PIXELS", "LARGE")}
    as_they_are |= {(map_kernel, "ROUNDS"): map_kernel.ROUNDS, (map_tiles, "TILE"): map_tiles.TILE}
    moves: dict[str, dict[Any, int]] = {
        "as they are": {},
        "1 round": {(fused_kernel, "ROUNDS"): 1, (map_kernel, "ROUNDS"): 1},
        "4 rounds": {(fused_kernel, "ROUNDS"): 4, (map_kernel, "ROUNDS"): 4},
        "no rounds": {(fused_kernel, "ROUNDS"): 0, (map_kernel, "ROUNDS"): 0},
        "small cells in 256": {(fused_kernel, "SMALL_PIXELS"): 256},
        "small cells in 64": {(fused_kernel, "SMALL_PIXELS"): 64},
        "own program from 16": {(fused_kernel, "LARGE"): 16},
        "tiles of 256": {(map_tiles, "TILE"): 256},
        "tiles of 1024": {(map_tiles, "TILE"): 1024},
    }
    print(f"{'images/s':20}{'':9}{'search':>12}{'cells':>12}{'maps':>12}{'4 ways: cells':>16}{'maps':>12}")
    for layer in LAYERS:
        work = four_ways(layer, images, device)
        own = Labelling.own(work.labelling.labels)
        once = MapWork(work.maps, work.limit, "half-pixel", own, work.at, work.columns)
        for name, moved in moves.items():
            for (module, constant), value in (as_they_are | moved).items():
                setattr(module, constant, value)
            rates = [images / seconds(lambda maps=once: maps.cells(), device, 5)]
            rates += [
                images / launches_take(launch, what)
                for maps in (once, work)
                for launch, what in ((fused_kernel.launch, maps.cells()), (map_kernel.launch, maps))
            ]
            told = "".join(f"{rate:{width},.0f}" for rate, width in zip(rates, (12, 12, 12, 16, 12), strict=True))
            print(f"{name:20}{layer:9}{told}", flush=True)
    for (module, constant), value in as_they_are.items():
        setattr(module, constant, value)


def launches_take(launch: Callable[..., None], work: CellWork | MapWork) -> float:
    """Seconds of a launch, into counts of up to four slots that are thrown away."""
    device = work.limit.device
    area = torch.zeros(work.labelling.row.shape[1] * len(work.limit), dtype=torch.int64, device=device)
    hits = torch.zeros(4 * len(work.limit) * work.columns, dtype=torch.int64, device=device)
    return seconds(lambda: launch(work, area, hits), device, 5)


if __name__ == "__main__":
    start = time.perf_counter()
    exact_arithmetic()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    where = choose_device("auto")
    on_gpu = where.type == "cuda"
    print(f"{device_name(where)}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    for title, step in {
        "1. A pixel on a sample": lambda: on_a_sample(where),
        "2. Layers by every path": lambda: layers(where, 16 if on_gpu else 2),
        "3. Rates": lambda: table(list(LAYERS), 256 if on_gpu else 4, where, 5 if on_gpu else 1),
        "4. Other constants": lambda: other_constants(where, 256 if on_gpu else 4),
    }.items():
        print(f"\n{title} (after {time.perf_counter() - start:.0f} s)", flush=True)
        os.environ.pop("ND_FUSED", None)
        step()
    print(f"\n{len(DIFFERENCES)} differences, {time.perf_counter() - start:.0f} s")
    sys.exit(bool(DIFFERENCES))
