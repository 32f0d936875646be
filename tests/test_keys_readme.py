"""One table of named actions: the keys, the footer, the palette, the help and the README all come from it."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest
from browsing import Visit
from store_factory import write_small
from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from ndissect.tui.app.actions import ACTIONS, BY_NAME, GROUPS
from ndissect.tui.app.app import Browser
from ndissect.tui.app.filter_bar import FilterBar
from ndissect.tui.app.image_pane import ImagePane
from ndissect.tui.app.marks import Marks
from ndissect.tui.app.table import Table

BOUND = {key for action in ACTIONS for key in action.keys}
README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
#: How people write the names that Textual has for keys.
WRITTEN = {
    "escape": "esc", "space": "space", "slash": "/", "colon": ":", "question_mark": "?", "left_square_bracket": "[",
    "right_square_bracket": "]", "pagedown": "pgdn", "pageup": "pgup", "down": "↓", "up": "↑", "left": "←",
    "right": "→",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_small(tmp_path / "small.nd.h5")


def key_table() -> str:
    """The table of the keys in the README, in Markdown."""
    assert README.count("<!-- keys -->") == 1
    return README.partition("<!-- keys -->")[2].partition("<!-- /keys -->")[0].strip()


def test_the_readme_has_the_table_of_the_keys() -> None:
    by_group = [a for group in GROUPS for a in ACTIONS if a.group == group]
    assert key_table().splitlines() == [
        "| key | does |",
        "|---|---|",
        *(f"| `{a.shown}` | {a.does} |" for a in by_group),
    ]


def test_the_table_has_every_action_once() -> None:
    rows = [line.split(" | ") for line in key_table().splitlines()[2:]]
    assert [(keys.strip("|` "), does.rstrip(" |")) for keys, does in rows] == [
        (a.shown, a.does) for group in GROUPS for a in ACTIONS if a.group == group
    ]


def test_no_two_actions_share_a_name_or_a_description() -> None:
    for of in ("name", "does"):
        assert [x for x, n in collections.Counter(getattr(a, of) for a in ACTIONS).items() if n > 1] == []
    assert all(BY_NAME[a.name] is a for a in ACTIONS)


def test_no_key_is_bound_twice() -> None:
    keys = collections.Counter(key for action in ACTIONS for key in action.keys)
    assert [key for key, n in keys.items() if n > 1] == []


def test_the_keys_of_the_design_are_bound() -> None:
    of = {key: action.name for action in ACTIONS for key in action.keys}
    for key, name in {
        "j": "down", "k": "up", "h": "out", "l": "enter", "down": "down", "up": "up", "left": "out", "right": "enter",
        "g": "first", "G": "last", "ctrl+d": "half_down", "ctrl+u": "half_up", "enter": "enter", "escape": "back",
        "slash": "filter", "n": "next", "N": "previous", "left_square_bracket": "ascending",
        "right_square_bracket": "descending", "s": "sort", "space": "mark", "c": "compare", "o": "overlay",
        "O": "viewer", "p": "preview", "colon": "palette", "ctrl+p": "palette", "question_mark": "help", "q": "quit",
        "y": "copy", "e": "export", "r": "reload", "a": "its_classes", "A": "ablate", "5": "classes",
    }.items():  # fmt: skip
        assert of[key] == name, key


def test_every_key_is_one_that_textual_knows() -> None:
    known = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS)
    for action in ACTIONS:
        for key in action.keys:
            assert len(key) == 1 or key in known or key in WRITTEN, key


def test_keys_are_shown_as_people_write_them() -> None:
    for action in ACTIONS:
        written = [WRITTEN.get(key, key) for key in action.keys]
        assert action.shown.split()[0] == written[0], action.name
        assert set(action.shown.split()) <= set(written), action.name


def test_the_bindings_of_the_app_are_the_actions_and_no_others(store: Path) -> None:
    own = [b for b in Browser.BINDINGS if isinstance(b, Binding)]
    assert len(own) == len(Browser.BINDINGS)
    assert {(b.key, b.action) for b in own} == {(key, f"do('{a.name}', '{key}')") for a in ACTIONS for key in a.keys}
    with Visit(store) as visit:
        # Textual's own: copying what the mouse selected, which leaves ctrl+c to quit where nothing is selected.
        others = {key: b.binding.action for key, b in visit.app.active_bindings.items() if key not in BOUND}
        assert {key: action for key, action in others.items() if action != "screen.copy_text"} == {}
        for action in ACTIONS:
            assert callable(action.run), action.name
            assert callable(action.why_not), action.name
    # Whatever says why something is impossible says it for an action.
    used = {name for a in ACTIONS for function in (a.run, a.why_not) for name in function.__code__.co_names}
    parts = (Browser, FilterBar, ImagePane, Marks, Table)
    assert {name for part in parts for name in vars(part) if name.startswith("why_not")} <= used


@pytest.mark.parametrize("columns", [30, 80, 120, 160, 400])
def test_the_footer_shows_actions_as_far_as_there_is_room(store: Path, columns: int) -> None:
    with Visit(store, size=(columns, 24)) as visit:
        shown = visit.keys.removesuffix(visit.position).rstrip()
        of = {f"{a.shown.split()[0]} {a.short}": a for a in ACTIONS if a.short}
        items = re.split(r" {2,}", shown)
        assert set(items) <= set(of)
        assert items[:2] == [next(k for k, a in of.items() if a.name == name) for name in ("help", "quit")]
        if columns == 400:
            assert set(items) == set(of)


def test_the_footer_depends_on_what_is_shown_and_not_on_what_was_shown_before(store: Path) -> None:
    with Visit(store) as visit:
        for columns in range(60, 160, 4):
            visit.resize(columns, 24)
            for key in ("?", "escape"):  # the position becomes longer, then shorter
                visit.press(key)
                shown = visit.keys
                visit.app.lines.update()
                visit.pause()
                assert visit.keys == shown, columns


def test_what_does_nothing_here_stands_back_in_the_footer_and_what_does_something_does_not(store: Path) -> None:
    def faint(visit: Visit, words: str) -> bool:
        strip = visit.app.screen._compositor.render_strips()[-1]
        segment = next(s for s in strip if words in s.text)
        return bool(segment.style and segment.style.dim)

    with Visit(store) as visit:
        assert faint(visit, "images")
        assert not faint(visit, "filter")
        visit.press("enter")
        assert not faint(visit, "images")


def test_the_help_and_the_palette_have_the_actions(store: Path) -> None:
    with Visit(store, size=(120, 70)) as visit:
        visit.press("?")
        rows = visit.rows
        listed = [
            next(line for line in rows if line.endswith(f" {a.does}") and line.startswith(f"{a.shown} "))
            for a in ACTIONS
        ]
        assert len(set(listed)) == len(ACTIONS)
        headings = [rows.index(group) for group in GROUPS]
        assert headings == sorted(headings)
        visit.press("escape", "enter", "space", "space", ":")
        rows = visit.rows
        for action in ACTIONS:
            able = visit.app.possible(action)
            listed = [line for line in rows if line.endswith(action.does)]
            if action.name in ("palette", "filter", "enter", "back", "out", "sort", "ascending", "descending"):
                continue  # asked now, of the palette itself
            assert bool(listed) == able or not able, action.name


def test_the_help_does_what_the_cursor_is_on(store: Path) -> None:
    with Visit(store) as visit:
        visit.press("?")
        visit.type("/concepts, and\n")
        assert visit.position.startswith("1/1 of ")
        visit.press("enter")
        assert visit.crumbs == "small.nd.h5 › concepts"
