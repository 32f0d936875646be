"""A published table of IoUs without counts becomes a store that tells its facts and invents no count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_factory import assert_same, dissection, read_back, visit, without_counts, write_small

from ndissect.store.errors import NDError
from ndissect.store.imported import read_imported
from ndissect.store.iou_table import read_iou_table
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app.compare_units import compare_units
from ndissect.tui.app.session import Session
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.reports.report import unit_data
from ndissect.tui.tables import views
from ndissect.tui.tables.remarks import layer_notes
from ndissect.tui.tables.unit_table import unit_arrays

CHURCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "published" / "gandissect_church_layer4.csv"
published = pytest.mark.skipif(not CHURCH.is_file(), reason="the published table is not here")
TABLE = """unit,activation_q99,tree-ace,sky-iou,tree-iou
1,2.5,0.25,0.0,0.0
0,1.5,1.0,0.125,0.5
2,3.5,0.0,0.25,0.25
"""


@pytest.fixture(scope="module")
def church(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("church") / "church.nd.h5"
    write_store(path, read_imported(CHURCH, "layer4"))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.nd.h5"
    write_store(path, read_iou_table(Path("small.csv"), TABLE.encode(), "layer4"))
    return path


def nd(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("nd"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "120"})


def best_units(view: LayerView, concept: str) -> list[int]:
    """The twenty units with the largest IoU for the concept."""
    value = view.concept_ious(view.store.concepts.name.index(concept))
    return np.argsort(-value, kind="stable")[:20].tolist()


@published
def test_the_facts_of_the_published_table_come_out(church: Path) -> None:
    with Store(church) as store:
        view = store.layer("layer4")
        assert view.units == 512
        row = store.concepts.name.index("tree")
        tree = view.concept_ious(row)
        assert [(u, round(float(tree[u]), 3)) for u in best_units(view, "tree")[:3]] == [
            (365, 0.320),
            (119, 0.315),
            (157, 0.312),
        ]
        label, value = view.labels
        assert (int(value.argmax()), round(float(value.max()), 3)) == (257, 0.522)
        assert store.concepts.name[label[257]] == "sky"
        assert int((value > 0.05).sum()) == 392
        effects = view.concept_effects
        assert effects is not None
        assert (len(effects.units), effects.samples) == (0, 0)
        shared = {}
        for concept in (store.concepts.name[row] for row in effects.coefficient_concepts):
            coefficients = effects.coefficients_of(store.concepts.name.index(concept))
            assert coefficients is not None
            best = np.argsort(-coefficients, kind="stable")[:20].tolist()
            shared[concept] = len(set(best) & set(best_units(view, concept)))
        assert shared == {"tree": 8, "door": 13, "person": 4, "window": 9, "grass": 12}
        assert view.statistics.threshold[0] == 6.593636512756348
        assert float(store.protocol.q) == 0.01


@published
def test_every_command_shows_the_published_table_and_says_what_is_not_known(church: Path) -> None:
    unit = nd(church.parent, "inspect", "layer4:365", "-s", church)
    assert unit.stdout.splitlines()[:2] == ["concept\tcategory\tIoU\tcoefficient", "tree\tconcept\t0.31979\t1"]
    with Store(church) as store:
        assert "the counts behind them: I, A and C are not known" in layer_notes([store.layer("layer4")])[0]
    refused = nd(church.parent, "export", "-s", church)
    assert refused.returncode == 2
    assert "holds IoUs, and no counts for a 2017 table" in refused.stderr
    overlay = nd(church.parent, "overlay", "layer4:365", "-s", church)
    assert overlay.returncode == 1
    assert "holds no top images for layer4" in overlay.stderr
    done = nd(church.parent, "report", "-s", church)
    assert done.returncode == 0, done.stderr


def test_units_may_come_in_any_order_and_nothing_is_counted(small: Path) -> None:
    with Store(small) as store:
        view = store.layer("layer4")
        assert not view.has_counts
        assert view.has_ious_alone
        assert view.unit_ious(2)[0].tolist() == [0.25, 0.25]
        label, value = view.labels
        assert (label.tolist(), value.tolist()) == ([1, -1, 0], [0.5, 0.0, 0.25]), "the first of equals; none where 0"
        assert (view.best.intersection.max(), view.best.area.max(), view.concept_counts.area.max()) == (-1, -1, -1)
        assert [x.tolist() for x in view.best_units] == [[2, 0], [0.25, 0.5]]
        assert views.ranked_concepts(view, 0)[0] == {
            "concept": "tree",
            "category": "concept",
            "iou": 0.5,
            "intersection": None,
            "area": None,
            "concept_area": None,
        }
        arrays = unit_arrays([view])
        for name in ("intersection", "area", "concept_area", "concept-intersection", "concept-concept_area"):
            assert np.isnan(arrays[name]).all(), name
        page = unit_data(store, [view])
        assert page["ious_alone"] == [True]
        assert page["best"]["iou"] == [0.5, 0.0, 0.25]
        assert view.counts() is None
        assert view.summary()["detectors"] == 2


def test_the_browser_tells_ious_and_no_counts(small: Path) -> None:
    session = Session(small)
    listing = unit_listing(session, "layer4", 0)
    assert [listing.cells(0)[i] for i in (0, 2, 4, 5, 6)] == ["tree", "0.5000", "?", "?", "?"]
    assert any("I, A and C are not known" in note for note in listing.notes)
    side = compare_units((session, "layer4", 0), (session, "layer4", 2))
    assert side.plain(0)["a_intersection"] is None
    assert (side.plain(0)["a_iou"], side.plain(0)["b_iou"]) == (0.5, 0.25)


def test_a_store_of_ious_gives_the_labels_of_the_store_with_counts(tmp_path: Path) -> None:
    """Where the IoUs follow from counts, all views of IoUs agree with those of the counts."""
    counted, alone = write_small(tmp_path / "a.nd.h5"), tmp_path / "b.nd.h5"
    made = without_counts(dissection())
    write_store(alone, made)
    assert_same(read_back(alone), made)
    assert visit(alone) == visit(counted)
    with Store(counted) as a, Store(alone) as b:
        for name in a.layer_names:
            one, other = a.layer(name), b.layer(name)
            for x, y in zip((*one.labels, *one.best_units), (*other.labels, *other.best_units), strict=True):
                assert x.tolist() == y.tolist()
            assert one.best.iou.tolist() == other.best.iou.tolist()
            assert one.summary() == other.summary()
            assert one.concept_ious(3).tolist() == other.concept_ious(3).tolist()


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "a share above 1": (lambda text: text.replace("0.125", "1.125"), "sky-iou is 1.125"),
    "a negative coefficient": (lambda text: text.replace(",1.0,", ",-1.0,"), "tree-ace is -1"),
    "a word": (lambda text: text.replace("0.125", "much"), "sky-iou is 'much'"),
    "NaN": (lambda text: text.replace("1.5", "nan"), "activation_q99 is 'nan'"),
    "a unit twice": (lambda text: text.replace("\n1,", "\n0,"), "the units are not 0 to 2"),
    "units from 1": (lambda text: text.replace("\n0,", "\n3,"), "the units are not 0 to 2"),
    "no units": (lambda text: text.splitlines()[0], "the units are not"),
    "a short line": (lambda text: text.replace(",0.25,0.25", ",0.25"), "4 cells, the header has 5"),
    "a column twice": (lambda text: text.replace("tree-iou", "sky-iou"), "two columns of one name"),
    "a coefficient alone": (lambda text: text.replace("tree-ace", "door-ace"), "door-ace and no door-iou"),
    "no quantile": (lambda text: text.replace("q99", "q0"), "names no quantile"),
    "a cut quote": (lambda text: text.replace("0.125", '"0.125'), "damaged"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_table_is_refused_with_the_place(tmp_path: Path, what: str) -> None:
    change, said = DAMAGE[what]
    table = tmp_path / "t.csv"
    table.write_text(change(TABLE))
    with pytest.raises(NDError) as failed:
        read_imported(table, None)
    assert said in f"{failed.value.message} {failed.value.hint}"
    assert str(table) in failed.value.message


def test_json_of_a_unit_has_null_for_what_is_not_known(small: Path) -> None:
    told = json.loads(nd(small.parent, "inspect", "layer4:0", "-s", small, "--json").stdout)
    assert told["best"]["concept"]["intersection"] is None
    assert told["concepts"][0]["concept_area"] is None
