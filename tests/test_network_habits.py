"""Ordinary code in its many habits: each network is dissected, or listed as what cannot be, or refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dissecting import run, write_data

from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.layers import LayerInfo, list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.store.errors import NDError

NETS = Path(__file__).with_name("habits.py")
SIZE = (32, 32)


@pytest.fixture(autouse=True)
def _plain_python() -> Any:
    """Networks that had something compiled leave torch as it was for the next test."""
    yield
    torch.compiler.set_stance("default")


def listed(factory: str, **options: Any) -> tuple[Network, dict[str, LayerInfo]]:
    network = load_network(f"{NETS}:{factory}", **options)
    return network, {i.name: i for i in list_layers(network, SIZE)}


def refused(factory: str, **options: Any) -> NDError:
    with pytest.raises(NDError) as caught:
        listed(factory, **options)
    assert "a defect of nd" not in str(caught.value)
    return caught.value


def maps_of(network: Network, layer: str) -> torch.Tensor:
    images = torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with Capture(network.module, [layer]) as capture:
        for _ in range(2):  # the second pass ends after the layer
            capture.run(network.preprocess.apply(images))
            maps = capture[layer].clone()
    return maps


@pytest.mark.parametrize(
    ("factory", "layer"),
    [
        ("returns_nothing", "conv"),
        ("takes_no_mode", "conv"),
        ("inference_forward", "conv"),
        ("made_in_inference", "conv"),
        ("scripted_child", "conv"),
        ("scripted_child", "inner"),
        ("traced_child", "inner"),
        ("compiled_child", "conv"),
        ("compiled_child", "inner"),
        ("compiled_forward", "conv"),
        ("compiled_whole", "conv"),
        ("compiled_in_place", "conv"),
        ("weight_normed", "conv"),
        ("weight_normed_as_before", "conv"),
        ("spectral_normed", "conv"),
        ("spectral_normed_as_before", "conv"),
        ("dynamically_quantised", "conv"),
        ("resizes_its_buffer", "conv"),
        ("makes_layers_late", "conv"),
        ("takes_more", "conv"),
        ("returns_none", "conv"),
        ("refuses_copies", "conv"),
        ("made_on_gpu_if_any", "conv"),
        ("double", "conv"),
        ("double_by_default", "conv"),
        ("halves", "conv"),
        ("brain_floats", "conv"),
        ("frozen", "conv"),
        ("traced_by_fx", "conv"),
        ("of_parameters_alone", "inner"),
        ("reused", "conv"),
        ("grey", "conv"),
        ("grey_with_transform", "conv"),
        ("rgbd_with_transform", "conv"),
        ("no_grad_forward", "conv"),
        ("needs_grad", "conv"),
        ("autocast_forward", "conv"),
        ("channels_last", "conv"),
        ("prints", "conv"),
        ("hooked_already", "conv"),
        ("slots", "conv"),
        ("tied", "conv"),
        ("checkpointed", "conv"),
    ],
)
def test_is_dissected(factory: str, layer: str) -> None:
    network, infos = listed(factory)
    assert infos[layer].dissectable, infos[layer].reason
    assert not network.module.training
    maps = maps_of(network, layer)
    assert maps.shape == (3, infos[layer].units, *(infos[layer].map_size or ()))
    maps.add_(1)  # as tensors of inference mode cannot be


@pytest.mark.parametrize(
    ("factory", "words", "hint"),
    [
        ("scripted_whole", "TorchScript", "Python module"),
        ("exported_program", "exported program", "Python module"),
        ("exported_module", "exported program", "Python module"),
        ("on_meta", "meta device", "on the CPU"),
        ("half_on_meta", "meta device", "on the CPU"),
        ("on_meta_by_default", "meta device", "on the CPU"),
        ("lazy", "lazy layers", "in the factory"),
        ("only_on_gpu", "only_on_gpu failed", "no GPU"),
        ("gpu_in_forward", "asks for a GPU", "device of its input"),
        ("weights_alone", "OrderedDict", "These are weights"),
        ("rgbd", "takes 4 channels", "transform"),
        ("two_channels", "takes 2 channels", "transform"),
        ("two_inputs", "takes 2 inputs (image, depth)", "wrapper"),
        ("by_name_alone", "by name alone (image)", "wrapper"),
        ("generator", "a vector of 64 numbers", "see an image"),
        ("generator_of_columns", "a vector of 64 numbers", "see an image"),
        ("video", "videos or volumes", "see an image"),
        ("text", "numbers of words", "see an image"),
        ("doubles_in_forward", "makes float64 values", "dtype of its input"),
        ("list_of_images", "takes a list of images", "wrapper"),
        ("fixed_size", "and does of 28 x 28", "--size 28"),
        ("asserts_its_size", "and does of 64 x 64", "--size 64"),
        ("takes_a_batch", "KeyError: 'image'", "wrap it"),
        ("fails", "ValueError: no weights today", "own code"),
    ],
)
def test_is_refused_in_words(factory: str, words: str, hint: str) -> None:
    error = refused(factory)
    assert words in error.message
    assert hint in error.hint
    assert "--size" not in error.hint or "size" in factory


@pytest.mark.parametrize(
    "factory",
    ["returns_nothing", "inference_forward", "scripted_child", "compiled_child", "weight_normed", "double", "grey"],
)
def test_is_dissected_from_images_to_labels(factory: str, tmp_path: Path) -> None:
    outcome = run(f"{NETS}:{factory}", write_data(tmp_path / "data"), ["conv"])
    assert outcome.dissection is not None
    (layer,) = outcome.dissection.layers
    assert (layer.name, layer.map_size) == ("conv", (16, 16))
    assert np.isfinite(layer.best.iou).all()


def test_what_runs_inside_of_torchscript_is_listed_as_what_cannot_be_watched() -> None:
    _, infos = listed("scripted_child")
    inside = [i for name, i in infos.items() if name.startswith("inner.")]
    assert inside
    for info in inside:
        assert info.reason == "runs inside of TorchScript, where it cannot be watched"


def test_quantised_maps_are_listed_as_what_they_are() -> None:
    _, infos = listed("quantised")
    assert "quint8" in infos["conv"].reason
    assert infos["dequant"].dissectable


def test_what_runs_in_float32_is_told() -> None:
    assert "double precision" in listed("double")[0].notes[0]
    assert "half precision" in listed("halves")[0].notes[0]
    assert "luminance" in listed("grey")[0].notes[0]


def test_what_a_file_sets_for_all_of_torch_holds_for_it_alone() -> None:
    network, _ = listed("double_by_default")
    assert torch.get_default_dtype() == torch.float32
    refused("on_meta_by_default")
    assert torch.zeros(1).device.type == "cpu"
    assert network.module.conv.weight.dtype == torch.float32


def test_shared_weights_that_were_made_in_inference_mode_stay_shared() -> None:
    network, _ = listed("made_in_inference")
    assert network.module.again is network.module.conv
    assert not network.module.conv.weight.is_inference()
    assert network.module.tied.weight is network.module.conv.weight


def test_the_size_of_a_network_with_a_transform_is_changed_there() -> None:
    error = refused("fixed_size_with_transform")
    assert "and does of 28 x 28" in error.message
    assert "transform" in error.hint and "--size" not in error.hint


def test_a_network_of_a_fixed_size_is_dissected_at_it() -> None:
    assert listed("fixed_size", size=(28, 28))[1]["conv"].dissectable
