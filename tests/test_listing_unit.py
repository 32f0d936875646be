"""What a unit's page lists, and all tables of an imported table, against the same numbers counted by hand."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from listed import (
    CATEGORY,
    FIRST,
    IMAGES_OF,
    IOUS,
    LABELS,
    NUMBER,
    SECOND,
    UNIT,
    WINNERS,
    D,
    all_cells,
    all_plain,
    column,
    counts_of,
    layer_of,
    of,
    opened,
    sections,
    written,
)
from store_factory import DEAD, GRID, WITH_NAN

from ndissect.store.errors import NDError
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import Bar, Item
from ndissect.tui.app.query import parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.unit import RUNNERS_UP, unit_listing
from ndissect.tui.app.units import FULL_IOU, concept_units, layer_units

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"


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
def imported(folder: Path, session: Session) -> Iterator[Session]:
    """The first layer as a published table, which knows only the best concept of each category, imported again."""
    with (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(session.view(FIRST), out)
    write_store(folder / "t.nd.h5", read_table(folder / "t.csv", FIRST))
    yield from opened(folder / "t.nd.h5")


# A unit


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


# An imported table


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
