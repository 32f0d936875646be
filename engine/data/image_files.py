"""The files and folders of a data set's folder, and which of them are images: each folder is looked at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ndissect.engine.data.tables import IMAGE_ROWS
from ndissect.store.errors import NDError

#: The endings of photographs, and of label maps: what loses no number.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
MAP_ENDINGS = (".png", ".bmp", ".gif", ".tif", ".tiff")

# So many names of a folder are looked at to see what it is.
_LOOKED_AT = 1_000


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder, or a link to one; False where that cannot be told, as of a loop of links."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def entries(folder: Path, most: int | None = _LOOKED_AT) -> list[os.DirEntry[str]]:
    """Up to ``most`` entries of ``folder``, or all, in the order of the disk, hidden ones left out.

    None where it is no folder.
    """
    try:
        with os.scandir(folder) as listed:
            return list(itertools.islice((entry for entry in listed if not entry.name.startswith(".")), most))
    except OSError:
        return []


def folders(folder: Path, most: int | None = _LOOKED_AT) -> list[str]:
    """The names of the folders among the first ``most`` entries of ``folder``, or among all, sorted."""
    return sorted(entry.name for entry in entries(folder, most) if is_folder(entry))


def files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """The names of all files of ``folder`` with one of these endings, in any case, sorted; none where it is none."""
    try:
        with os.scandir(folder) as listed:
            names = [e.name for e in listed if e.name.lower().endswith(endings) and not e.name.startswith(".")]
    except OSError:
        return []
    return sorted(names)


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
