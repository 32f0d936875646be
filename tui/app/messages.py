"""What is told to the reader, and to the terminal around the screen."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from textual.app import App
from textual.widgets import Static

from ndissect.store.errors import NDError
from ndissect.store.text import one_line
from ndissect.tui.pictures.viewer import clipboard_sequence

P = ParamSpec("P")
S = TypeVar("S", bound="Telling")


def told(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """``method``, whose NDErrors are told on the screen: a damaged piece of a store is no reason to stop."""

    @functools.wraps(method)
    def wrapped(self: S, /, *args: P.args, **more: P.kwargs) -> None:
        try:
            method(self, *args, **more)
        except NDError as e:
            self.say(e.message, e.hint)

    return wrapped


class Telling(App[None]):
    """An app with a line for messages, that knows its terminal."""

    def __init__(self) -> None:
        super().__init__(ansi_color=True)
        self._notice = Static("", id="notice", markup=False)

    def say(self, message: str, hint: str = "") -> None:
        """Show a message until the next key."""
        self._notice.update("\n".join(map(one_line, filter(None, (message, hint)))))
        self._notice.display = True

    def hush(self) -> bool:
        """Take the message away; whether there was one."""
        there = bool(self._notice.display)
        self._notice.display = False
        return there

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The terminal is another program's; it comes back after an error too, which Textual's own suspend forgets."""
        failure: BaseException | None = None
        with self.suspend():
            try:
                yield
            except BaseException as e:
                failure = e
        self.refresh(layout=True)
        if failure is not None:
            raise failure

    def to_clipboard(self, text: str) -> None:
        """Put ``text`` on the clipboard of the reader's terminal, also through ssh and tmux."""
        if self._driver is not None:
            self._driver.write(clipboard_sequence(text, os.environ))
