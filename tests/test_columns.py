"""The columns of units: a new one is a new declaration, and is seen in every view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_factory import dissection

from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app.session import Session
from ndissect.tui.app.units import layer_units
from ndissect.tui.reports.report import unit_data
from ndissect.tui.tables import columns
from ndissect.tui.tables.columns import BY_WORD, COLUMNS, SORTS, Medium, UnitColumn, columns_of
from ndissect.tui.tables.fitting import fitting
from ndissect.tui.tables.formats import number
from ndissect.tui.tables.selection import Filter, select_units
from ndissect.tui.tables.unit_table import unit_arrays
from ndissect.tui.tables.units import Units, units_json

LAYER = "features.0"
RANGE = UnitColumn(
    "range",
    lambda units: units.statistic("maximum") - units.statistic("minimum"),
    heading="max - min",
    word="range",
    text=number,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_store(tmp_path / "a.nd.h5", dissection(evidence=True, groups=("train", "val")))
    return tmp_path / "a.nd.h5"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


@pytest.fixture
def with_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, RANGE))
    monkeypatch.setitem(BY_WORD, RANGE.word, RANGE)


def test_a_declared_column_is_seen_in_every_view(with_range: None, store: Store, path: Path) -> None:
    view = store.layer(LAYER)
    expected = view.statistics.maximum - view.statistics.minimum
    units = Units(store, [view])
    assert units.shown(Medium.INSPECT)[-1] is RANGE
    assert [unit["range"] for unit in units_json(units)] == pytest.approx(expected.tolist())
    assert unit_arrays([view])["range"].tolist() == expected.tolist()
    page = unit_data(store, [view])
    assert page["columns"][-1] == {
        "key": "range", "title": "max - min", "number": True, "first": -1, "write": ("digits", 3), "help": "",
    }  # fmt: skip
    assert page["units"]["range"] == pytest.approx(expected, rel=1e-5)
    session = Session(path)
    listing = layer_units(session, LAYER)
    assert listing.columns[-1].title == "max - min"
    assert listing.cells(0)[-1] == f"{expected[0]:.4g}"
    assert listing.plain(0)["range"] == expected[0]
    session.close()


def test_a_word_orders_and_filters_units_by_the_number_of_its_column(with_range: None, store: Store) -> None:
    view = store.layer(LAYER)
    expected = view.statistics.maximum - view.statistics.minimum
    assert select_units(view, Filter(), "range").tolist() == np.argsort(-expected, kind="stable").tolist()
    middle = float(np.median(expected))
    assert (
        select_units(view, Filter(bounds={"range": middle}), "unit").tolist()
        == np.flatnonzero(expected >= middle).tolist()
    )


def test_keys_and_words_name_one_column_each() -> None:
    assert len({column.key for column in COLUMNS}) == len(COLUMNS)
    assert sorted(BY_WORD) == sorted(column.word for column in COLUMNS if column.word)
    assert set(SORTS) - set(BY_WORD) == {"label", "category", "report"}


@pytest.mark.parametrize("medium", Medium)
def test_each_column_is_seen_once(medium: Medium) -> None:
    assert sorted(c.key for c in columns_of(medium)) == sorted(c.key for c in COLUMNS if c.where & medium)


def test_columns_go_by_rank_until_the_rest_fits() -> None:
    widths, drops = [5, 10, 4, 6], [0, 1, 3, 3]
    assert fitting(widths, drops, 28, 1) == [0, 1, 2, 3]
    assert fitting(widths, drops, 27, 1) == [0, 1, 3], "the first of equals"
    assert fitting(widths, drops, 17, 1) == [0, 1]
    assert fitting(widths, drops, 15, 1) == [0]
    assert fitting(widths, drops, 1, 1) == [0], "what never goes stays, where there is room or not"
    assert fitting([], [], 10, 1) == []
