"""Where ``nd paint`` and ``nd sample`` write a picture, and how they show it."""

from __future__ import annotations

from pathlib import Path

from ndissect.store.files import SUFFIX, cache_folder, check_writable, own_folder
from ndissect.store.names import safe_name
from ndissect.tui.cli import output


def picture_path(to: Path | None, store: Path, name: str, *, force: bool) -> Path:
    """Where the picture goes: ``to``, else a file of the cache, called after the store and ``name``.

    That of the cache is drawn anew each time. NotReplaced for a file of the user's own that is there and is to be
    kept; NDError for a folder that cannot be written to.
    """
    if to is not None:
        output.confirm_replace(to, force)
        check_writable(to, 0)
        return to
    folder = own_folder(cache_folder() / "drawn", 0o700)
    return folder / safe_name(f"{store.name.removesuffix(SUFFIX)}-{name}", ".png")


def show_picture(path: Path) -> None:
    """Open the picture in a viewer, and say what was done."""
    from ndissect.tui.pictures.viewer import open_image

    output.tell(open_image(path))
