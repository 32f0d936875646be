"""The terminal: Textual's driver, which takes whatever a terminal sends, and that it is gone."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from codecs import getincrementaldecoder
from typing import IO, Any

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from ndissect.tui.app.answers import ESCAPE_HELD, AnswerFilter
from ndissect.tui.app.keyed_app import KeyedApp

# Seconds between two looks at whether the app has ended, and at what the parser waits for.
_TICK = 0.1
_MOST_BYTES = 4096


class LosableFile:
    """A terminal's ``file`` to which writing never fails: what is written after the connection was lost is dropped.

    An error would end Textual's writing thread. Its queue would then fill up, and the app would wait for ever to say
    good-bye.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write ``text`` if the terminal is there."""
        with contextlib.suppress(OSError):
            return self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Send what was written if the terminal is there."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class KeyboardDriver(LinuxDriver):
    """Bytes that are no text are dropped, and so are a terminal's answers; a defect ends the app as any other does."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._file: Any = LosableFile(self._file)

    def _sigcont_application(self, *_: object) -> None:
        # A lost connection sends SIGCONT too. A second start without a stop would leave a thread that reads keys for
        # ever, which the process then waits for.
        if self._must_signal_resume:
            super()._sigcont_application()

    def stop_application_mode(self) -> None:
        """Give the terminal back: at the end, and while nd is suspended."""
        if isinstance(self._app, KeyedApp):
            self.write(self._app.before_terminal_is_left())
        super().stop_application_mode()

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
