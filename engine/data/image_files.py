"""The image files below a folder, from one look at each of its folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ndissect.engine.data.tables import IMAGE_ROWS
from ndissect.store.errors import NDError

#: The endings of photographs, and of label maps: what loses no number.
IMAGE_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))
MAP_ENDINGS = frozenset((".png", ".bmp", ".gif", ".tif", ".tiff"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder, or a link to one; False where that cannot be told, as of a loop of links."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_files(folder: Path, endings: Collection[str], most: int = IMAGE_ROWS) -> list[str]:
    """The files below ``folder`` with one of these endings, sorted: paths relative to it with ``/``; hidden ones not.

    NDError where a folder cannot be read, or where there are more than ``most``.
    """
    files: list[str] = []
    folders, seen = [""], {os.path.realpath(folder)}
    while folders:
        below = folders.pop()
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    path = f"{below}{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if is_folder(entry):
                        if not entry.is_symlink() or _leads_on(entry.path, seen):
                            folders.append(f"{path}/")
                    elif f".{entry.name.rpartition('.')[2].lower()}" in endings:
                        files.append(path)
        except OSError as error:
            raise NDError(f"{folder / below} cannot be read: {error.strerror or error}", "") from error
        if len(files) > most:
            raise NDError(f"{folder} holds more than {most:,} images, the most that are read", "")
    return sorted(files)


def _leads_on(link: str, seen: set[str]) -> bool:
    """Whether a link to a folder leads neither back to where it lies nor to what was ``seen``, which grows by it."""
    real = os.path.realpath(link)
    back = f"{os.path.realpath(os.path.dirname(link))}/".startswith(f"{real}/")  # noqa: PTH120
    new = not back and real not in seen
    seen.add(real)
    return new


def stem(path: str) -> str:
    """The path of an image file without its ending."""
    return path.rpartition(".")[0]


def some(names: Collection[str], most: int = 5) -> str:
    """The first few of ``names``, and how many more there are."""
    shown = ", ".join(PurePosixPath(name).as_posix() for name in sorted(names)[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def counted(names: Collection[str]) -> str:
    """How many ``names`` there are, and the first few of them: ``7 (a, b, c, d, e and 2 more)``."""
    return f"{len(names):,} ({some(names)})"
