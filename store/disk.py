"""The file under an HDF5 file that is being written."""

from __future__ import annotations

import io
import os
from typing import Any

# HDF5 reads back what describes its data, never the data; pieces of that are small.
_READ_BACK = 1 << 20


class Disk(io.RawIOBase):
    """The open file ``fd``, as h5py writes to it. Call ``check`` afterwards: it says whether the disk took everything.

    A write that fails must not reach HDF5, which would print tracebacks of its own and may crash the interpreter. So
    the first failure is kept for ``check``, and what is written after it is dropped.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._at = 0
        self._failure: OSError | None = None
        self._lost: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first OSError of a write, if there was one."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self._failure is None and done < len(view):
            try:
                done += os.pwrite(self._fd, view[done:], self._at + done)
            except OSError as e:
                self._failure = e
        if self._failure is not None and len(view) <= _READ_BACK:
            self._lost.append((self._at, bytes(view)))
        self._at += len(view)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        there = os.pread(self._fd, len(view), self._at)
        view[: len(there)] = there
        view[len(there) :] = bytes(len(view) - len(there))
        for at, data in self._lost:
            start, end = max(at, self._at), min(at + len(data), self._at + len(view))
            if start < end:
                view[start - self._at : end - self._at] = data[start - at : end - at]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        end = self._at if size is None else size
        try:
            if self._failure is None:
                os.ftruncate(self._fd, end)
        except OSError as e:
            self._failure = e
        return end
