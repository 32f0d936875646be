"""Units of a layer have other values for a block, as with hooks that set their channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from token_networks import write_token_networks
from torch import Tensor, nn

from ndissect.engine.experiments.edited import edited
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.store.errors import WrongUse


@pytest.fixture(scope="module")
def resnet() -> Network:
    torch.manual_seed(0)
    return load_network("torchvision:resnet18@none", size=(64, 64))


def images(n: int = 2, side: int = 64) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def hooked(module: nn.Module, layer: str, change: Callable[[Tensor], Any], inputs: Tensor, call: int = 1) -> Tensor:
    calls = 0

    def hook(m: nn.Module, args: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output = output.clone()
        if calls == call:
            change(output)
        return output

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        return run(module, inputs)
    finally:
        handle.remove()


def run(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        scores = module(inputs)
    assert isinstance(scores, Tensor)
    return scores


@pytest.mark.parametrize("layer", ["layer4", "layer3.0.conv1", "layer2.1.bn2", "relu", "layer1.0"])
def test_a_unit_at_zero_is_a_channel_at_zero(resnet: Network, layer: str) -> None:
    inputs = images()
    plain = run(resnet.module, inputs)
    with edited(resnet, layer, {3: 0}):
        without = run(resnet.module, inputs)
    assert torch.equal(without, hooked(resnet.module, layer, lambda maps: maps[:, 3].zero_(), inputs))
    with edited(resnet, layer, {3: 100}):
        assert not torch.equal(run(resnet.module, inputs), plain)
    assert torch.equal(run(resnet.module, inputs), plain)


def test_several_units_numbers_and_maps(resnet: Network) -> None:
    inputs = images(3)
    info = next(i for i in list_layers(resnet, (64, 64)) if i.name == "layer3")
    one, each = torch.rand(4, 4), torch.rand(3, 4, 4)

    def change(maps: Tensor) -> None:
        maps[:, 0], maps[:, 7], maps[:, 9], maps[:, 255] = 1.5, one, each, torch.tensor(2.0)

    with edited(resnet, info, {0: 1.5, 7: one.double(), 9: each, 255: torch.tensor(2.0)}):
        assert torch.equal(run(resnet.module, inputs), hooked(resnet.module, "layer3", change, inputs))


def test_one_call_of_several(resnet: Network) -> None:
    inputs = images()
    for call in (1, 2):
        with edited(resnet, f"layer2.1.relu@{call}", {5: 0}):
            without = run(resnet.module, inputs)
        expected = hooked(resnet.module, "layer2.1.relu", lambda maps: maps[:, 5].zero_(), inputs, call)
        assert torch.equal(without, expected)


def test_tokens(tmp_path: Path) -> None:
    network = load_network(f"{write_token_networks(tmp_path)}:classtoken")
    inputs, values = images(2, 16), torch.rand(4, 4)
    with edited(network, "layer", {1: values}, image_size=(16, 16)):
        tokens = run(network.module, inputs)

    def change(tokens: Tensor) -> None:
        tokens[:, 1:, 1] = values.flatten()

    assert torch.equal(tokens, hooked(network.module, "layer", change, inputs))


@pytest.mark.parametrize(
    ("layer", "values", "said", "hint"),
    [
        ("layer5", {0: 0}, "no layer 'layer5'", "Nearest: "),
        ("layer4", {512: 0}, "layer4 has no unit 512", "0 to 511"),
        ("layer4", {-1: 0}, "layer4 has no unit -1", "0 to 511"),
        ("layer*", {0: 0}, "layer* means 4 layers", "Name one"),
        ("layer4", {0: torch.zeros(512)}, "values of unit 0 are of shape (512,)", "a map (h, w)"),
    ],
)
def test_what_is_not_there(resnet: Network, layer: str, values: Any, said: str, hint: str) -> None:
    with pytest.raises(WrongUse) as e, edited(resnet, layer, values):
        raise AssertionError("the block is not reached")
    assert said in e.value.message
    assert hint in e.value.hint


def test_maps_of_another_size_are_refused_and_the_network_is_left_as_it_was(resnet: Network) -> None:
    plain = run(resnet.module, images())
    for wrong in (torch.zeros(3, 3), torch.zeros(5, 2, 2)):
        with pytest.raises(WrongUse, match="its maps in layer4 of shape"), edited(resnet, "layer4", {0: wrong}):
            run(resnet.module, images())
        assert torch.equal(run(resnet.module, images()), plain)
