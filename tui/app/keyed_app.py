"""What the terminal UIs of nd have in common: the terminal's colours, keys in their order, an end without traces."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from textual import events
from textual.app import App
from textual.driver import Driver
from textual.widget import Widget

from ndissect.tui.app.terminal import careful


class KeyedApp(App[None]):
    """An app whose keys are bound to a table of actions. ``failure`` is the error that ended it, if one did."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"  # its colours are the terminal's own: dark or light, as its owner has it
        self.failure: BaseException | None = None

    @property
    def typed_into(self) -> Widget | None:
        """The line that keys are typed into now, None where they do actions."""
        return None

    def end_on_signals(self, before: Callable[[], object]) -> None:
        """From now on end in order when the system asks for it, after ``before``."""

        def stop(number: signal.Signals) -> None:
            before()
            self.exit(return_code=128 + number)

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)

    def get_driver_class(self) -> type[Driver]:
        """What reads the keyboard and writes the screen."""
        return careful(super().get_driver_class())

    def _fatal_error(self) -> None:
        # Textual would print a traceback over the restored screen; the command line says it in two lines instead.
        self.failure = getattr(self._exception, "error", self._exception)  # what is inside a WorkerFailed
        self._close_messages_no_wait()

    def action_focus_next(self) -> None:
        """Nothing: tab is a key of its own, and what has the keys is never left to chance."""

    action_focus_previous = action_focus_next

    async def on_event(self, event: events.Event) -> None:
        """Handle an event; after a key that is typed into a line, wait until the line has done with it."""
        line = self.typed_into if isinstance(event, events.Key) else None
        await super().on_event(event)
        if line is not None:
            done = asyncio.Event()
            line.call_later(done.set)
            with contextlib.suppress(TimeoutError):  # it may be on its way out
                async with asyncio.timeout(1):
                    await done.wait()
