"""Which layers a network has, which a pattern means, and what a hook brings back."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import LayerInfo, default_layers, list_layers, match_layers
from ndissect.engine.networks.preprocess import Preprocess
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.store.errors import NDError, WrongUse

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def network_of(module: nn.Module) -> Network:
    return Network(module.eval(), "test", "test", Preprocess(), "", {})


def by_name(infos: list[LayerInfo]) -> dict[str, LayerInfo]:
    return {info.name: info for info in infos}


class Odd(nn.Module):
    """Layers of every kind: a shared one, an unused one, one that returns a pair, one without a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(4, 4, 1)
        self.pair = Pair()
        self.held = nn.ModuleList([nn.Conv2d(4, 6, 3)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        x, _ = self.pair(x)
        x = self.relu(self.held[0](x))
        return self.head(self.pool(x).flatten(1))


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x + 1, 2


def test_every_layer_is_listed_with_its_map_or_the_reason_against_it():
    infos = list_layers(network_of(Odd()), (20, 32))
    assert [i.name for i in infos] == ["stem", "relu", "unused", "pair", "pair.0", "held", "held.0", "pool", "head"]
    found = by_name(infos)
    assert (found["stem"].units, found["stem"].map_size, found["stem"].module_type) == (4, (9, 15), "Conv2d")
    assert (found["held.0"].units, found["held.0"].map_size, found["held.0"].conv) == (6, (7, 13), True)
    assert found["relu"].note == "called 2 times, the last call counts"
    assert (found["relu"].units, found["relu"].map_size) == (6, (7, 13))
    assert (found["pair.0"].units, found["pair.0"].map_size) == (4, (9, 15))
    assert [found[name].map_size for name in ("pool", "head")] == [(1, 1), (1, 1)] and found["head"].units == 10
    reasons = {i.name: i.reason for i in infos if not i.dissectable}
    assert reasons == {
        "unused": "not called in the forward pass",
        "pair": "not a map: returns a tuple of 2, of which pair.0 is",
        "held": "holds layers, is not called itself",
    }


def test_resnet18_has_the_maps_that_the_papers_speak_of():
    found = by_name(list_layers(load_network("torchvision:resnet18@none")))
    maps = [(found[f"layer{n}"].units, found[f"layer{n}"].map_size) for n in (1, 2, 3, 4)]
    assert maps == [(64, (56, 56)), (128, (28, 28)), (256, (14, 14)), (512, (7, 7))]
    assert found["layer4.1.relu"].calls == 2


def test_tokens_of_transformers_are_maps_and_units_may_be_last():
    infos = list_layers(load_network("torchvision:vit_b_16@none"))
    block = by_name(infos)["encoder.layers.encoder_layer_0"]
    assert (block.units, block.map_size, block.made_by) == (768, (14, 14), "tokens[1:] -> 14x14")
    assert default_layers(infos) == ["encoder.layers.encoder_layer_11"]
    infos = list_layers(load_network("torchvision:swin_t@none"))
    swin = by_name(infos)
    # Four axes, but (N, h, w, units): taken for units it would give 7 units of 7 x 768.
    assert (swin["features.7.1"].units, swin["features.7.1"].map_size) == (768, (7, 7))
    assert swin["features.7.1"].made_by == "units last"
    assert swin["permute"].dissectable and swin["permute"].units == 768
    assert default_layers(infos) == ["features.1", "features.3", "features.5", "features.7"]


@pytest.mark.parametrize(
    ("factory", "layer", "units", "size"),
    [
        ("squeezenet_places365", "fire9", 512, (13, 13)),
        ("mobilenet_v2_imagenet", "features", 1280, (7, 7)),
        ("deeplabv3_mnv2_voc", "project", 256, (33, 33)),
        ("espnet_camvid", "encoder.b3", 256, (45, 60)),
        ("cifar10_resnet20", "layer3", 64, (8, 8)),
        ("tinyvgg_10class", "conv_2_2", 10, (26, 26)),
    ],
)
def test_real_networks_list_their_layers_and_have_a_sensible_default(factory, layer, units, size):
    if not (DATA / "networks.py").is_file():
        pytest.skip("the trained networks of the shared data folder are not here")
    infos = list_layers(load_network(f"{DATA / 'networks.py'}:{factory}"))
    assert default_layers(infos)[-1] == layer
    assert (by_name(infos)[layer].units, by_name(infos)[layer].map_size) == (units, size)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("vgg11", ["features.19"]),  # conv5_2 after its ReLU, before the pooling
        ("alexnet", ["features.11"]),  # conv5 after its ReLU
        ("squeezenet1_1", ["features"]),  # not the class scores that follow
        ("googlenet", ["inception5b"]),
    ],
)
def test_the_default_layer_is_the_last_map_before_pooling_and_scores(name, layers):
    assert default_layers(list_layers(load_network(f"torchvision:{name}@none"))) == layers


def test_a_network_without_any_map_says_so():
    infos = list_layers(network_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))), (8, 8))
    with pytest.raises(WrongUse, match="no layer whose output is a map"):
        default_layers(infos)


def test_a_forward_pass_that_fails_names_the_input_and_the_line(tmp_path):
    text = """
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        return x.view(1, 7)
"""
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(NDError) as caught:
        list_layers(load_network(f"{tmp_path}/net.py:Net"), (32, 40))
    assert "1 x 3 x 32 x 40" in caught.value.message and "net.py, line 5" in caught.value.message
    assert "wrap it" in caught.value.hint


def test_a_forward_pass_that_ends_the_program_is_told(tmp_path):
    text = """
import sys
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        sys.exit(3)
"""
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(NDError, match=r"Net ends the program in its forward\(\): SystemExit: 3 \(.*net.py, line 6"):
        list_layers(load_network(f"{tmp_path}/net.py:Net"), (32, 40))


# ---- patterns

NAMES = ["conv1", "features", "features.0", "features.0.conv", "features.1", "layer1", "layer2", "layer2.0.conv1", "fc"]
INFOS = [
    LayerInfo(n, "Block", 4, (7, 7), "not a map: shape (N, 10)" if n == "fc" else "", conv="conv" in n) for n in NAMES
]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["layer2"], ["layer2"]),
        (["layer?"], ["layer1", "layer2"]),
        (["layer[2-9]"], ["layer2"]),
        (["layer[!2]"], ["layer1"]),
        (["features.*"], ["features.0", "features.1"]),
        (["features.**"], ["features.0", "features.0.conv", "features.1"]),
        (["**.conv*"], ["features.0.conv", "layer2.0.conv1"]),
        (["*"], ["conv1", "features", "layer1", "layer2"]),
        (["layer2", "conv1", "layer?"], ["conv1", "layer1", "layer2"]),
        (["layer1,conv1", " features.1 "], ["conv1", "features.1", "layer1"]),
    ],
)
def test_patterns_stay_between_dots_and_answer_in_network_order(patterns, expected):
    assert match_layers(patterns, INFOS) == expected


def test_all_convs_adds_every_convolution():
    assert match_layers([], INFOS, all_convs=True) == ["conv1", "features.0.conv", "layer2.0.conv1"]
    assert match_layers(["layer1"], INFOS, all_convs=True) == [
        "conv1",
        "features.0.conv",
        "layer1",
        "layer2.0.conv1",
    ]


def test_subclasses_of_conv2d_are_convolutions():
    class Own(nn.Conv2d):
        pass

    infos = list_layers(network_of(nn.Sequential(Own(3, 2, 1), nn.ReLU())), (8, 8))
    assert match_layers([], infos, all_convs=True) == ["0"]


def test_wrong_patterns_are_answered_with_the_nearest_names_or_the_reason():
    with pytest.raises(WrongUse) as caught:
        match_layers(["layer4"], INFOS)
    assert "no layer 'layer4'" in caught.value.message and "layer1, layer2" in caught.value.hint
    with pytest.raises(WrongUse) as caught:
        match_layers(["stage*"], INFOS)
    assert "no layer matching 'stage*'" in caught.value.message
    with pytest.raises(WrongUse) as caught:
        match_layers(["layer1", "fc"], INFOS)
    assert "fc (Block) cannot be dissected: not a map: shape (N, 10)" in caught.value.message
    assert "conv1" in caught.value.hint
    with pytest.raises(WrongUse, match="no convolution"):
        match_layers([], [i for i in INFOS if not i.conv], all_convs=True)


@given(st.lists(st.sampled_from(NAMES[:-1]), min_size=1))
def test_exact_names_give_exactly_those_layers_once(names):
    assert match_layers(names, INFOS) == [n for n in NAMES if n in names]


# ---- capture


@pytest.fixture
def overwriting() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.ReLU(inplace=True)).eval()


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_in_place_relu_does_not_reach_a_captured_map(overwriting, stop, mode):
    x = torch.randn(2, 3, 9, 9)
    with mode():
        before = overwriting[0](x)
        expected = {"0": before.clone(), "1": before.clone().relu()}
        expected["2"] = overwriting[2](expected["1"])
        with Capture(overwriting, ["0", "1", "2"], stop=stop) as capture:
            for _ in range(3):
                capture.run(x)
                assert all(torch.equal(capture[name], expected[name]) for name in expected)
    assert (expected["0"] < 0).any()


def test_an_ordinary_call_of_the_network_captures_too(overwriting):
    x = torch.randn(1, 3, 9, 9)
    with Capture(overwriting, ["2"]) as capture:
        out = overwriting(x)
        assert torch.equal(capture["2"].relu(), out)
        assert not capture["2"].requires_grad
    assert overwriting(x).shape == out.shape and not overwriting[2]._forward_hooks


def test_later_passes_stop_after_the_last_wanted_call():
    module = Odd().eval()
    ran = []
    module.head.register_forward_hook(lambda *_: ran.append("head"))
    x = torch.randn(1, 3, 20, 32)
    with Capture(module, ["stem", "relu"]) as capture:
        capture.run(x)
        first = capture["relu"].clone()
        capture.run(x)
        assert ran == ["head"]  # the first pass learns that relu is called twice
        assert torch.equal(capture["relu"], first) and first.shape[1] == 6
    with Capture(module, ["stem"], stop=False) as capture:
        capture.run(x)
        capture.run(x)
    assert len(ran) == 3


def test_every_output_is_observed_at_every_call_and_what_is_no_map_as_well():
    module, x = Odd().eval(), torch.randn(1, 3, 20, 32)
    entered, seen = [], []
    names = [name for name, _ in module.named_modules()]
    with Capture(module, names, enter=entered.append, observe=lambda name, out: seen.append((name, type(out)))):
        out = module(x)
    assert seen[-1] == ("", type(out)) and entered[0] == ""
    assert [name for name, _ in seen].count("relu") == 2 and sorted(entered) == sorted(name for name, _ in seen)
    assert module(x) is not None and len(seen) == len(entered), "outside of the block nothing is observed"


def test_edited_maps_go_on_through_the_network_and_are_those_that_are_kept(overwriting):
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        expected = overwriting[2](overwriting[0](x).relu().index_fill(1, torch.tensor([1, 3]), 0.0))

    def ablate(name, maps):
        assert name == "1"
        return maps.index_fill(1, torch.tensor([1, 3]), 0.0)

    for order in ("edit first", "edit last"):
        capture, edit = Capture(overwriting, ["1", "2"]), Capture(overwriting, ["1"], edit=ablate)
        outer, inner = (edit, capture) if order == "edit first" else (capture, edit)
        with outer, inner:
            for _ in range(2):
                capture.run(x)
                assert (capture["1"][:, [1, 3]] == 0).all() and (capture["1"][:, [0, 2]] > 0).any(), order
                assert torch.equal(capture["2"], expected), order
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in overwriting.modules())


def test_what_is_no_map_cannot_be_edited():
    module = nn.Sequential(nn.Flatten())
    with Capture(module, ["0"], edit=lambda name, maps: maps), pytest.raises(NDError, match="not a map"):
        module(torch.ones(1, 3, 2, 2))


def test_what_is_not_a_map_or_changes_its_shape_is_an_error(overwriting):
    with Capture(nn.Sequential(nn.Flatten()), ["0"]) as capture, pytest.raises(NDError, match=r"shape \(N, 12\)"):
        capture.run(torch.ones(1, 3, 2, 2))
    with Capture(overwriting, ["0"]) as capture:
        capture.run(torch.ones(1, 3, 9, 9))
        with pytest.raises(NDError, match="4 x 7 x 7, then 4 x 8 x 8"):
            capture.run(torch.ones(1, 3, 10, 10))
    module = Odd().eval()
    with Capture(module, ["unused"]) as capture:
        capture.run(torch.ones(1, 3, 20, 32))
        with pytest.raises(NDError, match="not called"):
            capture["unused"]
