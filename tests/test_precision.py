"""What a faster arithmetic changes is measured before it is used, told, and kept in the store."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.device import Precision, computing
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.drift import SAMPLE, Drift, measure_drift
from ndissect.engine.run.settings import Settings
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store

SIZE, GRID = 32, 16
CONCEPTS = [Concept(3, "tree"), Concept(9, "wheel", "part")]

# Weights that no 8 bits hold, and activations of about one.
CONV = """
import torch
from torch import nn


def network():
    g = torch.Generator().manual_seed(7)
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 8, 3, stride=2, padding=1))
    net.add_module("relu", nn.ReLU())
    net.add_module("second", nn.Conv2d(8, 6, 3, stride=2, padding=1))
    for layer in (net.first, net.second):
        layer.weight.data = torch.randn(layer.weight.shape, generator=g) / layer.weight[0].numel() ** 0.5
        layer.bias.data = torch.randn(layer.bias.shape, generator=g) / 10
    return net, lambda x: x.float() / 255
"""


def write_data(folder: Path, images: int) -> Path:
    rng = np.random.default_rng(0)
    held = {"object": np.array([0, 3], np.uint16), "part": np.array([0, 0, 9], np.uint16)}
    pictures = [Picture({k: rng.choice(numbers, (GRID, GRID)) for k, numbers in held.items()}) for _ in range(images)]
    return write_broden(folder, pictures, CONCEPTS, image_size=(SIZE, SIZE), grid=(GRID, GRID))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small", 20)


def drift(folder: Path, data: Path, precision: Precision, layers: tuple[str, ...] = ("first", "second")) -> list[Drift]:
    network = load_network(f"{write_network(folder, CONV)}:network")
    infos = [i for i in list_layers(network, (SIZE, SIZE)) if i.name in layers]
    settings = Settings(workers=2, precision=precision, batch=16)
    return measure_drift(network, open_dataset(data), infos, make_protocol(q="1/20"), settings)


def test_float32_does_not_drift_from_itself(tmp_path: Path, data: Path) -> None:
    assert drift(tmp_path, data, "fp32") == [
        Drift("first", "fp32", 20, 8, 0.0, 0, 0.0),
        Drift("second", "fp32", 20, 6, 0.0, 0, 0.0),
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_faster_arithmetic_drifts_a_little(tmp_path: Path, data: Path, precision: Precision) -> None:
    found = drift(tmp_path, data, precision)
    assert [d.layer for d in found] == ["first", "second"]
    for d, units in zip(found, (8, 6), strict=True):
        assert (d.precision, d.images, d.units) == (precision, 20, units)
        assert 0 < d.threshold < (0.05 if precision == "bf16" else 0.005)
        assert 0 <= d.iou < 0.1
        assert 0 <= d.labels <= units


def test_fewer_bits_drift_more(tmp_path: Path, data: Path) -> None:
    rough, fine = (drift(tmp_path, data, p)[0].threshold for p in ("bf16", "fp16"))
    assert rough > 2 * fine > 0


def test_of_a_large_data_set_a_part_is_measured(tmp_path: Path) -> None:
    large = write_data(tmp_path / "large", SAMPLE + 3)
    [found] = drift(tmp_path, large, "bf16", ("first",))
    assert found.images == SAMPLE


def test_the_arithmetic_of_the_process_is_as_before_afterwards(tmp_path: Path, data: Path) -> None:
    drift(tmp_path, data, "bf16")
    x = torch.full((1, 4), 1 + 2**-12)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.nn.functional.linear(x, torch.eye(4)).equal(x)
    with computing("bf16", torch.device("cpu")):
        assert torch.nn.functional.linear(x, torch.eye(4)).dtype == torch.bfloat16


# With nd dissect

BF16 = ("dissect", "conv.py:network", "--data", "small", "-l", "first", "-o", "fast.nd.h5", "--precision", "bf16")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cli.workplace(tmp_path_factory.mktemp("place"))
    write_network(folder, CONV, "conv.py")
    return folder


def test_a_run_tells_and_keeps_what_its_arithmetic_changes(place: Path) -> None:
    done = cli.nd(*BF16, "--quantile", "0.2", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"][0]["layer"] == "first"
    with Store(place / "fast.nd.h5") as store:
        run = store.provenance["run"]
    assert run["arithmetic"] == "bf16"
    [kept] = run["drift"]
    found = Drift(**kept)
    assert (found.layer, found.precision, found.images, found.units) == ("first", "bf16", cli.IMAGES, 8)
    assert 0 < found.threshold < 0.05
    assert math.isfinite(found.iou)
    assert [line for line in done.stderr.splitlines() if "against fp32" in line] == [str(found)]
    assert dataclasses.asdict(found) == kept


def test_a_run_in_float32_has_nothing_to_tell(place: Path) -> None:
    assert "against fp32" not in cli.the_dissection().stderr
    with Store(place / "net-small.nd.h5") as store:
        assert store.provenance["run"]["arithmetic"] == "fp32"
        assert store.provenance["run"]["drift"] == []


@pytest.mark.parametrize("command", ["dissect", "bench"])
def test_an_unknown_arithmetic_is_refused(place: Path, command: str) -> None:
    before = cli.files_in(place)
    done = cli.nd(command, "conv.py:network", "--data", "small", "--precision", "fp64", folder=place)
    cli.failed(done, 2, "--precision", "fp64", "bf16")
    assert cli.files_in(place) == before
