"""A whole dissection on a GPU that is pretended: tensors of the host and of the GPU never meet, and the host hardly
waits. What a GPU computes is not tried here (tests/benchmarks/on_a_gpu.py), but what torch would refuse there is."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pretended_gpu
import pytest
import torch
from pretended_gpu import PretendedGpu, pretend

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.measures import pieces
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.passes import decoding
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.saved_run import SavedRun
from ndissect.engine.run.settings import Settings
from ndissect.store.model import Dissection
from ndissect.store.protocol import Protocol, make_protocol

NETWORK = """
import torch

def network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 3, 2, 1))
    return net.eval()

def pooled():
    return torch.nn.Sequential(network(), torch.nn.AdaptiveAvgPool2d(1)).eval()

def tokens():
    return torch.nn.Sequential(network(), torch.nn.Flatten(2), torch.nn.LayerNorm(64)).eval()

def with_own_transform():
    return network(), lambda images: images.float() / 255
"""
NAMES = ("network", "with_own_transform", "pooled", "tokens")
BATCH, BATCHES, SIDE = 8, 12, 32


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    return pretend(monkeypatch)


class Waits(Progress):
    """How often the host waited for each batch, by loop over the images."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu
        self.told: list[list[list[str]]] = []

    def start(self, phase: str, total: int, done: int = 0) -> None:
        self.told.append([])
        self._gpu.waits.clear()

    def advance(self, images: int) -> None:
        self.told[-1].append(list(self._gpu.waits))
        self._gpu.waits.clear()


@dataclass(frozen=True)
class Subject:
    """What is dissected: a network, one that came with a transform of its own, or its layers of a data set."""

    networks: dict[str, Network]
    data: ConceptDataset

    def dissect(self, protocol: Protocol, progress: Progress, of: str = "network", **settings: Any) -> Dissection:
        network = self.networks[of]
        given = Settings(**{"workers": 1, "batch": BATCH, "null": 2, "publish_every": 0} | settings)
        found = dissect(network, self.data, list_layers(network, (SIDE, SIDE)), protocol, given, progress).dissection
        assert found is not None
        return found


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("pretended")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    networks = {name: load_network(f"{folder / 'net.py'}:{name}") for name in NAMES}
    data = write_synthetic(folder / "data", BATCH * BATCHES, image_size=SIDE, grid=16, concepts=40, workers=1)
    return Subject(networks, open_dataset(data))


def assert_equal(given: Dissection, expected: Dissection) -> None:
    for one, other in zip(given.layers, expected.layers, strict=True):
        for what in ("counts", "statistics", "top"):
            for name, array in vars(getattr(one, what)).items():
                np.testing.assert_array_equal(array, getattr(getattr(other, what), name), f"{what}.{name}")


def protocol_of(upsampling: str, over: str = "raw") -> Protocol:
    return Protocol(**vars(make_protocol()) | {"upsampling": upsampling, "quantile_over": over})


@pytest.mark.parametrize(
    ("upsampling", "over", "memory"),
    [
        ("half-pixel", "raw", Budget(4 << 30, 4 << 30)),
        ("half-pixel-zero", "upsampled", Budget(4 << 30, 4 << 30)),
        ("receptive-field", "raw", Budget(4 << 30, 200_000)),  # what may fire goes to the host
        ("half-pixel", "raw", Budget(120_000, 120_000)),  # and through the network a second time
    ],
    ids=str,
)
def test_tensors_of_the_host_and_of_a_gpu_never_meet(
    subject: Subject, gpu: PretendedGpu, upsampling: str, over: str, memory: Budget
) -> None:
    protocol = protocol_of(upsampling, over)
    expected = subject.dissect(protocol, Progress())
    with gpu:
        given = subject.dissect(protocol, Progress(), device=torch.device("cuda"), memory=memory)
    assert_equal(given, expected)


@pytest.mark.parametrize("memory", [Budget(4 << 30, 4 << 30), Budget(120_000, 120_000)], ids=["one pass", "two passes"])
@pytest.mark.parametrize("of", ["pooled", "tokens"])
def test_layers_of_one_value_an_image_and_of_tokens_are_counted_there(
    subject: Subject, gpu: PretendedGpu, of: str, memory: Budget
) -> None:
    names = [layer.name for layer in list_layers(subject.networks[of], (SIDE, SIDE)) if layer.dissectable]
    assert "1" in names, "pooled, or tokens that come last"
    expected = subject.dissect(protocol_of("half-pixel"), Progress(), of)
    with gpu:
        given = subject.dissect(protocol_of("half-pixel"), Progress(), of, device=torch.device("cuda"), memory=memory)
    assert_equal(given, expected)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("of", ["network", "with_own_transform"])
@pytest.mark.parametrize("jpeg_on", [None, torch.device("cuda")], ids=str)
def test_batches_that_processes_read_are_used_where_they_are_copied(
    subject: Subject, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch, of: str, jpeg_on: torch.device | None
) -> None:
    how: dict[str, Any] = {"of": of, "workers": 2, "decode_in": "processes"}
    protocol, cuda = protocol_of("half-pixel"), torch.device("cuda")
    expected = subject.dissect(protocol, Progress(), **how, jpeg_on=jpeg_on and torch.device("cpu"))
    monkeypatch.setattr(decoding, "decoder", lambda device: pretended_gpu.decoded_there)
    with gpu:
        given = subject.dissect(protocol, Progress(), **how, device=cuda, jpeg_on=jpeg_on)
    assert_equal(given, expected)


class Stopped(Exception):
    """What ends a run for now."""


def test_a_run_that_is_stopped_goes_on_there(
    subject: Subject, gpu: PretendedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pieces._CELLS, "cuda", 2000)
    protocol, network = protocol_of("half-pixel"), subject.networks["network"]
    expected = subject.dissect(protocol, Progress())
    asked = itertools.count(1)
    settings = Settings(
        device=torch.device("cuda"),
        workers=1,
        batch=BATCH,
        null=2,
        save_every=0,
        stop=lambda: Stopped() if next(asked) % 5 == 0 else None,
    )
    layers, stops = list_layers(network, (SIDE, SIDE)), 0
    with gpu:
        while True:
            saved = SavedRun(tmp_path / ".x.saved", {"data": "small"}, target=tmp_path / "x", command=["nd"])
            with contextlib.suppress(Stopped), saved.held():
                outcome = dissect(network, subject.data, layers, protocol, settings, Progress(), saved=saved)
                break
            stops += 1
    assert stops > BATCHES // 5, "also while it counted"
    assert outcome.dissection is not None
    assert_equal(outcome.dissection, expected)


def test_the_host_waits_once_for_a_batch(subject: Subject, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pieces._CELLS, "cuda", 512)  # several pieces: the first also makes tables
    waits = Waits(gpu)
    with gpu:
        subject.dissect(protocol_of("half-pixel"), waits, device=torch.device("cuda"))
    gathering, counting = waits.told[0], waits.told[1]
    assert ["tolist"] in gathering[BATCHES // 2 :], "where nothing is put in order"
    # Plain operations ask where the mask pixels are; what was counted is asked for to be saved.
    assert [wait for wait in counting[-1] if wait != "nonzero"] == ["to cpu"]


def test_what_a_gpu_refuses_is_refused(gpu: PretendedGpu) -> None:
    with gpu:
        there = torch.arange(3.0, device="cuda")
        assert (there[1:].device.type, there.cpu().device.type) == ("cuda", "cpu")
        assert (there + torch.tensor(1.0)).is_cuda, "a scalar may lie anywhere"
        for work in (
            lambda: there + torch.arange(3.0),
            lambda: there[torch.tensor([0, 2])],
            lambda: torch.cat([there, there.cpu()]),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                work()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        gpu.waits.clear()
        torch.from_numpy(np.ones(3)).to("cuda", non_blocking=True).sum()
        assert gpu.waits == []
        torch.ones(3).to("cuda")[there > 1].sum().item()
        assert gpu.waits == ["to cuda", "__getitem__", "item"]
