"""The keyboard of a terminal: Textual's driver, which takes whatever a terminal sends."""

from __future__ import annotations

import os
import selectors
import time
from codecs import getincrementaldecoder

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from ndissect.tui.app.answers import ESCAPE_HELD, AnswerFilter

# Seconds between two looks at whether the app has ended, and at what the parser waits for.
_TICK = 0.1
_MOST_BYTES = 4096


class KeyboardDriver(LinuxDriver):
    """Bytes that are no text are dropped, and so are a terminal's answers; a defect ends the app as any other does."""

    def run_input_thread(self) -> None:
        """Read the keyboard until the app ends."""
        try:
            self._read_keys()
        except Exception as error:  # Textual's own way ends with a traceback and with status 0
            self._app.call_later(self._app._handle_exception, error)  # which may wait for this thread to end

    def _read_keys(self) -> None:
        # A terminal of another encoding sends bytes that no UTF-8 has, as do those that send Alt as the eighth bit.
        decode = getincrementaldecoder("utf-8")("ignore").decode
        parser, answers = XTermParser(self._debug), AnswerFilter()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                ready = selector.select(ESCAPE_HELD if answers.waits else _TICK)
                data = os.read(self.fileno, _MOST_BYTES) if ready else b""
                if ready and not data:  # the input has ended
                    time.sleep(_TICK)
                typed = answers.feed(decode(data), time.monotonic()) if data else answers.release(time.monotonic())
                if typed:  # an empty text would end the parser
                    for message in parser.feed(typed):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)
        try:
            for _ in parser.feed(""):
                pass
        except (EOFError, ParseError):
            pass
