"""One's own data: a folder of images and a folder of label maps with the same names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from mask_factory import halves, write_folder

from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.mask_folder import open_mask_folder
from ndissect.engine.data.mask_pairs import common_suffix, pair
from ndissect.store.errors import NDError


def names_in(data: LabelledFiles, index: int = 0) -> list[set[str]]:
    """The names of the concepts in each label map of an image."""
    names = dict(zip(data.concepts.number.tolist(), data.concepts.name, strict=True))
    return [{names[n] for n in np.unique(one).tolist() if n} for one in data.on_grid((16, 16)).read(index).maps]


def test_a_folder_is_a_data_set(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine", {"a": {"": halves(1, 2)}, "sub/b": {"": halves(0, 255)}})
    data = open_dataset(root)
    assert isinstance(data, LabelledFiles)
    assert (data.name, data.names) == ("mine", ("a.jpg", "sub/b.jpg"))
    assert data.concepts.name == ("cat", "dog")
    assert data.concepts.categories == ("object",)
    assert data.splits == tuple(map(split_by_name, data.names))
    assert (data.on_grid((16, 16)).read(0).maps == halves(1, 2)).all()
    assert not data.read(1).maps.any(), "255 is no label"
    assert check_dataset(root) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.csv", "number,name\n1,cat\n2,dog\n"),
        ("labels.csv", "1,cat\n2,dog\n"),
        ("labels.csv", "1;cat;object\n2;dog;object\n"),
        ("labels.csv", "\ufeffname\tid\ncat\t1\ndog\t2.0\n\t\n"),
        ("labels.csv", ",id,class\n0,1,cat\n1,2,dog\n"),
        ("labels.txt", "background\ncat\ndog\n"),
        ("labels.txt", "__ignore__\n_background_\ncat\ndog\n"),
        ("classes.txt", "1: cat\n2: dog\n"),
        ("labels.json", '{"1": "cat", "2": "dog"}'),
        ("labels.json", '{"cat": 1, "dog": 2}'),
        ("labels.json", '["background", "cat", "dog"]'),
        ("labels.json", '{"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}'),
        ("labels.json", '{"id2label": {"0": "void", "1": "cat", "2": "dog"}}'),
        ("labels.json", '[{"number": 1, "name": "cat", "category": "object"}, {"id": 2, "name": "dog"}]'),
    ],
)
def test_names_come_from_the_tables_that_people_have(tmp_path: Path, file: str, text: str) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}}, names=None)
    (root / file).write_text(text, encoding="utf-8")
    data = open_mask_folder(root)
    assert (data.concepts.name, data.concepts.number.tolist()) == (("cat", "dog"), [1, 2])
    assert names_in(data) == [{"cat", "dog"}]


def test_number_0_may_be_a_concept(tmp_path: Path) -> None:
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": halves(0, 1)}}, names="wall\nsky\n"))
    assert names_in(data) == [{"wall", "sky"}]
    assert 0 not in data.concepts.number


def test_background_and_void_are_no_concepts(tmp_path: Path) -> None:
    names = "0,Background\n1,cat\n2,void\n255,dog\n"
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": halves(1, 2)}, "b": {"": halves(0, 255)}}, names))
    assert data.concepts.name == ("cat", "dog")
    assert names_in(data) == [{"cat"}]
    assert names_in(data, 1) == [{"dog"}], "a name says what 255 is"


def test_numbers_of_16_bits(tmp_path: Path) -> None:
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": halves(300, 40000)}}, "300,cat\n40000,dog\n"))
    assert names_in(data) == [{"cat", "dog"}]


def test_rows_of_one_name_are_one_concept(tmp_path: Path) -> None:
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": halves(1, 2)}}, "1,cat\n2,cat\n"))
    assert data.concepts.name == ("cat",)
    assert (data.read(0).maps == 1).all()


@pytest.mark.parametrize(
    "table",
    ["name,color\ncat,#ff0000\ndog,0 128 0\n", "name,r,g,b\ncat,255,0,0\ndog,0,128,0\n", "#ff0000,cat\n#008000,dog\n"],
)
def test_colours_mean_concepts(tmp_path: Path, table: str) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8], pixels[8:, :4] = (255, 0, 0), (0, 128, 0)
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": pixels}}, table))
    assert names_in(data) == [{"cat", "dog"}]
    assert (data.on_grid((16, 16)).read(0).maps[0] == 0).sum() == 8 * 12, "black is no label"


def test_several_maps_of_an_image_are_parts(tmp_path: Path) -> None:
    names = "number,name,category\n1,cat,object\n2,dog,object\n1,fur,material\n2,ear,part\n"
    maps = {
        "": halves(1, 2),
        "material": halves(0, 1),
        "part": halves(2, 0),
        "ear": halves(255, 0),
        "x.1": halves(2, 2),
    }
    data = open_mask_folder(write_folder(tmp_path, {"a": maps}, names))
    by_file = dict(zip([Path(file).name for file in data.maps_of(0)], names_in(data), strict=True))
    assert by_file == {
        "a.png": {"cat", "dog"},
        "a.ear.png": {"ear"},
        "a.material.png": {"fur"},
        "a.part.png": {"ear"},
        "a.x.1.png": {"dog"},
    }
    assert data.concepts.categories == ("object", "material", "part")
    assert len(set(data.concepts.number.tolist())) == 4


def test_without_a_table_numbers_have_names(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(3, 7), "hair": halves(0, 1)}}, None)
    told: list[str] = []
    data = open_dataset(root, told.append)
    assert isinstance(data, LabelledFiles)
    assert names_in(data) == [{"hair 1"}, {"class 3", "class 7"}]
    assert data.concepts.categories == ("object", "hair")
    assert told == ["no table names the numbers of the masks: they are called class 1 to hair 254; see labels.csv"]


def test_black_and_white_maps_without_a_table_are_one_concept(tmp_path: Path) -> None:
    data = open_mask_folder(write_folder(tmp_path, {"a": {"": halves(0, 255)}}, None))
    assert data.concepts.name == ("class 255",)
    assert names_in(data) == [{"class 255"}]


@pytest.mark.parametrize(("images", "masks"), [("images", "labels"), ("img_dir", "ann_dir")])
def test_splits_are_folders(tmp_path: Path, images: str, masks: str) -> None:
    maps = {f"{split}/{n}": {"": halves(1, 2)} for split in ("training", "val", "test") for n in "ab"}
    data = open_folder(write_folder(tmp_path, maps, images=images, masks=masks))
    assert dict(zip(data.names, data.splits, strict=True)) == {
        name: "train" if name.startswith("training") else "val" for name in (f"{image}.jpg" for image in maps)
    }
    assert isinstance(data, LabelledFiles)
    assert data.notes == ("images of the split test count as val",)


def test_splits_may_be_the_outer_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_folder(tmp_path / split, {"a": {"": halves(1, 2)}}, None)
    (tmp_path / "labels.csv").write_text("1,cat\n2,dog\n")
    data = open_folder(tmp_path)
    assert (data.names, data.splits) == (("train/a.jpg", "valid/a.jpg"), ("train", "val"))
    assert check_dataset(tmp_path) == []


def test_a_table_of_images_has_splits_and_labels_of_whole_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}, "b": {}, "c": {}})
    (root / "images.csv").write_text("image,split,label,scene\na.jpg,val,2,street\nb,train,cat;dog,\n")
    data = open_folder(root)
    assert (data.names, data.splits) == (("a.jpg", "b.jpg"), ("val", "train")), "c has no label at all"
    names = dict(zip(data.concepts.number.tolist(), data.concepts.name, strict=True))
    assert [{names[n] for n in data.read(i).labels} for i in range(2)] == [{"dog", "street"}, {"cat", "dog"}]
    assert data.concepts.category_of(data.concepts.name.index("street")) == "scene"
    (root / "images.csv").write_text("image,split\nnowhere.jpg,val\na,later\n")
    assert [problem.what for problem in check_dataset(root)][-2:] == [
        "row 3, column split: 'later' is neither train nor val nor test",
        "lists 'nowhere', and there is no such image",
    ]


def test_images_and_masks_without_one_another_are_counted_and_named(tmp_path: Path) -> None:
    maps = {"a": {"": halves(1, 2)}, **{f"bare{n}": {} for n in range(7)}}
    root = write_folder(tmp_path, maps)
    (root / "masks" / "a.png").with_name("stray.png").write_bytes((root / "masks/a.png").read_bytes())
    told: list[str] = []
    assert open_dataset(root, told.append).names == ("a.jpg",)
    bare = (
        "7 images without a mask in masks, left out: bare0.jpg, bare1.jpg, bare2.jpg, bare3.jpg, bare4.jpg and 2 more"
    )
    stray = "1 mask without an image in images: stray.png"
    assert told == [f"images: {bare}", f"masks: {stray}"]
    assert [(p.file, p.what) for p in check_dataset(root)] == [("images", bare), ("masks", stray)]


def test_what_is_wrong_is_said_in_the_words_of_the_folder(tmp_path: Path) -> None:
    maps = {
        "a": {"": halves(1, 9)},
        "b": {"": halves(1, 2, (10, 16))},
        "c": {"": halves(1, 2)},
        "d": {"": halves(1, 2)},
    }
    root = write_folder(tmp_path, maps)
    (root / "masks/c.png").write_bytes((root / "masks/c.png").read_bytes()[:50])
    (root / "images/d.jpg").write_bytes(b"no image")
    assert [(problem.file, problem.what) for problem in check_dataset(root)] == [
        ("masks/a.png", "holds 9, not in labels.csv"),
        ("masks/b.png", "the mask is 10 x 16 pixels, the image 32 x 32: they must show the same, in the same shape"),
        ("masks/c.png", "the PNG is truncated"),
        ("images/d.jpg", "not a readable image: unknown format"),
    ]


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("labels.csv", "number,name\n1,cat\n1,dog\n", "1 is called both 'cat' and 'dog'"),
        ("labels.csv", "number,name\none,cat\n", "row 2: 'one' is not a whole number"),
        ("labels.csv", "number,name\n70000,cat\n", "row 2: number 70000 is larger than 65,535"),
        ("labels.csv", "number,name\n1,\n", "row 2: no name"),
        ("labels.csv", b"1,caf\xe9\n", "row 1: not UTF-8 text; save the table as UTF-8"),
        ("labels.csv", "", "the table names nothing"),
        ("labels.json", "{", "not JSON"),
        ("labels.json", "3", "holds no names"),
        ("labels.json", "[" * 100_000, "not JSON"),
        ("labels.json", "[[1]]", "entry 0: '[1]' is no name"),
    ],
)
def test_a_faulty_table_of_names_is_told(tmp_path: Path, file: str, text: str | bytes, what: str) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}}, None)
    (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(NDError) as error:
        open_mask_folder(root)
    assert error.value.message.startswith(f"{file}: {what}")
    assert error.value.hint


def test_nothing_that_belongs_together_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {}})
    (root / "masks/b.png").write_bytes(b"")
    with pytest.raises(NDError, match="no label map is called like an image"):
        open_folder(root)


def test_names_of_maps_may_end_in_a_word() -> None:
    images, maps = ["x/a.jpg", "x/a_1.jpg"], ["x/a_mask.png", "x/a_1_mask.png"]
    assert common_suffix(images, maps) == "_mask"
    assert pair(images, maps, "_mask").maps == {
        "x/a.jpg": [("", "x/a_mask.png")],
        "x/a_1.jpg": [("", "x/a_1_mask.png")],
    }
    assert pair(images, ["x/a.jpg.png"]).maps == {"x/a.jpg": [("", "x/a.jpg.png")]}
    assert common_suffix(images, ["x/a.png", "x/a_1.png"]) == ""
    assert pair(["a.jpg", "a.png"], []).twice == ["a.png"]


def test_its_digest_follows_names_splits_and_concepts(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}, "b": {"": halves(1, 2)}})
    digests = [open_folder(root).tables_digest() for _ in range(2)]
    (root / "labels.csv").write_text("1,cat\n2,cow\n")
    digests.append(open_folder(root).tables_digest())
    (root / "images.csv").write_text("image,split\na,val\nb,val\n")
    digests.append(open_folder(root).tables_digest())
    (root / "masks/b.png").unlink()
    digests.append(open_folder(root).tables_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_hostile_descriptions_are_refused(tmp_path: Path) -> None:
    for description in (
        {},
        {"images": ".", "masks": ".", "names": "../names.csv"},
        {"images": 3, "masks": "x"},
        {"images": "nowhere", "masks": "."},
        {"images": "\0", "masks": "a"},
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({"encoding-type": "ndissect-folder", **description}))
        with pytest.raises(NDError, match=r"dataset.json"):
            open_folder(tmp_path)


def test_links_between_folders_are_followed_once(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine", {"a": {"": halves(1, 2)}})
    other = write_folder(tmp_path / "other", {"b": {"": halves(1, 2)}})
    for kind in ("images", "masks"):
        (root / kind / "back").symlink_to("..", target_is_directory=True)
        (root / kind / "more").symlink_to(other / kind, target_is_directory=True)
        (root / kind / "more2").symlink_to(other / kind, target_is_directory=True)
    names = open_folder(root).names
    assert len(names) == 2
    assert names[0] == "a.jpg"


def test_names_of_files_that_are_no_text_are_read(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}})
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        source = root / kind / f"a.{ending}"
        (root / kind / os.fsdecode(b"caf\xe9." + ending.encode())).write_bytes(source.read_bytes())
    data = open_folder(root)
    assert data.names == ("a.jpg", "caf?.jpg")
    assert (data.read(1).image == data.read(0).image).all()
    assert check_dataset(root) == []
