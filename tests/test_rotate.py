"""``nd rotate``: exact rotations, counts of a rotated layer as the oracle counts them, and the classifier's check."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cli
import numpy as np
import oracle
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from networks_factory import CHANNELS, EXACT, write_network
from torch import nn
from torchvision import models

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.experiments.cached import Cached, cached
from ndissect.engine.experiments.counter_rotation import check, linear_consumers
from ndissect.engine.experiments.rotate import Basis, CountedBasis, count, rotate
from ndissect.engine.experiments.rotation import Rotation, random_rotation
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import LayerInfo, list_layers
from ndissect.engine.networks.preprocess import make_preprocess
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.forward_pass import open_pass
from ndissect.engine.run.settings import Settings
from ndissect.store.counts import ConceptCounts
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol

SIZE, GRID, IMAGES = 32, 16, 23
CPU = torch.device("cpu")
PLENTY = Budget(1 << 30, 1 << 30)
CONCEPTS = [
    Concept(3, "tree"),
    Concept(4, "car"),
    Concept(9, "wheel", "part"),
    Concept(11, "street-s", "scene"),
]


# Rotations


def turns(*angles: float, fixed: int = 0, seed: int = 0) -> np.ndarray:
    """The rotation by these angles in planes that lie at random."""
    size = 2 * len(angles) + fixed
    plain = np.eye(size)
    for k, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        plain[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[c, -s], [s, c]]
    where = random_rotation(size, seed)
    return where @ plain @ where.T


CASES = {
    **{f"size {n}": random_rotation(n, n) for n in (2, 3, 4, 5, 8, 31, 64, 127, 256, 512)},
    "nothing": np.eye(5),
    "all turned back": -np.eye(6),
    "a permutation": np.eye(9)[[1, 2, 0, 4, 5, 3, 7, 8, 6]],
    "half turns in one plane": turns(np.pi, 1.0, fixed=1),
    "half turns in three planes": turns(np.pi, np.pi, np.pi),
    "nearly half turns": turns(np.pi - 1e-9, np.pi - 2e-9, fixed=2),
    "hardly any turn": turns(1e-9, 2e-9, 1e-12, fixed=1),
    "equal angles": turns(0.7, 0.7, 0.7, fixed=1),
    "nearly equal angles": turns(0.7, 0.7 + 1e-13, 2.0),
}


@pytest.mark.parametrize("case", CASES)
def test_fractional_powers_are_rotations_between_nothing_and_the_whole(case: str) -> None:
    q = CASES[case]
    rotation, one = Rotation(q), np.eye(len(q))
    half = rotation.by_angles(0.5)
    np.testing.assert_allclose(rotation.by_angles(0), one, atol=1e-12)
    np.testing.assert_allclose(rotation.by_angles(1), q, atol=1e-12)
    np.testing.assert_allclose(half @ half, q, atol=1e-12)
    for alpha in (0.1, 0.3, 0.5, 0.9):
        power = rotation.by_angles(alpha)
        np.testing.assert_allclose(power @ power.T, one, atol=1e-12)
        np.testing.assert_allclose(power @ rotation.by_angles(1 - alpha), q, atol=1e-12)
        assert np.linalg.slogdet(power).sign == 1
        np.testing.assert_array_equal(rotation.power(alpha), power)
    np.testing.assert_array_equal(rotation.power(0), one)
    np.testing.assert_array_equal(rotation.power(1), q)


def test_a_power_turns_each_plane_by_the_same_share_of_its_angle() -> None:
    angles = (0.4, 1.5, 3.0)
    np.testing.assert_allclose(
        Rotation(turns(*angles, fixed=2)).power(0.3), turns(*(0.3 * a for a in angles), fixed=2), atol=1e-12
    )


def test_rotations_are_drawn_evenly_and_by_their_seed() -> None:
    for size in (2, 3, 6):
        drawn = np.stack([random_rotation(size, seed) for seed in range(3000)])
        np.testing.assert_allclose(
            drawn @ drawn.transpose(0, 2, 1), np.broadcast_to(np.eye(size), drawn.shape), atol=1e-12
        )
        np.testing.assert_allclose(np.linalg.det(drawn), 1)
        # Every entry has mean 0 and variance 1 / size; QR alone would leave the diagonal negative.
        assert np.abs(drawn.mean(0)).max() < 5 / np.sqrt(3000 * size)
        np.testing.assert_allclose((drawn**2).mean(0), 1 / size, atol=5 / np.sqrt(3000))
    angle = np.sort([np.arctan2(q[1, 0], q[0, 0]) for q in (random_rotation(2, s) for s in range(3000))])
    even = np.linspace(-np.pi, np.pi, 3000)
    assert np.abs(angle - even).max() < 2 * np.pi * 1.95 / np.sqrt(3000), "Kolmogorov and Smirnov, p < 0.001"
    np.testing.assert_array_equal(random_rotation(7, 3), random_rotation(7, 3))
    assert not np.array_equal(random_rotation(7, 3), random_rotation(7, 4))


# Counts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    pictures = [
        Picture(
            maps={
                "object": rng.choice([0, 0, 3, 4], (GRID, GRID)).astype(np.uint16),
                "part": rng.choice([0, 0, 0, 9], (GRID, GRID)).astype(np.uint16),
            },
            labels={"scene": [11] if i % 3 == 0 else []},
        )
        for i in range(IMAGES)
    ]
    folder = tmp_path_factory.mktemp("data") / "small"
    return write_broden(folder, pictures, CONCEPTS, image_size=(SIZE, SIZE), grid=(GRID, GRID))


@pytest.fixture
def net(tmp_path: Path) -> str:
    return f"{write_network(tmp_path, EXACT)}:network"


def the_layer(network: Network, name: str) -> LayerInfo:
    return next(info for info in list_layers(network, (SIZE, SIZE)) if info.name == name)


def counted(
    spec: str,
    data: Path,
    name: str,
    alphas: Sequence[float],
    protocol: str = "netdissect",
    budget: Budget = PLENTY,
    **more: Any,
) -> tuple[Cached, list[tuple[CountedBasis, ConceptCounts]]]:
    """The activations of a layer, and what they count in bases of one rotation."""
    network, settings = load_network(spec), Settings(batch=5, workers=2, memory=PLENTY)
    layers = [the_layer(network, name)]
    with open_pass(network, open_dataset(data), layers, make_protocol(protocol, **more), settings, Progress()) as p:
        known = cached(p)
    rotation = Rotation(random_rotation(known.geometry.units, 1))
    bases = [Basis(alpha, 1, rotation) for alpha in alphas]
    return known, list(count(known, p.loader, bases, budget, CPU, Progress()))


def equal(a: CountedBasis, b: CountedBasis) -> None:
    np.testing.assert_array_equal(a.statistics.threshold, b.statistics.threshold)
    for field in dataclasses.fields(a.counts):
        np.testing.assert_array_equal(getattr(a.counts, field.name), getattr(b.counts, field.name))


@pytest.mark.parametrize("protocol", ["netdissect", "cvpr2017", "pnas2020"])
@pytest.mark.parametrize("name", ["first", "second"])
def test_the_layers_own_basis_counts_as_a_dissection_does(net: str, data: Path, protocol: str, name: str) -> None:
    _, [(found, held)] = counted(net, data, name, [0], protocol, q="1/9")
    network = load_network(net)
    whole = dissect(
        network,
        open_dataset(data),
        [the_layer(network, name)],
        make_protocol(protocol, q="1/9"),
        Settings(batch=7, workers=2, memory=PLENTY),
        Progress(),
    ).dissection
    assert whole is not None
    counts, concepts = whole.layers[0].counts, whole.concept_counts
    assert counts is not None
    np.testing.assert_array_equal(found.statistics.threshold, whole.layers[0].statistics.threshold)
    np.testing.assert_array_equal(found.counts.intersection.sum(0), counts.intersection.sum(0))
    np.testing.assert_array_equal(found.counts.area.sum(0), counts.area.sum(0))
    np.testing.assert_array_equal(found.counts.area_in_category.sum(0), counts.area_in_category.sum(0))
    np.testing.assert_array_equal(held.area.sum(0), concepts.area.sum(0))
    assert found.counts.intersection.sum() > 500, "the case is not trivial"


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_rotated_basis_counts_what_the_oracle_counts_of_the_rotated_maps(net: str, data: Path, alpha: float) -> None:
    known, [(found, held)] = counted(net, data, "first", [alpha], q="1/9")
    matrix = found.basis.matrix(CPU)
    assert matrix is not None
    maps = np.concatenate([found.basis.turn(known.maps[s], matrix).numpy() for s in known.slices()])
    turned = np.einsum("vu,nuhw->nvhw", found.basis.rotation.power(alpha), known.maps.double().numpy())
    np.testing.assert_allclose(maps, turned, rtol=0, atol=1e-5 * np.abs(turned).max())
    assert maps.min() < 0

    threshold = np.array([oracle.hazen(maps[:, u].ravel(), Fraction(1, 9)) for u in range(maps.shape[1])])
    np.testing.assert_array_equal(found.statistics.threshold, threshold)
    dataset = open_dataset(data)
    row = {int(n): i + 1 for i, n in enumerate(dataset.concepts.number)} | {0: 0}
    samples = [dataset.read(i) for i in range(IMAGES)]
    labels = oracle.Labels(
        [np.vectorize(row.__getitem__, otypes=[int])(s.maps) for s in samples],
        [[row[n] for n in s.labels] for s in samples],
        dataset.concepts.category,
        len(dataset.concepts.categories),
        [0] * IMAGES,
    )
    expected = oracle.count(maps, threshold, "half-pixel", labels)
    np.testing.assert_array_equal(found.counts.intersection, expected.intersection)
    np.testing.assert_array_equal(found.counts.area, expected.area)
    np.testing.assert_array_equal(found.counts.area_in_category, expected.area_in_category)
    np.testing.assert_array_equal(held.area, expected.concept_area)


@pytest.mark.parametrize("memory", [0, 12_000])
def test_counts_do_not_depend_on_memory_or_on_the_other_bases(net: str, data: Path, memory: int) -> None:
    known, several = counted(net, data, "first", [0, 0.4, 1], q="1/9")
    left = known.maps.nbytes + memory  # too little for all at once, and for thresholds in one pass
    _, tight = counted(net, data, "first", [0, 0.4, 1], budget=Budget(left, 0), q="1/9")
    for (a, _), (b, _) in zip(several, tight, strict=True):
        equal(a, b)
    _, [(alone, _)] = counted(net, data, "first", [0.4], q="1/9")
    equal(alone, several[1][0])
    assert not np.array_equal(several[0][0].counts.intersection, several[1][0].counts.intersection)


def test_all_seeds_share_the_layers_own_basis(net: str, data: Path) -> None:
    network = load_network(net)
    settings = Settings(workers=2, memory=PLENTY)
    found = rotate(
        network,
        open_dataset(data),
        the_layer(network, "second"),
        make_protocol(),
        settings,
        Progress(),
        alphas=[1, 0, 0.5],
        seeds=3,
    )
    assert [(f.alpha, f.seed) for f in found.bases] == [(0, 0), *((a, s) for a in (0.5, 1) for s in range(3))]
    assert all(sum(f.by_category.values()) == f.unique_per_category for f in found.bases)
    assert (found.units, found.images) == (5, IMAGES)


def test_nan_and_infinite_activations_are_as_in_a_dissection_at_alpha_0(tmp_path: Path, data: Path) -> None:
    spec = f"{write_network(tmp_path, CHANNELS)}:Odd"
    (tmp_path / "odd.py").write_text(
        (tmp_path / "net.py").read_text() + "\n\ndef odd():\n    return Odd(), lambda x: x.float()\n"
    )
    spec = f"{tmp_path / 'odd.py'}:odd"
    _, [(own, _), (turned, _)] = counted(spec, data, "units", [0, 1])
    assert own.statistics.nan.tolist() == [0, 0, IMAGES * SIZE * SIZE // 2, 0, 0]
    assert own.statistics.inf.tolist() == [0, 0, 0, IMAGES, 0]
    assert own.statistics.dead.tolist() == [True, True, False, False, False]
    # What is no number in one unit is none in any mixture of it.
    assert (turned.statistics.nan + turned.statistics.inf >= IMAGES * SIZE * SIZE // 2).all()
    assert np.isfinite(turned.statistics.threshold).all()


def test_activations_that_do_not_fit_are_refused_with_what_they_need(net: str, data: Path) -> None:
    network = load_network(net)
    settings = Settings(memory=Budget(30_000, 0))
    with pytest.raises(NDError) as e:
        rotate(
            network,
            open_dataset(data),
            the_layer(network, "first"),
            make_protocol(),
            settings,
            Progress(),
            alphas=[0],
            seeds=1,
        )
    need = 4 * IMAGES * 6 * 8 * 8
    assert f"over {IMAGES} images take {need / 1000:.1f} kB of memory, --memory is 30.0 kB" in e.value.message
    assert "--images" in e.value.hint


# The classifier


def consumers_of(module: nn.Module, *names: str) -> dict[str, tuple[str, ...]]:
    return {name: linear_consumers(module.eval(), name) for name in names}


def test_what_follows_a_layer_is_found_where_it_is_linear() -> None:
    found = consumers_of(models.resnet18(), "layer4", "layer3", "layer3.0", "layer4.1.conv1", "layer4.1.bn2", "maxpool")
    assert found == {
        "layer4": ("fc",),
        "layer3": ("layer4.0.conv1", "layer4.0.downsample.0"),
        "layer3.0": (),  # a sum takes it too
        "layer4.1.conv1": (),  # batch norm
        "layer4.1.bn2": (),
        "maxpool": (),
    }
    assert consumers_of(models.alexnet(), "features", "features.11", "features.12", "features.2") == {
        "features": ("classifier.1",),  # flattened, 6 x 6 places a unit
        "features.11": (),  # max pooling
        "features.12": ("classifier.1",),
        "features.2": ("features.3",),
    }
    assert consumers_of(models.mobilenet_v2(), "features", "features.18", "features.1.conv.0.0") == {
        "features": ("classifier.1",),
        "features.18": ("classifier.1",),
        "features.1.conv.0.0": (),
    }


class Branching(nn.Module):
    """Its code asks for values, which no tracing can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.next = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return self.next(x).mean((2, 3)) if x.sum() < 1e9 else x


class Twice(nn.Module):
    """The next layer is used for something else as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.next = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.next(self.layer(x)).mean((2, 3)) + self.next(x).mean((2, 3))


def network_of(module: nn.Module) -> Network:
    torch.manual_seed(0)
    preprocess, _ = make_preprocess(lambda x: x.float(), "made", None, None, None)
    return Network(module.eval().requires_grad_(False), "made", "made", preprocess, "", {})


def checked(module: nn.Module, name: str, scale: float = 1.0) -> Any:
    network = network_of(module)
    info = next(i for i in list_layers(network, (64, 64)) if i.name == name)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = check(network, [x, x[:2] * 2], info, [scale * random_rotation(info.units, s) for s in range(2)])
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), "the network is what it was"
    assert torch.equal(module(x), module(x))
    assert not any(m._forward_hooks for m in module.modules())
    return found


@pytest.mark.parametrize(
    ("make", "layer", "folded"),
    [
        (models.resnet18, "layer4", ("fc",)),
        (models.resnet18, "layer3", ("layer4.0.conv1", "layer4.0.downsample.0")),
        (models.alexnet, "features", ("classifier.1",)),
        (models.resnet18, "layer3.0", ()),
        (Branching, "layer", ()),
        (Twice, "layer", ()),
    ],
)
def test_a_counter_rotated_network_predicts_the_same(make: Any, layer: str, folded: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    found = checked(make(), layer)
    assert found.folded == folded
    assert (found.same, found.images) == (5, 5)
    assert found.difference < 1e-4 * found.scale


@pytest.mark.parametrize("layer", ["layer4", "layer3", "layer3.0"])
def test_the_check_notices_what_is_not_undone(layer: str) -> None:
    torch.manual_seed(0)
    found = checked(models.resnet18(), layer, scale=1.1)  # no rotation: its transpose is not its inverse
    assert found.difference > 1e-3 * found.scale


def test_a_network_without_scores_is_not_checked() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> dict[str, str]:
            self.layer(x)
            return {"answer": "none"}

    network = network_of(Silent())
    info = LayerInfo("layer", "Conv2d", 4, (8, 8))
    assert check(network, [torch.zeros(1, 3, 8, 8)], info, [np.eye(4)]) is None


# The command

ROTATE = ("rotate", "net.py:network", "--data", "small", "--quantile", "0.2", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.workplace(tmp_path_factory.mktemp("place"))


def test_the_command_gives_at_alpha_0_what_the_store_says_and_checks_the_classifier(place: Path) -> None:
    before = cli.files_in(place)
    found = cli.json_of(*ROTATE, "-l", "deep.pool", "--alphas", "0,0.5,1", "--seeds", "2", folder=place)
    layer = next(x for x in cli.json_of("inspect", folder=place)["layers"] if x["layer"] == "deep.pool")
    own = found["bases"][0]
    for name in ("detectors", "unique_per_category", "unique_best_label"):
        assert own[name] == layer["summary"][name]
        assert found["alphas"][0]["counts"][name] == {"mean": own[name], "sd": 0.0}
    assert {c: own[c] for c in layer["summary"]["by_category"]} == layer["summary"]["by_category"]
    assert [(b["alpha"], b["seed"]) for b in found["bases"]] == [(0, 0), (0.5, 0), (0.5, 1), (1, 0), (1, 1)]
    for row in found["alphas"][1:]:
        some = [b["unique_best_label"] for b in found["bases"] if b["alpha"] == row["alpha"]]
        assert row["counts"]["unique_best_label"] == {"mean": np.mean(some), "sd": np.std(some, ddof=1)}
    assert found["check"]["folded"] == ["scores"]
    assert found["check"]["same"] == found["check"]["images"] == cli.IMAGES
    assert found["protocol"]["q"] == "1/5"
    assert cli.files_in(place) == before, "nothing was written"


def test_a_layer_that_something_else_takes_is_rotated_back_itself(place: Path) -> None:
    done = cli.nd(*ROTATE, "-l", "units", "--alphas", "1", "--seeds", "1", "--images", "5", folder=place)
    assert done.returncode == 0, done.stderr
    assert "5 images, units, 4 units, 1 bases" in done.stderr
    assert "check: units rotated, and rotated back right after it: 5 of 5 predictions are the same" in done.stderr


def test_table_plot_and_csv_are_of_the_same_numbers(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    args = ("-l", "deep.pool", "--alphas", "0:1:0.5", "--seeds", "2", "-o", "out/a.csv", "--plot", "out/a.png")
    rows = cli.rows_of(*ROTATE, *args, folder=place)
    assert [row["alpha"] for row in rows] == ["0", "0.5", "1"]
    assert list(rows[0])[:5] == ["alpha", "seeds", "detectors", "unique/cat", "±cat"]
    header, *lines = (out / "a.csv").read_text().splitlines()
    assert header.startswith("# net.py:network deep.pool on small; protocol netdissect+: q 0.2")
    assert "IoU > 0.04" in header
    bases = list(csv.DictReader(lines))
    for row in rows:
        some = [int(b["unique_per_category"]) for b in bases if float(b["alpha"]) == float(row["alpha"])]
        assert float(row["unique/cat"]) == pytest.approx(np.mean(some), rel=1e-5)
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
    done = cli.nd(*ROTATE, *args[:-1], "out/a.svg", folder=place)
    cli.failed(done, 2, "out/a.csv exists")
    done = cli.nd(*ROTATE, *args[:-1], "out/a.svg", "--force", folder=place)
    assert done.returncode == 0, done.stderr
    text = (out / "a.svg").read_text()
    assert all(word in text for word in ("unique detectors", "per category", "best label", "scene", "IoU &gt; 0.04"))


MISTAKES = {
    "an unknown layer": (("-l", "unit"), 2, "no layer 'unit'"),
    "a layer without maps": (("-l", "unused"), 2, "unused (Identity) cannot be dissected"),
    "several layers": (("-l", "**"), 2, "one layer is rotated"),
    "an alpha beyond 1": (("--alphas", "0,1.5"), 2, "1.5 is not in [0, 1]"),
    "an alpha below 0": (("--alphas=-0.5:1:0.5",), 2, "-0.5 is not in [0, 1]"),
    "no step": (("--alphas", "0:1:0"), 2, "'0:1:0' means no alphas"),
    "too small a step": (("--alphas", "0:1:1e-9"), 2, "more than 1000 alphas"),
    "NaN": (("--alphas", "nan"), 2, "is not in [0, 1]"),
    "words": (("--alphas", "all"), 2, "'all' means no alphas"),
    "no seed": (("--seeds", "0"), 2, "--seeds"),
    "no image": (("--images", "0"), 2, "--images"),
    "no plot": (("--plot", "a.txt"), 2, "a.txt is no name of a plot"),
    "a plot nowhere": (("--plot", "nowhere/a.png"), 2, "the folder nowhere does not exist"),
    "too little memory": (("-l", "units", "--memory", "1k"), 1, "the activations of units over 12 images take"),
    "no data": (("-d", "nothing"), 2, "nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_two_lines(mistake: str, place: Path) -> None:
    args, code, said = MISTAKES[mistake]
    done = cli.nd(*ROTATE, *args, folder=place)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), said)


def test_an_unreadable_image_stops_the_run_unless_it_may_be_left_out(tmp_path: Path) -> None:
    folder = cli.workplace(tmp_path)
    image = sorted((folder / "small" / "images").rglob("*.png"))[0]
    first = next(line for line in (folder / "small" / "index.csv").read_text().splitlines()[1:])
    image = folder / "small" / "images" / first.split(",")[0]
    image.write_bytes(b"no image")
    args = (*ROTATE, "-l", "deep.pool", "--alphas", "1", "--seeds", "1")
    done = cli.nd(*args, folder=folder)
    assert done.returncode == 1
    assert "--skip-bad" in done.stderr
    found = cli.nd(*args, "--skip-bad", "--json", folder=folder)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["images"] == cli.IMAGES - 1
    assert f"skipped {first.split(',')[0]}" in found.stderr
