"""``nd bench``: what a dissection costs, and the dense tally that it is compared with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch

from ndissect.engine.examination.examine import Examination, examine
from ndissect.engine.experiments.bench import dense_tally
from ndissect.engine.experiments.bottleneck import name_bottleneck
from ndissect.engine.experiments.from_options import bench_network
from ndissect.engine.experiments.rounds import Rounds, measure_rounds
from ndissect.engine.machine.console import Console
from ndissect.engine.measures.tally import Tally
from ndissect.engine.passes.labels import label_batch
from ndissect.engine.run import forward_pass
from ndissect.engine.run.options import Options
from ndissect.store.upsampling import make_axis

SECONDS = ("forward_s", "decode_forward_s", "dissect_s", "tally_s", "dense_tally_s")
BENCH = ("bench", "net.py:network", "--data", "small", "--images", "8", "--rounds", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.workplace(tmp_path_factory.mktemp("place"))


def test_a_bench_tells_seconds_of_every_part(place: Path) -> None:
    before = cli.files_in(place)
    found = cli.json_of(*BENCH, "-l", "units", folder=place)
    assert set(found) >= {"device", "images", "units", "ratio", *SECONDS}
    assert found["device"].startswith("cpu")
    assert (found["images"], found["units"], found["layers"]) == (8, 4, ["units"])
    assert (found["network"], found["precision"]) == ("net.py:network", "fp32")
    for name in SECONDS:
        assert 0 < found[name] < 120, name
    assert math.isclose(found["ratio"], found["dissect_s"] / found["decode_forward_s"])
    assert cli.files_in(place) == before, "a bench leaves nothing behind"
    assert set(found["phases"]) >= {"decode", "forward", "thresholds", "labels", "tally", "evidence", "write", "other"}
    assert math.isclose(sum(found["phases"].values()), found["dissect_s"], rel_tol=0.1)
    assert "a null of 4 pairings" in found["included"]
    assert found["bottleneck"].partition(":")[0] in ("decoding", "the network", "the host")
    assert found["decode_s"] > 0
    assert found["copy_s"] is None, "a CPU has nothing to copy"
    assert (found["rounds"], found["cut"]) == (1, "")


def test_a_bench_counts_the_operations_of_a_batch(place: Path) -> None:
    counted = cli.json_of(*BENCH, "-l", "units", "--batch-size", "2", "--null", "0", folder=place)["operations"]
    assert (counted["batch"], counted["batches"]) == (1, 6)
    assert counted["operations"]["thresholds"] >= 1
    assert counted["operations"]["tally"] >= 1
    assert "null" not in counted["operations"]
    assert "forward" not in counted["operations"], "the network is not ours"
    assert set(counted["waits"]) == set(counted["operations"])


def test_a_bench_examines_the_network_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examined = []

    def counted(*args: Any, **options: Any) -> Examination:
        examined.append(1)
        return examine(*args, **options)

    monkeypatch.setattr(forward_pass, "examine", counted)
    monkeypatch.chdir(place)
    options = Options("net.py:network", ("units",), data="small", device="cpu")
    found = bench_network(options, Console(), images=8, rounds=2)
    assert (found.rounds, found.images) == (2, 8)
    assert len(examined) == 1


def test_of_a_bench_without_a_null_this_is_said(place: Path) -> None:
    found = cli.json_of(*BENCH, "-l", "units", "--null", "0", folder=place)
    assert "no null" in found["included"]
    assert "null" not in found["phases"]


def test_a_bench_of_several_layers_and_rounds_is_a_table(place: Path) -> None:
    args = (*BENCH[:-4], "--rounds", "2", "-l", "units", "-l", "deep.pool", "--precision", "bf16", "--device", "cpu")
    done = cli.nd(*args, folder=place)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:] if not line.startswith("- ")]
    assert [r[0] for r in rows] == [
        "forward pass",
        "decoding",
        "decoding and forward pass",
        "whole dissection",
        "tally alone",
        "dense tally",
    ]
    assert all(float(r[1]) > 0 for r in rows)
    assert "8 images, 8 units of units, deep.pool, bf16, on cpu" in done.stderr
    assert "round 2 of 2" in done.stderr
    assert "bottleneck: " in done.stderr
    assert "torch operations of a batch of 1, network excluded" in done.stderr


def test_a_bench_of_more_images_than_there_are_takes_those_there_are(place: Path) -> None:
    args = [a if a != "8" else "1000" for a in BENCH]
    assert cli.json_of(*args, "-l", "units", folder=place)["images"] == cli.IMAGES


@pytest.mark.parametrize("args", [("--images", "0"), ("--rounds", "0")])
def test_a_bench_of_nothing_is_refused(place: Path, args: tuple[str, str]) -> None:
    done = cli.nd(*BENCH, *args, folder=place)
    assert done.returncode == 2
    assert args[0] in done.stderr
    assert "Traceback" not in done.stderr


# Rounds that end in time, by a clock that only they move: so many seconds for a round and for an image of it.


class Machine:
    """``one(images)`` takes ``fixed`` seconds and ``an_image`` for each; ``tried``: the images of each call."""

    def __init__(self, fixed: float, an_image: float) -> None:
        self.fixed, self.an_image, self.now, self.tried = fixed, an_image, 0.0, list[int]()

    def one(self, images: int) -> int:
        self.tried.append(images)
        self.now += self.fixed + self.an_image * images
        return images

    def measure(self, images: int, rounds: int, budget: float = 40.0) -> Rounds[int]:
        return measure_rounds(self.one, images, rounds, budget, clock=lambda: self.now)


def test_all_rounds_are_measured_where_there_is_the_time() -> None:
    machine = Machine(0.5, 0.01)
    measured = machine.measure(256, 3)
    assert (measured.results, measured.images, measured.cut) == ([256] * 3, 256, "")
    assert machine.now < 40


def test_rounds_are_left_out_where_time_is_short() -> None:
    machine = Machine(0.5, 0.06)
    measured = machine.measure(256, 3)
    assert measured.results == [256, 256]
    assert measured.cut == "2 of 3 rounds: one takes 16 s"
    assert machine.now < 40


@pytest.mark.parametrize(
    "machine", [Machine(0.5, 0.03), Machine(2.0, 0.005), Machine(0.0, 1.0), Machine(5.0, 0.01), Machine(9.0, 3.0)]
)
def test_images_are_left_out_where_one_round_would_take_too_long(machine: Machine) -> None:
    measured = machine.measure(8192, 3)
    assert 0 < measured.images < 8192
    assert "of 8,192 images: all would take about " in measured.cut
    assert machine.now < 45, machine.tried


def test_a_machine_that_is_slow_at_first_is_not_taken_for_a_slow_one() -> None:
    machine = Machine(0.1, 0.001)
    machine.now, start = 0.0, machine.one

    def one(images: int) -> int:
        machine.now += 10 * (not machine.tried)  # algorithms are chosen, kernels are compiled
        return start(images)

    measured = measure_rounds(one, 8192, 2, 40.0, clock=lambda: machine.now)
    assert (measured.images, len(measured.results)) == (8192, 2)


# What holds a dissection up


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (
            {"decode": 2.0, "forward": 1.0, "decode_forward": 2.1, "dissect": 2.3},
            "decoding: 16 workers give 500 images/s, the network takes 1,000",
        ),
        (
            {"decode": 0.1, "forward": 1.0, "decode_forward": 1.05, "dissect": 1.5},
            "the network: it takes 1,000 images/s, 16 workers decode 10,000",
        ),
        (
            {"decode": 0.1, "forward": 1.0, "decode_forward": 1.0, "dissect": 10.0},
            "the host: 90 % of the time is neither decoding nor the network (labels 50 %, tally 25 %, other 10 %)",
        ),
    ],
)
def test_the_bottleneck_is_named(seconds: dict[str, float], words: str) -> None:
    phases = {"forward": 9.0, "labels": 5.0, "tally": 2.5, "write": 0.5, "other": 1.0}
    assert name_bottleneck(seconds, 1000, 16, phases) == words


# Enlarged twice, maps of whole numbers are multiples of 1/16, so no rounding and no tie comes between the two.


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (1, 6)])
@pytest.mark.parametrize("maps_an_image", [1, 2, 3])
def test_the_dense_tally_counts_what_the_tally_counts(shape: tuple[int, int], maps_an_image: int) -> None:
    rng = np.random.default_rng(sum(shape) + maps_an_image)
    N, U, C, K = 16, 5, 7, 2
    grid = (2 * shape[0], 2 * shape[1])
    maps = torch.from_numpy(rng.integers(-9, 10, (N, U, *shape)).astype(np.float32))
    threshold = torch.tensor([-4.0, 0.0, 2.0, 5.5, 100.0], dtype=torch.float64) + 1 / 32
    layers = [rng.integers(0, C + 1, (maps_an_image, *grid)) for _ in range(N)]
    labels = label_batch(layers, [[]] * N, rng.integers(0, K, C).astype(np.int32), K)

    tally = Tally(U, C, K)
    rows, cols = (make_axis("half-pixel", n, size) for n, size in zip(shape, grid, strict=True))
    tally.add(maps, threshold, rows, cols, "half-pixel", labels)
    counts = tally.counts()
    both, area = dense_tally(maps, threshold, labels, grid, C)
    np.testing.assert_array_equal(both[:, 1:].numpy(), counts.intersection[0])
    np.testing.assert_array_equal(area.numpy(), counts.area[0])
    assert (area[:4] > 0).all()
    assert area[4] == 0
    assert (counts.intersection[0, :3] > 0).all(), "the case is not trivial"
