"""MATLAB files of version 5, as far as annotations need it: numbers, texts, cells and structures.

Nothing is executed. What is packed is unpacked up to a limit, and every length is looked at before it is believed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1"}
# Classes of matrices: cells, structures, texts; numbers are those from double to uint64.
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
_DEEPEST, _MOST_ENTRIES = 16, 1 << 20


class BadMat(ValueError):
    """What is wrong with a MATLAB file, in words."""


def read_mat(data: bytes, limit: int) -> dict[str, Any]:
    """The variables of a file by name; what is packed in it may take up to ``limit`` bytes, else BadMat.

    A structure is a dict, an array of n structures or cells, n other than 1, a list; a text is a str, numbers an array.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise BadMat("not a MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    variables = {}
    left = limit
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = _unpacked(content, left)
            left -= len(unpacked)
            kind, content = next(_elements(unpacked, order), (0, b""))  # noqa: PLW2901
        if kind == _MATRIX:
            name, value = _Reader(order).matrix(content, 0)
            variables[name] = value
    return variables


def _unpacked(packed: bytes, limit: int) -> bytes:
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise BadMat(f"its packed part is damaged ({error})") from None
    if len(data) > limit:
        raise BadMat(f"it unpacks to more than {limit:,} bytes")
    return data


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of the data elements that lie one after another in ``data``."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small one: its content lies in the tag
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 8
            if size > 4:
                raise BadMat("a small element that is not small")
        else:
            start = at + 8
            end = start + size if kind == _COMPRESSED else start + (size + 7) // 8 * 8
        if start + size > len(data):
            raise BadMat("it is cut short")
        yield kind, data[start : start + size]
        at = end


@dataclass
class _Reader:
    """Reads matrices in one byte order, and counts their entries."""

    order: str
    entries: int = 0

    def matrix(self, data: bytes, depth: int) -> tuple[str, Any]:
        """The name and the value of one matrix."""
        if depth > _DEEPEST:
            raise BadMat("structures within structures, too many")
        parts = _elements(data, self.order)
        flags = self._numbers(self._next(parts))
        if not len(flags):
            raise BadMat("a matrix without its flags")
        kind = int(flags[0]) & 0xFF
        shape = tuple(int(n) for n in self._numbers(self._next(parts)))
        name = self._next(parts)[1].decode("latin-1")
        count = 1
        for n in shape:
            count *= n
            if n < 0 or count > 1 << 32:
                raise BadMat("a matrix of no size")
        if kind in _NUMERIC:
            numbers = self._numbers(self._next(parts))
            if len(numbers) != count:
                raise BadMat(f"a matrix of {count} numbers that has {len(numbers)}")
            return name, numbers.reshape(shape, order="F")
        if kind == _CHAR:
            letters = self._numbers(self._next(parts))
            return name, letters.astype("<u2").tobytes().decode("utf-16-le", "replace")
        self.entries += count
        if self.entries > _MOST_ENTRIES:
            raise BadMat("it has too many parts")
        if kind == _CELL:
            return name, _one_or_all([self._inner(parts, depth) for _ in range(count)])
        if kind == _STRUCT:
            return name, self._structures(parts, count, depth)
        raise BadMat(f"it holds a matrix of kind {kind}, which is not read")

    def _structures(self, parts: Iterator[tuple[int, bytes]], count: int, depth: int) -> Any:
        lengths, names = self._numbers(self._next(parts)), self._next(parts)[1]
        length = int(lengths[0]) if len(lengths) else 0
        if length < 1:
            raise BadMat("a structure without the length of its names")
        fields = [names[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), length)]
        self.entries += count * len(fields)
        if self.entries > _MOST_ENTRIES:
            raise BadMat("it has too many parts")
        return _one_or_all([{field: self._inner(parts, depth) for field in fields} for _ in range(count)])

    def _inner(self, parts: Iterator[tuple[int, bytes]], depth: int) -> Any:
        kind, content = self._next(parts)
        if kind != _MATRIX:
            raise BadMat("a part that is no matrix")
        return self.matrix(content, depth + 1)[1] if content else np.zeros((0, 0))

    def _numbers(self, element: tuple[int, bytes]) -> npt.NDArray[Any]:
        kind, content = element
        if kind not in _NUMBERS:
            raise BadMat(f"numbers of type {kind}, which are not read")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)

    @staticmethod
    def _next(parts: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
        element = next(parts, None)
        if element is None:
            raise BadMat("it is cut short")
        return element


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
