"""What a generator draws of: latents, drawn or given, classes, photographs; refused where they do not fit."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generator_trials import CPU, drawn, made, options, written
from PIL import Image

from ndissect.engine.experiments.generated import GeneratorRequest, open_generated
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.encoded import encode_photographs, read_latents
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("nets"))


# Latents


def test_a_sample_depends_on_seed_and_number_alone(nets: Path) -> None:
    generator = made(nets, "Base", seed=3)
    np.testing.assert_array_equal(generator.latents.of([7, 2])[0], made(nets, "Base", seed=3).latents.of([7])[0])
    assert not np.array_equal(generator.latents.of([7]), made(nets, "Base").latents.of([7]))
    many = generator.latents.of(range(2000))
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05


def test_truncated_latents_are_normal_ones_within_a_bound(nets: Path) -> None:
    many = made(nets, "Base", truncation=0.7).latents.of(range(2000))
    assert 0.69 < np.abs(many).max() <= 0.7
    inside = np.random.default_rng(0).standard_normal(100_000)
    assert abs(many.std() - inside[np.abs(inside) <= 0.7].std()) < 0.01
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(WrongUse, match="leaves no latents"):
            made(nets, "Base", truncation=value)


def test_a_generator_may_draw_its_latents_itself(nets: Path) -> None:
    latents = made(nets, "Sampler").latents
    assert latents.shape == (4,)
    assert latents.of([3]).min() >= 10
    np.testing.assert_array_equal(latents.of([3, 5])[1:], latents.of([5]))
    with pytest.raises(WrongUse, match="--truncation does not reach them"):
        made(nets, "Sampler", truncation=1.0)
    with pytest.raises(NDError, match="does not draw by the generator that it is given"):
        made(nets, "Unseeded")


def test_the_shape_of_latents_is_declared_or_given(nets: Path) -> None:
    assert made(nets, "Shaped").latents.shape == (2, 2)
    assert made(nets, "Silent", latent=(4,)).latents.shape == (4,)
    with pytest.raises(WrongUse, match="have no known shape") as error:
        made(nets, "Silent")
    assert "--latent 100" in error.value.hint
    with pytest.raises(NDError, match=r"fails on latents \(16, 5\)"):
        made(nets, "Silent", latent=(5,))


def test_given_latents_are_used_in_their_order(nets: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 4))
    np.save(tmp_path / "z.npy", values)
    given = read_latents(tmp_path / "z.npy")
    generator = made(nets, "Base", given=given)
    np.testing.assert_array_equal(generator.latents.of([5, 1]), values[[5, 1]].astype(np.float32))
    path = tmp_path / "s.nd.h5"
    chosen = options(nets, "Base", latents=tmp_path / "z.npy", samples=0)
    dissect_to_store(chosen, Console(), output=path)
    with Store(path) as store:
        assert store.provenance["data"]["images"] == 6
    with pytest.raises(WrongUse, match="there are 6 latents, and --samples asks for 7"):
        dissect_to_store(replace(chosen, samples=7), Console(), output=path, force=True)
    np.save(tmp_path / "z.npy", values + 1)
    with (
        pytest.raises(WrongUse, match="cannot be made again: their latents have changed"),
        open_generated(GeneratorRequest(path), Console()),
    ):
        pass


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("text", "holds no latents"),
        ("objects", "holds no latents"),
        ("huge", "holds no latents"),
        ("integers", "an array"),
        ("packed", "it is no single array"),
        ("nan", "no numbers"),
        ("none", "holds no latents"),
    ],
)
def test_files_that_hold_no_latents_are_refused(tmp_path: Path, form: str, what: str) -> None:
    path = tmp_path / "z.npy"
    if form == "text":
        path.write_text("1 2 3")
    elif form == "objects":
        np.save(path, np.array([[print]], object), allow_pickle=True)
    elif form == "huge":
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 100), }".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"0" * 400)
    elif form == "integers":
        np.save(path, np.zeros((3, 4), int))
    elif form == "packed":
        with path.open("wb") as file:
            np.savez(file, z=np.zeros((3, 4)))
    elif form == "nan":
        np.save(path, np.array([[1.0, np.nan]]))
    with pytest.raises(NDError, match=what):
        read_latents(path)


def test_given_latents_must_fit(nets: Path) -> None:
    with pytest.raises(WrongUse, match=r"takes latents shape \(N, 4\), those given are shape \(N, 5\)"):
        made(nets, "Base", given=np.zeros((3, 5), np.float32))


# Classes


def test_a_conditional_generator_draws_the_class_that_is_named(nets: Path) -> None:
    for text, channel in (("2", 2), ("green", 1)):
        generator = made(nets, "Conditional", class_of=text)
        assert generator.latents.shape == (5,)
        assert (drawn(generator, [0, 3]).mean((0, 2, 3)).argmax()) == channel
    generator = made(nets, "Conditional", class_of="random")
    numbers = generator.latents.of(range(40))[:, -1]
    assert set(numbers) == {0, 1, 2}
    np.testing.assert_array_equal(drawn(generator, list(range(40))).mean((2, 3)).argmax(1), numbers)
    again = made(nets, "Conditional", given=generator.latents.of(range(40)))
    np.testing.assert_array_equal(drawn(again, [3, 4]), drawn(generator, [3, 4]))


def test_classes_that_are_none_are_refused(nets: Path) -> None:
    for text, what in (("3", "has no class 3: it has 3"), ("gren", "has no class 'gren'"), ("-1", "has no class '-1'")):
        with pytest.raises(WrongUse, match=what):
            made(nets, "Conditional", class_of=text)
    with pytest.raises(WrongUse, match="draws pictures of classes"):
        made(nets, "Conditional")
    with pytest.raises(WrongUse, match="takes no class"):
        made(nets, "Base", class_of="1")


def test_a_conditional_generator_is_dissected(nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.nd.h5"
    dissect_to_store(options(nets, "Conditional", class_of="random"), Console(), output=path)
    with open_generated(GeneratorRequest(path), Console()) as generated:
        assert generated.pictures(generated.network.module(generated.inputs([1, 2]))).shape == (2, 3, 8, 8)


# Photographs


def write_photographs(folder: Path, sides: list[tuple[int, int]]) -> Path:
    rng = np.random.default_rng(0)
    for n, (height, width) in enumerate(sides):
        path = folder / ("here", "there")[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return folder


def test_photographs_are_encoded_and_their_pictures_are_called_by_their_names(nets: Path, tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", [(8, 12)] * 5)
    chosen = options(nets, "Autoencoder", encode=str(photographs), samples=0, batch_size=2)
    encoded = encode_photographs(chosen, load_network(f"{nets}:Autoencoder"), CPU, Console())
    image = torch.from_numpy(np.asarray(Image.open(photographs / "here" / "0.png")).copy()).permute(2, 0, 1) / 255
    expected = torch.nn.functional.avg_pool2d(image[None], 4)[0].numpy()
    at = encoded.names.index("here/0.png")
    np.testing.assert_allclose(encoded.latents[at], expected, atol=1e-6)
    assert encoded.latents.shape == (5, 3, 2, 3)
    path = tmp_path / "s.nd.h5"
    dissect_to_store(chosen, Console(), output=path)
    with Store(path) as store:
        assert store.provenance["data"]["images"] == 5
        assert store.images.read(0).name in encoded.names
    with open_generated(GeneratorRequest(path), Console()) as generated:
        assert generated.generator.size == (8, 12)


def test_photographs_that_do_not_suit_are_refused_with_what_to_do(nets: Path, tmp_path: Path) -> None:
    several = write_photographs(tmp_path / "several", [(8, 12), (12, 8)])
    odd = write_photographs(tmp_path / "odd", [(9, 9)] * 2)
    chosen = options(nets, "Autoencoder", encode=str(several), samples=0)

    def encode(chosen: Options, **load: object) -> tuple[int, ...]:
        return encode_photographs(chosen, load_network(chosen.network, **load), CPU, Console()).latents.shape

    with pytest.raises(WrongUse, match=r"at several sizes: .* at 8 x 12, .* at 12 x 8") as error:
        encode(chosen)
    assert "--size" in error.value.hint
    with pytest.raises(NDError, match="sides must be divisible by 4") as failed:
        encode(replace(chosen, encode=str(odd)))
    assert "--size" in failed.value.hint
    assert encode(replace(chosen, encode=str(odd)), size=(8, 8)) == (2, 3, 2, 2)
    with pytest.raises(WrongUse, match="has no encoder"):
        encode(replace(chosen, network=f"{nets}:Base"))
