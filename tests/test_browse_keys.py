"""The terminal UI by keyboard: what each key does, and says where it can do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import Visit, units_in
from small_store import FIRST, MANY, OF_FIRST, SECOND, number
from store_factory import dissection, write_small

from ndissect.tui.app.actions import ACTIONS, Action
from ndissect.tui.app.state import Bookmark


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("many") / "many.nd.h5", layers=MANY)


# Keys: each action by each of its keys


@dataclass(frozen=True)
class Effect:
    """What the key of an action does over the store of 40 and 300 units, where a page has 20 rows.

    ``before``: keys pressed first; ``seen`` is true after the key and was not before.
    """

    before: tuple[str, ...]
    seen: Callable[[Visit], bool]


AT_MANY = ("j", "enter")


def row(place: int) -> Callable[[Visit], bool]:
    return lambda visit: visit.position.startswith(f"{place}/")


def says(*said: str) -> Callable[[Visit], bool]:
    return lambda visit: all(text in visit.notice for text in said)


def at(crumbs: str) -> Callable[[Visit], bool]:
    return lambda visit: visit.crumbs == f"many.nd.h5 › {crumbs}"


def sorted_by(title: str, arrow: str) -> Callable[[Visit], bool]:
    return lambda visit: any(
        t[-1] in "▲▼" and title.startswith(t[:-1]) and t[-1] == arrow for t in visit.header.split()
    )


EFFECTS = {
    "down": Effect(AT_MANY, row(2)),
    "up": Effect((*AT_MANY, "j", "j"), row(2)),
    "enter": Effect((), at("early")),
    "back": Effect(AT_MANY, at("layers")),
    "out": Effect(AT_MANY, at("layers")),
    "first": Effect((*AT_MANY, "j", "j"), row(1)),
    "last": Effect(AT_MANY, row(300)),
    "half_down": Effect(AT_MANY, row(11)),
    "half_up": Effect((*AT_MANY, "G"), row(290)),
    "page_down": Effect(AT_MANY, row(21)),
    "page_up": Effect((*AT_MANY, "G"), row(280)),
    "layers": Effect(("2",), at("layers")),
    "concepts": Effect((), at("concepts")),
    "summary": Effect((), at("summary of early")),
    "stores": Effect((), at("stores")),
    # What they do where the store tells of classes: test_browse_effects.py.
    "classes": Effect((), says("nd ablate conv")),
    "its_classes": Effect(AT_MANY, says("units of conv", "nd ablate conv")),
    "ablate": Effect((), says("mark units with space first")),
    "filter": Effect(AT_MANY, lambda visit: visit.info == "/"),
    "next": Effect(("enter", "enter"), lambda visit: visit.app.table.listing.subject == f"early:{RANKED[1]}"),
    "previous": Effect(("enter", "j", "enter"), lambda visit: visit.app.table.listing.subject == f"early:{RANKED[0]}"),
    "sort": Effect(AT_MANY, sorted_by("threshold", "▼")),
    "ascending": Effect(AT_MANY, sorted_by("IoU", "▲")),
    "descending": Effect((*AT_MANY, "["), sorted_by("IoU", "▼")),
    "overlay": Effect(AT_MANY, says("no image viewer was found", ".png")),
    "viewer": Effect(AT_MANY, at("viewers")),
    "truth": Effect(AT_MANY, says("pictures are drawn with where the label really is")),
    "preview": Effect(AT_MANY, lambda visit: len(visit.rows) == 20),
    "mark": Effect(AT_MANY, lambda visit: "1 marked" in visit.keys),
    "compare": Effect((*AT_MANY, "space", "space"), at("compare")),
    "copy": Effect(AT_MANY, lambda visit: bool(visit.sent) and visit.copied.startswith("conv:")),
    "export": Effect(AT_MANY, says("300 rows written to", ".csv")),
    "reload": Effect(AT_MANY, says("read again")),
    "palette": Effect(AT_MANY, at("palette")),
    "help": Effect(AT_MANY, at("help")),
    "suspend": Effect(AT_MANY, lambda visit: visit.suspended),
    "quit": Effect(AT_MANY, lambda visit: not visit.app.is_running),
}
RANKED = [u.unit for u in sorted(units_in(dissection(layers=MANY))[:40], key=lambda u: -u.iou)]


def test_every_action_has_an_effect_that_is_checked() -> None:
    assert set(EFFECTS) == {action.name for action in ACTIONS}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_each_key_of_an_action_does_it(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    monkeypatch.chdir(tmp_path)
    effect = EFFECTS[action.name]
    for i, key in enumerate(action.keys):
        with Visit(many, Bookmark(), home=tmp_path / str(i), preview=action.name == "preview") as visit:
            visit.press(*effect.before)
            assert not effect.seen(visit)
            visit.press(key)
            visit.wait(lambda: effect.seen(visit), 5)


# Moving


def test_the_cursor_stays_within_the_rows_and_on_the_screen(many: Path, tmp_path: Path) -> None:
    with Visit(many, Bookmark("layers", 1, "conv"), home=tmp_path) as visit:
        visit.press("k", "pageup", "ctrl+u")
        assert visit.position == "1/300"
        visit.press("pagedown")
        assert visit.position == "21/300"
        assert len(visit.rows) == 20
        for keys in (("G",), ("j",), ("pagedown",), ("ctrl+d",)):
            visit.press(*keys)
            assert visit.position == "300/300"
            assert visit.row.startswith("›")
        assert visit.lines.index(visit.row) == 21  # the last row stands at the bottom
        visit.press("g")
        assert visit.lines.index(visit.row) == 2


def test_the_cursor_passes_over_headings(visit: Visit) -> None:
    visit.press("3")
    seen = []
    for _ in range(30):
        seen.append(visit.row)
        visit.press("j")
    assert not any("unique" in line for line in seen)
    assert visit.position == f"{len({*seen})}/{len({*seen})}"
    visit.press("g")
    assert visit.lines[2].strip() == "unique detectors by category"
    assert visit.row == visit.lines[3]


def test_the_first_heading_is_seen_again_when_coming_back_up(visit: Visit) -> None:
    visit.press("?", "G", "g")
    assert visit.lines[2].split() == ["Move"]
    visit.press("G", *["k"] * 60)
    assert visit.lines[2].split() == ["Move"]


# Esc, marks, palette


def test_escape_leaves_the_most_transient_thing_first(visit: Visit) -> None:
    visit.press("space", "enter")
    visit.type("/blue\n")
    visit.press("?")
    visit.type("/mark")
    visit.press("enter", "?")
    assert visit.notice
    visit.press("escape")
    assert visit.notice == ""
    assert visit.info == "/mark"
    visit.press("escape")
    assert visit.crumbs.endswith("help")
    assert "/mark" not in visit.text
    visit.press("escape")
    assert visit.crumbs == f"small.nd.h5 › {SECOND}"
    assert visit.info == "/blue"
    visit.press("escape")
    assert visit.position.endswith("/6")
    visit.press("escape")
    assert visit.crumbs == "small.nd.h5 › layers"
    assert "1 marked" in visit.keys
    visit.press("escape")
    assert "marked" not in visit.keys
    visit.press("escape")
    assert "q quits" in visit.notice
    assert visit.app.is_running


def test_any_key_takes_a_message_away_and_does_what_it_does(visit: Visit) -> None:
    visit.press("c")
    assert visit.notice
    visit.press("j")
    assert not visit.notice
    assert visit.position == "2/3"
    visit.press("c", "escape")
    assert not visit.notice
    assert visit.crumbs == "small.nd.h5 › layers"


def test_space_marks_and_unmarks_and_marks_can_be_filtered(visit: Visit) -> None:
    visit.press("enter", "j", "space", "space")
    assert "2 marked" in visit.keys
    visit.type("/marked\n")
    assert [number(line.lstrip("● ")) for line in visit.rows] == [u.unit for u in OF_FIRST[1:3]]
    assert visit.position == "1/2 of 9"
    visit.press("escape", "g", "j", "space")
    assert "1 marked" in visit.keys
    assert sum("●" in line for line in visit.lines) == 1


def test_the_palette_finds_an_action_by_what_it_does_and_does_it(visit: Visit) -> None:
    visit.press("enter", ":")
    visit.type("half a page up")
    assert visit.position.startswith("1/1 of ")
    visit.press("escape")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    visit.press("ctrl+p")
    visit.type("next column")
    visit.press("enter")
    assert visit.crumbs == f"small.nd.h5 › {FIRST}"
    assert any(title.startswith("thresh") and title[-1] == "▼" for title in visit.header.split())
    visit.press(":")
    visit.type("summary\n")
    assert visit.crumbs.startswith("small.nd.h5 › summary")


def test_what_is_typed_stands_behind_the_key_that_asked_for_it(visit: Visit) -> None:
    visit.press(":")
    visit.type("zebra")
    assert visit.info == ":zebra"
    visit.press("enter")  # no action: it stays
    assert visit.crumbs.endswith("palette")
    assert visit.info == ":zebra"
    visit.press("escape", "escape", "escape", "/", *"lay")
    assert visit.info == "/lay"


def test_the_palette_offers_what_is_possible_here(visit: Visit) -> None:
    visit.resize(80, 50)
    visit.press(":")
    assert not any("compare two marked" in line for line in visit.rows)
    visit.press("escape", "space", "space", ":")
    assert any("compare two marked" in line for line in visit.rows)


def test_the_palette_acts_on_the_table_that_it_was_called_from(visit: Visit) -> None:
    visit.press("enter", "j", ":")
    visit.type("copy the row\n")
    assert visit.copied.startswith(OF_FIRST[1].name)
    visit.press(":")
    visit.type("mark the row\n")
    assert "1 marked" in visit.keys
    visit.press("2", ":")
    visit.type("last row\n")
    assert visit.position == "9/9"


# Keys that can do nothing say why

IMPOSSIBLE = [
    ("c", (), "c: mark two units, layers or stores with space first"),
    ("c", ("space", "k"), "c: "),
    ("o", (), "o: go to a unit first"),
    ("O", ("2",), "O: go to a unit first"),
    ("p", (), "p: "),
    ("s", ("3",), "s: the rows of this table have one order"),
    ("[", ("enter", "enter"), "[: the rows of this table have one order"),
    ("]", ("?",), "]: the rows of this table have one order"),
    ("space", ("2",), "space: units, layers and stores can be marked"),
    ("space", ("G",), "space: units, layers and stores can be marked"),
    ("?", ("?",), "?: "),
    ("y", ("enter", "/", *"zebra", "enter"), "y: there is no row"),
    ("e", ("enter", "/", *"zebra", "enter"), "e: there are no rows"),
    ("enter", ("enter", "/", *"zebra", "enter"), "enter: there is nothing to open here"),
]


@pytest.mark.parametrize(("key", "before", "said"), IMPOSSIBLE, ids=[f"{k} {''.join(b)}" for k, b, _ in IMPOSSIBLE])
def test_a_key_that_can_do_nothing_says_why(
    visit: Visit, store: Path, key: str, before: tuple[str, ...], said: str
) -> None:
    visit.press(*before)
    lines = visit.lines
    visit.press(key)
    assert visit.notice.startswith(said)
    assert len(visit.notice) > len(said.split(maxsplit=1)[0]) + 8
    assert visit.crumbs == lines[0]
    assert [p.name for p in store.parent.glob("*.csv")] == []
