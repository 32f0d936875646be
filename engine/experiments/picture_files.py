"""Pictures of a generator as PNG files: the same picture is the same bytes wherever it is written."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.store.errors import NotReplaced
from ndissect.store.files import atomic, check_writable

Picture = npt.NDArray[np.uint8]

# White between pictures of a sheet, as a share of a picture's side.
_GAP = 16


def png_of(picture: Picture) -> bytes:
    """A picture (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture (H, W, 3) to ``path``, in place of what is there; NDError where it cannot be written."""
    data = png_of(picture)
    check_writable(path, len(data))
    with atomic(path) as part:
        part.write_bytes(data)


def check_new(path: Path, *, force: bool) -> None:
    """NotReplaced where ``path`` is there and is not to be replaced."""
    if path.exists() and not force:
        raise NotReplaced(f"{path} exists", "allow to replace it, or name another file")


def sheet(pictures: npt.NDArray[np.uint8], columns: int | None = None) -> Picture:
    """Pictures (n, H, W, 3) side by side on white, in rows of ``columns``; by default about as many as rows."""
    count, height, width = pictures.shape[:3]
    columns = columns or math.ceil(math.sqrt(count))
    gap = max(2, max(height, width) // _GAP)
    rows = -(-count // columns)
    drawn = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        drawn[top : top + height, left : left + width] = picture
    return drawn
