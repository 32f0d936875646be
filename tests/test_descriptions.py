"""Labels by CLIP-Dissect and MILAN: a store without counts, shown without an IoU, compared by their words."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cli
import h5py
import numpy as np
import pytest
from browsing import Visit, surroundings
from hypothesis import given
from hypothesis import strategies as st
from store_factory import write_small

from ndissect.store.descriptions import CATEGORY
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.imported import read_imported
from ndissect.store.reader import Store
from ndissect.store.table2017 import write_table
from ndissect.store.writer import write_store
from ndissect.tui.tables.compared_stores import compare_stores
from ndissect.tui.tables.label_agreement import agreement, head_noun, normal_words

CLIP = """layer,unit,description,similarity
layer4,0,striped,0.21
layer4,2,kitchen,0.18
layer3,0,striped,-0.5

"""
MILAN = """layer,unit,description
layer4,0,"stripes, and grids"
layer4,1,
layer4,2,the kitchens
"""


@pytest.fixture
def folder(tmp_path: Path):
    with surroundings(tmp_path):
        yield tmp_path


def imported(folder: Path, text: str, name: str = "clip", layer: str | None = None) -> Path:
    (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    path = folder / f"{name}.nd.h5"
    write_store(path, read_imported(folder / f"{name}.csv", layer))
    return path


# --- tables as stores -----------------------------------------------------------------------------------------------


def test_a_table_of_clip_dissect(tmp_path: Path) -> None:
    with Store(imported(tmp_path, CLIP)) as store:
        assert store.layer_names == ("layer4", "layer3")
        assert (store.concepts.name, store.concepts.categories) == (("kitchen", "striped"), (CATEGORY,))
        view = store.layer("layer4")
        label, iou = view.labels
        assert label.tolist() == [1, -1, 0]
        assert np.isnan(iou).all()
        assert np.array_equal(view.known("similarity"), [0.21, np.nan, 0.18], equal_nan=True)
        assert view.summary()["detectors"] == 0
        assert (view.best.concept == -1).all()
        assert (store.concept_counts.images == -1).all()
        assert store.layer("layer3").known("similarity").tolist() == [-0.5]
        assert store.provenance["imported"]["file"] == "clip.csv"


def test_a_table_of_milan(tmp_path: Path) -> None:
    with Store(imported(tmp_path, MILAN, "milan")) as store:
        view = store.layer("layer4")
        assert [store.concepts.name[row] if row >= 0 else None for row in view.labels[0]] == [
            "stripes, and grids",
            None,
            "the kitchens",
        ]
        assert np.isnan(view.known("similarity")).all()


def test_a_table_without_layers_takes_the_name_that_is_given_or_the_files(tmp_path: Path) -> None:
    text = "\ufeffunit,description,model\n1.0,b c,x\n0.0,a,x\n"
    with Store(imported(tmp_path, text, "conv5")) as store:
        assert store.layer_names == ("conv5",)
        assert store.layer("conv5").labels[0].tolist() == [0, 1]
    with Store(imported(tmp_path, text, layer="layer4")) as store:
        assert store.layer_names == ("layer4",)
    with pytest.raises(WrongUse, match="--layer cannot name another"):
        imported(tmp_path, CLIP, layer="layer4")


FAULTS = {
    "twice": (CLIP + "layer4,0,again,0.1\n", "line 6: unit 0 is described twice"),
    "no unit": ("layer,unit,description\na,x,b\n", "line 2: 'x' is no number of a unit"),
    "many units": ("layer,unit,description\na,999999999,b\n", "units"),
    "a huge number": (f"layer,unit,description\na,{'9' * 5000},b\n", "is no number of a unit"),
    "no similarity": ("layer,unit,description,similarity\na,0,b,much\n", "line 2"),
    "infinite": ("layer,unit,description,similarity\na,0,b,inf\n", "line 2: similarity inf"),
    "short": ("layer,unit,description\na,0\n", "line 2: not 3 cells"),
    "long": ("layer,unit,description\na,0,b,c\n", "line 2: not 3 cells"),
    "a quote": ('layer,unit,description\na,0,"b"c\n', "expected after"),
    "nothing": ("layer,unit,description\n", "describes no unit"),
    "a long name": (f"layer,unit,description\na,0,{'b' * 2000}\n", "longest name"),
    "other columns": ("neuron,caption\n0,b\n", "its columns are neuron, caption"),
    "no column": ("", "its columns are none"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_faulty_table_is_refused(tmp_path: Path, what: str) -> None:
    text, said = FAULTS[what]
    with pytest.raises(NDError) as caught:
        imported(tmp_path, text)
    assert said in caught.value.message
    assert list(tmp_path.glob("*.nd.h5")) == []


def test_a_table_of_another_kind_names_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("neuron,caption\n0,b\n")
    with pytest.raises(NDError) as caught:
        read_imported(tmp_path / "x.csv", None)
    assert all(name in caught.value.hint for name in ("2017", "CLIP-Dissect", "MILAN", "layer, unit, description"))
    with pytest.raises(NDError, match=r"gone\.csv"):
        read_imported(tmp_path / "gone.csv", None)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00unit")
    with pytest.raises(NDError, match="no CSV table"):
        read_imported(tmp_path / "b.csv", None)


def test_the_tables_of_2017_are_read_as_ever(tmp_path: Path) -> None:
    small, out = write_small(tmp_path / "small.nd.h5"), io.StringIO()
    with Store(small) as store:
        write_table(store.layer("features.0"), out)
        expected = store.layer("features.0").labels[1].tolist()
    (tmp_path / "t.csv").write_text(out.getvalue(), encoding="utf-8")
    made = read_imported(tmp_path / "t.csv", "x")
    assert sorted(made.layers[0].best.iou.max(1).tolist()) == sorted(expected)


@pytest.mark.parametrize(
    "entry",
    [
        {"layer": "layer4", "concept": [0], "similarity": [None]},
        {"layer": "layer4", "concept": [0, 0, 9], "similarity": [None] * 3},
        {"layer": "layer4", "concept": [0, 0, "0"], "similarity": [None] * 3},
        {"layer": "layer4", "concept": [0, 0, True], "similarity": [None] * 3},
        {"layer": "layer4", "concept": [0, 0, 0], "similarity": ["a", None, None]},
        {"layer": "layer4"},
    ],
)
def test_descriptions_that_do_not_fit_their_store_are_damage(tmp_path: Path, entry: object) -> None:
    path = imported(tmp_path, CLIP)
    with h5py.File(path, "r+") as f:
        about = json.loads(f["provenance"][()])
        text = json.dumps(about | {"descriptions": [3, entry]}).encode()
        del f["provenance"]
        f.create_dataset("provenance", data=np.bytes_(text), dtype=h5py.string_dtype("utf-8", len(text)))
    with Store(path) as store, pytest.raises(NDError, match=r"provenance.*of layer layer4"):
        _ = store.layer("layer4").labels


# --- every view -----------------------------------------------------------------------------------------------------


def test_the_command_line_shows_descriptions_without_an_iou(tmp_path: Path) -> None:
    (tmp_path / "clip.csv").write_text(CLIP)
    done = cli.nd("import", "clip.csv", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "clip.nd.h5\n")
    rows = cli.rows_of("inspect", "layer4", folder=tmp_path)
    assert [dict(r) for r in rows] == [
        {"unit": "0", "label": "striped", "category": "description", "similarity": "0.21"},
        {"unit": "1", "label": "", "category": "", "similarity": ""},
        {"unit": "2", "label": "kitchen", "category": "description", "similarity": "0.18"},
    ], "no column of what was never counted"
    one = cli.json_of("inspect", "layer4:0", "--json", folder=tmp_path)
    assert (one["label"], one["iou"], one["similarity"], one["concepts"]) == ("striped", None, 0.21, [])
    found = cli.rows_of("inspect", "layer4", "--concept", "kitchen", "--sort", "similarity", folder=tmp_path)
    assert [r["unit"] for r in found] == ["2"]
    assert cli.rows_of("concepts", folder=tmp_path) == [
        {"description": "striped", "units": "2"},
        {"description": "kitchen", "units": "1"},
    ]
    assert [(r["layer"], r["unit"], r["IoU"]) for r in cli.rows_of("concepts", "striped", folder=tmp_path)] == [
        ("layer4", "0", ""),
        ("layer3", "0", ""),
    ]
    exported = json.loads(cli.nd("export", "layer4", "--format", "json", folder=tmp_path).stdout)
    assert [u["similarity"] for u in exported["layers"][0]["units"]] == [0.21, None, 0.18]
    cli.failed(cli.nd("export", "layer4", folder=tmp_path), 2, "no counts for a 2017 table", "--format json")
    done = cli.nd("report", "-o", "page.html", folder=tmp_path)
    assert done.returncode == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "striped" in page
    assert "descriptions that others gave" in page
    assert "NaN" not in page.split("<script")[1]


def test_a_terminal_says_that_there_are_no_counts(tmp_path: Path) -> None:
    imported(tmp_path, CLIP)
    with cli.Terminal("inspect", "layer4:0", folder=tmp_path) as terminal:
        pass
    assert "striped  no counts" in terminal.text
    assert "nan" not in terminal.text


def test_the_browser_walks_through_a_store_of_descriptions(folder: Path) -> None:
    with Visit(imported(folder, CLIP)) as visit:
        assert "layer4" in visit.text
        assert "no counts" in visit.text
        row = next(words for words in map(str.split, visit.rows) if "layer4" in words)
        assert row[row.index("layer4") + 1 :][:3] == ["3", "-", "-"]
        visit.press("enter")
        assert "striped" in visit.text
        assert "0.210" in visit.text
        visit.press("enter")
        assert "nan" not in visit.text
        assert "no top images in this store" in visit.text
        visit.press("escape", "2", "enter")
        assert "kitchen" in visit.text
        assert "layer4" in visit.rows[0]
        assert "held-out" not in visit.text
        visit.press("3")
        assert "no counts: no IoU" in visit.text
        assert "has an IoU above" not in visit.text
        for key in ("4", "1", "space", "j", "space", "c"):
            visit.press(key)
        assert "nan" not in visit.text


# --- where labels agree ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("kitchen", "Kitchens", "same"),
        ("traffic_light", "traffic light", "same"),
        ("stripes, and grids", "stripe", "head noun"),
        ("the color red", "red", "head noun"),
        ("dogs' heads", "the head of a dog", "head noun"),
        ("street lights in the dark", "light", "head noun"),
        ("boxes", "box", "same"),
        ("cities", "city", "same"),
        ("glass", "glasses", "same"),
        ("striped", "stripes", None),
        ("car", "cat", None),
        ("bus", "buses", None),
        ("of", "the", None),
        ("", "", None),
        ("kitchen table", "kitchen", None),
    ],
)
def test_when_two_labels_agree(one: str, other: str, how: str | None) -> None:
    assert agreement(one, other) == how
    assert agreement(other, one) == how


@given(st.text(max_size=40))
def test_any_label_agrees_with_itself_or_has_no_word(label: str) -> None:
    words = normal_words(label)
    assert agreement(label, label) == ("same" if words else None)
    assert head_noun(words) == "" or head_noun(words) in words


def stores(folder: Path) -> tuple[Path, Path, list[str | None]]:
    """A dissected store, and descriptions of its units: right for the first two labelled, in other words."""
    path = write_small(folder / "a.nd.h5")
    with Store(path) as store:
        view = store.layer("features.0")
        labels = [store.concepts.label(int(row)) if row >= 0 else None for row in view.labels[0]]
    text = io.StringIO()
    rows = [["features.0", u, f"the {label}s" if u < 2 else "nothing of the kind"] for u, label in enumerate(labels)]
    csv.writer(text).writerows([["layer", "unit", "description"], *rows])
    return path, imported(folder, text.getvalue(), "milan"), labels


def test_a_dissection_beside_descriptions(tmp_path: Path) -> None:
    one, other, labels = stores(tmp_path)
    result = compare_stores([str(one), str(other)]).result
    (pair,) = result["agreement"]
    known = [label for label in labels if label]
    assert (pair["units"], pair["labelled"], pair["agree"], pair["agree_same"]) == (9, len(known), 2, 2)
    with Store(one) as store:
        detector = store.layer("features.0").labels[1] > 0.04
    assert pair["detectors"] == int(detector.sum())
    assert pair["detectors_agree"] == int(detector[:2].sum())
    assert {row["unit"] for row in pair["rows"][:2]} == {0, 1}
    assert pair["rows"][0]["a"]["iou"] is not None
    assert pair["rows"][0]["b"]["iou"] is None


def test_the_command_says_by_which_rule(tmp_path: Path) -> None:
    stores(tmp_path)
    done = cli.nd("compare", "a.nd.h5", "milan.nd.h5", folder=tmp_path)
    assert done.returncode == 0
    assert "head nouns" in done.stderr
    assert "detectors (IoU > 0.04)" in done.stderr
    assert done.stdout.splitlines()[1].endswith("\tsame")
    cli.failed(
        cli.nd("compare", "a.nd.h5", "milan.nd.h5", "--plot", "x.png", folder=tmp_path),
        2,
        "no counts to draw",
        "--plot",
    )
