"""Where a reader was in each store, kept on disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from listed import NAN

from ndissect.tui.app.state import Bookmark, last_bookmark, remember


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that places are kept in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ndissect" / "browse.json"


PLACES = [
    Bookmark(),
    Bookmark("layers", 2, "layer4", "layer4", 107),
    Bookmark("concepts", 1, "", "街道.0", 3, 300),
    Bookmark("summary", 0, 'a "layer" of ünusual name'),
    Bookmark("summary", 1, "layer4", "layer4", 107, category="object"),
]


def test_each_store_has_its_place(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [tmp_path / f"{i}.nd.h5" for i in range(len(PLACES))]
    assert [last_bookmark(store) for store in stores] == [None] * len(stores)
    for store, place in zip(stores, PLACES, strict=True):
        remember(store, place)
    assert [last_bookmark(store) for store in stores] == PLACES
    remember(stores[0], PLACES[1])
    assert last_bookmark(stores[0]) == PLACES[1]
    monkeypatch.chdir(tmp_path)
    assert last_bookmark(Path("1.nd.h5")) == PLACES[1]
    assert [p.name for p in state.parent.iterdir()] == [state.name]


def test_stores_looked_at_long_ago_are_forgotten(state: Path, tmp_path: Path) -> None:
    for i in range(205):
        remember(tmp_path / f"{i}.nd.h5", Bookmark(unit=i))
        remember(tmp_path / "often.nd.h5", Bookmark(unit=i))
    kept = [i for i in range(205) if last_bookmark(tmp_path / f"{i}.nd.h5") is not None]
    assert kept == list(range(205 - len(kept), 205))
    assert 100 < len(kept) < 205
    assert last_bookmark(tmp_path / "often.nd.h5") == Bookmark(unit=204)


def test_a_store_of_any_name_has_its_place(state: Path, tmp_path: Path) -> None:
    for name in ("街道 ü\n.nd.h5", os.fsdecode(b"\xff\xfe.nd.h5"), "x" * 250):
        remember(tmp_path / name, Bookmark(unit=3))
        assert last_bookmark(tmp_path / name) == Bookmark(unit=3)


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
    assert last_bookmark(tmp_path / "a.nd.h5") is None
    remember(tmp_path / "a.nd.h5", Bookmark(unit=3))
    assert last_bookmark(tmp_path / "a.nd.h5") == Bookmark(unit=3)


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
    assert last_bookmark(tmp_path / "a.nd.h5") is None
    assert last_bookmark(tmp_path / "b.nd.h5") == PLACES[1]


def test_a_place_that_is_kept_in_part_is_taken_with_what_is_usual(state: Path, tmp_path: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({str(tmp_path / "a.nd.h5"): {"root": "concepts"}}))
    assert last_bookmark(tmp_path / "a.nd.h5") == Bookmark("concepts")


def test_where_no_place_can_be_kept_nothing_happens(state: Path, tmp_path: Path) -> None:
    state.mkdir(parents=True)  # a folder lies where the file should
    remember(tmp_path / "a.nd.h5", Bookmark(unit=3))
    assert last_bookmark(tmp_path / "a.nd.h5") is None
    assert [p.name for p in state.parent.iterdir()] == [state.name]  # and nothing is left over
    state.rmdir()
    state.parent.rmdir()
    state.parent.write_text("a file lies where the folder should")
    remember(tmp_path / "a.nd.h5", Bookmark(unit=3))
    assert last_bookmark(tmp_path / "a.nd.h5") is None
