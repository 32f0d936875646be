"""Viewers that have the terminal in the place of ``nd browse``, and previews inside of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import cli
import pytest
from browse_terminal import (
    ALTERNATE_SCREEN,
    LAYER,
    NOT_UTF8,
    UNIT,
    Visit,
    modes,
    program,
    restored,
)
from cli import wait_until
from store_factory import write_small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.nd.h5")
    return tmp_path


# Viewers


def has_ended(pid: Path) -> None:
    """Assert that the process whose number is in the file goes away."""

    def gone() -> bool:
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone, 30)


FAILING = {
    "fails": ("exit 3", ("failed with exit code 3", "Try it by hand")),
    "is killed": ("kill -9 $$", ("SIGKILL",)),
    "is no program": (None, ("no-such-viewer", "ND_VIEWER")),
    "cannot be read": ("'", ("ND_VIEWER cannot be split",)),
    "window fails": ("echo no display >&2; exit 4", ("failed with exit code 4", "no display")),
}


@contextlib.contextmanager
def asked_to_draw(folder: Path, viewer: str) -> Iterator[Visit]:
    """A visit to a unit that has asked ``viewer`` for its picture; afterwards the UI goes on, and ends as it should."""
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env={"ND_VIEWER": viewer}) as visit:
        visit.opened("top images")
        visit.press("o")
        yield visit
        assert ALTERNATE_SCREEN in modes(visit.raw), "the UI is back"
        assert 25 not in modes(visit.raw)
        visit.press("h")
        visit.see("threshold")
        visit.press("q")
    restored(visit, 0)


@pytest.mark.parametrize("how", FAILING)
def test_a_viewer_that_fails_is_a_message(folder: Path, how: str) -> None:
    script, said = FAILING[how]
    viewer = "no-such-viewer" if script is None else script if script == "'" else str(program(folder, "see", script))
    if how == "window fails":
        viewer += " &"
    with asked_to_draw(folder, viewer) as visit:
        visit.see(*said)


def test_a_viewer_draws_instead_of_the_ui_which_comes_back_at_a_key(folder: Path) -> None:
    with asked_to_draw(folder, str(program(folder, "draw", 'echo "shown $1"'))) as visit:
        visit.see("shown /", "press a key to return to nd")
        visit.press("j")
        visit.see("Shown by draw", "top images")


def test_ctrl_c_ends_a_viewer_that_hangs_and_not_nd(folder: Path) -> None:
    viewer = program(folder, "see", "echo $$ > pid; echo hanging; exec sleep 1000")
    with asked_to_draw(folder, str(viewer)) as visit:
        visit.see("hanging")
        visit.press("\x03")
        visit.see("was ended by SIGINT", "top images")
        has_ended(folder / "pid")


def test_a_viewer_that_leaves_the_terminal_in_disorder(folder: Path) -> None:
    viewer = program(folder, "see", r"stty raw -echo; printf '\033[?25l\033[?1049h\033[?1000h\033[31mdone'")
    with asked_to_draw(folder, str(viewer)) as visit:
        visit.see("press a key")
        visit.press("x")
        visit.see("top images")


def test_what_is_typed_at_a_viewer_is_not_taken_for_commands(folder: Path) -> None:
    viewer = program(folder, "see", "echo looking; while [ ! -e go ]; do sleep 0.02; done")
    with asked_to_draw(folder, str(viewer)) as visit:
        visit.see("looking")
        visit.press("qqq\n")
        (folder / "go").touch()
        visit.see("press a key")
        visit.press("q")
        visit.see("top images")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("waiting", ["for the viewer", "for a key"])
def test_a_signal_ends_it_while_a_viewer_has_the_terminal(folder: Path, number: signal.Signals, waiting: str) -> None:
    viewer = program(folder, "see", "echo $$ > pid; echo looking" + "; exec sleep 1000" * (waiting == "for the viewer"))
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env={"ND_VIEWER": str(viewer)}, timeout=60) as visit:
        visit.opened("top images")
        visit.press("o")
        visit.see("looking" if waiting == "for the viewer" else "press a key")
        visit.process.send_signal(number)
    restored(visit, 128 + number)
    has_ended(folder / "pid")


@pytest.mark.parametrize("waiting", ["for the viewer", "for a key"])
def test_a_connection_lost_while_a_viewer_has_the_terminal_ends_it(folder: Path, waiting: str) -> None:
    viewer = program(folder, "see", "echo $$ > pid; echo looking" + "; exec sleep 1000" * (waiting == "for the viewer"))
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env={"ND_VIEWER": str(viewer)}) as visit:
        visit.opened("top images")
        visit.press("o")
        visit.see("looking" if waiting == "for the viewer" else "press a key")
        visit.hang_up()
        visit.process.wait(60)
    has_ended(folder / "pid")


# Previews

NO_PREVIEW = "import sys\nsys.modules['textual_image'] = None\n"


def test_without_the_extra_a_preview_is_a_message(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NO_PREVIEW)
    env = {"PYTHONPATH": str(folder / "site")}
    with Visit(f"{LAYER}:{UNIT}", folder=folder, columns=100, env=env) as visit:
        visit.opened("top images")
        visit.press("p")
        visit.see("textual-image", "pip install 'ndissect[preview]'")
        visit.press("h")
        visit.see("threshold")
        visit.press("q")
    restored(visit, 0)
    done = cli.on_terminal("browse", "--preview", folder=folder, columns=100, env=env)
    assert done.code == 1
    assert f"\x1b[?{ALTERNATE_SCREEN}h" not in done.raw
    cli.two_lines(done.text, "textual-image", "pip install 'ndissect[preview]'")


@pytest.mark.parametrize("option", [(), ("--preview",)], ids=["p", "--preview"])
def test_a_terminal_without_graphics_shows_previews_in_half_cells(folder: Path, option: tuple[str, ...]) -> None:
    pytest.importorskip("textual_image")
    with Visit(*option, f"{LAYER}:{UNIT}", folder=folder) as visit:
        if not option:
            visit.opened("top images")
            visit.press("p")
        visit.see("\N{UPPER HALF BLOCK}", "top images")
        visit.press("p")
        visit.see("next concepts")
        visit.press("q")
    restored(visit, 0)


def test_a_terminal_that_cannot_show_half_cells_says_so(folder: Path) -> None:
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env=NOT_UTF8["ascii"]) as visit:
        visit.opened("top images")
        visit.press("p")
        visit.see("p: ")
        visit.press("q")
    restored(visit, 0)
    assert r"\u2580" not in visit.text
