"""The table of stores: those of a folder, whole or damaged, and the runs that will write one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from store_factory import dissection, write_small

from ndissect.store.files import human_bytes
from ndissect.store.live import RunWriter, run_file
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app import stores as stores_module
from ndissect.tui.app.export import export
from ndissect.tui.app.listing import Item, Listing
from ndissect.tui.app.query import parse
from ndissect.tui.app.session import Session
from ndissect.tui.app.stores import stores_listing
from ndissect.tui.tables.origin import origin

NOW = 1_700_000_000.0
NAME, NETWORK, DATA, LAYERS, UNITS, SIZE, MODIFIED, STATE = range(8)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small") / "small.nd.h5", layers={"x": (4, (3, 3)), "y": (6, (2, 2))})


@pytest.fixture
def put(small: Path, tmp_path: Path) -> Callable[..., Path]:
    """Puts a store of 2 layers and 10 units at a name, written so many seconds before NOW."""

    def at(name: str, before: float = 0.0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small, path)
        os.utime(path, (NOW, NOW - before))
        return path

    return at


def cells_by_name(listing: Listing) -> dict[str, list[str]]:
    return {str(listing.cells(row)[NAME]): [str(c) for c in listing.cells(row)] for row in range(listing.count)}


def plain(listing: Listing) -> list[dict[str, Any]]:
    return [dict(listing.plain(row)) for row in range(listing.count)]


def test_the_stores_of_a_folder_come_newest_first(put: Callable[..., Path], tmp_path: Path, small: Path) -> None:
    paths = [put("b.nd.h5", 90), put("a.nd.h5", 3700), put("c.nd.h5", 2)]
    put("notes.txt")
    put("other.h5")
    (tmp_path / "folder.nd.h5").mkdir()
    listing = stores_listing(tmp_path, paths[1], now=NOW)
    size = human_bytes(small.stat().st_size)
    assert [list(listing.cells(row)) for row in range(listing.count)] == [
        ["c", "torchvision:resnet18", "", "2", "10", size, "2 s ago", ""],
        ["b", "torchvision:resnet18", "", "2", "10", size, "1 min ago", ""],
        ["a", "torchvision:resnet18", "", "2", "10", size, "1 h ago", "open"],
    ]
    assert [listing.item(row) for row in range(3)] == [Item("store", name=str(paths[i])) for i in (2, 0, 1)]
    assert listing.arrange().tolist() == [0, 1, 2]
    assert listing.notes == ()


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (0, "just now"),
        (59.5, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 day ago"),
        (7 * 86400 - 1, "6 days ago"),
        (7 * 86400, datetime.fromtimestamp(NOW - 7 * 86400).strftime("%Y-%m-%d")),
        (-30, "just now"),
        (-86400, datetime.fromtimestamp(NOW + 86400).strftime("%Y-%m-%d")),
        (NOW, "1970-01-01"),
    ],
)
def test_ages_are_told_in_words_and_old_ones_by_their_date(
    put: Callable[..., Path], tmp_path: Path, before: float, said: str
) -> None:
    put("a.nd.h5", before)
    assert stores_listing(tmp_path, None, now=NOW).cells(0)[MODIFIED] == said


def test_what_cannot_be_read_is_listed_with_the_reason(put: Callable[..., Path], tmp_path: Path) -> None:
    put("whole.nd.h5", 10)
    truncated = put("truncated.nd.h5", 20)
    os.truncate(truncated, truncated.stat().st_size // 2)
    (tmp_path / "empty.nd.h5").touch()
    (tmp_path / "text.nd.h5").write_text("unit,label\n1,car\n")
    (tmp_path / "link.nd.h5").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.nd.h5").symlink_to(tmp_path / "loop.nd.h5")
    os.mkfifo(tmp_path / "pipe.nd.h5")
    listing = stores_listing(tmp_path, None)
    found = {row["name"]: row for row in plain(listing)}
    reasons = {
        "truncated.nd.h5": "is truncated",
        "empty.nd.h5": "is empty: not a store",
        "text.nd.h5": "is not an ndissect store",
        "link.nd.h5": "leads to no file",
        "loop.nd.h5": "leads to no file",
        "pipe.nd.h5": "is no regular file",
    }
    assert set(found) == {*reasons, "whole.nd.h5"}
    assert (found["whole.nd.h5"]["problem"], found["whole.nd.h5"]["state"]) == (None, None)
    for name, reason in reasons.items():
        assert str(found[name]["problem"]).startswith(reason)
        assert (found[name]["state"], found[name]["layers"], found[name]["units"]) == ("unreadable", None, None)
        assert any(note.startswith(f"{name} {reason}") for note in listing.notes)
    assert {listing.faint(row) for row in range(listing.count)} == {True, False}
    assert {listing.item(row).name for row in range(listing.count)} == {str(tmp_path / name) for name in found}


def test_damage_deep_inside_leaves_the_units_out(put: Callable[..., Path], tmp_path: Path) -> None:
    """Only the names are read of every store; opening this one will say what is wrong."""
    import h5py

    with h5py.File(put("a.nd.h5"), "r+") as file:
        del file["layers/x/best/concept"]
    assert cells_by_name(stores_listing(tmp_path, None))["a"][LAYERS:SIZE] == ["2", ""]


def test_stores_from_elsewhere_show_their_path_and_each_store_comes_once(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    here, there, opened = put("here/a.nd.h5", 5), put("there/a.nd.h5", 10), put("opened/a.nd.h5", 15)
    gone = tmp_path / "there" / "gone.nd.h5"
    listing = stores_listing(tmp_path / "here", opened, [there, here, opened, gone], now=NOW)
    assert [str(listing.cells(row)[NAME]) for row in range(listing.count)] == [
        "a",
        str(there).removesuffix(".nd.h5"),
        str(opened).removesuffix(".nd.h5"),
    ]
    assert [listing.cells(row)[STATE] for row in range(3)] == ["", "", "open"]


def test_the_open_store_is_found_by_any_of_its_names(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.nd.h5")
    monkeypatch.chdir(tmp_path)
    for folder, current in ((Path(), tmp_path / "a.nd.h5"), (tmp_path, Path("a.nd.h5"))):
        listing = stores_listing(folder, current, now=NOW)
        assert [row["state"] for row in plain(listing)] == ["open"]


def test_of_a_folder_of_very_many_only_the_newest_are_opened(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_module, "MOST", 3)
    for i in range(5):
        put(f"{i}.nd.h5", i)
    listing = stores_listing(tmp_path, None, now=NOW)
    assert [listing.cells(row)[NAME] for row in range(5)] == ["0", "1", "2", "3", "4"]
    assert [listing.cells(row)[LAYERS] for row in range(5)] == ["2", "2", "2", "", ""]
    assert listing.notes == ("5 stores; the newest 3 were looked into, the others only named",)


def test_a_store_that_was_replaced_is_read_again(put: Callable[..., Path], tmp_path: Path) -> None:
    path = put("a.nd.h5")
    assert cells_by_name(stores_listing(tmp_path, None))["a"][LAYERS:SIZE] == ["2", "10"]
    write_small(path, layers={"z": (7, (3, 3))})
    assert cells_by_name(stores_listing(tmp_path, None))["a"][LAYERS:SIZE] == ["1", "7"]
    path.unlink()
    assert stores_listing(tmp_path, None).count == 0


def test_an_imported_table_is_named_by_its_file(small: Path, tmp_path: Path) -> None:
    with Session(small).store as store, (tmp_path / "alexnet_places.csv").open("w", encoding="utf-8") as out:
        write_table(store.layer("x"), out)
    write_store(tmp_path / "t.nd.h5", read_table(tmp_path / "alexnet_places.csv", "x"))
    assert cells_by_name(stores_listing(tmp_path, None))["t"][NETWORK:SIZE] == ["alexnet_places", "", "1", "4"]


def test_provenance_is_not_believed() -> None:
    assert (
        origin({"network": {"name": "net", "spec": "x:net"}, "data": {"name": "broden", "images": 3}}).network == "net"
    )
    for odd in ({}, {"network": None, "data": 3}, {"network": {"name": 3}, "data": {"name": [], "images": "3"}}):
        found = origin(odd)
        assert (found.network, found.data, found.images) == ("", "", None)
    assert origin({"data": {"path": "/data/broden_mini"}}).data == "broden_mini"
    assert origin({"network": {"name": "a\x1b]0;b\n"}}).network == "a\ufffd]0;b\ufffd"


# --- runs -------------------------------------------------------------------------------------------------------------


def shown_run(target: Path, *, share: float | None = None, **changes: object) -> None:
    """Leave the run file of this process beside ``target``, as of ``share`` of its time (None: not known)."""
    with RunWriter(target, "nd dissect", [("conv1", 64), ("conv2", 128)]) as run:
        run.update("tally", 5, 10, step=2, steps=3)
        deadline = time.monotonic() + 20
        while (record := json.loads(run_file(target).read_bytes()))["phase"] != "tally":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    record["started"] = record["updated"] - 200 * (share or 0)
    record["eta"] = None if share is None else 200 * (1 - share)
    run_file(target).write_text(json.dumps({**record, **changes}))


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_runs_are_listed_before_their_store_is_there(put: Callable[..., Path], tmp_path: Path) -> None:
    put("old.nd.h5", 10)
    shown_run(tmp_path / "new.nd.h5", share=0.45)
    shown_run(tmp_path / "begun.nd.h5")
    shown_run(tmp_path / "killed.nd.h5", share=0.9, pid=ended_process())
    listing = stores_listing(tmp_path, None)
    found = cells_by_name(listing)
    assert found["new"] == ["new", "", "", "2", "192", "", "just now", "running 45 %"]
    assert (found["begun"][STATE], found["killed"][STATE]) == ("running", "stopped 90 %")
    assert found["old"][STATE] == ""
    assert [row["name"] for row in plain(listing)][-1] == "old.nd.h5"
    assert Item("store", name=str(tmp_path / "new.nd.h5")) in [listing.item(row) for row in range(listing.count)]


def test_what_a_run_has_published_names_its_network(tmp_path: Path) -> None:
    target = tmp_path / "new.nd.h5"
    with RunWriter(target, "nd dissect", [("x", 4)]) as run:
        run.update("tally", 5, 10, step=2, steps=3)
        run.publish(dissection(layers={"x": (4, (3, 3))}), 5)
        found = cells_by_name(stores_listing(tmp_path, target))
    assert set(found) == {"new"}
    assert found["new"][NETWORK:SIZE] == ["torchvision:resnet18", "", "1", "4"]
    assert found["new"][STATE] == "open"
    assert stores_listing(tmp_path, None).count == 0


def test_a_store_that_a_run_will_replace_is_listed_once(put: Callable[..., Path], tmp_path: Path) -> None:
    path = put("a.nd.h5")
    shown_run(path, share=0.25)
    found = stores_listing(tmp_path, None)
    assert [row["state"] for row in plain(found)] == ["running 25 %"]
    assert found.cells(0)[LAYERS:SIZE] == ["2", "10"]
    assert [row["state"] for row in plain(stores_listing(tmp_path, path))] == ["open 25 %"]
    shown_run(path, share=0.25, pid=ended_process())
    assert [row["state"] for row in plain(stores_listing(tmp_path, None))] == [None]


def test_the_run_that_is_watched_is_listed_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "a.nd.h5"
    shown_run(target, share=0.5)
    listing = stores_listing(tmp_path, target)
    assert [(row["path"], row["state"]) for row in plain(listing)] == [(str(target), "open 50 %")]


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_sorts_filters_copies_and_exports(put: Callable[..., Path], tmp_path: Path) -> None:
    for i, name in enumerate(("Beta", "alpha", "gamma")):
        put(f"{name}.nd.h5", i)
    os.truncate(tmp_path / "gamma.nd.h5", 100)
    os.utime(tmp_path / "gamma.nd.h5", (NOW, NOW - 9))
    listing = stores_listing(tmp_path, None, now=NOW)

    def names(rows: Any) -> list[str]:
        return [str(listing.cells(int(row))[NAME]) for row in rows]

    assert [column.title for column in listing.columns] == [
        "name", "network", "data", "layers", "units", "size", "modified", "state",
    ]  # fmt: skip
    assert names(listing.arrange()) == ["Beta", "alpha", "gamma"]
    for column, expected in ((NAME, ["alpha", "Beta", "gamma"]), (SIZE, ["gamma", "Beta", "alpha"])):
        assert names(listing.arrange(order=type(listing.order)(column))) == expected
    assert names(listing.arrange(parse("resnet !alp"))) == ["Beta"]
    assert names(listing.arrange(parse("unreadable"))) == ["gamma"]
    assert listing.copied(0) == str(tmp_path / "Beta.nd.h5")
    text = export(listing, listing.arrange(), tmp_path, tmp_path / "x.nd.h5").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "name,path,network,data,layers,units,bytes,modified,state,problem"
    assert "gamma.nd.h5" in text.splitlines()[3] and len(text.splitlines()) == 4


def test_a_folder_without_stores_says_what_to_do(tmp_path: Path) -> None:
    assert stores_listing(tmp_path, None).empty == f"no *.nd.h5 store in {tmp_path}; nd dissect makes one"
    assert stores_listing(tmp_path / "none", None).empty == f"there is no folder {tmp_path / 'none'}"


def test_names_that_no_terminal_should_obey_are_shown_harmless(put: Callable[..., Path], tmp_path: Path) -> None:
    path = put("a\x1b[2Jb.nd.h5")
    raw = tmp_path / os.fsdecode(b"\xff.nd.h5")
    try:
        shutil.copy(path, raw)
    except OSError:
        pytest.skip("the file system takes only names in UTF-8")
    os.truncate(raw, 0)
    listing = stores_listing(tmp_path, None, now=NOW)
    assert set(cells_by_name(listing)) == {"a\ufffd[2Jb", r"\xff"}
    assert {listing.item(row).name for row in range(2)} == {str(path), str(raw)}
    export(listing, listing.arrange(), tmp_path, tmp_path / "x.nd.h5")
    assert all("\x1b" not in note for note in listing.notes)
