"""What the Layers and Units tables list, against the same numbers counted from the dissection that was written."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed import (
    CATEGORY,
    FIRST,
    IMAGES_OF,
    IOUS,
    LABELS,
    NUMBER,
    REPORT,
    SECOND,
    UNIT,
    D,
    all_cells,
    all_plain,
    best_labels,
    by_category,
    column,
    detectors,
    layer_of,
    of,
    opened,
    written,
)
from rich.cells import cell_len
from store_factory import DEAD

from ndissect.store.writer import write_store
from ndissect.tui.app.layers import category_letters, layers_listing
from ndissect.tui.app.listing import Bar, Item, Order, Stack
from ndissect.tui.app.query import Mistake, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.units import FULL_IOU, concept_units, layer_units


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("listings"))


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    yield from opened(folder / "a.nd.h5")


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Session]:
    """A store of only the first layer."""
    yield from opened(folder / "one.nd.h5")


@pytest.fixture(scope="module")
def none(folder: Path) -> Iterator[Session]:
    """A store of no layer at all."""
    yield from opened(folder / "none.nd.h5")


def test_the_dissection_is_worth_a_test() -> None:
    """Dead units, units without a label, detectors and others, several units of a concept, equal IoUs."""
    values = [value for _, value in UNIT.values()]
    assert sum(value == 0 for value in values) >= 2
    assert any(value > 0.04 for value in values)
    assert max(Counter(label for label, _ in UNIT.values()).values()) > 3
    assert all(UNIT[layer.name, DEAD] == ("", 0.0) for layer in D.layers)
    assert max(len(found) for found in by_category("").values()) > 1


# Layers


def test_the_layers_with_their_units_detectors_and_unique_detectors(session: Session) -> None:
    listing = layers_listing(session)
    rows = all_cells(listing)
    assert [row[0] for row in rows] == [FIRST, SECOND, "all layers"]
    for row in rows[:2]:
        layer = row[0]
        unique = by_category(layer)
        unit, (label, value) = max(((at[1], UNIT[at]) for at in of(layer)), key=lambda x: (x[1][1], -x[0]))
        assert row[1:6] == [
            str(len(of(layer))),
            str(detectors(layer)),
            str(sum(map(len, unique.values()))),
            str(best_labels(layer)),
            f"{unit} {label} {value:.2f}",
        ]
        assert isinstance(row[6], Stack)
        assert row[6].parts == tuple((k[0], len(unique[k])) for k in REPORT)
        assert row[6].full == max(sum(map(len, by_category(name).values())) for name in (FIRST, SECOND))
    assert rows[2] == ["all layers", str(len(of(""))), str(detectors("")), "", "", "", ""]
    assert [listing.item(row) for row in range(3)] == [Item("layer", FIRST), Item("layer", SECOND), Item("layer", "")]
    assert listing.copied(1) == SECOND


def test_the_letters_of_the_bar_are_explained_below_the_layers(session: Session) -> None:
    notes = layers_listing(session).notes[0]
    assert notes.startswith("o object, s scene, p part, m material, t texture, c color")


def test_the_layers_as_they_are_exported(session: Session) -> None:
    for row in all_plain(layers_listing(session))[:2]:
        layer = row["layer"]
        unit = row.pop("best_unit")
        assert row == {
            "layer": layer,
            "units": len(of(layer)),
            "detectors": detectors(layer),
            "unique_per_category": sum(map(len, by_category(layer).values())),
            "unique_best_label": best_labels(layer),
            **{k: len(found) for k, found in by_category(layer).items()},
            "best_label": UNIT[layer, unit][0],
            "best_iou": max(UNIT[at][1] for at in of(layer)),
        }
    assert all_plain(layers_listing(session))[2] == {
        "layer": "all layers", "units": len(of("")), "detectors": detectors("")
    }  # fmt: skip


def test_layers_are_filtered_and_sorted(session: Session) -> None:
    listing = layers_listing(session)
    assert [row[0] for row in all_cells(listing, text="layer:features*")] == [FIRST]
    assert [row[0] for row in all_cells(listing, text="layer4")] == [SECOND]
    assert [row[0] for row in all_cells(listing, text="units>12")] == [FIRST, "all layers"]
    assert [row[0] for row in all_cells(listing, text=f"detectors={detectors(SECOND)}")] == [SECOND]
    assert [row[0] for row in all_cells(listing, Order(column(listing, "units"), True))] == [
        "all layers",
        FIRST,
        SECOND,
    ]
    assert [row[0] for row in all_cells(listing, Order(column(listing, "units")))] == [SECOND, FIRST, "all layers"]
    assert [row[0] for row in all_cells(listing, Order(0, True))] == ["all layers", SECOND, FIRST]
    for title, first in (("/cat", lambda x: sum(map(len, by_category(x).values()))), ("/best", best_labels)):
        expected = max((FIRST, SECOND), key=first)
        found = [row[0] for row in all_cells(listing, Order(column(listing, title), True)) if row[0] != "all layers"]
        assert found[0] == expected


def test_a_store_of_one_layer_has_no_row_for_all(one: Session, none: Session) -> None:
    assert [row[0] for row in all_cells(layers_listing(one))] == [FIRST]
    listing = layers_listing(none)
    assert (listing.count, listing.empty) == (0, "this store holds no layer")
    assert listing.arrange(parse("car units>3 !layer4")).tolist() == []


@settings(max_examples=200, deadline=None)
@given(
    categories=st.lists(
        st.one_of(
            st.text(st.sampled_from("ab o"), min_size=1, max_size=3), st.sampled_from(["街道", "景色", "é", "\u0301a"])
        ),
        unique=True,
        max_size=9,
    )
)
def test_every_category_has_a_letter_of_one_cell_that_no_other_has(categories: list[str]) -> None:
    found = category_letters(categories)
    assert list(found) == categories
    assert all(len(letter) == cell_len(letter) == 1 and letter.strip() for letter in found.values())
    assert len(set(found.values())) == len(categories)
    for i, category in enumerate(categories):
        free = [c for c in category if c not in [found[c] for c in categories[:i]] and cell_len(c) == 1 and c.strip()]
        assert not free or found[category] == free[0]


def test_the_letters_of_the_papers_categories() -> None:
    assert "".join(category_letters(list(REPORT)).values()) == "ospmtc"
    assert category_letters(["person", "plant", "place"]) == {"person": "p", "plant": "l", "place": "a"}


# Units


def expected_unit(layer: str, unit: int) -> dict[str, Any]:
    label, value = UNIT[layer, unit]
    statistics = layer_of(layer).statistics
    return {
        "layer": layer,
        "unit": unit,
        "label": label or None,
        "category": CATEGORY.get(label),
        "iou": pytest.approx(value, abs=1e-15),
        "threshold": float(statistics.threshold[unit]),
        "dead": bool(statistics.dead[unit]),
    }


@pytest.mark.parametrize("layer", [FIRST, SECOND, ""])
def test_the_units_of_a_layer_or_of_all_best_first(session: Session, layer: str) -> None:
    listing = layer_units(session, layer)
    rows = listing.arrange().tolist()
    expected = sorted(of(layer), key=lambda at: -UNIT[at][1])
    assert [(listing.item(row).layer, listing.item(row).unit) for row in rows] == expected
    assert {listing.item(row).kind for row in rows} == {"unit"}
    assert [listing.plain(row) for row in rows] == [expected_unit(*at) for at in expected]
    assert listing.key == ("units", f"layer {layer}" if layer else "all layers")
    assert listing.columns[0].title == ("unit" if layer else "layer")


def test_the_cells_of_a_unit(session: Session) -> None:
    listing = layer_units(session, "")
    for row in range(listing.count):
        at = (listing.item(row).layer, listing.item(row).unit)
        label, value = UNIT[at]
        cells = list(listing.cells(row))
        assert len(cells) == len(listing.columns)
        threshold = str(cells.pop(column(listing, "threshold")))
        assert float(threshold) == pytest.approx(layer_of(at[0]).statistics.threshold[at[1]], rel=6e-4)
        assert len(threshold) <= 9
        assert cells == [
            at[0],
            str(at[1]),
            "dead" if at[1] == DEAD else label or "-",
            CATEGORY.get(label, ""),
            f"{value:.3f}" if value else "-",
            Bar(pytest.approx(value / FULL_IOU)),
            str(IMAGES_OF[label]) if label else "",
        ]
        assert listing.copied(row) == f"{at[0]}:{at[1]}\t{label}\t{CATEGORY.get(label, '')}\t{value:.6g}"
        assert listing.faint(row) == (value <= 0.04)


UNIT_KEYS: dict[str, Callable[[tuple[str, int]], Any]] = {
    "layer": lambda at: [FIRST, SECOND].index(at[0]),
    "unit": lambda at: at[1],
    "label": lambda at: (not UNIT[at][0], UNIT[at][0].casefold()),
    "category": lambda at: (*REPORT, "").index(CATEGORY.get(UNIT[at][0], "")),
    "IoU": lambda at: UNIT[at][1],
    "threshold": lambda at: layer_of(at[0]).statistics.threshold[at[1]],
    "images": lambda at: IMAGES_OF.get(UNIT[at][0], 0),
}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("title", UNIT_KEYS)
def test_units_are_sorted_by_any_column_equals_as_they_come(session: Session, title: str, descending: bool) -> None:
    listing = layer_units(session, "")
    rows = listing.arrange(order=Order(column(listing, title), descending)).tolist()
    expected = sorted(of(""), key=UNIT_KEYS[title], reverse=descending)  # stable, also where reversed
    assert [(listing.item(row).layer, listing.item(row).unit) for row in rows] == expected


UNIT_FILTERS: dict[str, Callable[[tuple[str, int]], bool]] = {
    "dead": lambda at: at[1] == DEAD,
    "!dead": lambda at: at[1] != DEAD,
    "detector": lambda at: UNIT[at][1] > 0.04,
    "traffic": lambda at: "traffic" in UNIT[at][0],
    '"traffic light" iou>0.05': lambda at: UNIT[at][0] == "traffic light" and UNIT[at][1] > 0.05,
    "街": lambda at: UNIT[at][0] == "街道",
    "!car !wheel": lambda at: "car" not in UNIT[at][0] and "wheel" not in UNIT[at][0],
    "cat:object": lambda at: CATEGORY.get(UNIT[at][0]) == "object",
    "cat:obj,scene !detector": lambda at: CATEGORY.get(UNIT[at][0]) in ("object", "scene") and UNIT[at][1] <= 0.04,
    "layer:layer4": lambda at: at[0] == SECOND,
    "layer:*.0 unit:3-5,28-": lambda at: at[0] == FIRST and (3 <= at[1] <= 5 or at[1] >= 28),
    "images>=6": lambda at: bool(UNIT[at][0]) and IMAGES_OF[UNIT[at][0]] >= 6,
    "threshold<0.9": lambda at: bool(layer_of(at[0]).statistics.threshold[at[1]] < 0.9),
}


@pytest.mark.parametrize("text", UNIT_FILTERS)
def test_units_are_filtered(session: Session, text: str) -> None:
    listing = layer_units(session, "")
    rows = listing.arrange(parse(text), Order()).tolist()
    expected = [at for at in of("") if UNIT_FILTERS[text](at)]
    assert [(listing.item(row).layer, listing.item(row).unit) for row in rows] == expected
    assert 0 < len(expected) < len(of(""))


def test_what_units_do_not_have_is_told(session: Session) -> None:
    listing = layer_units(session, "")
    for text, said in (("detectors>1", "rows have no detectors here"), ("layer:conv", "there is features.0, layer4")):
        with pytest.raises(Mistake, match=said):
            listing.arrange(parse(text))
    assert listing.arrange(parse("cat:material")).tolist() == []  # a category of the data set, without any concept


@pytest.mark.parametrize(("label", "layer"), itertools.product(LABELS, ["", SECOND]))
def test_the_units_of_a_concept_by_their_iou_with_it(session: Session, label: str, layer: str) -> None:
    listing = concept_units(session, NUMBER[label], layer)
    rows = listing.arrange().tolist()
    expected = sorted((at for at in of(layer) if IOUS[at][label] > 0), key=lambda at: -IOUS[at][label])
    assert [(listing.item(row).layer, listing.item(row).unit) for row in rows] == expected
    for row, at in zip(rows, expected, strict=True):
        cells = listing.cells(row)
        assert cells[2] == UNIT[at][0]  # the label that it goes by, which may be another
        assert cells[4] == f"{IOUS[at][label]:.3f}"
        assert listing.faint(row) == (IOUS[at][label] <= 0.04)
    found = listing.arrange(parse("detector"))
    assert len(found) == sum(IOUS[at][label] > 0.04 for at in of(layer))


def test_each_concept_and_layer_is_remembered_by_itself(session: Session) -> None:
    listings = [concept_units(session, n, layer) for n in (3, 4) for layer in ("", FIRST)]
    listings += [layer_units(session, layer) for layer in ("", FIRST, SECOND)]
    assert len({listing.key for listing in listings}) == len(listings)


def test_a_concept_that_no_unit_has_to_do_with_says_so(folder: Path) -> None:
    layer = layer_of(FIRST)
    assert layer.counts is not None
    intersection = layer.counts.intersection.copy()
    intersection[:, :, LABELS.index("wheel")] = 0
    changed = replace(layer, counts=replace(layer.counts, intersection=intersection))
    write_store(folder / "nowheel.nd.h5", replace(D, layers=(changed,)))
    for session in opened(folder / "nowheel.nd.h5"):
        listing = concept_units(session, NUMBER["wheel"])
        assert (listing.count, listing.empty) == (0, "no unit has an IoU above 0 with wheel")
        assert listing.arrange(parse("dead iou>0.1 !car")).tolist() == []
