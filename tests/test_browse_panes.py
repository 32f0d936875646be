"""The terminal UI: where it opens, in how many panes, and what the mouse does there."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import Visit, words
from small_store import BEST, FIRST, OF_FIRST, SECOND, UNITS, number
from store_factory import write_small

from ndissect.store.errors import NDError
from ndissect.tui.app.start import bookmark_named

# Where it opens


def test_it_opens_where_the_reader_was_in_that_store(store: Path) -> None:
    other = write_small(store.with_name("other.nd.h5"), layers={"only": (7, (3, 3))})
    with Visit(store) as visit:
        visit.press("j", "enter", "j", "j", "enter")
        there = visit.crumbs
        visit.press("q")
    with Visit(other) as visit:
        assert visit.crumbs == "other.nd.h5 › layers"
        visit.press("2", "j", "j", "q")
    with Visit(store) as visit:
        assert visit.crumbs == there
        visit.press("h")
        assert visit.position == "3/6"
        visit.press("h")
        assert visit.position == "2/3"
    with Visit(other) as visit:
        assert visit.crumbs == "other.nd.h5 › concepts"
        assert visit.position == "3/9"


def test_the_place_is_written_at_the_end_and_not_at_every_key(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("j", "enter", "2", "3", "1", "enter", "j", "4")
        assert not list(store.parent.glob("state/**/*.json"))
        visit.press("r", "q")  # from among the stores
    assert len(list(store.parent.glob("state/**/*.json"))) == 1
    with Visit(store) as visit:
        assert visit.crumbs == f"small.nd.h5 › {SECOND}"
        assert visit.position == "2/6"


def test_a_place_that_the_store_no_longer_has_is_left(store: Path) -> None:
    with Visit(store, bookmark_named(store, f"{FIRST}:8")) as visit:
        visit.press("q")
    write_small(store, layers={FIRST: (3, (3, 3))})
    with Visit(store) as visit:
        assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    write_small(store, layers={"other": (3, (3, 3))})
    with Visit(store) as visit:
        assert visit.crumbs == "small.nd.h5 › layers"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"PATH": 3}', '{"PATH": {"root": "nowhere"}}', '{"PATH": {"depth": 9}}']
)
def test_a_damaged_memory_of_places_is_no_obstacle(store: Path, text: str) -> None:
    with Visit(store) as visit:
        visit.press("q")
    bookmarks = next(p for p in store.parent.glob("state/**/*") if p.is_file())
    bookmarks.write_text(text.replace("PATH", str(store)))
    with Visit(store) as visit:
        assert visit.crumbs.startswith("small.nd.h5 › ")
        visit.press("1", "g", "j", "enter")
        assert visit.position == "1/6"


def test_it_opens_at_the_layer_or_unit_that_is_named(store: Path) -> None:
    with Visit(store, bookmark_named(store, SECOND)) as visit:
        assert visit.crumbs == f"small.nd.h5 › {SECOND}"
        visit.press("h")
        assert visit.position == "2/3"
    with Visit(store, bookmark_named(store, f"{FIRST}:7")) as visit:
        assert visit.crumbs.startswith(f"small.nd.h5 › {FIRST} › 7 ")
        visit.press("h")
        assert number(visit.row) == 7
    for name in ("nosuch", "features.0:9", "features.0:x", "features.0:", ":3", "features.0:-1"):
        with pytest.raises(NDError) as error:
            bookmark_named(store, name)
        assert error.value.hint, name


# Panes


@pytest.mark.parametrize(
    ("columns", "panes"),
    [
        *((columns, ["root"]) for columns in (40, 80, 119)),
        *((columns, ["root", "units"]) for columns in (120, 159)),
        *((columns, ["root", "units", "unit"]) for columns in (160, 240)),
    ],
)
def test_panes_side_by_side(store: Path, columns: int, panes: list[str]) -> None:
    with Visit(store, size=(columns, 24)) as visit:
        visit.rest()
        assert visit.panes == panes
        assert FIRST in visit.lines[2]
        if len(panes) > 1:
            assert words(visit.rows_of(visit.app.query_one("#units"))[0])[:2] == BEST.shown[:2]
        if len(panes) > 2:
            assert "top images" in visit.text
        visit.press("enter", "enter")
        visit.rest()
        assert visit.panes == {1: ["unit"], 2: ["units", "unit"], 3: ["root", "units", "unit"]}[len(panes)]
        assert "top images" in visit.text


def test_the_tables_on_the_right_follow_the_cursor(store: Path) -> None:
    with Visit(store, size=(160, 24)) as visit:
        visit.press("j")
        visit.wait(lambda: len(visit.rows_of(visit.app.query_one("#units"))) == 6)
        visit.press("enter", "j", "j")
        unit = sorted((u for u in UNITS if u.layer == SECOND), key=lambda u: -u.iou)[2]
        visit.wait(lambda: unit.label in visit.rows_of(visit.app.query_one("#unit"))[0])
        assert f"{unit.iou:.4f}" in visit.rows_of(visit.app.query_one("#unit"))[0]


def test_the_pane_that_looks_as_if_it_had_the_keys_has_them(store: Path) -> None:
    def looks_active() -> list[str | None]:
        """The panes that draw a cursor in reverse."""
        ids = []
        for table in visit.app.query("Table"):
            strip = table.render_line(1) if table.display else None
            if strip and any(segment.style and segment.style.reverse for segment in strip):
                ids.append(table.id)
        return ids

    with Visit(store, size=(160, 24)) as visit:
        for keys in ((), ("enter",), ("enter",), ("tab",), ("tab",), ("h",), ("shift+tab",)):
            visit.press(*keys)
            visit.rest()
            assert looks_active() == [visit.app.table.id], keys


def test_the_terminal_is_resized_at_any_time(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("enter", "j", "enter")
        crumbs = visit.crumbs
        for columns, lines in ((160, 50), (120, 10), (30, 8), (20, 5), (200, 60), (80, 24)):
            visit.resize(columns, lines)
            visit.rest()
            assert visit.lines[0].startswith(crumbs[:10])
            assert len(visit.panes) == (1 if columns < 120 else 2 if columns < 160 else 3)
            assert visit.panes[-1] == "unit"
        assert visit.crumbs == crumbs
        visit.press("?")
        visit.resize(160, 30)
        assert visit.crumbs.endswith("help")
        visit.press("escape", "/", "x")
        visit.resize(80, 24)
        assert visit.info == "/x"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 2), (10, 4), (500, 3)])
def test_a_very_small_terminal_is_no_reason_to_stop(store: Path, size: tuple[int, int]) -> None:
    with Visit(store, size=size) as visit:
        visit.press("enter", "j", "enter", "?", "escape", "/", "a", "escape", "2", "3", "4", "c")
        visit.resize(80, 24)
        visit.press("1")
        assert visit.crumbs == "small.nd.h5 › layers"


@pytest.mark.parametrize("keys", [("3",), ("?",), ("?", "j", "k"), ("enter", "enter"), ("enter", "enter", "G", "g")])
def test_a_terminal_with_room_for_one_row_shows_that_of_the_cursor(store: Path, keys: tuple[str, ...]) -> None:
    with Visit(store, size=(40, 5)) as visit:
        visit.press(*keys)
        assert len(visit.rows) == 1
        assert visit.row.startswith("›")


# The mouse


def test_a_click_moves_the_cursor_two_open_and_the_header_sorts(visit: Visit) -> None:
    visit.click(10, 3)
    assert visit.position == "2/3"
    assert visit.crumbs == "small.nd.h5 › layers"
    visit.click(10, 2, times=2)
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    visit.click(visit.header.index("threshold") + 2, 1)
    thresholds = [float(words(line)[-2 if u.images else -1]) for line, u in zip(visit.rows, OF_FIRST, strict=True)][:-1]
    assert thresholds == sorted(thresholds, reverse=True)
    first = visit.rows[0]
    visit.click(visit.header.index("thresh") + 2, 1)
    assert visit.rows[0] != first


def test_a_click_into_another_pane_takes_the_keys_there(store: Path) -> None:
    with Visit(store, size=(160, 24)) as visit:
        visit.rest()
        column = visit.app.query_one("#units").region.x + 10
        visit.click(column, 4)
        assert visit.crumbs == f"small.nd.h5 › {FIRST}"
        assert visit.position == "3/9"
        visit.press("k")
        assert visit.position == "2/9"
