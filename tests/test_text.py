"""What is shown of text from outside: nothing that a terminal obeys, nothing unseen, and everything else as it is."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hostile import harmless
from hypothesis import given
from hypothesis import strategies as st

from ndissect.store.text import clean_json, clean_lines, clean_text, one_line, without_controls

EVERY = [chr(code) for code in range(0x110000)]
HARMLESS = [c for c in EVERY if harmless(c)]
READABLE = ("traffic_light", "señal_de_tráfico", "街道", "шоссе", "Straße", "é as two: e\u0301", "a\u00a0b", "½ × 3 €")


def test_every_character_is_kept_or_replaced_by_one() -> None:
    assert clean_text("".join(HARMLESS)) == "".join(HARMLESS)
    for c in set(EVERY) - set(HARMLESS):
        byte = f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else None
        assert clean_text(c) == (byte or "\ufffd"), hex(ord(c))
        assert clean_text(f"a{c}é") == f"a{byte or chr(0xFFFD)}é"


@pytest.mark.parametrize("category", ["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
def test_nothing_of_these_categories_is_shown(category: str) -> None:
    found = [c for c in EVERY if unicodedata.category(c) == category]
    assert found
    assert not set(found) & set(clean_text("".join(found)))


@pytest.mark.parametrize("text", READABLE)
def test_what_is_readable_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == one_line(text) == clean_lines(text) == clean_json(text) == without_controls(text) == text


def test_line_ends_are_spaces_in_a_line_and_kept_where_they_are_the_layout() -> None:
    assert one_line("a\r\nb\tc\u2028d\x85e") == "a  b c d e"
    assert clean_lines("a\tb\x1b\r\nc\u2028") == "a\tb\ufffd\r\nc\ufffd"


@given(st.text(st.characters()))
def test_what_is_cleaned_is_harmless_and_cleaned_again_the_same(text: str) -> None:
    for clean in (clean_text, one_line):
        assert harmless(clean(text))
        assert clean(clean(text)) == clean(text)
    assert harmless(clean_lines(text), layout="\t\r\n")


@given(st.recursive(st.text(st.characters()) | st.integers(), lambda v: st.dictionaries(st.text(), v) | st.lists(v)))
def test_json_is_harmless_and_read_as_the_same_values(value: object) -> None:
    for indent in (None, 2):
        text = clean_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert harmless(text, layout="\n")
        assert json.loads(text) == json.loads(json.dumps(value))
