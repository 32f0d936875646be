"""ADE20K, read in place: SceneParsing-150, and the full release of 2021 with its parts."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from formats_factory import SIZE, patches, save_image, save_numbers, write_ade20k, write_scene_parsing
from PIL import Image

from ndissect.engine.data.ade20k import open_ade20k
from ndissect.engine.data.formats import open_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.scene_parsing import open_scene_parsing

FORMATS = Path(__file__).resolve().parents[2] / "shared" / "data" / "formats"
needs_shared = pytest.mark.skipif(not FORMATS.is_dir(), reason="the real data of shared/data/formats are not here")

STREET = "training/urban/street/ADE_train_00000001"
CAR, WHEEL, WINDOW, RIM = 401, 3035, 3050, 2122
LEVELS = (
    patches((CAR, 0, 0, 20, 30), (WINDOW, 20, 0, 24, 8)),
    patches((WHEEL, 10, 0, 20, 10), (WINDOW, 0, 10, 10, 20), (WINDOW, 20, 0, 22, 8)),
    patches((RIM, 12, 2, 18, 8)),
)
OBJECTS = (
    (CAR, "car, auto, automobile", 0), (WINDOW, "window", 0), (WINDOW, "window", 1), (WINDOW, "window", 1),
    (WHEEL, "wheel", 1), (RIM, "rim", 2), (77, "caf\xe9, coffee bar", 0), (2000, "  ", 0), (0, "-", 0),
)  # fmt: skip


def faults(opened: Callable[..., LabelledFiles], folder: Path) -> list[str]:
    found: list[BadFile] = []
    opened(folder, found.append)
    return [str(fault) for fault in found]


def names_in(data: LabelledFiles, index: int) -> set[str]:
    """The concepts that image ``index`` shows, of its maps and of the whole image."""
    labels = data.on_grid(tuple(data.image_sizes[index].tolist())).read_labels(index)
    name_of = dict(zip(data.concepts.number.tolist(), data.concepts.name, strict=True))
    return {name_of[n] for n in np.unique(labels.maps).tolist() if n} | {name_of[n] for n in labels.labels}


@needs_shared
def test_real_scene_parsing(tmp_path: Path) -> None:
    real = FORMATS / "ade20k_sceneparsing"
    for name in ("images", "annotations"):
        (tmp_path / name).symlink_to(real / "sampleData" / name)
    (tmp_path / "objectInfo150.txt").symlink_to(real / "objectInfo150.txt")
    (tmp_path / "sceneCategories.txt").write_bytes(gzip.decompress((real / "sceneCategories.txt.gz").read_bytes()))
    data = open_folder(tmp_path)
    assert (len(data), len(data.concepts), data.splits) == (3, 152, ("val", "val", "val"))
    assert data.concepts.name[:4] == ("wall", "building", "sky", "floor")
    assert data.concepts.name[150:] == ("abbey-s", "access_road-s")
    numbers = np.asarray(Image.open(real / "sampleData" / "annotations" / "ADE_val_00000001.png"))
    assert (data.on_grid(numbers.shape).read(0).maps[0] == numbers).all()
    assert names_in(data, 2) >= {"wall", "sky", "bus", "van", "access_road-s"}
    assert all(list(data.faults(index)) == [] for index in range(3))
    # The development kit as it is, with its own folder of samples.
    assert names_in(open_folder(real), 2) == names_in(data, 2) - {"access_road-s"}


@needs_shared
def test_real_full_release() -> None:
    data = open_folder(FORMATS / "ade20k_full")
    assert data.names[0] == "training/urban/street/ADE_train_00016869.jpg"
    assert set(data.concepts.categories) == {"object", "part", "scene"}
    category = {name: data.concepts.category_of(row) for row, name in enumerate(data.concepts.name)}
    assert [category[n] for n in ("car", "sky", "wheel", "rim", "street-s")] == (
        ["object", "object", "part", "part", "scene"]
    )
    sample = data.on_grid((1536, 2048)).read(0)
    assert sample.maps.shape == (3, 1536, 2048)
    # A pixel of the traffic light of the JSON's first polygon, and one of the mirror of its second level.
    name_of = dict(zip(data.concepts.number.tolist(), data.concepts.name, strict=True))
    assert name_of[int(sample.maps[0, 740, 362])] == "traffic light"
    assert {name_of[n] for n in np.unique(sample.maps[2]).tolist() if n} == {"handle", "mirror", "rim", "window"}
    assert names_in(data, 1) >= {"car", "license plate", "street-s"}
    assert all(list(data.faults(index)) == [] for index in range(2))


def test_parts_lie_on_levels_of_their_own(tmp_path: Path) -> None:
    data = open_folder(write_ade20k(tmp_path, STREET, LEVELS, OBJECTS, ["outdoor", "urban", "street"]))
    maps = data.on_grid(SIZE).read(0).maps
    assert (maps[0] == LEVELS[0]).all()
    assert (maps[2] == LEVELS[2]).all()
    # A window by itself is no part of itself.
    assert (maps[1] == patches((WHEEL, 10, 0, 20, 10), (WINDOW, 0, 10, 10, 20))).all()
    table = data.concepts
    assert {(name, table.category_of(row)) for row, name in enumerate(table.name)} == {
        ("car", "object"), ("café", "object"), ("class 2000", "object"), ("window", "part"), ("wheel", "part"),
        ("rim", "part"), ("street-s", "scene"),
    }  # fmt: skip
    assert (data.splits, data.names) == (("train",), (f"{STREET}.jpg",))
    assert dict(zip(table.name, data.figures().images.tolist(), strict=True))["rim"] == 1
    assert data.figures().category_images == {"object": 1, "scene": 1, "part": 1}


def test_the_folder_that_holds_the_release_will_do(tmp_path: Path) -> None:
    write_ade20k(tmp_path / "ADE20K_2021_17_01", STREET, LEVELS, OBJECTS, ["urban", "", "misc"])
    data = open_folder(tmp_path)
    assert data.read(0).labels == ()
    assert data.names == (f"{STREET}.jpg",)


def test_images_without_their_json_are_counted(tmp_path: Path) -> None:
    write_ade20k(tmp_path, STREET, LEVELS, OBJECTS, ["street"])
    save_image(tmp_path / "images" / "ADE" / "validation" / "ADE_val_00000001.jpg")
    (told,) = faults(open_ade20k, tmp_path)
    assert "1 image without label maps (_seg.png) or its .json: ADE_val_00000001.jpg" in told
    shutil.rmtree(tmp_path / "images" / "ADE" / "training")
    with pytest.raises(BadFile, match="no image in it has label maps"):
        open_ade20k(tmp_path)


def test_files_of_the_full_release_that_are_wrong(tmp_path: Path) -> None:
    write_ade20k(tmp_path, STREET, LEVELS, OBJECTS, ["street"])
    base = tmp_path / "images" / "ADE" / STREET
    seg = base.with_name(f"{base.name}_seg.png")
    data = open_ade20k(tmp_path)
    save_numbers(seg, np.zeros(SIZE))
    assert "has three colours" in str(next(data.faults(0)))
    save_image(seg, pixels=np.full((*SIZE, 3), 200, np.uint8))
    assert "5320: no concept of this data set has that number" in str(next(data.faults(0)))
    save_image(seg, (12, 16))
    assert "the label map is 24 x 32 pixels, that of the objects 12 x 16" in str(next(data.faults(0)))
    for content, what in (
        ({}, "the file has no 'annotation'"),
        ({"annotation": {"object": [{"name": "car"}]}}, "entry 0 of 'object' has no 'name_ndx'"),
        (
            {"annotation": {"object": [{"name": "car", "name_ndx": "1"}]}},
            "entry 0 of 'object': 'name_ndx' is not a whole number",
        ),
    ):
        base.with_suffix(".json").write_text(json.dumps(content))
        assert any(what in text for text in faults(open_ade20k, tmp_path))
        with pytest.raises(BadFile, match="to go by"):
            open_ade20k(tmp_path)
    write_ade20k(tmp_path, STREET.replace("1", "2"), LEVELS, OBJECTS, ["street"])
    data = open_ade20k(tmp_path)
    assert len(data) == 1
    assert "1 image with a .json that cannot be used: images/ADE/training/urban" in data.notes[0]


def test_a_single_object_may_stand_without_its_list(tmp_path: Path) -> None:
    write_ade20k(tmp_path, STREET, [patches((CAR, 0, 0, 5, 5))], OBJECTS[:1], ["street"])
    path = (tmp_path / "images" / "ADE" / STREET).with_suffix(".json")
    content = json.loads(path.read_text())
    content["annotation"]["object"] = content["annotation"]["object"][0]
    content["annotation"]["scene"] = "street"
    path.write_text(json.dumps(content))
    assert names_in(open_folder(tmp_path), 0) == {"car", "street-s"}


def test_scene_parsing_in_its_two_parts(tmp_path: Path) -> None:
    numbers = patches((1, 0, 0, 10, 10), (3, 10, 10, 20, 30))
    maps = {"training/ADE_train_00000001": numbers, "validation/ADE_val_00000001": numbers}
    scenes = {"ADE_train_00000001": "airport_terminal", "ADE_val_00000001": "misc"}
    data = open_folder(write_scene_parsing(tmp_path, maps, scenes))
    assert data.names == ("training/ADE_train_00000001.jpg", "validation/ADE_val_00000001.jpg")
    assert data.splits == ("train", "val")
    assert data.concepts.name == ("wall", "building", "sky", "airport_terminal-s")
    assert (data.on_grid(SIZE).read(0).maps[0] == numbers).all()
    assert (data.read(0).labels, data.read(1).labels) == ((4,), ())
    assert data.figures().images.tolist() == [-1, -1, -1, 1]
    assert data.figures().category_images == {"object": 2, "scene": 1}


def test_the_names_may_be_the_csv_of_the_authors(tmp_path: Path) -> None:
    write_scene_parsing(tmp_path, {"training/a": patches((1, 0, 0, 5, 5)), "validation/b": np.zeros(SIZE)})
    (tmp_path / "objectInfo150.txt").unlink()
    with pytest.raises(BadFile, match="it names the 150 objects") as failed:
        open_folder(tmp_path)
    assert "ADEChallengeData2016.zip" in failed.value.hint
    table = 'Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,1,1,1,wall\n2,0.1,1,1,1,"building;edifice"\n'
    (tmp_path / "object150_info.csv").write_text(table)
    assert open_folder(tmp_path).concepts.name == ("wall", "building")


def test_faults_of_scene_parsing_are_told(tmp_path: Path) -> None:
    numbers = patches((151, 0, 0, 10, 10), (7, 10, 10, 20, 30))
    write_scene_parsing(tmp_path, {"training/a": numbers, "training/b": numbers, "validation/c": numbers})
    (tmp_path / "images" / "training" / "a.jpg").unlink()
    (tmp_path / "annotations" / "training" / "b.png").rename(tmp_path / "annotations" / "training" / "d.png")
    told = faults(open_scene_parsing, tmp_path)
    assert told == ["images/training: none of its 1 images has a label map in annotations/training, which holds 2"]
    assert open_scene_parsing(tmp_path).names == ("validation/c.jpg",)
    (tmp_path / "images" / "validation" / "c.jpg").rename(tmp_path / "images" / "validation" / "e.jpg")
    with pytest.raises(BadFile, match="none of its 1 images"):
        open_scene_parsing(tmp_path)
    (tmp_path / "images" / "validation" / "e.jpg").rename(tmp_path / "images" / "validation" / "c.jpg")
    save_image(tmp_path / "images" / "training" / "d.jpg")
    assert faults(open_scene_parsing, tmp_path) == [
        "images/training: 1 image without a label map in annotations/training: b.jpg",
        "annotations/training: 1 label map without an image in images/training: a.png",
    ]
    data = open_scene_parsing(tmp_path)
    assert len(data.notes) == 2
    (fault,) = data.faults(0)
    assert str(fault) == "annotations/training/d.png: holds 7, 151, not in objectInfo150.txt"
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0\t1\t1\twall\n1\t0\t1\t1\tsky\nx\n")
    assert [text.partition(": ")[2][:6] for text in faults(open_scene_parsing, tmp_path)[:2]] == ["row 3:", "row 4:"]
    (tmp_path / "objectInfo150.txt").write_bytes(b"\xff\xfe")
    assert "not UTF-8 text" in faults(open_scene_parsing, tmp_path)[0]
