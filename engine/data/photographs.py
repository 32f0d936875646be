"""A folder of photographs without labels, which a labeller or the names of colours give them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError

#: The endings of files that are taken for photographs.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def open_photographs(root: Path, max_pixels: int | None = None) -> LabelledFiles:
    """The image files in ``root`` and in the folders below it, sorted by name: a data set without concepts.

    Images have any sizes. Files and folders whose names begin with a point are left out, and links to folders are not
    followed. An image of more than ``max_pixels`` is not read. NDError where there is no image.
    """
    names = sorted(_image_files(root))
    if not names:
        raise NDError(f"{root} holds no images", f"the names of images end in {', '.join(ENDINGS)}")
    if odd := next((name for name in names if not _is_text(name)), None):
        raise NDError(f"the file {odd!a} in {root} has a name that is no UTF-8", "rename it")
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()
    none = ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
    records = [ImageRecord(name, Path(name), "train") for name in names]
    return LabelledFiles(root, root.resolve().name, none, records, digest=digest, max_pixels=max_pixels)


def holds_photographs(folder: Path) -> bool:
    """Whether there are image files in ``folder`` itself."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".") for entry in entries)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _image_files(root: Path) -> list[str]:
    """The image files below ``root``, relative to it."""
    names: list[str] = []
    for folder, inside, files in os.walk(root):
        inside[:] = [name for name in inside if not name.startswith(".")]
        below = os.path.relpath(folder, root)
        for name in files:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                names.append(name if below == "." else f"{below}/{name}".replace(os.sep, "/"))
    return names
