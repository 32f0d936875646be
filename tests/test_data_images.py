"""Which images hold a concept, how much of each it covers, and what that looks like."""

from __future__ import annotations

from pathlib import Path

import cli
import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden
from mask_factory import halves, write_folder
from PIL import Image

from ndissect.engine.data.concept_images import (
    concept_row,
    held_concepts,
    image_index,
    images_of_concept,
)
from ndissect.engine.data.dataset import Labels
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.pack import pack
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.data_survey import DataSurvey
from ndissect.store.errors import WrongUse
from ndissect.store.protocol import make_protocol
from ndissect.tui.pictures.label_picture import COLOURS, LabelPanel, NamedMask, label_sheet

TREE, CAR, WHEEL, STREET, RED, RED_PART = 3, 4, 9, 11, 12, 13
CONCEPTS = [
    Concept(TREE, "tree"),
    Concept(CAR, "traffic_car"),
    Concept(WHEEL, "wheel", "part"),
    Concept(STREET, "street-s", "scene"),
    Concept(RED, "red-c", "color"),
    Concept(RED_PART, "red", "part"),
]


def area(rows: int, number: int) -> np.ndarray:
    """A map whose first ``rows`` rows of 16 are ``number``."""
    numbers = np.zeros((16, 16), np.uint16)
    numbers[:rows] = number
    return numbers


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures = [
        Picture({"object": area(4, TREE)}, name="a/one.png", split="train"),
        # two maps that overlap: their union counts
        Picture({"object": [area(8, TREE), area(4, TREE)], "part": area(2, WHEEL)}, name="a/two.png", split="val"),
        Picture({"object": area(4, CAR)}, {"scene": [STREET]}, name="b/two.png", split="train"),
        Picture({"color": area(16, RED)}, name="b/three.jpg", split="train"),
        # a label of the whole image beside a map of a part of it
        Picture({"part": area(1, WHEEL)}, {"object": [TREE]}, name="b/four.png", split="val"),
    ]
    return write_broden(tmp_path / "data", pictures, CONCEPTS)


def held(data: Path, number: int, split: str | None = None) -> list[tuple[str, float]]:
    dataset = open_dataset(data)
    row = dataset.concepts.number.tolist().index(number)
    found = images_of_concept(dataset, row, split=split)
    assert found.unreadable == ()
    return [(dataset.names[i.index], i.coverage) for i in found.images]


def test_images_come_with_the_share_covered_the_largest_first(data: Path) -> None:
    assert held(data, TREE) == [("b/four.png", 1.0), ("a/two.png", 0.5), ("a/one.png", 0.25)]
    assert held(data, TREE, "val") == [("b/four.png", 1.0), ("a/two.png", 0.5)]
    assert held(data, STREET) == [("b/two.png", 1.0)]
    assert held(data, RED_PART) == []


def test_shares_add_up_to_what_a_run_counts(data: Path) -> None:
    dataset = open_dataset(data)
    survey = DataSurvey(len(dataset.concepts))
    for batch in Loader(dataset, make_protocol(), 1).batches(range(len(dataset)), 2, skip_bad=False):
        survey.add(batch)
    counts = survey.summary(dataset.names).concepts
    for row in range(len(dataset.concepts)):
        found = images_of_concept(dataset, row).images
        assert len(found) == counts.images[0, row]
        assert sum(i.coverage for i in found) * 256 == counts.area[0, row]


def test_a_pack_answers_the_same(data: Path) -> None:
    before = held(data, TREE)
    pack(open_folder(data))
    assert held(data, TREE) == before


def test_labels_that_cannot_be_read_are_told_and_the_others_listed(data: Path) -> None:
    (data / "images" / "a" / "two_object_1.png").write_bytes(b"no picture")
    dataset, done = open_folder(data), []  # not by a pack, which has other bytes
    found = images_of_concept(dataset, 0, progress=lambda n, of: done.append((n, of)))
    assert [dataset.names[i.index] for i in found.images] == ["b/four.png", "a/one.png"]
    assert [error.message.split(":")[0] for error in found.unreadable] == ["images/a/two_object_1.png"]
    assert done == [(n, 5) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("text", "category", "number"),
    [
        ("tree", None, TREE),
        ("Tree", None, TREE),
        ("traffic_car", None, CAR),
        ("traffic car", None, CAR),
        ("3", None, TREE),
        ("street", None, STREET),
        ("red-c", None, RED),
        ("red", None, RED_PART),  # spelled so by the data set
        ("RED (color)", None, RED),
        ("red", "color", RED),
        ("wheel (part)", "part", WHEEL),
    ],
)
def test_a_concept_by_name_number_and_category(data: Path, text: str, category: str | None, number: int) -> None:
    concepts = open_dataset(data).concepts
    assert concepts.number[concept_row(concepts, text, category)] == number


@pytest.mark.parametrize(
    ("text", "category", "said"),
    [
        ("tre", None, "nearest: tree"),
        ("Red", None, "red (color), number 12, red (part), number 13"),
        ("99", None, "no concept '99'"),
        ("tree", "part", "of category part"),
        ("tree", "objects", "there are: object"),
        ("²", None, "no concept"),
        ("", None, "no concept"),
    ],
)
def test_what_names_no_concept(data: Path, text: str, category: str | None, said: str) -> None:
    with pytest.raises(WrongUse) as caught:
        concept_row(open_dataset(data).concepts, text, category)
    assert said in str(caught.value)


def test_an_image_by_its_name_or_its_end() -> None:
    names = ("a/one.png", "a/two.png", "b/two.png", "b/three.x.jpg", "one")
    assert [image_index(names, text) for text in ("a/two.png", "one.png", "three.x", "one")] == [1, 0, 3, 4]
    assert image_index(names, "four") is None
    assert image_index(names, "") is None
    with pytest.raises(WrongUse, match=r"'two\.png' is 2 images"):
        image_index(names, "two.png")


def test_all_concepts_of_an_image(data: Path) -> None:
    dataset = open_dataset(data)
    sample = dataset.read(4)
    found = held_concepts(dataset, Labels(4, sample.maps, sample.labels))
    assert [(dataset.concepts.name[h.row], h.coverage, h.whole) for h in found] == [
        ("tree", 1.0, True),
        ("wheel", 1 / 16, False),
    ]


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_images_of_a_concept_are_listed(data: Path) -> None:
    rows = cli.rows_of("data", "images", "data", "tree", folder=data.parent)
    assert rows == [
        {"image": "b/four.png", "split": "val", "coverage": "1"},
        {"image": "a/two.png", "split": "val", "coverage": "0.5"},
        {"image": "a/one.png", "split": "train", "coverage": "0.25"},
    ]
    found = cli.json_of("data", "images", "data", "3", "--limit", "1", "--split", "train", folder=data.parent)
    assert found["concept"] == {"number": 3, "name": "tree", "category": "object"}
    assert (found["held_by"], found["images"]) == (1, [{"image": "a/one.png", "split": "train", "coverage": 0.25}])
    assert cli.rows_of("data", "info", "data", "tree", folder=data.parent) == rows
    cli.failed(cli.nd("data", "images", "data", "tre", folder=data.parent), 2, "no concept 'tre'", "nearest: tree")
    seen = cli.on_terminal("data", "images", "data", "tree", "-n", "2", folder=data.parent)
    assert "2 of 3 images" in seen.text
    assert "tree (object): in 3 of 5 images" in seen.text


def test_pictures_of_a_concept_of_an_image_and_of_a_few(data: Path) -> None:
    place, before = data.parent, cli.files_in(data)
    for what, name in ((("tree",), "data-tree.png"), (("b/four.png",), "data-four.png"), ((), "data.png")):
        done = cli.nd("data", "show", "data", *what, folder=place)
        assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
        with Image.open(place / name) as picture:
            assert picture.info["Software"] == "ndissect"
            assert picture.width > 400
    assert cli.nd("data", "show", "data", "tree", folder=place).returncode == 0  # drawn anew
    Image.new("RGB", (3, 3)).save(place / "data-wheel.png")
    cli.failed(cli.nd("data", "show", "data", "wheel", folder=place), 2, "data-wheel.png exists", "--force")
    cli.failed(cli.nd("data", "show", "data", "tro", folder=place), 2, "no image and no concept 'tro'", "nearest: ")
    assert cli.files_in(data) == before


# --- the picture ----------------------------------------------------------------------------------------------------


def pixels_of(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(2).sum())


def test_each_concept_has_a_colour_and_a_number_and_the_rest_are_named() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    stripes = [NamedMask(f"concept {i}", np.arange(100)[:, None] // 10 == np.full((1, 100), i)) for i in range(10)]
    sheet = label_sheet([LabelPanel("object", grey, stripes)], "title", side=300)
    tint = [tuple(round(0.5 * 128 + 0.5 * c) for c in colour) for colour in COLOURS]
    drawn = [pixels_of(sheet, (r, g, b)) for r, g, b in tint]
    assert all(n > 300 * 30 / 2 for n in drawn)
    assert all(pixels_of(sheet, colour) > 50 for colour in COLOURS)  # the legend and the lines
    two = label_sheet([LabelPanel("object", grey, stripes[:2])], "title", side=300)
    assert sheet.height > two.height + 5 * 12
    assert pixels_of(two, tuple(tint[2])) == 0  # type: ignore[arg-type]


def test_an_image_without_masks_is_drawn_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    none = label_sheet([LabelPanel("", image, [NamedMask("x", np.zeros((4, 4), bool))])], "t", side=60)
    assert (np.asarray(none)[-40 - 4 - 12 - 24 : -4 - 12 - 24, 24:84] == image).all()
    assert label_sheet([], "nothing").width > 400


def test_of_a_folder_of_two_formats_the_one_that_is_named_is_shown(data: Path) -> None:
    write_folder(data, {"extra": {"": halves(1, 2)}}, names=None)
    for command in ("images", "show"):
        cli.failed(cli.nd("data", command, "data", "tree", folder=data.parent), 2, "2 formats", "--format broden")
        done = cli.nd("data", command, "data", "tree", "--format", "broden", folder=data.parent)
        assert done.returncode == 0, done.stderr
    assert (data.parent / "data-tree.png").is_file()
