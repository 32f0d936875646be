"""What the Concepts and Summary tables list, against the same numbers counted from the dissection that was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from listed import (
    CATEGORY,
    FIRST,
    IMAGES_OF,
    LABELS,
    NUMBER,
    REPORT,
    SECOND,
    WINNERS,
    D,
    all_cells,
    all_plain,
    best_labels,
    best_unit_for,
    by_category,
    column,
    labelled,
    layer_of,
    of,
    opened,
    sections,
    written,
)
from store_factory import WITH_NAN

from ndissect.store.counts import LayerCounts
from ndissect.store.model import Layer, UnitStatistics
from ndissect.store.scores import Best
from ndissect.store.writer import write_store
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import Bar, Item, Order
from ndissect.tui.app.query import parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.summary import summary_listing
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


# Concepts


def test_the_concepts_with_their_detectors_most_first(session: Session) -> None:
    listing = concepts_listing(session)
    rows = all_plain(listing)
    expected = sorted(LABELS, key=lambda label: (-len(labelled(label)), -best_unit_for(label)[1], label.casefold()))
    assert [row["concept"] for row in rows] == expected
    for row in rows:
        label = row["concept"]
        assert row == {
            "concept": label,
            "category": CATEGORY[label],
            "detectors": len(labelled(label)),
            "best_unit": best_unit_for(label)[0],
            "iou": pytest.approx(best_unit_for(label)[1], abs=1e-15),
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
        unit, value = best_unit_for(label)
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
    assert set(found("iou>0.2")) == {label for label in LABELS if best_unit_for(label)[1] > 0.2}
    assert set(found("images<7")) == {label for label in LABELS if IMAGES_OF[label] < 7}
    assert set(found("layer:layer4")) == {x for x in LABELS if (best_unit_for(x)[0] or "").startswith(SECOND)}
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


# Summary


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
