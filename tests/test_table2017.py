"""The published tables of 2017 become stores that give every published number, and a store becomes such a table."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import DEAD, assert_same, dissection, read_back, visit, write_small

from ndissect.store.errors import NDError
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.scores import Best, detectors, label_units, unique_best_label, unique_per_category
from ndissect.store.table2017 import CATEGORIES, read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.tables.units import unit_json

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not here")

#: units; detectors; distinct labels a category, summed, IoU > 0.04; distinct best labels, IoU >= 0.04.
FIGURES = {
    "caffe_reference_imagenet": (256, 97, 61, 50),
    "caffe_reference_places205": (256, 107, 79, 60),
    "caffe_reference_places365": (256, 118, 91, 72),
    "ResNet-152-model_imagenet": (2048, 1325, 242, 197),
    "ResNet-152-model_places365": (2048, 1452, 347, 278),
}


def nd(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("nd"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def exported(path: Path, layer: str) -> str:
    with Store(path) as store:
        out = io.StringIO()
        write_table(store.layer(layer), out)
        return out.getvalue()


def named(view: LayerView) -> list[list[tuple[str, int, int, float] | None]]:
    """Best, by category in alphabetical order, with names for rows."""
    concepts, best = view.store.concepts, view.best
    return [
        [
            (concepts.name[c], int(best.intersection[u, k]), int(best.area[u, k]), float(best.iou[u, k]))
            if (c := int(best.concept[u, k])) >= 0
            else None
            for k in np.argsort(concepts.categories)
        ]
        for u in range(view.units)
    ]


# --- the published tables -------------------------------------------------------------------------------------------


@published
@pytest.mark.parametrize("name", FIGURES)
def test_a_published_table_gives_the_published_figures_through_the_command_line(tmp_path: Path, name: str) -> None:
    done = nd(tmp_path, "import", PUBLISHED / f"{name}.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{name}.nd.h5\n"
    shown = json.loads(nd(tmp_path, "inspect", name, "-s", f"{name}.nd.h5", "--json").stdout)
    s = shown["summary"]
    assert (s["units"], s["detectors"], s["unique_per_category"], s["unique_best_label"]) == FIGURES[name]
    assert sum(s["by_category"].values()) == s["unique_per_category"]
    assert len(shown["units"]) == s["units"]
    if name == "caffe_reference_places365":
        best = [(u["unit"] + 1, u["label"], f"{u['iou']:.6f}") for u in shown["units"][:3]]
        assert best == [(107, "road", "0.155465"), (79, "car", "0.138774"), (252, "waffled", "0.138518")]


@published
@pytest.mark.parametrize("name", FIGURES)
def test_every_number_of_a_published_table_is_in_the_store(tmp_path: Path, name: str) -> None:
    table = PUBLISHED / f"{name}.csv"
    write_store(tmp_path / "a.nd.h5", read_table(table, "conv5"))
    with table.open(newline="") as f, Store(tmp_path / "a.nd.h5") as store:
        view = store.layer("conv5")
        label, value = view.labels
        concepts, area = store.concepts, store.concept_counts.area.sum(0)
        rows = list(csv.DictReader(f))
        assert len(rows) == view.units
        unlabelled = 0
        for row in rows:
            u = int(row["unit"]) - 1
            for k, category in enumerate(concepts.categories):
                c = int(view.best.concept[u, k])
                truth, a, both = (float(row[f"{category}-{x}"]) for x in ("truth", "activation", "intersect"))
                assert both / (a + truth - both) == pytest.approx(float(row[f"{category}-iou"]), rel=1e-12)
                if not row[f"{category}-label"]:  # the number 0 that leaked in
                    unlabelled += 1
                    assert (c, view.best.iou[u, k]) == (-1, 0)
                    continue
                assert (concepts.name[c], concepts.category_of(c)) == (row[f"{category}-label"], category)
                assert (area[c], view.best.area[u, k], view.best.intersection[u, k]) == (truth, a, both)
                assert view.best.iou[u, k] == pytest.approx(float(row[f"{category}-iou"]), rel=1e-15)
            assert (concepts.name[label[u]], concepts.category_of(int(label[u]))) == (row["label"], row["category"])
            assert value[u] == pytest.approx(float(row["score"]), rel=1e-15)
        assert unlabelled == {"ResNet-152-model_imagenet": 374, "ResNet-152-model_places365": 695}.get(name, 0)
        assert "" not in concepts.name


@published
@pytest.mark.parametrize("name", FIGURES)
def test_a_published_table_exported_and_imported_again_is_the_same(tmp_path: Path, name: str) -> None:
    first = read_table(PUBLISHED / f"{name}.csv", "conv5")
    write_store(tmp_path / "a.nd.h5", first)
    (tmp_path / "again.csv").write_text(exported(tmp_path / "a.nd.h5", "conv5"), encoding="utf-8")
    again = read_table(tmp_path / "again.csv", "conv5")
    left_out = first.layers[0].best.concept < 0  # of which the export gives no area
    area = np.where(left_out, 0, first.layers[0].best.area)
    assert_same(again.layers[0].best, replace(first.layers[0].best, area=area))
    assert_same(again.concepts, first.concepts)
    assert_same(again.concept_counts, first.concept_counts)


@published
def test_an_export_has_the_columns_and_the_order_of_the_published_table(tmp_path: Path) -> None:
    table = PUBLISHED / "caffe_reference_places365.csv"
    write_store(tmp_path / "a.nd.h5", read_table(table, "conv5"))
    ours = list(csv.reader(io.StringIO(exported(tmp_path / "a.nd.h5", "conv5"))))
    theirs = list(csv.reader(table.open(newline="")))
    assert ours[0] == theirs[0]
    for own, their in zip(ours[1:], theirs[1:], strict=True):
        for column, a, b in zip(ours[0], own, their, strict=True):
            if column.endswith(("label", "category")):
                assert a == b
            else:
                assert float(a) == pytest.approx(float(b), rel=1e-12)


# --- a store as a table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [("all",), ("train", "val")])
def test_a_full_store_exported_and_imported_gives_the_same_labels(tmp_path: Path, groups: tuple[str, ...]) -> None:
    path = write_small(tmp_path / "a.nd.h5", groups=groups)
    done = nd(tmp_path, "export", "features.0", "-s", path, "-o", "table.csv")
    assert done.returncode == 0, done.stderr
    done = nd(tmp_path, "import", "table.csv", "--layer", "features.0", "-o", "b.nd.h5")
    assert done.returncode == 0, done.stderr
    with Store(path) as full, Store(tmp_path / "b.nd.h5") as imported:
        one, two = full.layer("features.0"), imported.layer("features.0")
        assert named(one) == named(two)
        assert one.summary() == two.summary() | {"by_category": one.summary()["by_category"]}
        assert {k: v for k, v in two.summary()["by_category"].items() if v} == {
            k: v for k, v in one.summary()["by_category"].items() if v
        }
        for u in range(one.units):
            same = ("unit", "label", "category", "iou")
            assert [unit_json(one, u)[k] for k in same] == [unit_json(two, u)[k] for k in same]
        assert unit_json(one, DEAD)["label"] is None


def test_an_exported_table_counts_units_from_1_and_lists_the_best_first(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    rows = list(csv.DictReader(io.StringIO(exported(path, "features.0"))))
    assert sorted(int(row["unit"]) for row in rows) == list(range(1, 10))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert list(rows[0])[4::5] == [f"{c}-label" for c in CATEGORIES]
    assert (rows[-1]["unit"], rows[-1]["label"], rows[-1]["score"]) == (str(DEAD + 1), "", "0.0")


def test_categories_of_another_data_set_follow_the_known_ones(tmp_path: Path) -> None:
    given = dissection()
    categories = tuple({"part": "organ"}.get(c, c) for c in given.concepts.categories)
    names = ("a,b", 'the "car"', "line", "=1+1", *given.concepts.name[4:])
    given = replace(given, concepts=replace(given.concepts, categories=categories, name=names))
    write_store(tmp_path / "a.nd.h5", given)
    text = exported(tmp_path / "a.nd.h5", "features.0")
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert [c for c in text.splitlines()[0].split(",") if c.endswith("-label")][-1] == "organ-label"
    write_store(tmp_path / "b.nd.h5", read_table(tmp_path / "t.csv", "x"))
    with Store(tmp_path / "a.nd.h5") as one, Store(tmp_path / "b.nd.h5") as two:
        assert sorted(two.concepts.categories) == sorted(one.concepts.categories)
        assert named(two.layer("x")) == named(one.layer("features.0"))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), units=st.integers(1, 12))
def test_any_table_is_read_in_any_order_of_its_rows(
    tmp_path_factory: pytest.TempPathFactory, seed: int, units: int
) -> None:
    folder = tmp_path_factory.mktemp("t")
    given = dissection(layers={"a": (units, (3, 3))}, seed=seed)
    write_store(folder / "a.nd.h5", given)
    head, *rows = exported(folder / "a.nd.h5", "a").splitlines(keepends=True)
    random.Random(seed).shuffle(rows)
    (folder / "t.csv").write_text("".join([head, *rows]).replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    got = read_table(folder / "t.csv", "a")
    assert label_units(got.layers[0].best)[1].tolist() == label_units(given.layers[0].best)[1].tolist()
    assert detectors(got.layers[0].best).sum() == detectors(given.layers[0].best).sum()
    assert unique_per_category(got.layers[0].best).sum() == unique_per_category(given.layers[0].best).sum()
    iou = given.layers[0].best.iou
    tied = ((iou == iou.max(1, keepdims=True)) & (iou > 0)).sum(1) > 1
    if not tied.any():  # of equal IoUs the lower concept number wins, and a table does not tell the numbers
        assert unique_best_label(got.layers[0].best) == unique_best_label(given.layers[0].best)


def test_an_imported_store_says_where_it_came_from_and_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(SMALL)
    write_store(tmp_path / "a.nd.h5", read_table(tmp_path / "t.csv", "conv5"))
    got = read_back(tmp_path / "a.nd.h5")
    assert got.provenance["imported"]["file"] == "t.csv"
    assert len(got.provenance["imported"]["sha256"]) == 64
    assert (got.images, got.grid, got.layers[0].counts, got.layers[0].top) == (None, None, None, None)
    assert np.isnan(got.layers[0].statistics.threshold).all()
    assert (got.concept_counts.images == -1).all()


# --- tables with faults ---------------------------------------------------------------------------------------------

SMALL = """unit,category,label,score,object-label,object-truth,object-activation,object-intersect,object-iou
1,object,tree,0.25,tree,80,45.0,25,0.25
2,object,car,0.5,car,12,12.0,8,0.5
3,,,0.0,,100,0.0,7,0.0752688172
"""


def test_the_small_table_is_right(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(SMALL)
    best = read_table(tmp_path / "t.csv", "a").layers[0].best
    assert_same(
        best,
        Best(
            np.array([[1], [0], [-1]], np.int32),
            np.array([[25], [8], [0]]),
            np.array([[45], [12], [0]]),
            np.array([[0.25], [0.5], [0.0]]),
        ),
    )


def without_column(name: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        rows = list(csv.DictReader(io.StringIO(text)))
        out = io.StringIO()
        writer = csv.DictWriter(out, [c for c in rows[0] if c != name], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    return change


FAULTS: dict[str, tuple[Callable[[str], str | bytes], str]] = {
    "empty": (lambda t: "", "has no column"),
    "a head alone": (lambda t: t.splitlines()[0], "holds no units"),
    "an image": (lambda t: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is no text file"),
    "UTF-16": (lambda t: t.encode("utf-16"), "is no text file"),
    "NUL bytes": (lambda t: bytes(1000), "has no column"),
    "another table": (lambda t: "image,split,ih,iw\na.jpg,train,1,1\n", "has no column unit"),
    "no columns of a category": (lambda t: "unit,category,label,score\n1,object,tree,0.1\n", "<category>-label"),
    "a column twice": (lambda t: t.replace("category", "unit", 1), "two columns of one name"),
    "no unit": (without_column("unit"), "has no column unit"),
    **{
        f"no {column}": (without_column(column), f"has no column {column}")
        for column in ("object-truth", "object-activation", "object-intersect", "object-iou")
    },
    "a damaged number": (lambda t: t.replace("45.0", "4x5.0"), "line 2: could not convert string to float: '4x5.0'"),
    "no number": (lambda t: t.replace(",45.0,", ",,"), "line 2"),
    "half a pixel": (lambda t: t.replace("45.0", "45.5"), "45.5 is no count of pixels"),
    "a negative count": (lambda t: t.replace("45.0", "-45.0"), "-45.0 is no count of pixels"),
    "NaN": (lambda t: t.replace("45.0", "nan"), "nan is no count of pixels"),
    "infinity": (lambda t: t.replace("45.0", "inf"), "inf is no count of pixels"),
    "1e300": (lambda t: t.replace("45.0", "1e300"), "1e300 is no count of pixels"),
    "a wrong IoU": (lambda t: t.replace("25,0.25", "25,0.26"), "line 2: object-iou is not intersect /"),
    "an IoU that is NaN": (lambda t: t.replace("25,0.25", "25,nan"), "object-iou is not intersect /"),
    "a wrong intersection": (lambda t: t.replace("25,0.25", "26,0.25"), "object-iou is not intersect /"),
    "more intersection than truth": (
        lambda t: t.replace("80,45.0,25,0.25", "20,45.0,25,0.625"),
        "object-intersect is more than object-truth",
    ),
    "a concept of two areas": (lambda t: t.replace("car", "tree"), "'tree' covers 12 pixels in one row and not"),
    "a unit missing": (lambda t: t.replace("2,object", "4,object"), "the units are not 1 to 3"),
    "a unit twice": (lambda t: t.replace("2,object", "1,object"), "the units are not 1 to 3"),
    "units from 0": (
        lambda t: t.replace("1,object", "0,object").replace("\n3,", "\n1,"),
        "the units are not 1 to 3, each once",
    ),
    "a unit that is no number": (lambda t: t.replace("2,object", "two,object"), "line 3"),
    "the last line cut": (lambda t: t[: t.rindex(",100,")], "line 4: the line has not 9 columns"),
    "a cell too many": (lambda t: t.replace("25,0.25", "25,0.25,7"), "line 2: the line has not 9 columns"),
    "a quote that is never closed": (lambda t: t.replace("car,0.5", '"car,0.5'), "line"),
    "a cell of a megabyte": (lambda t: t.replace("car,12", "c" * 2**20 + ",12"), "field larger than"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_table_with_a_fault_is_refused_with_the_place(tmp_path: Path, what: str) -> None:
    change, said = FAULTS[what]
    data = change(SMALL)
    path = tmp_path / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(NDError) as failed:
        read_table(path, "a")
    assert str(path) in failed.value.message
    assert said in failed.value.message
    assert failed.value.hint


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(SMALL) - 1), data=st.binary(max_size=6), cut=st.booleans())
def test_a_damaged_table_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    text = SMALL.encode()
    path.write_bytes(text[:at] + data + (b"" if cut else text[at + 1 :]))
    try:
        given = read_table(path, "a")
    except NDError as e:
        assert str(path) in e.message
        return
    write_store(path.with_suffix(".h5"), given)
    assert visit(path.with_suffix(".h5")) == len(given.layers[0].best.concept)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "absent.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(NDError, match=said):
            read_table(path, "a")


def test_a_fault_leaves_no_store_and_the_old_one_alone(tmp_path: Path) -> None:
    write_small(tmp_path / "t.nd.h5")
    before = (tmp_path / "t.nd.h5").read_bytes()
    (tmp_path / "t.csv").write_text(SMALL[:-30])
    done = nd(tmp_path, "import", "t.csv", "--force")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert (tmp_path / "t.nd.h5").read_bytes() == before
    (tmp_path / "t.csv").write_text(SMALL)
    assert nd(tmp_path, "import", "t.csv").returncode == 2  # it exists
    assert (tmp_path / "t.nd.h5").read_bytes() == before
    assert nd(tmp_path, "import", "t.csv", "--force").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.nd.h5"]
