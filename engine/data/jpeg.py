"""JPEG files that are kept as they are: whether one is whole and of which size, without what cameras write into it."""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.image_bombs import defused
from ndissect.engine.data.images import decode_image
from ndissect.store.jpeg import Frame, plain_jpeg, read_frame

_END = b"\xff\xd9"


def keep_jpeg(data: bytes, file: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """The bytes of a baseline colour JPEG of ``size`` (H, W) as they are, (n,) uint8; all else decoded, (H, W, 3)."""
    if size is not None and data.endswith(_END):  # cut short, it would be decoded without a word
        with contextlib.suppress(ValueError):  # a Bomb too: decoding refuses it
            if _is_colour(read_frame(data), size):
                defused(data)
                return np.frombuffer(data, np.uint8)
    return decode_image(data, file, size)


def bare_jpeg(data: bytes, size: tuple[int, int]) -> bytes | None:
    """A whole baseline colour JPEG of ``size`` (H, W) without what else cameras write into it; None for anything else.

    The picture is the same, bit by bit; places, times and orientation, which label maps do not follow, are gone.
    """
    try:
        frame, bare = plain_jpeg(data)
    except ValueError:
        return None
    return bare if _is_colour(frame, size) else None


def _is_colour(frame: Frame, size: tuple[int, int]) -> bool:
    return (frame.height, frame.width) == size and frame.components == 3
