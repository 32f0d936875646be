"""What the tables of a store list, against the same numbers counted here from the dissection that was written."""

from __future__ import annotations

import csv
import itertools
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from store_factory import CATEGORIES, CONCEPTS, DEAD, GRID, IMAGES, WITH_NAN, dissection

from ndissect.store.counts import LayerCounts
from ndissect.store.errors import NDError
from ndissect.store.live import Run
from ndissect.store.model import Layer, UnitStatistics
from ndissect.store.reader import Store
from ndissect.store.scores import Best
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app.actions import ACTIONS, GROUPS
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.help import LANGUAGE, help_listing, palette_listing, viewers_listing
from ndissect.tui.app.layers import category_letters, layers_listing
from ndissect.tui.app.listing import NOTHING, Bar, Column, Item, Listing, Order, Stack
from ndissect.tui.app.query import CHOICES, FLAGS, NUMBERS, Mistake, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.state import Place, last_place, remember
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.taking import export
from ndissect.tui.app.unit import RUNNERS_UP, unit_listing
from ndissect.tui.app.units import FULL_IOU, concept_units, layer_units
from ndissect.tui.app.watch import duration, look, open_session, progress, waiting_listing
from ndissect.tui.viewer import Viewer

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
FIRST, SECOND = "features.0", "layer4"
D = dissection(layers={FIRST: (30, (4, 5)), SECOND: (12, (3, 3))}, groups=("train", "val"), top=5)
LABELS = ("red", "blue", "car", "traffic light", "señal de tráfico", "wheel", "街道", "art gallery", "striped")
REPORT = ("object", "scene", "part", "material", "texture", "color")
CATEGORY = {label: category for label, (_, _, category) in zip(LABELS, CONCEPTS, strict=True)}
NUMBER = {label: number for label, (number, _, _) in zip(LABELS, CONCEPTS, strict=True)}
NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listings")
    write_store(folder / "a.nd.h5", D)
    write_store(folder / "one.nd.h5", replace(D, layers=D.layers[:1]))
    write_store(folder / "none.nd.h5", replace(D, layers=()))
    return folder


def opened(path: Path) -> Iterator[Session]:
    session = Session(path)
    yield session
    session.close()


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


@pytest.fixture(scope="module")
def imported(folder: Path, session: Session) -> Iterator[Session]:
    """The first layer as a published table, which knows only the best concept of each category, imported again."""
    with (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(session.view(FIRST), out)
    write_store(folder / "t.nd.h5", read_table(folder / "t.csv", FIRST))
    yield from opened(folder / "t.nd.h5")


# --- what must come out, by loops over the counts -------------------------------------------------------------------


def layer_of(name: str) -> Layer:
    return next(layer for layer in D.layers if layer.name == name)


def counts_of(layer: str, unit: int) -> dict[str, tuple[float, int, int, int]]:
    """Label -> IoU, I, A, C: the union is taken over the images that hold a concept of the category."""
    counts, dead = layer_of(layer).counts, layer_of(layer).statistics.dead[unit]
    assert counts is not None
    found = {}
    for row, label in enumerate(LABELS):
        k = CATEGORIES.index(CATEGORY[label])
        both = sum(int(counts.intersection[g, unit, row]) for g in range(2))
        area = sum(int(counts.area_in_category[g, unit, k]) for g in range(2))
        concept = sum(int(D.concept_counts.area[g, row]) for g in range(2))
        found[label] = (both / (area + concept - both) if concept and not dead else 0.0, both, area, concept)
    return found


def best_of(ious: dict[str, float]) -> tuple[str, float]:
    """The label with the largest IoU, the first of equals; "" where all are 0."""
    value = max(ious.values(), default=0.0)
    return next((label for label in ious if ious[label] == value), "") if value > 0 else "", value


IOUS = {
    (layer.name, u): {label: found[0] for label, found in counts_of(layer.name, u).items()}
    for layer in D.layers
    for u in range(len(layer.best.concept))
}
UNIT = {at: best_of(ious) for at, ious in IOUS.items()}
WINNERS = {
    at: {k: best_of({c: v for c, v in ious.items() if CATEGORY[c] == k}) for k in CATEGORIES}
    for at, ious in IOUS.items()
}
IMAGES_OF = {label: int(D.concept_counts.images[:, row].sum()) for row, label in enumerate(LABELS)}


def of(layer: str) -> list[tuple[str, int]]:
    """The units of a layer, "" is all."""
    return [at for at in IOUS if layer in ("", at[0])]


def detectors(layer: str) -> int:
    return sum(max(IOUS[at].values()) > 0.04 for at in of(layer))


def by_category(layer: str) -> dict[str, set[str]]:
    """Category -> the concepts that win it somewhere with an IoU above 0.04."""
    return {k: {WINNERS[at][k][0] for at in of(layer) if WINNERS[at][k][1] > 0.04} for k in CATEGORIES}


def best_labels(layer: str) -> int:
    return len({UNIT[at][0] for at in of(layer) if UNIT[at][1] >= 0.04})


def all_cells(listing: Listing, order: Order | None = None, text: str = "") -> list[list[Any]]:
    rows = listing.arrange(parse(text), order)
    return [list(listing.cells(int(row))) for row in rows]


def all_plain(listing: Listing, text: str = "") -> list[dict[str, Any]]:
    return [dict(listing.plain(int(row))) for row in listing.arrange(parse(text)) if row not in listing.headings]


def column(listing: Listing, title: str) -> int:
    return [c.title for c in listing.columns].index(title)


def test_the_dissection_is_worth_a_test() -> None:
    """Dead units, units without a label, detectors and others, several units of a concept, equal IoUs."""
    values = [value for _, value in UNIT.values()]
    assert sum(value == 0 for value in values) >= 2
    assert any(value > 0.04 for value in values)
    assert max(Counter(label for label, _ in UNIT.values()).values()) > 3
    assert all(UNIT[layer.name, DEAD] == ("", 0.0) for layer in D.layers)
    assert max(len(found) for found in by_category("").values()) > 1


# --- layers ---------------------------------------------------------------------------------------------------------


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


# --- units ----------------------------------------------------------------------------------------------------------


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


# --- concepts -------------------------------------------------------------------------------------------------------


def labelled(label: str, layer: str = "") -> list[tuple[str, int]]:
    """Units that go by the label with an IoU above 0.04."""
    return [at for at in of(layer) if UNIT[at][0] == label and UNIT[at][1] > 0.04]


def best_labelled(label: str) -> tuple[str | None, float]:
    found = [at for at in of("") if UNIT[at][0] == label]
    best = max(found, key=lambda at: UNIT[at][1], default=None)
    return (f"{best[0]}:{best[1]}", UNIT[best][1]) if best else (None, 0.0)


def test_the_concepts_with_their_detectors_most_first(session: Session) -> None:
    listing = concepts_listing(session)
    rows = all_plain(listing)
    expected = sorted(LABELS, key=lambda label: (-len(labelled(label)), -best_labelled(label)[1], label.casefold()))
    assert [row["concept"] for row in rows] == expected
    for row in rows:
        label = row["concept"]
        assert row == {
            "concept": label,
            "category": CATEGORY[label],
            "detectors": len(labelled(label)),
            "best_unit": best_labelled(label)[0],
            "iou": pytest.approx(best_labelled(label)[1], abs=1e-15),
            "images": IMAGES_OF[label],
            FIRST: len(labelled(label, FIRST)),
            SECOND: len(labelled(label, SECOND)),
        }
    assert [listing.item(row) for row in range(listing.count)] == [
        Item("concept", concept=NUMBER[label]) for label in expected
    ]


def test_the_cells_of_a_concept(session: Session) -> None:
    listing = concepts_listing(session)
    for cells in all_cells(listing):
        label = str(cells[0])
        unit, value = best_labelled(label)
        where = [(layer, len(labelled(label, layer))) for layer in (SECOND, FIRST)]  # the deepest layer first
        assert cells[1:] == [
            CATEGORY[label],
            str(len(labelled(label))) if labelled(label) else "-",
            f"{value:.3f}" if value else "-",
            Bar(pytest.approx(value / FULL_IOU)),
            unit or "-",
            "  ".join(f"{layer} {n}" for layer, n in where if n),
            str(IMAGES_OF[label]),
        ]


def test_concepts_are_filtered_and_sorted(session: Session) -> None:
    listing = concepts_listing(session)

    def found(text: str, order: Order | None = None) -> list[str]:
        return [str(cells[0]) for cells in all_cells(listing, order, text)]

    assert set(found("cat:object")) == {"car", "traffic light", "señal de tráfico"}
    assert found("señal") == ["señal de tráfico"]
    assert set(found("detectors>=2")) == {label for label in LABELS if len(labelled(label)) >= 2}
    assert set(found("iou>0.2")) == {label for label in LABELS if best_labelled(label)[1] > 0.2}
    assert set(found("images<7")) == {label for label in LABELS if IMAGES_OF[label] < 7}
    assert set(found("layer:layer4")) == {x for x in LABELS if (best_labelled(x)[0] or "").startswith(SECOND)}
    assert found("", Order(0)) == sorted(LABELS, key=str.casefold)
    assert found("", Order(0, True)) == sorted(LABELS, key=str.casefold, reverse=True)
    by_images = found("", Order(column(listing, "images"), True))
    assert [IMAGES_OF[label] for label in by_images] == sorted(IMAGES_OF.values(), reverse=True)
    by_category = found("", Order(column(listing, "category")))
    assert [CATEGORY[label] for label in by_category] == sorted(CATEGORY.values(), key=REPORT.index)


def twice(layer: Layer) -> Layer:
    """The layer with all its units once more behind them."""
    assert layer.counts is not None
    both = {
        "best": Best(*(np.concatenate([x, x]) for x in vars(layer.best).values())),
        "statistics": UnitStatistics(*(np.concatenate([x, x]) for x in vars(layer.statistics).values())),
        "counts": LayerCounts(*(np.concatenate([x, x], 1) for x in vars(layer.counts).values())),
    }
    return replace(layer, top=None, **both)


def test_of_equal_units_the_first_is_the_best_and_comes_first(folder: Path, session: Session) -> None:
    write_store(folder / "twice.nd.h5", replace(D, layers=tuple(map(twice, D.layers)), images=None))
    for doubled in opened(folder / "twice.nd.h5"):
        best = [row["best_unit"] for row in all_plain(layers_listing(session))[:2]]
        assert [row["best_unit"] for row in all_plain(layers_listing(doubled))[:2]] == best
        best = {row["concept"]: row["best_unit"] for row in all_plain(concepts_listing(session))}
        assert {row["concept"]: row["best_unit"] for row in all_plain(concepts_listing(doubled))} == best
        for listing in (layer_units(doubled, SECOND), concept_units(doubled, 3, SECOND)):
            units = [listing.item(row).unit for row in listing.arrange().tolist()]
            places = {unit: place for place, unit in enumerate(units)}
            assert len(units) > 4
            assert all(places[unit] < places[unit + 12] for unit in units if unit < 12)


def test_concepts_without_any_layer(none: Session) -> None:
    rows = all_plain(concepts_listing(none))
    assert [row["concept"] for row in rows] == sorted(LABELS, key=str.casefold)
    assert {(row["detectors"], row["best_unit"], row["iou"]) for row in rows} == {(0, None, 0.0)}
    listing = concepts_listing(none)
    assert listing.arrange(parse("car")).tolist() == [1 + sorted(LABELS, key=str.casefold).index("blue")]
    assert all(listing.faint(row) for row in range(listing.count))


# --- summary --------------------------------------------------------------------------------------------------------


def wins(layer: str, category: str) -> dict[str, list[float]]:
    """Concept -> the IoUs of the units whose best concept of the category it is, those above 0.04."""
    found: dict[str, list[float]] = {}
    for at in of(layer):
        label, value = WINNERS[at][category]
        if value > 0.04:
            found.setdefault(label, []).append(value)
    return found


@pytest.mark.parametrize("layer", [FIRST, SECOND, ""])
def test_the_summary_has_a_bar_for_each_category(session: Session, layer: str) -> None:
    listing = summary_listing(session, layer)
    unique = {k: len(found) for k, found in by_category(layer).items()}
    rows = sections(listing)["unique detectors by category"]
    assert [listing.cells(row)[:3] for row in rows] == [
        [k, str(unique[k]), Bar(pytest.approx(unique[k] / max(unique.values())))] for k in REPORT
    ]
    assert [listing.plain(row) for row in rows] == [
        {"category": k, "unique": unique[k], "detectors": sum(map(len, wins(layer, k).values()))} for k in REPORT
    ]
    assert [listing.item(row) for row in rows] == [Item("category", layer, name=k) for k in REPORT]


@pytest.mark.parametrize("layer", [FIRST, SECOND, ""])
def test_the_summary_counts_a_unit_in_each_category_that_it_wins(session: Session, layer: str) -> None:
    listing = summary_listing(session, layer)
    found = sections(listing)
    most = max(len(units) for k in REPORT for units in wins(layer, k).values())
    heads = [
        f"{k}: {len(won)} unique, in {sum(map(len, won.values()))} units" for k in REPORT if (won := wins(layer, k))
    ]
    assert [head for head in found if " unique, in " in head] == heads
    for head in heads:
        category = head.partition(":")[0]
        won = wins(layer, category)
        expected = sorted(won, key=lambda x: (-len(won[x]), -max(won[x]), x.casefold()))
        assert [listing.cells(row)[0] for row in found[head]] == expected
        for row, label in zip(found[head], expected, strict=True):
            assert listing.cells(row)[1:] == [
                str(len(won[label])),
                Bar(pytest.approx(len(won[label]) / most)),
                str(len(labelled(label, layer))) if labelled(label, layer) else "-",
                f"{max(won[label]):.3f}",
            ]
            assert listing.item(row) == Item("concept", layer, concept=NUMBER[label])
            assert listing.plain(row) == {
                "concept": label, "category": category, "detectors": len(won[label]),
                "labels": len(labelled(label, layer)), "best_iou": pytest.approx(max(won[label]), abs=1e-15),
            }  # fmt: skip


def test_the_summary_says_what_the_papers_count_and_what_to_beware_of(session: Session, one: Session) -> None:
    unique = sum(map(len, by_category(FIRST).values()))
    first = f"{FIRST}: 30 units, {unique} unique detectors per category, {best_labels(FIRST)} by best label"
    assert summary_listing(session, FIRST).notes[0] == summary_listing(one).notes[0] == first
    unique = sum(map(len, by_category("").values()))
    assert summary_listing(session).notes[0] == f"all layers: 42 units, {unique} unique detectors per category"
    told = "\n".join(sections(summary_listing(session)))
    assert "dead units (constant, or never above zero), which have no label: 2" in told
    assert f"{FIRST}:{WITH_NAN} (1 NaN, 1 infinite)" in told


def test_the_summary_is_filtered_with_its_headings(session: Session) -> None:
    listing = summary_listing(session)
    names = [str(listing.cells(row)[0]) for row in listing.arrange(parse("cat:object")).tolist()]
    assert names[:2] == ["unique detectors by category", "object"]
    assert names[2].startswith("object: ")
    assert set(names[3:]) == by_category("")["object"]
    found = all_plain(listing, "detectors>3")
    assert found == [row for row in all_plain(listing) if row["detectors"] > 3 and "concept" in row]
    concepts = [row for row in all_plain(listing) if "concept" in row]
    assert all_plain(listing, "iou>0.1") == [row for row in concepts if row["best_iou"] > 0.1]
    assert all_plain(listing, "iou<0.3") == [row for row in concepts if row["best_iou"] < 0.3]
    assert listing.arrange(parse("zebra")).tolist() == []


def test_a_summary_of_nothing_says_why(none: Session, folder: Path) -> None:
    assert summary_listing(none).count == 0
    layer = layer_of(SECOND)
    empty = replace(layer.best, concept=np.full_like(layer.best.concept, -1), iou=np.zeros_like(layer.best.iou))
    write_store(folder / "nothing.nd.h5", replace(D, layers=(replace(layer, best=empty),)))
    for session in opened(folder / "nothing.nd.h5"):
        listing = summary_listing(session)
        assert (listing.count, listing.empty) == (0, f"no unit of {SECOND} has an IoU above 0.04 with any concept")
        assert listing.arrange(parse("car iou>0.1")).tolist() == []


# --- a unit ---------------------------------------------------------------------------------------------------------


def sections(listing: Listing) -> dict[str, list[int]]:
    """The rows below each heading; those before any are the best of each category."""
    found: dict[str, list[int]] = {"best": []}
    for row in range(listing.count):
        if row in listing.headings:
            found[str(listing.cells(row)[0])] = []
        else:
            found[list(found)[-1]].append(row)
    return found


@pytest.mark.parametrize("at", [(FIRST, 0), (FIRST, 7), (FIRST, 14), (SECOND, 5), (SECOND, WITH_NAN)])
def test_a_units_concepts_with_the_counts_behind_them(session: Session, at: tuple[str, int]) -> None:
    listing = unit_listing(session, *at)
    found, counts = sections(listing), counts_of(*at)
    best = sorted((won for won in WINNERS[at].values() if won[0]), key=lambda won: -won[1])
    others = sorted((x for x in LABELS if IOUS[at][x] > 0 and x not in dict(best)), key=lambda x: -IOUS[at][x])
    assert [listing.cells(row)[0] for row in found["best"]] == [label for label, _ in best]
    shown = [str(listing.cells(row)[0]) for row in found.get("next concepts", [])]
    assert [IOUS[at][x] for x in shown] == [IOUS[at][x] for x in others][:RUNNERS_UP]
    assert set(shown) <= set(others)
    for row in found["best"] + found.get("next concepts", []):
        label, category, value, bar, *numbers = listing.cells(row)
        iou, both, area, concept = counts[str(label)]
        assert (category, value, bar) == (CATEGORY[str(label)], f"{iou:.4f}", Bar(pytest.approx(iou / FULL_IOU)))
        assert numbers == [f"{n:,}" for n in (both, area, concept)]
        assert listing.item(row) == Item("concept", at[0], concept=NUMBER[str(label)])
        assert listing.plain(row) == {
            "concept": label, "category": category, "iou": pytest.approx(iou, abs=1e-15),
            "intersection": both, "area": area, "concept_area": concept,
        }  # fmt: skip


@pytest.mark.parametrize("at", [(FIRST, 0), (FIRST, 7), (SECOND, 5), (SECOND, WITH_NAN), (FIRST, DEAD)])
def test_a_units_top_images_with_its_mask_counted_in_each(session: Session, at: tuple[str, int]) -> None:
    layer, images = layer_of(at[0]), D.images
    assert layer.top is not None
    assert images is not None
    listing = unit_listing(session, *at)
    rows = sections(listing)["top images"]
    kept = [i for i in layer.top.image[at[1]] if i >= 0]
    assert len(rows) == len(kept) > 3
    number = NUMBER.get(UNIT[at][0], 0)
    peaks = []
    for rank, (row, image) in enumerate(zip(rows, kept, strict=True)):
        maps = layer.top.maps[at[1], rank]
        mask = oracle.mask(maps, float(layer.statistics.threshold[at[1]]), "half-pixel", GRID)
        truth = (images.label_maps[image] == number).any(0) & (number > 0)
        if number and number in images.image_labels[image]:
            truth[:] = True
        counts = [int((mask & truth).sum()), int(mask.sum()), int(truth.sum())]
        finite = maps[np.isfinite(maps)]
        peaks.append(float(finite.max()))
        cells = listing.cells(row)
        assert cells[:3] == (images.name[image], images.split[image], f"{peaks[-1]:.4g}")
        assert list(cells[4:]) == [str(n) for n in counts]
        assert listing.item(row) == Item("image", *at, name=str(rank))
        assert listing.plain(row) == {
            "image": images.name[image], "split": images.split[image], "peak": pytest.approx(peaks[-1]),
            "intersection": counts[0], "area": counts[1], "label_area": counts[2],
        }  # fmt: skip
    assert peaks == sorted(peaks, reverse=True)
    assert [listing.cells(row)[3] for row in rows] == [Bar(pytest.approx(p / (max(peaks) or 1))) for p in peaks]


def test_a_unit_in_one_line(session: Session) -> None:
    label, value = UNIT[FIRST, 0]
    threshold = layer_of(FIRST).statistics.threshold[0]
    notes = unit_listing(session, FIRST, 0).notes
    assert notes == (f"threshold {threshold:.4g}  {label} {value:.3f} in {IMAGES_OF[label]} images",)
    assert unit_listing(session, FIRST, DEAD).notes == ("threshold 0  dead: constant or never above zero",)
    assert "2 activations are NaN or infinite" in unit_listing(session, FIRST, WITH_NAN).notes[0]


def test_a_dead_unit_has_no_concept(session: Session) -> None:
    assert list(sections(unit_listing(session, FIRST, DEAD))) == ["best", "top images"]
    assert not sections(unit_listing(session, FIRST, DEAD))["best"]


def test_a_units_page_is_filtered(session: Session) -> None:
    listing = unit_listing(session, FIRST, 0)
    names = [str(listing.cells(row)[0]) for row in listing.arrange(parse("cat:object")).tolist()]
    concepts = {x for x in LABELS if CATEGORY[x] == "object" and IOUS[FIRST, 0][x] > 0}
    assert set(names) - {"next concepts"} == concepts
    images = [str(listing.cells(row)[0]) for row in listing.arrange(parse(".jpg")).tolist()]
    assert images[0] == "top images"
    assert len(images) == 6
    above = all_plain(listing, "iou>0.1")
    assert {row["concept"] for row in above} == {x for x in LABELS if IOUS[FIRST, 0][x] > 0.1}


def test_a_unit_that_the_layer_does_not_have_is_refused(session: Session) -> None:
    for layer, unit in ((FIRST, 30), (FIRST, -1), ("gone", 0)):
        with pytest.raises(NDError):
            unit_listing(session, layer, unit)


def test_a_store_without_images_says_so(folder: Path) -> None:
    layers = tuple(replace(layer, top=None) for layer in D.layers)
    write_store(folder / "noimages.nd.h5", replace(D, layers=layers, images=None))
    for session in opened(folder / "noimages.nd.h5"):
        assert "no top images in this store" in sections(unit_listing(session, FIRST, 0))


# --- an imported table ----------------------------------------------------------------------------------------------


def test_an_imported_table_lists_the_same_units(imported: Session, session: Session) -> None:
    rows, full = all_plain(layer_units(imported, FIRST)), all_plain(layer_units(session, FIRST))
    known = ("unit", "label", "category", "iou")
    assert [[row[k] for k in known] for row in rows] == [[row[k] for k in known] for row in full]
    listing = layer_units(imported, FIRST)
    assert {listing.cells(row)[column(listing, "threshold")] for row in range(30)} == {"-"}
    assert {listing.cells(row)[column(listing, "images")] for row in range(30)} == {""}


def test_an_imported_table_has_the_same_summary(imported: Session, one: Session) -> None:
    assert all_plain(summary_listing(imported)) == all_plain(summary_listing(one))
    assert summary_listing(imported).notes[0] == summary_listing(one).notes[0]
    for found, expected in zip(all_plain(layers_listing(imported)), all_plain(layers_listing(one)), strict=True):
        assert {k: found[k] for k in expected} == expected


def test_an_imported_table_knows_a_units_best_concepts_and_no_images(imported: Session) -> None:
    at = (FIRST, 7)
    listing = unit_listing(imported, *at)
    best = sorted((won for won in WINNERS[at].values() if won[0]), key=lambda won: -won[1])
    assert [listing.cells(row)[0] for row in sections(listing)["best"]] == [label for label, _ in best]
    assert list(sections(listing)) == ["best", "no top images in this store"]
    for row in sections(listing)["best"]:
        label = str(listing.cells(row)[0])
        assert list(listing.cells(row)[4:]) == [f"{n:,}" for n in counts_of(*at)[label][1:]]


@pytest.mark.parametrize("label", LABELS)
def test_an_imported_table_knows_a_concepts_units_where_it_is_best(imported: Session, label: str) -> None:
    row = next((r for r in range(len(imported.labels) - 1) if imported.labels[r] == label), None)
    wins = sorted((at for at in of(FIRST) if WINNERS[at][CATEGORY[label]][0] == label), key=lambda at: -IOUS[at][label])
    if row is None:
        assert not wins
        return
    listing = concept_units(imported, int(imported.store.concepts.number[row]))
    assert [listing.item(i).unit for i in listing.arrange().tolist()] == [at[1] for at in wins]


def test_a_number_of_images_that_nobody_knows_is_not_below_any(imported: Session) -> None:
    for listing in (layer_units(imported, FIRST), concepts_listing(imported)):
        for text in ("images<10", "images>=0", "images=-1"):
            rows = [listing.cells(int(row)) for row in listing.arrange(parse(text))]
            assert all(str(cells[-1]).isdigit() for cells in rows), text
    assert {str(cells[-1]) for cells in all_cells(concepts_listing(imported))} == {"?"}


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not here")
def test_a_published_network_is_listed_with_the_published_figures(tmp_path: Path) -> None:
    write_store(tmp_path / "a.nd.h5", read_table(PUBLISHED / "caffe_reference_places365.csv", "conv5"))
    with (PUBLISHED / "caffe_reference_places365.csv").open(newline="") as file:
        published = {int(row["unit"]) - 1: row for row in csv.DictReader(file)}
    for session in opened(tmp_path / "a.nd.h5"):
        assert [row[:6] for row in all_cells(layers_listing(session))] == [
            ["conv5", "256", "118", "91", "72", "106 road 0.16"]
        ]
        listing = layer_units(session, "conv5")
        rows = listing.arrange().tolist()
        assert [(listing.item(row).unit, listing.cells(row)[1]) for row in rows[:3]] == [
            (106, "road"), (78, "car"), (251, "waffled")
        ]  # fmt: skip
        for row in rows:
            expected = published[listing.item(row).unit]
            assert str(listing.cells(row)[1]) == expected["label"].removesuffix("-s").removesuffix("-c").replace(
                "_", " "
            )
            assert listing.cells(row)[2] == expected["category"]
            assert listing.cells(row)[3] == f"{float(expected['score']):.3f}"
        assert len(listing.arrange(parse("detector"))) == sum(float(row["score"]) > 0.04 for row in published.values())
        summary = summary_listing(session)
        assert summary.notes[0] == "conv5: 256 units, 91 unique detectors per category, 72 by best label"
        assert sum(summary.item(row).kind == "concept" for row in range(summary.count)) == 91
        page = unit_listing(session, "conv5", 106)
        assert page.cells(0)[:3] == ("road", "object", f"{0.155465:.4f}")
        assert page.cells(0)[4] == f"{int(float(published[106]['object-intersect'])):,}"


# --- help, palette, viewers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unicode", [True, False])
def test_the_help_has_every_action_once_below_its_group(unicode: bool) -> None:
    listing = help_listing(unicode)
    found = sections(listing)
    assert list(found) == ["best", *GROUPS, "Filter"]
    for group in GROUPS:
        assert [listing.item(row).name for row in found[group]] == [a.name for a in ACTIONS if a.group == group]
    assert len(found["Filter"]) == len(LANGUAGE)
    for row in range(listing.count):
        key, does = listing.cells(row)
        assert unicode or str(key).isascii()
        assert key
        assert does or row in listing.headings
    assert [listing.cells(int(r))[0] for r in listing.arrange(parse("palette !q"))] == []
    assert [listing.item(int(row)).name for row in listing.arrange(parse('"draw the unit"'))] == ["", "overlay"]


@pytest.mark.parametrize("key", [key for key, _ in LANGUAGE])
def test_what_the_help_says_of_filters_is_a_filter(session: Session, key: str) -> None:
    for text in key.split("  "):
        layer_units(session, "").arrange(parse(text.replace("part", "scene")), marked=lambda _: False)


def test_every_name_of_the_language_is_known_somewhere_and_in_the_help(session: Session) -> None:
    listings = [
        layers_listing(session), layer_units(session, ""), concepts_listing(session), summary_listing(session),
        unit_listing(session, FIRST, 0),
    ]  # fmt: skip
    told = " ".join(f"{key} {does}" for key, does in LANGUAGE)
    for name in NUMBERS:
        assert any(name in listing.filterable.numbers for listing in listings), name
        assert f" {name} " in told.replace(",", " "), name
    for name in CHOICES:
        assert any(name in listing.filterable.choices for listing in listings), name
        assert f"{name}:" in told, name
    for name in FLAGS:
        assert name == "marked" or any(name in listing.filterable.flags for listing in listings), name
        assert name in told, name


def test_the_palette_has_what_is_possible_now() -> None:
    listing = palette_listing(True, lambda a: "not now" if a.name in ("overlay", "mark") else None)
    names = [listing.item(row).name for row in range(listing.count)]
    assert names == [a.name for a in ACTIONS if a.name not in ("overlay", "mark", "palette")]
    page = [listing.item(int(row)).name for row in listing.arrange(parse("page down"))]
    assert page == ["half_down", "page_down"]
    assert palette_listing(True, lambda _: "never").count == 0


def test_viewers_come_in_their_order_and_say_how_they_show() -> None:
    viewers = [
        Viewer(("/usr/bin/feh", "-F"), "window", "DISPLAY is set"),
        Viewer(("chafa",), "terminal", "it is installed"),
        Viewer((), "print", "nothing else"),
    ]
    listing = viewers_listing(viewers)
    assert [list(listing.cells(row)) for row in range(3)] == [
        ["feh", "opens a window (DISPLAY is set)"],
        ["chafa", "draws in this terminal (it is installed)"],
        ["print", "prints the picture's path and copies it"],
    ]
    assert [listing.item(row) for row in range(3)] == [Item("viewer", unit=i) for i in range(3)]


# --- export ---------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[Session], Listing]] = {
    "a-layers": layers_listing,
    "a-concepts": concepts_listing,
    "a-summary": summary_listing,
    "a-summary-layer4": lambda s: summary_listing(s, SECOND),
    "a-units-layer-features.0": lambda s: layer_units(s, FIRST),
    "a-units-all-layers": lambda s: layer_units(s, ""),
    "a-units-concept-3": lambda s: concept_units(s, 3),
    "a-unit-features.0-7": lambda s: unit_listing(s, FIRST, 7),
    "a-help": lambda _: help_listing(True),
}


def same(text: str, value: Any) -> bool:
    """Whether a cell of the file is the value, to the last digit."""
    if value is None:
        return text == ""
    return float(text) == value if isinstance(value, float) else text == str(value)


@pytest.mark.parametrize("name", TABLES)
def test_an_exported_table_reads_back_in_full(session: Session, tmp_path: Path, name: str) -> None:
    listing = TABLES[name](session)
    path = export(listing, listing.arrange(), tmp_path, session.path)
    assert path == tmp_path / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, strict=True))
    expected = all_plain(listing)
    assert len(found) == len(expected) == listing.count - len(listing.headings)
    for row, values in zip(found, expected, strict=True):
        assert set(values) <= set(row)
        assert all(same(row[title], values.get(title)) for title in row), (row, values)


def test_what_is_exported_is_what_is_shown(session: Session, tmp_path: Path) -> None:
    listing = layer_units(session, FIRST)
    path = export(listing, listing.arrange(parse("cat:object"), Order(0, True)), tmp_path, session.path)
    with path.open(newline="", encoding="utf-8") as file:
        units = [int(row["unit"]) for row in csv.DictReader(file)]
    assert units == sorted((u for n, u in of(FIRST) if CATEGORY.get(UNIT[n, u][0]) == "object"), reverse=True)


def test_an_export_replaces_no_file(session: Session, tmp_path: Path) -> None:
    listing = layers_listing(session)
    (tmp_path / "a-layers.csv").write_text("mine")
    (tmp_path / "a-layers-2.csv").symlink_to(tmp_path / "nowhere")
    paths = [export(listing, listing.arrange(), tmp_path, session.path) for _ in range(2)]
    assert [path.name for path in paths] == ["a-layers-3.csv", "a-layers-4.csv"]
    assert (tmp_path / "a-layers.csv").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert len(list(tmp_path.iterdir())) == 4


def table_of(subject: str, *rows: dict[str, Any]) -> Listing:
    columns = (Column("a", 1),)
    return Listing("units", subject, columns, len(rows), lambda _: [""], lambda _: NOTHING, lambda i: rows[i], str)


@pytest.mark.parametrize("subject", ["a/b\\c:d", "..", "x" * 300, "街" * 200, "\U0001f600" * 200, "-rf", "a\nb"])
def test_an_export_has_a_name_that_any_file_system_takes(tmp_path: Path, subject: str) -> None:
    for _ in range(2):
        path = export(table_of(subject, {"a": 1}), np.arange(1), tmp_path, Path("store.nd.h5"))
        assert path.parent == tmp_path
        assert path.name.startswith("store-units")
        assert path.suffix == ".csv"
        assert len(os.fsencode(path.name)) < 255
    assert len(list(tmp_path.iterdir())) == 2


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=("Cs",))), st.floats(), st.integers(-(2**63), 2**63)),
        max_size=4,
    )
)
def test_any_text_and_number_survives_an_export(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("export")
    listing = table_of("x", *({"text": a, "float": b, "int": c} for a, b, c in values))
    path = export(listing, listing.arrange(), folder, Path("s.nd.h5"))
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["text"], float(row["float"]), int(row["int"])) for row in csv.DictReader(file)]
    assert [(a, repr(b), c) for a, b, c in rows] == [(a, repr(b), c) for a, b, c in values]


def test_an_export_that_cannot_be_written_says_why(session: Session, tmp_path: Path) -> None:
    listing = layers_listing(session)
    with pytest.raises(NDError, match="cannot write"):
        export(listing, listing.arrange(), tmp_path / "absent", session.path)


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that places are kept in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ndissect" / "browse.json"


PLACES = [
    Place(),
    Place("layers", 2, "layer4", "layer4", 107),
    Place("concepts", 1, "", "街道.0", 3, 300),
    Place("summary", 0, 'a "layer" of ünusual name'),
    Place("summary", 1, "layer4", "layer4", 107, category="object"),
]


def test_each_store_has_its_place(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [tmp_path / f"{i}.nd.h5" for i in range(len(PLACES))]
    assert [last_place(store) for store in stores] == [None] * len(stores)
    for store, place in zip(stores, PLACES, strict=True):
        remember(store, place)
    assert [last_place(store) for store in stores] == PLACES
    remember(stores[0], PLACES[1])
    assert last_place(stores[0]) == PLACES[1]
    monkeypatch.chdir(tmp_path)
    assert last_place(Path("1.nd.h5")) == PLACES[1]
    assert [p.name for p in state.parent.iterdir()] == [state.name]


def test_stores_looked_at_long_ago_are_forgotten(state: Path, tmp_path: Path) -> None:
    for i in range(205):
        remember(tmp_path / f"{i}.nd.h5", Place(unit=i))
        remember(tmp_path / "often.nd.h5", Place(unit=i))
    kept = [i for i in range(205) if last_place(tmp_path / f"{i}.nd.h5") is not None]
    assert kept == list(range(205 - len(kept), 205))
    assert 100 < len(kept) < 205
    assert last_place(tmp_path / "often.nd.h5") == Place(unit=204)


def test_a_store_of_any_name_has_its_place(state: Path, tmp_path: Path) -> None:
    for name in ("街道 ü\n.nd.h5", os.fsdecode(b"\xff\xfe.nd.h5"), "x" * 250):
        remember(tmp_path / name, Place(unit=3))
        assert last_place(tmp_path / name) == Place(unit=3)


WRONG_FILES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": json.dumps({}).encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "nested without end": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "a number of 10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_file_of_places_that_is_none_is_as_good_as_absent(state: Path, tmp_path: Path, what: str) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(WRONG_FILES[what])
    assert last_place(tmp_path / "a.nd.h5") is None
    remember(tmp_path / "a.nd.h5", Place(unit=3))
    assert last_place(tmp_path / "a.nd.h5") == Place(unit=3)


WRONG_PLACES: list[Any] = [
    None, 7, "layers", [], ["layers", 0, "", "", -1, -1], {"root": 3}, {"depth": "0"}, {"depth": True}, {"depth": 1.0},
    {"depth": None}, {"layer": ["a"]}, {"unit": "107"}, {"concept": NAN}, {"unknown": 1}, {"": ""}, {"self": 1},
    {"root": "nowhere"}, {"root": ""}, {"root": "__class__"},
]  # fmt: skip


@pytest.mark.parametrize("kept", WRONG_PLACES, ids=repr)
def test_a_place_that_cannot_be_is_as_good_as_none(state: Path, tmp_path: Path, kept: Any) -> None:
    """Whatever is opened must be there: an unknown table would end the program that was to open it."""
    state.parent.mkdir(parents=True)
    good = asdict(PLACES[1])
    state.write_text(json.dumps({str(tmp_path / "a.nd.h5"): kept, str(tmp_path / "b.nd.h5"): good}))
    assert last_place(tmp_path / "a.nd.h5") is None
    assert last_place(tmp_path / "b.nd.h5") == PLACES[1]


def test_a_place_that_is_kept_in_part_is_taken_with_what_is_usual(state: Path, tmp_path: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({str(tmp_path / "a.nd.h5"): {"root": "concepts"}}))
    assert last_place(tmp_path / "a.nd.h5") == Place("concepts")


def test_where_no_place_can_be_kept_nothing_happens(state: Path, tmp_path: Path) -> None:
    state.mkdir(parents=True)  # a folder lies where the file should
    remember(tmp_path / "a.nd.h5", Place(unit=3))
    assert last_place(tmp_path / "a.nd.h5") is None
    assert [p.name for p in state.parent.iterdir()] == [state.name]  # and nothing is left over
    state.rmdir()
    state.parent.rmdir()
    state.parent.write_text("a file lies where the folder should")
    remember(tmp_path / "a.nd.h5", Place(unit=3))
    assert last_place(tmp_path / "a.nd.h5") is None


# --- the file and the run that writes it ----------------------------------------------------------------------------


def run(**changes: Any) -> Run:
    """A run of this process in the middle of its work."""
    given = Run(
        target=Path("a.nd.h5"), pid=os.getpid(), host=platform.node(), command="nd dissect", started=0.0, updated=0.0,
        phase="tally", done=416, total=1600, rate=55.4, eta=21.6, step=3, steps=4, layers=(("layer4", 512),),
        images=300, partial=Path(".a.nd.h5.partial"), machine="", began=0,
    )  # fmt: skip
    return replace(given, **changes)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether runs go on."""

    def say(value: bool) -> None:
        monkeypatch.setattr(Run, "alive", property(lambda _: value))

    say(True)
    return say


def test_a_run_in_one_line(alive: Callable[[bool], None], folder: Path) -> None:
    assert progress(run(), None) == "26% of tally (3/4)  55 images/s  22 s left  no counts yet"
    assert progress(run(eta=None, rate=0.0), None) == "26% of tally (3/4)  no counts yet"
    assert progress(run(phase="writing", done=0, total=0, step=4, rate=0.0, eta=4.0), None) == (
        "writing (4/4)  4 s left  no counts yet"
    )
    partial = Session(folder / "a.nd.h5", folder / "later.nd.h5")
    whole = Session(folder / "a.nd.h5")
    try:
        assert progress(run(), partial).endswith("22 s left  counts of 300 images so far")
        assert progress(run(images=0), partial).endswith("no counts yet")
        assert progress(run(), whole).endswith("this store will be replaced")
    finally:
        partial.close()
        whole.close()


def test_a_run_that_was_killed(alive: Callable[[bool], None], folder: Path) -> None:
    alive(False)
    assert progress(run(), None) == "the run stopped at 26% of tally (3/4): start it again  no counts yet"
    session = Session(folder / "a.nd.h5")
    try:
        assert "will be replaced" not in progress(run(), session)  # by nobody
    finally:
        session.close()


def test_a_share_is_whole_only_when_it_is_done(alive: Callable[[bool], None]) -> None:
    assert progress(run(done=1599), None).startswith("99% of tally")
    assert progress(run(done=1600), None).startswith("100% of tally")
    assert progress(run(done=0), None).startswith("0% of tally")


def test_a_slow_run_has_a_rate(alive: Callable[[bool], None]) -> None:
    assert "  0 images/s" not in progress(run(rate=0.3), None)


def test_a_run_that_has_just_begun_has_no_step_0(alive: Callable[[bool], None]) -> None:
    assert "0/0" not in progress(run(phase="read", done=0, total=0, rate=0.0, eta=None, step=0, steps=0), None)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (45.4, "45 s"), (99.4, "99 s"), (100, "2 min"), (150, "2 min"), (5900, "98 min"), (7500, "2 h 05 min"),
     (36000, "10 h 00 min"), (86400 * 3, "72 h 00 min")],
)  # fmt: skip
def test_durations_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_layers_of_a_run_that_has_counted_nothing() -> None:
    listing = waiting_listing(run(layers=(("layer3", 256), ("layer4", 512))))
    assert [list(cells) for cells in all_cells(listing)] == [["layer3", "256"], ["layer4", "512"]]
    assert [list(cells) for cells in all_cells(listing, text="layer4")] == [["layer4", "512"]]
    assert [listing.item(row) for row in range(2)] == [Item("layer", "layer3"), Item("layer", "layer4")]
    assert all_plain(listing) == [{"layer": "layer3", "units": 256}, {"layer": "layer4", "units": 512}]
    assert waiting_listing(run(layers=())).empty == "the run has not chosen its layers yet"


def test_what_lies_on_disk_is_seen(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    assert look(path) == replace(look(path), store=None, run=None, partial=None)
    with pytest.raises(NDError):
        open_session(path, look(path))
    path.write_bytes((folder / "a.nd.h5").read_bytes())
    first = look(path)
    assert first == look(path)
    session = open_session(path, first)
    assert session is not None
    assert session.path == session.target == path
    session.close()
    other = tmp_path / "b"
    other.write_bytes((folder / "a.nd.h5").read_bytes())
    other.replace(path)
    assert look(path) != first  # the same bytes, another file
    path.unlink()
    assert look(path).store is None


# --- an open store --------------------------------------------------------------------------------------------------


def test_a_session_names_and_orders_what_a_store_holds(session: Session, imported: Session) -> None:
    assert session.labels == (*LABELS, "")
    assert session.longest_label == max(map(cell_len, LABELS)) == 16
    assert session.categories == list(REPORT)
    assert [(*REPORT, "")[k] for k in session.category_code] == [*(CATEGORY[x] for x in LABELS), ""]
    assert session.concept_images.tolist() == [*(IMAGES_OF[x] for x in LABELS), -1]
    assert [session.concept_row(n) for n in (1, 7, 700, 0, 5, 10**6)] == [0, 4, 8, -1, -1, -1]
    assert [session.labels[i] for i in np.argsort(session.label_rank)] == [*sorted(LABELS, key=str.casefold), ""]
    assert set(imported.concept_images[:-1].tolist()) == {-1}


def test_what_was_read_stays_when_the_store_is_closed(folder: Path) -> None:
    session = Session(folder / "a.nd.h5")
    listing = layer_units(session, FIRST)
    session.close()
    assert len(all_cells(listing)) == 30
    with Store(folder / "a.nd.h5") as store:
        assert store.layer_names == (FIRST, SECOND)
    assert IMAGES == 12
