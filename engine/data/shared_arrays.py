"""Arrays that one process writes and another reads, in memory that both have mapped.

The memory is a file that has no name (memfd_create), so nothing of it is left however the processes end, and the size
of /dev/shm, 64 MB in many containers, does not limit it. It is taken before it is written: where there is none that is
an error, not a SIGBUS.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.store.errors import NDError

_LINE = 64  # of a processor's cache: where arrays begin
_STEP = 1 << 20

#: Told the address and bytes of memory that this process has mapped; gives what must be done before it is unmapped.
OnMap = Callable[[int, int], Callable[[], None]]


@dataclass(frozen=True)
class Placed:
    """Where an array lies in the memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


def new_memory() -> int:
    """A file descriptor of memory, empty as yet; OSError where there can be none."""
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memory without a name")
    return os.memfd_create("nd-batch")


class SharedArrays:
    """The memory behind ``file``: one process puts arrays there, another views them.

    ``on_map``: told of each new mapping.
    """

    def __init__(self, file: int, on_map: OnMap | None = None) -> None:
        self.placed: list[Placed] = []
        self._file, self._on_map = file, on_map
        self._mapped: mmap.mmap | None = None
        self._before_unmapping: Callable[[], None] | None = None

    @property
    def bytes(self) -> int:
        """How much is mapped."""
        return len(self._mapped) if self._mapped is not None else 0

    def clear(self) -> None:
        """Begin anew: what is put from now on takes the place of what was there."""
        self.placed = []

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """A new array, the next of ``placed``. NDError where there is no memory for it."""
        kind = np.dtype(dtype)
        end = self.placed[-1].offset + _nbytes(self.placed[-1]) if self.placed else 0
        place = Placed(-(-end // _LINE) * _LINE, shape, kind.str)
        self._grow(place.offset + _nbytes(place))
        self.placed.append(place)
        return self.view(place)

    def put(self, array: npt.NDArray[Any]) -> None:
        """A copy of ``array``, the next of ``placed``."""
        self.empty(array.shape, array.dtype)[...] = array

    def view(self, place: Placed) -> npt.NDArray[Any]:
        """The array that lies there."""
        assert self._mapped is not None
        return np.ndarray(place.shape, place.dtype, self._mapped, place.offset)

    def map(self, size: int) -> None:
        """Map what has grown to ``size`` bytes."""
        if size != self.bytes:
            self.unmap()
            self._mapped = mmap.mmap(self._file, size)
            if self._on_map is not None:
                self._before_unmapping = self._on_map(np.frombuffer(self._mapped, np.uint8).ctypes.data, size)

    def unmap(self) -> None:
        """Let go of the memory. It stays mapped for as long as there are arrays that lie in it."""
        if self._before_unmapping is not None:
            self._before_unmapping()
        self._mapped = self._before_unmapping = None

    def _grow(self, size: int) -> None:
        size = max(1, -(-size // _STEP)) * _STEP
        if size <= self.bytes:
            return
        try:
            os.posix_fallocate(self._file, 0, size)
            self.map(size)
        except OSError as error:
            raise NDError(
                f"there is no memory for a batch of decoded images, {size >> 20} MB: {error.strerror or error}",
                "a smaller --batch-size or fewer --workers take less; --workers 1 shares no memory",
            ) from error


def _nbytes(place: Placed) -> int:
    return int(np.prod(place.shape, dtype=np.int64)) * np.dtype(place.dtype).itemsize
