"""What views tell of units and classes: rows against the effects that are in the store, and the commands' output."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cli
import numpy as np
import pytest
from effects_factory import NAMES, Scene, effects_of
from store_factory import dissection

from ndissect.store.effects import needed_most, random_unit, speaks_for
from ndissect.store.errors import WrongUse
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.reports.report import pages, unit_data
from ndissect.tui.tables.class_names import match_classes
from ndissect.tui.tables.class_units import class_sentence, class_table, spoken_label, units_of_class
from ndissect.tui.tables.doubts import doubted
from ndissect.tui.tables.effect_table import COLUMNS, effect_arrays
from ndissect.tui.tables.effects import classes_of_unit, effects_notes, spoken_by_unit, unit_sentences, worst
from ndissect.tui.tables.units import Units, units_json

LAYER, OTHER = "features.0", "layer4.1.conv2"
MADE = dissection(effects=True, evidence=True, groups=("train", "val"))
HEADS = replace(MADE, layers=tuple(replace(layer, effects=None) for layer in MADE.layers))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_store(folder / "full.nd.h5", MADE)
    write_store(folder / "heads.nd.h5", HEADS)
    write_store(folder / "bare.nd.h5", dissection())
    return folder


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    with Store(place / "full.nd.h5") as opened:
        yield opened


# --- rows -----------------------------------------------------------------------------------------------------------


def test_classes_of_a_unit_are_ranked_on_train_and_told_on_val(store: Store) -> None:
    view = store.layer(LAYER)
    effects = view.effects
    assert effects is not None
    for unit in range(view.units):
        rows = classes_of_unit(view, unit)
        assert rows is not None
        assert sorted(row["number"] for row in rows) == [0, 1, 2, 3], "the last class has no image"
        change = [effects.change[0, unit, row["number"]] for row in rows]
        assert change == sorted(change)
        for row in rows:
            k = row["number"]
            assert row["class"] == NAMES[k]
            assert row["change"] == effects.change[1, unit, k]
            assert (row["low"], row["high"]) == (effects.low[1, unit, k], effects.high[1, unit, k])
            assert row["recall_change"] == effects.recall_without[1, unit, k] - effects.recall[1, k]
            assert row["score_change"] == pytest.approx(effects.score_without[1, unit, k] - effects.score[1, k])
            assert row["images"] == effects.images[1, k]


def test_the_column_of_a_layer_is_the_first_of_these_classes(store: Store) -> None:
    view = store.layer(LAYER)
    told = worst(view)
    for unit in range(view.units):
        rows = classes_of_unit(view, unit)
        assert rows is not None
        assert view.effects is not None
        first = rows[0]
        hurts = view.effects.change[0, unit, first["number"]] < 0
        assert told[unit].tolist() == [first["number"] if hurts else -1, first["change"], first["low"], first["high"]]
    listed = units_json(Units(store, [view]))
    assert [unit["effect"] for unit in listed] == told[:, 1].tolist()
    assert [unit["needed_by"] for unit in listed] == [NAMES[int(k)] if k >= 0 else None for k in told[:, 0]]


def test_units_that_were_not_ablated_are_unknown(tmp_path: Path) -> None:
    first, other = MADE.layers
    some = effects_of(Scene(9), ((3,), (0, 4)))
    write_store(tmp_path / "a.nd.h5", replace(MADE, layers=(replace(first, effects=some, head=None), other)))
    with Store(tmp_path / "a.nd.h5") as store:
        view = store.layer(LAYER)
        assert np.flatnonzero(~np.isnan(worst(view)[:, 1])).tolist() == [3]
        assert classes_of_unit(view, 4) is None
        assert spoken_by_unit(view, 4) is None
        assert unit_sentences(view, 4) == []
        assert [unit["effect"] is None for unit in units_json(Units(store, [view]))] == [u != 3 for u in range(9)]
        assert [row["unit"] for row in units_of_class([view], 0)] == [3]
        assert class_table([view], [0])[0]["unit"] == f"{LAYER}:3"


def test_units_of_a_class_come_in_the_order_of_its_need_through_all_layers(store: Store) -> None:
    views = [store.layer(name) for name in store.layer_names]
    rows = units_of_class(views, 1)
    assert len(rows) == sum(view.units for view in views)
    for view in views:
        assert view.effects is not None
        assert view.head is not None
        own = [row for row in rows if row["layer"] == view.name]
        assert [row["unit"] for row in own] == [view.effects.units[row][0] for row in needed_most(view.effects, 1)]
        for row in own:
            assert row["speaks"] == pytest.approx(speaks_for(view.head, row["unit"])[1])
            assert row["change"] == view.effects.change[1, row["unit"], 1]
    change = {view.name: view.effects.change[0] for view in views if view.effects is not None}
    ranked = [change[row["layer"]][row["unit"], 1] for row in rows]
    assert ranked == sorted(ranked)
    dead = next(row for row in rows if row["layer"] == LAYER and row["unit"] == 2)
    assert (dead["label"], dead["doubt"]) == (None, "dead")


def test_a_table_of_classes_has_the_unit_that_each_needs_most(store: Store) -> None:
    views = [store.layer(name) for name in store.layer_names]
    rows = class_table(views, range(5))
    assert sorted(row["number"] for row in rows) == list(range(5))
    for row in rows:
        k = row["number"]
        best = units_of_class(views, k)[0]
        if k == 4:
            assert row is rows[-1]
            assert (row["unit"], row["images"]) == (None, 0)
            assert math.isnan(row["balanced_accuracy"])
            continue
        assert row["unit"] == f"{best['layer']}:{best['unit']}"
        assert (row["label"], row["change"], row["low"]) == (best["label"], best["change"], best["low"])
        effects = store.layer(best["layer"]).effects
        assert effects is not None
        assert row["random"] == random_unit(effects)[1, k]
        assert row["balanced_accuracy"] == effects.balanced_accuracy[1, k]
        speaks = {(u["layer"], u["unit"]): u["speaks"] for u in units_of_class(views, k)}
        assert row["speaks"] == max(speaks.values())
        doubt = next(
            u["doubt"] or "" for u in units_of_class(views, k) if f"{u['layer']}:{u['unit']}" == row["spoken_by"]
        )
        assert row["spoken_doubt"] == (doubt or None)
        assert spoken_label(row) == doubted(row["spoken_label"] or "", doubt)
    assert class_sentence(views, 4) == "街道: no image of it"
    assert class_sentence(views, 0).startswith("kitchen: 7 images, balanced accuracy 0.")


def test_sentences_name_what_changes_and_what_it_speaks_for_and_how_it_was_measured(store: Store) -> None:
    view = store.layer(LAYER)
    without, weights = unit_sentences(view, 0)
    assert without.startswith("without it, balanced accuracy changes: kitchen -0.476 (-0.526 to -0.426), ski_resort")
    assert re.fullmatch(r"by the head's weights it speaks for kitchen \+1\.776; against street -0\.641, .*", weights)
    (note,) = effects_notes([view, store.layer(OTHER)])
    for words in (
        f"effects of {LAYER}, {OTHER}: change of balanced accuracy on val (28 images)",
        "ranked on train (32 images)",
        "in its place: zero",
        "exact, in closed form (linear head)",
        "the classes are those of the images",
    ):
        assert words in note


@pytest.mark.parametrize("pattern", ["kitchen", "KITCHEN", "kitchen-s", "/k/kitchen", "0", "kit", "k*n"])
def test_classes_are_found_by_their_names_as_people_type_them(pattern: str) -> None:
    assert match_classes(("kitchen", "street", "art_gallery"), pattern) == [0]


def test_names_and_numbers_of_classes() -> None:
    names = ("/s/street", "street car", "art_gallery", "1")
    assert match_classes(names, "street") == [0]
    assert match_classes(names, "stree") == [0, 1]
    assert match_classes(names, "art-gallery") == [2]
    assert match_classes(names, "1") == [3], "a name before a number"
    assert match_classes(names, "2") == [2]
    assert match_classes(names, None) == [0, 1, 2, 3]
    for nothing in ("9", "strt", "9" * 5000, "[a"):
        with pytest.raises(WrongUse, match="no class matches"):
            match_classes(names, nothing)


# --- a table of effects ---------------------------------------------------------------------------------------------


def test_a_table_of_effects_has_a_row_for_each_ablation_split_and_class(store: Store) -> None:
    view = store.layer(LAYER)
    e = view.effects
    assert e is not None
    table = effect_arrays(view, e)
    assert tuple(table) == COLUMNS
    at = 0
    for row, units in enumerate(e.units):
        for s, split in enumerate(e.splits):
            for k, name in enumerate(NAMES):
                got = {key: values[at] for key, values in table.items()}
                assert (got["units"], got["split"], got["class"]) == (",".join(map(str, units)), split, name)
                assert got["unit"] == (units[0] if len(units) == 1 else -1)
                for key in ("images", "hits", "false", "balanced_accuracy", "recall", "score"):
                    np.testing.assert_equal(got[key], getattr(e, key)[s, k])
                for key in ("hits_without", "false_without", "balanced_accuracy_without", "recall_without"):
                    np.testing.assert_equal(got[key], getattr(e, key)[s, row, k])
                for key in ("change", "low", "high", "score_without"):
                    np.testing.assert_equal(got[key], getattr(e, key)[s, row, k])
                at += 1
    assert {len(values) for values in table.values()} == {at}


def test_exports_of_effects(place: Path) -> None:
    full = ("-s", "full.nd.h5")
    done = cli.nd("export", "--effects", *full, folder=place)
    assert done.returncode == 0, done.stderr
    assert "ranked on train (32 images)" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == (10 + 7) * 2 * 5
    assert {row["layer"] for row in rows} == {LAYER, OTHER}
    first = rows[5]
    assert (first["unit"], first["split"], first["class"], first["change"][:6]) == ("0", "val", "kitchen", "-0.476")
    assert {row["change"] for row in rows if row["class_number"] == "4"} == {""}
    assert cli.nd("export", OTHER, "--effects", *full, "-o", "one.csv", folder=place).stdout == ""
    assert len((place / "one.csv").read_text(encoding="utf-8").splitlines()) == 1 + 7 * 2 * 5
    found = json.loads(cli.nd("export", "--effects", "--format", "json", *full, folder=place).stdout)
    assert found["classes"] == {"names": list(NAMES), "named_by": "the network"}
    layer = found["layers"][0]
    assert layer["effects"]["before"]["val"]["images"] == [7, 7, 7, 7, 0]
    assert layer["effects"]["ablations"][0]["splits"]["val"]["change"][0] == pytest.approx(float(first["change"]))
    assert layer["effects"]["ablations"][0]["splits"]["val"]["change"][4] is None
    assert layer["effects"]["ablations"][9]["units"] == [0, 8]
    assert np.array(layer["head"]["weight"]).shape == (5, 9)
    plain = json.loads(cli.nd("export", LAYER, "--format", "json", *full, folder=place).stdout)["layers"][0]
    assert (plain["units"][0]["needed_by"], plain["effects"]["split"]) == ("kitchen", "val")
    cli.failed(cli.nd("export", "--effects", "-s", "heads.nd.h5", folder=place), 2, "holds no effects", "nd ablate")
    milan = ("--format", "milan", "-o", "m")
    cli.failed(cli.nd("export", "--effects", *milan, *full, folder=place), 2, "--effects", "csv, json or parquet")


def test_effects_as_parquet(place: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    to = ("--format", "parquet", "-o", "e.parquet")
    assert cli.nd("export", "--effects", *to, "-s", "full.nd.h5", folder=place).returncode == 0
    rows = parquet.read_table(place / "e.parquet").to_pylist()
    assert len(rows) == (10 + 7) * 2 * 5
    assert [row["change"] for row in rows if row["class_number"] == 4] == [None] * 34
    assert rows[5]["class"] == "kitchen"
    header = json.loads(parquet.read_schema(place / "e.parquet").metadata[b"ndissect"])
    assert [about["truth"] for about in header["effects"]] == ["images", "images"]


# --- commands -------------------------------------------------------------------------------------------------------


def test_nd_classes_lists_them_and_the_units_of_one(place: Path) -> None:
    full = ("-s", "full.nd.h5")
    found = cli.json_of("classes", *full, folder=place)
    assert list(found) == ["store", "marks", "named_by", "effects", "classes"]
    assert [about["layer"] for about in found["effects"]] == [LAYER, OTHER]
    assert len(found["classes"]) == 5
    assert found["classes"][-1]["balanced_accuracy"] is None
    one = cli.json_of("classes", "Kitchen", "-l", LAYER, *full, folder=place)
    assert (one["class"], one["number"], one["units"][0]["unit"], len(one["units"])) == ("kitchen", 0, 0, 9)
    assert one["before"][0]["recall"] == 1.0
    rows = cli.rows_of("classes", "kitchen", *full, folder=place)
    assert list(rows[0]) == [
        *("layer", "unit", "label", "IoU", "change", "low", "high", "recall", "score", "speaks for")
    ]  # fmt: skip
    rows = cli.rows_of("classes", "-s", "heads.nd.h5", folder=place)
    assert list(rows[0]) == ["class", "spoken for by", "its label", "weight"]
    seen = cli.on_terminal("classes", "kitchen", *full, folder=place)
    assert "kitchen: 7 images, balanced accuracy" in seen.text
    assert "to be trusted" in seen.text


def test_nd_inspect_tells_of_classes(place: Path) -> None:
    full = ("-s", "full.nd.h5")
    layer = cli.json_of("inspect", LAYER, "--sort", "effect", *full, folder=place)
    effects = [unit["effect"] for unit in layer["units"]]
    assert effects == sorted(effects)
    assert (layer["units"][0]["needed_by"], layer["effects"]["truth"]) == ("kitchen", "images")
    one = cli.json_of("inspect", f"{LAYER}:0", *full, folder=place)
    assert one["effects"]["classes"][0]["class"] == "kitchen"
    assert one["speaks_for"][0]["class"] == "kitchen"
    seen = cli.on_terminal("inspect", f"{LAYER}:0", *full, folder=place)
    assert "without it, balanced accuracy changes: kitchen -0.476" in " ".join(seen.text.split())
    bare = cli.json_of("inspect", f"{LAYER}:0", "-s", "bare.nd.h5", folder=place)
    assert not {"effects", "speaks_for", "needed_by"} & set(bare)


def test_what_no_store_tells_is_said(place: Path) -> None:
    bare = ("-s", "bare.nd.h5")
    cli.failed(cli.nd("classes", *bare, folder=place), 2, "does not tell what units do", f"nd ablate {OTHER}")
    cli.failed(cli.nd("classes", "kitten", "-s", "full.nd.h5", folder=place), 2, "no class matches 'kitten'", "kitchen")
    cli.failed(cli.nd("inspect", LAYER, "--sort", "effect", *bare, folder=place), 2, "tells no effect", "nd ablate")


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_names_classes_of_units_and_has_a_section_of_classes(store: Store) -> None:
    views = [store.layer(name) for name in store.layer_names]
    data = unit_data(store, views)
    assert data["classes"] == NAMES
    assert len(data["said"]) == 15
    assert data["said"][0] == unit_sentences(views[0], 0)
    assert {"effect", "needed_by"} <= {column["key"] for column in data["columns"]}
    assert data["units"]["needed_by"][0] == 0
    page = "".join(pages(store, views, [np.zeros(0, np.int64)] * 2, 0))
    section = page.split('<h2 id="classes">')[1].split("</section>")[0]
    assert section.count("<tr>") == 6
    assert "art_gallery" in section
    assert "ranked on train (32 images)" in section


def test_a_page_without_effects_is_what_it_was(place: Path) -> None:
    with Store(place / "bare.nd.h5") as store:
        views = [store.layer(name) for name in store.layer_names]
        data = unit_data(store, views)
        assert (data["classes"], data["said"]) == ([], [])
        assert not {"effect", "needed_by"} & {column["key"] for column in data["columns"]}
        assert 'id="classes"' not in "".join(pages(store, views, [np.zeros(0, np.int64)] * 2, 0))


def test_a_page_obeys_nothing_in_the_names_of_classes(tmp_path: Path) -> None:
    assert MADE.classes is not None
    names = ("</script><b>x", *NAMES[1:])
    write_store(tmp_path / "a.nd.h5", replace(MADE, classes=replace(MADE.classes, names=names, source="<i>")))
    with Store(tmp_path / "a.nd.h5") as store:
        views = [store.layer(name) for name in store.layer_names]
        page = "".join(pages(store, views, [np.zeros(0, np.int64)] * 2, 0))
    assert "</script><b>" not in page
    assert "<i>" not in page
