"""MATLAB files of version 5 for tests, written by the letter of their published description."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

_INT8, _UINT8, _UINT16, _INT32, _UINT32, _DOUBLE, _MATRIX, _COMPRESSED = 1, 2, 4, 5, 6, 9, 14, 15


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    if len(content) <= 4 and kind != _MATRIX:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(value: Any, name: str = "", order: str = "<") -> bytes:
    """``value``: a dict is a structure, a list of dicts an array of them, otherwise a text, a number or an array."""

    def numbers(kind: int, values: Any, code: str) -> bytes:
        return element(kind, np.asarray(values, order + code).tobytes(order="F"), order)

    def head(kind: int, shape: Sequence[int]) -> bytes:
        parts = (numbers(_UINT32, [kind, 0], "u4"), numbers(_INT32, shape, "i4"), element(_INT8, name.encode(), order))
        return b"".join(parts)

    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str):
        content = head(4, (1, len(value))) + numbers(_UINT16, [ord(letter) for letter in value], "u2")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        fields = list(value[0])
        names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
        content = head(2, (1, len(value))) + numbers(_INT32, [32], "i4") + element(_INT8, names, order)
        content += b"".join(matrix(entry[field], "", order) for entry in value for field in fields)
    elif isinstance(value, np.ndarray) and value.dtype == np.uint8:
        content = head(9, value.shape) + numbers(_UINT8, value.ravel("F"), "u1")
    else:
        array = np.atleast_2d(np.asarray(value, np.float64)) if value != [] else np.zeros((0, 0))
        content = head(6, array.shape) + numbers(_DOUBLE, array.ravel("F"), "f8")
    return element(_MATRIX, content, order)


def mat_file(name: str, value: Any, *, packed: bool = True, order: str = "<") -> bytes:
    content = matrix(value, name, order)
    if packed:
        data = zlib.compress(content)
        content = struct.pack(f"{order}II", _COMPRESSED, len(data)) + data
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49) + content
