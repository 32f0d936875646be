"""Label maps that were made, on the disk: computed once, then the same for whoever asks, also after a pause."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndissect.store.errors import NDError
from ndissect.store.files import remedy

_CHECKSUM = 4
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class LabelFile:
    """Label maps (M, H, W) of images by their numbers, a record an image, which any process may write and read.

    ``path``: the file, made when it is first used; None: one without a name, which ends with the process. ``kind``:
    uint8 or uint16, as concept numbers need it. A record that is not whole counts as none.
    """

    def __init__(self, path: Path | None, shape: tuple[int, int, int], kind: npt.DTypeLike) -> None:
        self.path, self.shape, self.kind = path, shape, np.dtype(kind).newbyteorder("<")
        self._bytes = int(np.prod(shape)) * self.kind.itemsize
        self._lock = threading.Lock()
        self._descriptor = -1

    def write(self, index: int, maps: npt.NDArray[np.integer]) -> None:
        """Keep the maps (M, H, W) of image ``index``; NDError where the disk does not take them."""
        data = np.ascontiguousarray(maps, self.kind).tobytes()
        try:
            os.pwrite(self._open(), self._checksum(index, data) + data, index * (_CHECKSUM + self._bytes))
        except OSError as e:
            where = self.path or Path(tempfile.gettempdir())
            raise NDError(f"cannot keep labels in {where}: {e.strerror or e}", remedy(e, "make room there")) from e

    def read(self, index: int) -> npt.NDArray[np.uint16] | None:
        """The maps (M, H, W) of image ``index``, None where they are not there."""
        try:
            record = os.pread(self._open(), _CHECKSUM + self._bytes, index * (_CHECKSUM + self._bytes))
        except OSError:
            return None
        checksum, data = record[:_CHECKSUM], record[_CHECKSUM:]
        if len(data) < self._bytes or checksum != self._checksum(index, data):
            return None
        return np.frombuffer(data, self.kind).reshape(self.shape).astype(np.uint16)

    def close(self) -> None:
        """Let go of the file, which is opened again where it is used again; one without a name is gone."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.close()

    def _checksum(self, index: int, data: bytes) -> bytes:
        return zlib.crc32(data, zlib.crc32(index.to_bytes(8, "little"))).to_bytes(_CHECKSUM, "little")

    def _open(self) -> int:
        with self._lock:
            if self._descriptor < 0:
                if self.path is None:
                    with tempfile.TemporaryFile() as file:
                        self._descriptor = os.dup(file.fileno())
                else:
                    self._descriptor = os.open(self.path, _FLAGS, 0o666)
            return self._descriptor
