"""A dissection tells what the network's outputs are called, and the weights of the classes behind its layers."""

from __future__ import annotations

from pathlib import Path

import dissecting
import numpy as np
import pytest
import torch
from cli import nd
from networks_factory import write_network

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.run.merge import merge, open_shards
from ndissect.engine.run.outputs import NO_OUTPUTS, Outputs
from ndissect.store.effects import Classes, Head
from ndissect.store.model import Dissection

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(6, 5, 3, 2, 1)
        self.head = head

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()))


def pooled(names=4):
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)))
    net.classes = ["street", "kitchen", "forest", "coast"][:names]
    return net, lambda x: x.float() / 255


def nameless():
    return pooled(0)


def misnamed():
    return pooled(3)


def rectified():
    net, transform = pooled()
    net.head.insert(0, nn.ReLU())
    return net, transform


def of_pixels():
    return Net(nn.Identity()), lambda x: x.float() / 255


class NotWithGradients(Net):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise ValueError("not with gradients")
        return super().forward(x)


def not_with_gradients():
    net, transform = pooled()
    net.__class__ = NotWithGradients
    return net, transform
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    dissecting.write_data(folder / "data")
    write_network(folder, NETWORK, "net.py")
    return folder


def dissected(folder: Path, factory: str, **changes: object) -> Dissection:
    outcome = dissecting.run(f"{folder / 'net.py'}:{factory}", folder / "data", ["first", "second"], **changes)
    assert outcome.dissection is not None
    return outcome.dissection


def weight_of(folder: Path) -> np.ndarray:
    return dissecting.load_network(f"{folder / 'net.py'}:pooled").module.head[2].weight.numpy()


@pytest.mark.parametrize(
    ("factory", "names", "source"),
    [
        ("pooled", ("street", "kitchen", "forest", "coast"), "the network"),
        ("nameless", ("0", "1", "2", "3"), "their numbers"),
        ("misnamed", ("0", "1", "2", "3"), "their numbers"),
    ],
)
def test_a_head_that_is_linear_after_pooling(folder: Path, factory: str, names: tuple[str, ...], source: str) -> None:
    dissection = dissected(folder, factory)
    assert dissection.classes == Classes(names, source)
    first, second = dissection.layers
    assert first.head is None
    assert second.head is not None
    assert second.head.weight.dtype == second.head.bias.dtype == np.float32
    assert np.allclose(second.head.weight, weight_of(folder), rtol=1e-5)


@pytest.mark.parametrize(("factory", "batch"), [("rectified", 0), ("not_with_gradients", 0), ("pooled", 1)])
def test_names_alone_where_no_head_is_linear_or_can_be_checked(folder: Path, factory: str, batch: int) -> None:
    dissection = dissected(folder, factory, batch=batch)
    assert dissection.classes == Classes(("street", "kitchen", "forest", "coast"), "the network")
    assert [layer.head for layer in dissection.layers] == [None, None]


def test_nothing_is_told_of_a_network_without_class_scores(folder: Path) -> None:
    dissection = dissected(folder, "of_pixels")
    assert dissection.classes is None
    assert [layer.head for layer in dissection.layers] == [None, None]


def test_merged_shards_tell_the_same(folder: Path, tmp_path: Path) -> None:
    done = nd(
        *("dissect", f"{folder / 'net.py'}:pooled", "--data", str(folder / "data"), "-l", "second"),
        *("--shard", "1/1", "-o", "out.nd.h5", "--device", "cpu"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    shards = open_shards([tmp_path / "out.nd.h5.shard-1-of-1"])
    dissection, _, _ = merge(
        shards,
        open_dataset(folder / "data"),
        device=torch.device("cpu"),
        workers=1,
        progress=Progress(),
        memory=Budget(1 << 30, 0),
    )
    assert dissection.classes == Classes(("street", "kitchen", "forest", "coast"), "the network")
    head = dissection.layers[0].head
    assert head is not None
    assert np.allclose(head.weight, weight_of(folder), rtol=1e-5)


def test_a_state_of_other_layers_is_refused() -> None:
    outputs = Outputs(Classes(("a", "b"), "x"), {1: Head(np.ones((2, 3), np.float32), np.ones(2, np.float32))})
    there = Outputs.from_state(outputs.state(), [9, 3])
    assert there.classes == outputs.classes
    assert np.array_equal(there.heads[1].weight, outputs.heads[1].weight)
    assert Outputs.from_state(NO_OUTPUTS.state(), [9, 3]) == NO_OUTPUTS
    for units in ([9, 4], [3]):
        with pytest.raises((ValueError, IndexError)):
            Outputs.from_state(outputs.state(), units)
