"""Layers that are no modules: what functions and operators return, by their names in torch.fx, where asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli
import numpy as np
import pytest
import torch
from dissecting import layer
from networks_factory import write_network
from token_networks import write_token_data, write_token_networks

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.geometry.extents import trace_extents
from ndissect.engine.geometry.receptive import trace_fields
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.functional import Functional, with_functional_layers
from ndissect.engine.networks.layers import LayerInfo, default_layers, list_layers, match_layers, taps_of
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.networks.weights import digest_of
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.existing import asked_for
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.preparation import choose_layers
from ndissect.engine.run.provenance import identity
from ndissect.engine.run.settings import Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import label_units

NETWORKS = """
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels=4):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.full((channels, 1, 1), 0.5))

    def forward(self, x, scaled=False):
        y = self.relu(self.one(x))
        if scaled:
            y = y * 2
        y = self.two(y) * self.gain + self.shift
        y += x
        return self.relu(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.blocks = nn.Sequential(Block(), Block())
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x, features=False):
        assert x.shape[1] == 3, "three channels"
        x = F.relu(self.stem(x))
        x = self.blocks(x)
        if features:
            return x
        n, c = x.shape[:2]
        return self.head(F.adaptive_avg_pool2d(x, 1).view(n, c) + torch.arange(4.0))


class Clash(nn.Module):
    # A child is called like a function, and so are a buffer and a method.
    def __init__(self):
        super().__init__()
        self.add = nn.Conv2d(3, 3, 1)
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, x):
        x = x - self.mean
        return self.add(x).float() + x.mean((2, 3), keepdim=True) + self.add(x)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        if x.mean() > 0:
            x = x + 1
        return x * 2


class Holding(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(Branching(), nn.ReLU())
        self.second = Branching()

    def forward(self, x):
        return F.relu(self.first(x)) + self.second(x)


class Lies(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x) + isinstance(x, torch.Tensor)


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))

    def forward(self, x):
        return self.child(x) + x


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.several = Several()

    def forward(self, x):
        out = self.several(x)
        return {"out": out["deep"][0] + out["flat"]}


class Everyday(nn.Module):
    # Parts that are assigned to, len() of a batch, buffers that are asked for their device and changed.
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.ones(1, 3, 1, 1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        x = torch.relu(x.to(self.shift.device))
        x[:, 0] = 0
        x[:, 1] += 1
        self.calls.add_(1)
        return x + self.shift.expand(len(x), -1, -1, -1)


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 2)

    def forward(self, x):
        return self.head(torch.flatten(x, 1))


class Several(nn.Module):
    def forward(self, x):
        return {"deep": [x * 2], "flat": x + 1, "none": None}


class Channels(nn.Module):
    # Each channel of the input is a unit: what the picture shows is what the unit fires on.
    def __init__(self):
        super().__init__()
        self.noise = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = Sum()

    def forward(self, x):
        x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        return self.noise(self.inner(x)[:, :3])


class Sum(nn.Module):
    def forward(self, x):
        return 0 * F.relu(x + x)


def _plain(kind):
    return lambda: (kind(), lambda x: x.float() / 255)


net, clash, branching, holding, lies, scripted, parts, channels, everyday, sized = map(
    _plain, (Net, Clash, Branching, Holding, Lies, Scripted, Parts, Channels, Everyday, Sized)
)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_network(tmp_path_factory.mktemp("networks"), NETWORKS))


def both(spec: str) -> tuple[Network, Network]:
    """The network of ``spec``, and the same with functional layers."""
    network = load_network(spec)
    return network, with_functional_layers(network)


def functional(network: Network) -> list[str]:
    return [name for name, module in network.module.named_modules() if isinstance(module, Functional)]


def infos_of(network: Network) -> dict[str, LayerInfo]:
    return {info.name: info for info in list_layers(network, (32, 32))}


def test_functions_and_later_calls_are_layers_by_their_names_in_torch_fx(file: str) -> None:
    network = with_functional_layers(load_network(f"{file}:net"))
    block = ["mul", "add", "add_1", "relu_1"]
    assert functional(network) == [
        *(f"blocks.{n}.{name}" for n in (0, 1) for name in block),
        "relu",
        "adaptive_avg_pool2d",
        "view",
        "add",
    ]
    infos = infos_of(network)
    types = {name: infos[name].module_type for name in functional(network)}
    assert types["blocks.0.add_1"] == "add" and types["relu"] == "relu" and types["adaptive_avg_pool2d"] != "Functional"
    assert types["blocks.0.relu_1"] == "ReLU", "the second call of a module is of its type"
    assert infos["blocks.0.add_1"].map_size == (16, 16) and infos["view"].map_size == (1, 1)
    assert all(infos[name].calls == 1 for name in functional(network)) and infos["blocks.0.relu"].calls == 2


def test_names_are_those_of_torchvision_s_feature_extraction() -> None:
    from torchvision.models.feature_extraction import get_graph_node_names

    for name in ("resnet18", "densenet121", "googlenet", "shufflenet_v2_x0_5"):
        plain = load_network(f"torchvision:{name}@none", layers_only=True)
        network = with_functional_layers(plain)
        named = set(get_graph_node_names(plain.module, suppress_diff_warning=True)[1])
        assert set(functional(network)) <= named, name
        if name == "resnet18":
            assert {"layer1.0.add", "layer1.0.relu_1", "flatten"} <= set(functional(network))
            assert default_layers(list_layers(network)) == default_layers(list_layers(plain))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_16", "swin_t"])
def test_networks_of_torchvision_are_followed_through_all_their_modules(name: str) -> None:
    plain, network = both(f"torchvision:{name}@none")
    assert network.notes == plain.notes and len(functional(network)) > 10
    assert any(name.endswith((".add", ".mul")) for name in functional(network))


def test_all_other_layers_and_the_weights_stay_as_they_were(file: str) -> None:
    for spec in ("net", "clash", "scripted", "parts"):
        plain, network = both(f"{file}:{spec}")
        before, after = infos_of(plain), infos_of(network)
        for name, info in before.items():
            assert dataclasses.replace(after[name], order=0) == dataclasses.replace(info, order=0)
        assert set(after) - set(before) >= set(functional(network)) != set()
        assert network.digest == plain.digest == digest_of(network.module)
        assert not network.module.training and not any(p.requires_grad for p in network.module.parameters())
        for name, weight in plain.module.named_parameters():
            assert network.module.get_parameter(name) is weight
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            made, expected = network.module(x.clone()), plain.module(x.clone())
        assert type(made) is type(expected)
        if isinstance(made, dict):
            made, expected = made["out"], expected["out"]
        assert torch.equal(made, expected)
        assert not functional(plain)
    plain, network = both(f"{file}:net")
    assert default_layers(list(infos_of(network).values())) == default_layers(list(infos_of(plain).values()))


def test_what_is_listed_is_what_the_network_computes_and_goes_on_with(file: str) -> None:
    plain, network = both(f"{file}:net")
    x = torch.rand(2, 3, 32, 32)
    names = ["blocks.0.mul", "blocks.0.add_1", "blocks.0.relu_1", "blocks.0", "add"]
    with Capture(network.module, names[:4]) as capture:
        capture.run(x)
        maps = {name: capture[name] for name in names[:4]}
    block = plain.module.blocks[0]
    with torch.no_grad():
        start = torch.relu(plain.module.stem(x))
        product = block.two(torch.relu(block.one(start))) * block.gain
        expected = product + block.shift + start
    assert torch.equal(maps["blocks.0.mul"], product) and torch.equal(maps["blocks.0.add_1"], expected)
    assert torch.equal(maps["blocks.0.relu_1"], expected.relu()) and torch.equal(maps["blocks.0"], expected.relu())
    infos = list_layers(network, (32, 32))
    with torch.no_grad(), Capture(network.module, ["add"], taps_of(infos), edit=lambda name, maps: 0 * maps):
        assert torch.equal(network.module(x), plain.module.head(torch.zeros(2, 4)))


def test_names_that_the_module_uses_itself_are_left_to_it(file: str) -> None:
    network = with_functional_layers(load_network(f"{file}:clash"))
    # add: a child, of which add_1 is the second call; mean: a buffer; float: a method of every module.
    assert functional(network) == ["sub", "float_1", "mean_1", "add_1", "add_2", "add_3"]
    assert {infos_of(network)[name].module_type for name in ("add_1", "add_3")} == {"add"}
    assert infos_of(network)["add_2"].module_type == "Conv2d"


def test_parts_of_an_output_stay_layers_and_can_be_changed(file: str) -> None:
    network = with_functional_layers(load_network(f"{file}:parts"))
    infos = infos_of(network)
    assert infos["several.deep.0"].dissectable and infos["several"].reason.startswith("not a map: returns a dict, of")
    x = torch.rand(1, 3, 8, 8)
    taps = taps_of(list(infos.values()))
    with torch.no_grad(), Capture(network.module, ["several.flat"], taps, edit=lambda name, maps: 0 * maps):
        assert torch.equal(network.module(x)["out"], x * 2)


def test_everyday_code_is_followed(file: str) -> None:
    plain = load_network(f"{file}:everyday")
    calls = plain.module.calls
    network = with_functional_layers(plain)
    # x[:, 1] += 1 is an add, and an assignment that is no layer; a module has a method called ``to``.
    assert functional(network) == ["to_1", "relu", "add", "expand", "add_1"]
    before = int(calls)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(network.module(x.clone()), plain.module(x.clone()))
    assert int(calls) == before + 2, "what changes at each call does so still"


@pytest.mark.parametrize("name", ["net", "everyday"])
def test_the_network_moves_to_a_device_with_all_that_was_recorded(file: str, name: str) -> None:
    module = with_functional_layers(load_network(f"{file}:{name}")).module.to("meta")
    assert module(torch.zeros(2, 3, 32, 32, device="meta")).device.type == "meta"


def test_a_network_is_tried_on_images_of_a_size_that_it_takes(file: str) -> None:
    assert functional(with_functional_layers(load_network(f"{file}:sized"))) == ["flatten"]


def test_what_cannot_be_followed_is_left_whole_and_said(file: str) -> None:
    plain, network = both(f"{file}:holding")
    assert functional(network) == ["relu", "add"]
    (note,) = set(network.notes) - set(plain.notes)
    assert "first.0, second" in note and "line" in note and "if x.mean() > 0" in note and "\n" not in note
    assert infos_of(network)["first.0.conv"].dissectable, "modules inside of it are layers as before"
    assert functional(with_functional_layers(load_network(f"{file}:scripted"))) == ["add"]


def test_a_network_that_cannot_be_followed_is_refused_in_two_lines(file: str) -> None:
    with pytest.raises(NDError) as refused:
        network_loader(Options(network=f"{file}:branching", functional=True))()
    message, hint = refused.value.message, refused.value.hint or ""
    assert "torch.fx cannot follow" in message and "net.py, line" in message and "if x.mean() > 0:" in message
    assert "\n" not in message + hint and "module of its own" in hint and "leave --functional out" in hint
    with pytest.raises(NDError, match="does not compute the same"):
        with_functional_layers(load_network(f"{file}:lies"))


def test_a_planted_concept_in_a_functional_activation_is_found(file: str, tmp_path: Path) -> None:
    dataset = open_dataset(write_token_data(tmp_path / "data"))
    options = Options(network=f"{file}:channels", functional=True, layers=("inner.*", "cat"))
    network = network_loader(options)()
    chosen = choose_layers(options, network, dataset)
    assert [info.name for info in chosen] == ["inner.add", "inner.relu", "inner.mul", "cat"]
    chosen = [info for info in chosen if info.name != "inner.mul"]
    protocol = make_protocol("netdissect", q="1/3", min_images=1)
    settings = dataclasses.replace(Settings(workers=2, top=2), null=0)
    outcome = dissect(network, dataset, chosen, protocol, settings, Progress())
    assert outcome.dissection is not None
    for info in chosen:
        labels, ious = label_units(layer(outcome, info.name).best)
        assert outcome.dissection.concepts.number[labels[:2]].tolist() == [1, 2]
        assert np.array_equal(ious[:2], [1.0, 1.0])


def test_where_functional_maps_lie_is_known(file: str, tmp_path: Path) -> None:
    plain, network = both(f"{file}:net")
    names = ["relu", "blocks.0.add_1", "blocks.1.relu_1", "stem", "blocks.0", "blocks.1"]
    x = torch.rand(1, 3, 32, 32)
    fields = trace_fields(network.module, x, names)
    assert fields["relu"] == fields["stem"] and not isinstance(fields["relu"], str)
    assert fields["blocks.0.add_1"] == fields["blocks.0"] == trace_fields(plain.module, x, ["blocks.0"])["blocks.0"]
    extents = trace_extents(network.module, x, names)
    assert extents["blocks.1.relu_1"] == extents["blocks.1"] and not isinstance(extents["relu"], str)
    tokens = with_functional_layers(load_network(f"{write_token_networks(tmp_path)}:classtoken"))
    infos = infos_of(tokens)
    assert infos["cat"].made_by == "tokens[1:] -> 8x8" == infos["layer"].made_by


def test_a_run_with_functional_layers_is_another_run(file: str, tmp_path: Path) -> None:
    plain, network = both(f"{file}:net")
    assert network.origin == plain.origin | {"functional": "torch.fx"}
    data = open_dataset(write_token_data(tmp_path / "data", images=1))
    protocol = make_protocol("netdissect")

    def of(network: Network) -> Any:
        return identity(network, data, ["stem"], protocol, Settings())

    assert of(plain) != of(network) and of(network) == of(with_functional_layers(load_network(f"{file}:net")))
    asked = [asked_for(Options(network="demo", functional=on), protocol, data) for on in (False, True)]
    assert asked[0] != asked[1]


def test_the_command_line_lists_and_dissects_them(file: str, tmp_path: Path) -> None:
    write_token_data(tmp_path / "data")
    rows = cli.json_of("layers", f"{file}:net", "--functional", "--input-size", "32", "--json", folder=tmp_path)[
        "layers"
    ]
    listed = {row["layer"]: SimpleNamespace(**row) for row in rows}
    assert (listed["blocks.0.add_1"].module, listed["blocks.0.add_1"].units) == ("add", 4)
    assert listed["blocks.0.add_1"].parameters == 0 and not listed["blocks.0.add_1"].default
    done = cli.nd(
        *("dissect", f"{file}:net", "--functional", "-l", "blocks.0.add_1", "--data", "data", "--null", "0"),
        *("--quantile", "0.2", "-o", "x.nd.h5"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    cli.failed(
        cli.nd("layers", f"{file}:branching", "--functional", folder=tmp_path), 1, "torch.fx cannot follow", "leave"
    )
    assert match_layers(["**.add_1"], list(infos_of(with_functional_layers(load_network(f"{file}:net"))).values())) == [
        "blocks.0.add_1",
        "blocks.1.add_1",
    ]
