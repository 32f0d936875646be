"""``nd browse`` and its terminal: which ones it takes, what it writes there, how it leaves them, come what may."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cli
import pytest
from cli import Terminal, wait_until
from store_factory import write_small

from ndissect.tui.app.answers import AnswerFilter
from ndissect.tui.app.keyboard import LosableFile

LAYER, UNIT = "layer4.1.conv2", 5
# Modes that a terminal has on from the start: the cursor is visible, long lines wrap. All others are off.
ON_AT_FIRST = {7, 25}
ALTERNATE_SCREEN = 1049


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "small.nd.h5")
    return tmp_path


def program(folder: Path, name: str, script: str) -> Path:
    """An executable shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class Visit(Terminal):
    """``nd browse`` on a terminal of its own, and what it leaves behind."""

    def __init__(self, *args: str, folder: Path, **more: Any) -> None:
        super().__init__("browse", *args, folder=folder, **more)
        self._mark = 0
        self.settings: list[Any] = []

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            while self._read():
                pass
            with contextlib.suppress(termios.error):  # there is no terminal any more after it was hung up
                self.settings = termios.tcgetattr(self._ours)
        super().__exit__(*error)

    def _read(self) -> bool:
        try:
            return super()._read()
        except TimeoutError:
            raise TimeoutError(self.since[-3000:]) from None

    def press(self, keys: str) -> None:
        """Press keys; ``see`` is about what is drawn from now on."""
        self._mark = len(self._seen)
        self.type(keys)

    def see(self, *words: str) -> None:
        """Read until all of ``words`` have been drawn since the last key."""
        while not all(word in self.since for word in words):
            try:
                assert self._read(), f"nd ended without drawing {words}; last:\n{self.since[-3000:]}"
            except TimeoutError as e:
                raise TimeoutError(f"never drawn: {words}; last:\n{e}") from None

    @property
    def since(self) -> str:
        """What was drawn since the last key, without escape sequences."""
        raw = self._seen[self._mark :].decode("utf-8", "replace")
        return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])", "", raw).replace("\r\n", "\n")

    def opened(self, *words: str) -> Visit:
        """Wait until the UI is there."""
        self.see("small.nd.h5", "help", *words)
        return self

    def hang_up(self) -> None:
        """The connection to the terminal is lost."""
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._ours)
        os.close(nothing)

    @property
    def printed(self) -> bytes:
        """Everything that was printed."""
        return self._seen

    @property
    def after(self) -> str:
        """What was printed when the screen had been given back."""
        tail = self.raw.rpartition(f"\x1b[?{ALTERNATE_SCREEN}l")[2]
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", tail).replace("\r\n", "\n")


def modes(raw: str) -> set[int]:
    """The terminal's modes that are on after ``raw``."""
    on = set(ON_AT_FIRST)
    for numbers, switch in re.findall(r"\x1b\[\?([\d;]+)([hl])", raw):
        for number in map(int, numbers.split(";")):
            (on.add if switch == "h" else on.discard)(number)
    return on


def colours(raw: str) -> list[str]:
    """The parameters of every sequence that sets colours or attributes."""
    return re.findall(r"\x1b\[([\d;:]*)m", raw)


def as_a_new_terminal_has_it() -> list[Any]:
    ours, theirs = pty.openpty()
    try:
        return termios.tcgetattr(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def restored(visit: Visit, code: int, *said: str) -> None:
    """Assert that nd ended with ``code``, gave the terminal back, and said two lines with ``said``, or nothing."""
    assert visit.code == code, visit.text
    taken = {int(n) for n in re.findall(r"\x1b\[\?(\d+)h", visit.raw)}
    assert {ALTERNATE_SCREEN, 1000, 2004} <= taken, "alternate screen, mouse, bracketed paste: there was a UI"
    assert "\x1b[?25l" in visit.raw
    assert modes(visit.raw) == ON_AT_FIRST
    assert len(re.findall(r"\x1b\[>\d*u", visit.raw)) == len(re.findall(r"\x1b\[<\d*u", visit.raw)), "keyboard protocol"
    assert (colours(visit.raw) or ["0"])[-1] in ("", "0"), "no colour is left on"
    assert visit.settings == as_a_new_terminal_has_it()
    assert "Traceback" not in visit.text
    if said:
        cli.two_lines(visit.after, *said)
    else:
        assert visit.after.strip() == ""


# Terminals that it does not take


def test_without_a_terminal_it_says_so_and_draws_nothing(folder: Path) -> None:
    cli.failed(cli.nd("browse", "small.nd.h5", folder=folder), 2, "nd browse needs a terminal", "nd inspect")


@pytest.mark.parametrize("piped", ["stdin", "stdout", "stderr"])
def test_input_output_and_errors_must_all_be_the_terminal(folder: Path, piped: str) -> None:
    ours, theirs = pty.openpty()
    try:
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        streams[piped] = subprocess.DEVNULL if piped == "stdin" else subprocess.PIPE
        env = cli.environment(folder, {"TERM": "xterm-256color"})
        done = subprocess.run([str(cli.ND), "browse", "small.nd.h5"], cwd=folder, env=env, timeout=60, **streams)
        assert done.returncode == 2
        said = (done.stderr or os.read(ours, 1 << 16)).decode().replace("\r\n", "\n")
        cli.two_lines(said, "nd browse needs a terminal", "nd inspect")
        assert "\x1b" not in said
        assert not done.stdout
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_whose_cursor_cannot_be_moved_gets_a_refusal(folder: Path, term: str) -> None:
    done = cli.on_terminal("browse", "small.nd.h5", folder=folder, columns=200, env={"TERM": term})
    assert done.code == 1
    assert "\x1b" not in done.raw
    cli.two_lines(done.text, "nd browse", f"TERM={term}", "nd inspect")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("gone.nd.h5",), 2, ("gone.nd.h5",)),
        (("small.nd.h5", "layer5"), 2, ("layer5", LAYER)),
        (("small.nd.h5", f"{LAYER}:6"), 2, ("6", "0 to 5")),
        (("small.nd.h5", LAYER, "more"), 2, ("more",)),
        (("noise.nd.h5",), 1, ("noise.nd.h5",)),
        (("cut.nd.h5",), 1, ("cut.nd.h5",)),
    ],
    ids=["no such store", "no such layer", "no such unit", "a word too many", "no store at all", "cut short"],
)
def test_what_cannot_be_opened_is_said_before_the_screen_is_taken(
    folder: Path, args: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    (folder / "noise.nd.h5").write_bytes(b"noise" * 1000)
    (folder / "cut.nd.h5").write_bytes((folder / "small.nd.h5").read_bytes()[:5000])
    done = cli.on_terminal("browse", *args, folder=folder, columns=200)
    assert done.code == code, done.text
    assert "\x1b[?" not in done.raw
    cli.two_lines(done.text, *said)


# What it writes to those that it takes


def tour(folder: Path, env: Mapping[str, str]) -> Visit:
    """A visit to every kind of page."""
    with Visit("small.nd.h5", folder=folder, env=env) as visit:
        visit.opened("features.0")
        visit.press("j\r")
        visit.see("threshold", "wheel")
        visit.press(" \r")
        visit.see("top images")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("3")
        visit.see("unique detectors")
        visit.press("4")
        visit.see("stores")
        visit.press("?")
        visit.see("one row")
        visit.press("1")
        visit.see("best unit")
        visit.press("/iou>")
        visit.see("iou>")
        visit.press("\x03")
    restored(visit, 0)
    return visit


def test_no_color_draws_without_a_colour(folder: Path) -> None:
    codes = {p for sequence in colours(tour(folder, {"NO_COLOR": "1"}).raw) for p in sequence.split(";")}
    coloured = {str(n) for base in (30, 40, 90, 100) for n in range(base, base + 8)} | {"38", "48", "58"}
    assert not codes & coloured
    assert "7" in codes, "what has the keys is still seen"


@pytest.mark.parametrize("term", ["xterm-16color", "linux", "screen", "xterm-256color"])
def test_only_the_terminals_own_sixteen_colours_are_used(folder: Path, term: str) -> None:
    visit = tour(folder, {"TERM": term})
    assert not [sequence for sequence in colours(visit.raw) if re.search(r"[345]8[;:]", sequence)]
    assert any(re.search(r"(^|;)(3[1-7]|9[0-7])(;|$)", sequence) for sequence in colours(visit.raw)), "there is colour"


NOT_UTF8 = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.parametrize("kind", NOT_UTF8)
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(folder: Path, kind: str) -> None:
    visit = tour(folder, NOT_UTF8[kind])
    text = visit.printed.decode("latin-1" if kind == "latin-1" else "ascii")
    assert "traffic light" in text
    assert "> layers" in text
    assert ("señal" if kind == "latin-1" else r"se\xf1al") in text
    assert r"\u8857\u9053" in text


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


# The store on disk


def test_a_store_deleted_while_it_is_open_is_told_and_nothing_more(folder: Path) -> None:
    with Visit("small.nd.h5", folder=folder) as visit:
        visit.opened("features.0")
        visit.press("")
        (folder / "small.nd.h5").unlink()
        visit.see("small.nd.h5 is gone from the disk")
        visit.press("\r")
        visit.see("features.0")  # its units, where they had been read, or why they cannot be read
        visit.press("r")
        visit.see("no store at small.nd.h5")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("q")
    restored(visit, 0)


def test_a_store_replaced_while_it_is_open_is_told_and_read_when_asked(folder: Path) -> None:
    with Visit("small.nd.h5", folder=folder) as visit:
        visit.opened("features.0")
        visit.press("")
        write_small(folder / "small.nd.h5", layers={"features.0": (9, (4, 5)), "another": (4, (3, 3))})
        visit.see("small.nd.h5 was replaced", "r reads the new one")
        visit.press("r")
        visit.see("another")
        visit.press("q")
    restored(visit, 0)


# What it needs

IMPORTED = """
import atexit, sys
atexit.register(lambda: open("imported", "w").write("\\n".join(sorted(sys.modules))))
"""


def test_neither_torch_nor_the_engine_is_imported_whatever_is_looked_at(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(IMPORTED)
    env = {"PYTHONPATH": str(folder / "site"), "ND_VIEWER": f"{program(folder, 'see', 'touch seen')} &"}
    with Visit(f"{LAYER}:{UNIT}", folder=folder, env=env) as visit:
        visit.opened("top images")
        visit.press("o")
        visit.see("Opened with see")
        visit.press("e")
        visit.see("rows written")
        visit.press("2")
        visit.see("detectors by layer")
        visit.press("3")
        visit.see("unique detectors")
        visit.press("q")
    restored(visit, 0)
    imported = (folder / "imported").read_text().split()
    assert "ndissect.tui.app.app" in imported
    assert [name for name in imported if name.partition(".")[0] in ("torch", "torchvision", "pandas", "scipy")] == []
    assert [name for name in imported if name.startswith("ndissect.engine")] == []


# A run that goes on

# The network waits at its second image for the file `first`; it takes its time over the images that are counted, of
# which results are published every five seconds, also where a busy machine takes long to make them, and waits at the
# last one for the file `second`.
AT_ANY_COST = """
from ndissect.engine.run import publishing

publishing._SHARE = 1e9
"""
SLOW = """
    def forward(self, x):
        from pathlib import Path
        from time import monotonic, sleep
        self.calls = getattr(self, "calls", 0) + 1
        first, last = 2 + {examined}, 1 + {examined} + {images}  # one call looks at the layers, some try the network
        limit = 100 if self.calls in (first, last) else 0.6 if self.calls > first else 0
        gate, end = Path("first" if self.calls == first else "second"), monotonic() + limit
        while not gate.exists() and monotonic() < end:
            sleep(0.02)
"""


def test_a_run_is_watched_from_its_first_images_to_its_store(tmp_path: Path) -> None:
    cli.write_inputs(tmp_path)
    network = cli.NETWORK.replace("    def forward(self, x):\n", SLOW.format(images=cli.IMAGES, examined=cli.EXAMINED))
    assert network != cli.NETWORK
    (tmp_path / "net.py").write_text(network + AT_ANY_COST)
    store = tmp_path / "net-small.nd.h5"
    run = subprocess.Popen(
        [str(cli.ND), *cli.DISSECT, "--batch-size", "1"],
        cwd=tmp_path,
        env=cli.environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        wait_until(lambda: (tmp_path / f".{store.name}.run").exists() or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        with Visit(folder=tmp_path) as visit:
            visit.see("net-small.nd.h5", "thresholds", "no counts yet", "units", "deep.pool", "q quit")
            (tmp_path / "first").touch()
            visit.see("images so far")
            assert not store.exists()
            visit.press("\r")
            visit.see("threshold", "tree")
            (tmp_path / "second").touch()
            visit.see("the run has ended: this is its store")
            assert store.exists()
            visit.press("q")
        restored(visit, 0)
        out, _ = run.communicate(timeout=60)
        assert run.returncode == 0, out
    finally:
        run.kill()
        run.wait()
    with Visit(folder=tmp_path) as again:
        again.see("net-small.nd.h5 › units", "tree")
        again.press("q")
    restored(again, 0)


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
