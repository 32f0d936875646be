"""JPEGs as they lie in files: whether one is whole and of which size, and what cameras write into it taken out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.image_bombs import Bomb, defused
from ndissect.engine.data.images import decode_image

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN, _COMMENT = 0xDA, 0xFE
_BASELINE, _NO_FRAME = (0xC0, 0xC1), (0xC4, 0xC8, 0xCC)


def keep_jpeg(data: bytes, file: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """The bytes of a baseline colour JPEG of ``size`` (H, W) as they are, (n,) uint8; all else decoded, (H, W, 3)."""
    try:
        defused(data)
    except Bomb:
        size = None
    if size is None or _frame(data) != size:
        return decode_image(data, file, size)  # which refuses what would cost too much
    return np.frombuffer(data, np.uint8)


def _frame(data: bytes) -> tuple[int, int] | None:
    """The size of a whole baseline JPEG of three components, read from its headers; None for anything else."""
    if not data.startswith(_START) or not data.endswith(_END):  # cut short, it would be decoded without a word
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _BASELINE:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            return (height, width) if data[at + 9] == 3 else None
        if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME:
            return None  # progressive, arithmetic, lossless
        at += 2 + length
    return None


def bare_jpeg(data: bytes, size: tuple[int, int]) -> bytes | None:
    """A whole baseline colour JPEG of ``size`` (H, W) without what else cameras write into it; None for anything else.

    The picture is the same, bit by bit; places, times and orientation, which label maps do not follow, are gone.
    """
    if _frame(data) != size:
        return None
    parts, at = [data[:2]], 2
    while data[at] == 0xFF and data[at + 1] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end + 4 > len(data):
            return None
        if not (0xE1 <= data[at + 1] <= 0xED or data[at + 1] in (0xEF, _COMMENT)):
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])
