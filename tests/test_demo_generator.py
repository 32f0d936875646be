"""The bundled generator of scenes and its labeller: what they take and give, how well they do, and their training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ndissect.engine.demo import generator, train_generator
from ndissect.engine.demo.drawn_scenes import CONCEPTS, FACTORS, draw_scenes
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.sources import _DEMO
from ndissect.engine.networks.spec import parse_spec
from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.store.names import BUNDLED_NETWORKS

LAYERS = {"layer1": (96, 4), "layer2": (128, 8), "layer3": (96, 16), "layer4": (64, 32), "layer5": (32, 64)}


def latents(n: int, seed: int = 5) -> Tensor:
    return torch.randn(n, FACTORS, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def draws() -> torch.nn.Module:
    return load_network("demo-generator").module


@pytest.fixture(scope="module")
def labels() -> torch.nn.Module:
    return load_network("demo-labeller").module


def test_a_scene_depends_on_its_latent_alone_and_every_pixel_has_a_label() -> None:
    z = latents(24)
    picture, label = draw_scenes(z)
    assert (picture.shape, label.shape) == ((24, 3, 64, 64), (24, 64, 64))
    assert 0 <= float(picture.min()) and float(picture.max()) <= 1
    assert 1 <= int(label.min()) and int(label.max()) <= len(CONCEPTS)
    alone = draw_scenes(z[7:8])
    assert torch.equal(alone[0][0], picture[7]) and torch.equal(alone[1][0], label[7])


def test_things_are_in_a_good_part_of_the_scenes_and_not_in_all() -> None:
    _, label = draw_scenes(latents(300))
    for name in ("tree", "house", "door", "window", "road", "sun", "cloud", "car", "mountain"):
        share = (label == CONCEPTS.index(name) + 1).flatten(1).any(1).float().mean()
        assert 0.15 < share < 0.85, (name, share)


def test_the_names_of_the_bundled_networks_are_known_and_steady() -> None:
    assert tuple(_DEMO) == BUNDLED_NETWORKS
    assert all(parse_spec(name).scheme == "demo" for name in BUNDLED_NETWORKS)
    assert Options(network="demo-generator", labeller="demo-labeller").names_its_network
    assert not Options(network="demo-nets.py:make").names_its_network
    with pytest.raises(WrongUse, match="not a network") as raised:
        parse_spec("demo-generater")
    assert "Did you mean demo-generator?" in raised.value.hint


def test_the_generator_says_what_it_is_and_draws_in_its_range(draws: torch.nn.Module) -> None:
    assert draws.generator is True and draws.z == FACTORS
    z = latents(6)
    shapes = {}
    for name in LAYERS:
        draws.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: (out.shape[1], out.shape[2])})
        )
    with torch.no_grad():
        pictures = draws(z)
    assert pictures.shape == (6, 3, 64, 64) and pictures.dtype == torch.float32
    assert float(pictures.min()) >= -1 and float(pictures.max()) <= 1
    assert shapes == LAYERS


def test_a_sample_is_the_same_in_any_batch(draws: torch.nn.Module) -> None:
    z = latents(6)
    with torch.no_grad():
        all_at_once = draws(z)
        one_by_one = torch.cat([draws(one[None]) for one in z])
    assert torch.allclose(all_at_once, one_by_one, atol=1e-5)


def test_the_labeller_labels_new_scenes(labels: torch.nn.Module) -> None:
    network = load_network("demo-labeller")
    assert network.classes == ("background", *CONCEPTS)
    picture, label = draw_scenes(latents(128, seed=77))
    seen = train_generator.look(labels, picture, label)
    assert labels(picture[:2]).shape == (2, len(network.classes), 64, 64)
    assert seen.accuracy > 0.985
    assert min(seen.iou.values()) > 0.75, seen.iou
    assert sum(seen.iou.values()) / len(seen.iou) > 0.93


def test_the_labeller_takes_pictures_as_bytes_at_their_size(labels: torch.nn.Module) -> None:
    network = load_network("demo-labeller")
    assert not network.notes
    levels = (draw_scenes(latents(4))[0] * 255).round().to(torch.uint8)
    assert torch.allclose(network.preprocess.apply(levels), levels.float() / 255)


def test_the_labeller_sees_in_the_generators_pictures_what_the_scenes_show(
    draws: torch.nn.Module, labels: torch.nn.Module
) -> None:
    z = latents(128, seed=78)
    picture, label = draw_scenes(z)
    with torch.no_grad():
        drawn = (draws(z) + 1) / 2
    assert float((drawn - picture).abs().mean()) < 0.03
    seen = train_generator.look(labels, drawn, label)
    assert seen.accuracy > 0.96
    assert min(seen.iou.values()) > 0.5, seen.iou  # doors and windows too
    assert sum(seen.iou.values()) / len(seen.iou) > 0.85


def test_the_weights_are_small() -> None:
    files = (generator.GENERATOR_WEIGHTS, generator.LABELLER_WEIGHTS)
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_training_gives_the_same_weights_twice_and_they_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for turn in range(2):
        labeller = train_generator.train_labeller(2, batch=4)
        train_generator.save_half(labeller, tmp_path / "labeller.safetensors")
        model = train_generator.train_generator(labeller, 2, batch=4, save=tmp_path / "generator.safetensors")
        train_generator.save_half(model, tmp_path / "generator.safetensors")
        files[turn] = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert len(files[0]) == 2 and files[0] == files[1]
    assert "generator 0/2" in capsys.readouterr().out
    monkeypatch.setattr(generator, "GENERATOR_WEIGHTS", tmp_path / "generator.safetensors")
    monkeypatch.setattr(generator, "LABELLER_WEIGHTS", tmp_path / "labeller.safetensors")
    with torch.no_grad():
        drawn = (generator.demo_generator()(latents(2)) + 1) / 2
        assert generator.demo_labeller()(drawn).shape == (2, len(CONCEPTS) + 1, 64, 64)
