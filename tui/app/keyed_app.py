"""What the terminal UIs of nd have in common: the terminal's colours, keys in their order, an end without traces."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.widget import Widget

from ndissect.tui.app.actions import Action
from ndissect.tui.app.messages import Notice
from ndissect.tui.app.terminal import careful


def bindings_of(actions: Sequence[Action[Any]]) -> list[BindingType]:
    """The bindings of all keys of ``actions``.

    With priority: done before the next key is looked at. What follows a / is for the line, however fast it comes.
    """
    return [
        Binding(key, f"do('{a.name}', '{key}')", a.does, show=False, priority=True) for a in actions for key in a.keys
    ]


class KeyedApp(App[None]):
    """An app whose keys are bound to a table of actions. ``failure`` is the error that ended it, if one did.

    ``ACTIONS_BY_NAME``: the table; ``WHILE_TYPING``: keys that a line has no use for while something is typed into it.
    """

    ACTIONS_BY_NAME: ClassVar[Mapping[str, Action[Any]]] = {}
    WHILE_TYPING: ClassVar[tuple[str, ...]] = ()
    notice: Notice

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

    def update(self) -> None:
        """Bring all parts of the screen up to date."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does what it does now, or is typed."""
        return action != "do" or self.typed_into is None or parameters[1] in self.WHILE_TYPING

    def action_do(self, name: str, key: str) -> None:
        """Do the action ``name``, which ``key`` is bound to."""
        self.do(self.ACTIONS_BY_NAME[name])

    def do(self, action: Action[Any]) -> None:
        """Do ``action``, or say why it is impossible."""
        with self.notice.telling_errors():
            if self.notice.hush() and action.takes_message:
                return
            why = action.why_not(self)
            if why is not None:
                self.notice.say(f"{action.shown.split()[0]}: {why}")
                return
            action.run(self)
            self.update()

    def end_on_signals(self, before: Callable[[], object]) -> None:
        """From now on end in order when the system asks for it, after ``before``."""

        def stop(number: signal.Signals) -> None:
            before()
            self.exit(return_code=128 + number)

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)

    def before_terminal_is_left(self) -> str:
        """What is written before the terminal is given back: it takes away what leaving the screen does not."""
        return ""

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
