"""Visits to the terminal UI without a terminal: open it over a store, press keys, read the screen as lines of text.

    with Visit(store, size=(80, 24)) as visit:
        visit.press("enter", "j")
        visit.type("/cat:object")
        assert visit.keys.endswith("1/2 of 9")

Every look at the screen also checks that it is as many lines and cells as the terminal has.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import numpy as np
from textual import events
from textual.pilot import Pilot

from ndissect.store.model import Dissection
from ndissect.store.reader import Store
from ndissect.store.scores import label_units
from ndissect.tui.app.app import Browser
from ndissect.tui.app.state import Bookmark

#: What the shell of whoever runs the tests may have set, and what would change what is seen.
_UNSET = (
    "ND_STORE", "ND_VIEWER", "NO_COLOR", "TMUX", "DISPLAY", "WAYLAND_DISPLAY", "TERM_PROGRAM", "KITTY_WINDOW_ID",
    "LC_TERMINAL", "SSH_CONNECTION", "COLORTERM", "TEXTUAL", "TEXTUAL_ANIMATIONS", "FORCE_COLOR",
)  # fmt: skip
_NAMED = {" ": "space", "/": "slash", "[": "left_square_bracket", "]": "right_square_bracket", "?": "question_mark",
          ":": "colon", "!": "exclamation_mark", "\n": "enter", "+": "plus", "-": "minus",
          "<": "less_than_sign"}  # fmt: skip


@contextlib.contextmanager
def surroundings(home: Path, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """The environment of a reader whose home is ``home``, without an image viewer unless ``more`` has one."""
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    environment |= {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "ND_CACHE": str(home / "cache"),
        "PATH": str(home / "bin"),
        "TERM": "xterm-256color",
        **(more or {}),
    }
    with mock.patch.dict(os.environ, environment, clear=True):
        yield


def best_ious(path: Path) -> dict[str, float]:
    """Each concept's largest IoU with any unit of the store at ``path``, whatever the unit is labelled."""
    with Store(path) as store:
        views = [store.layer(name) for name in store.layer_names]
        every = np.array([view.unit_ious(unit)[0] for view in views for unit in range(view.units)])
        return {store.concepts.label(row): float(every[:, row].max()) for row in range(len(store.concepts))}


@dataclass(frozen=True)
class Unit:
    """What a store says of a unit; ``label`` and ``category`` are "" where it has none, ``images`` hold its label."""

    layer: str
    unit: int
    label: str
    category: str
    iou: float
    threshold: float
    dead: bool
    images: int

    @property
    def name(self) -> str:
        """``layer4:107``."""
        return f"{self.layer}:{self.unit}"

    @property
    def shown(self) -> list[str]:
        """The words of its row in the Units table, as far as there is room: all but the bar."""
        words = ["dead"] if self.dead else self.label.split() or ["-"]
        category = [self.category] if self.category else []
        iou, seen = f"{self.iou:.3f}" if self.iou > 0 else "-", [str(self.images)] if self.images else []
        return [str(self.unit), *words, *category, iou, f"{self.threshold:#.4g}", *seen]


def units_in(made: Dissection) -> list[Unit]:
    """The units of all layers of ``made``, in its order."""
    concepts, images = made.concepts, made.concept_counts.images.sum(0)
    units = []
    for layer in made.layers:
        for unit, (row, iou) in enumerate(zip(*label_units(layer.best), strict=True)):
            label, category = (concepts.label(row), concepts.category_of(row)) if row >= 0 else ("", "")
            threshold, dead = float(layer.statistics.threshold[unit]), bool(layer.statistics.dead[unit])
            seen = int(images[row]) if row >= 0 else 0
            units.append(Unit(layer.name, unit, label, category, float(iou), threshold, dead, seen))
    return units


def words(line: str) -> list[str]:
    """The words of a row, without the cursor, the mark and bars."""
    return [w for w in line.split() if not set(w) <= set("›●▏▎▍▌▋▊▉█")]


class Visit:
    """``Browser`` over ``store`` on a screen of ``size``; ``home`` keeps its bookmark and pictures, the store's folder
    unless given.
    """

    def __init__(
        self,
        store: Path,
        bookmark: Bookmark | None = None,
        *,
        size: tuple[int, int] = (80, 24),
        home: Path | None = None,
        env: Mapping[str, str] | None = None,
        unicode: bool = True,
        preview: bool = False,
    ) -> None:
        self._made = lambda: Browser(store, bookmark, unicode=unicode, preview=preview)
        self._size = size
        self._around = surroundings(home or store.parent, env)
        self._runner = asyncio.Runner()
        self._context: AbstractAsyncContextManager[Pilot[None]]
        self.app: Browser
        self.pilot: Pilot[None]
        self.sent: list[str] = []  #: what was written to the terminal besides the screen
        self.suspended = False  #: whether the UI asked to be stopped, as by ctrl+z

    def __enter__(self) -> Visit:
        self._around.__enter__()
        try:
            self.app = self._made()
            self.app.action_suspend_process = self._suspend  # type: ignore[method-assign]
            self._context = self.app.run_test(size=self._size)
            self.pilot = self._runner.run(self._context.__aenter__())
            driver = self.app._driver
            assert driver is not None
            driver.write = self.sent.append  # type: ignore[method-assign]
            self.pause()
            deadline = time.monotonic() + 10
            while self.app.is_running and not self.app.screen.size and time.monotonic() < deadline:
                self.pause(0.01)  # on a busy machine the first layout may come late
        except BaseException:
            self._runner.close()
            self._around.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._runner.run(self._context.__aexit__(t, e, tb))
        finally:
            self._runner.close()
            self._around.__exit__(None, None, None)
        if e is None and self.app.failure is not None:
            raise self.app.failure

    def _suspend(self) -> None:
        self.suspended = True

    # Doing

    def press(self, *keys: str) -> None:
        """Press keys, named as Textual names them, or as they are typed where that is one character."""
        for key in keys:
            name = _NAMED.get(key, key)
            character = key if len(key) == 1 else None
            self._runner.run(self._press(events.Key(name, character)))

    async def _press(self, event: events.Key) -> None:
        # As Pilot.press, which sleeps for 80 ms a key to be sure that nothing goes on.
        event.set_sender(self.app)
        driver = self.app._driver
        assert driver is not None
        driver.send_message(event)
        await self._settle()

    async def _settle(self) -> None:
        """Wait until all messages, and the messages that those made, have been handled, and the layout is new."""
        for _ in range(4):
            await self.pilot._wait_for_screen()
            if self.app.is_running:
                self.app.screen._on_timer_update()

    def type(self, text: str) -> None:
        """Press the key of each character; a newline is enter."""
        self.press(*text)

    def pause(self, seconds: float = 0.0) -> None:
        """Let the UI work until it has done what there is to do, after ``seconds``."""
        self._runner.run(self._pause(seconds))

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._settle()

    def rest(self) -> None:
        """Wait as long as a reader does who looks at the screen: tables on the right follow the cursor."""
        self.pause(0.1)

    def wait(self, true: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until ``true()``."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.text
            self.pause(0.02)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._size = (columns, lines)
        self._runner.run(self.pilot.resize_terminal(columns, lines))
        self.pause()

    def click(self, column: int, line: int, times: int = 1) -> None:
        """Click on a cell of the screen."""
        self._runner.run(self.pilot.click(offset=(column, line), times=times))
        self.pause()

    # Seeing

    @property
    def lines(self) -> list[str]:
        """The screen, a text a line without the spaces at its end."""
        with self.app._context():  # else a picture that has just been taken away does not know its app
            strips = self.app.screen._compositor.render_strips()
        columns, lines = self._size
        assert len(strips) == lines
        assert {strip.cell_length for strip in strips} == {columns}, [
            s.text for s in strips if s.cell_length != columns
        ]
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """The whole screen."""
        return "\n".join(self.lines)

    @property
    def crumbs(self) -> str:
        """The first line: where the reader is."""
        return self.lines[0].strip()

    @property
    def keys(self) -> str:
        """The last line: keys on the left, the cursor's place among the rows on the right."""
        return self.lines[-1]

    @property
    def position(self) -> str:
        """The cursor's place on the last line: ``3/37 of 512``."""
        match = re.search(r"(\d+/\d+(?: of \d+)?)$", self.keys)
        assert match, self.keys
        return match[1]

    @property
    def info(self) -> str:
        """The line above the last one: notes, or the filter."""
        return self.lines[-2].strip()

    @property
    def notice(self) -> str:
        """The message that is shown, its lines joined; "" where there is none."""
        box = self.app.query_one("#notice")
        lines = self.lines
        return " ".join(line.strip() for line in lines[box.region.y : box.region.bottom]).strip() if box.display else ""

    @property
    def row(self) -> str:
        """The line that the cursor is on, in the table that keys move."""
        return self._line(self.app.table, self.app.table.cursor - self.app.table.top + 1)

    @property
    def header(self) -> str:
        """The titles of the table that keys move."""
        return self._line(self.app.table, 0)

    @property
    def rows(self) -> list[str]:
        """The lines of the rows that are seen of the table that keys move."""
        return self.rows_of(self.app.table)

    def rows_of(self, table: Any) -> list[str]:
        """The lines of the rows that are seen of ``table``, without the cursor."""
        count = min(len(table.rows) - table.top, table.size.height - 1)
        return [line[1:].strip() for line in self._lines(table)[1 : 1 + count]]

    def _line(self, table: Any, y: int) -> str:
        """Line ``y`` of ``table`` as it stands on the screen."""
        return self._lines(table)[y]

    def _lines(self, table: Any) -> list[str]:
        """What stands on the screen where ``table`` is."""
        region = table.content_region
        strips = self.app.screen._compositor.render_strips()[region.y : region.bottom]
        return [strip.crop(region.x, region.right).text.rstrip() for strip in strips]

    @property
    def panes(self) -> list[str]:
        """The ids of the tables that are on the screen, from the left."""
        tables = [t for t in self.app.query("Table") if t.display]
        return [str(t.id) for t in sorted(tables, key=lambda t: t.region.x)]

    @property
    def copied(self) -> str:
        """What was put on the clipboard last (OSC 52)."""
        sequences = re.findall(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", "".join(self.sent))
        assert sequences, self.sent
        return base64.b64decode(sequences[-1]).decode()
