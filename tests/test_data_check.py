"""``nd data check``: everything that is wrong is told, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, edit_csv, read_csv, save_map, save_png, write_broden, write_csv
from PIL import Image

from ndissect.engine.data.check import Problem, check_dataset
from ndissect.store.errors import NDError

MINI = Path(__file__).resolve().parents[2] / "shared" / "data" / "broden_mini"

MAP = np.full((16, 16), 3)
CONCEPTS = [Concept(3, "tree"), Concept(7, "street-s", "scene")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures = [Picture({"object": [MAP, MAP]}, {"scene": [7]}, name=f"src/{i}.png") for i in range(6)]
    return write_broden(tmp_path / "data", pictures, CONCEPTS)


def test_a_sound_data_set_has_no_problem(data: Path) -> None:
    assert check_dataset(data) == []


@pytest.mark.skipif(not MINI.is_dir(), reason="the real data of shared/data/broden_mini are not here")
def test_the_real_data_have_no_problem() -> None:
    assert check_dataset(MINI) == []


def test_every_problem_is_listed_in_the_order_of_the_table(data: Path) -> None:
    images = data / "images" / "src"
    edit_csv(data / "index.csv", 5, "image", "src/4.png")
    edit_csv(data / "index.csv", 1, "scene", "8")
    edit_csv(data / "label.csv", 1, "number", "seven")
    (images / "0.png").unlink()
    (images / "0_object_1.png").unlink()
    path = images / "1.png"
    path.write_bytes(path.read_bytes()[:-40])
    save_map(images / "1_object_0.png", np.full((16, 16), 900))
    save_map(images / "2_object_0.png", np.full((8, 8), 3))
    Image.new("LA", (16, 16)).save(images / "2_object_1.png")
    save_png(images / "3.png", np.zeros((31, 32, 3), np.uint8))

    problems = check_dataset(data)
    expected = [
        ("label.csv", "row 3, column number: 'seven'"),
        ("c_scene.csv", "number 7 is not in label.csv"),
        ("index.csv", "row 7, column image: src/4.png is already in row 6"),
        ("images/src/0.png", "missing"),
        ("index.csv", "row 2, column scene: src/0.png has label 7"),
        ("images/src/0_object_1.png", "missing"),
        ("images/src/1.png", "not a readable image"),
        ("index.csv", "row 3, column scene: src/1.png has label 8"),
        ("images/src/1_object_0.png", "holds 900"),
        ("index.csv", "row 4, column scene: src/2.png has label 7"),
        ("images/src/2_object_0.png", "8 x 8 pixels, index.csv says 16 x 16"),
        ("images/src/2_object_1.png", "8-bit greyscale"),
        ("images/src/3.png", "31 x 32 pixels, index.csv says 32 x 32"),
        *[("index.csv", f"row {r}, column scene") for r in (5, 6, 7)],
    ]
    assert len(problems) == len(expected), "\n".join(map(str, problems))
    for problem, (file, words) in zip(problems, expected, strict=True):
        assert problem.file == file
        assert words in problem.what
    assert str(Problem("a.png", "missing")) == "a.png: missing"


def test_the_answer_does_not_depend_on_the_number_of_threads(data: Path) -> None:
    for i in (1, 4):
        (data / "images" / "src" / f"{i}.png").unlink()
    found = [check_dataset(data, workers=n) for n in (1, 2, 16)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2


def test_faulty_rows_do_not_hide_the_others(data: Path) -> None:
    header, *rows = read_csv(data / "index.csv")
    write_csv(data / "index.csv", header, [rows[0][:-1], *rows[1:3], ["../x.png", *rows[3][1:]], *rows[4:]])
    edit_csv(data / "index.csv", 4, "ih", "?")
    (data / "images" / "src" / "5.png").unlink()
    problems = check_dataset(data)
    assert [p.file for p in problems] == ["index.csv"] * 3 + ["images/src/5.png"]
    for problem, words in zip(problems, ["row 2", "row 5, column image", "row 6, column ih", "missing"], strict=True):
        assert words in problem.what


@pytest.mark.parametrize("table", ["index.csv", "label.csv"])
def test_a_table_that_is_no_table_is_a_problem_not_a_crash(data: Path, table: str) -> None:
    (data / table).write_bytes(b"\xff\xfe\x00")
    problems = check_dataset(data)
    assert problems[0].file == table
    (data / table).unlink()
    assert any(p == Problem(table, "the file is missing") for p in check_dataset(data))


def test_an_empty_data_set_is_a_problem(data: Path) -> None:
    write_csv(data / "index.csv", read_csv(data / "index.csv")[0], [])
    assert [p.file for p in check_dataset(data)] == ["index.csv"]


def test_a_frequency_that_disagrees_is_no_problem(data: Path) -> None:
    edit_csv(data / "label.csv", 0, "frequency", "12345")
    assert check_dataset(data) == []


def test_missing_category_files_are_no_problem(data: Path) -> None:
    for path in [*data.glob("c_*.csv"), data / "category.csv"]:
        path.unlink()
    assert check_dataset(data) == []


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NDError, match="not a data set"):
        check_dataset(tmp_path)


def test_progress_counts_every_image(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset(data, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]
