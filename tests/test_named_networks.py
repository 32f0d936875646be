"""Networks that libraries build by name: timm's and transformers', from their hub, from folders, without weights."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.timm_networks import imagenet_names
from ndissect.store.errors import NDError, WrongUse

IMAGE = torch.randint(0, 256, (1, 3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def refused(spec: str, kind: type[NDError] = NDError, **options: Any) -> NDError:
    with pytest.raises(kind) as caught:
        load_network(spec, **options)
    assert "\n" not in caught.value.message
    return caught.value


# ---- torchvision


@pytest.mark.parametrize("name", ["resnet18", "lraspp_mobilenet_v3_large", "quantized_shufflenet_v2_x0_5"])
def test_layers_are_listed_without_a_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: pytest.fail("a download"))
    listed = load_network(f"torchvision:{name}", layers_only=True, size=(64, 64))
    assert listed.digest == ""
    assert len(list_layers(listed, (64, 64))) > 20
    with pytest.raises(BaseException, match="a download"):
        load_network(f"torchvision:{name}")


def test_listed_layers_are_those_of_the_network_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's weights of a segmentation network bring a second head, which none without weights has."""
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: pytest.fail("a download"))
    trained = load_network("torchvision:fcn_resnet50", layers_only=True).module
    random = load_network("torchvision:fcn_resnet50@none").module
    assert {n for n, _ in trained.named_modules()} - {n for n, _ in random.named_modules()} >= {"aux_classifier.0"}
    assert torch.nn.Linear(1, 1).load_state_dict(torch.nn.Linear(1, 1).state_dict()).missing_keys == []


# ---- timm


@pytest.fixture(scope="module")
def timm() -> Any:
    if not any(distribution.name == "timm" for distribution in importlib.metadata.distributions()):
        pytest.skip("the extra timm is not installed")
    return importlib.import_module("timm")


def test_a_network_of_timm_is_the_same_at_each_run_and_prepared_as_its_config_says(timm: Any) -> None:
    first, second = (load_network("timm:resnet10t@none") for _ in range(2))
    assert first.digest == second.digest
    assert (first.name, first.origin["kind"], first.origin["weights"]) == ("resnet10t", "timm", "none")
    preprocess = first.preprocess
    assert (preprocess.size, preprocess.interpolation) == ((176, 176), "bicubic")
    assert preprocess.mean == (0.485, 0.456, 0.406)
    assert preprocess.apply(IMAGE).shape == (1, 3, 176, 176)
    assert "without crop" in str(preprocess.describe()["source"])


def test_networks_of_imagenet_have_its_names(timm: Any) -> None:
    names = imagenet_names(timm, timm.create_model("resnet18"))
    assert (len(names), names[0], names[999]) == (
        1000,
        "tench, Tinca tinca",
        "toilet tissue, toilet paper, bathroom tissue",
    )
    assert imagenet_names(timm, timm.create_model("resnet18", num_classes=10)) == ()
    assert load_network("timm:resnet18@none").classes == ()


def test_names_and_tags_with_a_typing_error_are_answered_with_the_nearest(timm: Any) -> None:
    assert "resnet50" in refused("timm:resnet5O", WrongUse).hint
    error = refused("timm:resnet10t@c4_in1k", WrongUse)
    assert error.hint == "It has: c3_in1k, none"
    assert refused("timm:resnet10t.c4_in1k", WrongUse).message == error.message
    assert (
        "no trained weights"
        in refused("timm:test_convnext3_untrained".replace("test_convnext3_untrained", untrained(timm))).message
    )


def untrained(timm: Any) -> str:
    """A network of which timm has no weights."""
    with_weights = {name.partition(".")[0] for name in timm.list_pretrained()}
    return next(name for name in timm.list_models("resnet*") if name not in with_weights)


def test_a_network_of_a_fixed_size_is_made_for_the_size_that_is_given(timm: Any) -> None:
    network = load_network("timm:test_vit@none", size=(64, 96))
    with torch.no_grad():
        assert network.module(network.preprocess.apply(IMAGE)).shape[0] == 1


def test_layers_of_timm_are_listed_without_a_download(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert any(i.dissectable for i in list_layers(load_network("timm:resnet10t", layers_only=True, size=(64, 64))))


def saved_by_timm(timm: Any, folder: Path, **options: Any) -> Path:
    from timm.models import save_for_hf

    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=3, **options)
    save_for_hf(network, str(folder), model_config={"label_names": ["sky", "road", "car"]}, safe_serialization=True)
    return folder


def test_a_folder_that_timm_saved(timm: Any, tmp_path: Path) -> None:
    folder = saved_by_timm(timm, tmp_path / "my@network")
    network = load_network(f"timm:local-dir:{folder}")
    assert network.name == "my_network"
    assert network.classes == ("sky", "road", "car")
    torch.manual_seed(5)
    assert torch.equal(network.module.conv1[0].weight, timm.create_model("test_resnet", num_classes=3).conv1[0].weight)
    other = load_network(f"timm:local-dir:{folder}@none")
    assert (other.origin["weights"], other.classes) == ("none", ())
    assert other.digest != network.digest


def test_folders_that_hold_no_network(timm: Any, tmp_path: Path) -> None:
    assert "not there" in refused(f"timm:local-dir:{tmp_path / 'gone'}", WrongUse).message
    assert "no config.json" in refused(f"timm:local-dir:{tmp_path}", WrongUse).message
    folder = saved_by_timm(timm, tmp_path / "net")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(f"timm:local-dir:{folder}").hint
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "could not be loaded" in refused(f"timm:local-dir:{folder}").message


def test_a_pickle_in_a_folder_of_timm_is_not_executed(timm: Any, tmp_path: Path) -> None:
    folder = saved_by_timm(timm, tmp_path / "net")
    (folder / "model.safetensors").unlink()

    class Opens:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "executed").touch, ())

    torch.save({"state_dict": Opens()}, folder / "pytorch_model.bin")
    refused(f"timm:local-dir:{folder}")
    assert not (tmp_path / "executed").exists()


def test_one_channel_is_the_luminance(timm: Any, tmp_path: Path) -> None:
    network = load_network(
        f"timm:local-dir:{saved_by_timm(timm, tmp_path / 'grey', in_chans=1)}", mean=(0.5,), std=(0.5,)
    )
    grey = network.preprocess.apply(IMAGE)
    assert grey.shape == (1, 1, 160, 160)
    assert -1 <= grey.min() and grey.max() <= 1


def test_own_weights_for_a_network_of_timm_need_no_download(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    state = load_network("timm:resnet10t@none").module.state_dict()
    state["fc.bias"].fill_(0.25)
    torch.save(state, tmp_path / "w.pt")
    assert load_network("timm:resnet10t", weights=tmp_path / "w.pt").module.fc.bias[0] == 0.25


# ---- transformers


@pytest.fixture(scope="module")
def transformers() -> Any:
    if not any(distribution.name == "transformers" for distribution in importlib.metadata.distributions()):
        pytest.skip("the extra transformers is not installed")
    return importlib.import_module("transformers")


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}


TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}


def saved_by_transformers(transformers: Any, folder: Path, kind: str = "ViTForImageClassification") -> Path:
    torch.manual_seed(5)
    names = {0: "cat", 1: "dog"}
    config = transformers.ViTConfig(**TINY, id2label=names, label2id={v: k for k, v in names.items()})
    getattr(transformers, kind)(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5, 0.4, 0.3]).save_pretrained(folder)
    return folder


def test_a_folder_that_transformers_saved(transformers: Any, tmp_path: Path) -> None:
    folder = saved_by_transformers(transformers, tmp_path / "vit")
    network = load_network(f"hf:{folder}")
    assert (network.name, network.classes, network.notes) == ("vit", ("cat", "dog"), ())
    assert network.preprocess.size == (32, 32)
    assert network.preprocess.mean == pytest.approx((0.5, 0.4, 0.3))
    assert network.preprocess.std == pytest.approx((0.5, 0.5, 0.5))
    with torch.no_grad():
        assert network.module(network.preprocess.apply(IMAGE)).logits.shape == (1, 2)
    trained = transformers.ViTForImageClassification.from_pretrained(folder)
    assert torch.equal(network.module.classifier.weight, trained.classifier.weight)
    random = load_network(f"hf:{folder}@none")
    assert random.digest == load_network(f"hf:{folder}@none").digest != network.digest
    assert random.classes == ()
    assert load_network(f"hf:{folder}", layers_only=True).digest == ""


def test_a_network_without_a_head_has_no_classes(transformers: Any, tmp_path: Path) -> None:
    network = load_network(f"hf:{saved_by_transformers(transformers, tmp_path / 'vit', 'ViTModel')}")
    assert type(network.module).__name__ == "ViTModel"
    assert network.classes == ()


def test_the_image_half_of_a_network_of_images_and_text(transformers: Any, tmp_path: Path) -> None:
    config = transformers.CLIPConfig(vision_config=dict(TINY), text_config=TEXT)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    network = load_network(f"hf:{tmp_path / 'clip'}", size=(32, 32))
    assert type(network.module).__name__ == "CLIPVisionModel"
    assert network.left_out == ()
    random = load_network(f"hf:{tmp_path / 'clip'}@none", size=(32, 32))
    assert random.module.state_dict().keys() == network.module.state_dict().keys()


def test_networks_of_text_are_refused(transformers: Any, tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path / "bert")
    assert "takes no images" in refused(f"hf:{tmp_path / 'bert'}").message


def test_weights_that_the_files_lack_are_told(transformers: Any, tmp_path: Path) -> None:
    folder = saved_by_transformers(transformers, tmp_path / "vit", "ViTModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForImageClassification"]}))
    network = load_network(f"hf:{folder}")
    assert {"classifier.weight", "classifier.bias"} <= set(network.left_out)
    assert "are not in its files" in " ".join(network.notes)


@pytest.mark.parametrize(
    ("given", "pixel", "becomes"),
    [
        ({"do_normalize": False}, 51, 0.2),
        ({"do_normalize": False, "do_rescale": False}, 51, 51.0),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 51, -0.6),
        ({"image_mean": [0.1] * 3, "image_std": [0.5] * 3, "do_normalize": True}, 51, 0.2),
    ],
)
def test_pixels_become_what_the_image_processor_makes_of_them(
    transformers: Any, tmp_path: Path, given: dict[str, Any], pixel: int, becomes: float
) -> None:
    folder = saved_by_transformers(transformers, tmp_path / "vit")
    processor = transformers.EfficientNetImageProcessor(size={"height": 48, "width": 32}, include_top=False, **given)
    processor.save_pretrained(folder)
    preprocess = load_network(f"hf:{folder}").preprocess
    images = torch.full((1, 3, 48, 32), pixel, dtype=torch.uint8)
    assert preprocess.size == (48, 32)
    assert preprocess.apply(images).mean() == pytest.approx(becomes, abs=1e-5)
    expected = processor(images=images[0], return_tensors="pt", input_data_format="channels_first")[
        "pixel_values"
    ].float()
    torch.testing.assert_close(preprocess.apply(images), expected, rtol=0, atol=1e-5)


def test_blue_comes_first_where_the_image_processor_says_so(transformers: Any, tmp_path: Path) -> None:
    folder = saved_by_transformers(transformers, tmp_path / "vit")
    size = {"shortest_edge": 48}
    transformers.MobileViTImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    preprocess = load_network(f"hf:{folder}").preprocess
    assert (preprocess.size, preprocess.bgr) == ((32, 32), True)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    assert preprocess.apply(red)[0, :, 0, 0].tolist() == [0, 0, 1]


# ---- the hub, which cannot be reached


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    "spec", ["timm:resnet10t", "timm:hf-hub:timm/resnet10t.c3_in1k", "hf:google/vit-base-patch16-224"]
)
def test_a_hub_that_cannot_be_reached_is_asked_once_and_told_in_one_line(
    spec: str,
    offline: bool,
    timm: Any,
    transformers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    error = refused(spec)
    assert spec in error.message
    assert ("HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached") in error.message
    assert "Load it once where there is a network" in error.hint
    assert caplog.text == ""


@pytest.mark.parametrize("spec", ["timm:resnet18", "hf:google/vit-base-patch16-224"])
def test_an_extra_that_is_not_installed_is_told_with_its_command(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = "timm" if spec.startswith("timm") else "transformers"
    monkeypatch.setitem(sys.modules, library, None)
    assert refused(spec, WrongUse).hint == f"pip install 'ndissect[{library}]'"


@pytest.mark.parametrize("spec", ["timm:resnet18@none", "hf:google/vit-base-patch16-224"])
def test_a_file_of_the_user_that_is_called_like_a_library_is_not_run(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = "timm" if spec.startswith("timm") else "transformers"
    (tmp_path / f"{library}.py").write_text("raise SystemExit('the file was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, library, raising=False)
    error = refused(spec)
    assert f"{tmp_path / library}.py hides" in error.message or "is not installed" in error.message


@pytest.mark.parametrize(("typed", "meant"), [("torchvison", "torchvision"), ("tim", "timm"), ("hff", "hf")])
def test_where_a_network_is_from_with_a_typing_error(typed: str, meant: str) -> None:
    assert refused(f"{typed}:resnet18", WrongUse).hint.startswith(f"Did you mean {meant}:resnet18? ")
    assert "Did you mean" not in refused("mine.networks:resnet18", WrongUse).hint
