"""PASCAL-Part, read in place, and the MATLAB files that it consists of."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_factory import SIZE, patches, save_image
from mat_factory import mat_file

from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import FORMATS, open_folder
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.mat_file import BadMat, read_mat
from ndissect.engine.data.pascal_part import PARTS
from ndissect.engine.data.voc import CLASSES

LIMIT = 1 << 24


def mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    return patches((1, top, left, bottom, right)).astype(np.uint8)


DOG = {
    "class": "dog",
    "class_ind": 12,
    "mask": mask(4, 4, 20, 20),
    "parts": [
        {"part_name": "head", "mask": mask(4, 4, 10, 10)},
        {"part_name": "leye", "mask": mask(5, 5, 7, 7)},
        {"part_name": "reye", "mask": mask(5, 8, 7, 10)},
    ],
}
CAR = {"class": "car", "class_ind": 7, "mask": mask(0, 22, 9, 32), "parts": []}
ONE = {"part_name": "wheel_1", "mask": mask(6, 22, 9, 25)}


def write(folder: Path, annotations: dict[str, bytes]) -> Path:
    (folder / "Annotations_Part").mkdir(parents=True)
    for name, data in annotations.items():
        save_image(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations_Part" / f"{name}.mat").write_bytes(data)
    return folder


def annotation(*objects: Any, **how: Any) -> bytes:
    return mat_file("anno", {"imname": "2008_000001", "objects": list(objects)}, **how)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [True, False])
def test_objects_and_parts_are_concepts(tmp_path: Path, order: str, packed: bool) -> None:
    several = annotation(DOG, CAR, packed=packed, order=order)
    single = annotation({**CAR, "parts": [ONE]}, packed=packed, order=order)
    folder = write(tmp_path, {"2008_000001": several, "2008_000002": single})
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_000001\n")
    (lists / "val.txt").write_text("2008_000002\n")
    assert [data_format.key for data_format in FORMATS if data_format.owns(folder)] == ["pascal-part"]
    data = open_folder(folder)
    assert isinstance(data, LabelledFiles)
    assert data.splits == ("train", "val")
    assert (len(data.concepts), data.concepts.categories) == (len(CLASSES) + len(PARTS), ("object", "part"))
    number = dict(zip(data.concepts.name, data.concepts.number.tolist(), strict=True))

    def shown(index: int) -> dict[str, np.ndarray]:
        maps = data.on_grid(SIZE).read_labels(index).maps
        return {name: (maps == n).any(0) for name, n in number.items() if (maps == n).any()}

    expected = {"dog": mask(4, 4, 20, 20), "car": CAR["mask"], "head": mask(4, 4, 10, 10)}
    expected["eye"] = mask(5, 5, 7, 7) | mask(5, 8, 7, 10)
    first = shown(0)
    assert set(first) == set(expected)
    assert all((first[name] == expected[name]).all() for name in expected)
    second = shown(1)
    assert set(second) == {"car", "wheel"}
    assert (second["wheel"] == ONE["mask"]).all()
    assert check_dataset(folder) == []


def test_files_that_are_wrong_are_told(tmp_path: Path) -> None:
    other = {**CAR, "mask": np.ones((9, 9), np.uint8)}
    files = {
        "a": annotation({**CAR, "class": "unicorn"}),
        "b": annotation({**CAR, "parts": [{**ONE, "part_name": "horn_rim"}]}),
        "c": annotation(CAR, other),
        "d": mat_file("else", CAR),
        "e": b"no such file",
        "f": annotation(CAR)[:-40],
        "g": annotation({**CAR, "mask": "none"}),
        "h": annotation(CAR),
    }
    told = {problem.file: problem.what for problem in check_dataset(write(tmp_path, files))}
    assert {file[-5]: what for file, what in told.items()} == {
        "a": "an object of class 'unicorn', which is none of VOC's",
        "b": "a part called 'horn_rim', which is none of PASCAL-Part's",
        "c": "its masks have 2 sizes",
        "d": "it has no structure 'anno'",
        "e": "not a MATLAB file of version 5",
        "f": "it is cut short",
        "g": "an object or a part without its mask",
    }


def test_what_unpacks_to_more_than_the_limit_is_refused() -> None:
    packed = zlib.compress(bytes(50_000_000))
    data = annotation(CAR)[:128] + struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(BadMat, match="unpacks to more than 16,777,216 bytes"):
        read_mat(data, LIMIT)


def test_damaged_files_are_read_or_refused() -> None:
    rng = np.random.default_rng(0)
    whole = annotation(DOG, CAR, packed=False)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4).tolist():
            data[place] = int(rng.integers(256))
        with contextlib.suppress(BadMat):
            read_mat(bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.3 else data), LIMIT)


def test_what_scipy_writes_is_read() -> None:
    scipy_io = pytest.importorskip("scipy.io")
    parts = np.zeros((1, 2), [("part_name", object), ("mask", object)])
    for column, name in enumerate(("head", "tail")):
        parts[0, column] = (name, np.full((5, 7), column, np.uint8))
    for packed in (False, True):
        file = io.BytesIO()
        content = {
            "anno": {"imname": "a", "objects": {"class": "cat", "class_ind": 8, "parts": parts, "cells": [1, "b"]}}
        }
        scipy_io.savemat(file, content, do_compression=packed)
        read = read_mat(file.getvalue(), LIMIT)["anno"]["objects"]
        assert (read["class"], float(read["class_ind"][0, 0])) == ("cat", 8)
        assert [part["part_name"] for part in read["parts"]] == ["head", "tail"]
        assert (read["parts"][1]["mask"] == np.ones((5, 7))).all()
