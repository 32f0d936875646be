"""Zip archives from elsewhere. Without torch: downloads are unpacked without it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BufferedReader
from typing import IO, cast

#: What zipfile raises on damaged and hostile archives, beside OSError.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError,
)  # fmt: skip


def open_zip(file: BufferedReader, longest_list: int) -> zipfile.ZipFile:
    """The archive in ``file``, its list of members read; BadZipFile where that has more than ``longest_list`` bytes.

    Errors as UNREADABLE. ``file`` stays open when the archive is closed.
    """
    return zipfile.ZipFile(cast(IO[bytes], _ShortReads(file, longest_list)))


class _ShortReads:
    """A file for zipfile, which reads the list of members in one piece of whatever length the archive claims."""

    def __init__(self, file: BufferedReader, most: int) -> None:
        self._file, self._most = file, most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise zipfile.BadZipFile("its list of members is too long")
        return self._file.read(size)
