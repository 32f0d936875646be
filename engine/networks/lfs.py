"""Pointers that Git LFS leaves in the place of large files that were not fetched."""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.checkpoints.files import GIT_LFS
from ndissect.store.errors import NDError
from ndissect.store.regular import open_regular, other_kind

#: A pointer is a few lines of text.
_LONGEST = 1_024


def is_pointer(path: Path) -> bool:
    """Whether the file ``path`` is such a pointer; False where it cannot be read."""
    try:
        if other_kind(path) or path.stat().st_size > _LONGEST:
            return False
        with open_regular(path) as file:
            return file.read(len(GIT_LFS)) == GIT_LFS
    except OSError:
        return False


def refuse_pointer(path: Path) -> None:
    """NDError where the file ``path`` is such a pointer."""
    if is_pointer(path):
        raise NDError(f"{path} is a Git LFS pointer, not the file itself", "Fetch it with: git lfs pull")


def refuse_pointers(folder: Path) -> None:
    """NDError where a file right in ``folder`` is such a pointer."""
    for path in sorted(folder.iterdir()):
        refuse_pointer(path)
