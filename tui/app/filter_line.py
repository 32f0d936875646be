"""The line in which a filter is typed."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.widgets import Input

from ndissect.store.text import clean_text


class FilterLine(Input):
    """An input that has done with a key before the next one is looked at; ``submitted`` is called on enter."""

    def __init__(self, submitted: Callable[[str], None], *, id: str) -> None:
        super().__init__(id=id, compact=True, select_on_focus=False)
        self.cursor_blink = False  # a blinking cursor sends bytes for ever
        self._submitted = submitted

    def validate_value(self, value: str) -> str:
        """What is pasted may hold anything."""
        return clean_text(value)

    async def _on_key(self, event: events.Key) -> None:
        # Textual looks for an input's own keys (enter, backspace) when nobody else wanted them: after the keys that
        # are already waiting.
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            event.stop()
            event.prevent_default()
            await self.run_action(binding.action)

    async def action_submit(self) -> None:
        """Enter ends the typing at once: a message about it would come too late as well."""
        self._submitted(self.value)
