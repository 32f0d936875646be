"""What tables make of the evidence for labels: columns, orders, filters, sentences; nothing where it is unknown."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from listed import (
    FIRST,
    LABELS,
    NUMBER,
    SECOND,
    UNIT,
    WEIGHED,
    D,
    all_cells,
    all_plain,
    column,
    detectors,
    of,
    opened,
    written,
)
from store_factory import dissection
from with_evidence import PAIRINGS, with_evidence

from ndissect.store.evidence import Evidence
from ndissect.store.writer import write_store
from ndissect.tui.app.export import export
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import Order
from ndissect.tui.app.query import Mistake, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.table import fit
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.units import category_units, concept_units, layer_units
from ndissect.tui.tables.formats import chance, interval

#: The last unit of each layer has a label of which nothing else is known.
UNKNOWN = {FIRST: 29, SECOND: 11}
TITLES = ("interval", "q", "held-out", "stability", "AUPRC")
#: The numbers by which columns are sorted, by title; and by the names that filters have for them.
SORTED = {
    "interval": "iou_low", "q": "q", "held-out": "heldout_iou", "stability": "stability", "AUPRC": "auprc"
}  # fmt: skip
FILTERED = {
    "p": "p", "q": "q", "low": "iou_low", "heldout": "heldout_iou", "stability": "stability", "auprc": "auprc"
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("listings"))


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    yield from opened(folder / "evidence.nd.h5")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Session]:
    """The same store without evidence."""
    yield from opened(folder / "a.nd.h5")


def evidence(layer: str) -> Evidence:
    found = next(x for x in WEIGHED.layers if x.name == layer).evidence
    assert found is not None
    return found


def number(name: str, at: tuple[str, int]) -> float:
    return float(getattr(evidence(at[0]), name)[at[1]])


def units_of(session: Session, text: str, layer: str = "") -> list[tuple[str, int]]:
    listing = layer_units(session, layer)
    return [(listing.item(int(row)).layer, listing.item(int(row)).unit) for row in listing.arrange(parse(text))]


def test_the_evidence_is_worth_a_test() -> None:
    """Units on both sides of q = 0.05, equal values, unknown ones; labels that the train images choose otherwise."""
    q = np.concatenate([evidence(layer).q for layer in (FIRST, SECOND)])
    assert (q < 0.05).sum() > 5
    assert (q > 0.05).sum() > 5
    assert np.isnan(q).sum() >= 4
    assert len(set(q[~np.isnan(q)])) < (~np.isnan(q)).sum()
    for layer, unit in UNKNOWN.items():
        assert UNIT[layer, unit][0]
        assert math.isnan(number("q", (layer, unit)))


# Units


def test_the_cells_of_a_units_evidence(session: Session) -> None:
    listing = layer_units(session, "")
    assert [c.title for c in listing.columns][6:11] == list(TITLES)
    for row in range(listing.count):
        at = (listing.item(row).layer, listing.item(row).unit)
        cells = listing.cells(row)
        assert len(cells) == len(listing.columns)
        found = dict(zip(TITLES, cells[6:11], strict=True))
        if not UNIT[at][0] or at[1] == UNKNOWN[at[0]]:
            assert set(found.values()) == {"-"}, at
            continue
        q = number("q", at)
        assert found == {
            "interval": f"{number('iou_low', at):.3f}-{number('iou_high', at):.3f}",
            "q": "<0.001" if q < 0.001 else f"{q:.3f}",
            "held-out": f"{number('heldout_iou', at):.3f}",
            "stability": f"{number('stability', at):.3f}",
            "AUPRC": f"{number('auprc', at):.3f}",
        }


def test_an_interval_a_chance_and_what_is_unknown_in_a_cell() -> None:
    assert interval(0.1234, 0.2) == "0.123-0.200"
    assert interval(0.0, 1.0) == "0.000-1.000"
    assert interval(math.nan, 0.2) == interval(0.1, math.nan) == "-"
    assert [chance(x) for x in (0.0, 0.00099, 0.001, 0.05, 1.0, math.nan)] == [
        "<0.001", "<0.001", "0.001", "0.050", "1.000", "-"
    ]  # fmt: skip


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("title", TITLES)
def test_units_are_sorted_by_evidence_and_unknowns_come_last(session: Session, title: str, descending: bool) -> None:
    listing = layer_units(session, "")
    rows = listing.arrange(order=Order(column(listing, title), descending)).tolist()
    found = [(listing.item(row).layer, listing.item(row).unit) for row in rows]
    known = [at for at in of("") if not math.isnan(number(SORTED[title], at))]
    unknown = [at for at in of("") if math.isnan(number(SORTED[title], at))]
    assert found == sorted(known, key=lambda at: number(SORTED[title], at), reverse=descending) + unknown


def test_a_small_q_and_else_the_larger_number_is_asked_for_first(session: Session) -> None:
    columns = {c.title: c for c in layer_units(session, FIRST).columns}
    assert {title: columns[title].descending for title in TITLES} == {title: title != "q" for title in TITLES}


FILTERS: dict[str, Callable[[tuple[str, int]], bool]] = {
    "q<0.05": lambda at: number("q", at) < 0.05,
    "q>=0.05": lambda at: number("q", at) >= 0.05,
    "p<=0.004": lambda at: number("p", at) <= 0.004,
    "low>0.04": lambda at: number("iou_low", at) > 0.04,
    "heldout>0.04": lambda at: number("heldout_iou", at) > 0.04,
    "stability>0.9": lambda at: number("stability", at) > 0.9,
    "auprc>0.5": lambda at: number("auprc", at) > 0.5,
    "auprc:0.2-0.6": lambda at: 0.2 <= number("auprc", at) <= 0.6,
    "Q<0.05 low>0.03 detector": lambda at: number("q", at) < 0.05 and number("iou_low", at) > 0.03,
    "significant": lambda at: number("q", at) < 0.05,
    "detector significant": lambda at: number("q", at) < 0.05 and UNIT[at][1] > 0.04,
    "!significant": lambda at: not number("q", at) < 0.05,
}


@pytest.mark.parametrize("text", FILTERS)
def test_units_are_filtered_by_evidence(session: Session, text: str) -> None:
    expected = [at for at in of("") if FILTERS[text](at) and ("detector" not in text or UNIT[at][1] > 0.04)]
    assert sorted(units_of(session, text)) == sorted(expected)
    assert 0 < len(expected) < len(of(""))


@pytest.mark.parametrize("name", FILTERED)
def test_what_is_unknown_passes_no_filter(session: Session, name: str) -> None:
    unknown = {at for at in of("") if math.isnan(number(FILTERED[name], at))}
    assert len(unknown) >= 4
    for text in (f"{name}<=1", f"{name}>=0", f"{name}:0-1"):
        assert set(units_of(session, text)) == set(of("")) - unknown


def test_evidence_is_for_labels_and_not_for_any_concept_that_a_unit_responds_to(session: Session) -> None:
    label = max(LABELS, key=lambda x: sum(UNIT[at][0] == x for at in of("")))
    listing = concept_units(session, NUMBER[label])
    seen = set()
    for row in range(listing.count):
        at = (listing.item(row).layer, listing.item(row).unit)
        known = UNIT[at][0] == label and at[1] != UNKNOWN[at[0]]
        seen.add(known)
        assert (listing.cells(row)[column(listing, "q")] != "-") == known
        assert (listing.cells(row)[column(listing, "interval")] != "-") == known
    assert seen == {True, False}
    passing = [listing.item(int(row)) for row in listing.arrange(parse("q<=1"))]
    assert {UNIT[item.layer, item.unit][0] for item in passing} == {label}


def test_the_units_of_a_category_keep_their_evidence(session: Session) -> None:
    listing = category_units(session, "object")
    for row in range(listing.count):
        at = (listing.item(row).layer, listing.item(row).unit)
        assert listing.plain(row)["q"] == pytest.approx(number("q", at), nan_ok=True)


def test_evidence_is_exported_in_full(session: Session, tmp_path: Path) -> None:
    listing = layer_units(session, FIRST)
    path = export(listing, listing.arrange(), tmp_path, session.path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(of(FIRST))
    for row in rows:
        for name in ("p", "q", "iou_low", "iou_high", "stability", "heldout_iou", "auprc"):
            assert float(row[name]) == pytest.approx(number(name, (FIRST, int(row["unit"]))), rel=1e-15, nan_ok=True)


# Which columns there are, and which are seen


def test_without_evidence_tables_are_as_they_were(plain: Session) -> None:
    listing = layer_units(plain, "")
    titles = [c.title for c in listing.columns]
    assert titles == ["layer", "unit", "label", "category", "IoU", "", "threshold", "images"]
    assert set(listing.plain(0)) == {"layer", "unit", "label", "category", "iou", "threshold", "dead"}
    assert listing.notes == ("images: how many hold the concept; a label that rests on few may win by chance",)
    for name in FILTERED:
        with pytest.raises(Mistake, match=f"rows have no {name} here"):
            listing.arrange(parse(f"{name}>0"))
    with pytest.raises(Mistake, match="whether a row is significant is not known here"):
        listing.arrange(parse("significant"))
    layers = layers_listing(plain)
    assert [c.title for c in layers.columns] == [
        "layer", "units", "detect", "/cat", "/best", "best unit", "by category"
    ]  # fmt: skip
    assert "detectors_q05" not in layers.plain(0)
    assert all("q <" not in str(cells[0]) for cells in all_cells(summary_listing(plain)))
    assert not any("evidence" in row for row in all_plain(unit_listing(plain, FIRST, 0)))


def test_a_number_that_no_unit_has_takes_no_column(tmp_path: Path) -> None:
    write_store(tmp_path / "a.nd.h5", with_evidence(D, without=("p", "q")))
    for session in opened(tmp_path / "a.nd.h5"):
        listing = layer_units(session, FIRST)
        assert [c.title for c in listing.columns if c.title in TITLES] == [t for t in TITLES if t != "q"]
        assert all(len(cells) == len(listing.columns) for cells in all_cells(listing))
        assert "q<0.05" not in [c.title for c in layers_listing(session).columns]
        with pytest.raises(Mistake, match="rows have no q here, but iou"):
            listing.arrange(parse("q<0.05"))
        assert not any("q " in row.get("evidence", "") for row in all_plain(unit_listing(session, FIRST, 0)))


def seen(session: Session, layer: str, room: int) -> list[str]:
    """The titles of the columns that are drawn in ``room`` cells."""
    columns = layer_units(session, layer).columns
    shown = fit(columns, room)
    assert sum(cells for _, cells in shown) + len(shown) - 1 <= room
    return [columns[i].title for i, _ in shown]


def test_the_most_telling_columns_stay_where_there_is_little_room(session: Session, plain: Session) -> None:
    assert seen(session, FIRST, 77) == ["unit", "label", "category", "IoU", "", "interval", "q", "held-out"]
    assert seen(session, "", 77) == ["layer", "unit", "label", "category", "IoU", "interval", "q", "held-out"]
    assert seen(session, FIRST, 66) == ["unit", "label", "category", "IoU", "interval", "q", "held-out"]
    assert seen(session, FIRST, 50) == ["unit", "label", "IoU", "interval", "q"]
    assert seen(session, FIRST, 160) == [c.title for c in layer_units(session, FIRST).columns]
    assert seen(plain, FIRST, 77) == ["unit", "label", "category", "IoU", "", "threshold", "images"]
    assert seen(plain, "", 60) == ["unit", "label", "category", "IoU", "", "threshold"]


# One unit


def told(session: Session, at: tuple[str, int]) -> list[str]:
    listing = unit_listing(session, *at)
    rows = [row for row in range(listing.count) if "evidence" in listing.plain(row)]
    assert all(listing.cells(row) == (listing.plain(row)["evidence"],) for row in rows)
    assert all(listing.copied(row) == f"{at[0]}:{at[1]}\t{listing.plain(row)['evidence']}" for row in rows)
    return [str(listing.plain(row)["evidence"]) for row in rows]


def test_a_units_page_tells_the_evidence_for_its_label(session: Session) -> None:
    choices = set()
    for layer in (FIRST, SECOND):
        found, null = evidence(layer), next(x for x in WEIGHED.layers if x.name == layer).null
        assert null is not None
        for at in of(layer):
            label = UNIT[at][0]
            if not label or at[1] == UNKNOWN[layer]:
                assert told(session, at) == (["held out: the train images choose no label"] if label else [])
                continue
            u = at[1]
            chosen = LABELS[int(found.heldout_concept[u])]
            choices.add(chosen == label)
            reached = max(null.iou[pairing, u] for pairing in range(PAIRINGS))
            change = 100 * (found.heldout_iou[u] / found.train_iou[u] - 1)
            assert told(session, at) == [
                f"IoU {found.iou_low[u]:.3f}-{found.iou_high[u]:.3f} (95 %); the label in "
                f"{100 * found.stability[u]:.0f} % of resamples",
                f"q {found.q[u]:.3g}, p {found.p[u]:.3g}: {PAIRINGS} wrong pairings reach IoU {reached:.3f} at most",
                f"held out: train chooses {'it too' if chosen == label else chosen}; IoU {found.train_iou[u]:.3f} -> "
                f"{found.heldout_iou[u]:.3f} on val ({change:+.0f} %)",
                f"AUPRC {found.auprc[u]:.3f}, by chance {found.base_rate[u]:.3f}: its peak finds images with {label}",
            ]
    assert choices == {True, False}


def test_what_is_unknown_is_left_out_of_a_units_page(tmp_path: Path) -> None:
    for name, absent in (
        ("q", "wrong pairings"), ("iou_low", "95 %"), ("train_iou", "held out"), ("auprc", "AUPRC")
    ):  # fmt: skip
        numbers = {"q": ("p", "q"), "train_iou": ("train_iou", "heldout_iou")}.get(name, (name,))
        write_store(tmp_path / f"{name}.nd.h5", with_evidence(D, without=numbers))
        for session in opened(tmp_path / f"{name}.nd.h5"):
            lines = told(session, (FIRST, 0))
            assert len(lines) == 3
            assert not any(absent in line for line in lines)


def test_a_label_that_no_val_image_holds_and_one_that_train_does_not_choose(tmp_path: Path) -> None:
    first = WEIGHED.layers[0]
    assert first.evidence is not None
    heldout, concept = first.evidence.heldout_iou.copy(), first.evidence.heldout_concept.copy()
    heldout[[0, 1]], concept[1] = np.nan, -1
    changed = replace(first.evidence, heldout_iou=heldout, heldout_concept=concept)
    write_store(tmp_path / "a.nd.h5", replace(WEIGHED, layers=(replace(first, evidence=changed),)))
    for session in opened(tmp_path / "a.nd.h5"):
        lines = [next(x for x in told(session, (FIRST, unit)) if x.startswith("held out")) for unit in (0, 1)]
        assert lines[0].endswith(f"IoU {first.evidence.train_iou[0]:.3f} held by no val image")
        assert lines[1] == "held out: the train images choose no label"


def test_a_units_page_is_filtered_with_its_evidence(session: Session) -> None:
    listing = unit_listing(session, FIRST, 0)
    found = [str(listing.cells(row)[0]) for row in listing.arrange(parse("held")).tolist()]
    assert found[0] == f"evidence for {UNIT[FIRST, 0][0]}"
    assert [line.split(":")[0] for line in found[1:]] == ["held out"]
    assert not [row for row in all_plain(listing, "iou>0") if "evidence" in row]


# Layers and summary


def surviving(layer: str) -> int:
    return sum(UNIT[at][1] > 0.04 and number("q", at) < 0.05 for at in of(layer))


def test_layers_tell_how_many_detectors_survive(session: Session) -> None:
    assert 0 < surviving("") < detectors("")
    listing = layers_listing(session)
    at = column(listing, "q<0.05")
    assert listing.columns[at - 1].title == "detect"
    assert [row[at] for row in all_cells(listing)] == [str(surviving(x)) for x in (FIRST, SECOND, "")]
    assert [row["detectors_q05"] for row in all_plain(listing)] == [surviving(x) for x in (FIRST, SECOND, "")]
    assert all(len(cells) == len(listing.columns) for cells in all_cells(listing))
    names = [cells[0] for cells in all_cells(listing, Order(at, True))]
    assert names == sorted(names, key=lambda x: -surviving("" if x == "all layers" else str(x)))


def test_a_layer_without_a_null_has_a_dash_and_sorts_last(tmp_path: Path) -> None:
    first, second = WEIGHED.layers
    write_store(tmp_path / "a.nd.h5", replace(WEIGHED, layers=(replace(first, evidence=None, null=None), second)))
    for session in opened(tmp_path / "a.nd.h5"):
        listing = layers_listing(session)
        at = column(listing, "q<0.05")
        assert [row[at] for row in all_cells(listing)] == ["-", str(surviving(SECOND)), str(surviving(SECOND))]
        for descending in (False, True):
            assert all_cells(listing, Order(at, descending))[-1][0] == FIRST
        heading = all_cells(summary_listing(session))[0][0]
        assert heading == f"{surviving(SECOND)} of {detectors(SECOND)} detectors have q < 0.05"


def test_long_names_of_layers_keep_their_room(tmp_path: Path) -> None:
    name = "layer4.1.conv2.b"
    made = dissection(layers={name: (6, (3, 3)), "stem": (6, (3, 3))}, evidence=True)
    write_store(tmp_path / "a.nd.h5", made)
    for session in opened(tmp_path / "a.nd.h5"):
        columns = layers_listing(session).columns
        shown = {columns[i].title: cells for i, cells in fit(columns, 77)}
        assert shown["layer"] >= len(name)
        assert {"detect", "q<0.05", "best unit"} <= set(shown)


@pytest.mark.parametrize("layer", ["", FIRST, SECOND])
def test_the_summary_begins_with_what_survives(session: Session, layer: str) -> None:
    listing = summary_listing(session, layer)
    assert listing.cells(0) == [f"{surviving(layer)} of {detectors(layer)} detectors have q < 0.05"]
    assert listing.cells(1) == [f"detectors: IoU > 0.04; null: {PAIRINGS} wrong pairings; held out: train/val"]
    assert {0, 1, 2} <= listing.headings
    assert all_cells(listing, text="wheel")[0][0] != listing.cells(0)[0]
