"""What a terminal says of itself, taken out of what is typed: it comes late over ssh, and would be taken for keys."""

from __future__ import annotations

ESC, BEL = "\x1b", "\x07"
# After ESC they begin a string that ends with ESC \ or BEL: device control, command, message, program, start of string.
_BEGINS = frozenset("P]^_X")
#: Seconds for which ESC is held back: the rest of an answer would be here by then, and a reader does not notice it.
ESCAPE_HELD = 0.02
#: Seconds after which a string whose end does not come is forgotten, so that the keyboard works again.
FORGOTTEN = 0.5


class AnswerFilter:
    """Drops strings such as ``ESC P ... ESC \\`` and ``ESC ] ... BEL`` from text that comes in pieces of any length.

    ``now`` is a clock's time in seconds.
    """

    def __init__(self) -> None:
        self._escape = False
        self._inside = False
        self._last = 0.0

    @property
    def waits(self) -> bool:
        """Whether something is held back, so that :meth:`release` should be called soon."""
        return self._escape or self._inside

    def feed(self, text: str, now: float) -> str:
        """``text`` without answers, and without an ESC at its end that may begin one."""
        kept = [self.release(now)]
        for character in text:
            if self._inside:
                ends = character == BEL or (self._escape and character == "\\")
                self._escape = character == ESC
                self._inside = not ends
            elif self._escape:
                self._escape = character == ESC
                self._inside = character in _BEGINS
                if not self._inside:
                    kept.append(ESC if self._escape else ESC + character)
            elif character == ESC:
                self._escape = True
            else:
                kept.append(character)
        self._last = now
        return "".join(kept)

    def release(self, now: float) -> str:
        """What was held back long enough: an ESC that was a key; a string without an end is forgotten."""
        if self._inside and now - self._last >= FORGOTTEN:
            self._inside = self._escape = False
        elif self._escape and not self._inside and now - self._last >= ESCAPE_HELD:
            self._escape = False
            return ESC
        return ""
