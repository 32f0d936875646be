"""Help, palette and viewers as listings; any listing as a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed import (
    CATEGORY,
    FIRST,
    SECOND,
    UNIT,
    all_plain,
    of,
    opened,
    sections,
    written,
)
from store_factory import dissection
from with_evidence import with_evidence

from ndissect.store.descriptions import SIMILARITY
from ndissect.store.errors import NDError
from ndissect.store.writer import write_store
from ndissect.tui.app.actions import ACTIONS, GROUPS
from ndissect.tui.app.concepts import concepts_listing
from ndissect.tui.app.export import export
from ndissect.tui.app.help import LANGUAGE, help_listing, palette_listing, viewers_listing
from ndissect.tui.app.layers import layers_listing
from ndissect.tui.app.listing import NOTHING, Column, Item, Listing, Order
from ndissect.tui.app.query import CHOICES, FLAGS, NUMBERS, parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.summary import summary_listing
from ndissect.tui.app.unit import unit_listing
from ndissect.tui.app.units import concept_units, layer_units
from ndissect.tui.pictures.viewer import Viewer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("listings"))


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    yield from opened(folder / "a.nd.h5")


@pytest.fixture(scope="module")
def weighed(folder: Path) -> Iterator[Session]:
    """The same store with evidence for its labels."""
    yield from opened(folder / "evidence.nd.h5")


@pytest.fixture(scope="module")
def measured(folder: Path) -> Iterator[Session]:
    """A store with evidence for its labels, and with what its units do to the classes."""
    made = dissection(layers={FIRST: (9, (4, 5)), SECOND: (6, (3, 3))}, groups=("train", "val"), effects=True)
    write_store(folder / "measured.nd.h5", with_evidence(made))
    yield from opened(folder / "measured.nd.h5")


# Help, palette, viewers


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
def test_what_the_help_says_of_filters_is_a_filter(measured: Session, key: str) -> None:
    for text in key.split("  "):
        layer_units(measured, "").arrange(parse(text.replace("part", "scene")), marked=lambda _: False)


def test_every_name_of_the_language_is_known_somewhere_and_in_the_help(measured: Session) -> None:
    listings = [
        layers_listing(measured), layer_units(measured, ""), concepts_listing(measured), summary_listing(measured),
        unit_listing(measured, FIRST, 0),
    ]  # fmt: skip
    told = " ".join(f"{key} {does}" for key, does in LANGUAGE)
    for name in NUMBERS:
        if name not in (SIMILARITY, "concept_effect", "coefficient"):  # of descriptions, of generators alone
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


# Export

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
