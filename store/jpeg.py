"""JPEGs before a decoder sees them: what their headers say, at the cost of looking for markers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ndissect.store import limits

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_BASELINE = (0xC0, 0xC1)
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables that share the numbers of frames
_TABLES = (0xC4, 0xDB, 0xDD)
# JFIF and Adobe's own: they say which colours the components are.
_COLOURS = (0xE0, 0xEE)
# What ends the data of a scan: any marker but a stuffed 0xFF and the restarts.
_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7]")


@dataclass(frozen=True)
class Frame:
    """What the headers of a baseline JPEG say: its size in pixels, and its components (1 grey, 3 colour, 4 CMYK)."""

    height: int
    width: int
    components: int


def read_frame(data: bytes) -> Frame:
    """What a JPEG's headers say; ValueError for what is no JPEG, or a progressive, arithmetic or lossless one."""
    for kind, start, end in _segments(data):
        if kind in _BASELINE:
            return _frame(data[start + 4 : end])
        if kind == _SCAN or (0xC0 <= kind <= 0xCF and kind not in _NO_FRAME):
            break
    raise ValueError("it is no baseline JPEG")


def plain_jpeg(data: bytes) -> tuple[Frame, bytes]:
    """What a JPEG's headers say, and the file without what is no part of the picture (places, times, previews).

    ValueError for what is no whole baseline JPEG of one picture, in no more scans than it has components.
    """
    frame = read_frame(data)
    parts, frames, scans = [data[:2]], 0, 0
    for kind, start, end in _segments(data):
        frames += 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME
        scans += kind == _SCAN
        if frames > 1 or scans > frame.components:
            raise ValueError("it holds more than one picture, or more scans than one takes")
        if kind in (*_BASELINE, *_TABLES, *_COLOURS, _SCAN, _END):
            parts.append(data[start:end])
    if not scans:
        raise ValueError("it holds no picture")
    return frame, b"".join(parts)


def check_thumbnail(data: bytes) -> bytes:
    """``data`` without what is no part of the picture, if it may be decoded as a thumbnail; ValueError says why not."""
    if len(data) > limits.THUMBNAIL.most:
        raise ValueError(f"{len(data):,} bytes, the limit is {limits.THUMBNAIL.most:,}")
    frame, bare = plain_jpeg(data)
    if max(frame.height, frame.width) > limits.THUMBNAIL_SIDE.most:
        most = limits.THUMBNAIL_SIDE.most
        raise ValueError(f"{frame.width} x {frame.height} pixels, the limit is {most} x {most}")
    return bare


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker, the start and the end of each segment after the first; a scan's with the data that follow it."""
    if data[:2] != bytes([0xFF, _START]):
        raise ValueError("it does not begin as a JPEG")
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # a marker may be filled up from the left
            at += 1
        if data[at : at + 1] != b"\xff" or at + 2 > len(data):
            raise ValueError("it is cut short, or its segments do not follow one another")
        kind = data[at + 1]
        if kind == _END:
            yield kind, at, at + 2
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("it is cut short")
        if kind == _SCAN:
            following = _NEXT.search(data, end)
            if following is None:
                raise ValueError("it is cut short")
            end = following.start()
        yield kind, at, end
        at = end


def _frame(header: bytes) -> Frame:
    if len(header) < 6:
        raise ValueError("its frame is cut short")
    height, width = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
    if header[0] != 8 or not height or not width or header[5] not in (1, 3, 4):
        raise ValueError(f"{width} x {height} pixels of {header[0]} bits in {header[5]} components")
    return Frame(height, width, header[5])
