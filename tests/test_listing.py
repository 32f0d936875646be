"""Tables as plain data: rows filtered and sorted, columns fitted to a width, bars and cut texts to the cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ndissect.store.text import clean_text
from ndissect.tui.app.listing import NOTHING, Column, Item, Listing, Order, Stack
from ndissect.tui.app.query import Fields, Mistake, parse, texts
from ndissect.tui.app.table import fit, letters
from ndissect.tui.pictures.glyphs import ASCII, UNICODE, Glyphs


def listing(keys: list[Any], labels: list[str] | None = None, **more: Any) -> Listing:
    """A table of a name and a number; the rows are units."""
    labels = labels or [f"row {i}" for i in range(len(keys))]
    return Listing(
        name="units",
        subject="a",
        columns=(
            Column("label", 10, sort=lambda: np.array(labels, dtype=str)),
            Column("IoU", 5, sort=lambda: np.array(keys)),
            Column("bar", 5),
        ),
        count=len(keys),
        cells=lambda row: [labels[row], str(keys[row]), ""],
        item=lambda row: Item("unit", "a", row),
        plain=lambda row: {"label": labels[row]},
        copied=lambda row: labels[row],
        fields=lambda: Fields((texts(labels),), {"iou": np.array(keys, float)}),
        **more,
    )


# --- sorting --------------------------------------------------------------------------------------------------------


def sorted_rows(keys: list[Any], descending: bool) -> list[int]:
    """Rows by key, equals as they come, what is no number last: one row after the other."""
    found: list[int] = []
    known = [i for i, key in enumerate(keys) if not (isinstance(key, float) and math.isnan(key))]
    for i in known:
        at = len(found)
        while at and (keys[found[at - 1]] < keys[i] if descending else keys[found[at - 1]] > keys[i]):
            at -= 1
        found.insert(at, i)
    return found + [i for i in range(len(keys)) if i not in known]


FEW_VALUES = st.sampled_from([0.0, -0.0, 0.04, 0.5, -1.0, math.nan, math.inf, -math.inf])


@settings(max_examples=200, deadline=None)
@given(keys=st.one_of(st.lists(FEW_VALUES, max_size=12), st.lists(st.floats(), max_size=12)), descending=st.booleans())
@example(keys=[math.nan, math.inf, 1.0], descending=False)
@example(keys=[math.nan, -math.inf, 1.0], descending=True)
def test_numbers_are_sorted_and_those_that_are_not_known_come_last_both_ways(
    keys: list[float], descending: bool
) -> None:
    table = listing(keys)
    rows = table.arrange(order=Order(1, descending))
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted_rows(keys, descending)


@settings(max_examples=100, deadline=None)
@given(
    keys=st.one_of(
        st.lists(st.integers(-3, 3), min_size=1, max_size=12),
        st.lists(st.booleans(), min_size=1, max_size=12),
        st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=12),
    ),
    descending=st.booleans(),
)
def test_rows_of_equal_value_stay_in_their_order_both_ways(keys: list[int], descending: bool) -> None:
    assert listing(keys).arrange(order=Order(1, descending)).tolist() == sorted_rows(keys, descending)


def test_texts_are_sorted_too() -> None:
    table = listing([1, 2, 3, 4], ["car", "街道", "bus", "car"])
    assert table.arrange(order=Order(0)).tolist() == [2, 0, 3, 1]
    assert table.arrange(order=Order(0, True)).tolist() == [1, 0, 3, 2]


def test_without_an_order_rows_come_as_they_are_or_as_the_listing_says() -> None:
    assert listing([3, 1, 2]).arrange().tolist() == [0, 1, 2]
    assert listing([3, 1, 2], order=Order(1)).arrange().tolist() == [1, 2, 0]
    assert listing([3, 1, 2], order=Order(1)).arrange(order=Order()).tolist() == [0, 1, 2]
    assert listing([3, 1, 2]).arrange(order=Order(2)).tolist() == [0, 1, 2]  # no column to sort by
    assert listing([]).arrange(order=Order(1, True)).tolist() == []
    assert listing([3, 1, 2]).sortable == (0, 1)


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(FEW_VALUES, max_size=12), descending=st.booleans(), least=FEW_VALUES)
def test_what_is_filtered_comes_in_the_order_of_the_whole(keys: list[float], descending: bool, least: float) -> None:
    table = listing(keys)
    rows = table.arrange(parse(f"iou>={least}"), Order(1, descending)).tolist()
    assert rows == [row for row in sorted_rows(keys, descending) if keys[row] >= least]


# --- marked, headings -----------------------------------------------------------------------------------------------


def test_marked_rows_are_found_by_what_they_stand_for() -> None:
    table = listing([3, 1, 2, 0])
    marks = {Item("unit", "a", 1), Item("unit", "a", 2), Item("unit", "b", 3), Item("layer", "a")}
    assert table.arrange(parse("marked"), Order(), marks.__contains__).tolist() == [1, 2]
    assert table.arrange(parse("!marked"), Order(1), marks.__contains__).tolist() == [3, 0]
    assert table.arrange(parse("marked iou>1"), Order(), marks.__contains__).tolist() == [2]
    assert table.arrange(parse("marked")).tolist() == []


def test_marks_are_looked_at_again_each_time() -> None:
    table, marks = listing([1, 2]), [Item("unit", "a", 0)]
    assert table.arrange(parse("marked"), None, marks.__contains__).tolist() == [0]
    marks[:] = [Item("unit", "a", 1)]
    assert table.arrange(parse("marked"), None, marks.__contains__).tolist() == [1]


def test_a_row_is_found_by_what_it_stands_for() -> None:
    table = listing([1, 2, 3])
    assert table.find(Item("unit", "a", 2)) == 2
    assert table.find(Item("unit", "b", 2)) is None
    assert table.find(NOTHING) is None


@settings(max_examples=200, deadline=None)
@given(kinds=st.lists(st.sampled_from(["heading", "a", "b"]), max_size=12), term=st.sampled_from(["a", "!a", "b", "z"]))
def test_a_heading_stays_as_long_as_a_row_below_it_does(kinds: list[str], term: str) -> None:
    headings = frozenset(i for i, kind in enumerate(kinds) if kind == "heading")
    table = listing([0] * len(kinds), kinds, headings=headings)
    expected, pending = [], []
    for row, kind in enumerate(kinds):
        if kind == "heading":
            pending = [row]
        elif (kind == term[-1]) != term.startswith("!"):
            expected += [*pending, row]
            pending = []
    assert table.arrange(parse(term)).tolist() == expected
    assert table.arrange().tolist() == list(range(len(kinds)))


def test_a_table_with_headings_has_one_order() -> None:
    table = listing([3, 1, 2], headings=frozenset({0}), order=Order(1))
    assert table.sortable == ()
    assert table.arrange(order=Order(1)).tolist() == [0, 1, 2]
    assert table.arrange(order=Order(1, True)).tolist() == [0, 1, 2]


def test_a_heading_is_never_marked_or_found_for_its_own_text() -> None:
    table = listing([0, 0], ["objects", "car"], headings=frozenset({0}))
    assert table.arrange(parse("objects")).tolist() == []
    assert table.arrange(parse("car")).tolist() == [0, 1]


def test_a_filter_that_does_not_fit_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="whether a row is dead is not known here"):
        listing([1]).arrange(parse("dead"))


def test_fields_are_made_once_and_only_for_a_filter() -> None:
    made = []

    def make() -> Fields:
        made.append(1)
        return Fields((texts(["a"]),))

    table = Listing("units", "", (), 1, lambda _: [], lambda _: NOTHING, lambda _: {}, str, make)
    table.arrange()
    assert not made
    for _ in range(3):
        assert table.arrange(parse("a")).tolist() == [0]
    assert made == [1]


# --- columns in a width ---------------------------------------------------------------------------------------------


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    count = draw(st.integers(1, 7))
    grows, bar = (draw(st.integers(0, 2 * count)) for _ in range(2))
    drops = draw(st.permutations(range(1, count + 1)))
    return tuple(
        Column(
            "x",
            draw(st.integers(1, 20)),
            grows=i == grows,
            most=draw(st.integers(0, 60)),
            drop=draw(st.sampled_from([0, drops[i]])),
            bar=i == bar and i != grows,
        )
        for i in range(count)
    )


@settings(max_examples=400, deadline=None)
@given(columns=columns(), room=st.integers(0, 150))
def test_columns_are_fitted(columns: tuple[Column, ...], room: int) -> None:
    def needed(shown: list[int]) -> int:
        return sum(columns[i].width for i in shown) + len(shown) - 1

    found = fit(columns, room)
    shown, widths = [i for i, _ in found], dict(found)
    taken = sum(widths.values()) + len(shown) - 1
    assert shown == sorted(shown)
    assert all(width >= 1 for width in widths.values())
    # Which: all but those to drop first, and no more of them than must be.
    left_out = sorted((i for i in range(len(columns)) if i not in shown), key=lambda i: -columns[i].drop)
    droppable = sorted((i for i in range(len(columns)) if columns[i].drop), key=lambda i: -columns[i].drop)
    assert left_out == droppable[: len(left_out)]
    if left_out:
        assert needed([*shown, left_out[-1]]) > room
    assert needed(shown) <= room or len(left_out) == len(droppable)
    # How wide: no column less than it needs, the rest to the one that grows, and then to the bar.
    growing = [i for i in shown if columns[i].grows]
    bars = [i for i in shown if columns[i].bar]
    assert all(widths[i] == columns[i].width for i in shown if i not in growing + bars)
    if needed(shown) <= room:
        assert taken <= room
        assert all(widths[i] >= columns[i].width for i in shown)
        for i in growing:
            assert widths[i] <= max(columns[i].most, columns[i].width)
            assert taken == room or widths[i] == max(columns[i].most, columns[i].width)
        if bars:
            assert taken == room
            assert (
                widths[bars[0]] == columns[bars[0]].width
                or not growing
                or widths[growing[0]] >= columns[growing[0]].most
            )
    else:
        assert all(widths[i] == columns[i].width for i in bars)
        assert not growing or taken == room or widths[growing[0]] == 1


def test_columns_of_a_table_of_80_cells() -> None:
    table = (Column("label", 10, grows=True, most=20), Column("cat", 8, drop=2), Column("bar", 6, bar=True, drop=1))
    assert fit(table, 40) == [(0, 20), (1, 8), (2, 10)]
    assert fit(table, 26) == [(0, 10), (1, 8), (2, 6)]
    assert fit(table, 25) == [(0, 18), (2, 6)]
    assert fit(table, 16) == [(0, 16)]
    assert fit(table, 4) == [(0, 4)]


# --- bars of letters ------------------------------------------------------------------------------------------------

PARTS = st.lists(st.tuples(st.sampled_from("ospmtc"), st.integers(0, 50)), max_size=6, unique_by=lambda part: part[0])


@settings(max_examples=200, deadline=None)
@given(parts=PARTS, more=st.integers(0, 50), room=st.integers(1, 60))
def test_every_letter_of_a_bar_ends_within_half_a_cell_of_its_share(
    parts: list[tuple[str, int]], more: int, room: int
) -> None:
    full = sum(size for _, size in parts) + more
    text = letters(Stack(tuple(parts), full), room)
    assert cell_len(text) == room
    assert text.rstrip() == "".join(sorted(text.rstrip(), key=[letter for letter, _ in parts].index))
    total = 0
    for i, (_, size) in enumerate(parts):
        total += size
        ends = sum(text.count(letter) for letter, _ in parts[: i + 1])
        assert abs(ends - total * room / max(full, 1)) <= 0.5


def test_a_full_bar_fills_its_column_and_an_empty_one_is_blank() -> None:
    assert letters(Stack((("o", 1), ("s", 1)), 2), 8) == "oooossss"
    assert letters(Stack((("o", 1), ("s", 0)), 4), 8) == "oo      "
    assert letters(Stack((("o", 0),), 0), 3) == "   "
    assert letters(Stack((), 0), 3) == "   "


# --- bars -----------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    share=st.one_of(st.floats(-1, 2), st.floats()), width=st.integers(1, 60), glyphs=st.sampled_from([UNICODE, ASCII])
)
def test_a_bar_is_as_long_as_its_share_to_the_next_piece(share: float, width: int, glyphs: Glyphs) -> None:
    pieces = len(glyphs.eighths)
    text = glyphs.bar(share, width)
    assert len(text) == cell_len(text) <= width
    assert set(text) <= set(glyphs.eighths)
    assert set(text[:-1]) <= {glyphs.eighths[-1]}
    drawn = sum((glyphs.eighths.index(c) + 1) / pieces for c in text)
    wanted = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0) * width
    if pieces > 1 and 0 < wanted < 1 / pieces:
        assert drawn == 1 / pieces  # whatever is above 0 can be seen
    else:
        assert abs(drawn - wanted) <= 0.5 / pieces + 1e-9


def test_bars_to_the_eighth_of_a_cell() -> None:
    drawn = {
        0.0: "",
        1e-9: "▏",
        0.25: "█",
        0.5: "██",
        0.53125: "██▏",
        0.78125: "███▏",
        1.0: "████",
        7.0: "████",
        -1.0: "",
    }
    assert {share: UNICODE.bar(share, 4) for share in drawn} == drawn
    assert UNICODE.bar(math.nan, 4) == ""
    assert UNICODE.bar(math.inf, 4) == "████"
    assert [ASCII.bar(share, 4) for share in (0.0, 0.13, 0.5, 1.0)] == ["", "#", "##", "####"]


# --- texts in a width -----------------------------------------------------------------------------------------------

# What takes one cell or two in any script: a letter with what is set above and below it, a picture joined from several.
SHOWN = [
    "a",
    " ",
    "é",
    "e\u0301",
    "街",
    "한",
    "ไ",
    "กิ",
    "क्षि",
    "ي\u064e",
    "👩",
    "👨\u200d👩\u200d👧",
    "❤\ufe0f",
    "🇩🇪",
    ".",
]
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")), max_size=40),
    st.lists(st.sampled_from(SHOWN), max_size=30).map("".join),
)


@settings(max_examples=500, deadline=None)
@given(text=TEXT, width=st.integers(1, 40), glyphs=st.sampled_from([UNICODE, ASCII]))
@example(text="街道" * 20, width=11, glyphs=UNICODE)
@example(text="e\u0301" * 30, width=10, glyphs=UNICODE)
@example(text="👨\u200d👩\u200d👧" * 9, width=9, glyphs=ASCII)
@example(text="🇩🇪" * 9, width=10, glyphs=UNICODE)
def test_a_text_takes_exactly_its_cells(text: str, width: int, glyphs: Glyphs) -> None:
    cut, shown = glyphs.cut(text, width), clean_text(text)
    assert cell_len(cut) == width
    if cell_len(shown) <= width:
        assert cut == shown + " " * (width - cell_len(shown))


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("abc街道"), min_size=30, max_size=40), width=st.integers(8, 29))
def test_a_text_that_is_too_long_keeps_its_beginning_and_its_end(text: str, width: int) -> None:
    for glyphs in (UNICODE, ASCII):
        beginning, ellipsis, end = glyphs.cut(text, width).partition(glyphs.ellipsis)
        assert ellipsis
        assert text.startswith(beginning.rstrip(" "))
        assert text.endswith(end)
        assert cell_len(end) >= 1
        assert cell_len(beginning) > cell_len(end)


def test_layers_that_differ_at_the_end_can_be_told_apart() -> None:
    names = [f"backbone.features.denseblock{i}.denselayer{i}.conv{j}" for i in range(3) for j in range(3)]
    assert UNICODE.cut(names[4], 30) == "backbone.features.de…er1.conv1"
    assert len({UNICODE.cut(name, 30) for name in names}) == len(names)
    assert ASCII.cut("a" * 10 + "b" * 10, 12) == "aaaaaaa..bbb"
    assert UNICODE.cut("a" * 10 + "b" * 10, 13) == "aaaaaaaa…bbbb"
    assert UNICODE.cut("abcdefgh", 4) == "abcd"
    assert UNICODE.cut("abc", 0) == ""
    assert ASCII.eighths.isascii()
    assert "".join((ASCII.cursor, ASCII.mark, ASCII.rising, ASCII.falling, ASCII.ellipsis, ASCII.crumb)).isascii()


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_every_mark_takes_one_cell(glyphs: Glyphs) -> None:
    for mark in (*glyphs.eighths, glyphs.cursor, glyphs.mark, glyphs.rising, glyphs.falling):
        assert cell_len(mark) == len(mark) == 1
