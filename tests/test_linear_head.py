"""Heads that are linear in a layer's maps are found, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from side_networks import Dense, Named, Shared, UNet, conv, ready
from torch import Tensor, nn

from ndissect.engine.experiments.closed_form import ClosedForm
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.linear_head import EXACT, LinearHead, find_linear_head, find_linear_heads
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.networks.scores import raw_scores
from ndissect.engine.networks.taps import Layout, Tap
from ndissect.store.errors import WrongUse

NETWORKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "networks.py"
needs_networks = pytest.mark.skipif(not NETWORKS.is_file(), reason="the trained networks of shared/data are not here")


class After(nn.Module):
    """``behind`` of the maps of ``layer`` (N, 4, 8, 8), which are above 0, and of ``other``, a way round it."""

    def __init__(self, behind: Callable[[After, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.other, self.mix, self.norm = Positive(), conv(3, 4), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
        self.head, self.flat, self.behind = nn.Linear(6, 5), nn.Linear(4 * 8 * 8, 5), behind
        self.register_buffer("constant", torch.arange(4.0).view(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self, self.layer(x), x)

    def scores(self, maps: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(maps)).mean((2, 3)))


class Looking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if bool((x > 0).all()) else x * 2


class Clone(torch.autograd.Function):
    """Not linear, whatever its name is."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def without_gradients(maps: Tensor) -> Tensor:
    with torch.no_grad():
        return maps.relu_()


class Positive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu() + 0.1


def network(module: nn.Module) -> Network:
    preprocess = Preprocess(None, (8, 8), (0.0,) * 3, (1.0,) * 3)
    return Network(ready(module), "net.py:net", "net", preprocess, "", {})


def images(n: int = 3, side: int = 8) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(n))


def check(net: Network, tap: Tap, head: LinearHead, inputs: Tensor) -> None:
    """What the head says is what the network does with and without its units, by hooks."""
    name = tap.module

    def scores(edit: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad(), Capture(net.module, [name], {name: tap}, edit=lambda _, maps: edit(maps)):
            return raw_scores(net.spec, net.module(inputs))

    with Capture(net.module, [name], {name: tap}) as capture:
        capture.run(inputs)
        maps = capture[name]
    plain = scores(lambda maps: maps)
    largest = float(plain.abs().max())
    for k in (0, plain.shape[1] - 1):
        parts = head.contributions(maps, torch.full((len(inputs),), k))
        assert parts.dtype == torch.float64
        assert float((parts.sum(1) + head.bias[k] - plain[:, k]).abs().max()) <= EXACT * largest
    units = (0, 1, maps.shape[1] - 1)
    values, others = torch.linspace(-1, 1, maps.shape[1]), maps.roll(1, 0)
    stand_ins = (torch.zeros_like(maps), values[:, None, None].expand_as(maps).to(maps), others)
    without = [without_each(head, units, plain, maps, s) for s in stand_ins]
    for i, unit in enumerate(units):

        def replaced(by: Tensor | float, unit: int = unit) -> Tensor:
            def edit(maps: Tensor) -> Tensor:
                edited = maps.clone()
                edited[:, unit] = by
                return edited

            return scores(edit)

        expected = [replaced(0), replaced(values[unit]), replaced(others[:, unit])]
        for given, wanted in zip(without, expected, strict=True):
            assert given.shape == (len(inputs), len(units), plain.shape[1])
            assert given.dtype == torch.float32
            assert float((given[:, i] - wanted).abs().max()) <= EXACT * largest


def without_each(head: LinearHead, units: Sequence[int], scores: Tensor, maps: Tensor, stand_in: Tensor) -> Tensor:
    """(N, units, K): the scores of every class without each of some units alone, in closed form."""
    form = ClosedForm(head, [(unit,) for unit in units], maps.device)
    classes = range(scores.shape[1])
    return torch.stack([form.predict(scores, maps, stand_in, torch.full((len(maps),), k))[1] for k in classes], 2)


LINEAR: dict[str, Callable[[After, Tensor, Tensor], Tensor]] = {
    "pooled": lambda net, maps, x: net.scores(maps),
    "pooled by a layer": lambda net, maps, x: net.head(net.norm(net.mix(F.adaptive_avg_pool2d(maps, 1))).flatten(1)),
    "one score a place, averaged": lambda net, maps, x: net.scores(maps).unsqueeze(2).unsqueeze(3),
    "views": lambda net, maps, x: net.scores(
        maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).double().float()
    ),
    "constants": lambda net, maps, x: net.scores((maps * net.constant - 3) / 2 + net.constant) + 1,
    "sums": lambda net, maps, x: net.scores(maps + maps.flip(1) - 0.5 * maps.roll(1, 1)) + net.scores(2 * maps),
    "joined": lambda net, maps, x: net.scores(torch.cat([maps[:, 2:], maps[:, :2]], 1)[:, [3, 0, 1, 2]]),
    "in place": lambda net, maps, x: net.scores(maps.mul_(2).add_(net.constant)),
    "dropout": lambda net, maps, x: net.scores(F.dropout(maps, 0.5, net.training)),
    "products": lambda net, maps, x: net.head(torch.einsum("nuhw,uv->nv", maps, net.mix.weight[:, :, 0, 0].T) / 64),
    "nearest": lambda net, maps, x: net.scores(F.interpolate(maps, scale_factor=2)),
    "shape alone": lambda net, maps, x: net.scores(maps + torch.ones_like(maps) * maps.shape[1]),
}
PLACES: dict[str, Callable[[After, Tensor, Tensor], Tensor]] = {
    "flattened": lambda net, maps, x: net.flat(maps.flatten(1)),
    "resized": lambda net, maps, x: net.scores(F.interpolate(maps, (5, 5), mode="bilinear")),
    "cropped": lambda net, maps, x: net.scores(maps[:, :, 2:5, 1:]),
    "padded": lambda net, maps, x: net.head(F.conv2d(maps, net.mix.weight.repeat(1, 1, 3, 3), padding=1).sum((2, 3))),
}
NOT: dict[str, Callable[[After, Tensor, Tensor], Tensor]] = {
    "a ReLU that changes nothing": lambda net, maps, x: net.scores(maps.relu()),
    "the same, in place": lambda net, maps, x: net.scores(F.relu_(maps)),
    "homogeneous": lambda net, maps, x: net.head(F.leaky_relu(net.mix(maps), 0.5).mean((2, 3))),
    "chosen by a comparison": lambda net, maps, x: net.scores(torch.where(maps > 0, maps, 0)),
    "weighed by a comparison": lambda net, maps, x: net.scores(maps * (maps > 0).float()),
    "picked by a comparison": lambda net, maps, x: net.scores(maps.masked_fill(maps < 0, 0)),
    "looked at": lambda net, maps, x: net.scores(maps if float(maps.max()) > 0 else maps * 2),
    "asked": lambda net, maps, x: net.scores(maps if (maps > 0).all() else maps * 2),
    "beside what is looked at": lambda net, maps, x: net.scores(maps) + net.scores(maps.detach().clamp(max=9)),
    "largest": lambda net, maps, x: net.head(net.mix(maps).amax((2, 3))),
    "by itself": lambda net, maps, x: net.scores(maps * maps.mean((2, 3), keepdim=True)),
    "divided": lambda net, maps, x: net.scores(1 / maps),
    "normalized": lambda net, maps, x: net.scores(F.layer_norm(maps, maps.shape[1:])),
    "softmax": lambda net, maps, x: net.scores(maps).softmax(1),
    "by the batch": lambda net, maps, x: net.scores(F.batch_norm(maps, None, None, training=True)),
    "a part in place": lambda net, maps, x: net.scores(maps.clone().index_fill_(1, torch.tensor([0]), 0).pow(2)),
    "a part of it squared": lambda net, maps, x: (maps[:, :1].pow_(2), net.scores(maps))[1],
    "another way": lambda net, maps, x: net.scores(maps) + net.scores(net.other(x)),
    "weighed by another way": lambda net, maps, x: net.scores(maps * net.other(x).sigmoid()),
    "in place without gradients": lambda net, maps, x: net.scores(without_gradients(maps)),
    "rounded": lambda net, maps, x: net.scores(torch.div(maps, 1000, rounding_mode="floor")),
    "called as what is linear": lambda net, maps, x: net.scores(Clone.apply(maps)),
    "not at all": lambda net, maps, x: net.scores(net.other(x)),
}


@pytest.mark.parametrize("how", LINEAR)
def test_linear_in_the_means(how: str) -> None:
    net = network(After(LINEAR[how]))
    head = find_linear_head(net, Tap("layer"), images())
    assert head is not None
    assert head.pooled
    assert head.weight.shape == (5, 4)
    check(net, Tap("layer"), head, images(4))


@pytest.mark.parametrize("how", PLACES)
def test_linear_with_weights_for_every_place(how: str) -> None:
    net = network(After(PLACES[how]))
    head = find_linear_head(net, Tap("layer"), images())
    assert head is not None
    assert not head.pooled
    assert head.weight.shape == (5, 4, 8, 8)
    check(net, Tap("layer"), head, images(4))


@pytest.mark.parametrize("how", NOT)
def test_not_linear(how: str) -> None:
    assert find_linear_head(network(After(NOT[how])), Tap("layer"), images()) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_what_scripted_code_looks_at_is_not_seen() -> None:
    module = After(lambda net, maps, x: net.scores(net.scripted(maps)))
    module.scripted = torch.jit.script(Looking())
    assert find_linear_head(network(module), Tap("layer"), images()) is None


def test_weights_of_places_that_are_too_many_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndissect.engine.networks.linear_head._LARGEST", 5 * 4 * 64 * 8 - 1)
    assert find_linear_head(network(After(PLACES["flattened"])), Tap("layer"), images()) is None
    assert find_linear_head(network(After(LINEAR["pooled"])), Tap("layer"), images()) is not None


def test_side_connections() -> None:
    inputs = images(3, 16)
    for module in (Dense(), UNet(), Shared(), Named()):
        net = network(module)
        taps = {name: Tap(name) for name, m in module.named_modules() if isinstance(m, nn.Conv2d) and name != "same"}
        if isinstance(module, Named):
            taps = {"both": Tap("both", path=("maps",))}
        # What is linear in the last layers' maps alone depends on the others' by a way round them.
        _, heads = find_linear_heads(net, taps, inputs)
        assert set(heads) <= {"up2"}
        for name, head in heads.items():
            check(net, taps[name], head, inputs)


def test_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.embed, self.layer, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.Identity(), norm, nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(self.embed(x).flatten(2).transpose(1, 2))
            return self.head(self.norm(x).mean(1))

    tap = Tap("layer", layout=Layout("NTU", grid=(2, 2)))
    net = network(Tokens(nn.Identity()))
    head = find_linear_head(net, tap, images())
    assert head is not None
    assert head.pooled
    check(net, tap, head, images(4))
    assert find_linear_head(network(Tokens(nn.LayerNorm(6))), tap, images()) is None


def test_networks_without_class_scores_are_refused() -> None:
    with pytest.raises(WrongUse, match="every pixel"):
        find_linear_head(network(nn.Sequential(conv(3, 4), conv(4, 5))), Tap("0"), images())


def test_several_layers_in_two_passes() -> None:
    net = load_network("torchvision:resnet18@none")
    passes = 0

    def count(module: nn.Module, args: object) -> None:
        nonlocal passes
        passes += 1

    net.module.register_forward_pre_hook(count)
    names = ["layer1", "layer3", "layer4", "layer4.1", "layer4.1.bn2", "avgpool", "fc"]
    taps = {name: Tap(name) for name in names} | {"fc": Tap("fc", layout=Layout("NU"))}
    classes, heads = find_linear_heads(net, taps, images(2, 64))
    assert passes == 2
    assert classes == 1000
    assert set(heads) == {"layer4", "layer4.1", "avgpool", "fc"}
    assert all(head.pooled for head in heads.values())
    check(net, taps["layer4"], heads["layer4"], images(2, 64))
    weight = net.module.fc.weight
    assert isinstance(weight, Tensor)
    assert torch.allclose(heads["layer4"].weight.float(), weight, rtol=1e-5, atol=1e-8)


def test_the_demo_network() -> None:
    net = load_network("demo")
    _, heads = find_linear_heads(net, {name: Tap(name) for name in ("layer3", "layer4")}, images(2, 112))
    assert list(heads) == ["layer4"]
    assert heads["layer4"].weight.shape == (27, 128)
    check(net, Tap("layer4"), heads["layer4"], images(2, 112))


@needs_networks
@pytest.mark.parametrize(
    ("name", "side", "linear", "other"),
    [
        ("mobilenet_v2_imagenet", 64, "features.18", "features.17"),
        ("squeezenet_places365", 64, "", "fire9"),
        ("cifar10_resnet20", 32, "layer3", "layer2"),
        ("tinyvgg_10class", 64, "", "conv_2_2"),
    ],
)
def test_real_networks(name: str, side: int, linear: str, other: str) -> None:
    net = load_network(f"{NETWORKS}:{name}")
    inputs = images(2, side)
    _, heads = find_linear_heads(net, {layer: Tap(layer) for layer in (linear, other) if layer}, inputs)
    assert set(heads) == ({linear} if linear else set())
    for layer, head in heads.items():
        assert head.pooled
        check(net, Tap(layer), head, inputs)
