"""What is seen of a store on disk and of the run that writes it, and what is read of an open one."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listed import (
    CATEGORY,
    FIRST,
    IMAGES_OF,
    LABELS,
    REPORT,
    SECOND,
    all_cells,
    all_plain,
    opened,
    written,
)
from rich.cells import cell_len
from store_factory import IMAGES

from ndissect.store.errors import NDError
from ndissect.store.live import Run
from ndissect.store.reader import Store
from ndissect.store.table2017 import read_table, write_table
from ndissect.store.writer import write_store
from ndissect.tui.app.listing import Item
from ndissect.tui.app.session import Session
from ndissect.tui.app.units import layer_units
from ndissect.tui.app.watch import files_on_disk, open_session, progress, rough_duration, waiting_listing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("listings"))


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    yield from opened(folder / "a.nd.h5")


@pytest.fixture(scope="module")
def imported(folder: Path, session: Session) -> Iterator[Session]:
    """The first layer as a published table, which knows only the best concept of each category, imported again."""
    with (folder / "t.csv").open("w", encoding="utf-8") as out:
        write_table(session.view(FIRST), out)
    write_store(folder / "t.nd.h5", read_table(folder / "t.csv", FIRST))
    yield from opened(folder / "t.nd.h5")


# The file and the run that writes it


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
    assert rough_duration(seconds) == said


def test_the_layers_of_a_run_that_has_counted_nothing() -> None:
    listing = waiting_listing(run(layers=(("layer3", 256), ("layer4", 512))))
    assert [list(cells) for cells in all_cells(listing)] == [["layer3", "256"], ["layer4", "512"]]
    assert [list(cells) for cells in all_cells(listing, text="layer4")] == [["layer4", "512"]]
    assert [listing.item(row) for row in range(2)] == [Item("layer", "layer3"), Item("layer", "layer4")]
    assert all_plain(listing) == [{"layer": "layer3", "units": 256}, {"layer": "layer4", "units": 512}]
    assert waiting_listing(run(layers=())).empty == "the run has not chosen its layers yet"


def test_what_lies_on_disk_is_seen(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    assert files_on_disk(path) == replace(files_on_disk(path), store=None, run=None, partial=None)
    with pytest.raises(NDError):
        open_session(path, files_on_disk(path))
    path.write_bytes((folder / "a.nd.h5").read_bytes())
    first = files_on_disk(path)
    assert first == files_on_disk(path)
    session = open_session(path, first)
    assert session is not None
    assert session.path == session.target == path
    session.close()
    other = tmp_path / "b"
    other.write_bytes((folder / "a.nd.h5").read_bytes())
    other.replace(path)
    assert files_on_disk(path) != first  # the same bytes, another file
    path.unlink()
    assert files_on_disk(path).store is None


# An open store


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
