"""Which way to draw pictures a terminal knows, by its environment, and how many pixels its cells have.

The terminal itself is not asked: over a slow connection its answer would come while keys are read, and be taken for
some.
"""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from ndissect.store.errors import NDError

if TYPE_CHECKING:
    from PIL import Image

#: kitty's graphics protocol, iTerm2's inline pictures, sixels, or two pixels in each cell of text.
Protocol = Literal["kitty", "iterm", "sixel", "blocks"]
#: (width, height) in pixels of a cell of a terminal that does not say: of the VT340, and of what Windows Terminal
#: takes sixels for.
ASSUMED_CELL = (10, 20)
# Sizes of a cell that are believed.
_SMALLEST, _LARGEST = 3, 200


def known_protocol(environ: Mapping[str, str]) -> Protocol:
    """The way to draw pictures that the terminal around ``environ`` is likely to know."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if "sixel" in term or term.startswith(("foot", "mlterm", "contour", "yaft")) or environ.get("WT_SESSION"):
        return "sixel"
    # Another terminal that was started from kitty has this too, and mostly says what it is.
    other = program or environ.get("VTE_VERSION") or environ.get("XTERM_VERSION")
    return "kitty" if environ.get("KITTY_WINDOW_ID") and not other else "blocks"


def in_multiplexer(environ: Mapping[str, str]) -> bool:
    """Whether tmux, screen or zellij stands between nd and the terminal: they do not pass pictures on, unasked."""
    named = environ.get("TMUX") or environ.get("STY") or environ.get("ZELLIJ")
    return bool(named) or environ.get("TERM", "").startswith(("tmux", "screen"))


def sixel_encoder() -> Callable[[Image.Image], str] | None:
    """What makes sixels of a picture: the part of textual-image that asks no terminal; None where it is not there.

    It is none of what that package promises, and may be gone from another version.
    """
    try:
        encoder: Callable[[Image.Image], str] = importlib.import_module("textual_image._sixel").image_to_sixels
    except (ImportError, AttributeError):
        return None
    return encoder


def choose_protocol(asked: Protocol | Literal["auto"], environ: Mapping[str, str]) -> Protocol:
    """How pictures are drawn: as ``asked``, or as the terminal is likely to know and what is installed allows.

    NDError where sixels are asked for and the package that makes them is not installed.
    """
    if asked == "auto":
        if in_multiplexer(environ) or "NO_COLOR" in environ:
            return "blocks"
        known = known_protocol(environ)
        return "blocks" if known == "sixel" and sixel_encoder() is None else known
    if asked == "sixel" and sixel_encoder() is None:
        raise NDError(
            "sixels need the package textual-image", "pip install 'ndissect[preview]'; --pictures blocks needs nothing"
        )
    return asked


def cell_size() -> tuple[int, int]:
    """(width, height) in pixels of a cell of the terminal; ``ASSUMED_CELL`` where it does not say."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
        import termios  # noqa: PLC0415

        terminal = sys.__stderr__  # where Textual draws
        answer = fcntl.ioctl(terminal.fileno() if terminal else 2, termios.TIOCGWINSZ, bytes(8))
        lines, columns, width, height = struct.unpack("HHHH", answer)
        return believable_cell(width // columns, height // lines)
    except (ImportError, OSError, ValueError, ZeroDivisionError):
        return ASSUMED_CELL


def believable_cell(width: int, height: int) -> tuple[int, int]:
    """``width`` and ``height`` where a cell may have them, else ``ASSUMED_CELL``."""
    fine = _SMALLEST <= width <= _LARGEST and _SMALLEST <= height <= _LARGEST
    return (width, height) if fine else ASSUMED_CELL
