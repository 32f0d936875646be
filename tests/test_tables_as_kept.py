"""Tables that pandas or a spreadsheet has written again are read as what they were, and the user is told."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cli
import numpy as np
import pytest
from broden_factory import Concept, Picture, edit_csv, read_csv, write_broden, write_csv

from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.info import describe
from ndissect.engine.data.tables import parse_table
from ndissect.store.errors import NDError
from ndissect.store.table2017 import read_table

TREE, ROAD, STREET = 3, 4, 7
CONCEPTS = [Concept(TREE, "tree"), Concept(ROAD, "road"), Concept(STREET, "street-s", "scene")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tree = np.zeros((16, 16), int)
    tree[:8] = TREE
    tree[8:] = ROAD
    pictures = [
        Picture({"object": tree}, {"scene": [STREET]}, name="a/one.png", split="train"),
        Picture({"object": tree.T}, name="a/two.png", split="val"),
        Picture(labels={"scene": [STREET]}, name="b/three.png", split="train"),
    ]
    return write_broden(tmp_path / "data", pictures, CONCEPTS)


def rewrite(data: Path, change: object, table: str = "index.csv") -> None:
    header, *rows = read_csv(data / table)
    header, *rows = change(header, rows)  # type: ignore[operator]
    write_csv(data / table, header, rows)


def same_samples(one: Path, names: tuple[str, ...], splits: tuple[str, ...], digests: list[int]) -> tuple[str, ...]:
    """Opens the data set, which must be as it was, and returns its notes."""
    dataset = open_dataset(one)
    assert (dataset.names, dataset.splits) == (names, splits)
    assert [dataset.read(i).digest for i in range(len(dataset))] == digests
    return dataset.notes


def nameless(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [["", *header], *([str(i), *row] for i, row in enumerate(rows))]


def unnamed(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [["Unnamed: 0", *header], *([str(i), *row] for i, row in enumerate(rows))]


def own_columns(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [[*header, "photographer", "year"], *([*row, "me", "1999"] for row in rows)]


def floats(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    sizes, scene = [header.index(c) for c in ("ih", "iw", "sh", "sw")], header.index("scene")
    for row in rows:
        for column in (*sizes, scene):
            row[column] += ".0" * bool(row[column])
    return [header, *rows]


def backslashes(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [header, *([cell.replace("/", "\\") for cell in row] for row in rows)]


def empty_rows(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    nothing = [""] * len(header)
    return [header, rows[0], nothing, *rows[1:], nothing, nothing]


def empty_columns(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [[*header, "", ""], *([*row, "", ""] for row in rows)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nameless, ["index.csv", "column without a name"]),
        (unnamed, ["index.csv", "column without a name"]),
        (own_columns, ["index.csv", "'photographer', 'year'", "no category"]),
        (floats, []),
        (backslashes, ["index.csv", "backslashes", "3 rows"]),
        (empty_rows, []),
        (empty_columns, []),
    ],
)
def test_a_table_written_again_is_the_same_data_set(data: Path, change: object, words: list[str]) -> None:
    before = open_dataset(data)
    digests = [before.read(i).digest for i in range(len(before))]
    assert before.notes == ()
    rewrite(data, change)
    notes = same_samples(data, before.names, before.splits, digests)
    assert len(notes) == bool(words)
    assert all(word in notes[0] for word in words)
    assert check_dataset(data) == []
    assert [c.name for c in describe(data).categories if c.images] == ["object", "scene"]


def test_every_table_may_have_row_numbers_and_floats(data: Path) -> None:
    for table in ("label.csv", "category.csv", "c_object.csv"):
        rewrite(data, nameless, table)
    edit_csv(data / "label.csv", 0, "number", "3.0")
    edit_csv(data / "c_object.csv", 0, "number", "3.0")
    dataset = open_dataset(data)
    assert dataset.concepts.number.tolist() == [TREE, ROAD, STREET]
    assert [note.split(" ")[0] for note in dataset.notes] == ["label.csv", "category.csv", "c_object.csv"]


@pytest.mark.parametrize(("word", "split"), [("test", "val"), ("Validation", "val"), ("training", "train")])
def test_other_words_for_a_split_are_told(data: Path, word: str, split: str) -> None:
    edit_csv(data / "index.csv", 2, "split", word)
    dataset = open_dataset(data)
    assert dataset.splits == ("train", "val", split)
    assert dataset.notes == (f"index.csv: split '{word}' (1 image) counts as {split}",)


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_spreadsheets_semicolons_and_decimal_commas(data: Path, separator: str, name: str) -> None:
    before = open_dataset(data)
    digests = [before.read(i).digest for i in range(len(before))]
    coverage = before.coverage.tolist()  # type: ignore[attr-defined]
    for path in data.glob("*.csv"):
        rows = read_csv(path)
        if separator == ";" and "coverage" in rows[0]:
            at = rows[0].index("coverage")
            rows[1:] = [[*row[:at], row[at].replace(".", ","), *row[at + 1 :]] for row in rows[1:]]
        text = io.StringIO()
        csv.writer(text, delimiter=separator).writerows(rows)
        path.write_text(text.getvalue(), "utf-8-sig")
    notes = same_samples(data, before.names, before.splits, digests)
    assert notes[0] == f"index.csv is separated by {name}, and read so"
    assert open_dataset(data).coverage.tolist() == coverage  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["..\\secret.png", "a\\..\\..\\b.png", "\\etc\\b.png", "C:\\b.png"])
def test_backslashes_lead_nowhere_else(data: Path, path: str) -> None:
    edit_csv(data / "index.csv", 1, "image", path)
    with pytest.raises(NDError, match="leads out of"):
        open_dataset(data)


def test_a_missing_column_names_those_that_there_are() -> None:
    faults: list[BadFile] = []
    parse_table("index.csv", b"image,height,IW\na.png,3,4\n", ("image", "iw"), faults.append)
    assert [fault.message for fault in faults] == [
        "index.csv: no column iw in the header (image, height, IW); is iw called 'IW'?"
    ]


def test_notes_reach_the_user(data: Path) -> None:
    rewrite(data, own_columns)
    edit_csv(data / "index.csv", 1, "split", "test")
    told: list[str] = []
    open_dataset(data, told.append)
    assert len(told) == 2
    assert tuple(told) == open_folder(data).notes
    for command in ("info", "check"):
        done = cli.nd("data", command, data, folder=data.parent)
        assert done.returncode == 0
        assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [f"note: {t}" for t in told]


# --- published tables whose IoUs were rounded -----------------------------------------------------------------------

TABLE = """unit,category,label,score,object-label,object-truth,object-activation,object-intersect,object-iou
1,object,tree,0.25,tree,80,45,25,{}
2,object,car,0.5,car,12,12,7,{}
"""


@pytest.mark.parametrize(("first", "second", "decimals"), [("0.25", "0.4118", 4), ("0.25", "0.41", 2)])
def test_rounded_ious_are_computed_anew(tmp_path: Path, first: str, second: str, decimals: int) -> None:
    (tmp_path / "t.csv").write_text(TABLE.format(first, second))
    dissection = read_table(tmp_path / "t.csv", "conv5")
    assert dissection.layers[0].best.iou.ravel().tolist() == [0.25, 7 / 17]
    assert dissection.provenance["imported"]["iou_decimals"] == decimals


def test_the_import_says_that_they_were_rounded(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE.format("0.250", "0.412"))
    done = cli.nd("import", "t.csv", folder=tmp_path)
    assert done.returncode == 0
    assert "note: the IoUs of t.csv are rounded to 3 decimals" in done.stderr


@pytest.mark.parametrize(("first", "second"), [("0.25", "0.4218"), ("0.2", "0.4118"), ("0.25", "0.4"), ("0.3", "nan")])
def test_ious_that_contradict_their_counts_are_refused(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "t.csv").write_text(TABLE.format(first, second))
    with pytest.raises(NDError, match=r"line [23]: object-iou"):
        read_table(tmp_path / "t.csv", "conv5")
