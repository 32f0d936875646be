"""Weights that a file does not give: keys of wrapped parts are found, layers that see random weights are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dissecting import run as dissect_all
from dissecting import write_data
from networks_factory import write_network
from torch import nn

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.weights import apply_state
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.late = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1)
        self.side, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = x.float() / 255
        y = self.late(self.gate * self.side(x) + self.norm(self.stem(x)))
        with torch.no_grad():
            return self.head(y.detach().mean((2, 3)))
"""
SIZE = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("networks"), NETWORK)


def run(file: Path, data: Path, tmp_path: Path, left_out: str, layers: list[str], anyway: bool = False) -> Outcome:
    state = load_network(f"{file}:Net").module.state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith(left_out)}, tmp_path / "w.pt")
    network = load_network(f"{file}:Net", weights=tmp_path / "w.pt", partial=True)
    infos = [i for i in list_layers(network, (SIZE, SIZE)) if i.name in layers]
    settings = Settings(workers=1, top=2, anyway=anyway)
    return dissect(network, open_dataset(data), infos, make_protocol("netdissect"), settings, Progress())


@pytest.mark.parametrize("left_out", ["stem.weight", "stem", "norm.running_mean", "norm.weight", "gate", "late.bias"])
def test_a_layer_that_depends_on_weights_that_were_left_out_is_refused_and_both_are_named(
    file: Path, data: Path, tmp_path: Path, left_out: str
) -> None:
    """Without gradients, through gates that are zero, and where only statistics of a norm are missing."""
    with pytest.raises(NDError, match=r"^the layer late depends on weights that the weights file left out") as caught:
        run(file, data, tmp_path, left_out, ["late"])
    assert left_out in caught.value.message
    assert "--anyway" in caught.value.hint
    outcome = run(file, data, tmp_path, left_out, ["late"], anyway=True)
    assert [(mark.layer, mark.kind) for mark in outcome.marks] == [("late", "weights")]
    assert left_out in outcome.marks[0].sentence


@pytest.mark.parametrize(("left_out", "layers"), [("head", ["late", "stem", "norm"]), ("late", ["norm"])])
def test_weights_that_a_layer_does_not_depend_on_may_be_left_out(
    file: Path, data: Path, tmp_path: Path, left_out: str, layers: list[str]
) -> None:
    assert run(file, data, tmp_path, left_out, layers).marks == ()


def test_trying_them_leaves_the_weights_as_they_were(file: Path, data: Path, tmp_path: Path) -> None:
    whole = dissect_all(f"{file}:Net", data, ["late"])
    tried = run(file, data, tmp_path, "stem", ["late"], anyway=True)
    a, b = (outcome.dissection.layers[0].statistics.maximum for outcome in (whole, tried))
    assert a.tolist() == b.tolist()  # left out, they are as they were built: the same as without a file


# Keys of parts that were wrapped for training


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1)))
        self.classifier = nn.Linear(4, 2)


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {k: torch.rand(v.shape, generator=generator) for k, v in module.state_dict().items()}


def equal(module: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("features.", "features.module."),
        ("features.", "module.features.module."),
        ("features.1.", "features.1.module."),
        ("features.1.0.", "module.features.module.1.module.0.module."),
    ],
)
def test_module_is_undone_anywhere_in_a_key(old: str, new: str) -> None:
    module, state = Parts(), values(Parts())
    fit = apply_state(module, {k.replace(old, new): v for k, v in state.items()}, "w.pt")
    assert (fit.missing, fit.unexpected, fit.mismatched) == ((), (), ())
    assert equal(module, state)


def test_a_child_that_is_called_module_stays() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Module()
            self.part.module = nn.Conv2d(3, 4, 1)

    module, state = Own(), values(Own())
    apply_state(module, dict(state), "w.pt")
    assert equal(module, state)
    again = Own()
    apply_state(again, {k.replace("part.", "module.part.module."): v for k, v in state.items()}, "w.pt")
    assert equal(again, state)


def test_of_two_keys_that_would_become_one_neither_is_taken() -> None:
    state = values(Parts())
    bias = state.pop("features.0.bias")
    twice = state | {"features.module.0.bias": bias, "module.features.0.bias": bias + 1}
    with pytest.raises(NDError, match=r"1 missing in the file: features\.0\.bias; 2 not in the network"):
        apply_state(Parts(), twice, "w.pt")
    state["features.0.bias"] = bias
    with pytest.raises(NDError, match=r"1 not in the network: features\.module\.0\.bias"):
        apply_state(Parts(), state | {"features.module.0.bias": bias + 1}, "w.pt")
