"""The picture of ``nd paint`` in the terminal's pixels: its marks, what each protocol sends, and who gets which."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import fake_painter
import numpy as np
import pytest
from painting_visit import PaintingVisit
from picture_terminal import PictureTerminal
from PIL import Image

from ndissect.store.errors import NDError
from ndissect.tui.app import painting_graphics
from ndissect.tui.app.painting_graphics import Scene, graphics
from ndissect.tui.app.painting_pixels import BLACK, NOTHING, WHITE, box, enlarged, few_colors, marks, place_pixels
from ndissect.tui.pictures import graphics as protocols
from ndissect.tui.pictures.graphics import ASSUMED_CELL, believable_cell, choose_protocol

WAYS = ("kitty", "iterm", "sixel")
PICTURE = fake_painter.before(3, 64)
GRID = (8, 8)


def scene(picture: Image.Image = PICTURE, cursor: tuple[int, int] | None = (4, 4), **more: object) -> Scene:
    placement = place_pixels(GRID, picture.size, 80, 20, (10, 20))
    selected, edited = frozenset({(1, 1), (1, 2)}), frozenset({(6, 6)})
    return replace(Scene(2, 1, placement, picture, cursor, selected, edited), **more)  # type: ignore[arg-type]


def expected(what: Scene) -> np.ndarray:
    pixels = np.array(enlarged(what.picture, what.placement.size))
    ink = what.marks(what.placement.size)
    pixels[ink == BLACK], pixels[ink == WHITE] = 0, 255
    return pixels


def same(screen: PictureTerminal, what: Scene, way: str) -> None:
    assert screen.seen is not None
    away = np.abs(np.asarray(screen.seen).astype(int) - expected(what))
    assert away.max() <= (2 if way == "sixel" else 0), "a sixel's colours are of a hundred steps"


@pytest.mark.parametrize("cells", [4, 8, 16, 64])
def test_marks_are_black_beside_white_at_their_cells_and_differ_in_shape(cells: int) -> None:
    size, grid = (640, 400), (cells, cells)
    cursor, chosen = (cells // 2, cells // 2), (1, 1)
    plain = marks(size, grid, cursor, frozenset(), frozenset())
    top, left, bottom, right = box(size, grid, cursor)
    near = plain[max(top - 8, 0) : bottom + 8, max(left - 8, 0) : right + 8]
    assert {BLACK, WHITE} <= set(near.ravel().tolist())
    assert np.count_nonzero(near) == np.count_nonzero(plain), "nowhere else"
    assert plain[(top + bottom) // 2, (left + right) // 2] == NOTHING, "what is painted stays to be seen"
    for selected, edited in [({chosen}, set()), (set(), {chosen}), ({chosen}, {chosen}), ({cursor}, set())]:
        more = marks(size, grid, cursor, frozenset(selected), frozenset(edited))
        top, left, bottom, right = box(size, grid, cursor if cursor in selected else chosen)
        differs = more != plain
        assert {BLACK, WHITE} <= set(more[differs].tolist()) | {NOTHING} or cells == 64
        assert differs[top:bottom, left:right].any()
        assert np.count_nonzero(differs) == np.count_nonzero(differs[top:bottom, left:right])
    dashed, notched = (
        marks(size, grid, cursor, frozenset(a), frozenset(b))[slice(*box(size, grid, chosen)[::2])]
        for a, b in [({chosen}, set()), (set(), {chosen})]
    )
    assert (dashed != notched).any()


def test_a_map_finer_than_the_picture_has_marks_too() -> None:
    ink = marks((30, 20), (400, 400), (399, 399), frozenset({(0, 0), (399, 0)}), frozenset({(5, 5)}))
    assert ink.shape == (20, 30)
    assert ink[-1, -1] or ink[-2, -2]


def test_the_picture_fills_whole_cells_in_its_own_shape() -> None:
    for size, room, cell in [
        ((64, 64), (80, 20), (10, 20)),
        ((64, 64), (50, 40), (9, 19)),
        ((96, 64), (40, 12), (7, 15)),
    ]:
        placement = place_pixels(GRID, size, *room, cell)
        assert placement.columns <= room[0] and placement.lines <= room[1]
        assert placement.columns + 2 > room[0] or placement.lines == room[1] or placement.columns + 3 > room[0]
        assert placement.size[0] / placement.size[1] == pytest.approx(size[0] / size[1], rel=0.06)
        for line, column in [(0, 0), (placement.lines - 1, placement.columns - 1)]:
            assert placement.cell_at(line, column) == ((0, 0) if line == 0 else (7, 7))
    big = place_pixels(GRID, (64, 64), 200, 100, (20, 40)).finest
    assert max(big.size) <= 1024 and (big.columns, big.lines) == (200, 100)


def test_colors_of_a_small_palette_stay_and_black_and_white_are_kept_for_marks() -> None:
    few = few_colors(PICTURE, (640, 640))
    assert few.mode == "P"
    assert (few.getpalette() or [])[762:] == [0, 0, 0, 255, 255, 255]
    assert few.convert("RGB").tobytes() == enlarged(PICTURE, (640, 640)).tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_sent_shows_the_picture_and_moving_sends_little(way: str) -> None:
    drawn, screen = graphics(way), PictureTerminal(80, 24)  # type: ignore[arg-type]
    assert drawn is not None
    first = scene()
    sent = drawn.show(first)
    same(screen.feed(sent), first, way)
    assert screen.sent[0][1:3] == (2, 1)
    assert drawn.show(first) == ""
    for cursor in [(4, 5), (0, 7), None, (2, 2)]:
        moved = replace(first, cursor=cursor)
        little = drawn.show(moved)
        same(screen.feed(little), moved, way)
        assert len(little) < 12_000
    other = scene(fake_painter.before(20, 64))
    same(screen.feed(drawn.show(other)), other, way)
    assert len(screen.kept) == (2 if way == "kitty" else 0), "what was replaced is out of the terminal's memory"
    text = "".join(f"\x1b[{line + 1};1H{' ' * 80}" for line in (3, 4))
    same(screen.feed(text + drawn.show(other, [2, 3])), other, way)
    assert screen.feed(drawn.remove()).seen is None
    same(screen.feed(drawn.show(other)), other, way)


def test_a_photograph_becomes_smooth_and_is_sent_in_254_colors() -> None:
    ramp = np.arange(256, dtype=np.uint8)
    photo = Image.fromarray(
        np.stack([np.add.outer(ramp, ramp) // 2, np.tile(ramp, (256, 1)), np.tile(ramp, (256, 1)).T], 2)
    )
    what = scene(photo)
    drawn, screen = graphics("sixel"), PictureTerminal(80, 24)
    assert drawn is not None
    seen = screen.feed(drawn.show(what)).seen
    assert seen is not None
    assert np.abs(np.asarray(seen).astype(int) - expected(what)).mean() < 12
    assert graphics("blocks") is None
    assert painting_graphics._MOST_PIECES > 4


ENVIRONMENTS = [
    ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, "kitty"),
    ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
    ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2", "SSH_CONNECTION": "a b c d"}, "iterm"),
    ({"TERM": "foot"}, "sixel"),
    ({"TERM": "xterm-256color", "WT_SESSION": "x"}, "sixel"),
    ({"TERM": "xterm-256color"}, "blocks"),
    ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)", "KITTY_WINDOW_ID": "1"}, "blocks"),
    ({"TERM": "tmux-256color", "TMUX": "/tmp/t,1,0", "KITTY_WINDOW_ID": "1"}, "blocks"),
    ({"TERM": "screen.xterm-256color", "LC_TERMINAL": "iTerm2"}, "blocks"),
    ({"TERM": "xterm-kitty", "ZELLIJ": "0"}, "blocks"),
    ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "blocks"),
    ({}, "blocks"),
]


@pytest.mark.parametrize(("environ", "protocol"), ENVIRONMENTS)
def test_each_terminal_gets_what_it_knows(environ: dict[str, str], protocol: str) -> None:
    assert choose_protocol("auto", environ) == protocol
    assert choose_protocol("kitty", environ) == "kitty", "who asks for it gets it"


def test_without_the_package_sixels_become_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "sixel_encoder", lambda: None)
    assert choose_protocol("auto", {"TERM": "foot"}) == "blocks"
    assert choose_protocol("auto", {"TERM": "xterm-kitty"}) == "kitty"
    with pytest.raises(NDError, match="textual-image"):
        choose_protocol("sixel", {"TERM": "foot"})


def test_sizes_of_cells_are_believed_within_reason() -> None:
    assert believable_cell(9, 18) == (9, 18)
    assert believable_cell(0, 0) == believable_cell(1, 9000) == ASSUMED_CELL


def shown(visit: PaintingVisit) -> PictureTerminal:
    """What a terminal would show of all that was sent."""
    return PictureTerminal(80, 24).feed("".join(visit.sent))


@pytest.mark.parametrize("way", WAYS)
def test_the_mouse_and_keys_work_on_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    with PaintingVisit(tmp_path, protocol=way) as visit:
        visit.drawn()
        assert visit.app.canvas.in_pixels and "▀" not in visit.text
        visit.wait(lambda: shown(visit).seen is not None)
        placement = visit.app.canvas.placement
        assert placement is not None and (placement.columns, placement.lines) == (40, 20)
        # a cell of the map is 5 columns x 2.5 lines; the picture begins below the first line
        visit.mouse("mouse_down", 7, 4)
        visit.mouse("hover", 12, 6)
        visit.mouse("mouse_up", 12, 6)
        visit.wait(lambda: sorted(visit.app.selection.cells) == [(1, 1), (1, 2), (2, 1), (2, 2)])
        visit.press("?")
        visit.wait(lambda: "the cursor up one cell" in visit.text)
        # kitty's pictures are no text: they are taken away
        visit.wait(lambda: shown(visit).seen is None or way != "kitty")
        sent = len(visit.sent)
        visit.press("?")
        visit.wait(lambda: len(visit.sent) > sent and shown(visit).seen is not None)
        assert re.search(r"\x1b7\x1b\[2;1H", "".join(visit.sent)), "below the first line"


@pytest.mark.parametrize("way", WAYS)
def test_a_narrow_list_of_concepts_and_other_sizes_leave_one_picture_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with PaintingVisit(tmp_path, protocol=way, size=(60, 20)) as visit:
        visit.drawn()

        both = 2 if way == "kitty" else 0
        visit.wait(lambda: len(shown(visit).kept) == both)
        visit.press("/")
        visit.wait(lambda: "tree" in visit.text and not shown(visit).kept)
        sent = len(visit.sent)
        visit.press("escape")
        visit.wait(lambda: len(visit.sent) > sent and len(shown(visit).kept) == both)  # it is sent again
        visit.resize(30, 20)
        visit.wait(lambda: not shown(visit).kept)
        sent = len(visit.sent)
        visit.resize(80, 24)
        visit.wait(lambda: len(visit.sent) > sent and len(shown(visit).kept) == both)
        assert visit.app.before_terminal_is_left()
        assert visit.app.before_terminal_is_left() == "", "there is none left"
