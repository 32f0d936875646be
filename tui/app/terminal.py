"""The terminal around the screen: lent to another program, and its clipboard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from textual.app import App
from textual.driver import Driver

from ndissect.tui.pictures.viewer import clipboard_sequence


def careful(driver: type[Driver]) -> type[Driver]:
    """``driver``, but for that of a terminal of Linux or macOS one that takes whatever such a terminal sends."""
    if driver.__name__ != "LinuxDriver":
        return driver
    from ndissect.tui.app.keyboard import KeyboardDriver  # noqa: PLC0415 - it cannot be imported on Windows

    return KeyboardDriver


@contextlib.contextmanager
def lent(app: App[Any]) -> Iterator[None]:
    """Lend the terminal to another program. It comes back after an error too, which Textual's own suspend forgets."""
    failure: BaseException | None = None
    with app.suspend():
        try:
            yield
        except BaseException as e:
            failure = e
    app.refresh(layout=True)
    if failure is not None:
        raise failure


def copy_to_clipboard(app: App[Any], text: str) -> None:
    """Put ``text`` on the clipboard of the reader's terminal, also through ssh and tmux."""
    if app._driver is not None:
        app._driver.write(clipboard_sequence(text, os.environ))
