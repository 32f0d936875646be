"""``nd bench``: what a dissection costs, and the dense tally that it is compared with."""

from __future__ import annotations

import math
from pathlib import Path

import cli
import numpy as np
import pytest
import torch

from ndissect.engine.experiments.bench import dense_tally
from ndissect.engine.measures.tally import Tally
from ndissect.engine.passes.labels import label_batch
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


def test_a_bench_of_several_layers_and_rounds_is_a_table(place: Path) -> None:
    args = (*BENCH[:-4], "--rounds", "2", "-l", "units", "-l", "deep.pool", "--precision", "bf16", "--device", "cpu")
    done = cli.nd(*args, folder=place)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [r[0] for r in rows] == [
        "forward pass",
        "decoding and forward pass",
        "whole dissection",
        "tally alone",
        "dense tally",
    ]
    assert all(float(r[1]) > 0 for r in rows)
    assert "8 images, 8 units of units, deep.pool, bf16, on cpu" in done.stderr
    assert "round 2 of 2" in done.stderr


def test_a_bench_of_more_images_than_there_are_takes_those_there_are(place: Path) -> None:
    args = [a if a != "8" else "1000" for a in BENCH]
    assert cli.json_of(*args, "-l", "units", folder=place)["images"] == cli.IMAGES


@pytest.mark.parametrize("args", [("--images", "0"), ("--rounds", "0")])
def test_a_bench_of_nothing_is_refused(place: Path, args: tuple[str, str]) -> None:
    done = cli.nd(*BENCH, *args, folder=place)
    assert done.returncode == 2
    assert args[0] in done.stderr
    assert "Traceback" not in done.stderr


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
