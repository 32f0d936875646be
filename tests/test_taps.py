"""Maps from tokens, from units that come last, from parts of an output and of one of several calls."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from dissecting import layer
from token_networks import UNITS, write_token_data, write_token_networks
from torch import nn

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.geometry.extents import trace_extents
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import (
    LayerInfo,
    default_layers,
    list_layers,
    maps_made,
    match_layers,
    taken_unasked,
    taps_of,
)
from ndissect.engine.networks.map_rules import read_rule
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.networks.taps import Layout, Tap
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.options import Options
from ndissect.engine.run.preparation import choose_layers
from ndissect.engine.run.provenance import identity
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store
from ndissect.store.scores import label_units


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_token_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token_data(tmp_path_factory.mktemp("square"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token_data(tmp_path_factory.mktemp("wide"), (6, 10))


def dissected(spec: str, data: Path, name: str, rule: str | None = None) -> tuple[LayerInfo, Outcome]:
    network, dataset = load_network(spec), open_dataset(data)
    (chosen,) = choose_layers(Options(network=spec, layers=(name,), map=rule), network, dataset)
    settings = dataclasses.replace(Settings(workers=2, top=2), null=0)
    protocol = make_protocol("netdissect", q="1/3", min_images=1)
    return chosen, dissect(network, dataset, [chosen], protocol, settings, Progress())


def assert_planted(outcome: Outcome, name: str) -> None:
    labels, ious = label_units(layer(outcome, name).best)
    assert outcome.dissection is not None
    assert outcome.dissection.concepts.number[labels[:2]].tolist() == [1, 2]
    assert ious[:2].tolist() == [1.0, 1.0]


LAYOUTS = {
    "patches": "tokens -> {}",
    "classtoken": "tokens[1:] -> {}",
    "distilled": "tokens[2:] -> {}",
    "registers": "tokens[5:] -> {}",
    "registersbehind": "tokens[1:-4] -> {}",
    "tokensfirst": "tokens[1:] -> {}, tokens before images",
    "unitsfirst": "tokens -> {}, units before tokens",
    "unitslast": "units last",
    "linearpatches": "tokens[1:] -> {}",
    "unfolded": "tokens -> {}",
    "windows": "units last",
    "shiftedwindows": "units last",
    "residual": "units last",
    "folded": "units last",
    "attention": "tokens[1:] -> {}",
    "inference": "tokens[1:] -> {}",
}


@pytest.mark.parametrize("network", LAYOUTS)
@pytest.mark.parametrize("shape", ["square", "wide"])
def test_a_unit_that_is_a_mask_has_an_iou_of_one_in_every_layout(
    network: str, shape: str, file: str, request: pytest.FixtureRequest
) -> None:
    info, outcome = dissected(f"{file}:{network}", request.getfixturevalue(shape), "layer")
    grid = {"square": (8, 8), "wide": (6, 10)}[shape]
    assert (info.map_size, info.made_by) == (grid, LAYOUTS[network].format(f"{grid[0]}x{grid[1]}"))
    assert_planted(outcome, "layer")


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("a_tuple", "layer.0"),
        ("a_dict", "layer.deep.0"),
        ("named", "layer.tokens"),
        ("a_dataclass", "layer.last_hidden_state"),
        ("twice", "layer@1"),
    ],
)
def test_parts_of_an_output_and_calls_are_layers_of_their_own(network: str, name: str, file: str, wide: Path) -> None:
    info, outcome = dissected(f"{file}:{network}", wide, name)
    assert info.made_by == "tokens[1:] -> 6x10"
    assert_planted(outcome, name)


def test_the_last_of_several_calls_is_taken_unless_another_is_named(file: str, wide: Path) -> None:
    labels = {}
    for name in ("layer", "layer@2"):
        info, outcome = dissected(f"{file}:twice", wide, name)
        assert info.calls == 2
        assert outcome.dissection is not None
        found, ious = label_units(layer(outcome, name).best)
        labels[name] = (outcome.dissection.concepts.number[found].tolist(), ious.tolist())
    assert labels["layer"] == labels["layer@2"] and 1.0 not in labels["layer"][1][:2]
    network = load_network(f"{file}:twice")
    assert not [i for i in list_layers(network, (24, 40)) if "@" in i.name]
    infos = list_layers(network, (24, 40), patterns=["lay*@1"])
    assert match_layers(["lay*@1"], infos) == ["layer@1"] and match_layers(["lay*"], infos) == ["layer"]


RULES = ["tokens[1:] -> 8x8", "tokens[ 1 : ]->8 x 8", "{}:a_map"]


@pytest.mark.parametrize("rule", RULES)
def test_where_tokens_cannot_be_followed_a_rule_of_the_users_makes_maps(rule: str, file: str, square: Path) -> None:
    with pytest.raises(WrongUse) as caught:
        dissected(f"{file}:hidden", square, "layer")
    assert "layer (Identity) cannot be dissected: not a map: shape (N, 65, 6)" in caught.value.message
    assert '--map "tokens[1:] -> 14x14"' in caught.value.hint
    info, outcome = dissected(f"{file}:hidden", square, "layer", rule.format(file))
    assert info.map_size == (8, 8)
    assert info.made_by.startswith("tokens.py:a_map (" if "a_map" in rule else "tokens[1:] -> 8x8")
    assert_planted(outcome, "layer")


def test_without_a_layer_that_could_be_followed_the_patch_embedding_is_not_taken_silently(file: str) -> None:
    infos = list_layers(load_network(f"{file}:hidden"), (32, 32))
    with pytest.raises(WrongUse, match=r"what lies behind embed, .* is none: end \(Identity\): .* shape \(N, 65, 6\)"):
        default_layers(infos)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("tokens[1:] -> 7x7", "takes 50 tokens"),
        ("tokens", "is no rule"),
        ("tokens[1:] -> 0x64", "is no rule"),
        ("x" * 5000 + ".py:f", "is not a file"),
        ("nowhere.py:f", "is not a file"),
        ("{}:nothing", "no function named 'nothing'"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule: str, said: str, file: str, square: Path) -> None:
    with pytest.raises(WrongUse, match=said):
        dissected(f"{file}:hidden", square, "layer", rule.format(file))


@pytest.mark.parametrize("rule", ["tokens[1:] -> 3x3", "{}:a_map"])
def test_a_rule_that_makes_the_maps_of_no_layer_is_refused(rule: str, file: str, square: Path) -> None:
    with pytest.raises(WrongUse, match="makes the maps of no layer that is dissected: embed returns maps already"):
        dissected(f"{file}:hidden", square, "embed", rule.format(file))


def test_what_is_no_map_is_not_offered_and_the_reason_is_told(file: str) -> None:
    infos = {i.name: i for i in list_layers(load_network(f"{file}:attention"), (24, 40))}
    for name, shape in (("query", "(N, 2, 61, 3)"), ("weights", "(N, 2, 61, 61)")):
        assert infos[name].reason == f"not a map: shape {shape}, whose rows or columns are tokens"
    infos = {i.name: i for i in list_layers(load_network(f"{file}:windows"), (24, 40))}
    assert infos["window"].reason == "not a map: 30 windows of 2 images"
    with pytest.raises(WrongUse, match=r"window .* cannot be dissected: not a map: 30 windows of 2 images"):
        match_layers(["window"], list(infos.values()))


def test_a_map_that_was_rolled_is_none(file: str) -> None:
    rolled, end = list_layers(load_network(f"{file}:rolled"), (24, 40))[1:3]
    assert rolled.reason == "not a map: shape (N, 6, 10, 6), of the image rolled"
    assert (end.reason, end.map_size, end.made_by) == ("", (6, 10), "units last")


def test_units_that_seem_to_be_last_are_no_columns(file: str) -> None:
    infos = {i.name: i for i in list_layers(load_network(f"{file}:unfollowed"), (24, 40))}
    for name in ("norm", "layer"):
        assert infos[name].reason == "not a map: shape (N, 6, 10, 6), whose units seem to be last"
    assert (infos["map"].units, infos["map"].map_size) == (6, (6, 10))


class Batches(nn.Module):
    """The convolution sees another number of images than the network: ``how`` says why."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv, self.end = how, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = len(x)
        if self.how == "mirrored":
            return self.end(self.conv(torch.cat([x, x.flip(3)])).view(2, n, 4, *x.shape[2:]).mean(0))
        return self.conv(torch.stack([x[i, :, :4, :4] for i in range(n) for _ in range(i + 1)]))


def network_of(module: nn.Module) -> Network:
    from ndissect.engine.networks.preprocess import Preprocess

    return Network(module.eval().requires_grad_(False), "test", "test", Preprocess(), "", {})


@pytest.mark.parametrize(("how", "said"), [("mirrored", "4 maps for 2 images"), ("boxes", "3 maps for 2 images")])
def test_layers_whose_first_axis_is_not_the_images_are_left_out(how: str, said: str) -> None:
    infos = list_layers(network_of(Batches(how)), (8, 8))
    assert infos[0].reason == f"not a map: {said}"
    with pytest.raises(WrongUse, match=said):
        match_layers(["conv"], infos)
    if how == "mirrored":
        assert match_layers([], infos, all_convs=True) == ["end"] and match_layers(["*"], infos) == ["end"]


def test_modules_that_compute_weights_are_no_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3))
    nn.utils.parametrizations.weight_norm(module[0])
    infos = list_layers(network_of(module), (8, 8))
    assert [i.name for i in infos if i.dissectable] == ["0"]
    assert match_layers(["**"], infos) == ["0"]


def test_one_value_an_image_is_a_map_that_is_taken_by_its_name_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5))
    infos = list_layers(network_of(module), (8, 8))
    assert [i.map_size for i in infos] == [(6, 6), (1, 1), (1, 1), (1, 1)] and infos[3].units == 5
    assert match_layers(["*"], infos) == ["0"] and match_layers(["3"], infos) == ["3"]
    assert match_layers(["[23]"], infos) == ["2", "3"], "nothing else is meant"
    assert default_layers(infos) == ["0"]
    with Capture(module, ["3"], taps_of(infos)) as capture:
        capture.run(torch.rand(4, 3, 8, 8))
        assert capture["3"].shape == (4, 5, 1, 1)


EDITED = [(name, "layer") for name in LAYOUTS] + [
    ("a_tuple", "layer.0"),
    ("a_dict", "layer.deep.0"),
    ("named", "layer.tokens"),
    ("a_dataclass", "layer.last_hidden_state"),
    ("twice", "layer@1"),
]


@pytest.mark.parametrize(("name", "layer"), EDITED)
def test_edited_maps_go_back_to_their_places_and_nothing_else_changes(name: str, layer: str, file: str) -> None:
    network = load_network(f"{file}:{name}")
    infos = list_layers(network, (24, 40), patterns=[layer])
    taps = taps_of([i for i in infos if i.name == layer])
    x = torch.randint(0, 256, (3, 3, 24, 40)).float()

    def shift(name: str, maps: torch.Tensor) -> torch.Tensor:
        assert maps.shape[2:] == (6, 10)
        maps = maps.clone()
        maps[:, 1, 2, 7] += 1000
        return maps

    with torch.no_grad():
        before = network.module(x)
        with Capture(network.module, [layer], taps, edit=shift), Capture(network.module, [layer], taps) as kept:
            after = network.module(x)
            edited = kept[layer]
        with Capture(network.module, [layer], taps) as kept:
            kept.run(x)
            expected = shift(layer, kept[layer])
            kept.run(x)  # which ends with the layer
            assert torch.equal(shift(layer, kept[layer]), expected) and not expected.is_inference()
    assert torch.equal(edited, expected)
    changed = (after - before).nonzero()
    assert len(changed) == 3, "one value an image"
    if name not in ("unitslast", "windows", "shiftedwindows", "residual", "folded", "tokensfirst", "unitsfirst"):
        first = int(LAYOUTS.get(name, "[1:").partition("[")[2].partition(":")[0] or 0)
        unit = UNITS - 2 if name == "twice" else 1
        assert {tuple(c[1:].tolist()) for c in changed} == {(first + 2 * 10 + 7, unit)}
    assert torch.equal(network.module(x), before)


def test_maps_that_a_function_makes_of_a_copy_cannot_be_edited(file: str) -> None:
    view, copied = read_rule(f"{file}:a_map").made, Layout("", said="copies", function=lambda x: x[:, None] + 0)
    tokens = torch.rand(2, 17, 6)
    changed = view.put_back(tokens, torch.zeros(2, 6, 4, 4))
    assert torch.equal(changed[:, 0], tokens[:, 0]) and not changed[:, 1:].any() and tokens.any()
    with pytest.raises(NDError, match="copies makes cannot be changed"):
        Tap("layer", layout=copied).put_back(tokens, torch.zeros(2, 1, 17, 6))


def test_tokens_lie_where_the_patches_lie_that_they_were_made_from(file: str) -> None:
    network = load_network(f"{file}:classtoken")
    x = torch.zeros(1, 3, 35, 40)  # the patches leave 3 rows over
    for name in ("classtoken", "linearpatches", "unitslast", "unfolded"):
        network = load_network(f"{file}:{name}")
        size = (32, 40) if name == "linearpatches" else (35, 40)
        taps = taps_of([i for i in list_layers(network, size) if i.name == "layer"])
        rows, cols = trace_extents(network.module, x[:, :, : size[0]], ["layer"], taps)["layer"]
        assert (rows.low, rows.high, rows.size) == (0, 32, size[0]), name
        assert cols.whole, name


class Merging(nn.Module):
    """Merges 2 x 2 tokens of a grid, which is padded to an even one before."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.merge = nn.Conv2d(3, 4, 4, 4), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.merge(torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1))


def test_merged_tokens_lie_on_the_grid_of_their_stage() -> None:
    network = network_of(Merging())
    infos = list_layers(network, (32, 28))
    taps = taps_of([i for i in infos if i.name == "merge"])
    rows, cols = trace_extents(network.module, torch.zeros(1, 3, 32, 28), ["merge"], taps)["merge"]
    assert infos[1].map_size == (4, 4) and infos[1].units == 8
    assert rows.whole and (cols.low, cols.high, cols.size) == (0, 32, 28)


def test_values_of_planted_layouts_are_those_of_the_patch_embedding(file: str) -> None:
    for name in LAYOUTS:
        network = load_network(f"{file}:{name}")
        infos = list_layers(network, (24, 40))
        with Capture(network.module, ["layer"], taps_of(infos)) as capture:
            x = torch.randint(0, 256, (2, 3, 24, 40)).float()
            capture.run(x)
            expected = network.module.embed(x)[:, : capture["layer"].shape[1]]
            np.testing.assert_allclose(capture["layer"].numpy(), expected.detach().numpy(), atol=1e-3)


def test_a_store_says_how_maps_were_made_and_a_run_tells_which_layers_it_took(tmp_path: Path) -> None:
    write_token_networks(tmp_path)
    write_token_data(tmp_path / "data")
    args = ("-d", "data", "--quantile", "1/3", "--min-images", "1", "--null", "0")
    done = cli.nd("dissect", "tokens.py:blocks", *args, "-o", "a.nd.h5", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no layer was named: blocks.1 is taken, the last block" in done.stderr
    rule = ("-l", "layer", "--map", "tokens[1:] -> 8x8")
    assert cli.nd("dissect", "tokens.py:hidden", *rule, *args, "-o", "b.nd.h5", folder=tmp_path).returncode == 0
    for name, made in (("a", {"blocks.1": "tokens[1:] -> 8x8"}), ("b", {"layer": "tokens[1:] -> 8x8"})):
        with Store(tmp_path / f"{name}.nd.h5") as store:
            assert store.provenance["network"]["maps"] == made


def test_runs_whose_maps_are_made_otherwise_are_not_the_same(file: str, square: Path) -> None:
    network, dataset = load_network(f"{file}:hidden"), open_dataset(square)
    seen = []
    for rule in ("tokens[1:] -> 8x8", "tokens[:-1] -> 8x8", f"{file}:a_map"):
        infos = choose_layers(Options(layers=("layer",), map=rule), network, dataset)
        made = maps_made(infos)
        seen.append(identity(network, dataset, ["layer"], make_protocol("netdissect"), Settings(), made))
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_stages_and_last_blocks_are_taken_unasked(file: str) -> None:
    class Stage(nn.Sequential):
        def __init__(self, inside: int, outside: int) -> None:
            super().__init__(nn.Conv2d(inside, outside, 2, 2), nn.Sequential(Block(outside), Block(outside)))

    class Block(nn.Module):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(units, units, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(x)

    hierarchy = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Sequential(Stage(4, 4), Stage(4, 8), Stage(8, 16)))
    assert taken_unasked(list_layers(network_of(hierarchy), (32, 32))) == (
        ["1.0", "1.1", "1.2"],
        "the stages of the network",
    )
    stem, stages = nn.Sequential(Stage(3, 4), Stage(4, 4)), nn.Sequential(Stage(4, 8), Stage(8, 16))
    with_stem = nn.Sequential(OrderedDict(stem=stem, stages=stages))
    assert default_layers(list_layers(network_of(with_stem), (32, 32))) == ["stages.0", "stages.1"]
    plain = list_layers(load_network(f"{file}:blocks"), (32, 32))
    assert taken_unasked(plain) == (["blocks.1"], "the last block")
