"""What a generator takes and what it gives: latents, classes, noise, ranges; and what is refused, with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import nd
from generator_trials import CPU, PLANTED, drawn, made, options, written

from ndissect.engine.experiments.generated import GeneratorRequest, open_generated
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.generators import LatentInput, carried
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("nets"))


# Pictures


@pytest.mark.parametrize(
    ("name", "span", "said"),
    [
        ("Base", (0, 1), "by its values"),
        ("Signed", (-1, 1), "by its values"),
        ("Declared", (0, 255), "as it declares"),
        ("Grey", (0, 1), "by its values"),
    ],
)
def test_the_range_of_values_is_declared_or_found_and_said(
    nets: Path, name: str, span: tuple[float, float], said: str
) -> None:
    generator = made(nets, name)
    assert generator.span == span
    assert said in generator.span_from
    assert any(said in note for note in generator.network.notes)
    with torch.no_grad():
        output = generator.network.module(generator.inputs([0, 5], CPU))
    expected = ((output - span[0]) / (span[1] - span[0]) * 255).round().expand(-1, 3, -1, -1)
    np.testing.assert_allclose(drawn(generator, [0, 5]).astype(int), expected.numpy(), atol=1)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Tuple", "it returns a tuple"),
        ("Dict", "it returns a dict"),
        ("Nan", r"values that are no numbers \(NaN or infinite\)"),
        ("Two", r"it returns shape \(N, 2, 8, 8\)"),
        ("Fewer", "draws 1 pictures of 16 samples"),
    ],
)
def test_what_is_no_picture_is_refused(nets: Path, name: str, what: str) -> None:
    with pytest.raises(NDError, match=what):
        made(nets, name)


def test_pictures_of_several_sizes_are_refused(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(NDError, match="draws pictures of several sizes: 8 x 8, then 6 x 8"):
        dissect_to_store(options(nets, "Several"), Console(), output=tmp_path / "s.nd.h5")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Dropping", "does not draw the same picture of the same latents: drawn again"),
        ("Batched", "does not draw the same picture of the same latents: drawn beside another sample"),
        ("DroppingBefore", "the layer layer does not compute the same twice.*dropout is on"),
        ("BatchedBefore", "the layer layer computes maps that depend on the other images of a batch"),
    ],
)
def test_what_depends_on_more_than_its_latents_is_refused(nets: Path, tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(NDError, match=what) as error:
        dissect_to_store(options(nets, name), Console(), output=tmp_path / "s.nd.h5")
    assert "--anyway" in error.value.hint


@pytest.mark.parametrize("samples", [1, 9])
def test_a_single_sample_is_examined_as_many_are(nets: Path, tmp_path: Path, samples: int) -> None:
    """Its neighbour has the negative latents, not the negative of the bytes that carry them."""
    prepare = LatentInput(shape=(4,))
    latents = np.array([[0.0, 1.0, -2.5, 1e-38]], np.float32)
    images = torch.from_numpy(carried(latents)).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(prepare.apply(prepare.opposite(images)).numpy(), -latents)
    dissect_to_store(options(nets, "Base", samples=samples), Console(), output=tmp_path / "s.nd.h5")


def test_noise_is_the_same_for_every_sample_whatever_its_batch(nets: Path, tmp_path: Path) -> None:
    generator = made(nets, "Noisy")
    assert any("it draws noise while it runs (5 times)" in note for note in generator.network.notes)
    many = drawn(generator, [0, 1, 2, 3])
    np.testing.assert_array_equal(many[2:3], drawn(generator, [2]))
    np.testing.assert_array_equal(drawn(made(nets, "Noisy"), [1, 2]), many[1:3])
    quiet = drawn(made(nets, "Base"), [0, 1, 2, 3])
    assert np.abs(many.astype(int) - quiet).mean() > 10
    state = torch.get_rng_state()
    drawn(generator, [0])
    assert torch.equal(torch.get_rng_state(), state)
    dissect_to_store(options(nets, "Noisy"), Console(), output=tmp_path / "s.nd.h5")


# Layers, labels, options


def test_layers_without_maps_are_refused_with_those_that_have_some(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="the layer mapping has one value a sample") as error:
        dissect_to_store(options(nets, "Base", layers=("mapping",)), Console(), output=tmp_path / "s.nd.h5")
    assert error.value.hint == "layers with maps: layer"
    dissect_to_store(options(nets, "Base", layers=("*",)), Console(), output=tmp_path / "s.nd.h5")
    with Store(tmp_path / "s.nd.h5") as store:
        assert store.layer_names == ("layer",)


def test_a_labeller_that_finds_nothing_is_refused(nets: Path, tmp_path: Path) -> None:
    told: list[str] = []

    class Listening(Console):
        def tell(self, text: str) -> None:
            told.append(text)

    with pytest.raises(NDError, match="Blind finds none of its 2 concepts in 9 samples: not a single pixel"):
        dissect_to_store(options(nets, "Base", labeller=f"{nets}:Blind"), Console(), output=tmp_path / "s.nd.h5")
    assert not (tmp_path / "s.nd.h5").exists()
    dissect_to_store(options(nets, "Base"), Listening(), output=tmp_path / "s.nd.h5")
    assert any("of the samples' pixels, 2 of 2 concepts" in text for text in told)


def test_a_generator_needs_a_labeller_and_no_data(nets: Path, tmp_path: Path) -> None:
    for more, what in (
        ({"labeller": None}, "nothing labels the pictures"),
        ({"data": "demo", "generator": True}, "draws its images itself: --data is not for it"),
        ({"network": f"{nets}:Silent", "data": "demo"}, "--samples is for a generator"),
        ({"latent": "4", "latents": tmp_path / "z.npy"}, "holds no latents|there is no file"),
    ):
        with pytest.raises(NDError, match=what):
            dissect_to_store(options(nets, "Base", **more), Console(), output=tmp_path / "s.nd.h5")


def test_a_store_whose_labeller_has_changed_is_refused(nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.nd.h5"
    dissect_to_store(options(nets, "Base", labeller=f"{PLANTED}:labeller"), Console(), output=path)
    other = Options(labeller=f"{nets}:Labeller")
    with pytest.raises(WrongUse), open_generated(GeneratorRequest(path, options=other), Console()):
        pass


def test_nd_layers_lists_those_of_a_generator(nets: Path) -> None:
    listed = nd("layers", f"{nets}:said", "--latent", "4", "--json", folder=nets.parent)
    assert listed.returncode == 0, listed.stderr
    layers = {layer["layer"]: layer for layer in json.loads(listed.stdout)["layers"]}
    assert layers["layer"]["map"] == [4, 4]
    assert "pictures of 8 x 8" in listed.stderr
