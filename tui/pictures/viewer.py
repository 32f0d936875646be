"""Showing a picture outside of nd: which program is used, and running it.

Finding and running are apart, so that the terminal UI can step aside (``App.suspend()``) for a viewer that draws in
the terminal, and offer a choice.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from ndissect.store.errors import NDError
from ndissect.store.text import clean_text

#: A window viewer that fails within this many seconds is reported; after that it is left alone.
GRACE_S = 0.3

#: Viewers that open a window, in order of preference.
WINDOW_VIEWERS = ("xdg-open", "feh", "eog", "gwenview", "ristretto", "nsxiv", "sxiv", "imv", "gpicview", "display")
#: Viewers that draw in the terminal whichever terminal it is, in order of preference.
TERMINAL_VIEWERS = ("timg", "chafa", "viu")
#: Programs that ``$ND_VIEWER`` may name and that never need the terminal.
WINDOW_PROGRAMS = frozenset((*WINDOW_VIEWERS, "open", "code", "geeqie", "gimp", "loupe", "qimgv", "wslview"))


@dataclass(frozen=True)
class Viewer:
    """How a picture is shown.

    ``argv``: the command, to which the path is appended, or in which it replaces ``{}``. ``kind``: ``window`` (started
    and left alone), ``terminal`` (runs in the foreground with the terminal's input and output) or ``print`` (no
    program: the path is told). ``why``: what decided.
    """

    argv: tuple[str, ...]
    kind: Literal["window", "terminal", "print"]
    why: str

    @property
    def name(self) -> str:
        """The program's name, or ``print``."""
        return Path(self.argv[0]).name if self.argv else "print"


def find_viewer(environ: Mapping[str, str], platform: str = sys.platform, terminal: bool = True) -> Viewer:
    """The viewer that is used here: the first of ``available_viewers``. Runs nothing. Raises NDError as that does."""
    return next(available_viewers(environ, platform, terminal))


def available_viewers(
    environ: Mapping[str, str], platform: str = sys.platform, terminal: bool = True
) -> Iterator[Viewer]:
    """All viewers that can be used here, best first; the last one prints the path.

    The order: ``$ND_VIEWER`` (split as a shell would; it runs in the foreground unless it is a known window program or
    ends in ``&``), VS Code's terminal, a display, a viewer that draws in the terminal (left out where ``terminal`` is
    false: the output is not a terminal). Raises NDError where ``$ND_VIEWER`` cannot be used.
    """
    chosen = _chosen(environ)
    if chosen is not None:
        yield chosen

    def here(names: tuple[str, ...], kind: Literal["window", "terminal"], why: str) -> Iterator[Viewer]:
        for name in names:
            program, *options = name.split()
            executable = shutil.which(program, path=_search_path(environ))
            if executable:
                yield Viewer((executable, *options), kind, why)

    if environ.get("TERM_PROGRAM") == "vscode":
        yield from here(("code -r",), "window", "VS Code's terminal")
    # over ssh a Mac's window would open in front of someone else
    if platform == "darwin" and not environ.get("SSH_CONNECTION"):
        yield from here(("open",), "window", "macOS")
    if environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY"):
        yield from here(WINDOW_VIEWERS, "window", "a display")
    if terminal:
        if environ.get("KITTY_WINDOW_ID") or environ.get("TERM") == "xterm-kitty":
            yield from here(("kitten icat",), "terminal", "kitty's terminal")
        if environ.get("TERM_PROGRAM") == "iTerm.app" or environ.get("LC_TERMINAL") == "iTerm2":
            yield from here(("imgcat",), "terminal", "iTerm2's terminal")
        yield from here(TERMINAL_VIEWERS, "terminal", "a terminal")
    yield Viewer((), "print", "no image viewer found")


def open_image(path: Path, environ: Mapping[str, str] = os.environ, stdout: TextIO | None = None) -> str:
    """Show the picture at ``path``, and return one line that says what was done (it is not printed).

    ``stdout``: where the terminal is, the process's own if None. Raises NDError where there is no such file, or where
    the viewer cannot be started or fails.
    """
    stdout = stdout or sys.__stdout__ or sys.stdout
    return run_viewer(find_viewer(environ, terminal=stdout.isatty()), path, environ, stdout)


def run_viewer(
    viewer: Viewer, path: Path, environ: Mapping[str, str] = os.environ, stdout: TextIO | None = None
) -> str:
    """Show the picture at ``path`` with ``viewer``, and return one line that says what was done.

    A window viewer is left running, and reported if it fails within ``GRACE_S`` seconds; a terminal viewer is waited
    for. Without a program the path is put on the clipboard by OSC 52 where ``stdout`` is a terminal. Raises NDError.
    """
    stdout = stdout or sys.__stdout__ or sys.stdout
    path = path.absolute()
    if not path.is_file():
        raise NDError(f"There is no picture {path}", "`nd overlay LAYER:UNIT` draws one")
    if viewer.kind == "print":
        if not stdout.isatty():
            return str(path)
        stdout.write(clipboard_sequence(str(path), environ))
        stdout.flush()
        return f"{path} (no image viewer found; the path was sent to the terminal's clipboard)"
    argv = command(viewer, path)
    if viewer.kind == "terminal":
        _run_in_terminal(viewer, argv, environ, stdout)
        return f"Shown by {viewer.name}: {path}"
    _start_window(viewer, argv, environ)
    return f"Opened with {viewer.name}: {path}"


def command(viewer: Viewer, path: Path) -> list[str]:
    """The argument list that shows ``path``: it replaces every ``{}``, or is appended where there is none."""
    if any("{}" in part for part in viewer.argv[1:]):
        return [viewer.argv[0], *(part.replace("{}", str(path)) for part in viewer.argv[1:])]
    return [*viewer.argv, str(path)]


def clipboard_sequence(text: str, environ: Mapping[str, str]) -> str:
    """The escape sequence (OSC 52) that puts ``text`` on the clipboard of the user's terminal, also through ssh.

    Inside tmux twice: as it is, for ``set-clipboard on``, and wrapped, for ``allow-passthrough on``. Each setting
    ignores the other's form.
    """
    plain = f"\x1b]52;c;{base64.b64encode(_copied(text).encode()).decode('ascii')}\x07"
    if not environ.get("TMUX"):
        return plain
    doubled = plain.replace("\x1b", "\x1b\x1b")
    return f"{plain}\x1bPtmux;{doubled}\x1b\\"


def _copied(text: str) -> str:
    """``text`` cleaned, with its tabs: pasted into a shell, a line end would start what stands before it."""
    return "\t".join(map(clean_text, text.split("\t")))


def _chosen(environ: Mapping[str, str]) -> Viewer | None:
    """The viewer that ``$ND_VIEWER`` names, or None where it is not set."""
    value = environ.get("ND_VIEWER", "")
    hint = "Set ND_VIEWER to a program that is installed, for example ND_VIEWER='feh {}', or unset it"
    try:
        parts = shlex.split(value)
    except ValueError as error:
        raise NDError(f"ND_VIEWER cannot be split into words ({error}): {value}", hint) from error
    window = parts[-1:] == ["&"]
    if window:
        parts = parts[:-1]
    if not parts:
        return None
    named = str(Path(parts[0]).expanduser()) if parts[0].startswith("~/") else parts[0]
    program = shutil.which(named, path=_search_path(environ))
    if program is None:
        raise NDError(f"The viewer '{parts[0]}' that ND_VIEWER names is not on PATH or cannot be executed", hint)
    window = window or Path(program).name in WINDOW_PROGRAMS
    return Viewer((program, *parts[1:]), "window" if window else "terminal", "$ND_VIEWER")


def _search_path(environ: Mapping[str, str]) -> str:
    return environ.get("PATH", os.defpath)


def _run_in_terminal(viewer: Viewer, argv: list[str], environ: Mapping[str, str], stdout: TextIO) -> None:
    stdout.flush()  # what was printed before the picture stays before it
    try:
        output: int | None = stdout.fileno()
    except OSError:  # not a file: the viewer draws where the process writes
        output = None
    try:
        with subprocess.Popen(argv, env=dict(environ), stdout=output) as process:
            try:
                code = _waited_for(process)
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise _not_started(viewer, argv, error) from error
    if code:
        raise _failed(viewer, argv, code, "")


def _waited_for(process: subprocess.Popen[bytes]) -> int:
    """The exit code of ``process``. It is looked at again and again: a signal may come just before the waiting."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(GRACE_S)


def _start_window(viewer: Viewer, argv: list[str], environ: Mapping[str, str]) -> None:
    try:
        # a file and not a pipe: a viewer that lives on must not die of, or wait for, a reader that has gone
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                argv,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            try:
                code = process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                threading.Thread(target=process.wait, daemon=True).start()  # no zombie beside a terminal UI
                return
            errors.seek(0)
            said = errors.read(4096).decode("utf-8", "replace").strip()
    except OSError as error:
        raise _not_started(viewer, argv, error) from error
    if code:
        raise _failed(viewer, argv, code, said)


def _not_started(viewer: Viewer, argv: list[str], error: OSError) -> NDError:
    return NDError(f"{_which(viewer)} could not be started: {error.strerror or error}", _hint(argv))


def _failed(viewer: Viewer, argv: list[str], code: int, said: str) -> NDError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    detail = f": {' '.join(said.split())}" if said else "."
    return NDError(f"{_which(viewer)} {how}{detail}", _hint(argv))


def _which(viewer: Viewer) -> str:
    named = " that ND_VIEWER names" if viewer.why == "$ND_VIEWER" else ""
    return f"The viewer '{viewer.name}'{named}"


def _hint(argv: list[str]) -> str:
    return f"Try it by hand: {shlex.join(argv)}; or set ND_VIEWER to another program"
