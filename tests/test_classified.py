"""A network, its classes and images of them, opened for experiments on effects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from class_factory import write_folders, write_labelled, write_network
from PIL import Image

from ndissect.engine.data.class_images import labels_of_data
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.experiments.classified import Classified, EffectRequest, open_classified
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.output_names import class_names_of
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.effects import Classes
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store

CPU = Options(device="cpu")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real networks of shared/data are not here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.py, labelled data, and images in folders of classes."""
    folder = tmp_path_factory.mktemp("classes")
    write_network(folder)
    write_labelled(folder / "data")
    write_folders(folder / "images", {"crimson_red": [0, 0], "green": [1], "blue": [2, 2, 0]})
    return folder


def request(folder: Path, factory: str = "named", images: str = "images", **more: object) -> EffectRequest:
    at = str(folder / images)
    return EffectRequest(network=f"{folder / 'net.py'}:{factory}", images=at, options=CPU, **more)  # type: ignore[arg-type]


def on_data(folder: Path, factory: str, data: Path) -> EffectRequest:
    return EffectRequest(network=f"{folder / 'net.py'}:{factory}", options=Options(device="cpu", data=str(data)))


def predictions(c: Classified) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Predictions and classes of all images that are used, by the loop that the module shows."""
    predicted, truth, images = [], [], []
    for batch in c.batches(c.images):
        with torch.no_grad():
            scores = c.scores(c.network.module(c.inputs(batch)))
        assert scores.dtype == torch.float32
        predicted += scores.argmax(1).tolist()
        truth += c.truth_of(batch.images, scores).tolist()
        images += batch.images
    return np.array(predicted), np.array(truth), images


def test_images_in_folders_say_their_class(folder: Path) -> None:
    with open_classified(request(folder), Console()) as c:
        predicted, truth, images = predictions(c)
        assert images == c.images == list(range(6))
        by_name = {name.partition("/")[0]: k for name, k in zip(c.dataset.names, c.truth.tolist(), strict=True)}
        assert by_name == {"crimson_red": 0, "green": 1, "blue": 2}
        assert truth.tolist() == c.truth.tolist()
        assert (predicted != truth).sum() == 1  # a red image lies in blue/
        assert (c.classes.names, c.classes.source) == (("crimson_red-s", "green", "/b/blue"), "the network")
        assert (c.truth_from, c.splits, c.layer.name, c.layer.units) == ("images", ("all",), "units", 3)
        assert c.class_number("Blue") == 2
        assert c.notes == ("no store: units have no labels",)


def test_train_and_val_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/green": [1, 1], "val/green": [1], "val/blue": [2]})
    with open_classified(request(folder, images=str(tmp_path)), Console()) as c:
        assert c.splits == ("train", "val")
        assert [c.splits[n] for n in c.split] == list(c.dataset.splits)
        assert "1 of 3 classes have no image: crimson_red-s" in c.notes


def test_the_images_of_the_data_say_their_class_by_their_labels(folder: Path) -> None:
    with open_classified(on_data(folder, "named", folder / "data"), Console()) as c:
        predicted, truth, images = predictions(c)
        assert images == list(range(1, 9))
        assert predicted.tolist() == truth.tolist() == [n % 3 for n in images]
        assert c.splits == ("train", "val")
        assert "1 of 9 images are of no class of the network, and left out" in c.notes


def test_without_classes_the_prediction_stands_for_them_and_is_told(folder: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, {"loose": [0, 1, 2]})
    for images in (str(tmp_path / "loose"), str(tmp_path / "loose" / "0.png")):
        with open_classified(request(folder, images=images), Console()) as c:
            predicted, truth, _ = predictions(c)
            assert c.truth_from == "prediction"
            assert truth.tolist() == predicted.tolist()
            assert any("its own prediction is taken for the class" in note for note in c.notes)


def test_names_come_from_a_file_or_are_numbers(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("rot\nblau\n", encoding="utf-8")
    images = str(write_folders(tmp_path / "i", {"Rot": [0], "2": [2]}))
    with open_classified(request(folder, images=images, classes=tmp_path / "three.txt"), Console()) as c:
        assert (c.classes.names, c.classes.source) == (("rot", "grün", "blau"), "three.txt")
        assert c.truth.tolist() == [2, 0]
    by_options = Options(network=f"{folder / 'net.py'}:named", classes=tmp_path / "three.txt")
    network = network_loader(by_options)()
    assert class_names_of(network) == class_names_of(network, outputs=3) == c.classes
    own = load_network(f"{folder / 'net.py'}:named")
    assert class_names_of(own, outputs=2).names == ("0", "1")
    assert class_names_of(load_network(f"{folder / 'net.py'}:network")).names == ()
    with pytest.raises(WrongUse, match="there is no file"):
        network_loader(Options(classes=tmp_path / "gone"))
    with (
        pytest.raises(WrongUse, match=r"two\.txt names 2 outputs, .*net\.py:named has 3"),
        open_classified(request(folder, classes=tmp_path / "two.txt"), Console()),
    ):
        pass
    numbered = str(write_folders(tmp_path / "n", {"0": [0], "002": [2]}))
    with open_classified(request(folder, "network", images=numbered), Console()) as c:
        assert (c.classes.names, c.classes.source) == (("0", "1", "2"), "their numbers")
        assert c.truth.tolist() == [0, 2]


def test_a_dissection_keeps_the_names_that_a_file_gives(folder: Path, tmp_path: Path) -> None:
    options = Options(
        network=f"{folder / 'net.py'}:named",
        data=str(folder / "data"),
        layers=("units",),
        device="cpu",
        quantile="0.2",
        classes=tmp_path / "names.txt",
    )
    (tmp_path / "names.txt").write_text("rot\nblau\n", encoding="utf-8")
    with pytest.raises(WrongUse, match=r"names\.txt names 2 outputs, .*net\.py:named has 3"):
        dissect_to_store(options, Console(), output=tmp_path / "s.nd.h5")
    (tmp_path / "names.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")
    dissect_to_store(options, Console(), output=tmp_path / "s.nd.h5")
    with Store(tmp_path / "s.nd.h5") as store:
        assert store.classes == Classes(("rot", "grün", "blau"), "names.txt")
    with open_classified(EffectRequest(store=tmp_path / "s.nd.h5", options=CPU), Console()) as c:
        assert c.classes.source == "names.txt"


def test_folders_name_the_outputs_in_their_order_where_nothing_else_does(folder: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, {"a": [0], "b": [1], "c": [2]})
    with open_classified(request(folder, "network", images=str(tmp_path)), Console()) as c:
        assert c.classes.names == ("a", "b", "c")
        assert c.classes.source.endswith("in their order")
        assert c.truth.tolist() == [0, 1, 2]
        assert any("are taken in their order" in note for note in c.notes)


def test_labels_name_the_outputs_where_the_network_agrees(folder: Path, tmp_path: Path) -> None:
    right, wrong = write_labelled(tmp_path / "right", images=30), tmp_path / "wrong"
    write_labelled(wrong, ("a", "b", "c"), images=30)
    for path in sorted((wrong / "images").rglob("*")):  # colours that have nothing to do with the labels
        if path.is_file() and Image.open(path).size == (16, 16):
            Image.fromarray(np.full((16, 16, 3), (200, 0, 0), np.uint8)).save(path)
    with open_classified(on_data(folder, "network", right), Console()) as c:
        assert c.classes.names == ("crimson red-s", "green", "blue-s")
        assert c.truth_from == "images"
        assert any("the network says so of 29 of 29 images" in note for note in c.notes)
    with open_classified(on_data(folder, "network", wrong), Console()) as c:
        assert c.classes.source == "their numbers"
        assert c.truth_from == "prediction"


def test_what_gives_no_class_scores_or_fails_is_refused(folder: Path) -> None:
    for factory, said in (("of_pixels", "of_pixels .* no class scores"), ("failing", "the network failing fails")):
        with pytest.raises(NDError, match=said), open_classified(request(folder, factory), Console()):
            pass


def test_unreadable_images_raise_or_are_skipped(folder: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, {"green": [1, 1], "blue": [2]})
    (tmp_path / "green" / "1.png").write_bytes(b"damaged")
    with (
        open_classified(request(folder, images=str(tmp_path)), Console()) as c,
        pytest.raises(NDError, match=r"1\.png"),
    ):
        predictions(c)
    skipping = EffectRequest(
        network=f"{folder / 'net.py'}:named", images=str(tmp_path), options=Options(device="cpu", skip_bad=True)
    )
    with open_classified(skipping, Console()) as c:
        assert len(predictions(c)[2]) == 2


def test_everything_comes_from_the_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    options = Options(network="net.py:named", data="data", layers=("units",), device="cpu", quantile="0.2")
    dissect_to_store(options, Console(), output=tmp_path / "s.nd.h5")
    monkeypatch.chdir(tmp_path)
    asked = EffectRequest(store=tmp_path / "s.nd.h5", options=CPU)
    with open_classified(asked, Console()) as c:
        predicted, truth, _ = predictions(c)
        assert (c.layer.name, c.store, c.notes[0]) == (
            "units",
            tmp_path / "s.nd.h5",
            "1 of 9 images are of no class of the network, and left out",
        )
        assert predicted.tolist() == truth.tolist()
    with open_classified(EffectRequest(store=asked.store, options=CPU, layer="scores"), Console()) as c:
        assert any("s.nd.h5 has no labels of scores: it has units" in note for note in c.notes)
    with (
        pytest.raises(WrongUse, match="no layer 'unit'"),
        open_classified(EffectRequest(store=asked.store, layer="unit"), Console()),
    ):
        pass
    with (
        pytest.raises(WrongUse, match="other weights"),
        open_classified(EffectRequest(store=asked.store, network="demo", options=CPU), Console()),
    ):
        pass


def test_processes_that_decode_read_no_labels(folder: Path) -> None:
    images = labels_of_data(open_dataset(folder / "data")).dataset
    loader = Loader(images, make_protocol("netdissect"), 2, decode_in="processes")
    (batch,) = loader.batches(range(9), 9, skip_bad=False)
    assert torch.equal(batch.pixels[0][4], torch.from_numpy(images.read(4).image.copy()).permute(2, 0, 1))
    assert not batch.labels.pixels.any()


def test_a_network_must_be_named(folder: Path) -> None:
    named = Options(network=f"{folder / 'net.py'}:named", device="cpu")
    with open_classified(EffectRequest(options=named, images=str(folder / "images")), Console()) as c:
        assert c.network.spec == named.network
    with pytest.raises(WrongUse, match="no network is named"), open_classified(EffectRequest(), Console()):
        pass


@needs_shared
def test_a_cifar_network_on_images_of_its_classes(tmp_path: Path) -> None:
    data = np.load(SHARED / "cifar10_test500" / "cifar10_test500.npz")
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for n, (pixels, k) in enumerate(zip(data["images"], data["labels"], strict=True)):
        (tmp_path / names[k]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / names[k] / f"{n}.png")
    asked = EffectRequest(network=f"{SHARED / 'networks.py'}:cifar10_resnet20", images=str(tmp_path), options=CPU)
    with open_classified(asked, Console()) as c:
        predicted, truth, _ = predictions(c)
        assert c.classes.names == names
        assert (predicted == truth).mean() > 0.75


@needs_shared
def test_a_network_of_imagenet_by_its_names(tmp_path: Path) -> None:
    write_folders(tmp_path, {"goldfish": [0], "tinca_tinca": [1]})
    asked = EffectRequest(
        network=f"{SHARED / 'networks.py'}:mobilenet_v2_imagenet",
        images=str(tmp_path),
        classes=SHARED / "weights" / "imagenet_labels.txt",
        options=CPU,
    )
    with open_classified(asked, Console()) as c:
        assert sorted(c.truth.tolist()) == [0, 1]
        assert any("998 of 1,000 classes have no image" in note for note in c.notes)
