"""What views tell of a generator's units and the concepts in its pictures: rows against what is in the store."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli import nd
from store_factory import DRAWN, dissection

from ndissect.store.errors import NDError
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app.session import Session
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.units import concept_units, layer_units
from ndissect.tui.pictures.sheets import effect_sheet, unit_sheet, with_effect
from ndissect.tui.reports.report import pages, unit_data
from ndissect.tui.tables import concept_effects as told
from ndissect.tui.tables.units import Units, units_json

LAYER = "features.0"
MADE = dissection(drawn=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_store(folder / "a.nd.h5", MADE)
    write_store(folder / "both.nd.h5", dissection(drawn=True, effects=True))
    write_store(folder / "bare.nd.h5", dissection())
    return folder / "a.nd.h5"


@pytest.fixture
def view(path: Path) -> Iterator[LayerView]:
    with Store(path) as store:
        yield store.layer(LAYER)


def test_concepts_of_a_unit_are_ranked_by_how_much_their_share_changes(view: LayerView) -> None:
    e = view.concept_effects
    assert e is not None
    for unit in range(DRAWN):
        rows = told.concepts_of_unit(view, unit)
        assert rows is not None
        assert rows[0]["concept"] == view.store.concepts.label(unit), "unit u draws concept u"
        assert [abs(row["change"]) for row in rows] == sorted((abs(row["change"]) for row in rows), reverse=True)
        first = rows[0]
        assert (first["before"], first["after"]) == (e.before[unit], e.after[unit, unit])
        assert (first["low"], first["high"]) == (e.low[unit, unit], e.high[unit, unit])
        assert first["change"] == e.after[unit, unit] - e.before[unit]
    assert told.concepts_of_unit(view, DRAWN) is None
    said = told.unit_sentences(view, 1)
    assert said[0].startswith("without this unit, shares of pixels: blue 0.192 -> 0.096 (0.086-0.106), ")
    assert said[1] == "learned coefficients: blue 0.016, señal de tráfico 0.000"
    assert len(told.unit_sentences(view, DRAWN)) == 1, "only coefficients"


def test_columns_of_units_tell_of_the_label_or_of_the_concept_that_was_asked_for(view: LayerView) -> None:
    e, label = view.concept_effects, view.labels[0]
    assert e is not None
    for unit, one in enumerate(units_json(Units(view.store, [view]))):
        row = int(label[unit])
        measured = unit < DRAWN and row >= 0
        assert one["concept_effect"] == (e.after[unit, row] - e.before[row] if measured else None)
        assert one["concept_effect_low"] == (e.low[unit, row] - e.before[row] if measured else None)
        coefficients = e.coefficients_of(row) if row >= 0 else None
        assert one["coefficient"] == (None if coefficients is None else coefficients[unit])
    asked = Units(view.store, [view], concept=4)
    assert asked.concept_effect[:DRAWN].tolist() == e.change[:, 4].tolist()
    assert np.isnan(asked.concept_effect[DRAWN:]).all()
    assert asked.coefficient.tolist() == e.coefficients[1].tolist()


def test_a_store_without_effects_has_no_such_columns(path: Path) -> None:
    with Store(path.with_name("bare.nd.h5")) as store:
        bare = store.layer(LAYER)
        assert not {"concept_effect", "coefficient"} & set(units_json(Units(store, [bare]))[0])
        assert told.unit_sentences(bare, 0) == told.effects_notes([bare]) == told.concept_rows([bare]) == []
        assert unit_data(store, [bare])["said"] == []


def test_the_table_has_a_row_for_all_that_is_known(view: LayerView) -> None:
    e = view.concept_effects
    assert e is not None
    table = told.effect_arrays(view)
    C = len(view.store.concepts)
    assert len(table["unit"]) == DRAWN * C + (view.units - DRAWN) * 2
    measured = ~np.isnan(table["after"])
    assert table["change"][measured].tolist() == e.change.ravel().tolist()
    assert table["samples"][measured].tolist() == [20] * (DRAWN * C)
    learned = ~np.isnan(table["coefficient"])
    assert table["coefficient"][learned].tolist() == e.coefficients.T.ravel().tolist()
    assert table["iou"][:C].tolist() == view.unit_ious(0)[0].tolist()


def test_the_page_of_a_report_tells_them(path: Path) -> None:
    with Store(path) as store:
        layers = [store.layer(name) for name in store.layer_names]
        page = "".join(pages(store, layers, [np.zeros(0, np.int64)] * 2, 0))
        data = unit_data(store, layers)
    assert "What units draw" in page
    assert "<td>features.0:1</td><td>blue</td>" in page
    assert "it is no effect" in page
    assert data["said"][1][0].startswith("without this unit, shares of pixels: blue")
    assert {"concept_effect", "coefficient"} <= {column["key"] for column in data["columns"]}


def test_the_browser_shows_them_beside_ious(path: Path) -> None:
    session = Session(path)
    listing = unit_listing(session, LAYER, 1)
    cells = [listing.cells(row) for row in range(listing.count)]
    at = next(i for i, row in enumerate(cells) if row[0] == "without this unit")
    assert cells[at + 1] == ("blue", "color", "-0.096", "", "0.192", "0.096", "0.086-0.106")
    assert at in listing.headings
    learned = next(i for i, row in enumerate(cells) if str(row[0]).startswith("learned coefficients"))
    assert (cells[learned + 1][0], cells[learned + 1][4]) == ("blue", "0.016")
    items = [listing.item(row) for row in range(listing.count) if row not in listing.headings]
    assert len(set(items)) == len(items), "the cursor finds each row again"
    titles = [column.title for column in layer_units(session, LAYER).columns]
    assert {"effect", "coefficient"} <= set(titles)
    number = int(session.store.concepts.number[4])
    found = concept_units(session, number, LAYER)
    assert any(note.startswith("effect: change of the concept's share") for note in "; ".join(found.notes).split("; "))
    session.close()


def test_the_commands_print_and_export_them(path: Path) -> None:
    listed = list(
        csv.DictReader(io.StringIO(nd("inspect", LAYER, "-s", path, folder=path.parent).stdout), delimiter="\t")
    )
    assert {"effect", "concept_effect_low", "coefficient"} <= set(listed[0])
    one = nd("inspect", f"{LAYER}:1", "-s", path, folder=path.parent).stdout.splitlines()
    assert one[0].split("\t")[-2:] == ["effect", "coefficient"]
    known = json.loads(nd("inspect", f"{LAYER}:1", "-s", path, "--json", folder=path.parent).stdout)
    assert known["concept_effects"]["samples"] == 20
    assert known["concept_effects"]["concepts"][0]["concept"] == "blue"
    assert known["coefficients"][0]["coefficient"] == 0.125**2
    table = list(csv.DictReader(io.StringIO(nd("export", LAYER, "-s", path, "--effects", folder=path.parent).stdout)))
    assert tuple(table[0]) == told.COLUMNS
    assert math.isclose(float(table[0]["change"]), float(table[0]["after"]) - float(table[0]["before"]))
    exported = json.loads(nd("export", "-s", path, "--effects", "--format", "json", folder=path.parent).stdout)
    assert len(exported["layers"][0]["concept_effects"]["units"]) == DRAWN
    assert exported["layers"][0]["concept_effects"]["coefficients_of"] == ["blue", "señal de tráfico"]


def test_pictures_with_and_without_a_unit_are_drawn_side_by_side(path: Path, tmp_path: Path) -> None:
    with Store(path) as store:
        view = store.layer(LAYER)
        sheet = effect_sheet(view, 1)
        pixels = np.asarray(sheet.image).astype(int)
        red, blue = (np.abs(pixels - colour).sum(2) < 30 for colour in ((200, 1, 0), (0, 1, 200)))
        assert (red.sum(), blue.sum()) == (256 * 256, 256 * 256)
        assert np.argwhere(red)[:, 1].max() < np.argwhere(blue)[:, 1].min()
        assert sheet.title == f"{LAYER}  without unit 1  blue"
        alone = unit_sheet(view, 1)
        assert with_effect(alone, view, 1).image.height == alone.image.height + sheet.image.height
        assert with_effect(alone, view, 5) is alone
        with pytest.raises(NDError, match="holds no pictures of what"):
            effect_sheet(view, 5)
    drawn = nd("overlay", f"{LAYER}:1", "-s", path, "--effect", folder=tmp_path)
    assert drawn.stdout == f"{LAYER}-1-effect.png\n"
    refused = nd("overlay", f"{LAYER}:1", "-s", path, "--effect", "--truth", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_two_kinds_of_effects_are_not_put_into_one_table(path: Path) -> None:
    both = path.with_name("both.nd.h5")
    refused = nd("export", "-s", both, "--effects", folder=path.parent)
    assert refused.returncode == 2
    assert "effects on classes and on concepts" in refused.stderr
    layer = json.loads(nd("export", "-s", both, "--effects", "--format", "json", folder=path.parent).stdout)["layers"][
        0
    ]
    assert {"effects", "concept_effects"} <= set(layer)


def test_nothing_that_was_measured_makes_no_difference_to_coefficients(tmp_path: Path) -> None:
    """A store of coefficients alone is shown as such."""
    first, other = MADE.layers
    assert first.concept_effects is not None
    e = first.concept_effects
    nothing = np.zeros((0, len(e.before)))
    only = replace(
        e, units=e.units[:0], before=e.before * np.nan, after=nothing, low=nothing, high=nothing, samples=0, how="x"
    )
    bare = replace(first, concept_effects=only, effect_pictures=None)
    write_store(tmp_path / "a.nd.h5", replace(MADE, layers=(bare, other)))
    with Store(tmp_path / "a.nd.h5") as store:
        view = store.layer(LAYER)
        assert told.effects_notes([view])[0] == f"{LAYER}: x"
        assert [row["unit"] for row in told.concept_rows([view])] == [None, None]
        assert set(told.unit_json(view, 0)) == {"coefficients"}
