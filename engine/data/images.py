"""Photographs and label maps, from the bytes of a file to arrays."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ndissect.engine.data.image_bombs import MOST_PIXELS, defused
from ndissect.store.errors import NDError
from ndissect.store.regular import read_regular

#: The formats of photographs. Named one by one: Pillow also opens formats that start other programs.
PHOTOGRAPHS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: What Pillow's decoders raise on damaged files, as found by feeding them such files.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, TypeError, KeyError, AttributeError,
    ZeroDivisionError, struct.error, zlib.error, RuntimeError, AssertionError, Image.DecompressionBombError,
)  # fmt: skip
# It would be printed beside the error that says the same.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Without loss: a JPEG blurs the numbers of a label map into one another.
_LABEL_MAPS = ("PNG", "BMP", "TIFF", "GIF")
_LONGEST_TEXT = 500
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGB with alpha"}


class BadFile(NDError):
    """One fault of one file of a data set: ``file`` relative to the data set, ``what`` is wrong with it."""

    def __init__(self, file: str, what: str, hint: str = "") -> None:
        file, what = _cut(file), _cut(what)
        super().__init__(f"{file}: {what}", hint)
        self.file = file
        self.what = what

    def __reduce__(self) -> tuple[type[BadFile], tuple[str, str, str]]:
        return BadFile, (self.file, self.what, self.hint)


def read_file(path: Path, file: str, limit: int) -> bytes:
    """The bytes of ``path``, a regular file of at most ``limit``; BadFile under the name ``file`` where it is not."""
    try:
        return read_regular(path, limit)
    except FileNotFoundError:
        raise BadFile(file, "the file is missing") from None
    except OSError as error:
        raise BadFile(file, f"the file cannot be read: {error.strerror or error}") from error


def allow_pixels(pixels: int) -> None:
    """Let images of so many pixels be decoded: Pillow by itself takes no more than 178 million."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > MOST_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


def decode_image(data: bytes, file: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """The photograph in ``data`` as (H, W, 3) uint8 RGB, whatever its colour mode.

    An EXIF orientation is not applied: label maps lie on the pixels as they are stored. BadFile where the data is
    no image, is truncated or damaged, or is not of ``size`` (H, W).
    """
    try:
        with Image.open(defused(data), formats=PHOTOGRAPHS) as image:
            # Before decoding: a small file can declare an enormous image.
            if size is not None and (image.height, image.width) != size:
                raise BadFile(file, f"the image is {image.height} x {image.width} pixels, index.csv says {_by(size)}")
            image.load()
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
            if image.mode in ("I", "F"):
                raise BadFile(file, f"an image of mode {image.mode} is no photograph of 8 or 16 bits")
            # Each step makes an image anew, and a large one is large.
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except UNREADABLE as error:
        raise BadFile(file, f"not a readable image: {_reason(error, data)}") from error


def decode_labels(data: bytes, file: str, grid: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """The label map in ``data``, a PNG, as (sh, sw) uint16 concept numbers.

    In 8-bit RGB, as Broden writes it, a pixel is the number R + 256 G; in grey of up to 16 bits, or with a palette, it
    is the number as it stands. BadFile where the data is no such PNG, is truncated or damaged (by its checksums), or is
    not of ``grid`` (sh, sw).
    """
    if not data.startswith(_PNG_START) or len(data) < 26:
        raise BadFile(file, "not a PNG file" if data else "the file is empty")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if (depth, colour) != (8, 2) and colour not in (0, 3):
        actual = f"{depth}-bit {_PNG_COLOURS.get(colour, 'unknown')}"
        raise BadFile(file, f"a label map must be 8-bit RGB, greyscale or palette, this one is {actual}")
    if (height, width) != grid:
        raise BadFile(file, f"the label map is {height} x {width} pixels, index.csv says {_by(grid)}")
    pixels = decode_label_pixels(data, file)
    # Only the first of several headers was looked at.
    if pixels.shape[:2] != grid or (pixels.ndim == 3) != (colour == 2):
        raise BadFile(file, f"a PNG with two headers, the other of {_by(pixels.shape[:2])} pixels")
    return rgb_to_numbers(pixels.astype(np.uint8, copy=False)) if pixels.ndim == 3 else pixels.astype(np.uint16)


def decode_label_pixels(
    data: bytes, file: str, *, palette_as_colours: bool = False, most: int = MOST_PIXELS
) -> npt.NDArray[np.uint8 | np.uint16]:
    """The pixels of a label map as they stand: numbers, (h, w) uint8 or uint16, or colours, (h, w, 3) uint8.

    Of a palette the numbers are given, unless its colours are asked for, of grey with 1, 2, 4, 8 or 16 bits the grey;
    an alpha channel is left out. BadFile where the data is no PNG, BMP, TIFF or GIF, is truncated or damaged, or has
    more than ``most`` pixels.
    """
    depth = 8
    if data.startswith(_PNG_START):
        _check_png(data, file)
        depth = data[24]
    try:
        with Image.open(defused(data), formats=_LABEL_MAPS) as opened:
            if opened.height * opened.width > most:
                raise BadFile(file, f"the label map is {opened.height} x {opened.width} pixels, more than {most:,}")
            opened.load()
            plain = {"RGBA": "RGB", "LA": "L", **({"P": "RGB"} if palette_as_colours else {})}
            image = opened.convert(plain[opened.mode]) if opened.mode in plain else opened
            if image.mode not in ("1", "L", "P", "RGB", "I", "I;16", "I;16L", "I;16B"):
                raise BadFile(file, f"an image of mode {image.mode} is no label map of 8 or 16 bits")
            pixels, grey = np.asarray(image), image.mode == "L"
    except UNREADABLE as error:
        raise BadFile(file, f"not a readable label map: {_reason(error, data)}") from error
    if pixels.dtype == np.uint8:
        # Grey of few bits was spread over all that 8 bits can be.
        return pixels // (255 // ((1 << depth) - 1)) if grey and depth in (2, 4) else pixels
    if pixels.dtype != bool and pixels.size and (pixels.min() < 0 or pixels.max() > 0xFFFF):
        raise BadFile(file, "holds numbers that are larger than 65,535")
    return pixels.astype(np.uint16)


def rgb_to_numbers(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """(..., 3) uint8 pixels of a label PNG as (...) uint16 concept numbers: R + 256 G."""
    # R and G, side by side in memory, are the number's low and high byte.
    return np.array(np.ascontiguousarray(rgb)[..., :2].view("<u2")[..., 0], np.uint16)


def numbers_to_rgb(numbers: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """(...) concept numbers, 0 to 65535, as (..., 3) uint8 pixels of a label PNG: the inverse of rgb_to_numbers."""
    n = np.asarray(numbers)
    if n.size and (n.min() < 0 or n.max() > 0xFFFF):
        raise ValueError("concept numbers lie between 0 and 65535")
    return np.stack([n & 0xFF, n >> 8, np.zeros_like(n)], -1).astype(np.uint8)


def _check_png(data: bytes, file: str) -> None:
    """Refuse a PNG with a bad checksum or without its end: Pillow reads past both when it has pixels enough."""
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise BadFile(file, "the PNG is damaged: wrong checksum")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise BadFile(file, "the PNG is truncated")


def _cut(text: str) -> str:
    """``text`` without its end where a cell or a name in it is too long to be read."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, Image.DecompressionBombError):
        return f"it is far too large ({str(error).partition(' exceeds')[0]})"
    # Pillow names the memory buffer, which tells the user nothing.
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]}"
