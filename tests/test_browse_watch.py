"""The terminal UI while the file changes below it: replaced, gone, or still being written by a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from browsing import Visit, units_in, words
from small_store import BEST, FIRST, MADE, OF_FIRST, number
from store_factory import dissection, write_small

from ndissect.store.live import RunWriter, run_file
from ndissect.store.writer import write_store

# What happens to the file


@pytest.fixture
def watched(store: Path) -> Iterator[Visit]:
    """A visit that looks at the file twenty times a second."""
    with mock.patch("ndissect.tui.app.app._WATCH", 0.05), Visit(store) as visit:
        yield visit


def test_r_reads_the_store_again_with_the_cursor_the_filter_and_the_order_kept(visit: Visit, store: Path) -> None:
    visit.press("space", "k", "enter", "j", "j")
    visit.type("/!blue\n")
    visit.press("[")
    before = visit.lines
    visit.press("r", "escape")
    assert visit.lines == before
    new = units_in(dissection(seed=7))
    write_small(store, seed=7)
    visit.press("r")
    assert "read again" in visit.notice
    visit.press("escape")
    assert number(visit.row) == OF_FIRST[2].unit
    assert visit.info == "/!blue"
    expected = sorted((u for u in new if u.layer == FIRST and u.label != "blue"), key=lambda u: u.iou)
    shown = {number(line): words(line) for line in visit.rows}
    assert shown == {u.unit: u.shown for u in expected}


def test_a_unit_page_shows_the_new_numbers_after_r(visit: Visit, store: Path) -> None:
    visit.press("enter", "enter")
    write_small(store, seed=7)
    visit.press("r", "escape")
    unit = next(u for u in units_in(dissection(seed=7)) if u.name == BEST.name)
    assert visit.crumbs == f"small.nd.h5 › {FIRST} › {unit.unit} {unit.label} {unit.iou:.3f}"
    assert f"{unit.iou:.4f}" in visit.rows[0]


#: To the second row of each table on the left, and of the tables that are opened from it.
PLACES = [
    *(("j", "enter", "j", "enter", "j")[:n] for n in (1, 3, 5)),  # a layer
    *(("2", "j", "enter", "j", "enter", "j")[:n] for n in (2, 4, 6)),  # a concept
    *(("3", "j", "enter", "j", "enter", "j")[:n] for n in (2, 4, 6)),  # a category
    *(("j", "3", "G", "enter", "G", "enter", "j")[:n] for n in (3, 5, 7)),  # a concept of a layer's summary
    ("4", "j"),
]


@pytest.mark.parametrize("keys", PLACES, ids="".join)
def test_r_leaves_the_reader_in_place(visit: Visit, store: Path, keys: tuple[str, ...]) -> None:
    write_small(store.with_name("other.nd.h5"))
    visit.press(*keys)
    before = visit.lines
    visit.press("r")
    assert "read again" in visit.notice
    visit.press("escape")
    assert visit.lines == before


def test_quitting_among_the_units_of_a_category_it_opens_there_again(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("j", "3", "enter", "j")
        before = visit.lines
        visit.press("q")
    with Visit(store) as visit:
        assert visit.lines == before


def test_a_store_that_is_replaced_is_noticed_and_read_on_demand(watched: Visit, store: Path) -> None:
    watched.press("enter", "j")
    rows = watched.rows
    write_small(store, seed=7)
    watched.wait(lambda: "small.nd.h5 was replaced: r reads the new one" in watched.notice)
    assert watched.rows[:8] == rows[:8]  # as long as the reader does not ask
    watched.press("enter")
    assert "top images" in watched.text
    watched.press("h", "r", "escape")
    assert words(watched.row) == next(u.shown for u in units_in(dissection(seed=7)) if u.name == OF_FIRST[1].name)


def test_a_store_that_is_deleted_is_noticed_and_can_still_be_read(watched: Visit, store: Path) -> None:
    store.unlink()
    watched.wait(lambda: "small.nd.h5 is gone from the disk" in watched.notice)
    watched.press("enter", "enter")
    assert "top images" in watched.text
    watched.press("r")
    assert "small.nd.h5" in watched.notice
    assert "top images" in watched.text
    watched.press("2", "3", "4", "1", "j", "enter")
    assert watched.position == "1/6"


def test_a_store_that_came_back_damaged_is_refused_and_the_old_one_stays(watched: Visit, store: Path) -> None:
    store.unlink()
    store.write_bytes(b"no store" * 100)
    watched.wait(lambda: "was replaced" in watched.notice)
    watched.press("r")
    assert "small.nd.h5" in watched.notice
    assert "replaced" not in watched.notice
    watched.press("enter", "enter")
    assert "top images" in watched.text


# A run that is still writing the store

LAYERS = tuple((layer.name, len(layer.best.iou)) for layer in MADE.layers)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run.nd.h5"


@pytest.fixture
def often() -> Iterator[None]:
    with mock.patch("ndissect.tui.app.app._WATCH", 0.05):
        yield


@pytest.mark.usefixtures("often")
def test_a_run_is_shown_from_its_start_to_its_end_without_losing_the_cursor(target: Path) -> None:
    half, more = dissection(seed=3), dissection(seed=4)
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("thresholds", 30, 120, rate=12.0, eta=200.0, step=2, steps=4)
        with Visit(target) as visit:
            visit.wait(lambda: "25% of thresholds (2/4)" in visit.lines[1])
            for said in ("12 images/s", "3 min left", "no counts yet"):
                assert said in visit.lines[1]
            assert [words(line) for line in visit.rows] == [[name, str(units)] for name, units in LAYERS]
            for key, said in (
                ("enter", "enter: "),
                ("2", "2: the run has counted nothing yet"),
                ("3", "3: "),
                ("o", "o: "),
            ):
                visit.press(key)
                assert said in visit.notice
            visit.press("j")

            run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
            run.publish(half, 60)
            visit.wait(lambda: "counts of 60 images so far" in visit.lines[1])
            assert "50% of tally (4/4)  55 images/s  27 s left" in visit.lines[1]
            visit.press("g", "enter", "j", "j")
            units = sorted((u for u in units_in(half) if u.layer == FIRST), key=lambda u: -u.iou)
            assert [words(line) for line in visit.rows] == [u.shown for u in units]
            here = units[2]

            run.publish(more, 90)
            visit.wait(lambda: "counts of 90 images so far" in visit.lines[1])
            units = sorted((u for u in units_in(more) if u.layer == FIRST), key=lambda u: -u.iou)
            visit.wait(lambda: [words(line) for line in visit.rows] == [u.shown for u in units])
            assert number(visit.row) == here.unit
            assert visit.crumbs == f"run.nd.h5 › {FIRST}"

            write_store(target, MADE)
            run.__exit__(None, None, None)
            visit.wait(lambda: "the run has ended: this is its store" in visit.notice)
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]
            assert number(visit.row) == here.unit
            visit.wait(lambda: "images/s" not in visit.text)
            visit.press("q")
        with Visit(target) as visit:
            assert number(visit.row) == here.unit


def test_marks_cannot_be_compared_before_the_run_has_counted_anything(target: Path) -> None:
    for name in ("a.nd.h5", "b.nd.h5"):
        write_small(target.with_name(name))
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("thresholds", 30, 120, rate=12.0, eta=200.0, step=2, steps=4)
        with Visit(target) as visit:
            for keys in (("space", "space"), ("4", "G", "space", "k", "space")):
                visit.press(*keys, "c")
                assert visit.notice == "c: the run has counted nothing yet"
                visit.press("escape")
            assert visit.crumbs == "run.nd.h5 › stores"


@pytest.mark.usefixtures("often")
def test_a_filter_that_is_typed_goes_on_while_a_run_is_refreshed(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(dissection(seed=3), 60)
        with Visit(target) as visit:
            visit.press("enter")
            visit.type("/cat:obj")
            run.publish(MADE, 90)
            expected = [u.shown for u in OF_FIRST if u.category == "object"]
            visit.wait(lambda: [words(line) for line in visit.rows] == expected)
            assert visit.info == "/cat:obj"
            visit.type("ect\n")
            assert visit.info == "/cat:object"
            assert visit.position.endswith(f"/{len(expected)} of 9")


ELSEWHERE = [("3", "enter", "j"), ("3", "enter", "enter"), ("2", "enter", "j"), ("4",)]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("keys", ELSEWHERE, ids="".join)
def test_a_run_that_is_refreshed_leaves_the_reader_in_place(target: Path, keys: tuple[str, ...]) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.press(*keys)
            before = visit.crumbs, words(visit.row)[:3]
            run.publish(MADE, 90)
            visit.wait(lambda: "counts of 90 images so far" in visit.lines[1])
            visit.rest()
            assert (visit.crumbs, words(visit.row)[:3]) == before


@pytest.mark.usefixtures("often")
def test_the_help_stays_while_a_run_is_refreshed(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(dissection(seed=3), 60)
        with Visit(target) as visit:
            visit.press("enter", "?", "j", "j")
            before = visit.rows, visit.row
            run.publish(MADE, 90)
            visit.wait(lambda: "counts of 90 images" in visit.text)
            visit.rest()
            assert visit.crumbs == "run.nd.h5 › help"
            assert (visit.rows, visit.row) == before
            visit.press("escape")
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]


@pytest.mark.usefixtures("often")
def test_a_run_that_was_killed_says_so_and_what_it_counted_can_be_read(target: Path) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.wait(lambda: "50%" in visit.lines[1])
            run._ended.set()
            run._wake.set()
            run._thread.join()
            record = json.loads(run_file(target).read_text())
            run_file(target).write_text(json.dumps({**record, "pid": 2**22 + 1}))
            visit.wait(lambda: "the run stopped at 50% of tally" in visit.lines[1])
            visit.press("enter")
            assert [words(line) for line in visit.rows] == [u.shown for u in OF_FIRST]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("published", [False, True])
def test_a_run_that_ends_without_a_store_is_told(target: Path, published: bool) -> None:
    with RunWriter(target, "nd dissect", LAYERS) as run:
        run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
        if published:
            run.publish(MADE, 60)
        with Visit(target) as visit:
            visit.wait(lambda: "50%" in visit.lines[1])
            run.__exit__(None, None, None)
            visit.wait(lambda: "run.nd.h5" in visit.notice)
            assert "50%" not in visit.lines[1]
            visit.press("j", "enter", "r", "2", "3", "4", "1")
            assert visit.app.is_running


@pytest.mark.usefixtures("often")
def test_a_store_that_a_run_will_replace_says_so(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("enter", "j")
        with RunWriter(store, "nd dissect", LAYERS) as run:
            run.update("tally", 60, 120, rate=55.0, eta=27.0, step=4, steps=4)
            visit.wait(lambda: "this store will be replaced" in visit.lines[1])
            write_small(store, seed=7)
        visit.wait(lambda: "was replaced" in visit.notice)
        assert "50%" not in visit.text
