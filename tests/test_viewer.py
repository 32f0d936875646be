"""Which program shows a picture, and what happens when it works, fails, is absent or hangs."""

from __future__ import annotations

import base64
import io
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from ndissect.store.errors import NDError
from ndissect.tui.pictures.viewer import (
    Viewer,
    available_viewers,
    clipboard_sequence,
    find_viewer,
    open_image,
    run_viewer,
)

RECORD = 'printf "%s\\0" "$@" > "$RECORD"'
NAMES = ["unit.png", "unit 3; touch pwned.png", 'it\'s "quoted" $(touch pwned).png', "-rf {}.png", "Straße 街.png"]


class Bin:
    """A folder of small scripts that stand for viewers, the only folder on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.record = folder / "record"
        self.environ = {"PATH": str(self.folder), "RECORD": str(self.record), "HOME": str(folder)}

    def add(self, name: str, body: str = RECORD, mode: int = 0o755, shebang: str = "#!/bin/sh\n") -> Path:
        script = self.folder / name
        script.write_text(f"{shebang}{body}\n")
        script.chmod(mode)
        return script

    def recorded(self) -> list[str]:
        until = time.monotonic() + 10
        while not self.record.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return self.record.read_bytes().decode().split("\0")[:-1]


@pytest.fixture
def viewers(tmp_path: Path) -> Bin:
    return Bin(tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "unit 3.png"
    path.write_bytes(b"png")
    return path


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A pseudo-terminal: the end that a person reads, and the end that a program writes to."""
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


EVERY = ("code", "open", "xdg-open", "feh", "kitten", "imgcat", "timg", "chafa", "viu")


@pytest.mark.parametrize(
    ("environ", "installed", "expected"),
    [
        ({}, (), "print"),
        ({}, ("xdg-open", "feh", "code", "open", "kitten", "imgcat"), "print"),
        ({}, EVERY, "timg"),
        ({}, ("viu", "chafa"), "chafa"),
        ({}, ("viu",), "viu"),
        ({"TERM_PROGRAM": "vscode", "DISPLAY": ":0"}, EVERY, "code"),
        ({"TERM_PROGRAM": "vscode"}, ("chafa",), "chafa"),
        ({"DISPLAY": ":0"}, EVERY, "xdg-open"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, EVERY, "xdg-open"),
        ({"DISPLAY": ""}, EVERY, "timg"),
        ({"DISPLAY": ":0"}, ("feh", "chafa"), "feh"),
        ({"DISPLAY": ":0", "KITTY_WINDOW_ID": "1"}, ("kitten",), "kitten"),
        ({"KITTY_WINDOW_ID": "1"}, EVERY, "kitten"),
        ({"TERM": "xterm-kitty"}, EVERY, "kitten"),
        ({"TERM_PROGRAM": "iTerm.app"}, EVERY, "imgcat"),
        ({"LC_TERMINAL": "iTerm2", "SSH_CONNECTION": "a b"}, EVERY, "imgcat"),
        ({"ND_VIEWER": "viu", "TERM_PROGRAM": "vscode", "DISPLAY": ":0"}, EVERY, "viu"),
        ({"ND_VIEWER": "  ", "DISPLAY": ":0"}, EVERY, "xdg-open"),
    ],
)
def test_the_order_of_viewers(viewers: Bin, environ: dict[str, str], installed: tuple[str, ...], expected: str) -> None:
    for name in installed:
        viewers.add(name)
    assert find_viewer({**viewers.environ, **environ}, "linux").name == expected


def test_on_a_mac_a_window_opens_unless_somebody_else_sits_there(viewers: Bin) -> None:
    for name in EVERY:
        viewers.add(name)
    assert find_viewer(viewers.environ, "darwin").name == "open"
    assert find_viewer({**viewers.environ, "SSH_CONNECTION": "a b"}, "darwin").name == "timg"


def test_kinds_and_options(viewers: Bin) -> None:
    for name in EVERY:
        viewers.add(name)
    environ = {**viewers.environ, "TERM_PROGRAM": "vscode", "DISPLAY": ":0", "KITTY_WINDOW_ID": "1"}
    found = [(v.name, v.argv[1:], v.kind) for v in available_viewers(environ, "linux")]
    assert found == [
        ("code", ("-r",), "window"),
        ("xdg-open", (), "window"),
        ("feh", (), "window"),
        ("kitten", ("icat",), "terminal"),
        ("timg", (), "terminal"),
        ("chafa", (), "terminal"),
        ("viu", (), "terminal"),
        ("print", (), "print"),
    ]


def test_a_viewer_that_draws_in_the_terminal_is_not_used_where_there_is_none(viewers: Bin, picture: Path) -> None:
    viewers.add("chafa")
    out = io.StringIO()
    assert open_image(picture, viewers.environ, out) == str(picture)
    assert out.getvalue() == ""
    assert not viewers.record.exists()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("show", "terminal", ["PATH"]),
        ("show --fast -g 10x10", "terminal", ["--fast", "-g", "10x10", "PATH"]),
        ("show {} --title 'unit 3'", "terminal", ["PATH", "--title", "unit 3"]),
        ("show --file={}", "terminal", ["--file=PATH"]),
        ("show a {} &", "window", ["a", "PATH"]),
        ("feh -Z", "window", ["-Z", "PATH"]),
        ("'~/bin/show'", "terminal", ["PATH"]),
    ],
)
def test_nd_viewer_is_split_as_a_shell_would(
    viewers: Bin, picture: Path, monkeypatch: pytest.MonkeyPatch, value: str, kind: str, expected: list[str]
) -> None:
    monkeypatch.setenv("HOME", viewers.environ["HOME"])
    viewers.add("show")
    viewers.add("feh")
    environ = {**viewers.environ, "ND_VIEWER": value}
    assert find_viewer(environ).kind == kind
    assert str(picture) in open_image(picture, environ, io.StringIO())
    assert viewers.recorded() == [part.replace("PATH", str(picture)) for part in expected]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["show", "show {}", "feh"])
def test_any_file_name_arrives_as_one_argument_and_nothing_is_executed(
    viewers: Bin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, name: str
) -> None:
    viewers.add("show")
    viewers.add("feh")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"png")
    open_image(Path(name), {**viewers.environ, "ND_VIEWER": value}, io.StringIO())
    assert viewers.recorded() == [str(tmp_path / name)]
    assert not list(tmp_path.rglob("pwned*"))


def test_a_missing_picture_is_said_before_anything_starts(viewers: Bin, tmp_path: Path) -> None:
    viewers.add("show")
    with pytest.raises(NDError, match=r"absent\.png"):
        open_image(tmp_path / "absent.png", {**viewers.environ, "ND_VIEWER": "show"}, io.StringIO())
    assert not viewers.record.exists()


@pytest.mark.parametrize("value", ["absent", "/absent/feh", "plain", "feh 'x"])
def test_a_viewer_that_cannot_be_used_is_named(viewers: Bin, value: str) -> None:
    viewers.add("plain", mode=0o644)
    with pytest.raises(NDError, match="ND_VIEWER") as caught:
        find_viewer({**viewers.environ, "ND_VIEWER": value})
    assert value in caught.value.message
    assert "feh" in caught.value.hint


@pytest.mark.parametrize("suffix", ["", " &"])
def test_a_viewer_that_fails_is_named_with_its_exit_code(viewers: Bin, picture: Path, suffix: str) -> None:
    viewers.add("show", 'echo "no such display" >&2; exit 3')
    with pytest.raises(NDError, match=r"'show'.*exit code 3") as caught:
        open_image(picture, {**viewers.environ, "ND_VIEWER": f"show{suffix}"}, io.StringIO())
    assert ("no such display" in caught.value.message) == bool(suffix)  # a terminal viewer has said it there already
    assert f"'{picture}'" in caught.value.hint


def test_a_viewer_that_was_found_and_fails_is_named_too(viewers: Bin, picture: Path) -> None:
    viewers.add("xdg-open", 'echo "no method" >&2; exit 3')
    with pytest.raises(NDError, match=r"'xdg-open' failed with exit code 3: no method"):
        open_image(picture, {**viewers.environ, "DISPLAY": ":0"}, io.StringIO())


@pytest.mark.parametrize("suffix", ["", " &"])
def test_a_viewer_that_is_killed_or_no_program(viewers: Bin, picture: Path, suffix: str) -> None:
    viewers.add("crash", "kill -SEGV $$")
    viewers.add("text", "not a program", shebang="")
    with pytest.raises(NDError, match="SIGSEGV"):
        open_image(picture, {**viewers.environ, "ND_VIEWER": f"crash{suffix}"}, io.StringIO())
    with pytest.raises(NDError, match=r"'text'.*could not be started: Exec format"):
        open_image(picture, {**viewers.environ, "ND_VIEWER": f"text{suffix}"}, io.StringIO())


def test_a_window_stays_open_by_itself(viewers: Bin, picture: Path) -> None:
    viewers.add("feh", 'printf "%s\\0" $$ > "$RECORD"; echo noise; echo noise >&2; exec /bin/sleep 60')
    begun = time.monotonic()
    done = open_image(picture, {**viewers.environ, "DISPLAY": ":0"}, io.StringIO())
    assert time.monotonic() - begun < 10
    assert done == f"Opened with feh: {picture}"
    pid = int(viewers.recorded()[0])
    try:
        assert os.getsid(pid) != os.getsid(0)  # Ctrl-C, or the end of the terminal, does not close it
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_viewer_in_the_terminal_draws_there_and_is_waited_for(
    viewers: Bin, picture: Path, terminal: tuple[int, TextIO]
) -> None:
    reader, stream = terminal
    viewers.add("chafa", '[ -t 1 ] && printf "picture"; /bin/sleep 0.5; : > "$RECORD"')
    stream.write("before ")
    assert open_image(picture, viewers.environ, stream) == f"Shown by chafa: {picture}"
    assert viewers.record.exists()
    assert os.read(reader, 1000) == b"before picture"


def test_without_a_viewer_the_path_goes_to_the_clipboard(
    viewers: Bin, picture: Path, terminal: tuple[int, TextIO]
) -> None:
    reader, stream = terminal
    done = open_image(picture, viewers.environ, stream)
    assert str(picture) in done
    assert "\n" not in done
    written = os.read(reader, 1000)
    assert written == b"\x1b]52;c;" + base64.b64encode(os.fsencode(picture)) + b"\x07"


def test_print_can_be_chosen_although_there_is_a_viewer(viewers: Bin, picture: Path) -> None:
    viewers.add("feh")
    *_, last = available_viewers({**viewers.environ, "DISPLAY": ":0"})
    assert last == Viewer((), "print", "no image viewer found")
    assert run_viewer(last, picture, viewers.environ, io.StringIO()) == str(picture)
    assert not viewers.record.exists()


def test_inside_tmux_the_sequence_is_also_wrapped() -> None:
    plain = clipboard_sequence("/tmp/a.png", {})
    both = clipboard_sequence("/tmp/a.png", {"TMUX": "/tmp/tmux-0/default,1,0"})
    assert both == plain + "\x1bPtmux;\x1b" + plain + "\x1b\\"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_tmux_itself_takes_the_path(tmp_path: Path) -> None:
    script = tmp_path / "clip.py"
    script.write_text(
        "import os, sys, time\n"
        "from ndissect.tui.pictures.viewer import clipboard_sequence\n"
        f"sys.stdout.write(clipboard_sequence({str(tmp_path)!r}, os.environ)); sys.stdout.flush(); time.sleep(60)\n"
    )
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    start = [*tmux, "new-session", "-d", "cat", ";", "set", "-g", "set-clipboard", "on"]
    subprocess.run([*start, ";", "new-window", sys.executable, str(script)], check=True, cwd=tmp_path)
    try:
        until = time.monotonic() + 20
        shown = ""
        while shown != str(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
            shown = subprocess.run([*tmux, "show-buffer"], capture_output=True, text=True).stdout
        assert shown == str(tmp_path)
    finally:
        subprocess.run([*tmux, "kill-server"])
