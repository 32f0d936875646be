"""Images that say their class: folders, tables, labels of concept data; and what names mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden
from class_factory import COLORS, picture, write_folders, write_labelled
from PIL import Image

from ndissect.engine.data.class_images import labels_of_data, match_images, open_class_images
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.output_names import read_output_names
from ndissect.engine.data.pack import pack
from ndissect.store.class_matching import ClassMatching
from ndissect.store.errors import NDError, WrongUse

MATCHING = ClassMatching(COLORS)


def truth_of(path: Path, matching: ClassMatching = MATCHING) -> dict[str, int]:
    images = open_class_images(str(path))
    truth = match_images(images, matching)
    assert truth is not None
    return dict(zip(images.dataset.names, truth.number.tolist(), strict=True))


# What texts mean


@pytest.mark.parametrize(
    ("names", "text", "number"),
    [
        (("street-s", "kitchen-s"), "kitchen", 1),
        (("kitchen", "street"), "/s/street", 1),
        (("/s/street", "/k/kitchen"), "Kitchen-s", 1),
        (("night_sky", "polka-dotted"), "Polka Dotted", 1),
        (("a", "apartment_building/outdoor"), "apartment building-outdoor", 1),
        (("goldfish, Carassius auratus", "tench, Tinca tinca"), "tinca_tinca", 1),
        (("crane", "Crane"), "Crane", 1),
        (("a", "b", "c"), "002", 2),
        (("1", "0"), "0", 1),
    ],
)
def test_a_class_is_found_whatever_ending_or_case(names: tuple[str, ...], text: str, number: int) -> None:
    assert ClassMatching(names).number(text) == number


def test_unknown_and_ambiguous_names_are_told_with_what_to_do() -> None:
    matching = ClassMatching(("crane", "kitchen-s", "crane"))
    with pytest.raises(WrongUse, match="2 classes are called 'crane'\nsay which by its number: 0, 2"):
        matching.number("crane")
    with pytest.raises(WrongUse, match=r"no class 'kitchn'.*\nnearest: kitchen-s"):
        matching.number("kitchn")
    for text in ("3", "-1", "", "1.5"):
        with pytest.raises(WrongUse, match="no class"):
            matching.number(text)


def test_word_net_ids_name_classes() -> None:
    matching = ClassMatching(("tench", "goldfish"), ("n01440764", "n01443537"))
    assert matching.number("n01443537") == 1


# Folders


def test_a_folder_a_class_by_name_number_and_split(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "a", {"train/Red": [0, 0], "val/Red": [0], "train/2": [2]})
    images = open_class_images(str(root))
    assert truth_of(root) == {"train/Red/0.png": 0, "train/Red/1.png": 0, "val/Red/0.png": 0, "train/2/0.png": 2}
    assert images.split
    assert dict(zip(images.dataset.names, images.dataset.splits, strict=True))["val/Red/0.png"] == "val"
    plain = open_class_images(str(write_folders(tmp_path / "b", {"red": [0], "blue": [2]})))
    assert not plain.split


def test_what_is_left_out_and_what_has_no_image_is_counted(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"red": [0, 0], "mauve": [1, 1, 1], "blue": [2]})
    truth = match_images(open_class_images(str(root)), MATCHING)
    assert truth is not None
    assert sorted(truth.number.tolist()) == [-1, -1, -1, 0, 0, 2]
    left_out, missing = truth.notes
    assert left_out == "3 of 6 images are of no class of the network, and left out: mauve is none"
    assert missing == "1 of 3 classes have no image: green"


def test_no_class_at_all_names_both_sides(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"bleu": [2], "rouge": [0]})
    with pytest.raises(WrongUse) as error:
        match_images(open_class_images(str(root)), MATCHING)
    assert "bleu, rouge" in error.value.message
    assert "red, green, blue" in error.value.message
    assert "is bleu blue?" in error.value.hint
    assert "--classes" in error.value.hint


def test_a_folder_that_two_classes_are_called_is_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"crane": [0], "red": [0]})
    with pytest.raises(WrongUse, match="2 classes are called so\ncall it by its number, one of 0, 2"):
        match_images(open_class_images(str(root)), ClassMatching(("crane", "red", "crane")))


def test_loose_images_and_single_ones_have_no_class(tmp_path: Path) -> None:
    write_folders(tmp_path, {"red": [0, 1]})
    for path in (str(tmp_path / "red"), str(tmp_path / "red" / "0.png")):
        images = open_class_images(path)
        assert match_images(images, MATCHING) is None
    several = open_class_images([str(tmp_path / "red" / f"{n}.png") for n in (1, 0)])
    assert len(several) == 2
    assert np.array_equal(several.dataset.read(0).image, picture(1, 1))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("red")
    for path, said in ((tmp_path / "notes.txt", "is no image"), (tmp_path / "gone", "no file or folder")):
        with pytest.raises(WrongUse, match=said):
            open_class_images(str(path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongUse, match="no folder with images\n--images takes a folder"):
        open_class_images(str(tmp_path / "empty"))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(NDError, match=r"a\.png"):
        open_class_images(str(tmp_path / "a.png")).dataset.read(0)
    write_labelled(tmp_path / "broden")
    with pytest.raises(WrongUse, match="data set of the format Broden\nname it with --data"):
        open_class_images(str(tmp_path / "broden"))


# Tables


def table(folder: Path, text: str) -> Path:
    write_folders(folder, {"some": [0, 1, 2]})
    (folder / "classes.csv").write_text(text, encoding="utf-8")
    return folder / "classes.csv"


def test_a_table_of_images(tmp_path: Path) -> None:
    path = table(tmp_path, "image,class,split\nsome/0.png,red,train\nsome/1.png,1,test\nsome/2.png,,val\n")
    assert truth_of(path) == {"some/0.png": 0, "some/1.png": 1, "some/2.png": -1}
    images = open_class_images(str(path))
    assert images.split
    assert images.dataset.splits == ("train", "val", "val")
    (tmp_path / "b").mkdir()
    assert not open_class_images(str(table(tmp_path / "b", "class;image\nred;some/0.png\n"))).split


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the table is empty"),
        ("image,class\n", "lists no image"),
        ("file,label\nsome/0.png,red\n", "no column image, class"),
        ("image,class\n../x.png,red\n", "row 2, column image: '../x.png' leads out of the folder"),
        ("image,class\n/etc/x.png,red\n", "leads out of the folder"),
        ("image,class\nsome/0.png,red\nsome/0.png,blue\n", "already in row 2"),
        ("image,class,split\nsome/0.png,red,sometimes\n", "'sometimes' is neither train nor val"),
        ("image,class\nsome/0.png,red,blue\n", "3 cells, the header has 2"),
        ("image,class\n,red\n", "no image"),
    ],
)
def test_faults_of_a_table_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WrongUse, match=said) as error:
        open_class_images(str(table(tmp_path, text)))
    assert "image,class[,split]" in error.value.hint


# Labels of concept data


def test_labels_of_whole_images_are_classes_and_no_map_is_opened(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "data")
    for path in (root / "images").rglob("*.png"):
        if "object" in path.name:
            path.write_bytes(b"")
    images = labels_of_data(open_dataset(root))
    truth = match_images(images, ClassMatching(("Crimson_Red", "green", "blue")))
    assert truth is not None
    assert truth.number.tolist() == [-1, 1, 2, 0, 1, 2, 0, 1, 2]  # the first has two
    assert images.split
    sample = images.dataset.read(4)
    assert sample.maps.shape == (0, 1, 1)
    assert np.array_equal(sample.image, open_dataset_image(root, 4))


def open_dataset_image(root: Path, index: int) -> np.ndarray:
    dataset = open_dataset(root)
    return np.asarray(Image.open(root / "images" / dataset.names[index]).convert("RGB"))


def test_labels_that_are_no_classes_say_nothing(tmp_path: Path) -> None:
    images = labels_of_data(open_dataset(write_labelled(tmp_path / "data")))
    assert match_images(images, ClassMatching(("cat", "dog"))) is None
    assert match_images(images, ClassMatching(("green", "dog"))) is None  # one class alone is told from none
    unlabelled = write_broden(
        tmp_path / "b", [Picture(maps={"object": np.ones((8, 8), np.uint16)})], [Concept(1, "tree")]
    )
    assert match_images(labels_of_data(open_dataset(unlabelled)), MATCHING) is None


def test_packed_data_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    root = write_labelled(tmp_path / "data")
    before = labels_of_data(open_dataset(root))
    pack(open_folder(root))
    packed = open_dataset(root)
    assert type(packed).__name__ == "PackedDataset"
    after = labels_of_data(packed)
    assert after.names == before.names
    assert after.labels == before.labels
    run = after.dataset.read_run([0, 1, 2])
    assert run is not None
    assert np.array_equal(run.pixels[2], before.dataset.read(2).image)


# Names of outputs


@pytest.mark.parametrize(
    ("name", "text", "names", "ids"),
    [
        ("a.txt", "tench, Tinca tinca\ngoldfish\n", ("tench, Tinca tinca", "goldfish"), ()),
        ("b.csv", "index,name\n1,goldfish\n0,tench\n", ("tench", "goldfish"), ()),
        ("c.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("tench, Tinca tinca", "goldfish"), "ids"),
        ("d.csv", "number,name,wnid\n0,tench,n01440764\n1,goldfish,n01443537\n", ("tench", "goldfish"), "ids"),
        ("e.json", '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("tench", "goldfish"), "ids"),
        ("f.json", '["background", "cat"]', ("background", "cat"), ()),
    ],
)
def test_files_of_names(tmp_path: Path, name: str, text: str, names: tuple[str, ...], ids: object) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    read = read_output_names(tmp_path / name)
    assert read.names == names
    assert read.ids == (("n01440764", "n01443537") if ids else ())


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "names no output"), ("number,name\n0,a\n2,c\n", "leaves out 1"), ("number,name\n0,a\n0,b\n", "both")],
)
def test_files_that_leave_out_an_output(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "n.csv").write_text(text, encoding="utf-8")
    with pytest.raises(WrongUse, match=said) as error:
        read_output_names(tmp_path / "n.csv")
    assert error.value.hint.startswith("--classes")
    with pytest.raises(WrongUse, match="there is no file"):
        read_output_names(tmp_path / "gone")
