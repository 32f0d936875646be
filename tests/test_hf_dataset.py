"""Data sets that the library ``datasets`` has saved, read in place and by pyarrow alone."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_factory import SIZE, patches, png, save_json, write_saved

from ndissect.engine.data import hf_dataset
from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import FORMATS, open_folder
from ndissect.engine.data.images import BadFile, decode_image
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.store.errors import NDError

pytest.importorskip("pyarrow")

FEATURES = {
    "pixel_values": {"_type": "Image"},
    "annotation": {"_type": "Image"},
    "depth": {"_type": "Image"},
    "scene_category": {"names": ["kitchen", "street"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["indoor", "old"], "_type": "ClassLabel"}, "_type": "List"},
    "id": {"dtype": "int32", "_type": "Value"},
}
PHOTOS = [png(np.random.default_rng(i).integers(0, 256, (*SIZE, 3))) for i in range(5)]
MAPS = [patches((1, 0, 0, 9, 9), (2, i, 10, i + 8, 20), (255, 20, 0, 24, 32)) for i in range(5)]
ROWS = {
    "pixel_values": PHOTOS,
    "annotation": [png(numbers) for numbers in MAPS],
    "depth": [None] * 5,
    "scene_category": [0, 1, 1, -1, 0],
    "tags": [[0], [0, 1], [], [1], [1]],
    "id": list(range(5)),
}
NAMES = {"0": "background", "1": "cup", "2": "table"}


def saved(folder: Path, **changes: Any) -> Path:
    write_saved(folder, FEATURES, ROWS | changes, shards=2)
    save_json(folder / "id2label.json", NAMES)
    return folder


def whole(data: LabelledFiles, index: int) -> np.ndarray:
    return data.on_grid(SIZE).read_labels(index).maps


def test_images_maps_and_classes_of_a_saved_data_set(tmp_path: Path) -> None:
    folder = saved(tmp_path / "rooms")
    assert [data_format.key for data_format in FORMATS if data_format.owns(folder)] == ["hf"]
    data = open_folder(folder)
    assert isinstance(data, LabelledFiles)
    assert data.names[3] == "0000003"
    assert data.concepts.name == ("cup", "table", "kitchen-s", "street-s", "indoor", "old")
    assert [data.concepts.category_of(row) for row in range(6)] == (
        ["object", "object", "scene", "scene", "class", "class"]
    )
    for index in range(5):
        assert (whole(data, index)[0] == np.where(MAPS[index] == 255, 0, MAPS[index])).all()
        assert (data.read(index).image == decode_image(PHOTOS[index], "photo")).all()
    assert [data.read(index).labels for index in range(5)] == [(3, 5), (4, 5, 6), (4,), (6,), (3, 6)]
    assert data.image_sizes.tolist() == [list(SIZE)] * 5
    other = pickle.loads(pickle.dumps(data))
    assert other.read(4).digest == data.read(4).digest
    assert check_dataset(folder) == []


def test_each_split_is_a_folder(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_saved(tmp_path / part, FEATURES, ROWS)
    save_json(tmp_path / "dataset_dict.json", {"splits": ["train", "test"]})
    # 0 is a concept of its own here: every number moves up.
    save_json(tmp_path / "id2label.json", {"0": "wall", "1": "cup", "2": "table"})
    data = open_folder(tmp_path)
    assert data.splits == ("train",) * 5 + ("val",) * 5
    assert data.names[5] == "test/0000000"
    assert data.concepts.name[:3] == ("wall", "cup", "table")
    assert isinstance(data, LabelledFiles)
    assert (whole(data, 5)[0] == np.where(MAPS[0] == 255, 0, MAPS[0] + 1)).all()


def test_what_the_library_itself_saves(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "note": datasets.Value("string")}
    )
    cells = [{"bytes": photo, "path": None} for photo in PHOTOS]
    rows = {"img": cells, "label": [0, 1, 1, 0, 0], "note": ["-"] * 5}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "pets", num_shards=2)
    data = open_folder(tmp_path / "pets")
    assert (data.concepts.name, data.concepts.categories) == (("cat", "dog"), ("class",))
    assert [data.read(index).labels for index in range(5)] == [(1,), (2,), (2,), (1,), (1,)]
    assert (data.read(2).image == decode_image(PHOTOS[2], "photo")).all()


def test_faults_are_told_with_file_and_row(tmp_path: Path) -> None:
    maps = [png(np.full(SIZE, 7)), b"no image", png(np.ones((5, 9))), None, png(MAPS[4])]
    photos = [PHOTOS[0], PHOTOS[1], PHOTOS[2], PHOTOS[3], None]
    told = [str(problem) for problem in check_dataset(saved(tmp_path, annotation=maps, pixel_values=photos))]
    first, second = "data-00000-of-00002.arrow", "data-00001-of-00002.arrow"
    assert told == [
        f"{first}, row 0, column annotation: holds 7, not in id2label.json",
        f"{first}, row 1, column annotation: not a readable label map: unknown format",
        f"{first}: the mask is 5 x 9 pixels, the image 24 x 32: they must show the same, in the same shape",
        f"{second}, row 0: column annotation holds no image, or a path alone",
        f"{second}, row 1: column pixel_values holds no image, or a path alone",
    ]


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("id2label.json", None, "the file is missing: it names the numbers of the label maps in column annotation"),
        ("id2label.json", {"one": "cup"}, "'one' is no number of a label map with a name"),
        ("dataset_info.json", {}, "the file has no 'features'"),
        ("dataset_info.json", {"features": {"id": FEATURES["id"]}}, "no column of images; the columns are id"),
        ("dataset_info.json", {"features": {"img": {"_type": "Image"}}}, "nothing labels the images of img"),
        ("state.json", {"_data_files": [{"filename": "../x.arrow"}]}, "the file '../x.arrow' leads out of its folder"),
        ("state.json", {"_data_files": [{"filename": "x.arrow"}]}, "not a readable Arrow file"),
        ("state.json", {"_data_files": []}, "the data set has no rows"),
        ("data-00001-of-00002.arrow", "[]", "not a readable Arrow file"),
    ],
)
def test_tables_that_are_wrong_are_told(tmp_path: Path, file: str, content: Any, what: str) -> None:
    saved(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(BadFile) as failed:
        hf_dataset.open_hf_dataset(tmp_path)
    assert what in failed.value.message
    found: list[BadFile] = []
    hf_dataset.open_hf_dataset(tmp_path, found.append)
    assert any(what in fault.message for fault in found)


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    saved(tmp_path)
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from ndissect.tui.cli.main import main\n"
        f"sys.argv = ['nd', 'data', 'info', {str(tmp_path)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "need pyarrow, which is not installed" in done.stderr
    assert "pip install 'ndissect[datasets]'" in done.stderr


def test_nothing_but_pyarrow_reads_it(tmp_path: Path) -> None:
    saved(tmp_path)
    program = (
        "import sys; from pathlib import Path; from ndissect.engine.data.formats import open_folder\n"
        f"open_folder(Path({str(tmp_path)!r})).read(0); assert 'datasets' not in sys.modules, 'it was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_arrow_file_whose_offsets_lie_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path) / "data-00000-of-00002.arrow"
    whole_file = path.read_bytes()
    at = whole_file.index(PHOTOS[0])
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole_file)
        for place in rng.integers(0, at, 6).tolist():
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        hf_dataset._table.cache_clear()
        with contextlib.suppress(NDError):
            data = open_folder(tmp_path)
            for index in range(len(data)):
                data.read(index)
