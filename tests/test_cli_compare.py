"""``nd compare``: real stores, the real command; numbers against loops over the images that the stores count."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
from blocks_factory import CATEGORIES, DATA, PROTOCOL, Images, concept_table, dissection, images, write
from PIL import Image
from test_resampled import counted, drawn_anew, ious

from ndissect.store.bootstrap import count_interval
from ndissect.store.counts import BLOCKS
from ndissect.store.reader import Store
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store

EARLY = {"layer3": images(5, 3, skill=0.2), "layer4": images(9, 1, skill=0.2)}
LATE = {"layer4": images(9, 2), "layer3": images(5, 4), "head": images(2, 5)}
NAMES = concept_table().name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``early``, ``late``, ``later``: of the same images; the others differ from ``early`` in what their name says."""
    folder = tmp_path_factory.mktemp("compare")
    write(folder / "early.nd.h5", EARLY, network="early", null=True)
    write(folder / "late.nd.h5", LATE, network="late", dead=(1,))
    write(folder / "later.nd.h5", {"layer4": images(9, 7)}, network="later")
    write(folder / "q.nd.h5", EARLY, protocol=replace(PROTOCOL, name="mine", q=Fraction(1, 100), union="all-images"))
    other = {"layer4": images(9, 1, labels=8, skill=0.3), "layer3": images(5, 3, labels=8)}
    data = {"name": "ours", "images": 300, "used": 200, "tables_digest": "cc33", "content_digest": "dd44"}
    write(folder / "data.nd.h5", other, data=data, table=concept_table(names="axy"))
    write(folder / "alien.nd.h5", other, data=data, table=concept_table(names="xyz"))
    write(folder / "plain.nd.h5", EARLY, by_blocks=False)
    write(folder / "dead.nd.h5", EARLY, dead=tuple(range(9)))
    with Store(folder / "early.nd.h5") as store, (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(store.layer("layer4"), out)
    write_store(folder / "imported.nd.h5", replace(read_table(folder / "t.csv", "layer4"), protocol=PROTOCOL))
    return folder


def compare(*args: str, folder: Path) -> Any:
    return cli.json_of("compare", *args, folder=folder)


# --- the numbers -----------------------------------------------------------------------------------------------------


def labels_of(made: Images, dead: tuple[int, ...] = ()) -> list[tuple[str | None, float]]:
    """Each unit's label as it is shown, and its IoU."""
    value = ious(made, np.arange(len(made.block)))
    return [
        (None, 0.0) if u in dead else (NAMES[int(row.argmax())].replace("_", " "), float(row.max()))
        for u, row in enumerate(value)
    ]


def test_the_layers_have_their_summaries_with_intervals_of_images_drawn_anew(place: Path) -> None:
    found = compare("early.nd.h5:layer3", "late.nd.h5:layer3", folder=place)
    for layer, made, dead in zip(found["layers"], (EARLY["layer3"], LATE["layer3"]), ((), (1,)), strict=True):
        unique, best = counted(ious(made, np.arange(len(made.block))), dead)
        s = layer["summary"]
        assert (list(s["by_category"].values()), s["unique_best_label"]) == (unique, best)
        drawn = [counted(ious(made, chosen), dead) for chosen in drawn_anew(made)]
        sums, bests = np.array([sum(u) for u, _ in drawn]), np.array([b for _, b in drawn])
        for rule, count, of in (("unique_per_category", sum(unique), sums), ("unique_best_label", best, bests)):
            low, high = count_interval(count, of, BLOCKS)
            assert layer["intervals"][rule] == [max(low, 0), min(high, len(NAMES))]
            assert layer["bias"][rule] == pytest.approx(of.mean() - count)
        labels = [label for label, value in labels_of(made, dead) if value > 0.04]
        assert layer["detectors_by_category"] == {
            c: sum(label is not None and label.endswith(c) for label in labels) for c in CATEGORIES
        }
    (pair,) = found["pairs"]
    change = pair["difference"]["unique_best_label"]
    both = [found["layers"][i]["summary"]["unique_best_label"] for i in (0, 1)]
    assert change["value"] == both[1] - both[0]
    drawn_both = [
        counted(ious(LATE["layer3"], b), (1,))[1] - counted(ious(EARLY["layer3"], a), ())[1]
        for a, b in zip(drawn_anew(EARLY["layer3"]), drawn_anew(LATE["layer3"]), strict=True)
    ]
    assert (change["low"], change["high"]) == count_interval(change["value"], np.array(drawn_both), BLOCKS)


def test_units_are_matched_by_their_number_the_largest_difference_first(place: Path) -> None:
    (pair,) = compare("early.nd.h5:layer4", "late.nd.h5:layer4", folder=place)["pairs"]
    a, b = labels_of(EARLY["layer4"]), labels_of(LATE["layer4"], (1,))
    units = pair["units"]
    rows = {row["unit"]: row for row in units["rows"]}
    assert sorted(rows) == list(range(9))
    for u, row in rows.items():
        assert (row["a"]["label"], row["b"]["label"]) == (a[u][0], b[u][0])
        assert row["changed"] == (a[u][0] != b[u][0])
        assert row["difference"] == pytest.approx(b[u][1] - a[u][1])
        assert row["low"] <= row["difference"] <= row["high"]
    sizes = [abs(row["difference"]) for row in units["rows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert rows[1]["b"] == {"label": None, "category": None, "iou": 0.0, "dead": True}
    either = [max(x[1], y[1]) > 0.04 for x, y in zip(a, b, strict=True)]
    changed = [x[0] != y[0] for x, y in zip(a, b, strict=True)]
    assert (units["matched"], units["detectors"]) == (9, sum(either))
    assert (units["changed"], units["changed_detectors"]) == (sum(changed), sum(np.logical_and(either, changed)))
    assert units["apart"] == sum(row["low"] > 0 or row["high"] < 0 for row in rows.values()) > 0


def test_labels_gained_and_lost_are_those_that_one_detects(place: Path) -> None:
    (pair,) = compare("early.nd.h5:layer3", "late.nd.h5:layer3", folder=place)["pairs"]
    units = [
        {label: sum(one == label and value > 0.04 for one, value in labels) for label, _ in labels}
        for labels in (labels_of(EARLY["layer3"]), labels_of(LATE["layer3"], (1,)))
    ]
    for name, here, there in (("gained", units[1], units[0]), ("lost", units[0], units[1])):
        expected = {label: n for label, n in here.items() if n and not there.get(label)}
        assert {c["concept"]: c["units"] for c in pair[name]} == expected
        assert all(c["known"] and c["other_iou"] <= 0.04 < c["iou"] for c in pair[name])
    assert pair["gained"] and pair["lost"]


def test_what_json_holds(place: Path) -> None:
    found = compare("early.nd.h5", "late.nd.h5", folder=place)
    assert list(found) == ["comparable", "differences", "threshold", "marks", "notes", "layers", "pairs"]
    assert (found["comparable"], found["differences"], found["threshold"]) == (True, [], 0.04)
    assert [layer["name"] for layer in found["layers"]] == ["A layer3", "B layer3", "A layer4", "B layer4"]
    assert set(found["layers"][0]) == {
        *("name", "store", "layer", "protocol", "judged_on", "null", "split", "summary", "detectors_by_category"),
        *("intervals", "bias"),
    }
    assert (found["layers"][0]["null"], found["layers"][1]["null"]) == (2, 0)
    assert isinstance(found["layers"][0]["summary"]["detectors_q05"], int)
    assert found["layers"][1]["summary"]["detectors_q05"] is None
    for pair in found["pairs"]:
        assert set(pair) == {"a", "b", "same_data", "difference", "gained", "lost", "units"}
        assert pair["same_data"] is True
    assert found["notes"] == ["only in B, not compared: head"]


def test_a_layer_compared_with_its_copy_differs_in_nothing(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "early.nd.h5", tmp_path / "copy.nd.h5")
    found = compare(str(place / "early.nd.h5"), "copy.nd.h5", folder=tmp_path)
    for pair in found["pairs"]:
        assert (pair["gained"], pair["lost"], pair["units"]["changed"], pair["units"]["apart"]) == ([], [], 0, 0)
        assert {(r["difference"], r["low"], r["high"]) for r in pair["units"]["rows"]} == {(0.0, 0.0, 0.0)}
        assert all(d == {"value": 0, "low": 0, "high": 0} for d in pair["difference"].values())


# --- what is compared ------------------------------------------------------------------------------------------------


def names_of(found: Any) -> list[tuple[str, str]]:
    return [(pair["a"]["name"], pair["b"]["name"]) for pair in found["pairs"]]


@pytest.mark.parametrize(
    ("args", "pairs"),
    [
        (("early.nd.h5", "late.nd.h5"), [("A layer3", "B layer3"), ("A layer4", "B layer4")]),
        (("late.nd.h5", "early.nd.h5"), [("A layer4", "B layer4"), ("A layer3", "B layer3")]),
        (("early.nd.h5", "late.nd.h5", "-l", "layer3"), [("A layer3", "B layer3")]),
        (("early.nd.h5", "late.nd.h5:layer4"), [("A layer4", "B layer4")]),
        (("early.nd.h5:layer3", "later.nd.h5"), [("A layer3", "B layer4")]),
        (("layer3", "layer4", "-s", "early.nd.h5"), [("A layer3", "B layer4")]),
        (("layer3", "late.nd.h5:head", "-s", "early.nd.h5"), [("A layer3", "B head")]),
        (
            ("early.nd.h5", "late.nd.h5", "later.nd.h5"),
            [("A layer3", "B layer3"), ("A layer4", "B layer4"), ("A layer4", "C layer4")],
        ),
        (("head", "layer3", "layer4", "-s", "late.nd.h5"), [("A head", "B layer3"), ("A head", "C layer4")]),
    ],
)
def test_stores_layers_of_stores_and_layers(place: Path, args: tuple[str, ...], pairs: list[tuple[str, str]]) -> None:
    found = compare(*args, folder=place)
    assert names_of(found) == pairs
    asked = {name for pair in pairs for name in pair}
    assert {layer["name"] for layer in found["layers"]} == asked


def test_layers_are_of_the_newest_store_unless_one_is_named(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "early.nd.h5", tmp_path / "only.nd.h5")
    (tmp_path / "layer3").mkdir()  # a folder that is called like a layer and holds no store
    found = compare("layer3", "layer4", folder=tmp_path)
    assert {layer["store"] for layer in found["layers"]} == {"only.nd.h5"}
    env = {"ND_STORE": str(place / "late.nd.h5")}
    assert cli.json_of("compare", "layer3", "head", folder=tmp_path, env=env)["layers"][1]["layer"] == "head"


def test_the_only_layers_are_compared_whatever_their_names(tmp_path: Path) -> None:
    write(tmp_path / "a.nd.h5", {"conv5": images(4, 1)})
    write(tmp_path / "b.nd.h5", {"features.12": images(4, 2)})
    found = compare("a.nd.h5", "b.nd.h5", folder=tmp_path)
    assert names_of(found) == [("A conv5", "B features.12")]
    assert any("matched by number, whether or not that means anything" in note for note in found["notes"])


def test_paths_may_hold_colons_and_be_folders(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run 7:lr=0.1"
    run.mkdir()
    shutil.copy(place / "early.nd.h5", run / "a:b.nd.h5")
    shutil.copy(place / "late.nd.h5", tmp_path / "late.nd.h5")
    for a in ("run 7:lr=0.1/a:b.nd.h5:layer4", "run 7:lr=0.1:layer4"):
        found = compare(a, "late.nd.h5", folder=tmp_path)
        assert names_of(found) == [("A layer4", "B layer4")], a
        assert found["layers"][0]["store"] == "run 7:lr=0.1/a:b.nd.h5"
    assert len(compare("run 7:lr=0.1", "late.nd.h5", folder=tmp_path)["pairs"]) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("early.nd.h5",), ("needs two layers or stores",)),
        (("early.nd.h5", "gone.nd.h5"), ("no store at gone.nd.h5",)),
        (("early.nd.h5", "gone.nd.h5:layer4"), ("no store at gone.nd.h5",)),
        (("early.nd.h5", "gone/x"), ("no store at gone/x",)),
        (("early.nd.h5", "layer4"), ("'layer4' is no store", "STORE:layer4", "-l layer4")),
        (("early.nd.h5:layer9", "late.nd.h5"), ("no layer 'layer9' in early.nd.h5", "layer4")),
        (("layer3", "layr4", "-s", "early.nd.h5"), ("no layer 'layr4'", "layer4")),
        (("early.nd.h5", "late.nd.h5", "-l", "head"), ("no layer 'head' in early.nd.h5",)),
        (("layer3", "layer4", "-l", "layer4", "-s", "early.nd.h5"), ("-l chooses among the layers of stores",)),
        (("layer3", "layer3", "-s", "early.nd.h5"), ("one layer of early.nd.h5",)),
        (("early.nd.h5", "early.nd.h5:layer4"), ("one layer of early.nd.h5",)),
        (("early.nd.h5", "./early.nd.h5"), ("one layer of early.nd.h5",)),
        (("late.nd.h5:head", "other.nd.h5"), ("no layer 'head' in other.nd.h5",)),
        (("late.nd.h5", "other.nd.h5"), ("no layer has the same name", "B has conv1, conv2")),
        (("early.nd.h5", "late.nd.h5", "--plot", "x.jpg"), ("x.jpg is no name of a plot", "FILE.svg")),
        (("early.nd.h5", "late.nd.h5", "--plot", "gone/x.png"), ("the folder gone does not exist",)),
        (("x" * 300, "early.nd.h5"), ("is no store",)),
    ],
)
def test_mistakes_are_told(place: Path, args: tuple[str, ...], said: tuple[str, ...]) -> None:
    if not (place / "other.nd.h5").exists():
        write(place / "other.nd.h5", {"conv1": images(3, 1), "conv2": images(3, 2)})
    cli.failed(cli.nd("compare", *args, folder=place), 2, *said)


# --- what must not be compared ---------------------------------------------------------------------------------------

REFUSED = [
    ("q.nd.h5", ["q 1/200 against 1/100", "union within-category against all-images"], ["digest", "maps"]),
    (
        "data.nd.h5",
        [
            "data made against ours",
            "images 200 against 300",
            "tables digest aa11 against cc33",
            "content digest bb22 against dd44",
        ],
        ["images used", "q 1/200", "union"],
    ),
]


@pytest.mark.parametrize(("other", "said", "unsaid"), REFUSED)
def test_other_protocols_and_data_are_refused_field_by_field(
    place: Path, other: str, said: list[str], unsaid: list[str]
) -> None:
    for more in ((), ("--json",), ("--plot", "refused.png")):
        done = cli.nd("compare", "early.nd.h5", other, *more, folder=place)
        cli.failed(done, 2, f"early.nd.h5 and {other} differ in", "--anyway", *said)
        assert not any(words in done.stderr for words in unsaid)
    assert not (place / "refused.png").exists()


def test_each_of_several_stores_is_held_against_the_first(place: Path) -> None:
    done = cli.nd("compare", "early.nd.h5", "late.nd.h5", "q.nd.h5", "data.nd.h5", folder=place)
    cli.failed(done, 2, "early.nd.h5 and q.nd.h5 differ in", "early.nd.h5 and data.nd.h5 differ in", "dd44")
    assert "late.nd.h5" not in done.stderr


@pytest.mark.parametrize(("field", "value"), [("tables_digest", "ff"), ("content_digest", "ee")])
def test_one_digest_that_differs_is_enough(place: Path, tmp_path: Path, field: str, value: str) -> None:
    write(tmp_path / "other.nd.h5", EARLY, data={**DATA, field: value})
    done = cli.nd("compare", str(place / "early.nd.h5"), "other.nd.h5", folder=tmp_path)
    cli.failed(done, 2, f"{field.replace('_', ' ')} {DATA[field]} against {value}")


def test_the_names_of_data_and_protocol_forbid_nothing(place: Path, tmp_path: Path) -> None:
    """The same data in another folder, the same choices under another name."""
    write(tmp_path / "b.nd.h5", EARLY, data={**DATA, "name": "moved"}, protocol=replace(PROTOCOL, name="netdissect+"))
    found = compare(str(place / "early.nd.h5"), "b.nd.h5", folder=tmp_path)
    assert found["comparable"] is True
    assert all(pair["same_data"] for pair in found["pairs"])


def test_another_label_grid_is_refused(place: Path, tmp_path: Path) -> None:
    for name, grid in (("a", (7, 8)), ("b", (14, 16))):
        write_store(tmp_path / f"{name}.nd.h5", replace(dissection(EARLY), grid=grid))
    cli.failed(cli.nd("compare", "a.nd.h5", "b.nd.h5", folder=tmp_path), 2, "label grid 7x8 against 14x16")


@pytest.mark.parametrize("other", ["q.nd.h5", "data.nd.h5"])
def test_anyway_marks_every_output(place: Path, tmp_path: Path, other: str) -> None:
    args = ("compare", "early.nd.h5", other, "--anyway")
    found = json.loads(cli.nd(*args, "--json", folder=place).stdout)
    assert found["comparable"] is False
    assert {d["kind"] for d in found["differences"]} == {"protocol" if other == "q.nd.h5" else "data"}
    assert all(set(d) == {"a", "b", "kind", "field", "a_value", "b_value"} for d in found["differences"])
    rows = cli.rows_of(*args, folder=place)
    assert {row["comparable"] for row in rows} == {"no"}
    shown = cli.on_terminal(*args, folder=place)
    # Two layers: the three tables of all, then one of each pair.
    assert " ".join(shown.text.split()).count("NOT COMPARABLE, shown because of --anyway") == 5
    cli.nd(*args, "--plot", str(tmp_path / "x.svg"), folder=place)
    assert "NOT COMPARABLE" in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_anyway_marks_nothing_where_nothing_differs(place: Path, tmp_path: Path) -> None:
    plot = tmp_path / "x.svg"
    assert compare("early.nd.h5", "late.nd.h5", "--anyway", "--plot", str(plot), folder=place)["comparable"] is True
    assert "NOT COMPARABLE" not in plot.read_text(encoding="utf-8")
    assert "NOT COMPARABLE" not in cli.on_terminal("compare", "early.nd.h5", "late.nd.h5", folder=place).text


def test_other_data_is_resampled_by_itself_and_concepts_are_matched_by_name(place: Path) -> None:
    found = compare("early.nd.h5", "data.nd.h5", "--anyway", "-l", "layer4", folder=place)
    assert all(layer["intervals"] for layer in found["layers"])
    (pair,) = found["pairs"]
    assert pair["same_data"] is False
    assert {d["low"] for d in pair["difference"].values()} == {None}
    assert pair["units"]["apart"] is None
    assert {row["low"] for row in pair["units"]["rows"]} == {None}
    shared = {name.replace("_", " ") for name in NAMES if name.startswith("a")}
    assert all(c["known"] == (c["concept"] in shared) for c in (*pair["gained"], *pair["lost"]))
    assert {c["known"] for c in pair["gained"]} == {False}
    assert any(not row["changed"] for row in pair["units"]["rows"])  # matched although their rows differ
    for row in pair["units"]["rows"]:
        assert row["changed"] == (row["a"]["label"] != row["b"]["label"])


def test_no_concept_in_common_is_said(place: Path) -> None:
    found = compare("early.nd.h5", "alien.nd.h5", "--anyway", "-l", "layer4", folder=place)
    assert "A layer4 and B layer4 have no concept in common" in found["notes"]
    (pair,) = found["pairs"]
    assert pair["units"]["changed"] == 9
    assert not any(c["known"] for c in (*pair["gained"], *pair["lost"]))
    shown = cli.on_terminal("compare", "early.nd.h5", "alien.nd.h5", "--anyway", "-l", "layer4", folder=place)
    assert "no such concept there" in " ".join(shown.text.split())


# --- what is missing -------------------------------------------------------------------------------------------------


def test_an_imported_table_is_compared_by_its_protocol_alone(place: Path) -> None:
    found = compare("early.nd.h5:layer4", "imported.nd.h5", folder=place)
    assert found["comparable"] is True
    assert "whether A and B saw the same data is not recorded: only their protocols were compared" in found["notes"]
    (pair,) = found["pairs"]
    assert pair["same_data"] is None
    assert found["layers"][0]["intervals"] and found["layers"][1]["intervals"] is None
    assert (pair["gained"], pair["lost"]) == ([], [])
    assert (pair["units"]["changed"], pair["units"]["apart"]) == (0, None)
    assert {row["difference"] for row in pair["units"]["rows"]} == {0.0}


def test_stores_without_counts_by_block_have_no_intervals(place: Path) -> None:
    found = compare("plain.nd.h5", "early.nd.h5", folder=place)
    assert [layer["intervals"] is None for layer in found["layers"]] == [True, False, True, False]
    assert {d["low"] for pair in found["pairs"] for d in pair["difference"].values()} == {None}
    assert any(note.startswith("no intervals where a store has no counts by image block") for note in found["notes"])
    shown = cli.on_terminal("compare", "plain.nd.h5", "imported.nd.h5:layer4", folder=place)
    assert shown.code == 0
    assert "in brackets" not in shown.text


def test_dead_layers_are_compared_and_told(place: Path) -> None:
    found = compare("early.nd.h5", "dead.nd.h5", "-l", "layer4", folder=place)
    assert "B layer4: all units are dead" in found["notes"]
    assert found["layers"][1]["intervals"]["unique_per_category"] == [0, 0]
    (pair,) = found["pairs"]
    assert pair["gained"] == []
    assert {c["concept"] for c in pair["lost"]} == {label for label, v in labels_of(EARLY["layer4"]) if v > 0.04}
    for row in pair["units"]["rows"]:
        assert row["b"]["dead"] and row["difference"] == -row["a"]["iou"]
        assert row["low"] < row["difference"] < row["high"]
    both = compare("dead.nd.h5:layer3", "dead.nd.h5:layer4", folder=place)
    assert both["pairs"][0]["units"] is None
    shown = cli.on_terminal("compare", "early.nd.h5", "dead.nd.h5", "-l", "layer4", folder=place)
    assert "dead" in shown.text and shown.code == 0


def test_layers_of_other_sizes_match_no_unit(place: Path) -> None:
    args = ("compare", "layer3", "layer4", "-s", "early.nd.h5")
    assert cli.json_of(*args, folder=place)["pairs"][0]["units"] is None
    assert not [row for row in cli.rows_of(*args, folder=place) if row["block"] == "units"]
    assert "none are matched" in cli.on_terminal(*args, folder=place).text


def test_a_layer_without_units_compares(tmp_path: Path) -> None:
    write(tmp_path / "a.nd.h5", {"x": images(0, 1)})
    write(tmp_path / "b.nd.h5", {"x": images(0, 2)})
    found = compare("a.nd.h5", "b.nd.h5", "--plot", "x.png", folder=tmp_path)
    assert found["pairs"][0]["units"]["rows"] == []
    assert found["layers"][0]["summary"]["units"] == 0
    assert cli.on_terminal("compare", "a.nd.h5", "b.nd.h5", folder=tmp_path).code == 0


# --- how it is shown -------------------------------------------------------------------------------------------------


def test_a_pipe_gets_one_table_that_says_what_json_says(place: Path) -> None:
    rows = cli.rows_of("compare", "early.nd.h5", "late.nd.h5", folder=place)
    found = compare("early.nd.h5", "late.nd.h5", folder=place)
    for pair in found["pairs"]:
        who = tuple(f"{pair[side]['store']}:{pair[side]['layer']}" for side in ("a", "b"))
        mine = [row for row in rows if (row["a"], row["b"]) == who]
        layers = {layer["name"]: layer for layer in found["layers"]}
        a, b = (layers[pair[side]["name"]] for side in ("a", "b"))
        (unique,) = (row for row in mine if row["name"] == "unique/cat")
        assert (unique["A"], unique["B"]) == tuple(str(x["summary"]["unique_per_category"]) for x in (a, b))
        assert [unique["A low"], unique["A high"]] == [str(n) for n in a["intervals"]["unique_per_category"]]
        change = pair["difference"]["unique_per_category"]
        assert [unique["B - A"], unique["low"], unique["high"]] == [str(change[k]) for k in ("value", "low", "high")]
        for name in ("gained", "lost"):
            assert [r["name"] for r in mine if r["block"] == name] == [c["concept"] for c in pair[name]]
        units = [row for row in mine if row["block"] == "units"]
        assert [int(row["name"]) for row in units] == [u["unit"] for u in pair["units"]["rows"]]
        assert [row["A label"] for row in units] == [u["a"]["label"] or "" for u in pair["units"]["rows"]]
        assert float(units[0]["B - A"]) == pytest.approx(pair["units"]["rows"][0]["difference"], rel=1e-5)
        assert {row["block"] for row in mine} >= {"counts", "unique/cat", "detectors", "units"}
        assert {row["comparable"] for row in mine} == {"yes"}


def test_a_terminal_of_80_columns_holds_every_line_of_the_tables(place: Path) -> None:
    shown = cli.on_terminal("compare", "early.nd.h5", "late.nd.h5", folder=place, columns=80)
    assert shown.code == 0
    assert max(map(len, shown.lines)) <= 80
    words = " ".join(shown.text.split())
    for said in (
        "A early.nd.h5 (early) B late.nd.h5 (late)",
        "from A layer3 to B layer3: unique/cat",
        "labels changed:",
        "protocol netdissect: q 0.005",
        "A: detectors: IoU > 0.04; null: 2 wrong pairings; nothing held out",
        "B: detectors: IoU > 0.04; no null; nothing held out",
        "in brackets: 95 % intervals",
        "only in B, not compared: head",
    ):
        assert said in words, said
    header = next(line.split("  ") for line in shown.lines if "q < 0.05" in line)
    assert [title.strip() for title in header if title.strip()] == [
        *("units", "detectors", "q < 0.05", "unique/cat", "unique/best"),
    ]


def test_limit_cuts_the_units(place: Path) -> None:
    args = ("compare", "early.nd.h5:layer4", "late.nd.h5:layer4", "--limit")
    assert len(cli.json_of(*args, "2", folder=place)["pairs"][0]["units"]["rows"]) == 2
    assert sum(row["block"] == "units" for row in cli.rows_of(*args, "3", folder=place)) == 3
    assert "3 of 9 units; --limit 0 shows all" in cli.on_terminal(*args, "3", folder=place).text
    assert "of 9 units;" not in cli.on_terminal(*args, "0", folder=place).text
    found = cli.json_of(*args, "0", folder=place)["pairs"][0]
    assert len(found["units"]["rows"]) == found["units"]["matched"] == 9


def test_the_plot_is_a_picture_of_the_counts(place: Path) -> None:
    plain = cli.nd("compare", "early.nd.h5", "late.nd.h5", "later.nd.h5", folder=place)
    for name in ("x.png", "x.svg"):
        done = cli.nd("compare", "early.nd.h5", "late.nd.h5", "later.nd.h5", "--plot", name, folder=place)
        assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, f"plot: {name}\n")
    with Image.open(place / "x.png") as picture:
        assert min(picture.size) > 500
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7)} <= colours  # object, part, color
    text = (place / "x.svg").read_text(encoding="utf-8")
    for said in ("Unique detectors by category", "A layer3", "C layer4", "object", "color", "null: 2 wrong pairings"):
        assert said in text, said


def test_two_layers_of_a_real_dissection(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    found = compare("units", "deep.pool", folder=place)
    assert all(layer["intervals"] for layer in found["layers"])
    (pair,) = found["pairs"]
    assert (pair["a"]["layer"], pair["b"]["layer"], pair["same_data"]) == ("units", "deep.pool", True)
    units = {u["unit"]: u for u in pair["units"]["rows"]}
    assert (units[0]["a"]["label"], units[0]["a"]["iou"]) == ("tree", 1.0)
    assert units[0]["low"] < units[0]["difference"] < units[0]["high"] < 0  # the pooled map is coarser
    assert units[3]["a"]["dead"] and units[3]["difference"] == 0
