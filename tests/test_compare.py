"""Two units, layers or stores side by side: the numbers against those counted here from the same dissections."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from store_factory import DEAD, PROTOCOL, dissection

from ndissect.store.concepts import REPORT_ORDER
from ndissect.store.errors import WrongUse
from ndissect.store.model import Dissection, Layer
from ndissect.store.protocol import Protocol
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app import compare_units as compare_module
from ndissect.tui.app.compare import compare, compare_layers, compare_stores, compare_units
from ndissect.tui.app.export import export
from ndissect.tui.app.listing import NOTHING, Bar, Item, Listing
from ndissect.tui.app.query import Mistake, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.table import fit

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
FIRST, SECOND = "features.0", "layer4"
LAYERS = {FIRST: (30, (4, 5)), SECOND: (12, (3, 3))}
OTHER_LAYERS = {SECOND: (14, (3, 3)), "head": (5, (2, 2))}


def other_names(d: Dissection) -> Dissection:
    """The same with other concept numbers, in which the wheel is a tyre."""
    names = tuple("tyre" if name == "wheel" else name for name in d.concepts.name)
    table = replace(d.concepts, number=d.concepts.number + np.int32(1000), name=names)
    return replace(d, concepts=table, images=None, layers=tuple(replace(layer, top=None) for layer in d.layers))


A = dissection(layers=LAYERS, groups=("train", "val"), top=5)
B = other_names(dissection(layers=OTHER_LAYERS, seed=7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_store(folder / "a.nd.h5", A)
    write_store(folder / "b.nd.h5", B)
    return folder


@pytest.fixture(scope="module")
def a(folder: Path) -> Iterator[Session]:
    session = Session(folder / "a.nd.h5")
    yield session
    session.close()


@pytest.fixture(scope="module")
def b(folder: Path) -> Iterator[Session]:
    session = Session(folder / "b.nd.h5")
    yield session
    session.close()


@pytest.fixture(scope="module")
def imported(folder: Path, a: Session) -> Iterator[Session]:
    """The first layer of A, of which a table keeps only the best concept of each category."""
    with (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(a.view(FIRST), out)
    write_store(folder / "t.nd.h5", read_table(folder / "t.csv", FIRST))
    session = Session(folder / "t.nd.h5")
    yield session
    session.close()


# --- what must come out, by loops over the counts --------------------------------------------------------------------


def layer_of(d: Dissection, name: str) -> Layer:
    return next(layer for layer in d.layers if layer.name == name)


def expected_ious(d: Dissection, layer: Layer, unit: int) -> dict[tuple[str, str], tuple[float, int, int]]:
    """(name, category) -> IoU, I, A."""
    counts = layer.counts
    assert counts is not None
    found = {}
    for row in range(len(d.concepts)):
        k = int(d.concepts.category[row])
        both = int(sum(group[unit, row] for group in counts.intersection))
        within = counts.area_in_category[:, :, k] if d.protocol.union == "within-category" else counts.area
        area = int(sum(group[unit] for group in within))
        concept = int(sum(group[row] for group in d.concept_counts.area))
        value = both / (area + concept - both) if concept and not layer.statistics.dead[unit] else 0.0
        found[d.concepts.label(row), d.concepts.category_of(row)] = (value, both, area)
    return found


def expected_label(d: Dissection, layer: Layer, unit: int) -> tuple[tuple[str, str] | None, float]:
    ious = expected_ious(d, layer, unit)
    value = max(v for v, _, _ in ious.values())
    return (None, 0.0) if value == 0 else (next(c for c, (v, _, _) in ious.items() if v == value), value)


def expected_detectors(
    d: Dissection, layers: list[str]
) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], float]]:
    """Units labelled with each concept with an IoU above 0.04, and the best IoU of those labelled with it."""
    units: dict[tuple[str, str], int] = {}
    best: dict[tuple[str, str], float] = {}
    for layer in (layer_of(d, name) for name in layers):
        for unit in range(len(layer.best.concept)):
            concept, value = expected_label(d, layer, unit)
            if concept is not None:
                units[concept] = units.get(concept, 0) + (value > 0.04)
                best[concept] = max(best.get(concept, 0.0), value)
    return units, best


def expected_counts(d: Dissection, layers: list[str]) -> dict[str, int]:
    """Units, detectors, and the distinct winners of each category."""
    units, detectors = 0, 0
    winners: dict[str, set[str]] = {category: set() for category in d.concepts.categories}
    for layer in (layer_of(d, name) for name in layers):
        for unit in range(len(layer.best.concept)):
            units += 1
            ious = expected_ious(d, layer, unit)
            above = {c: v for c, (v, _, _) in ious.items() if v > 0.04}
            detectors += bool(above)
            for category, won in winners.items():
                mine = {name: v for (name, k), v in above.items() if k == category}
                if mine:
                    won.add(max(mine, key=lambda name: mine[name]))
    by_category = {category: len(won) for category, won in winners.items()}
    return {"units": units, "detectors": detectors, "unique/cat": sum(by_category.values()), **by_category}


def plain_rows(listing: Listing, block: str = "") -> list[dict[str, object]]:
    rows = [dict(listing.plain(i)) for i in range(listing.count) if i not in listing.headings]
    return [row for row in rows if not block or row["block"] == block]


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [((FIRST, 3), (FIRST, 12)), ((FIRST, 0), (SECOND, 5))])
def test_two_units_have_a_row_for_each_concept_that_either_overlaps_with(
    a: Session, first: tuple[str, int], second: tuple[str, int]
) -> None:
    listing = compare_units((a, *first), (a, *second))
    sides = [expected_ious(A, layer_of(A, layer), unit) for layer, unit in (first, second)]
    found = {(row["concept"], row["category"]): row for row in plain_rows(listing)}
    assert set(found) == {c for side in sides for c, (value, _, _) in side.items() if value > 0}
    for concept, row in found.items():
        for name, side in zip("ab", sides, strict=True):
            value, both, area = side[concept]
            assert row[f"{name}_iou"] == pytest.approx(value, abs=1e-12)
            assert (row[f"{name}_intersection"], row[f"{name}_area"]) == (both, area)


def test_rows_of_units_come_with_the_highest_iou_of_either_first(a: Session) -> None:
    rows = plain_rows(compare_units((a, FIRST, 3), (a, SECOND, 5)))
    highest = [max(row["a_iou"], row["b_iou"]) for row in rows]
    assert highest == sorted(highest, reverse=True)
    assert len(set(highest)) > 3


def test_only_leading_concepts_are_listed(a: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of each category however low, and of all concepts the first few."""
    monkeypatch.setattr(compare_module, "RUNNERS_UP", 2)
    expected = set()
    for unit in (3, 12):
        ious = {c: v for c, (v, _, _) in expected_ious(A, layer_of(A, FIRST), unit).items() if v > 0}
        expected |= set(sorted(ious, key=lambda c: -ious[c])[:2])
        for category in {k for _, k in ious}:
            expected.add(max((c for c in ious if c[1] == category), key=lambda c: ious[c]))
    rows = plain_rows(compare_units((a, FIRST, 3), (a, FIRST, 12)))
    assert {(row["concept"], row["category"]) for row in rows} == expected
    assert len(rows) < len(A.concepts)


def test_the_note_says_who_is_who(a: Session) -> None:
    first, second = (expected_label(A, layer_of(A, FIRST), unit) for unit in (3, 12))
    assert first[0] and second[0]
    notes = compare_units((a, FIRST, 3), (a, FIRST, 12)).notes
    assert notes[0] == (
        f"A {FIRST}:3 {first[0][0]} {first[1]:.3f}   B {FIRST}:12 {second[0][0]} {second[1]:.3f}"
    )  # fmt: skip
    assert f"{FIRST}:{DEAD} dead" in compare_units((a, FIRST, DEAD), (a, FIRST, 3)).notes[0]


def test_two_dead_units_have_nothing_to_compare(a: Session) -> None:
    listing = compare_units((a, FIRST, DEAD), (a, SECOND, DEAD))
    assert listing.count == 0
    assert "no concept" in listing.empty
    assert list(listing.arrange()) == []


def test_masks_are_compared_on_the_top_images_that_both_have(a: Session) -> None:
    told = []
    for other in range(30):
        images = [
            dict(zip(a.view(FIRST).top(u).image.tolist(), a.view(FIRST).masks(u), strict=True)) for u in (3, other)
        ]
        shared = [image for image in images[0] if image in images[1]]
        ious = []
        for image in shared:
            union = int(np.logical_or(images[0][image], images[1][image]).sum())
            if union:
                ious.append(int(np.logical_and(images[0][image], images[1][image]).sum()) / union)
        note = compare_units((a, FIRST, 3), (a, FIRST, other)).notes[1]
        if not shared:
            assert note == "no top image in common"
        elif ious:
            assert note == f"top images in common: {len(shared)}; mean IoU of the two masks there {np.mean(ious):.3f}"
        told.append(note)
    assert told[3].endswith("1.000")
    assert len(set(told)) > 5
    assert "no top image in common" in told


def test_units_of_two_stores_are_matched_by_name_and_category(a: Session, b: Session) -> None:
    listing = compare_units((a, SECOND, 5), (b, SECOND, 5))
    sides = expected_ious(A, layer_of(A, SECOND), 5), expected_ious(B, layer_of(B, SECOND), 5)
    rows = {(row["concept"], row["category"]): row for row in plain_rows(listing)}
    assert ("wheel", "part") in rows and ("tyre", "part") in rows
    for concept, row in rows.items():
        for name, side in zip("ab", sides, strict=True):
            assert row[f"{name}_iou"] == (pytest.approx(side[concept][0], abs=1e-12) if concept in side else None)
    cells = {cells[0]: cells for cells in map(listing.cells, range(listing.count))}
    assert cells["wheel"][4] == cells["tyre"][2] == "n/a"
    assert any(note.startswith("n/a: no such concept") for note in listing.notes)
    assert not any("top image" in note for note in listing.notes)


def test_enter_goes_to_the_concept_of_the_store_that_is_browsed(a: Session, b: Session) -> None:
    def items(current: Session | None) -> dict[str, Item]:
        listing = compare_units((a, SECOND, 5), (b, SECOND, 5), current)
        return {str(listing.cells(row)[0]): listing.item(row) for row in range(listing.count)}

    numbers = dict(zip((A.concepts.label(i) for i in range(len(A.concepts))), A.concepts.number.tolist(), strict=True))
    for name, item in items(None).items():
        assert item == (NOTHING if name == "tyre" else Item("concept", concept=numbers[name]))
    for name, item in items(b).items():
        number = numbers["wheel" if name == "tyre" else name] + 1000
        assert item == (NOTHING if name == "wheel" else Item("concept", concept=number))


def test_an_imported_table_shows_what_it_knows(a: Session, imported: Session) -> None:
    listing = compare_units((a, FIRST, 3), (imported, FIRST, 3))
    best = {int(row) for row in layer_of(A, FIRST).best.concept[3] if row >= 0}
    known = {A.concepts.label(row) for row in best}
    for row in plain_rows(listing):
        assert (row["b_iou"] is None) == (row["concept"] not in known)
        if row["concept"] in known:
            assert row["b_iou"] == pytest.approx(row["a_iou"], abs=1e-12)
    unknown = [cells for cells in map(listing.cells, range(listing.count)) if cells[0] not in known]
    assert unknown and {cells[4] for cells in unknown} == {"?"}
    assert any(note.startswith("?: not known") for note in listing.notes)


def test_units_can_be_sorted_and_filtered(a: Session, b: Session) -> None:
    listing = compare_units((a, SECOND, 5), (b, SECOND, 5))
    rows = plain_rows(listing)
    for column, key in ((2, "a_iou"), (4, "b_iou")):
        keys = listing.columns[column].sort
        assert column in listing.sortable and keys is not None
        np.testing.assert_array_equal(keys(), [np.nan if row[key] is None else row[key] for row in rows])
    names = [rows[i]["concept"] for i in listing.arrange(order=replace(listing.order, column=0))]
    assert names == sorted(names, key=str.casefold)
    found = [rows[i] for i in listing.arrange(parse("cat:part iou>0"))]
    assert {row["concept"] for row in found} == {"wheel", "tyre"}
    assert [rows[i]["concept"] for i in listing.arrange(parse("whee"))] == ["wheel"]


def test_an_unknown_layer_or_unit_is_refused(a: Session) -> None:
    with pytest.raises(WrongUse, match="no unit 99"):
        compare_units((a, FIRST, 3), (a, FIRST, 99))
    with pytest.raises(WrongUse, match="no layer 'layer9'"):
        compare_layers((a, FIRST), (a, "layer9"))


# --- layers ----------------------------------------------------------------------------------------------------------


def check_counts(listing: Listing, sides: tuple[dict[str, int], dict[str, int]]) -> None:
    found = {
        str(row["name"]): (row["a"], row["b"])
        for block in ("counts", "unique/cat")
        for row in plain_rows(listing, block)
    }
    best = found.pop("unique/best")
    assert found == {name: (sides[0][name], sides[1][name]) for name in sides[0]}
    assert all(best)


def check_concepts(listing: Listing, sides: tuple[tuple[dict, dict], tuple[dict, dict]]) -> None:
    rows = plain_rows(listing, "concepts")
    detected = {c for units, _ in sides for c, n in units.items() if n}
    assert {(row["name"], row["category"]) for row in rows} == detected
    for row in rows:
        concept = (row["name"], row["category"])
        counts = tuple(units.get(concept, 0) for units, _ in sides)
        assert (row["a"], row["b"]) == counts
        assert row["only"] == (None if all(counts) else "only A" if counts[0] else "only B")
        for name, (_, best) in zip("ab", sides, strict=True):
            assert row[f"{name}_iou"] == pytest.approx(best.get(concept, 0.0), abs=1e-12)
    keys = [(-abs(row["a"] - row["b"]), str(row["name"]).casefold()) for row in rows]
    assert keys == sorted(keys)


def test_two_layers_have_their_counts_and_their_detectors_by_concept(a: Session) -> None:
    listing = compare_layers((a, FIRST), (a, SECOND))
    check_counts(listing, (expected_counts(A, [FIRST]), expected_counts(A, [SECOND])))
    check_concepts(listing, (expected_detectors(A, [FIRST]), expected_detectors(A, [SECOND])))
    best = next(row for row in plain_rows(listing, "counts") if row["name"] == "unique/best")
    for side, layer in (("a", FIRST), ("b", SECOND)):
        found = [expected_label(A, layer_of(A, layer), u) for u in range(LAYERS[layer][0])]
        assert best[side] == len({concept for concept, value in found if value >= 0.04})
    assert listing.notes[0] == f"A {FIRST}   B {SECOND}"
    assert [row["name"] for row in plain_rows(listing, "unique/cat")] == list(REPORT_ORDER)


def test_all_layers_count_as_one(a: Session) -> None:
    listing = compare_layers((a, ""), (a, SECOND))
    check_counts(listing, (expected_counts(A, [FIRST, SECOND]), expected_counts(A, [SECOND])))
    check_concepts(listing, (expected_detectors(A, [FIRST, SECOND]), expected_detectors(A, [SECOND])))
    assert listing.notes[0] == f"A all layers   B {SECOND}"


def test_layers_of_an_imported_table_compare_by_their_bests(a: Session, imported: Session) -> None:
    """All that a layer's counts rest on is in the table, so nothing differs."""
    listing = compare_layers((a, FIRST), (imported, FIRST))
    rows = plain_rows(listing)
    assert all(row["a"] == row["b"] for row in rows)
    assert sum(row["block"] == "concepts" for row in rows) == sum(
        n > 0 for n in expected_detectors(A, [FIRST])[0].values()
    )


def test_bars_share_one_scale(a: Session) -> None:
    """A and B's bars can be held against each other: equal shares are drawn equally wide."""
    listing = compare_layers((a, FIRST), (a, SECOND))
    concepts = [i for i in range(listing.count) if i not in listing.headings and listing.item(i) != NOTHING]
    most = max(max(row["a"], row["b"]) for row in plain_rows(listing, "concepts"))
    for i, row in zip(concepts, plain_rows(listing, "concepts"), strict=True):
        assert listing.cells(i)[3] == Bar(row["a"] / most)
        assert listing.cells(i)[5] == Bar(row["b"] / most)


def test_filters_keep_the_headings_of_what_is_left(a: Session) -> None:
    listing = compare_layers((a, FIRST), (a, SECOND))
    shown = [listing.cells(int(i)) for i in listing.arrange(parse("cat:object detectors>0"))]
    assert shown[0][0] == "concepts, units"
    assert {cells[1] for cells in shown[1:]} == {"object"} and len(shown) > 1
    with pytest.raises(Mistake):
        listing.arrange(parse("threshold>0"))


# --- stores ----------------------------------------------------------------------------------------------------------


def test_two_stores_have_the_layers_of_both_first(a: Session, b: Session) -> None:
    listing = compare_stores(a, b)
    rows = plain_rows(listing, "layers")
    assert [(row["name"], row["only"]) for row in rows] == [(SECOND, None), (FIRST, "only A"), ("head", "only B")]
    for row in rows:
        for side, d in (("a", A), ("b", B)):
            if row["name"] not in {layer.name for layer in d.layers}:
                assert row[side] is None and row[f"{side}_unique"] is None
                continue
            expected = expected_counts(d, [str(row["name"])])
            assert (row[side], row[f"{side}_unique"]) == (expected["detectors"], expected["unique/cat"])
    check_counts(listing, (expected_counts(A, list(LAYERS)), expected_counts(B, list(OTHER_LAYERS))))
    check_concepts(listing, (expected_detectors(A, list(LAYERS)), expected_detectors(B, list(OTHER_LAYERS))))
    assert "A a.nd.h5   B b.nd.h5" in listing.notes
    assert {listing.item(i).kind for i in range(listing.count)} == {"none", "concept"}


def written(folder: Path, name: str, d: Dissection, **changes: object) -> Session:
    """A store of ``d`` with parts of its provenance replaced."""
    folder.mkdir(exist_ok=True)
    write_store(folder / name, replace(d, provenance={**d.provenance, **changes}))
    return Session(folder / name)


def notes_of(a: Session, b: Session) -> list[str]:
    try:
        return list(compare_stores(a, b).notes)
    finally:
        a.close()
        b.close()


SMALL = {"x": (4, (3, 3))}
DATA = {"name": "broden", "images": 12, "content_digest": "00"}
NETWORK = {"name": "resnet18", "weights_digest": "aa", "preprocess": {"mean": [0.5]}}


def test_other_protocols_are_warned_of_choice_by_choice(tmp_path: Path) -> None:
    protocol: Protocol = replace(PROTOCOL, name="mine", q=Fraction(1, 10), union="all-images")
    two = [dissection(layers=SMALL), dissection(layers=SMALL, protocol=protocol)]
    notes = notes_of(*(written(tmp_path, f"{i}.nd.h5", d, data=DATA) for i, d in enumerate(two)))
    (warning,) = (note for note in notes if note.startswith("beware"))
    assert warning == (
        "beware: the protocols differ, so IoUs cannot be compared: netdissect+ / mine: "
        "q 1/20 / 1/10, union within-category / all-images"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"data": {**DATA, "content_digest": "01"}}, ["beware: the data differ", "of other content"]),
        ({"data": {**DATA, "name": "ade20k"}}, ["beware: the data differ", "A broden 12 images", "B ade20k 12 images"]),
        ({"data": {"name": "broden", "images": 12}}, ["whether both saw the same data is not recorded"]),
        ({"network": {"name": "resnet18"}}, []),
        ({"data": "a string"}, ["beware: the data differ"]),
        ({"network": {**NETWORK, "name": "vgg16"}}, ["networks: A resnet18   B vgg16"]),
        ({"network": {**NETWORK, "weights_digest": "bb"}}, ["resnet18, but not its weights"]),
        ({"network": {**NETWORK, "weights_digest": "bb", "preprocess": 3}}, ["not its weights and preprocessing"]),
        ({"network": {"name": "res\x1b[31mnet"}}, ["B res\ufffd[31mnet"]),
    ],
)
def test_what_differs_in_data_and_network_is_said(tmp_path: Path, changes: dict, said: list[str]) -> None:
    small = dissection(layers=SMALL)
    both = [{"network": NETWORK, "data": DATA} | c for c in ({}, changes)]
    notes = notes_of(*(written(tmp_path, f"{i}.nd.h5", small, **c) for i, c in enumerate(both)))
    told = [note for note in notes if note.startswith(("beware", "whether", "network", "the network"))]
    assert len(told) == (1 if said else 0)
    assert all(part in told[0] for part in said)


def test_data_that_a_table_does_not_tell_is_not_called_different(a: Session, imported: Session) -> None:
    (said,) = (note for note in compare_stores(a, imported).notes if "data" in note)
    assert said.startswith("whether both saw the same data is not recorded: A 12 images on a 12x10 grid")
    assert said.endswith("B not recorded")


def test_stores_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    small = dissection(layers=SMALL)
    notes = notes_of(*(written(tmp_path / str(i), "same.nd.h5", small) for i in range(2)))
    assert f"A {tmp_path / '0' / 'same.nd.h5'}   B {tmp_path / '1' / 'same.nd.h5'}" in notes


def test_stores_without_layers_or_detectors_compare(tmp_path: Path, a: Session) -> None:
    empty = written(tmp_path, "empty.nd.h5", dissection(layers={}))
    for one, other in ((a, empty), (empty, a), (empty, empty)):
        listing = compare_stores(one, other)
        units = next(row for row in plain_rows(listing, "counts") if row["name"] == "units")
        assert (units["a"], units["b"]) == tuple(42 if s is a else 0 for s in (one, other))
        listing.arrange(parse("cat:object"))
    empty.close()


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("caffe_reference_places365", "caffe_reference_imagenet", {"detectors": (118, 97), "unique/cat": (91, 61)}),
        (
            "caffe_reference_places205",
            "ResNet-152-model_places365",
            {"detectors": (107, 1452), "unique/best": (60, 278)},
        ),
    ],
)
def test_published_tables_compare_as_published(
    tmp_path: Path, first: str, second: str, counts: dict[str, tuple[int, int]]
) -> None:
    if not PUBLISHED.is_dir():
        pytest.skip("the published tables of 2017 are not here")
    for name in (first, second):
        write_store(tmp_path / f"{name}.nd.h5", read_table(PUBLISHED / f"{name}.csv", name))
    sessions = [Session(tmp_path / f"{name}.nd.h5") for name in (first, second)]
    listing = compare_stores(*sessions)
    for session in sessions:
        session.close()
    found = {row["name"]: (row["a"], row["b"]) for row in plain_rows(listing, "counts")}
    assert {name: found[name] for name in counts} == counts
    assert f"networks: A {first}   B {second}" in listing.notes


# --- what is marked --------------------------------------------------------------------------------------------------


def refuse(path: Path) -> Session:
    raise AssertionError(f"{path} need not be opened")


def test_two_marked_items_of_a_kind_are_compared(a: Session, b: Session, folder: Path) -> None:
    unit = [Item("unit", FIRST, 3), Item("unit", SECOND, 5)]
    assert compare(*unit, a, refuse).notes == compare_units((a, FIRST, 3), (a, SECOND, 5)).notes
    layer = [Item("layer", FIRST), Item("layer", "")]
    assert compare(*layer, a, refuse).notes[0] == f"A {FIRST}   B all layers"
    opened: list[Path] = []

    def open_store(path: Path) -> Session:
        opened.append(path)
        return b

    stores = [Item("store", name=str(folder / name)) for name in ("b.nd.h5", "a.nd.h5")]
    assert "A b.nd.h5   B a.nd.h5" in compare(*stores, a, open_store).notes
    assert opened == [folder / "b.nd.h5"]
    elsewhere = Item("unit", SECOND, 5, name=str(folder / "b.nd.h5"))
    assert compare(unit[1], elsewhere, a, open_store).notes == compare_units((a, SECOND, 5), (b, SECOND, 5)).notes


def test_what_cannot_be_compared_is_refused_with_what_can(a: Session) -> None:
    for one, other, why in (
        (Item("unit", FIRST, 3), Item("layer", FIRST), "a unit and a layer"),
        (Item("concept", concept=3), Item("concept", concept=4), "two concepts"),
        (Item("unit", FIRST, 3), Item("unit", FIRST, 3), "the same unit"),
    ):
        with pytest.raises(WrongUse, match=why) as raised:
            compare(one, other, a, refuse)
        assert raised.value.hint.startswith("mark ")


def test_each_pair_is_remembered_by_itself(a: Session, b: Session) -> None:
    listings = [
        compare_units((a, FIRST, 3), (a, FIRST, 4)),
        compare_units((a, FIRST, 4), (a, FIRST, 3)),
        compare_units((a, SECOND, 3), (b, SECOND, 3)),
        compare_layers((a, FIRST), (a, SECOND)),
        compare_stores(a, b),
        compare_stores(b, a),
    ]
    assert {listing.name for listing in listings} == {"compare"}
    assert len({listing.key for listing in listings}) == len(listings)


def test_a_table_outlives_the_stores_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    sessions = [Session(folder / name) for name in ("a.nd.h5", "b.nd.h5")]
    listings = [
        compare_units((sessions[0], SECOND, 3), (sessions[1], SECOND, 4)),
        compare_layers((sessions[0], SECOND), (sessions[1], SECOND)),
        compare_stores(*sessions),
    ]
    for session in sessions:
        session.close()
    for listing in listings:
        for row in range(listing.count):
            assert len(listing.cells(row)) == len(listing.columns)
            if row not in listing.headings:
                assert listing.cells(row)[0] in listing.copied(row)
        path = export(listing, listing.arrange(parse("iou>=0")), tmp_path, folder / "a.nd.h5")
        with path.open(encoding="utf-8", newline="") as file:
            names = [row.get("concept") or row["name"] for row in csv.DictReader(file)]
        shown = [listing.cells(int(i))[0] for i in listing.arrange(parse("iou>=0")) if int(i) not in listing.headings]
        assert names == shown and len(names) > 4


def test_what_is_compared_stays_in_sight_where_there_is_little_room(a: Session, b: Session) -> None:
    units, stores = compare_units((a, SECOND, 3), (b, SECOND, 4)), compare_stores(a, b)
    for listing, cells, wanted in (
        (units, 77, {"category", "A IoU", "B IoU", "   A both    B both"}),
        (units, 30, {"A IoU", "B IoU"}),
        (stores, 77, {"category", "A", "B"}),
        (stores, 36, {"A", "B"}),
    ):
        assert wanted <= {listing.columns[i].title for i, _ in fit(listing.columns, cells)}
