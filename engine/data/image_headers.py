"""The sizes of many image files, from their first bytes: nothing is decoded."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.image_bombs import MOST_PIXELS, defused, most_bytes
from ndissect.engine.data.images import PHOTOGRAPHS, UNREADABLE
from ndissect.store.regular import open_regular, read_regular

#: Nothing is known of the size of a file that cannot be read.
UNKNOWN = (0, 0)

# What stands before the size of a JPEG is mostly a preview, of less than this.
_START = 1 << 17
_PNG = b"\x89PNG\r\n\x1a\n"
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables that share the numbers of frames
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_MOST_SEGMENTS = 5_000
_LARGEST_SIDE = 2**31 - 1
_ORIENTATION = 0x0112
_PIECE = 256


def read_sizes(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.int32]:
    """(N, 2) int32: height and width of each image file, as its header has them; UNKNOWN where it cannot be read.

    ``progress`` receives (files done, files in all).
    """
    sizes = np.zeros((len(paths), 2), np.int32)
    pieces = range(0, len(paths), _PIECE)
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:  # they wait for the disk
        read = pool.map(lambda start: [read_size(path) for path in paths[start : start + _PIECE]], pieces)
        for start, piece in zip(pieces, read, strict=True):
            sizes[start : start + len(piece)] = piece
            if progress:
                progress(start + len(piece), len(paths))
    return sizes


def read_size(path: Path) -> tuple[int, int]:
    """The height and width of the image file ``path`` as its pixels are stored; UNKNOWN where it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(_START)
        return size_of(start) or size_of(read_regular(path, most_bytes(MOST_PIXELS))) or UNKNOWN
    except OSError:
        return UNKNOWN


def size_of(data: bytes) -> tuple[int, int] | None:
    """The height and width of the image whose file begins with ``data``; None where that does not tell."""
    with contextlib.suppress(*UNREADABLE):
        height, width = _png_or_jpeg_size(data) or _pillow_size(data)
        if 0 < min(height, width) and max(height, width) <= _LARGEST_SIDE:
            return height, width
    return None


def _png_or_jpeg_size(data: bytes) -> tuple[int, int] | None:
    with contextlib.suppress(ValueError, struct.error):
        if data.startswith(_PNG):
            width, height = struct.unpack(">II", data[16:24])
            return height, width
        if data.startswith(b"\xff\xd8"):
            height, width = struct.unpack(">HH", _segment(data, _is_frame)[1:5])
            return height, width
    return None


def _pillow_size(data: bytes) -> tuple[int, int]:
    with Image.open(defused(data), formats=PHOTOGRAPHS) as image:
        return image.height, image.width


def orientation(data: bytes) -> int:
    """The EXIF orientation of the JPEG ``data``: 1 is upright, 5 to 8 are turned by a quarter; 1 where it has none."""
    with contextlib.suppress(*UNREADABLE):
        exif = Image.Exif()
        exif.load(_segment(data, lambda kind: kind == 0xE1))
        value = exif.get(_ORIENTATION)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    return 1


def _is_frame(kind: int) -> bool:
    return 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME


def _segment(data: bytes, wanted: Callable[[int], bool]) -> bytes:
    """The contents of the first segment of a JPEG that is ``wanted``; ValueError where there is none in ``data``."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # a marker may be filled up from the left
            at += 1
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            break
        kind, length = data[at + 1], 0 if data[at + 1] in _WITHOUT_LENGTH else int.from_bytes(data[at + 2 : at + 4])
        if wanted(kind):
            return data[at + 4 : at + 2 + length]
        at += 2 + length
    raise ValueError("no such segment")
