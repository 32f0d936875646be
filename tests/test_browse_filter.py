"""The terminal UI by keyboard: rows are filtered while a filter is typed, and sorted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import Unit, Visit, units_in, words
from small_store import FIRST, MANY, OF_FIRST, number
from store_factory import dissection, write_small

from ndissect.tui.app.state import Bookmark


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("many") / "many.nd.h5", layers=MANY)


@pytest.fixture(scope="module")
def of_many() -> list[Unit]:
    return units_in(dissection(layers=MANY))


# Filter


FILTERS: list[tuple[str, Callable[[Unit], bool]]] = [
    ("blue", lambda u: u.label == "blue"),
    ("BLU", lambda u: u.label == "blue"),
    ("light traffic", lambda u: u.label == "traffic light"),
    ('"traffic light"', lambda u: u.label == "traffic light"),
    ('"light traffic"', lambda u: False),
    ("!blue", lambda u: u.label != "blue"),
    ("!blue !red", lambda u: u.label not in ("blue", "red")),
    ("cat:object", lambda u: u.category == "object"),
    ("cat:obj", lambda u: u.category == "object"),
    ("cat:object,scene", lambda u: u.category in ("object", "scene")),
    ("!cat:object", lambda u: u.category != "object"),
    ("iou>0.05", lambda u: u.iou > 0.05),
    ("iou<=0.05", lambda u: u.iou <= 0.05),
    ("iou>0.03 iou<0.05 cat:color", lambda u: 0.03 < u.iou < 0.05 and u.category == "color"),
    ("unit:10-20", lambda u: 10 <= u.unit <= 20),
    ("unit:7", lambda u: u.unit == 7),
    ("unit:7,20-22,39", lambda u: u.unit in (7, 20, 21, 22, 39)),
    ("dead", lambda u: u.dead),
    ("!dead", lambda u: not u.dead),
    ("detector", lambda u: u.iou > 0.04),
    ("layer:early unit:5", lambda u: u.unit == 5),
    ("threshold>1.2", lambda u: u.threshold > 1.2),
    ("街道", lambda u: u.label == "街道"),
    ("SEÑAL", lambda u: u.label.startswith("señal")),
]


def test_the_rows_that_pass_each_kind_of_filter_are_shown_and_counted(
    many: Path, of_many: list[Unit], tmp_path: Path
) -> None:
    with Visit(many, Bookmark("layers", 1, "early"), home=tmp_path, size=(80, 50)) as visit:
        for text, passes in FILTERS:
            visit.type(f"/{text}")
            expected = {u.unit for u in of_many if u.layer == "early" and passes(u)}
            assert {number(line) for line in visit.rows} == expected, text
            visit.press("enter")
            assert visit.info == f"/{text}"
            assert visit.position.split("/")[1] == f"{len(expected)} of 40", text
            visit.press("escape")
            assert visit.position.endswith("/40")


def test_all_layers_are_filtered_by_layer(many: Path, of_many: list[Unit], tmp_path: Path) -> None:
    with Visit(many, home=tmp_path, size=(80, 60)) as visit:
        visit.press("G", "enter")
        assert visit.crumbs == "many.nd.h5 › all layers"
        visit.type("/layer:ear* iou>0.05\n")
        expected = [u for u in of_many if u.layer == "early" and u.iou > 0.05]
        assert visit.position == f"1/{len(expected)} of 340"
        assert {words(line)[0] for line in visit.rows} == {"early"}
        assert {int(words(line)[1]) for line in visit.rows} == {u.unit for u in expected}


def test_a_filter_works_while_it_is_typed(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/w")
    assert [words(line)[1] for line in visit.rows] == ["wheel", "wheel"]
    assert visit.info == "/w"
    assert visit.position == "1/2 of 9"
    visit.type("o")
    assert visit.position == "0/0 of 9"
    assert "nothing passes the filter" in visit.text
    visit.press("backspace", "backspace")
    assert visit.position.endswith("/9")
    visit.type("r")
    assert visit.position == f"1/{sum('r' in u.label for u in OF_FIRST)} of 9"


def test_enter_keeps_a_filter_and_escape_drops_it(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel")
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert "/wheel" not in visit.text
    visit.type("/wheel\n")
    assert visit.info == "/wheel"
    assert visit.position == "1/2 of 9"
    visit.press("j")
    assert visit.position == "2/2 of 9"
    visit.press("/")
    assert visit.info == "/wheel"  # to be changed
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert words(visit.row)[1] == "wheel"  # where the cursor was


def test_letters_typed_into_a_filter_are_no_keys(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/q?snNcoye 12")
    assert visit.info == "/q?snNcoye 12"
    assert visit.app.is_running
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"


def test_the_filter_of_each_table_is_its_own_and_still_there_on_return(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    visit.press("enter")
    assert "wheel" in visit.crumbs
    assert "/" not in visit.position.partition(" ")[2]
    visit.press("h", "h", "j", "enter")
    assert visit.position == "1/6"
    visit.press("h", "k", "enter")
    assert visit.info == "/wheel"
    assert visit.position == "1/2 of 9"


MISTAKES = [
    ("iou>", 4, "number"),
    ("iou>x", 4, "number"),
    ("wheel iou>0.1x", 10, "number"),
    ("cat:", 0, "name"),
    ("cat:animal", 0, "animal"),
    ("blue !", 5, "!"),
    ("unit:x", 5, "numbers"),
    ("unit:9-2", 5, "before"),
    ("layre:layer4", 0, "layre"),
    ("iuo>0.1", 0, "iuo"),
    ("peak>1", 0, "peak"),
]


@pytest.mark.parametrize(("text", "at", "said"), MISTAKES, ids=[text for text, _, _ in MISTAKES])
def test_a_mistake_is_shown_in_place_and_the_rows_stay(visit: Visit, text: str, at: int, said: str) -> None:
    visit.press("enter")
    visit.press("/")
    for i, letter in enumerate(text):  # as far as it makes sense, rows change
        if i == len(text) - 1:
            before = visit.rows
        visit.type(letter)
    line = visit.lines[-1]
    assert line.index("^") == text_begins(visit) + at
    assert said in line
    if visit.lines[-1] == line and len(text.split()) == 1:
        assert visit.rows == before
    visit.press("enter")
    assert visit.lines[-1] == line  # not taken
    assert visit.info == f"/{text}"
    visit.press("escape")
    assert visit.position.endswith("/9")
    assert "^" not in visit.keys


def text_begins(visit: Visit) -> int:
    """The column at which the filter that is typed begins."""
    return visit.lines[-2].index("/") + 1


def test_a_mistake_that_is_mended_is_gone(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/iou>")
    assert "^" in visit.keys
    visit.type("0.07")
    assert "^" not in visit.keys
    assert visit.position == "1/2 of 9"


def test_n_goes_to_the_next_row_that_passes_the_last_filter_be_it_on_or_no_longer(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    for key, position in (("n", "2/2 of 9"), ("N", "1/2 of 9")):
        visit.press(key)
        assert visit.position == position
    visit.press("escape", "g")
    wheels = [i for i, u in enumerate(OF_FIRST, 1) if u.label == "wheel"]
    assert visit.position == "1/9"
    for expected in (*wheels, wheels[0]):
        visit.press("n")
        assert visit.position == f"{expected}/9"
    for expected in (wheels[-1], wheels[0], wheels[-1]):
        visit.press("N")
        assert visit.position == f"{expected}/9"


def test_n_where_no_row_passes_says_so(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/wheel\n")
    visit.press("escape", "2")
    visit.type("/zebra\n")
    visit.press("escape", "n")
    assert "no row passes zebra" in visit.notice


def test_n_in_a_unit_goes_to_the_next_unit_of_the_table_as_it_is_filtered_and_sorted(visit: Visit) -> None:
    visit.press("enter")
    visit.type("/cat:color\n")
    visit.press("enter")
    colours = [u for u in OF_FIRST if u.category == "color"]
    for unit in (*colours, colours[-1]):
        assert f"› {unit.unit} {unit.label} {unit.iou:.3f}" in visit.crumbs
        assert words(visit.rows[0])[0] == unit.label
        visit.press("n")
    visit.press("N")
    assert f"› {colours[-2].unit} " in visit.crumbs
    visit.press("h")
    assert number(visit.row) == colours[-2].unit


# Sort


def test_s_sorts_by_the_next_column_and_brackets_turn_it(many: Path, of_many: list[Unit], tmp_path: Path) -> None:
    units = [u for u in of_many if u.layer == "conv"]
    orders: dict[str, Callable[[Unit], object]] = {
        "unit": lambda u: u.unit,
        "label": lambda u: (u.label == "", u.label),
        "threshold": lambda u: u.threshold,
        "IoU": lambda u: u.iou,
        "images": lambda u: u.images,
    }
    with Visit(many, Bookmark("layers", 1, "conv"), home=tmp_path, size=(90, 310)) as visit:
        seen = set()
        for _ in range(8):
            title = next(t for t in visit.header.split() if t[-1] in "▲▼")
            name = next(
                c
                for c in ("unit", "label", "category", "threshold", "IoU", "images")
                if c[:4] == title[:4][: len(c)] or c.startswith(title[:-1])
            )
            seen.add(name)
            if name in orders:
                by_number = {u.unit: orders[name](u) for u in units}
                keys = [by_number[number(line)] for line in visit.rows]
                assert keys == sorted(keys, reverse=title[-1] == "▼"), name  # type: ignore[type-var]
                visit.press("]" if title[-1] == "▲" else "[")
                turned = [by_number[number(line)] for line in visit.rows]
                assert turned == sorted(keys, reverse=title[-1] == "▲"), name  # type: ignore[type-var]
            visit.press("s")
        assert seen == {"unit", "label", "category", "threshold", "IoU", "images"}


def test_the_cursor_stays_on_its_row_while_rows_are_sorted(visit: Visit) -> None:
    visit.press("enter", "j", "j")
    for key in ("[", "s", "s", "]", "s", "s"):
        visit.press(key)
        assert number(visit.row) == OF_FIRST[2].unit


def test_layers_and_concepts_are_sorted_too(visit: Visit) -> None:
    visit.press("s")
    counts = [int(words(line)[-1] if "all" in line else words(line)[1]) for line in visit.rows[1:]]
    assert counts == sorted(counts, reverse=True)
    visit.press("2", "[")
    lines = [line.split() for line in visit.rows]
    detectors = [0 if "-" in line[-6:-2] and "-" in line else 1 for line in lines]
    assert detectors == sorted(detectors)
