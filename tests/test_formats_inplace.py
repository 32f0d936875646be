"""Data sets read in place: which folder is of which format, and the formats that are small."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cli
import numpy as np
import pytest
from formats_factory import (
    SIZE,
    patches,
    save_image,
    save_numbers,
    write_ade20k,
    write_cityscapes,
    write_instances,
    write_panoptic,
    write_scene_parsing,
    write_textures,
    write_voc,
)
from networks_factory import CHANNELS
from PIL import Image

from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.dataset import FolderDataset
from ndissect.engine.data.formats import FORMATS, DataFormat, open_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.info import describe
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.voc import palette_colour
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import iou

VOC = Path(__file__).resolve().parents[2] / "shared" / "data" / "formats" / "voc_labelme"
MAP = patches((1, 0, 0, 8, 8), (2, 8, 8, 20, 30))
STREET = "training/urban/street/ADE_train_00000001"


def write_classes(folder: Path, parts: tuple[str, ...] = ("train", "val")) -> Path:
    for part in parts:
        for name in ("cat", "dog"):
            for i in range(3):
                save_image(folder / part / name / f"{i}.JPEG.jpg")
    return folder


TREES: dict[str, Callable[[Path], Path]] = {
    "ade150": lambda folder: write_scene_parsing(folder, {"training/a": MAP, "validation/b": MAP}),
    "ade20k": lambda folder: write_ade20k(folder, STREET, [MAP], [(1, "a", 0), (2, "b", 0)], ["street"]),
    "coco-instances": lambda folder: write_instances(folder, {"a.jpg": [(1, [[0, 0, 9, 0, 9, 9]])]}),
    "coco-panoptic": lambda folder: write_panoptic(folder, {"a.jpg": MAP}, {1: 1, 2: 18}),
    "voc": lambda folder: write_voc(folder, {"a": MAP}),
    "cityscapes": lambda folder: write_cityscapes(folder, {"train/ulm/a": MAP + 6}),
    "dtd": lambda folder: write_textures(folder, {"dotted/a.jpg": ["dotted"]}, {"train1": ["dotted/a.jpg"]}),
    "image-folder": write_classes,
}


def whole(data: FolderDataset, index: int) -> np.ndarray:
    """The label maps of an image at its own size."""
    assert isinstance(data, LabelledFiles)
    return data.on_grid(tuple(data.image_sizes[index].tolist())).read_labels(index).maps


@pytest.mark.parametrize("key", TREES)
def test_one_format_alone_owns_a_tree_and_nothing_is_wrong_with_it(tmp_path: Path, key: str) -> None:
    folder = TREES[key](tmp_path)
    assert [data_format.key for data_format in FORMATS if data_format.owns(folder)] == [key]
    before = sorted(folder.rglob("*"))
    data = open_folder(folder)
    for index in range(len(data)):
        sample = data.read(index)
        assert sample.maps.any() or sample.labels
    assert check_dataset(folder) == []
    assert sorted(folder.rglob("*")) == before
    info = describe(folder)
    assert info.images == len(data)
    assert all(category.images == info.images for category in info.categories)
    assert open_folder(folder).tables_digest() == data.tables_digest()


@pytest.mark.parametrize("data_format", FORMATS, ids=lambda data_format: data_format.key)
def test_what_is_no_data_set_is_owned_by_no_format(tmp_path: Path, data_format: DataFormat) -> None:
    save_image(tmp_path / "photos" / "a.jpg")
    save_image(tmp_path / "a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "photos", tmp_path / "annotations", tmp_path / "nowhere"):
        assert not data_format.owns(folder)


@pytest.mark.parametrize(
    "data_format", [f for f in FORMATS if f.key != "folder"], ids=lambda data_format: data_format.key
)
def test_a_format_that_is_asked_for_says_what_an_empty_folder_lacks(tmp_path: Path, data_format: DataFormat) -> None:
    with pytest.raises(BadFile):
        data_format.open(tmp_path)
    faults: list[BadFile] = []
    assert len(data_format.open(tmp_path, faults.append)) == 0
    assert faults


def test_a_folder_of_many_files_is_not_read_to_see_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3_000):
        (tmp_path / f"{i}.jpg").touch()
    looked_at = 0
    is_dir = Path.is_dir

    def counted(path: Path) -> bool:
        nonlocal looked_at
        looked_at += 1
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", counted)
    assert not any(data_format.owns(tmp_path) for data_format in FORMATS)
    assert looked_at < 100


@pytest.mark.skipif(not VOC.is_dir(), reason="the real data of shared/data/formats are not here")
def test_real_palette_maps_of_voc() -> None:
    data = open_folder(VOC)
    assert data.names == ("2011_000003.jpg", "2011_000006.jpg", "2011_000025.jpg")
    assert (len(data.concepts), data.concepts.name[-1]) == (20, "tv/monitor")
    numbers = np.asarray(Image.open(VOC / "SegmentationClass" / "2011_000025.png"))
    assert 255 not in numbers
    assert (whole(data, 2)[0] == numbers).all()
    numbers = np.asarray(Image.open(VOC / "SegmentationClass" / "2011_000003.png"))
    assert (numbers == 255).any()
    assert (whole(data, 0)[0] == np.where(numbers == 255, 0, numbers)).all()


def test_voc_has_splits_of_its_own_and_images_for_other_tasks(tmp_path: Path) -> None:
    maps = {name: patches((15, 0, 0, 8, 8), (255, 8, 0, 9, 8)) for name in ("2007_000032", "2007_000033")}
    folder = write_voc(tmp_path, maps, {"train": ["2007_000033"], "val": ["2007_000032"]})
    save_image(folder / "JPEGImages" / "2007_000001.jpg")
    data = open_folder(folder)
    assert data.splits == ("val", "train")
    assert data.concepts.name[14] == "person"
    assert (whole(data, 0)[0] == patches((15, 0, 0, 8, 8))).all()
    assert check_dataset(folder) == []
    save_numbers(folder / "SegmentationClass" / "2007_000099.png", np.full(SIZE, 21))
    save_image(folder / "JPEGImages" / "2007_000098.jpg")
    save_numbers(folder / "SegmentationClass" / "2007_000098.png", np.full(SIZE, 21))
    told = [str(problem) for problem in check_dataset(folder)]
    assert told == [
        "SegmentationClass: 1 label map without an image in JPEGImages: 2007_000099.png",
        "SegmentationClass/2007_000098.png: holds 21, not in the 20 classes of PASCAL VOC",
    ]


def test_maps_of_voc_that_became_colours_are_read_by_its_palette(tmp_path: Path) -> None:
    numbers = patches((15, 0, 0, 8, 8), (20, 8, 8, 9, 12), (255, 20, 20, 24, 24))
    folder = write_voc(tmp_path, {"a": numbers})
    assert [palette_colour(n) for n in (0, 1, 15, 20, 255)] == (
        [(0, 0, 0), (128, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]
    )
    colours = np.array([palette_colour(n) for n in range(256)], np.uint8)[numbers]
    save_image(folder / "SegmentationClass" / "a.png", pixels=colours)
    assert (whole(open_folder(folder), 0)[0] == np.where(numbers == 255, 0, numbers)).all()


def test_cityscapes_leaves_out_void_and_the_test_cities(tmp_path: Path) -> None:
    ids = patches((7, 0, 0, 8, 8), (33, 8, 8, 9, 12), (1, 20, 20, 24, 24))
    names = ("train/aachen/aachen_000000_000019", "val/ulm/ulm_000001_000019", "test/bonn/bonn_000002_000019")
    folder = write_cityscapes(tmp_path, dict.fromkeys(names, ids))
    data = open_folder(folder)
    assert data.names == tuple(f"{name}_leftImg8bit.png" for name in names[:2])
    assert data.splits == ("train", "val")
    assert (len(data.concepts), data.concepts.name[0], data.concepts.name[-1]) == (27, "road", "bicycle")
    assert (whole(data, 0)[0] == np.where(ids < 7, 0, ids)).all()
    (folder / "gtFine" / f"{names[0]}_gtFine_labelIds.png").unlink()
    (folder / "leftImg8bit" / f"{names[1]}_leftImg8bit.png").unlink()
    with pytest.raises(BadFile, match="none of its 1 images has a label map in gtFine, which holds 1"):
        open_folder(folder)


def test_textures_have_all_that_people_saw_in_them(tmp_path: Path) -> None:
    joint = {"banded/b_1.jpg": ["banded", "striped"], "striped/s_1.jpg": ["striped"], "striped/s_2.jpg": ["striped"]}
    lists = {"train1": ["banded/b_1.jpg"], "val1": ["striped/s_1.jpg"], "test1": ["striped/s_2.jpg", "dotted/d.jpg"]}
    data = open_folder(write_textures(tmp_path, joint, lists))
    assert (data.concepts.name, data.concepts.categories) == (("banded", "striped"), ("texture",))
    assert [data.read(i).labels for i in range(3)] == [(1, 2), (2,), (2,)]
    assert data.splits == ("train", "val", "val")
    assert data.figures().images.tolist() == [1, 3]
    assert data.figures().coverage.tolist() == [1, 3]
    told = [str(problem) for problem in check_dataset(tmp_path)]
    assert told == ["labels: 1 listed image missing from images: dotted/d.jpg"]


@pytest.mark.parametrize("parts", [("",), ("train", "val"), ("training", "validation", "test")])
def test_folders_of_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    data = open_folder(write_classes(tmp_path, parts))
    assert (data.concepts.name, data.concepts.categories) == (("cat", "dog"), ("class",))
    assert len(data) == 6 * len(parts)
    assert [data.read(i).labels for i in (0, 2, 3, 5)] == [(1,), (1,), (2,), (2,)]
    if len(parts) > 1:
        assert data.splits[:6] == (("train",) * 6 if parts[0] == "train" else data.splits[:6])
        assert set(data.splits) == {"train", "val"}
    (tmp_path / parts[0] / "eel").mkdir()
    assert [problem.what for problem in check_dataset(tmp_path)] == (
        [f"1 class folder without an image: {f'{parts[0]}/eel'.strip('/')}"]
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        save_image(tmp_path / name / "a.jpg")
    data = open_folder(tmp_path)
    assert (data.names, data.concepts.name) == (("bus/a.jpg", "train/a.jpg"), ("bus", "train"))


def test_a_unit_that_is_a_concept_of_coco_is_found(tmp_path: Path) -> None:
    """Red is where a person is, green where a tree is: units 0 and 1 of a network that shows the channels."""
    rng = np.random.default_rng(0)
    maps, pixels = {}, {}
    for i in range(6):
        top, left = rng.integers(0, 12, 2).tolist()
        ids = patches((40, top, left, top + 10, left + 12), (9, 22, i, 24, 30))
        maps[f"{i:012d}.png"] = ids
        colours = np.stack([255 * (ids == 40), 255 * (ids == 9), rng.integers(0, 256, SIZE)], -1)
        pixels[f"{i:012d}.png"] = colours.astype(np.uint8)
    folder = write_panoptic(tmp_path / "coco", maps, {40: 1, 9: 184}, pixels=pixels)
    (tmp_path / "net.py").write_text(CHANNELS)
    data, network = open_folder(folder), load_network(f"{tmp_path / 'net.py'}:network")
    assert isinstance(data, LabelledFiles)
    settings = dataclasses.replace(Settings(workers=1, top=2))
    protocol = make_protocol("netdissect", grid=f"{SIZE[0]}x{SIZE[1]}", q="0.4")
    outcome = dissect(network, data.on_grid(SIZE), list_layers(network, SIZE), protocol, settings, Progress())
    (layer,) = outcome.dissection.layers
    assert layer.counts is not None
    intersection, area = layer.counts.intersection.sum(0), layer.counts.area.sum(0)
    scores = iou(intersection, area[:, None], outcome.dissection.concept_counts.area.sum(0)[None])
    rows = [data.concepts.name.index(name) for name in ("person", "tree-merged")]
    assert scores[0].argmax() == rows[0]
    assert scores[1].argmax() == rows[1]
    assert scores[0, rows[0]] == scores[1, rows[1]] == 1


def test_the_command_line_describes_and_checks_them(tmp_path: Path) -> None:
    folder = TREES["voc"](tmp_path / "VOC2012")
    (folder / "SegmentationClass" / "a.png").write_bytes(b"no image")
    info = json.loads(cli.nd("data", "info", str(folder), "--json", folder=tmp_path).stdout)
    assert (info["images"], info["concepts"], info["categories"][0]["name"]) == (1, 20, "object")
    checked = cli.nd("data", "check", str(folder), folder=tmp_path)
    assert checked.returncode == 1
    assert "SegmentationClass/a.png\tnot a readable label map" in checked.stdout
    TREES["image-folder"](tmp_path / "animals")
    assert cli.nd("data", "check", "animals", folder=tmp_path).returncode == 0
    assert json.loads(cli.nd("data", "info", "animals", "--json", folder=tmp_path).stdout)["images"] == 12


def test_the_page_of_data_sets_lists_every_format_by_its_key() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    keys = {data_format.key for data_format in FORMATS} - {"broden", "folder"}  # which have pages of their own
    assert {key for key in keys if f"`{key}` |" not in page} == set()
