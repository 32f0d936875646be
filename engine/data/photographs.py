"""A folder of photographs without labels, which a labeller or the names of colours give them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ndissect.engine.data.image_files import IMAGE_ENDINGS, entries, list_files
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError


def open_photographs(root: Path, max_pixels: int | None = None) -> LabelledFiles:
    """The image files in ``root`` and in the folders below it, sorted by name: a data set without concepts.

    Images have any sizes; by its name each is of train or val, as in Broden. Hidden files and folders are left out. An
    image of more than ``max_pixels`` is not read. NDError where there is no image.
    """
    names = list_files(root, IMAGE_ENDINGS)
    if not names:
        raise NDError(f"{root} holds no images", f"the names of images end in {', '.join(IMAGE_ENDINGS)}")
    if odd := next((name for name in names if not _is_text(name)), None):
        raise NDError(f"the file {odd!a} in {root} has a name that is no UTF-8", "rename it")
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()
    none = ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
    records = [ImageRecord(name, Path(name), split_by_name(name)) for name in names]
    return LabelledFiles(root, root.resolve().name, none, records, digest=digest, max_pixels=max_pixels)


def holds_photographs(folder: Path) -> bool:
    """Whether there are image files in ``folder`` itself."""
    return any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in entries(folder))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
