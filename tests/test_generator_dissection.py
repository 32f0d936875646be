"""A generator dissected over its own samples: the counts of a dense computation, on every path."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from networks_factory import write_network
from PIL import Image
from test_labeller import Stopping, demand_same_numbers, stored

from ndissect.engine.data import samples
from ndissect.engine.machine.console import Console
from ndissect.engine.measures.pairing import null_images
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.merged_store import merge_to_store
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.model import Layer
from ndissect.store.reader import Store

SAMPLES, GRID = 23, 8
PLANTED = Path(__file__).parent / "planted_generator.py"
Q = Fraction(1, 7)

NETWORKS = '''
import torch
from torch import nn


class Dcgan(nn.Module):
    """z (N, 6) -> pictures (N, 3, 16, 16) in [-1, 1]."""

    generator = True
    z = 6

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(9)
        self.layer1 = nn.Sequential(nn.ConvTranspose2d(6, 5, 4), nn.BatchNorm2d(5), nn.ReLU())
        self.layer2 = nn.Sequential(nn.ConvTranspose2d(5, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.output = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh())
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=g) / 2
        self.output[0].bias.data.zero_()
        for norm in (self.layer1[1], self.layer2[1]):
            norm.running_mean = torch.randn(norm.num_features, generator=g)
            norm.running_var = torch.rand(norm.num_features, generator=g) + 0.5

    def forward(self, z):
        return self.output(self.layer2(self.layer1(z[:, :, None, None])))


class Labeller(nn.Module):
    classes = ("background", "red", "green", "blue")

    def forward(self, x):
        return torch.cat([torch.full_like(x[:, :1], 0.55), x], 1)


def dcgan():
    return Dcgan()


def labeller():
    return Labeller()
'''


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    write_network(folder, NETWORKS, "nets.py")
    return folder / "nets.py"


def options(nets: Path, **more: object) -> Options:
    """Of the random network: two layers, on a grid of 8 x 8, with two wrong pairings."""
    return Options(
        network=f"{nets}:dcgan",
        labeller=f"{nets}:labeller",
        generator=True,
        layers=("layer1", "layer2"),
        **{"samples": SAMPLES, "quantile": str(Q), "grid": str(GRID), "null": 2, "top": 5, "device": "cpu", **more},
    )


@pytest.fixture(scope="module")
def whole(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "whole.nd.h5"
    dissect_to_store(options(nets), Console(), output=path)
    return path


# The same in plain PyTorch


def sample(number: int, shape: tuple[int, ...] = (6,), seed: int = 0) -> torch.Tensor:
    """The latents of a sample: of a generator that is seeded by the seed and the number alone."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=7).digest()
    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest)))


def dense(nets: Path, samples: int) -> tuple[dict[str, np.ndarray], torch.Tensor, oracle.Labels]:
    """Maps by layer, pictures (n, 3, 16, 16) of whole levels, and labels on the grid: drawn one by one, no hooks."""
    net, labeller = (load_network(f"{nets}:{name}").module for name in ("dcgan", "labeller"))
    prepare = load_network(f"{nets}:labeller").preprocess
    maps: dict[str, list[np.ndarray]] = {"layer1": [], "layer2": []}
    pictures, labels = [], []
    with torch.no_grad():
        for number in range(samples):
            first = net.layer1(sample(number)[None, :, None, None])
            second = net.layer2(first)
            maps["layer1"].append(first[0].numpy())
            maps["layer2"].append(second[0].numpy())
            picture = ((net.output(second) + 1) * 127.5).round().clamp(0, 255)
            pictures.append(picture)
            seen = prepare.apply(picture.to(torch.uint8))
            scores = F.interpolate(labeller(seen), (GRID, GRID), mode="bilinear", align_corners=False)
            labels.append(scores.argmax(1).numpy())
    group = [int(number % 5 == 4) for number in range(samples)]
    held = oracle.Labels(labels, [[]] * samples, np.zeros(3, int), 1, group, True)
    return {name: np.stack(m) for name, m in maps.items()}, torch.cat(pictures).to(torch.uint8), held


def threshold(maps: np.ndarray) -> np.ndarray:
    """(U,): by unit the quantile of its maps enlarged to the grid."""
    large = [[oracle.upsample(m, "half-pixel-zero", (GRID, GRID))[0] for m in one] for one in maps]
    return np.array([oracle.hazen(np.stack(unit).ravel(), Q) for unit in zip(*large, strict=True)])


def layer(store: Path, name: str) -> Layer:
    with Store(store) as opened:
        return opened.layer(name).load()


@pytest.mark.parametrize("name", ["layer1", "layer2"])
def test_counts_are_those_of_drawing_labelling_enlarging_and_counting(nets: Path, whole: Path, name: str) -> None:
    maps, _, labels = dense(nets, SAMPLES)
    at = threshold(maps[name])
    expected = oracle.count(maps[name], at, "half-pixel-zero", labels, groups=2)
    found = layer(whole, name)
    np.testing.assert_allclose(found.statistics.threshold, at, rtol=1e-5)
    np.testing.assert_array_equal(found.counts.intersection, expected.intersection)
    np.testing.assert_array_equal(found.counts.area, expected.area)
    with Store(whole) as store:
        np.testing.assert_array_equal(store.concept_counts.area, expected.concept_area)
        np.testing.assert_array_equal(store.concept_counts.images, expected.images)
        assert store.concepts.name == ("red", "green", "blue")
    assert expected.intersection.any(axis=(0, 1)).all()


@pytest.mark.parametrize("name", ["layer1", "layer2"])
def test_the_null_counts_masks_under_the_labels_of_other_samples(nets: Path, whole: Path, name: str) -> None:
    maps, _, labels = dense(nets, SAMPLES)
    at, null = threshold(maps[name]), layer(whole, name).null
    assert null is not None
    for p, paired in enumerate(null_images([f"sample {n}" for n in range(SAMPLES)], 2)):
        assert (paired != np.arange(SAMPLES)).all()
        counts = oracle.count(maps[name], at, "half-pixel-zero", labels.take(list(range(SAMPLES)), list(paired)), 2)
        area, held = counts.area.sum(0)[:, None], counts.concept_area.sum(0)
        intersection = counts.intersection.sum(0)
        best = (intersection / np.maximum(area + held - intersection, 1)).argmax(1)
        most = intersection[np.arange(len(best)), best]
        np.testing.assert_array_equal(null.concept[p], np.where(most > 0, best, -1))
        np.testing.assert_array_equal(null.intersection[p], most)


# Every path counts the same


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 7}, {"memory": "20KB"}, {"workers": 1}], ids=str)
def test_batches_and_memory_change_no_count(nets: Path, whole: Path, tmp_path: Path, more: dict[str, object]) -> None:
    path = tmp_path / "other.nd.h5"
    dissect_to_store(options(nets, **more), Console(), output=path)
    if "memory" not in more:
        demand_same_numbers(whole, path)
        return
    a, b = stored(whole), stored(path)
    for name in a.keys() - {"layers/layer1/maximum", "layers/layer2/maximum"}:  # there it is that of enlarged maps
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    with Store(path) as store:
        assert store.provenance["run"]["forward_passes"] > 1


def test_shards_are_merged_to_the_same(nets: Path, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "merged.nd.h5"
    for n in (3, 1, 2):
        assert dissect_to_store(options(nets, batch_size=4), Console(), output=path, shard=f"{n}/3") is None
    folders = [tmp_path / f"merged.nd.h5.shard-{n}-of-3" for n in (1, 2, 3)]
    merge_to_store(folders, path, Options(device="cpu"), Console())
    demand_same_numbers(whole, path)


def test_a_run_that_is_stopped_goes_on(nets: Path, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.nd.h5"
    with pytest.raises(KeyboardInterrupt):
        dissect_to_store(options(nets, batch_size=4), Stopping(4), output=path)
    assert not path.exists()
    dissect_to_store(options(nets, batch_size=4), Console(), output=path)
    demand_same_numbers(whole, path)


def test_another_seed_is_another_run(nets: Path, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "seed.nd.h5"
    dissect_to_store(options(nets, seed=1), Console(), output=path)
    assert not np.array_equal(layer(path, "layer2").counts.intersection, layer(whole, "layer2").counts.intersection)


# Stores


def test_a_store_says_which_generator_drew_and_which_network_labelled(nets: Path, whole: Path) -> None:
    with Store(whole) as store:
        record = store.provenance
        assert store.protocol.name == "pnas2020+"
        assert store.protocol.union == "all-images"
    drawn, labelled = (load_network(f"{nets}:{name}") for name in ("dcgan", "labeller"))
    assert record["network"]["weights_digest"] == drawn.digest
    assert record["data"]["labeller"]["digest"] == labelled.digest
    assert record["data"]["images"] == SAMPLES
    assert len(record["generator"].pop("latents_digest")) == 32
    assert record["generator"] == {
        "latent": [6],
        "size": [16, 16],
        "range": [-1.0, 1.0],
        "range_from": "as its last layer is a tanh",
        "seed": 0,
        "truncation": None,
        "latents": None,
        "encode": None,
        "class": None,
    }


def test_the_grid_is_a_quarter_of_the_picture(nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "quarter.nd.h5"
    dissect_to_store(options(nets, grid=None, samples=5), Console(), output=path)
    with Store(path) as store:
        assert store.protocol.grid == (4, 4)


def test_the_same_command_finds_its_store(nets: Path, whole: Path, tmp_path: Path) -> None:
    """By flag, or because the network says what it is; other latents are another run."""
    path = tmp_path / "again.nd.h5"
    path.write_bytes(whole.read_bytes())
    for said in (True, False):
        written = dissect_to_store(replace(options(nets), generator=said), Console(), output=path)
        assert written is not None
        assert written.before
    with pytest.raises(Exception, match="replace"):
        dissect_to_store(options(nets, seed=2), Refusing(), output=path)


class Refusing(Console):
    """Replaces nothing."""

    def confirm_replace(self, path: Path) -> None:
        raise RuntimeError("asked to replace")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the planted generator, which says by itself that it is one."""
    path = tmp_path_factory.mktemp("planted") / "planted.nd.h5"
    chosen = Options(
        network=f"{PLANTED}:generator",
        labeller=f"{PLANTED}:labeller",
        layers=("layer",),
        samples=40,
        quantile="0.6",
        device="cpu",
        null=0,
    )
    dissect_to_store(chosen, Console(), output=path)
    return path


def test_a_planted_generator_is_read_back_whole(planted: Path) -> None:
    """Unit k draws concept k: its IoU with it is 1 where nothing stands before it."""
    with Store(planted) as store:
        best, ious = store.layer("layer").best_units
        held_out = store.layer("layer").evidence.heldout_iou
        names = store.concepts.name
        by_name = {names[row]: (int(best[row]), float(ious[row])) for row in range(len(names))}
    assert by_name["sky"] == (1, 1.0)
    assert by_name["tree"] == (2, 1.0)
    assert by_name["door"] == (3, 1.0)
    assert by_name["building"][0] == 0
    assert held_out[1] == held_out[2] == 1.0


def test_thumbnails_are_the_pictures_that_were_drawn(planted: Path) -> None:
    net = load_network(f"{PLANTED}:generator").module
    with Store(planted) as store:
        rows = {int(n) for unit in range(8) for n in store.layer("layer").top(unit).image if n >= 0}
        assert len(rows) > 5
        for image in map(store.images.read, rows):
            assert image.name == f"sample {image.index}"
            shown = np.asarray(Image.open(io.BytesIO(image.thumbnail)).convert("RGB")).astype(int)
            drawn = (net(sample(image.index, (16,))[None])[0] * 255).permute(1, 2, 0).numpy()
            assert np.abs(shown - drawn).mean() < 12


@pytest.mark.parametrize("room", [0, 700])  # bytes: none, one
def test_thumbnails_without_room_are_drawn_again_to_the_same(
    nets: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    def shown(path: Path) -> dict[str, tuple[bytes, bytes]]:
        with Store(path) as store:
            tops = [store.layer(name).top(unit).image for name in ("layer1", "layer2") for unit in range(4)]
            images = map(store.images.read, np.unique(np.concatenate(tops)).tolist())
            return {image.name: (image.thumbnail, image.label_maps.tobytes()) for image in images}

    read = []
    draw = samples.LabelledSamples.read_many
    monkeypatch.setattr(samples.LabelledSamples, "read_many", lambda *a: read.append(len(a[1])) or draw(*a))
    monkeypatch.setattr(samples, "Thumbnails", partial(samples.Thumbnails, room))
    dissect_to_store(options(nets), Console(), output=tmp_path / "again.nd.h5")
    assert sum(read) > 5
    assert max(read) > 1, "in batches"
    assert shown(tmp_path / "again.nd.h5") == shown(whole)
