"""The messages that are told to the reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from textual.widgets import Static

from ndissect.store.errors import NDError
from ndissect.store.text import one_line


class Notice(Static):
    """Shows a message until the next key."""

    def __init__(self) -> None:
        super().__init__("", id="notice", markup=False)

    def say(self, message: str, hint: str = "") -> None:
        """Show a message."""
        self.update("\n".join(map(one_line, filter(None, (message, hint)))))
        self.display = True

    def hush(self) -> bool:
        """Take the message away. Returns whether there was one."""
        shown = bool(self.display)
        self.display = False
        return shown

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Show an NDError as a message: a damaged part of a store is no reason to stop."""
        try:
            yield
        except NDError as e:
            self.say(e.message, e.hint)
