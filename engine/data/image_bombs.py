"""Image files that make a decoder do far too much, refused before they are decoded.

A small file can do that in three ways. Its header may announce more pixels than there is memory for. A progressive JPEG
may hold thousands of scans, each of which goes over the whole picture. What stands beside the pixels may be read again
and again.
"""

from __future__ import annotations

import io
import re
import struct

#: An image of more pixels is not read, nor are label maps of one image with more in all, unless the user says so.
MOST_PIXELS = 50_000_000

# A photograph in uncompressed 16 bits a channel takes 8 bytes a pixel; the rest is what cameras write beside it.
_BYTES_A_PIXEL, _BESIDE = 8, 32 << 20
_MOST_SCANS = 100  # of a JPEG: encoders write about ten
_MOST_SEGMENTS = 5_000  # of a JPEG before its pixels
_MOST_CHUNKS = 100_000  # of a PNG: encoders write one every 8 kB or more
_METADATA = 4 << 10
_MOST_VALUES = 400_000  # of one entry of a TIFF: strips and tiles of an image are fewer
_LARGEST_TILE = 1 << 26
_PNG, _PIXELS_OF_PNG = b"\x89PNG\r\n\x1a\n", frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_JPEG, _START_OF_SCAN, _END = b"\xff\xd8", 0xDA, 0xD9
# APP0 and APP14 say how colours are coded.
_METADATA_OF_JPEG = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_BASELINE = (0xC0, 0xC1)  # one scan, where it holds all of the components
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Bomb(ValueError):
    """An image that would cost more than its pixels are worth; the message completes ``not a readable image: ...``."""


def most_bytes(pixels: int) -> int:
    """How many bytes the file of an image with so many pixels may have."""
    return _BYTES_A_PIXEL * pixels + _BESIDE


def defused(data: bytes) -> io.BytesIO:
    """The image file ``data`` for a decoder: the same pixels, without what could cost without limit; or Bomb."""
    if data.startswith(_JPEG):
        return io.BytesIO(_plain_jpeg(data))
    if data.startswith(_PNG):
        return io.BytesIO(_plain_png(data) if len(data) > _METADATA else data)
    if data[:4] in _TIFF:
        _check_tiff(data)
    return _Counted(data)


def _check_scans(data: bytes) -> None:
    """Bomb where the JPEG ``data`` has more scans than an encoder writes."""
    if data.count(b"\xff\xda") <= _MOST_SCANS:  # the two bytes may also stand in what is no scan: at most too many
        return
    at, scans = 2, 0
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == _END:
            return
        scans += marker == _START_OF_SCAN
        if scans > _MOST_SCANS:
            raise Bomb(f"a JPEG of more than {_MOST_SCANS} scans")
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")


class _Counted(io.BytesIO):
    """Bytes that count how often and how much of them is read: Pillow reads what stands beside pixels bit by bit."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._bytes = 10_000 + len(data) // 256, 4 * len(data) + (1 << 20)

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._reads -= 1
        self._bytes -= len(piece)
        if self._reads < 0 or self._bytes < 0:
            raise Bomb("its parts are too many, or are used again and again")
        return piece


def _plain_jpeg(data: bytes) -> bytes:
    """The JPEG without metadata, where it has more than a little: none of it changes a pixel."""
    at, beside, components = 2, 0, b""
    parts: list[tuple[int, int]] = []
    last = len(data) - 10
    for _ in range(_MOST_SEGMENTS):
        # What is no segment is damaged: the decoder says how.
        marker = data[at + 1] if at <= last and data[at] == 0xFF else 0
        if marker in (0, _START_OF_SCAN):
            if components != data[at + 4 : at + 5]:  # of several scans
                _check_scans(data)
            parts.append((at, len(data)))
            return b"".join(data[i:j] for i, j in [(0, 2), *parts]) if beside > _METADATA else data
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + (0 if marker in _WITHOUT_LENGTH else data[at + 2] << 8 | data[at + 3])
        if marker in _METADATA_OF_JPEG:
            beside += end - at
        else:
            parts.append((at, end))
            if marker in _BASELINE:
                components = data[at + 9 : at + 10]
        at = end
    raise Bomb(f"a JPEG of more than {_MOST_SEGMENTS:,} parts")


def _plain_png(data: bytes) -> bytes:
    """The PNG without all that is no pixel, colour or transparency, where it has more than a little of that."""
    view, at, beside = memoryview(data), 8, 0
    kept = [view[:8]]
    for _ in range(_MOST_CHUNKS):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):  # damaged, or after the end
            return b"".join([*kept, view[at:]]) if beside > _METADATA else data
        if data[at + 4 : at + 8] in _PIXELS_OF_PNG:
            kept.append(view[at:end])
        else:
            beside += end - at
        at = end
    raise Bomb(f"a PNG of more than {_MOST_CHUNKS:,} parts")


def _check_tiff(data: bytes) -> None:
    """Bomb where the first directory of a TIFF lists more strips or tiles than an image has, or enormous tiles."""
    order, big = _TIFF[data[:4]], data[2:3] == b"+" or data[3:4] == b"+"
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
        (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)
        at += 8 if big else 2
        tile = {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
        for _ in range(min(entries, 1 << 16)):
            tag, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, at)
            if kind not in (1, 2, 6, 7) and count > _MOST_VALUES:
                raise Bomb(f"entry {tag} of the TIFF has {count:,} values")
            if tag in tile:
                (tile[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + (12 if big else 8))
            at += 20 if big else 12
    except (struct.error, OverflowError):
        return  # damaged: the decoder says how
    if tile[_TILE_WIDTH] * tile[_TILE_LENGTH] > _LARGEST_TILE:
        raise Bomb(f"tiles of {tile[_TILE_LENGTH]} x {tile[_TILE_WIDTH]} pixels")
