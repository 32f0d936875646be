"""How ``nd browse`` leaves its terminal, come what may: keys, signals, lost connections, defects, odd bytes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
from pathlib import Path

import pytest
from browse_terminal import (
    LAYER,
    ON_AT_FIRST,
    UNIT,
    Visit,
    as_a_new_terminal_has_it,
    modes,
    restored,
)
from store_factory import write_small

from ndissect.tui.app.answers import AnswerFilter
from ndissect.tui.app.keyboard import LosableFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.nd.h5")
    return tmp_path


# However it ends


@pytest.mark.parametrize("key", ["q", "\x03", "\x11"], ids=["q", "ctrl+c", "ctrl+q"])
def test_keys_that_quit(folder: Path, key: str) -> None:
    with Visit(LAYER, folder=folder) as visit:
        visit.opened()
        visit.press(key)
    restored(visit, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_place_is_kept(folder: Path, number: signal.Signals) -> None:
    with Visit(f"{LAYER}:{UNIT}", folder=folder) as visit:
        visit.opened("top images")
        visit.process.send_signal(number)
    restored(visit, 128 + number)
    with Visit(folder=folder) as again:
        again.opened(f"{LAYER} › {UNIT} ", "top images")
        again.press("q")
    restored(again, 0)


def test_a_lost_connection_ends_it_and_the_place_is_kept(folder: Path) -> None:
    with Visit(LAYER, folder=folder) as visit:
        visit.opened()
        visit.hang_up()
        visit.process.wait(60)
    with Visit(folder=folder) as again:
        again.opened(f"small.nd.h5 › {LAYER}")
        again.press("q")
    restored(again, 0)


def test_going_on_without_a_stop_changes_nothing_and_the_end_comes_at_once(folder: Path) -> None:
    # The system sends it with a lost connection, just before or just after the signal that ends the app.
    with Visit(LAYER, folder=folder) as visit:
        visit.opened()
        for _ in range(3):
            visit.process.send_signal(signal.SIGCONT)
        visit.press("j")
        visit.see("6")
        visit.press("q")
        visit.process.wait(20)
    restored(visit, 0)


def test_what_is_written_to_a_lost_terminal_is_dropped() -> None:
    ours, theirs = pty.openpty()
    with contextlib.suppress(OSError), os.fdopen(theirs, "w") as file:  # its end writes what nobody took
        os.close(ours)
        terminal = LosableFile(file)
        for _ in range(2):
            assert terminal.write("x") == 1
            terminal.flush()  # an error would end the thread that writes, and the app would wait for it at its end


# Put before the interpreter's own: one function of nd raises an error where the file `broken` lies.
SITE = """
import importlib.machinery, os, sys

MODULE, NAMES = {module!r}, {names!r}


class Breaker:
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            *within, last = NAMES.split(".")
            for part in within:
                module = getattr(module, part)
            whole = getattr(module, last)

            def broken(*args, **more):
                if os.path.exists("broken"):
                    raise ZeroDivisionError("a defect of its own")
                return whole(*args, **more)

            setattr(module, last, broken)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Breaker())
"""
DEFECTS = {
    "at a key": ("ndissect.tui.app.table", "Table.move", "j"),
    "while drawing": ("ndissect.tui.app.table", "Table.render_line", "j"),
    "once a second": ("ndissect.tui.app.watch", "files_on_disk", ""),
    "beside the UI": ("ndissect.tui.app.pictures", "draw", "o"),
    "while a viewer has the terminal": ("ndissect.tui.app.pictures", "show_in_terminal", "o"),
}


DEFECT = ("nd: unexpected", "ZeroDivisionError", "a defect of its own", "--debug")


def breaking(folder: Path, module: str, names: str) -> dict[str, str]:
    """An environment in which a function of nd raises an error as soon as the file ``broken`` lies in ``folder``."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(module=module, names=names))
    return {"PYTHONPATH": str(folder / "site"), "ND_VIEWER": "true"}


@pytest.mark.parametrize("where", DEFECTS)
def test_a_defect_gives_the_terminal_back_and_is_two_lines(folder: Path, where: str) -> None:
    module, names, key = DEFECTS[where]
    with Visit(f"{LAYER}:{UNIT}", folder=folder, columns=110, env=breaking(folder, module, names)) as visit:
        visit.opened("top images")
        (folder / "broken").touch()
        visit.press(key)
    restored(visit, 1, *DEFECT)


def test_a_defect_of_the_first_screen_gives_the_terminal_back_too(folder: Path) -> None:
    (folder / "broken").touch()
    env = breaking(folder, "ndissect.tui.app.table", "Table.render_line")
    with Visit(folder=folder, env=env) as visit:
        pass
    restored(visit, 1, *DEFECT)


def test_the_traceback_of_a_defect_is_there_for_who_asks(folder: Path) -> None:
    (folder / "broken").touch()
    env = {**breaking(folder, "ndissect.tui.app.table", "Table.render_line"), "PYTHON_COLORS": "0"}  # for 3.13
    with Visit("--debug", folder=folder, env=env) as visit:
        pass
    assert visit.code == 1
    assert modes(visit.raw) == ON_AT_FIRST
    assert visit.settings == as_a_new_terminal_has_it()
    assert "Traceback" in visit.after
    assert "ZeroDivisionError: a defect of its own" in visit.after


# What a terminal sends that is no key


@pytest.mark.parametrize(
    "sent",
    [b"\xe9", b"\xea\xff\xc3", b"\x1bP>|WezTerm 2022\x1b\\", b"\x1b]11;rgb:eeee/f4f4/d6d6\x1b\\", b"\x1b]52;c;qqq\x07"],
    ids=["latin-1", "no text", "version", "colour", "clipboard"],
)
def test_bytes_that_are_no_text_and_a_terminals_answers_are_no_keys(folder: Path, sent: bytes) -> None:
    with Visit(LAYER, folder=folder) as visit:
        visit.opened()
        os.write(visit._ours, sent[:3])
        os.write(visit._ours, sent[3:])
        visit.press("j")
        visit.press("\x1b")  # the escape key still works, alone
        visit.opened("layers")
        visit.press("q")
    restored(visit, 0)
    assert [path.name for path in folder.iterdir() if path.name != ".local"] == ["small.nd.h5"]


def test_a_defect_at_the_keyboard_is_two_lines_and_no_success(folder: Path) -> None:
    with Visit(LAYER, folder=folder, env=breaking(folder, "ndissect.tui.app.answers", "AnswerFilter.feed")) as visit:
        visit.opened()
        (folder / "broken").touch()
        visit.press("j")
    restored(visit, 1, *DEFECT)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_answers_are_taken_out_of_keys_however_they_are_cut(size: int) -> None:
    keys = "a\x1b[Bb\x1b\x1b[Ac\x1bxd"
    text = "a\x1b[B\x1bP>|Wez\x1bTerm 1\x1b\\b\x1b\x1b[A\x1b]11;rgb:q/q\x07c\x1b_G ok\x1b\\\x1bxd\x1b"
    answers = AnswerFilter()
    got = "".join(answers.feed(text[i : i + size], 0.001 * i) for i in range(0, len(text), size))
    assert got == keys
    assert answers.waits
    assert (answers.release(0.0), answers.release(9.0), answers.waits) == ("", "\x1b", False)


def test_a_string_without_an_end_is_forgotten() -> None:
    answers = AnswerFilter()
    assert answers.feed("x\x1bPqq", 0.0) == "x"  # such as the key P with Alt
    assert answers.feed("q", 0.1) == ""
    assert answers.release(0.3) == ""
    assert answers.feed("j", 0.7) == "j"
