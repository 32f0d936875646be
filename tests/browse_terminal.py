"""``nd browse`` on a terminal of its own, for tests of what it writes there and of how it leaves it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import termios
from pathlib import Path
from typing import Any

import cli
from cli import Terminal

LAYER, UNIT = "layer4.1.conv2", 5
# Modes that a terminal has on from the start: the cursor is visible, long lines wrap. All others are off.
ON_AT_FIRST = {7, 25}
ALTERNATE_SCREEN = 1049
NOT_UTF8 = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


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
