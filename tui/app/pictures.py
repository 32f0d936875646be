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

from ndissect.store.errors import NDError
from ndissect.store.files import cache_folder
from ndissect.store.reader import LayerView
from ndissect.tui.viewer import Viewer, run_viewer

# Pictures that are kept; drawn again when asked for again.
_KEPT = 200


def draw(view: LayerView, unit: int, *, truth: bool) -> Path:
    """The file of the unit's contact sheet, drawn anew; below the cache folder, so that any folder can be browsed.

    Raises NDError where the store holds no images, is damaged, or the disk is full.
    """
    # Pillow is only needed here: without it the first screen is there sooner.
    from ndissect.tui.overlay import save_png  # noqa: PLC0415
    from ndissect.tui.sheets import unit_sheet  # noqa: PLC0415

    has_label = int(view.labels[0][unit]) >= 0
    sheet = unit_sheet(view, unit, truth=truth and has_label)
    folder = cache_folder() / "overlays"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise NDError(
            f"the folder {folder} for pictures cannot be made: {e.strerror}", "set ND_CACHE to a folder that can"
        ) from e
    store = re.sub(r"[^\w.-]", "_", view.store.path.name.removesuffix(".nd.h5"))[:60]
    layer = re.sub(r"[^\w.-]", "_", view.name)[:80]
    path = folder / f"{store}-{layer}-{unit}{'-truth' if truth and has_label else ''}.png"
    save_png(sheet.image, path, {"Title": sheet.title, "Source": str(view.store.path)})
    _prune(folder)
    return path


def _prune(folder: Path) -> None:
    with contextlib.suppress(OSError):
        found = sorted(folder.glob("*.png"), key=lambda p: p.stat().st_mtime)
        for old in found[:-_KEPT]:
            old.unlink()


def show_in_terminal(viewer: Viewer, path: Path) -> str:
    """Run a viewer that draws in the terminal, wait for a key, and return what was done; the UI must be suspended.

    Ctrl-C ends a viewer that hangs, and not nd. Raises NDError where the viewer fails.
    """
    stdout = sys.__stdout__
    with _interrupts_for_the_viewer():
        said = run_viewer(viewer, path, os.environ, stdout)
        sys.__stderr__.write("\r\npress a key to return to nd ") if sys.__stderr__ else None
        if sys.__stderr__:
            sys.__stderr__.flush()
        _any_key()
    return said


@contextlib.contextmanager
def _interrupts_for_the_viewer() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal: here it does nothing, while in the viewer it does what it does."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the viewer would inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _any_key() -> None:
    stdin = sys.__stdin__
    if stdin is None or not stdin.isatty():
        return
    fd = stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        termios.tcflush(fd, termios.TCIFLUSH)  # what was typed at the viewer is not meant for nd
        if select.select([fd], [], [])[0]:
            os.read(fd, 1024)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
