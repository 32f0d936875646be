"""The filter language: which rows a filter lets pass, and where a filter that makes no sense is marked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.tui.app.query import CHOICES, EVERYTHING, FLAGS, NUMBERS, Fields, Mistake, Query, parse, texts
from ndissect.tui.tables.units import Texts


@dataclass(frozen=True)
class Row:
    """A unit, as a table of units would list it."""

    label: str
    cat: str
    layer: str
    unit: int
    iou: float
    threshold: float = 1.0
    dead: bool = False

    @property
    def detector(self) -> bool:
        return self.iou > 0.04


ROWS = (
    Row("street", "scene", "layer3", 0, 0.10),
    Row("Street Sign", "object", "layer3", 7, 0.35),
    Row("car", "object", "layer4", 7, 0.20, threshold=math.nan),
    Row("traffic light", "object", "layer4", 100, 0.041),
    Row("señal de tráfico", "object", "layer4", 150, 0.04),
    Row("街道", "scene", "layer4", 200, 0.5),
    Row("wheel", "part", "layer40", 201, 0.039, threshold=-2.5),
    Row('a "quoted" name', "material", "features.0", 300, 0.001),
    Row("c++ > c", "texture", "features.10", 301, 0.0001, threshold=math.inf),
    Row("", "", "features.1", 302, 0.0, dead=True),
)


def fields(rows: tuple[Row, ...] = ROWS) -> Fields:
    """The rows as a listing offers them: texts that several rows share are kept once."""

    def shared(values: list[str]) -> Texts:
        strings = tuple(dict.fromkeys(values))
        return Texts(strings, np.array([strings.index(v) for v in values], np.int64))

    return Fields(
        words=(shared([r.label for r in rows]),),
        numbers={
            "iou": np.array([r.iou for r in rows]),
            "unit": np.array([r.unit for r in rows], float),
            "threshold": np.array([r.threshold for r in rows]),
        },
        choices={"cat": shared([r.cat for r in rows]), "layer": texts([r.layer for r in rows])},
        flags={
            "dead": lambda: np.array([r.dead for r in rows], bool),
            "detector": lambda: np.array([r.detector for r in rows], bool),
        },
    )


def passing(text: str, rows: tuple[Row, ...] = ROWS) -> list[Row]:
    found = parse(text).passes(fields(rows), len(rows))
    assert found.dtype == bool
    assert found.shape == (len(rows),)
    return [row for row, passes in zip(rows, found, strict=True) if passes]


def labels(text: str) -> list[str]:
    return [row.label for row in passing(text)]


def mistake(text: str, over: Fields | None = None) -> Mistake:
    """The mistake of ``text``, made when it is read or when it meets ``over``."""
    with pytest.raises(Mistake) as found:
        parse(text).passes(over or fields(), len(ROWS))
    return found.value


# --- every kind of term ---------------------------------------------------------------------------------------------

ALL = [row.label for row in ROWS]
PASSING = {
    # words
    "": ALL,
    "   ": ALL,
    "street": ["street", "Street Sign"],
    "STREET": ["street", "Street Sign"],
    "tree": ["street", "Street Sign"],
    "street sign": ["Street Sign"],
    "sign street": ["Street Sign"],
    "  street\t sign ": ["Street Sign"],
    "zebra": [],
    "señal": ["señal de tráfico"],
    "SEÑAL": ["señal de tráfico"],
    "道": ["街道"],
    "c++": ["c++ > c"],
    "car street": [],
    # quotes
    '"traffic light"': ["traffic light"],
    '"light traffic"': [],
    '"TRAFFIC l"': ["traffic light"],
    '"traffic li': ["traffic light"],
    '"': ALL,
    '""': ALL,
    '"dead"': [],
    '"c++ > c"': ["c++ > c"],
    '"ca"': ["car"],
    # not
    "!street": [label for label in ALL if label not in ("street", "Street Sign")],
    "street !sign": ["street"],
    '!"traffic light" cat:object': ["Street Sign", "car", "señal de tráfico"],
    "!cat:object,scene,part,material,texture": [""],
    "!unit:0-300": ["c++ > c", ""],
    "!dead !detector": ["señal de tráfico", "wheel", 'a "quoted" name', "c++ > c"],
    # choices
    "cat:object": ["Street Sign", "car", "traffic light", "señal de tráfico"],
    "category:object": ["Street Sign", "car", "traffic light", "señal de tráfico"],
    "CAT:Obj": ["Street Sign", "car", "traffic light", "señal de tráfico"],
    "cat:part,scene": ["street", "街道", "wheel"],
    "cat:part,scene,": ["street", "街道", "wheel"],
    'cat:"part"': ["wheel"],
    "cat:*x*e": ["c++ > c"],
    "cat:s": ["street", "街道"],
    "layer:layer4": ["car", "traffic light", "señal de tráfico", "街道"],
    "layer:layer4*": ["car", "traffic light", "señal de tráfico", "街道", "wheel"],
    "layer:laye": ["street", "Street Sign", "car", "traffic light", "señal de tráfico", "街道", "wheel"],
    "layer:layer4?": ["wheel"],
    "layer:layer?": ["street", "Street Sign", "car", "traffic light", "señal de tráfico", "街道"],
    "layer:*.?": ['a "quoted" name', ""],
    "layer:layer3,features.0": ["street", "Street Sign", 'a "quoted" name'],
    "layer:F": ['a "quoted" name', "c++ > c", ""],
    # numbers compared
    "iou>0.2": ["Street Sign", "街道"],
    "iou>=0.2": ["Street Sign", "car", "街道"],
    "iou=0.2": ["car"],
    "iou<0.001": ["c++ > c", ""],
    "iou<=1e-3": ['a "quoted" name', "c++ > c", ""],
    "IoU>.3": ["Street Sign", "街道"],
    "iou>0.1 iou<0.3": ["car"],
    "threshold<0": ["wheel"],
    "threshold>-3 threshold<=1 unit>=300": ['a "quoted" name', ""],
    "threshold>1000": ["c++ > c"],
    "u>301": [""],
    "unit=7": ["Street Sign", "car"],
    # numbers in ranges
    "unit:7": ["Street Sign", "car"],
    "u:7": ["Street Sign", "car"],
    "unit:100-200": ["traffic light", "señal de tráfico", "街道"],
    "unit:100-100": ["traffic light"],
    "unit:301-": ["c++ > c", ""],
    "unit:-7": ["street", "Street Sign", "car"],
    "unit:0,200-201,302": ["street", "街道", "wheel", ""],
    "unit:150-250,100-170": ["traffic light", "señal de tráfico", "街道", "wheel"],
    # properties
    "dead": [""],
    "DEAD": [""],
    "detector": ["street", "Street Sign", "car", "traffic light", "街道"],
    "!detector cat:object": ["señal de tráfico"],
}


@pytest.mark.parametrize("text", PASSING)
def test_a_filter_lets_these_rows_pass(text: str) -> None:
    assert labels(text) == PASSING[text]


def test_a_number_that_is_not_known_is_neither_above_nor_below() -> None:
    assert "car" not in labels("threshold>-1000") + labels("threshold<1000") + labels("threshold=1")
    assert "car" in labels("!threshold>-1000")


@pytest.mark.parametrize(
    ("typed", "label"),
    [("straße", "STRASSE"), ("STRASSE", "Straße"), ("ΟΔΟΣ", "Οδοστρωμα"), ("ДОМ", "дом"), ("é", "ÉCLAIR")],
)
def test_case_is_that_of_every_script(typed: str, label: str) -> None:
    row = Row(label, f"{label} of", f"{label}.0", 0, 0.5)
    for text in (typed, f'"{typed}"', f"cat:{typed}", f"layer:{typed}*"):
        assert passing(text, (row,)) == [row], text


def test_the_query_keeps_what_was_typed() -> None:
    assert parse("  Street  !dead ").text == "  Street  !dead "
    assert parse("").terms == EVERYTHING.terms == ()


def test_nothing_is_filtered_out_of_no_rows() -> None:
    for text in ("", "street", "!street", "iou>0.1", "unit:3", "dead", '"a b"'):
        assert passing(text, ()) == []


def test_a_word_is_looked_for_in_every_text_of_a_row() -> None:
    over = Fields(words=(texts(["a", "b", "c"]), texts(["x", "a", "z"])))
    assert parse("a").passes(over, 3).tolist() == [True, True, False]
    assert parse("!a").passes(over, 3).tolist() == [False, False, True]


def test_rows_without_texts_hold_no_word() -> None:
    assert parse("a").passes(Fields(), 3).tolist() == [False, False, False]


# --- mistakes -------------------------------------------------------------------------------------------------------

#: The filter, what its mistake is about (the text from there on begins so), and what is said.
MISTAKES = [
    ("!", "!", "needs a term"),
    ("street !", "!", "needs a term"),
    ("! street", "!", "needs a term"),
    ("!!", "!", "needs a term"),
    ("a cat:", "cat:", "needs a name"),
    ("a cat:,", "cat:", "needs a name"),
    ('a cat:"', "cat:", "needs a name"),
    ("a !cat:zebra", "cat:zebra", "no cat begins with zebra; there is material, object, part"),
    ("a cat:object,zebra", "cat:object,zebra", "zebra"),
    ("cat:ob?", "cat:ob?", "ob?"),
    ("layer:layer5", "layer:layer5", "there is features.0"),
    ("a iou>", "", "needs a number"),
    ("a iou>x b", "x b", "needs a number"),
    ("a iou>0,1 b", "0,1 b", "needs a number"),
    ("iou==0.1", "=0.1", "needs a number"),
    ('iou>"0.1"', '"0.1"', "needs a number"),
    ("a unit:", "", "needs numbers"),
    ("a u:", "", "needs numbers"),
    ("a u:x", "x", "needs numbers"),
    ("a unit:- b", "- b", "needs numbers"),
    ("a unit:1,,2 b", "1,,2 b", "needs numbers"),
    ("unit:1-2-3", "1-2-3", "needs numbers"),
    ("a u:200-100 b", "200-100 b", "ends before it begins"),
    ("a colour:red", "colour:red", "there is no colour: but cat:, layer:, iou:, unit:"),
    ("a dead:", "dead:", "there is no dead:"),
    ("a area>3", "area>3", "there is no number area, but iou, unit"),
    ("a cat>3", "cat>3", "there is no number cat"),
    # what the rows have not
    ("a units>3", "units>3", "rows have no units here, but iou, unit, threshold"),
    ("a !images:3", "images:3", "rows have no images here"),
    ("a !marked", "marked", 'whether a row is marked is not known here; in quotes, "marked" is a word'),
]


@pytest.mark.parametrize(("text", "about", "said"), MISTAKES, ids=[text for text, _, _ in MISTAKES])
def test_a_mistake_says_what_and_where(text: str, about: str, said: str) -> None:
    found = mistake(text)
    assert said in found.what
    assert str(found) == found.what
    assert text[found.at :].startswith(about)
    assert found.at == len(text) if not about else found.at < len(text)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("iou > 0.1", "> 0.1"),
        ("iou >0.1", ">0.1"),
        ("iou>= 0.1", " 0.1"),
        ("unit: 7", " 7"),
        ("cat :object", ":object"),
        ("a iou!=0.1", "iou!=0.1"),
        ("a !!street", "!street"),
    ],
)
def test_what_nobody_means_as_a_word_is_a_mistake_and_no_filter_that_nothing_passes(text: str, about: str) -> None:
    assert text[mistake(text).at :] == about


def test_brackets_in_names_stand_for_themselves() -> None:
    rows = tuple(Row("", "", layer, 0, 0.0) for layer in ("block[0].conv", "block[1].conv", "block0.conv"))
    for text in ("layer:block[0]", "layer:block[0]*", "layer:*[0].conv"):
        assert passing(text, rows) == [rows[0]], text


def test_quotes_make_words_of_what_would_be_a_mistake() -> None:
    rows = tuple(Row(label, "object", "a", 0, 0.0) for label in ("street:left", "area>3", "marked man", "!x", "dead"))
    for text, label in (
        ('"street:left"', "street:left"),
        ('"area>3"', "area>3"),
        ('"marked"', "marked man"),
        ('"!x"', "!x"),
        ('"dead"', "dead"),
    ):
        assert [row.label for row in passing(text, rows)] == [label]


@pytest.mark.parametrize("name", [*NUMBERS, *CHOICES, *FLAGS])
def test_what_a_listing_does_not_have_is_told_and_not_silently_nothing(name: str) -> None:
    term = f"{name}>1" if name in NUMBERS else f"{name}:a" if name in CHOICES else name
    for text in (term, f"!{term}", f"zebra {term}"):
        found = mistake(text, Fields(words=(texts([row.label for row in ROWS]),)))
        assert text[found.at :] == term
        assert name in found.what


def test_a_field_is_asked_for_only_by_filters_that_name_it() -> None:
    def never() -> Any:
        raise AssertionError

    over = Fields(words=(texts(["a"]),), flags={"dead": never})
    assert parse("a").passes(over, 1).tolist() == [True]


# --- any filter, against a look at every row ------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A term as it is typed, and what it asks of a row; ``known``: whether any row has what it names."""

    text: str
    passes: Callable[[Row], bool]
    known: bool = True


LETTERS = st.sampled_from("aábcСс街ü.,+-_*?1 ")
ROW = st.builds(
    Row,
    label=st.text(LETTERS, max_size=6),
    cat=st.sampled_from(["object", "scene", "Océan", ""]),
    layer=st.sampled_from(["layer1", "layer10", "Layer2.conv", "街"]),
    unit=st.integers(0, 30),
    iou=st.sampled_from([0.0, 0.04, 0.041, 0.25, 1.0]),
    threshold=st.sampled_from([-1.0, 0.5, math.nan, math.inf]),
    dead=st.booleans(),
)
ROWS_OF = st.lists(ROW, max_size=8).map(tuple)


def word_term(word: str, quoted: bool) -> Asked:
    plain = word if not quoted else f'"{word}"'
    return Asked(plain, lambda row: word.lower() in row.label.lower())


def choice_term(name: str, wanted: list[str], rows: tuple[Row, ...]) -> Asked:
    def one(row: Row, pattern: str) -> bool:
        value = str(getattr(row, name)).lower()
        if any(str(getattr(other, name)).lower() == pattern.lower() for other in rows):
            return value == pattern.lower()  # a name in full is that one alone
        if "*" in pattern or "?" in pattern:
            return fnmatchcase(value, pattern.lower())
        return value[: len(pattern)] == pattern.lower()

    known = all(any(one(row, pattern) for row in rows) for pattern in wanted)
    return Asked(f"{name}:{','.join(wanted)}", lambda row: any(one(row, pattern) for pattern in wanted), known)


def comparison_term(name: str, sign: str, value: float) -> Asked:
    compare: dict[str, Callable[[float], bool]] = {
        ">": lambda x: x > value, ">=": lambda x: x >= value, "<": lambda x: x < value, "<=": lambda x: x <= value,
        "=": lambda x: x == value,
    }  # fmt: skip
    return Asked(f"{name}{sign}{value}", lambda row: compare[sign](float(getattr(row, name))))


def span_term(spans: list[tuple[int | None, int | None]]) -> Asked:
    def written(first: int | None, last: int | None) -> str:
        if first is not None and first == last:
            return str(first)
        return f"{'' if first is None else first}-{'' if last is None else last}"

    def inside(row: Row) -> bool:
        return any((a is None or row.unit >= a) and (b is None or row.unit <= b) for a, b in spans)

    return Asked(f"unit:{','.join(written(*span) for span in spans)}", inside)


def spans() -> st.SearchStrategy[tuple[int | None, int | None]]:
    number = st.integers(0, 30)
    closed = st.tuples(number, number).map(lambda ab: (min(ab), max(ab)))
    return st.one_of(closed, number.map(lambda n: (n, None)), number.map(lambda n: (None, n)))


def asked(rows: tuple[Row, ...]) -> st.SearchStrategy[Asked]:
    bare = st.text(st.sampled_from("aábcСс街ü"), min_size=1, max_size=3)
    inside = st.text(LETTERS, min_size=1, max_size=4)
    category = st.sampled_from(["object", "o", "SCENE", "océ", "*", "?c*", "s*e", "zebra"])
    layer = st.sampled_from(["layer1", "layer1?", "l*", "LAYER2", "街", "*conv", "nowhere"])
    positive = st.one_of(
        bare.map(lambda w: word_term(w, False)),
        inside.map(lambda w: word_term(w, True)),
        st.lists(category, min_size=1, max_size=3).map(lambda v: choice_term("cat", v, rows)),
        st.lists(layer, min_size=1, max_size=3).map(lambda v: choice_term("layer", v, rows)),
        st.builds(
            comparison_term,
            st.sampled_from(["iou", "unit", "threshold"]),
            st.sampled_from([">", ">=", "<", "<=", "="]),
            st.sampled_from([-1.0, 0.0, 0.04, 0.041, 0.25, 0.5, 7.0]),
        ),
        st.lists(spans(), min_size=1, max_size=3).map(span_term),
        st.just(Asked("dead", lambda row: row.dead)),
        st.just(Asked("detector", lambda row: row.detector)),
    )
    negative = positive.map(lambda t: Asked(f"!{t.text}", lambda row: not t.passes(row), t.known))
    return st.one_of(positive, negative)


CASES = ROWS_OF.flatmap(lambda rows: st.tuples(st.just(rows), st.lists(asked(rows), max_size=4)))
SPACE = st.sampled_from([" ", "  ", "\t"])


@settings(max_examples=300, deadline=None)
@given(case=CASES, space=SPACE)
def test_a_row_passes_if_it_passes_every_term(case: tuple[tuple[Row, ...], list[Asked]], space: str) -> None:
    rows, terms = case
    text = space.join(term.text for term in terms)
    query = parse(text)
    assert len(query.terms) == len(terms)
    if not all(term.known for term in terms):
        with pytest.raises(Mistake):
            query.passes(fields(rows), len(rows))
        return
    expected = [all(term.passes(row) for term in terms) for row in rows]
    assert query.passes(fields(rows), len(rows)).tolist() == expected


def meets(query: Query, rows: tuple[Row, ...]) -> None:
    """The query over the rows: bools or a Mistake inside of its text."""
    try:
        assert query.passes(fields(rows), len(rows)).shape == (len(rows),)
    except Mistake as e:
        assert 0 <= e.at < len(query.text)
        assert e.what


@settings(max_examples=150, deadline=None)
@given(case=CASES)
def test_while_a_filter_is_typed_it_is_understood_or_told_at_every_key(
    case: tuple[tuple[Row, ...], list[Asked]],
) -> None:
    rows, terms = case
    text = " ".join(term.text for term in terms)
    for end in range(len(text) + 1):
        try:
            query = parse(text[:end])
        except Mistake as e:
            assert 0 <= e.at <= end
            assert e.what
        else:
            assert query.text == text[:end]
            meets(query, rows)


@pytest.mark.parametrize(
    "text", ["cat:object,scene iou>=0.1 unit:7,100-200", 'street !"traffic light" detector layer:l*']
)
def test_a_filter_half_typed_shows_a_mistake_only_in_its_last_term(text: str) -> None:
    for end in range(len(text) + 1):
        try:
            parse(text[:end]).passes(fields(), len(ROWS))
        except Mistake as e:
            assert e.at >= text.rfind(" ", 0, end) + 1


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=20),
        st.text(st.sampled_from('ab!":,-*?[]<>=.0123456789 catlyeriounu'), max_size=25),
        st.lists(st.sampled_from(["cat:", "layer:", "iou>", "unit:", "u:", "!", '"', "-", ",", " ", "1", "a"])).map(
            "".join
        ),
    )
)
def test_whatever_is_typed_is_understood_or_told(text: str) -> None:
    try:
        query = parse(text)
    except Mistake as e:
        assert 0 <= e.at <= len(text)
        assert e.what
        return
    meets(query, ROWS)


def test_a_long_filter_takes_no_time() -> None:
    for text in ('"' * 20000, "!" * 20000, "a" * 20000, '"a' * 10000, "unit:" + "1," * 10000, "iou>" + "9" * 20000):
        try:
            meets(parse(text), ROWS)
        except Mistake as e:
            assert 0 <= e.at <= len(text)
