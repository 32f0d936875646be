"""What ``nd doctor`` looks at in the terminal: its size, colours and pictures, the viewer, the locale."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

from ndissect.store.errors import NDError
from ndissect.tui.cli.doctor_finding import Environ, Finding
from ndissect.tui.pictures.graphics import known_protocol
from ndissect.tui.pictures.viewer import find_viewer


def viewer(environ: Environ) -> Iterator[Finding]:
    """The program that shows pictures."""
    try:
        chosen = find_viewer(environ, terminal=True)
    except NDError as error:
        yield Finding("viewer", "fail", error.message, error.hint)
        return
    if chosen.kind == "print":
        hint = "Set ND_VIEWER to a program, or install chafa or timg, which draw in a terminal, also over ssh"
        yield Finding("viewer", "warn", "none found: the path of a picture is printed and sent to the clipboard", hint)
    else:
        yield Finding("viewer", "ok", f"{' '.join(chosen.argv)} (because of {chosen.why}; {chosen.kind})")


def terminal(environ: Environ) -> Iterator[Finding]:
    """The terminal, and whether its locale is UTF-8."""
    term = environ.get("TERM", "")
    parts = [f"TERM={term or 'unset'}", f"COLORTERM={environ.get('COLORTERM') or 'unset'}"]
    try:
        columns, lines = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except OSError:
        parts.append("the output is not a terminal")
        columns, lines = 80, 24
    else:
        parts.append(f"{columns}x{lines}")
    if "NO_COLOR" in environ:
        parts.append("NO_COLOR is set")
    for variable, what in (("TMUX", "inside tmux"), ("STY", "inside screen"), ("SSH_CONNECTION", "over ssh")):
        if environ.get(variable):
            parts.append(what)
    parts.append(f"pictures: {graphics_protocol(environ)}")
    hints = []
    if term in ("", "dumb", "unknown"):
        hints.append("Set TERM (xterm-256color is safe): without it the terminal UI cannot draw")
    if environ.get("TMUX") and not term.startswith(("tmux", "screen")):
        hints.append('tmux needs its own TERM: put set -g default-terminal "tmux-256color" into ~/.tmux.conf')
    if columns < 80 or lines < 24:
        hints.append("The terminal UI is made for 80x24 and more")
    yield Finding("terminal", "warn" if hints else "ok", ", ".join(parts), " ".join(hints))

    names = ("LC_ALL", "LC_CTYPE", "LANG")
    name = next((n for n in names if environ.get(n)), "")
    detail = f"{name}={environ[name]}" if name else "LC_ALL, LC_CTYPE and LANG are unset"
    if re.search(r"utf-?8", environ.get(name, ""), re.IGNORECASE):
        yield Finding("locale", "ok", detail)
    else:
        yield Finding("locale", "warn", f"{detail}: not UTF-8", "export LANG=C.UTF-8: bars and lines are Unicode")


def graphics_protocol(environ: Environ) -> str:
    """The way to draw pictures that this terminal is likely to know: kitty, iterm, sixel, or none."""
    known = known_protocol(environ)
    return known if known != "blocks" else "none known (coloured half blocks work everywhere)"
