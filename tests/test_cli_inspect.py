"""``nd inspect`` and ``nd concepts``: what they print to programs, to pipes and to people."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli
import pytest
from store_factory import dissection
from with_evidence import PAIRINGS, with_evidence

from ndissect.store.reader import Store
from ndissect.store.writer import write_store

EVIDENCE = ["p", "q", "iou_low", "iou_high", "stability", "heldout_iou", "auprc"]
WIDER = dissection(layers={"features.0": (12, (4, 5)), "layer4": (30, (3, 3))}, groups=("train", "val"))
SUMMARY = {"units", "detectors", "detectors_q05", "unique_per_category", "unique_best_label", "by_category"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dissected workplace, and stores of random counts with long and foreign names: wide.nd.h5 without evidence,
    weighed.nd.h5 with it."""
    folder = cli.workplace(tmp_path_factory.mktemp("place") / "work")
    write_store(folder / "wide.nd.h5", dissection())
    write_store(folder / "weighed.nd.h5", with_evidence(WIDER))
    for name in ("wide", "weighed"):
        os.utime(folder / f"{name}.nd.h5", (1, 1))  # net-small.nd.h5 is the newest
    return folder


# JSON


def test_a_layer_as_json_has_these_keys_and_no_others(place: Path) -> None:
    found = cli.json_of("inspect", "units", folder=place)
    assert list(found) == ["store", "layer", "judged_on", "protocol", "marks", "units", "summary"]
    assert (found["store"], found["layer"]) == ("net-small.nd.h5", "units")
    keys = ["unit", "label", "category", "iou", "threshold", "dead", *EVIDENCE]
    assert [list(u) for u in found["units"]] == [keys] * 4
    assert sorted(u["unit"] for u in found["units"]) == [0, 1, 2, 3]
    assert found["protocol"]["name"] == "netdissect+"
    assert found["protocol"]["q"] == "1/5"
    assert found["summary"] == {
        "units": 4,
        "detectors": 3,
        "detectors_q05": 0,  # three labels of images this few are no more than chance might give
        "unique_per_category": 4,  # a tree covers more than 4 % of the streets, the only scenes there are
        "unique_best_label": 3,
        "by_category": {"object": 1, "part": 1, "color": 1, "scene": 1},
    }
    dead = next(u for u in found["units"] if u["unit"] == 3)
    assert (dead["label"], dead["category"], dead["iou"], dead["dead"]) == (None, None, 0.0, True)
    assert {type(u["iou"]) for u in found["units"]} == {float}


def test_json_agrees_with_the_store(place: Path) -> None:
    with Store(place / "wide.nd.h5") as store:
        view = store.layer("features.0")
        label, iou = view.labels
        expected = {
            u: (store.concepts.label(int(label[u])) if label[u] >= 0 else None, float(iou[u]))
            for u in range(view.units)
        }
    found = cli.json_of("inspect", "features.0", "-s", "wide.nd.h5", folder=place)
    assert {u["unit"]: (u["label"], u["iou"]) for u in found["units"]} == expected


def test_without_a_layer_the_layers_of_the_store(place: Path) -> None:
    found = cli.json_of("inspect", folder=place)
    assert list(found) == ["store", "protocol", "marks", "layers"]
    assert [x["layer"] for x in found["layers"]] == ["units", "deep.pool"]
    assert all(set(x["summary"]) == SUMMARY for x in found["layers"])
    rows = cli.rows_of("inspect", folder=place)
    assert (rows[0]["layer"], rows[0]["units"], rows[0]["detectors"]) == ("units", "4", "3")


def test_one_unit_with_its_concepts_and_top_images(place: Path) -> None:
    found = cli.json_of("inspect", "units:1", folder=place)
    assert (found["unit"], found["label"], found["iou"]) == (1, "wheel", 1.0)
    assert found["best"]["part"]["concept"] == "wheel"
    first = found["concepts"][0]
    assert first["intersection"] == first["area"] == first["concept_area"] > 0
    ious = [c["iou"] for c in found["concepts"]]
    assert ious == sorted(ious, reverse=True)
    assert len(found["top_images"]) == 10
    assert found["top_images"][0]["peak"] == 200
    rows = cli.rows_of("inspect", "units:1", folder=place)
    assert rows[0]["concept"] == "wheel"
    assert float(rows[0]["IoU"]) == 1.0


# Filters


def test_filters_choose_units_by_their_label(place: Path) -> None:
    cases: list[tuple[tuple[str, ...], list[int]]] = [
        (("--category", "part"), [1]),
        (("--category", "part", "--category", "color"), [1, 2]),
        (("--concept", "re"), [0, 2]),  # inside of names: tREe, REd
        (("--concept", "RED"), [2]),
        (("--concept", "t?ee"), [0]),
        (("--concept", "red-c"), [2]),  # as the data set spells it
        (("--min-iou", "0.5"), [0, 1, 2]),
        (("--concept", "street"), []),  # a concept that is no unit's label
    ]
    runs = cli.in_parallel(lambda case: cli.json_of("inspect", "units", *case[0], folder=place), cases)
    for (args, units), found in zip(cases, runs, strict=True):
        assert [u["unit"] for u in found["units"]] == units, args


def test_filters_choose_the_concepts_of_a_unit(place: Path) -> None:
    found = cli.json_of("inspect", "units:1", "--category", "object", "--category", "color", folder=place)
    assert {c["category"] for c in found["concepts"]} <= {"object", "color"}
    assert found["concepts"]
    assert [c["concept"] for c in cli.json_of("inspect", "units:1", "--min-iou", "1", folder=place)["concepts"]] == [
        "wheel"
    ]


def test_sorting(place: Path) -> None:
    def order(sort: str) -> list[int]:
        args = ("inspect", "features.0", "-s", "wide.nd.h5", "--sort", sort)
        return [u["unit"] for u in cli.json_of(*args, folder=place)["units"]]

    found = {u["unit"]: u for u in cli.json_of("inspect", "features.0", "-s", "wide.nd.h5", folder=place)["units"]}
    labelled = [u for u in found if found[u]["label"]]
    assert order("unit") == sorted(found)
    assert order("iou") == sorted(found, key=lambda u: (-found[u]["iou"], u))
    assert order("threshold") == sorted(found, key=lambda u: (-found[u]["threshold"], u))
    by_label = order("label")
    assert by_label[: len(labelled)] == sorted(labelled, key=lambda u: (found[u]["label"], -found[u]["iou"], u)), (
        "and units without a label come last"
    )
    places = ["object", "scene", "part", "material", "texture", "color"]
    assert order("category")[: len(labelled)] == sorted(
        labelled, key=lambda u: (places.index(found[u]["category"]), -found[u]["iou"], u)
    )
    report = order("report")
    detectors = [u for u in report if found[u]["iou"] > 0.04]
    assert report[: len(detectors)] == detectors, "those below the threshold come last"
    shown = [places.index(found[u]["category"]) for u in detectors]
    assert shown == sorted(shown)


def test_limits(place: Path) -> None:
    wide = ("inspect", "features.0", "-s", "wide.nd.h5")
    assert len(cli.json_of(*wide, "--limit", "3", folder=place)["units"]) == 3
    assert len(cli.json_of(*wide, "-n", "0", folder=place)["units"]) == 9
    assert len(cli.rows_of(*wide, "-n", "2", folder=place)) == 2
    some = len(cli.json_of("inspect", "features.0:4", "-s", "wide.nd.h5", "-n", "2", folder=place)["concepts"])
    every = len(cli.json_of("inspect", "features.0:4", "-s", "wide.nd.h5", "-n", "0", folder=place)["concepts"])
    assert some == 2 < every
    assert len(cli.json_of("concepts", "-n", "4", "-s", "wide.nd.h5", folder=place)["concepts"]) == 4


# Pipes


def test_a_pipe_gets_a_header_and_tab_separated_values_without_decoration(place: Path) -> None:
    done = cli.nd("inspect", "features.0", "-s", "wide.nd.h5", folder=place)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "unit\tlabel\tcategory\tIoU\tthreshold\tdead"
    assert len(lines) == 1 + 9
    assert not set("\x1b█▏│─…") & set(done.stdout)
    dead = next(line for line in lines if line.startswith("2\t"))
    assert dead.split("\t")[1:4] == ["", "", "0"]
    assert dead.endswith("\t1")
    assert any("街道" in line for line in lines)


def test_a_pipe_gets_the_same_under_any_locale(place: Path) -> None:
    args = ("inspect", "features.0", "-s", "wide.nd.h5")
    plain = cli.nd(*args, folder=place).stdout
    assert cli.nd(*args, folder=place, env={"LC_ALL": "C", "TERM": "dumb", "NO_COLOR": "1"}).stdout == plain
    # Without any way to write them, letters become escapes: no crash, nothing lost.
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = cli.nd(*args, folder=place, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode().decode("unicode_escape") == plain
    found = cli.json_of(*args, folder=place, env=ascii_only)
    assert "街道" in [u["label"] for u in found["units"]]


# Terminals


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NO_COLOR": "1"},
        {"TERM": "dumb"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["colour", "no colour", "dumb", "C locale", "ASCII"],
)
def test_a_terminal_of_80_columns_shows_every_label_and_iou(place: Path, env: dict[str, str]) -> None:
    seen = cli.on_terminal("inspect", "features.0", "-s", "wide.nd.h5", folder=place, env=env)
    assert seen.code == 0, seen.text
    assert all(len(line) <= 80 for line in seen.lines), seen.text
    for u in cli.json_of("inspect", "features.0", "-s", "wide.nd.h5", folder=place)["units"]:
        label = u["label"] or ""
        if "PYTHONUTF8" in env:
            label = label.encode("ascii", "backslashreplace").decode()
        row = next(line for line in seen.lines if line.split()[:1] == [str(u["unit"])])
        assert label in row
        assert f"{u['iou']:.4f}" in row
        assert ("dead" in row) == u["dead"]
    assert "9 units" in seen.text
    assert "unique detectors" in seen.text
    assert "protocol netdissect+" in seen.text
    coloured = "\x1b[3" in seen.raw.replace("\x1b[3m", "") or "\x1b[1m" in seen.raw
    assert coloured == (env.get("TERM") != "dumb")


def test_a_terminal_is_not_overrun_and_says_what_is_left_out(place: Path) -> None:
    write_store(place / "many.nd.h5", dissection(layers={"layer4": (60, (3, 3))}))
    os.utime(place / "many.nd.h5", (1, 1))
    seen = cli.on_terminal("inspect", "layer4", "-s", "many.nd.h5", folder=place)
    assert len(seen.lines) < 24, seen.text
    assert "of 60 units; --limit 0 shows all" in seen.text
    every = cli.on_terminal("inspect", "layer4", "-s", "many.nd.h5", "--limit", "0", folder=place)
    assert len(every.lines) > 60
    few = cli.on_terminal("inspect", "layer4", "-s", "many.nd.h5", "--category", "part", "-n", "0", folder=place)
    assert "of 60 units match" in few.text


def test_a_table_too_wide_for_the_terminal_is_drawn_in_several_and_nothing_is_cut(place: Path) -> None:
    seen = cli.on_terminal("inspect", "features.0", "-s", "wide.nd.h5", folder=place, columns=32)
    assert seen.code == 0
    rows = [line.split() for line in seen.lines]
    assert ["unit", "label", "category"] in rows
    assert ["unit", "IoU", "threshold", "dead"] in rows
    for u in cli.json_of("inspect", "features.0", "-s", "wide.nd.h5", folder=place)["units"]:
        mine = [" ".join(r[1:]) for r in rows if r[:1] == [str(u["unit"])]]
        assert any((u["label"] or "") in r for r in mine), seen.text
        assert any(f"{u['iou']:.4f}" in r for r in mine), seen.text
    assert "…" not in seen.text


def test_one_unit_and_the_layers_on_a_terminal(place: Path) -> None:
    seen = cli.on_terminal("inspect", "units:0", folder=place)
    assert "units:0  tree  IoU 1.0000" in seen.text
    assert "see them: nd overlay units:0" in seen.text
    assert all(len(line) <= 80 for line in seen.lines)
    listed = cli.on_terminal("inspect", folder=place)
    assert any(line.split() == ["units", "4", "3", "0", "4", "3", "0", "tree", "1.00"] for line in listed.lines)


# Evidence

WEIGHED = ("-s", "weighed.nd.h5")


def test_evidence_as_json_null_where_unknown(place: Path) -> None:
    found = cli.json_of("inspect", "layer4", *WEIGHED, folder=place)
    with Store(place / "weighed.nd.h5") as store:
        view = store.layer("layer4")
        for u in found["units"]:
            assert list(u)[-len(EVIDENCE) :] == EVIDENCE
            for name in EVIDENCE:
                value = float(getattr(view.evidence, name)[u["unit"]])
                assert u[name] == (None if math.isnan(value) else value)
        surviving = int(((view.labels[1] > 0.04) & (view.evidence.q < 0.05)).sum())
    assert any(u["q"] is None for u in found["units"])
    assert found["summary"]["detectors_q05"] == surviving > 0
    one = cli.json_of("inspect", "layer4:5", *WEIGHED, folder=place)
    assert {k: one[k] for k in EVIDENCE} == next({k: u[k] for k in EVIDENCE} for u in found["units"] if u["unit"] == 5)
    plain = cli.json_of("inspect", "features.0", "-s", "wide.nd.h5", folder=place)
    assert {u[name] for u in plain["units"] for name in EVIDENCE} == {None}
    assert plain["summary"]["detectors_q05"] is None


def test_a_pipe_gets_all_the_evidence(place: Path) -> None:
    rows = cli.rows_of("inspect", "layer4", *WEIGHED, folder=place)
    assert list(rows[0]) == [
        "unit", "label", "category", "IoU", "low", "high", "q", "held-out", "stability", "AUPRC", "threshold", "dead"
    ]  # fmt: skip
    names = dict(zip(("low", "high", "q", "held-out", "stability", "AUPRC"), ("iou_low", "iou_high", "q",
                     "heldout_iou", "stability", "auprc"), strict=True))  # fmt: skip
    units = {u["unit"]: u for u in cli.json_of("inspect", "layer4", *WEIGHED, folder=place)["units"]}
    for row in rows:
        for title, name in names.items():
            value = units[int(row["unit"])][name]
            assert row[title] == ("" if value is None else f"{value:.6g}")


def test_units_are_sorted_by_evidence_the_surest_first(place: Path) -> None:
    def order(sort: str) -> list[dict[str, Any]]:
        found = cli.json_of("inspect", "layer4", *WEIGHED, "--sort", sort, folder=place)["units"]
        assert isinstance(found, list)
        return found

    names = {"q": "q", "low": "iou_low", "heldout": "heldout_iou", "stability": "stability", "auprc": "auprc"}
    for (sort, name), found in zip(names.items(), cli.in_parallel(order, names), strict=True):
        values = [u[name] for u in found]
        known = [v for v in values if v is not None]
        assert values == sorted(known, reverse=sort != "q") + [None] * (len(values) - len(known))
        assert 0 < len(known) < len(values)
        for u, v in pairwise(found):
            if u[name] == v[name]:
                assert (-u["iou"], u["unit"]) < (-v["iou"], v["unit"])


def test_units_are_filtered_by_evidence(place: Path) -> None:
    units = cli.json_of("inspect", "layer4", *WEIGHED, folder=place)["units"]
    cases: list[tuple[tuple[str, ...], Callable[[dict[str, Any]], bool]]] = [
        (("--max-q", "0.04"), lambda u: u["q"] <= 0.04),
        (("--min-low", "0.04"), lambda u: u["iou_low"] >= 0.04),
        (("--min-heldout", "0.04"), lambda u: u["heldout_iou"] >= 0.04),
        (("--min-stability", "0.8"), lambda u: u["stability"] >= 0.8),
        (("--min-auprc", "0.5"), lambda u: u["auprc"] >= 0.5),
        (("--min-auprc", "0"), lambda u: True),
        (("--max-q", "0.04", "--min-iou", "0.05"), lambda u: u["q"] <= 0.04 and u["iou"] >= 0.05),
    ]
    runs = cli.in_parallel(lambda case: cli.json_of("inspect", "layer4", *WEIGHED, *case[0], folder=place), cases)
    for (args, passes), found in zip(cases, runs, strict=True):
        expected = [u["unit"] for u in units if u["q"] is not None and passes(u)]
        assert [u["unit"] for u in found["units"]] == expected, args
        assert 0 < len(expected) < len(units)


def test_evidence_that_a_store_has_not_is_told(place: Path) -> None:
    cases = [
        (
            ("wide.nd.h5", "features.0", "--max-q", "0.05"),
            ("--max-q: wide.nd.h5 tells no q of any unit of features.0",),
        ),
        (("wide.nd.h5", "features.0", "--sort", "stability"), ("--sort stability: wide.nd.h5", "dissect the network")),
        (("weighed.nd.h5", "layer4:3", "--min-low", "0.1"), ("--min-low chooses among units", "nd inspect layer4")),
        (("weighed.nd.h5", "layer4", "--min-stability", "95"), ("--min-stability",)),
        (("weighed.nd.h5", "--max-q", "0.05"), ("no layer is named",)),
    ]
    runs = cli.in_parallel(lambda case: cli.nd("inspect", "-s", *case[0], folder=place), cases)
    for (_, said), done in zip(cases, runs, strict=True):
        cli.failed(done, 2, *said)


def test_a_terminal_shows_the_most_telling_evidence_and_says_what_is_left_out(place: Path) -> None:
    units = cli.json_of("inspect", "layer4", *WEIGHED, folder=place)["units"]
    narrow = cli.on_terminal("inspect", "layer4", *WEIGHED, folder=place)
    wide = cli.on_terminal("inspect", "layer4", *WEIGHED, folder=place, columns=160)
    for seen, room in ((narrow, 80), (wide, 160)):
        assert seen.code == 0
        assert all(len(line) <= room for line in seen.lines), seen.text
        assert len(seen.lines) < 24, seen.text
        shown = {line.split()[0]: line for line in seen.lines if line.split()[:1] and line.split()[0].isdigit()}
        for u in units[:8]:
            row = shown[str(u["unit"])]
            assert f"{u['iou']:.4f}" in row
            if u["q"] is not None:
                assert f"{u['iou_low']:.3f}-{u['iou_high']:.3f}" in row
                assert ("<0.001" if u["q"] < 0.001 else f"{u['q']:.3f}") in row
                assert f"{u['heldout_iou']:.3f}" in row
                assert (f"{u['auprc']:.3f}" in row) == (room == 160)
        assert f"null: {PAIRINGS} wrong pairings; held out: train/val" in seen.text
        assert " of them with q < 0.05" in seen.text
    header = next(line.split() for line in narrow.lines if line.startswith("unit"))
    assert header[:7] == ["unit", "label", "category", "IoU", "interval", "q", "held-out"]
    assert any(line.startswith("in wider terminals and in pipes: ") and "AUPRC" in line for line in narrow.lines)
    assert "in wider terminals" not in wide.text


def test_a_very_narrow_terminal_gets_all_evidence_in_several_tables(place: Path) -> None:
    seen = cli.on_terminal("inspect", "layer4", *WEIGHED, folder=place, columns=30)
    titles = {word for line in seen.lines if line.startswith("unit ") for word in line.split()}
    assert {"label", "IoU", "interval", "q", "held-out", "stability", "AUPRC", "threshold"} <= titles


def test_a_unit_tells_its_evidence_in_words(place: Path) -> None:
    units = cli.json_of("inspect", "layer4", *WEIGHED, folder=place)["units"]
    u = next(u for u in units if u["q"] is not None)
    seen = cli.on_terminal("inspect", f"layer4:{u['unit']}", *WEIGHED, folder=place)
    for words in (
        f"IoU {u['iou_low']:.3f}-{u['iou_high']:.3f} (95 %); the label in {100 * u['stability']:.0f} % of resamples",
        f"q {u['q']:.3g}, p {u['p']:.3g}: ",
        f": {PAIRINGS} wrong pairings reach IoU ",
        "held out: train chooses ",
        f" -> {u['heldout_iou']:.3f} on val (",
        f"AUPRC {u['auprc']:.3f}, by chance ",
        "detectors: IoU > 0.04; null: ",
    ):
        assert words in seen.text, words
    assert all(len(line) <= 80 for line in seen.lines)
    dead = cli.on_terminal("inspect", "layer4:2", *WEIGHED, folder=place)
    assert "held out: train" not in dead.text.replace("held out: train/val", "")


def test_layers_say_how_many_detectors_survive(place: Path) -> None:
    found = cli.json_of("inspect", *WEIGHED, folder=place)["layers"]
    rows = cli.rows_of("inspect", *WEIGHED, folder=place)
    assert [int(r["q<0.05"]) for r in rows] == [x["summary"]["detectors_q05"] for x in found]
    seen = cli.on_terminal("inspect", *WEIGHED, folder=place)
    assert all(len(line) <= 80 for line in seen.lines)
    for x in found:
        row = next(line.split() for line in seen.lines if line.startswith(x["layer"]))
        assert row[1:4] == [str(x["summary"][k]) for k in ("units", "detectors", "detectors_q05")]
    assert f"null: {PAIRINGS} wrong pairings" in seen.text
    plain = cli.rows_of("inspect", "-s", "wide.nd.h5", folder=place)
    assert list(plain[0]) == ["layer", "units", "detectors", "unique/cat", "unique/best", "best unit"]


# Concepts


def test_concepts_with_their_detectors(place: Path) -> None:
    found = cli.json_of("concepts", folder=place)
    assert list(found) == ["store", "marks", "concepts"]
    by_name = {c["concept"]: c for c in found["concepts"]}
    assert by_name["tree"] == {
        "concept": "tree",
        "category": "object",
        "images": cli.IMAGES,
        "detectors": 2,
        "best_unit": "units:0",
        "iou": 1.0,
    }
    assert by_name["street"]["detectors"] == 0
    assert by_name["street"]["images"] == 4
    assert by_name["traffic light"]["images"] == 1
    rows = cli.rows_of("concepts", folder=place)
    assert {r["concept"]: int(r["detectors"]) for r in rows} == {c: v["detectors"] for c, v in by_name.items()}
    some = cli.json_of("concepts", "--category", "part", folder=place)["concepts"]
    assert [c["concept"] for c in some] == ["wheel"]
    one_layer = cli.json_of("concepts", "--layer", "units", folder=place)["concepts"]
    assert next(c for c in one_layer if c["concept"] == "tree")["detectors"] == 1


def test_a_concept_with_its_units_in_every_layer(place: Path) -> None:
    found = cli.json_of("concepts", "tree", folder=place)
    assert list(found) == ["store", "marks", "concept", "category", "units"]
    assert (found["concept"], found["category"]) == ("tree", "object")
    assert {k: found["units"][0][k] for k in ("layer", "unit", "iou", "label")} == {
        "layer": "units",
        "unit": 0,
        "iou": 1.0,
        "label": "tree",
    }
    assert {u["layer"] for u in found["units"]} == {"units", "deep.pool"}
    assert cli.rows_of("concepts", "tree", folder=place)[0]["its label"] == "tree"
    several = cli.json_of("concepts", "*e*", folder=place)
    assert {c["concept"] for c in several["concepts"]} == {"tree", "wheel", "red", "street"}


def test_concepts_on_a_terminal_lose_nothing(place: Path) -> None:
    seen = cli.on_terminal("concepts", "-s", "wide.nd.h5", folder=place)
    assert all(len(line) <= 80 for line in seen.lines), seen.text
    for c in cli.json_of("concepts", "-s", "wide.nd.h5", folder=place)["concepts"]:
        row = next(line for line in seen.lines if c["concept"] in line)
        assert f"{c['iou']:.4f}" in row
        assert (c["best_unit"] or "") in row


# Which store


def test_the_store_is_the_given_one_else_nd_store_else_the_newest_here(place: Path, tmp_path: Path) -> None:
    def store(*args: str, **env: str) -> str:
        return str(cli.json_of("inspect", *args, folder=place, env=env)["store"])

    assert store() == "net-small.nd.h5"
    assert store(ND_STORE="wide.nd.h5") == "wide.nd.h5"
    assert store("-s", "net-small.nd.h5", ND_STORE="wide.nd.h5") == "net-small.nd.h5"
    assert store("--store", str(place)) == str(place / "net-small.nd.h5"), "of a folder, the newest in it"
    os.utime(place / "wide.nd.h5")
    try:
        assert store() == "wide.nd.h5"
    finally:
        os.utime(place / "wide.nd.h5", (1, 1))
    cli.failed(cli.nd("inspect", folder=tmp_path), 2, "no *.nd.h5 store in this folder", "nd dissect", "$ND_STORE")
    cli.failed(cli.nd("inspect", "-s", "gone.nd.h5", folder=place), 2, "no store at gone.nd.h5")
    cli.failed(cli.nd("inspect", folder=place, env={"ND_STORE": "gone.nd.h5"}), 2, "no store at gone.nd.h5")


# Names that do not exist


def test_unknown_names_are_answered_with_the_nearest(place: Path) -> None:
    cases = [
        (("inspect", "unit"), ("no layer 'unit' in net-small.nd.h5", "units")),
        (("inspect", "deep.pol"), ("no layer 'deep.pol'", "deep.pool")),
        (("inspect", "units:4"), ("units has no unit 4", "0 to 3")),
        (("inspect", "units:-1"), ("'-1' is no unit",)),
        (("inspect", "units:tree"), ("'tree' is no unit", "units:0")),
        (("inspect", "units", "--category", "objects"), ("no category 'objects'", "object")),
        (("inspect", "units", "--concept", "trea"), ("no concept matches 'trea'", "tree")),
        (("inspect", "units:0", "--concept", "trea"), ("no concept matches 'trea'", "tree")),
        (("concepts", "trafic"), ("no concept matches 'trafic'", "traffic light")),
        (("concepts", "wheel", "--category", "color"), ("no concept matches 'wheel' in category color",)),
        (("concepts", "--layer", "unit"), ("no layer 'unit'", "units")),
        (("inspect", "--concept", "tree"), ("no layer is named", "nd concepts")),
    ]
    runs = cli.in_parallel(lambda case: cli.nd(*case[0], folder=place), cases)
    for (_, said), done in zip(cases, runs, strict=True):
        cli.failed(done, 2, *said)


def test_a_reader_that_has_seen_enough_ends_it_quietly(place: Path) -> None:
    write_store(place / "long.nd.h5", dissection(layers={"layer4": (4000, (2, 2))}, top=1))
    os.utime(place / "long.nd.h5", (1, 1))
    for json in ([], ["--json"]):
        with subprocess.Popen(
            [str(cli.ND), "inspect", "layer4", "-s", "long.nd.h5", *json],
            cwd=place,
            env=cli.environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.read(10)
            process.stdout.close()
            said = process.stderr.read()
        assert said == ""
        assert process.returncode == 0
