"""The unit's picture, drawn to a file and shown outside of the terminal UI."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ndissect.store.errors import NDError
from ndissect.store.files import cache_folder, own_folder
from ndissect.store.layer_view import LayerView
from ndissect.store.names import safe_name
from ndissect.tui.pictures.viewer import Viewer, run_viewer

# No colours, a visible cursor, no mouse: a viewer may have left the terminal otherwise. The alternate screen is not
# left here: the cursor would jump.
_IN_ORDER = "\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"
# Seconds between looks at whether a signal has come.
_LOOK = 0.2
# So many pictures are kept. They are files, since viewers open them: a cache in memory, such as Textual's, cannot
# hold them.
_MOST_PICTURES = 200
# A picture is deleted only if it has such a name and holds this text: others in the folder are the user's own.
_NAME = re.compile(r".+-[0-9]+(-truth)?(~[0-9a-f]+)*\.png")
_MARK = {"Comment": "Kept by nd browse in its cache, which deletes it when newer ones are drawn."}


def draw(view: LayerView, unit: int, *, truth: bool) -> Path:
    """Draw the unit's contact sheet, with what a generator draws without it, and return its file.

    It lies in the cache folder: others may be read-only.

    ``truth`` draws where the label really is beside each image. Raises NDError where the store holds no images or is
    damaged, or the disk is full.
    """
    # Pillow is only needed here: without it the first screen is there sooner.
    from ndissect.tui.pictures.overlay import save_png  # noqa: PLC0415
    from ndissect.tui.pictures.sheets import unit_sheet, with_effect  # noqa: PLC0415

    has_label = int(view.labels[0][unit]) >= 0
    sheet = with_effect(unit_sheet(view, unit, truth=truth and has_label), view, unit)
    folder = cache_folder() / "overlays"
    try:
        own_folder(folder, 0o700)
    except OSError as e:
        raise NDError(
            f"the folder {folder} for pictures cannot be made: {e.strerror}", "set ND_CACHE to a folder that can"
        ) from e
    store = re.sub(r"[^\w.-]", "_", view.store.path.name.removesuffix(".nd.h5"))[:60]
    layer = re.sub(r"[^\w.-]", "_", view.name)[:80]
    path = _free(folder, safe_name(f"{store}-{layer}-{unit}{'-truth' if truth and has_label else ''}"))
    save_png(sheet.image, path, {"Title": sheet.title, "Source": str(view.store.path), **_MARK})
    _prune(folder)
    return path


def _free(folder: Path, stem: str) -> Path:
    """``stem.png``, or with a number where something lies there that is not a picture of this cache."""
    path, number = folder / f"{stem}.png", 1
    while os.path.lexists(path) and not _is_ours(path):
        number += 1
        path = folder / f"{stem}~{number}.png"
    return path


def _is_ours(path: Path) -> bool:
    from ndissect.tui.pictures.overlay import drawn_by_nd  # noqa: PLC0415 - as above

    return drawn_by_nd(path, _MARK)


def _prune(folder: Path) -> None:
    """Delete the oldest pictures of this cache: PNGs called as it calls them that hold its mark, and nothing else."""
    with contextlib.suppress(OSError):
        named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        if len(named) <= _MOST_PICTURES:
            return
        ours = [path for path in named if _is_ours(path)]
        for old in sorted(ours, key=lambda p: p.lstat().st_mtime)[:-_MOST_PICTURES]:
            old.unlink()


class _Ended(BaseException):
    """A signal asks nd to end while another program has the terminal."""


def show_in_terminal(viewer: Viewer, path: Path) -> str:
    """Run a viewer that draws in the terminal, wait for a key, and return what was done; the UI must be suspended.

    Ctrl-C ends a viewer that hangs, and not nd. A signal that is to end nd ends the viewer too, and the waiting; what
    it does to nd is left to the event loop, which gets it as well. Raises NDError where the viewer fails.
    """
    terminal = sys.__stdout__
    with _signals(), _terminal_restored():
        try:
            said = run_viewer(viewer, path, os.environ, terminal)
            _any_key()
        except _Ended:
            return ""
    return said


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal: here it does nothing, while in the viewer it does what it does."""

    def end(*_: object) -> None:
        raise _Ended

    # Not SIG_IGN, which the viewer would inherit.
    taken: dict[signal.Signals, Any] = {signal.SIGINT: lambda *_: None, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in taken.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _terminal_restored() -> Iterator[None]:
    """The terminal as it was before, whatever the viewer did to it."""
    fd = _stdin()
    before = termios.tcgetattr(fd) if fd is not None else None
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):  # there may be no terminal any more
            if fd is not None and before is not None:
                termios.tcsetattr(fd, termios.TCSADRAIN, before)
                if sys.__stdout__ is not None:
                    sys.__stdout__.write(_IN_ORDER)
                    sys.__stdout__.flush()


def _stdin() -> int | None:
    return sys.__stdin__.fileno() if sys.__stdin__ is not None and sys.__stdin__.isatty() else None


def _any_key() -> None:
    fd, terminal = _stdin(), sys.__stdout__
    if fd is None or terminal is None:
        return
    with contextlib.suppress(OSError, termios.error):
        tty.setraw(fd)
        termios.tcflush(fd, termios.TCIFLUSH)  # what was typed at the viewer is not meant for nd
        terminal.write("\r\npress a key to return to nd ")
        terminal.flush()
        while not select.select([fd], [], [], _LOOK)[0]:  # again and again: a signal may come just before it waits
            pass
        os.read(fd, 1024)
        terminal.write("\r\n")
        terminal.flush()
