"""``nd paint`` in the terminal: by keys, over a process that pretends to paint, judged by screen and by files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_painter
import pytest
from painting_visit import PaintingVisit
from PIL import Image

from ndissect.tui.app.painting_actions import BY_NAME, FOOTER, GROUPS, PAINTING_ACTIONS
from ndissect.tui.app.painting_cells import place
from ndissect.tui.app.painting_edits import rectangles
from ndissect.tui.app.painting_files import new_file_name

TREE = "#00a000"
DOCS = (Path(__file__).resolve().parents[1] / "docs/painting.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_concept_is_added_to_selected_cells_undone_and_done_again(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        assert visit.crumbs == "x.nd.h5 › layer4 › sample 3"
        visit.press("+")
        assert "choose a concept with / first" in visit.notice
        visit.choose("tr")
        assert visit.status.startswith("tree  strength 1  row 4, column 4")
        assert TREE not in visit.colors
        visit.press("shift+down", "L", "+")
        visit.drawn()
        assert TREE in visit.colors
        cells = [[4, 4], [4, 5], [5, 4], [5, 5]]
        edit = {"concept": "tree", "action": "add", "cells": cells, "strength": 1.0}
        assert visit.asked[-1] == {"do": "paint", "edits": [edit], "label": True}
        assert visit.effect.startswith("tree 7 -> 263 px  0 of 3840 px changed elsewhere")
        assert "1 + tree  4 cells" in visit.text
        visit.press("u")
        visit.drawn()
        assert TREE not in visit.colors
        assert "no edits yet; U redoes" in visit.text
        visit.press("U")
        visit.drawn()
        assert TREE in visit.colors
        visit.press("b")
        assert TREE not in visit.colors
        visit.press("b")
        assert TREE in visit.colors
        visit.press("escape", "<", "-")
        visit.drawn()
        assert visit.asked[-1]["edits"] == [
            edit,
            {"concept": "tree", "action": "remove", "cells": [[5, 5]], "strength": 0.75},
        ]


def test_cells_are_selected_by_keys_and_by_the_mouse(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        app = visit.app
        visit.press("space", "l", "l", "space", "l", "K")
        assert sorted(app.selection.cells) == [(3, 7), (4, 4), (4, 6), (4, 7)]
        visit.press("space", "j", "j", "j", "j", "j", "l")
        assert app.selection.cursor == (7, 7), "the map ends there"
        assert sorted(app.selection.cells) == [(4, 4), (4, 6), (4, 7)]
        visit.press("escape")
        assert not app.selection.cells
        # a cell is 4 columns x 2 lines, after a ruler of one column, below a ruler and the first line of the screen
        visit.mouse("mouse_down", 5, 4)
        visit.mouse("hover", 9, 8)
        visit.mouse("mouse_up", 9, 8)
        assert sorted(app.selection.cells) == [(r, c) for r in (1, 2, 3) for c in (1, 2)]
        assert "6 of 8 x 8 cells selected" in visit.status


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
@pytest.mark.parametrize(
    ("cells", "size", "marks"), [(8, (80, 24), "┏•┓"), (16, (80, 24), "{}"), (32, (80, 24), "v"), (8, (140, 40), "•")]
)
def test_cursor_and_selection_are_marked_by_their_shape(
    folder: Path, cells: int, size: tuple[int, int], marks: str, env: dict[str, str], unicode: bool
) -> None:
    with PaintingVisit(folder, cells=cells, size=size, env=env, unicode=unicode) as visit:
        visit.drawn()
        picture = "\n".join(line[: size[0] - 28] for line in visit.lines[2:-4])
        if not unicode:
            marks = marks.translate(str.maketrans("┏┓•", "##*"))
        assert not set(marks) & {"•", "{"} or not set(marks) & {"•", "{"} & set(picture)
        visit.press("space")
        picture = "\n".join(line[: size[0] - 28] for line in visit.lines[2:-4])
        for mark in marks:
            assert mark in picture
        if not unicode:
            assert visit.text.replace("…", "").isascii()
        visit.press("m")
        assert not {"•", "{", "┏", "v"} & set("\n".join(line[:52] for line in visit.lines[2:-4]))


def test_the_picture_is_as_large_as_there_is_room_for_and_square() -> None:
    for cells, columns, lines, expected in [
        (8, 51, 19, (32, 16)), (16, 51, 19, (32, 16)), (13, 51, 19, (38, 19)), (32, 111, 34, (64, 32)),
        (4, 20, 30, (16, 8)), (64, 51, 19, (38, 19)),
    ]:  # fmt: skip
        placement = place((cells, cells), (64, 64), columns, lines)
        assert (placement.columns, placement.lines) == expected, cells
        for cell in [(0, 0), (cells - 1, cells // 2)]:
            if placement.boxes:
                top, left, bottom, right = placement.box(cell)
                assert placement.cell_at(top, left) == placement.cell_at(bottom - 1, right - 1) == cell


def test_other_samples_keep_their_edits_and_what_is_not_saved_is_told(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        visit.choose("door")
        visit.press("+", "z")
        visit.drawn()
        assert visit.crumbs.endswith("sample 4")
        assert "no edits yet" in visit.text
        visit.press("Z")
        visit.drawn()
        assert "1 + door" in visit.text
        visit.type(":29\n")
        visit.drawn()
        assert visit.crumbs.endswith("sample 29")
        visit.press("z")
        assert "there is no sample 30 samples are 0 to 29" in visit.notice
        visit.type(":x\n")
        assert "'x' is no number of a sample" in visit.notice
        visit.press("q")
        (line,) = visit.app.left
    assert line.startswith("sample 3 has edits that are not saved; this paints them: nd paint ")
    assert "--sample 3 --layer layer4 --units 20 --add door --region 4,4,4,4 --strength 1 -o OUT.png" in line


def test_saving_writes_new_files_that_paint_the_same_again(folder: Path) -> None:
    (folder / "x-layer4-3.png").write_text("not mine")
    with PaintingVisit(folder) as visit:
        visit.drawn()
        visit.choose("sky")
        visit.press("+", "s")
        visit.wait(lambda: "saved" in visit.notice)
        assert "--edits x-layer4-3-2.json" in visit.notice
        visit.press("q")
        assert visit.app.left == []
    assert (folder / "x-layer4-3.png").read_text() == "not mine"
    said = json.loads((folder / "x-layer4-3-2.json").read_text())
    again = fake_painter.painted(said["sample"], 64, 8, said["edits"])
    with Image.open(folder / "x-layer4-3-2.png") as picture:
        assert picture.tobytes() == again.tobytes()
    assert new_file_name(folder, Path("x.nd.h5"), "layer4", 3) == "x-layer4-3-3.png"


def test_the_newest_wish_wins_while_the_network_works(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        visit.choose("tree")
        (folder / "slow").touch()
        before = len(visit.asked)
        visit.press("+")
        visit.wait(lambda: len(visit.asked) == before + 1)
        visit.press("l", "+", "l", "+", "l", "+")
        assert visit.app.selection.cursor == (4, 7), "keys work meanwhile"
        assert visit.effect == "the network works ..."
        (folder / "slow").unlink()
        visit.drawn()
        asked = visit.asked[before:]
        assert [(len(a["edits"]), a["label"]) for a in asked] == [(1, False), (4, False), (4, True)]


def test_a_refusal_is_told_and_what_was_drawn_stays(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        visit.choose("tree")
        visit.press("+")
        visit.drawn()
        visit.choose("nothing")
        visit.press("+")
        visit.wait(lambda: "no unit draws nothing choose another concept" in visit.notice)
        visit.drawn()
        assert [edit.concept for edit in visit.app.painting.edits] == ["tree"]
        visit.type("/zebra\n")
        assert "no concept is called 'zebra'" in visit.notice
        visit.press("escape", "escape")
        assert visit.app.concept == "nothing"


def test_the_death_of_the_process_is_told_in_a_line_and_r_starts_it_again(folder: Path) -> None:
    with PaintingVisit(folder) as visit:
        visit.drawn()
        visit.choose("crash")
        visit.press("+")
        visit.wait(lambda: "has ended: the machine is out of memory r starts it again" in visit.notice)
        visit.press("u")
        assert "▀" in visit.text, "the picture stays"
        visit.press("s")
        assert "the network's process has ended" in visit.notice
        visit.press("r")
        visit.drawn()
        visit.choose("tree")
        visit.press("+")
        visit.drawn()
        assert TREE in visit.colors
    with PaintingVisit(folder, command=[str(folder / "nothing")]) as visit:
        visit.wait(lambda: "it cannot be started: No such file or directory" in visit.notice)
    with PaintingVisit(folder, command=[sys.executable, "-c", "print('hello')"]) as visit:
        visit.wait(lambda: "it does not speak as it should" in visit.notice)


def test_small_terminals_and_the_help(folder: Path) -> None:
    with PaintingVisit(folder, size=(60, 20)) as visit:
        visit.drawn()
        assert "edits" not in visit.text
        visit.press("/")
        assert "tree" in visit.text
        visit.press("escape", "?")
        assert "the cursor up one cell" in visit.text
        visit.press(*"j" * 30)
        assert "quit; edits that are not saved are told" in visit.text
        visit.press("escape")
        assert "▀" in visit.text
        visit.resize(30, 20)
        assert "the terminal is too small" in visit.text
        visit.resize(80, 24)
        assert "▀" in visit.text


def test_one_table_of_actions_makes_keys_footer_help_and_documentation() -> None:
    assert len({a.name for a in PAINTING_ACTIONS}) == len({a.does for a in PAINTING_ACTIONS}) == len(PAINTING_ACTIONS)
    keys = [key for a in PAINTING_ACTIONS for key in a.keys]
    assert len(set(keys)) == len(keys)
    assert set(FOOTER) == {a.name for a in PAINTING_ACTIONS if a.short}
    assert all(BY_NAME[name].short for name in FOOTER)
    table = DOCS.partition("<!-- painting keys -->")[2].partition("<!-- /painting keys -->")[0].strip()
    assert table.splitlines() == [
        "| key | does |",
        "|---|---|",
        *(f"| `{a.shown}` | {a.does} |" for group in GROUPS for a in PAINTING_ACTIONS if a.group == group),
    ]


def test_any_cells_are_rectangles_that_do_not_overlap() -> None:
    cells = {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (4, 3), (5, 3), (5, 4)}
    covered = [(r, c) for t, le, b, ri in rectangles(cells) for r in range(t, b + 1) for c in range(le, ri + 1)]
    assert sorted(covered) == sorted(cells)
    assert rectangles({(r, c) for r in range(2, 5) for c in range(1, 3)}) == [(2, 1, 4, 2)]


def test_the_screen_needs_no_torch() -> None:
    code = (
        "import sys, ndissect.tui.app.painting; print([m for m in sys.modules if re.match('torch|ndissect.engine', m)])"
    )
    done = subprocess.run([sys.executable, "-c", f"import re; {code}"], capture_output=True, text=True, check=True)
    assert re.sub(r"\s", "", done.stdout) == "[]"
