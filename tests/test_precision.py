"""What a faster arithmetic or another decoder changes is measured before it is used, told, and kept in the store."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cli
import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network
from PIL import Image

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.examination.examine import Examination, examine
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import Precision, computing
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes import decoding, loader
from ndissect.engine.passes.decoding import decode_together
from ndissect.engine.run import execution, forward_pass
from ndissect.engine.run.drift import SAMPLE, THRESHOLDS_MAY_MOVE, Drift, departures, exact_enough, measure_drift
from ndissect.engine.run.options import Options
from ndissect.engine.run.settings import THREADS, Settings
from ndissect.engine.run.to_store import dissect_to_store
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
    return measure_drift(network, open_dataset(data), infos, make_protocol(q="1/20"), [settings])


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


def test_a_network_is_examined_once_for_all_that_is_measured(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = []

    def counted(*args: Any, **options: Any) -> Examination:
        examined.append(1)
        return examine(*args, **options)

    monkeypatch.setattr(forward_pass, "examine", counted)
    drift(tmp_path, data, "bf16")
    assert len(examined) == 1


# Another decoder of JPEGs: torchvision's on the CPU stands in for a GPU's


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures as JPEGs, more than are measured."""
    folder = write_data(tmp_path_factory.mktemp("photographs") / "small", SAMPLE + 12)
    rng = np.random.default_rng(1)
    for path in (folder / "images").rglob("*.png"):
        if re.fullmatch(r"\d+", path.stem):  # no label map
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
            coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)
    return folder


def off_by(levels: int) -> Callable[[Sequence[np.ndarray], torch.device], list[torch.Tensor]]:
    """A decoder whose pixels are too bright by so many levels, the rest as torchvision decodes it."""

    def decode(images: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
        return [(x.int() + levels).clamp(0, 255).byte() for x in decode_together(images, device)]

    return decode


def decoder_drift(folder: Path, data: Path, precision: Precision = "fp32") -> list[Drift]:
    network = load_network(f"{write_network(folder, CONV)}:network")
    infos = [i for i in list_layers(network, (SIZE, SIZE)) if i.name == "second"]
    settings = Settings(workers=2, precision=precision, batch=16, jpeg_on=torch.device("cpu"))
    dataset = open_dataset(data)
    return measure_drift(network, dataset, infos, make_protocol(q="1/20"), departures(settings, dataset))


def test_another_decoder_is_measured_on_a_sample(tmp_path: Path, photographs: Path) -> None:
    [found] = decoder_drift(tmp_path, photographs)
    assert (found.layer, found.precision, found.decoder, found.images) == ("second", "fp32", "cpu", SAMPLE)
    assert found.threshold < THRESHOLDS_MAY_MOVE, "both decode by libjpeg-turbo"
    assert str(found).startswith(f"second: JPEGs decoded on cpu against the CPU's on {SAMPLE} images: thresholds move")


def test_a_decoder_that_rounds_otherwise_drifts(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    for levels in (1, 40):
        monkeypatch.setattr(loader, "decode_together", off_by(levels))
        [found] = decoder_drift(tmp_path, photographs)
        moved.append(found.threshold)
    assert 0 < moved[0] < THRESHOLDS_MAY_MOVE < moved[1]
    assert not exact_enough([found])


def test_arithmetic_and_decoder_are_measured_each_alone(tmp_path: Path, photographs: Path) -> None:
    found = decoder_drift(tmp_path, photographs, "bf16")
    assert [(d.precision, d.decoder) for d in found] == [("bf16", THREADS), ("fp32", "cpu")]


def test_images_that_are_no_jpegs_have_no_other_decoder(data: Path) -> None:
    class Packed:
        """Has no files of photographs."""

    exact = Settings()
    assert departures(exact, open_dataset(data)) == []
    assert departures(dataclasses.replace(exact, jpeg_on=torch.device("cpu")), Packed()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "threshold", "enough"), [(0, 0.0, True), (0, 0.0099, True), (1, 0.0, False), (0, 0.02, False)]
)
def test_what_is_exact_enough(labels: int, threshold: float, enough: bool) -> None:
    exact = Drift("a", "fp32", 128, 6, 0.0, 0, 0.0, "cuda")
    assert exact_enough([exact, dataclasses.replace(exact, labels=labels, threshold=threshold)]) == enough


@pytest.mark.parametrize(("levels", "decoder"), [(0, "cpu"), (40, THREADS)])
def test_auto_takes_the_other_decoder_where_it_is_exact_enough(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, levels: int, decoder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, "on_gpu", lambda device: torch.device("cpu"))
    monkeypatch.setattr(loader, "decode_together", off_by(levels))
    write_network(tmp_path, CONV, "conv.py")
    options = Options(
        "conv.py:network", ("second",), data=str(photographs), device="cpu", decode="auto", quantile="0.1"
    )
    written = dissect_to_store(options, Console())
    assert written is not None
    with Store(written.path) as store:
        run = store.provenance["run"]
    assert run["jpeg_decoder"] == decoder
    [kept] = run["drift"]
    assert (kept["decoder"], kept["images"]) == ("cpu", SAMPLE)
    assert exact_enough([Drift(**kept)]) == (decoder == "cpu")


def test_auto_on_a_gpu_without_a_decoder_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, there = torch.device("cuda"), mock.Mock(return_value=[])
    monkeypatch.setattr(decoding, "_by_torchcodec", there)
    decoding.decoder.cache_clear()
    assert execution.on_gpu(cuda) == cuda
    missing = mock.Mock(side_effect=RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support"))
    for by in ("_by_torchcodec", "_by_torchvision"):
        monkeypatch.setattr(decoding, by, missing)
    decoding.decoder.cache_clear()
    assert execution.on_gpu(cuda) is None
    decoding.decoder.cache_clear()


def test_auto_without_a_gpu_is_the_cpu(place: Path) -> None:
    args = ("dissect", "net.py:network", "--data", "small", "-l", "units", "--quantile", "0.2", "--device", "cpu")
    done = cli.nd(*args, "--decode", "auto", "-o", "auto.nd.h5", folder=place)
    assert done.returncode == 0, done.stderr
    assert "decoded on" not in done.stderr
    with Store(place / "auto.nd.h5") as store:
        assert store.provenance["run"]["jpeg_decoder"] == THREADS


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
