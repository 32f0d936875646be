"""Which format a folder has, and what is said where none or several fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from broden_factory import Concept, Picture, write_broden
from mask_factory import halves, write_folder
from PIL import Image

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.formats import find_dataset, format_of, open_dataset, open_folder
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.store.errors import NDError, WrongUse


def broden(root: Path) -> Path:
    write_broden(root, [Picture(maps={"object": halves(1, 2)})], [Concept(1, "cat"), Concept(2, "dog")])
    return root


def test_a_folder_is_opened_by_the_format_that_it_fits(tmp_path: Path) -> None:
    assert isinstance(open_dataset(broden(tmp_path / "broden")), Broden)
    assert isinstance(open_dataset(write_folder(tmp_path / "mine", {"a": {"": halves(1, 2)}})), LabelledFiles)


def test_where_two_fit_the_user_says_which(tmp_path: Path) -> None:
    root = write_folder(broden(tmp_path / "both"), {"a": {"": halves(1, 2)}})
    with pytest.raises(WrongUse) as error:
        open_folder(root)
    assert "could be a data set of 2 formats: Broden (" in error.value.message
    assert error.value.hint == "Say which: --format broden or --format folder"
    assert isinstance(open_folder(root, key="broden"), Broden)
    assert isinstance(open_folder(root, key="folder"), LabelledFiles)


def test_a_format_that_is_unknown_has_near_names(tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as error:
        format_of(tmp_path, "brodenn")
    assert (error.value.message, error.value.hint) == ("There is no format brodenn", "Use broden")


def test_a_format_that_was_asked_for_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NDError, match="does not hold images/ and masks/"):
        open_folder(tmp_path, key="folder")
    with pytest.raises(NDError, match=r"index.csv: the file is missing"):
        open_folder(tmp_path, key="broden")


def test_annotations_are_masks_where_the_user_says_so(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}}, masks="annotations")
    with pytest.raises(NDError, match="is not a data set"):
        open_folder(root)
    assert len(open_folder(root, key="folder")) == 1


def test_where_none_fits_what_is_there_and_what_is_wanted_is_said(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    for name in "abcdefgh":
        (root / f"{name}.txt").write_text("")
    (root / "images").mkdir()
    with pytest.raises(NDError) as error:
        open_folder(root)
    assert error.value.message == f"{root} is not a data set: it holds a.txt, b.txt, c.txt, d.txt, e.txt, f.txt, ..."
    assert "index.csv, label.csv and images/ (Broden); or images/ and masks/" in error.value.hint
    assert "nd data init IMAGES MASKS" in error.value.hint


def test_an_archive_or_a_data_set_further_down_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"")
    with pytest.raises(NDError) as error:
        open_folder(tmp_path)
    assert error.value.hint == "Unpack mine.zip and pass the folder"
    inner = write_folder(tmp_path / "x" / "mine", {"a": {"": halves(1, 2)}})
    with pytest.raises(NDError) as error:
        open_folder(tmp_path)
    assert error.value.hint == f"Did you mean {inner}?"
    with pytest.raises(WrongUse, match="is an archive, a data set is a folder"):
        find_dataset(str(tmp_path / "mine.zip"))


def test_labels_that_are_no_maps_are_not_taken_for_masks(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": {}})
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1")
    with pytest.raises(NDError, match="is not a data set"):
        open_folder(tmp_path)


def test_label_maps_are_on_the_grid_that_is_asked_for(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2, (64, 64))}})
    assert open_dataset(root).grid == (112, 112)
    fine = open_dataset(root, grid=(64, 64))
    assert fine.grid == (64, 64)
    assert (fine.read(0).maps == halves(1, 2, (64, 64))).all()
    assert open_dataset(broden(tmp_path / "broden"), grid=(64, 64)).grid == (16, 16), "Broden's maps have one size"


def test_images_without_labels_are_told_what_labels_them(tmp_path: Path) -> None:
    folder = tmp_path / "photographs" / "summer"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    for root in (folder, folder.parent):
        with pytest.raises(WrongUse, match="holds images without labels") as error:
            open_folder(root)
        assert "--labeller NETWORK, or --colors" in error.value.hint
        assert "nd data init IMAGES MASKS" in error.value.hint


def test_what_a_data_set_may_be_is_said_in_few_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(NDError) as error:
        open_folder(tmp_path)
    assert len(error.value.hint) < 400
    for name in ("COCO panoptic", "Cityscapes", "ImageFolder"):
        assert name in error.value.hint


def test_annotations_without_a_table_may_be_masks(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": {"": halves(1, 2)}}, masks="annotations")
    with pytest.raises(NDError) as error:
        open_folder(root)
    assert "--format folder" in error.value.hint
