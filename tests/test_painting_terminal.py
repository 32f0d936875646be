"""``nd paint`` in terminals: in the pixels of one that shows pictures, and a whole visit in tmux over a network."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import get_args

import cli
import pytest
import tmux
from cli import Terminal, wait_until
from painting_visit import FAKE
from picture_terminal import PictureTerminal
from tmux import Tmux

from ndissect.tui.cli.paint import Pictures
from ndissect.tui.pictures.graphics import Protocol

TESTS = Path(__file__).parent
# As nd paint starts it, over the process that pretends to paint.
VISIT = """
import os, sys
from pathlib import Path
from ndissect.tui.app.painting import paint_in_terminal
from ndissect.tui.pictures.graphics import choose_protocol
command = [sys.executable, "-P", {fake!r}, "8", "64"]
_, code = paint_in_terminal(Path("x.nd.h5"), 3, command, protocol=choose_protocol("auto", os.environ))
sys.exit(code)
"""


class Visit(Terminal):
    """The painting screen on a terminal with the environment ``env``; ``screen`` is what it shows."""

    def __init__(self, folder: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli, "ND", Path(sys.executable))
        super().__init__("-c", VISIT.format(fake=str(FAKE)), folder=folder, env=env)

    @property
    def screen(self) -> PictureTerminal:
        """What the terminal shows."""
        return PictureTerminal(80, 24).feed(self.raw)

    def see(self, picture: bool) -> None:
        """Read until there is a picture, or none."""
        while (self.screen.seen is not None) != picture:
            assert self._read(), self.text[-2000:]


@pytest.mark.parametrize(
    ("env", "way"),
    [
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
    ],
)
def test_a_terminal_that_shows_pictures_gets_them_and_none_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], way: str
) -> None:
    with Visit(tmp_path, env, monkeypatch) as visit:
        visit.see(picture=True)
        assert {sent[0] for sent in visit.screen.sent} == {way}
        visit.type("?")
        visit.see(picture=False)
        visit.type("?")
        visit.see(picture=True)
        visit.type("\x1a")
        wait_until(lambda: "T" in Path(f"/proc/{visit.process.pid}/stat").read_text().rpartition(")")[2][:3])
        visit.see(picture=False)
        visit.process.send_signal(signal.SIGCONT)
        visit.see(picture=True)
        visit.type("q")
    assert visit.code == 0, visit.text
    assert visit.screen.seen is None
    assert "Traceback" not in visit.text


def test_in_tmux_it_is_text_and_what_is_said_is_saved(tmp_path: Path) -> None:
    if tmux.TMUX is None:
        pytest.skip("tmux is not installed")
    planted = TESTS / "planted_generator.py"
    words = ("--generator", "--labeller", f"{planted}:labeller", "-l", "layer", "--samples", "8", "--quantile", "0.6")
    done = cli.nd("dissect", f"{planted}:generator", *words, "-o", "x.nd.h5", "--null", "0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with Tmux(tmp_path, env={"KITTY_WINDOW_ID": "1"}) as terminal:
        terminal.run("nd paint x.nd.h5")
        terminal.wait_for("x.nd.h5", "layer", "▀", "no edits yet")
        terminal.press("j", "l", "Space")
        terminal.wait_for("row 5, column 5 (selected)", "1 of 8 x 8")
        terminal.press("Down", "Space")
        terminal.wait_for("2 of 8 x 8")
        terminal.type("/tre")
        terminal.press("Enter")
        terminal.wait_for("tree  strength 1")
        terminal.type("+")
        terminal.wait_for("1 + tree  2 cells", "px changed elsewhere", "tree ")
        terminal.press("Up")
        terminal.type("-")
        terminal.wait_for("2 - tree  2 cells")
        terminal.type("u")
        terminal.wait_for("1 + tree  2 cells", "px changed elsewhere", gone=("2 - tree",))
        terminal.type("s")
        terminal.wait_for("saved: x-layer-0.png", "--edits x-layer-0.json")
        terminal.type("q")
        terminal.wait_for(tmux.PROMPT, gone=("strength",))
    again = cli.nd("paint", "x.nd.h5", "--edits", "x-layer-0.json", "-o", "again.png", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "x-layer-0.png").read_bytes()
    words = ("--edits", "x-layer-0.json", "--pictures", "kitty")
    cli.two_lines(cli.nd("paint", "x.nd.h5", *words, folder=tmp_path).stderr, "--pictures", "leave out the edits")


def test_every_way_to_draw_can_be_asked_for() -> None:
    assert {*Pictures} == {"auto", *get_args(Protocol)}
