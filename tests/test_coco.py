"""COCO, read in place: instances and panoptic maps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from formats_factory import CATEGORIES, coco_images, patches, save_image, save_json, write_instances, write_panoptic
from PIL import Image

from ndissect.engine.data.coco import (
    open_instances,
    open_panoptic,
    owns_instances,
    owns_panoptic,
)
from ndissect.engine.data.formats import open_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.labelled_files import LabelledFiles

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PANOPTIC, MINI = SHARED / "formats" / "coco_panoptic" / "sample_data", SHARED / "captions" / "coco_mini"
needs_shared = pytest.mark.skipif(not PANOPTIC.is_dir(), reason="the real data of shared/data are not here")

PERSON, DOG, TREE = 1, 18, 184
# Corners lie where pixels meet: rows 4 to 11, columns 8 to 19.
BOX = [[8, 4, 20, 4, 20, 12, 8, 12]]
SEGMENTS = {5: PERSON, 300: PERSON, 70_000: TREE}
IDS = patches((5, 0, 0, 12, 10), (300, 0, 10, 12, 20), (70_000, 12, 0, 24, 32))


def faults(opened: Callable[..., LabelledFiles], folder: Path) -> list[str]:
    found: list[BadFile] = []
    opened(folder, found.append)
    return [str(fault) for fault in found]


def whole(data: LabelledFiles, index: int) -> np.ndarray:
    """The label maps of an image at its own size."""
    height, width = data.image_sizes[index].tolist()
    return data.on_grid((height, width)).read_labels(index).maps


@needs_shared
def test_real_instances() -> None:
    data = open_folder(MINI)
    assert (len(data), len(data.concepts), data.concepts.categories) == (159, 80, ("object",))
    assert {split: data.splits.count(split) for split in ("train", "val")} == {"train": 80, "val": 79}
    assert data.names[0] == "train2017/000000493652.jpg"
    listed = json.loads((MINI / "annotations" / "instances_val2017.json").read_text())
    index = data.names.index(f"val2017/{listed['images'][0]['file_name']}")
    wanted = {a["category_id"] for a in listed["annotations"] if a["image_id"] == listed["images"][0]["id"]}
    assert set(np.unique(whole(data, index)).tolist()) - {0} == wanted
    figures = data.figures()
    held = {(a["image_id"], a["category_id"]) for a in listed["annotations"]}
    trained = json.loads((MINI / "annotations" / "instances_train2017.json").read_text())
    held |= {(a["image_id"], a["category_id"]) for a in trained["annotations"]}
    person = data.concepts.name.index("person")
    assert figures.images[person] == sum(category == PERSON for _, category in held)


@needs_shared
def test_real_panoptic_maps_in_both_encodings_and_as_run_lengths(tmp_path: Path) -> None:
    data = open_panoptic(PANOPTIC)
    assert (data.names, len(data.concepts)) == (("input_images/000000142238.jpg", "input_images/000000439180.jpg"), 133)
    listed = json.loads((PANOPTIC / "panoptic_examples.json").read_text())
    maps = [whole(data, index) for index in range(2)]
    for numbers, annotation in zip(maps, listed["annotations"], strict=True):
        for category in {segment["category_id"] for segment in annotation["segments_info"]}:
            area = sum(s["area"] for s in annotation["segments_info"] if s["category_id"] == category)
            assert (numbers == category).sum() == area
    # The converter's instances: run lengths, one of them of a crowd.
    instances = open_instances(PANOPTIC)
    assert all((whole(instances, index) == maps[index]).all() for index in range(2))
    for name in ("input_images", "panoptic_examples.json", "panoptic_examples_2ch_format"):
        (tmp_path / name).symlink_to(PANOPTIC / name)
    assert all((whole(open_panoptic(tmp_path), index) == maps[index]).all() for index in range(2))


def test_instances_that_overlap_keep_all_their_concepts(tmp_path: Path) -> None:
    runs = {"size": [24, 32], "counts": [0, 24 * 10, 24 * 22]}  # the ten columns on the left
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX), (DOG, runs), (DOG, BOX)], "b.jpg": []})
    assert owns_instances(folder)
    assert not owns_panoptic(folder)
    data = open_folder(folder)
    maps = whole(data, 0)
    assert maps.shape == (2, 24, 32)
    box, left = patches((1, 4, 8, 12, 20)) > 0, patches((1, 0, 0, 24, 10)) > 0
    assert ((maps == PERSON).any(0) == box).all()
    assert ((maps == DOG).any(0) == box | left).all()
    assert data.read_labels(1).maps.shape == (0, *data.grid)
    assert data.splits == ("val", "val")
    assert data.figures().images.tolist() == [1, 1, 0]
    assert faults(open_instances, folder) == []
    assert list(data.faults(0)) == []


def test_panoptic_segments_become_their_categories(tmp_path: Path) -> None:
    folder = write_panoptic(tmp_path, {"a.jpg": IDS}, SEGMENTS, "train2017")
    assert owns_panoptic(folder)
    data = open_folder(folder)
    expected = patches((PERSON, 0, 0, 12, 20), (TREE, 12, 0, 24, 32))
    assert (whole(data, 0) == expected).all()
    assert (data.splits, data.names) == (("train",), ("train2017/a.jpg",))
    assert data.concepts.name == ("person", "dog", "tree-merged")


def test_an_export_with_images_beside_its_json_counts_from_0(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        save_image(tmp_path / part / "a.jpg")
        content = {
            "images": coco_images(["a.jpg"]),
            "annotations": [{"id": 0, "image_id": 1, "category_id": 0, "segmentation": BOX}],
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "mouse"}],
        }
        save_json(tmp_path / part / "_annotations.coco.json", content)
    data = open_folder(tmp_path)
    assert (data.names, data.splits) == (("train/a.jpg", "valid/a.jpg"), ("train", "val"))
    assert data.concepts.name == ("cat", "mouse")
    assert np.unique(whole(data, 0)).tolist() == [0, 1]


def test_files_of_other_names_are_read_where_the_format_is_asked_for(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    content = {
        "images": coco_images(["images\\a.jpg"]),
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "segmentation": BOX}],
        "categories": list(CATEGORIES),
    }
    save_json(tmp_path / "result.json", content)
    assert not owns_instances(tmp_path)
    data = open_instances(tmp_path)
    assert data.names == ("images/a.jpg",)
    assert data.read(0).maps.any()


def test_the_folder_of_the_annotations_alone_finds_the_images_beside_it(tmp_path: Path) -> None:
    folder = write_instances(tmp_path / "coco", {"a.jpg": [(PERSON, BOX)]}) / "annotations"
    data = open_folder(folder)
    assert data.names == ("val2017/a.jpg",)
    assert data.read(0).maps.any()


def test_images_that_are_elsewhere_are_looked_for_and_the_folders_named(tmp_path: Path) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]})
    shutil.rmtree(folder / "val2017")
    with pytest.raises(BadFile) as failed:
        open_folder(folder)
    assert "its images are in none of val2017, images/val2017, images, .: looked for a.jpg" in failed.value.message
    assert str(folder / "val2017") in failed.value.hint


def test_images_that_are_missing_are_counted_and_left_out(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(9)]
    folder = write_instances(tmp_path, {name: [(PERSON, BOX)] for name in names})
    for name in names[:7]:
        (folder / "val2017" / name).unlink()
    (told,) = faults(open_instances, folder)
    assert told.endswith("7 images missing from val2017: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...")
    data = open_instances(folder)
    assert (len(data), data.notes) == (2, (told,))


def test_panoptic_maps_that_are_missing_are_told(tmp_path: Path) -> None:
    folder = write_panoptic(tmp_path, {"a.jpg": IDS, "b.jpg": IDS}, SEGMENTS)
    (folder / "annotations" / "panoptic_val2017" / "b.png").unlink()
    told = faults(open_panoptic, folder)
    assert any("1 image without a panoptic map: b.jpg" in text for text in told)
    assert any("1 panoptic map missing from annotations/panoptic_val2017: b.png" in text for text in told)
    shutil.rmtree(folder / "annotations" / "panoptic_val2017")
    with pytest.raises(BadFile, match="panoptic_val2017 beside it") as failed:
        open_panoptic(folder)
    assert "panoptic_val2017.zip" in failed.value.hint


def test_a_map_with_segments_that_are_not_listed_is_bad(tmp_path: Path) -> None:
    data = open_panoptic(write_panoptic(tmp_path, {"a.jpg": IDS}, {5: PERSON}))
    (fault,) = data.faults(0)
    assert "annotations/panoptic_val2017/a.png: holds segment 300, 70000, not listed in" in str(fault)
    Image.new("L", (32, 24)).save(tmp_path / "annotations" / "panoptic_val2017" / "a.png")
    with pytest.raises(BadFile, match="has three colours"):
        data.read(0)


def changed(folder: Path, change: Callable[[dict], object]) -> Path:
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c.pop("categories"), "the file has no 'categories'"),
        (lambda c: c.pop("annotations"), "the file has no 'annotations'"),
        (lambda c: c.update(images="a.jpg"), "the file: 'images' is not a list"),
        (lambda c: c.update(images=[]), "the file lists no image"),
        (lambda c: c.update(categories=[7]), "entry 0 of 'categories' has no 'id'"),
        (lambda c: c["categories"][0].update(id=70_000), "category 'person' has the id 70000"),
        (lambda c: c["images"][0].update(file_name="../../a.jpg"), "'../../a.jpg' leads out of its folder"),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), "leads out of its folder"),
        (lambda c: c["images"][0].update(height=10**9), "a.jpg is said to be 1000000000 x 32 pixels"),
        (lambda c: c["annotations"][0].pop("category_id"), "1 annotation without use: entry 0 of 'annot"),
        (lambda c: c["annotations"][0].update(category_id=3), "entry 0 is of category 3, which is not listed"),
        (lambda c: [a.update(segmentation=[]) for a in c["annotations"]], "has a mask: they are boxes alone"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, change: Callable[[dict], object], what: str) -> None:
    folder = changed(write_instances(tmp_path, {"a.jpg": [(PERSON, BOX), (DOG, BOX)]}), change)
    with pytest.raises(BadFile, match=r"instances_val2017\.json: ") as failed:
        open_instances(folder)
    assert what in failed.value.message
    assert any(what in text for text in faults(open_instances, folder))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "\x00", '{"images": NaN}'])
def test_what_is_no_such_json_is_told(tmp_path: Path, text: str) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]})
    (folder / "annotations" / "instances_val2017.json").write_text(text)
    with pytest.raises(BadFile, match=r"instances_val2017\.json: "):
        open_folder(folder)


def test_a_mask_that_is_none_spoils_its_image_alone(tmp_path: Path) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, [[1, 2, 3]])], "b.jpg": [(PERSON, BOX)]})
    data = open_instances(folder)
    (fault,) = data.faults(0)
    assert str(fault).startswith("val2017/a.jpg: a polygon of 3 numbers")
    assert list(data.faults(1)) == []


def test_annotations_of_images_that_were_taken_out_are_told(tmp_path: Path) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)], "b.jpg": [(DOG, BOX)] * 2})
    changed(folder, lambda c: c["images"].pop(1))
    told, image = faults(open_instances, folder)
    assert told.endswith("2 annotations of images that are not listed: 2, 2")
    assert image == "val2017: 1 image that no JSON file lists: b.jpg"
    data = open_instances(folder)
    assert (data.names, data.notes) == (("val2017/a.jpg",), (told, image))


def test_images_that_another_table_lists_are_not_told(tmp_path: Path) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]})
    write_instances(tmp_path, {"b.jpg": [(DOG, BOX)]}, part="train2017")
    (folder / "val2017").rename(folder / "images")
    (folder / "train2017" / "b.jpg").rename(folder / "images" / "b.jpg")
    (folder / "train2017").rmdir()
    assert faults(open_instances, folder) == []
    save_image(folder / "images" / "c.jpg")
    assert faults(open_instances, folder) == ["images: 1 image that no JSON file lists: c.jpg"]


def test_polygons_follow_images_that_were_made_smaller(tmp_path: Path) -> None:
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]})
    before = open_instances(folder).read_labels(0).maps
    save_image(folder / "val2017" / "a.jpg", (12, 16))
    assert (open_instances(folder).read_labels(0).maps == before).all()
    save_image(folder / "val2017" / "a.jpg", (12, 24))
    assert "the mask is 24 x 32 pixels, the image 12 x 24" in str(next(open_instances(folder).faults(0)))


def test_tables_must_agree_on_their_categories(tmp_path: Path) -> None:
    write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]})
    others = [{"id": 1, "name": "cat"}, *CATEGORIES[1:]]
    folder = write_instances(tmp_path, {"a.jpg": [(PERSON, BOX)]}, "train2017", others)
    with pytest.raises(BadFile, match=r"category 1 is 'person', in instances_train2017\.json it is 'cat'"):
        open_instances(folder)
