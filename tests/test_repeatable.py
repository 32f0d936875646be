"""A network must compute the same of the same images, whenever and beside whichever others; else it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dissecting import run, write_data
from networks_factory import write_network
from torch import nn

from ndissect.engine.examination.repeatable import ALONE, SAME, check_repeatable, moved_by
from ndissect.store.errors import NDError

NETWORKS = """
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import stochastic_depth


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.c, self.head = nn.Conv2d(16, 16, 3, 1, 1), nn.Linear(16, 3)
        self.norm = nn.BatchNorm2d(16, track_running_stats=False)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(16, 1, 1))

    def forward(self, x):
        return self.head(self.c(self.middle(self.a(x.float() / 255)).relu()).mean((2, 3)))

    def middle(self, x):
        return self.b(x)


def network(middle, **more):
    return type("Net", (Base,), {"middle": middle, **more})()


def plain(): return network(lambda self, x: self.b(x))
def dropout(): return network(lambda self, x: self.b(F.dropout(x, 0.5)))
def weak_dropout(): return network(lambda self, x: self.b(F.dropout(x, 0.01)))
def late_dropout(): return network(lambda self, x: F.dropout(self.b(x), 0.01))
def channel_dropout(): return network(lambda self, x: self.b(F.dropout2d(x, 0.001)))
def alpha_dropout(): return network(lambda self, x: self.b(F.alpha_dropout(x, 0.01, training=True)))
def dropped_path(): return network(lambda self, x: x + stochastic_depth(self.b(x), 0.01, "row"))
def drop_path(): return network(lambda self, x: x + self.b(x) * x.new_empty((len(x), 1, 1, 1)).bernoulli_(0.99))
def noise(): return network(lambda self, x: self.b(x + 1e-4 * torch.randn_like(x)))
def python_random(): return network(lambda self, x: self.b(x * (1 + random.random())))
def numpy_random(): return network(lambda self, x: self.b(x * float(1 + np.random.rand())))


def counts_calls():
    def middle(self, x):
        self.calls += 1
        return self.b(x) + 1e-3 * self.calls * x
    return network(middle)


def earlier_batches():
    def middle(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.mean((0, 2, 3))[:, None, None])
        return self.b(x - self.mean)
    return network(middle)


def batch_statistics(): return network(lambda self, x: self.b(self.norm(x)))
def batch_mean(): return network(lambda self, x: self.b(x - x.mean(0, keepdim=True)))
def batch_size(): return network(lambda self, x: self.b(x) / len(x))
def neighbours(): return network(lambda self, x: self.b(x) + x.roll(1, 0))
def batch_quantised(): return network(lambda self, x: self.b((x / x.abs().max() * 15).round()))


def stays_in_training():
    net = network(lambda self, x: self.b(nn.functional.batch_norm(x, self.mean.flatten(), self.mean.flatten() + 1,
                                                                 training=True)))
    return net


# What is fine

def dropout_in_eval(): return network(lambda self, x: self.b(F.dropout(x, 0.5, training=self.training)))
def no_dropout(): return network(lambda self, x: self.b(F.dropout(x, 0.0)))


def dropout_behind():
    class Net(Base):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.5)
    return Net()


def draws_for_nothing():
    def middle(self, x):
        torch.rand(3), F.dropout(x, 0.5)
        return self.b(x)
    return network(middle)


def counts_for_nothing():
    def middle(self, x):
        self.calls += 1
        return self.b(x)
    return network(middle)


def not_finite():
    def middle(self, x):
        x = self.b(x)
        x[:, 0] = float("nan")
        x[:, 1] = float("inf")
        x[:, 2] = 7
        return x
    return network(middle)


def own_statistics(): return network(lambda self, x: self.b(F.instance_norm(x)))


def bfloat16():
    def middle(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.b(self.b(self.b(x))).float()
    return network(middle)


def one_at_a_time():
    def middle(self, x):
        assert len(x) == 1
        return self.b(x)
    return network(middle)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("networks"), NETWORKS)


DRAWS = "dropout weak_dropout late_dropout channel_dropout alpha_dropout dropped_path drop_path noise"
STATE = "python_random numpy_random counts_calls earlier_batches"


@pytest.mark.parametrize("name", [*DRAWS.split(), *STATE.split()])
def test_what_is_not_the_same_twice_is_refused_with_the_layers_name(file: Path, data: Path, name: str) -> None:
    with pytest.raises(NDError, match=r"^the layer c does not compute the same twice") as caught:
        run(f"{file}:{name}", data, ["c"])
    assert "--anyway" in caught.value.hint
    if "dropout" in name:
        assert "dropout is on" in caught.value.message
        assert "training=self.training" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["batch_statistics", "batch_mean", "batch_size", "neighbours", "batch_quantised", "stays_in_training"]
)
def test_what_depends_on_the_other_images_of_a_batch_is_refused_whatever_the_batch_size(
    file: Path, data: Path, name: str
) -> None:
    for batch in (1, 8):
        with pytest.raises(NDError, match=r"^the layer c computes maps that depend on the other images") as caught:
            run(f"{file}:{name}", data, ["c"], batch=batch)
        if name in ("batch_statistics", "stays_in_training"):
            assert "track_running_stats=True" in caught.value.hint


FINE = "plain dropout_in_eval no_dropout dropout_behind draws_for_nothing counts_for_nothing not_finite"


@pytest.mark.parametrize("name", [*FINE.split(), "own_statistics", "bfloat16"])
def test_what_repeats_itself_is_not_refused(file: Path, data: Path, name: str) -> None:
    assert run(f"{file}:{name}", data, ["b", "c"]).marks == ()
    assert run(f"{file}:{name}", data, ["b", "c"], precision="bf16", batch=3).marks == ()


def test_layers_before_what_differs_are_not_refused_and_all_others_are_named(file: Path, data: Path) -> None:
    assert run(f"{file}:weak_dropout", data, ["a"]).marks == ()
    with pytest.raises(NDError, match=r"the layer b .*\(likewise c\)"):
        run(f"{file}:weak_dropout", data, ["a", "b", "c"])


def test_a_network_that_takes_one_image_at_a_time_runs_with_batches_of_one(file: Path, data: Path) -> None:
    assert run(f"{file}:one_at_a_time", data, ["b"], batch=1).marks == ()
    with pytest.raises(NDError, match="failed on a batch"):
        run(f"{file}:one_at_a_time", data, ["b"], batch=2)


def test_anyway_counts_and_marks_the_layer(file: Path, data: Path) -> None:
    outcome = run(f"{file}:weak_dropout", data, ["a", "b"], anyway=True)
    assert [(mark.layer, mark.kind) for mark in outcome.marks] == [("b", "twice")]
    assert "does not compute the same twice" in outcome.marks[0].sentence
    outcome = run(f"{file}:batch_statistics", data, ["b"], anyway=True)
    assert [(mark.layer, mark.kind) for mark in outcome.marks] == [("b", "neighbours")]


ORDINARY = "resnet18 squeezenet1_1 mobilenet_v3_small shufflenet_v2_x0_5 efficientnet_b0 regnet_y_400mf"


@pytest.mark.parametrize("name", ORDINARY.split())
@pytest.mark.parametrize("inside", ["fp32", "bf16"])
def test_rounding_of_real_networks_stays_far_below_what_is_refused(name: str, inside: str) -> None:
    """Alone, in a batch, and where the network computes in bfloat16 by itself."""
    from torchvision import models

    torch.manual_seed(0)
    module = models.get_model(name, weights=None).eval()
    maps: dict[str, torch.Tensor] = {}

    def keep(layer: str, out: torch.Tensor) -> None:
        if out.shape[-1] > 3:
            maps[layer] = out.float()

    for layer, child in module.named_modules():
        if isinstance(child, nn.Conv2d):
            child.register_forward_hook(lambda m, a, out, layer=layer: keep(layer, out))

    def go(images: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=inside == "bf16"):
            module(torch.cat(list(images)).float() / 255)
        return dict(maps)

    a, b = (torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8) for _ in range(2))
    assert check_repeatable(go, module, (a, b)) == []
    pair, again, alone = go([a, b]), go([a, b]), go([a])
    assert max(moved_by(pair[layer], again[layer]) for layer in pair) <= SAME / 100
    assert max(moved_by(pair[layer][:1], alone[layer]) for layer in pair) <= ALONE / 2


def test_differences_are_shares_of_a_units_spread_and_what_is_nowhere_finite_is_equal() -> None:
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert moved_by(x, x) == 0
    assert moved_by(x, x + 0.1) == pytest.approx(0.1, rel=0.2)
    odd = x.clone()
    odd[0, 0, 0, :2] = torch.tensor([float("nan"), float("-inf")])
    assert moved_by(odd, odd.clone()) == 0
    assert moved_by(odd, x) == float("inf")
    assert moved_by(1e6 + x, (1e6 + x) * (1 + 1e-7)) < ALONE  # rounding of large values with a small spread
    assert moved_by(torch.full_like(x, 3), torch.full_like(x, 3)) == 0
