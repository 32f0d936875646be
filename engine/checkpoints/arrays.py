"""Numpy's arrays in a pickle, by the numbers that stand in it; numpy's own functions are not called for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

_KINDS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"})
_LONGEST = 1 << 40


@dataclass(eq=False)
class NumberType:
    """Numpy's type of numbers: ``code`` as in ``f4``, empty where it is none of numbers; ``order`` of their bytes."""

    code: str
    order: str = "<"

    def build(self, state: object) -> None:
        """Take what the pickle says of the type after its code: ``(version, order, fields, ...)``."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
            self.order = "<" if state[1] == "=" else state[1]
        else:
            self.code = ""


@dataclass(eq=False)
class StoredArray:
    """An array of numpy's in the file: ``numbers`` are its bytes, in Fortran's order where ``fortran``."""

    dtype: NumberType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    numbers: bytes | None = None

    def build(self, state: object) -> None:
        """Take what the pickle says of an array after its class: ``(version, shape, dtype, fortran, bytes)``."""
        if isinstance(state, tuple) and len(state) == 5:
            self.fill(state[2], state[1], state[3] is True or state[3] == 1, state[4])

    def fill(self, dtype: object, shape: object, fortran: bool, numbers: object) -> None:
        """Take these where they are an array of numbers; the array has none otherwise."""
        raw = numbers.encode("latin-1", "replace") if isinstance(numbers, str) else numbers
        sizes = (shape,) if type(shape) is int else shape
        is_shape = isinstance(sizes, tuple) and all(type(n) is int and n >= 0 for n in sizes)
        if isinstance(dtype, NumberType) and isinstance(raw, bytes) and is_shape:
            self.dtype, self.shape, self.fortran, self.numbers = dtype, cast(tuple[int, ...], sizes), fortran, raw

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers."""
        return len(self.numbers or b"")

    def tensor(self) -> Tensor | None:
        """The same numbers as a tensor, or None where they are none that torch has, or not as many as it claims."""
        if self.numbers is None or self.dtype is None or self.dtype.code not in _KINDS or len(self.shape) > 32:
            return None
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        if math.prod(self.shape) * dtype.itemsize != len(self.numbers) or max(self.shape, default=0) > _LONGEST:
            return None
        values = np.ndarray(self.shape, dtype, self.numbers, order="F" if self.fortran else "C")
        return torch.from_numpy(np.array(values, dtype.newbyteorder("="), order="C"))
