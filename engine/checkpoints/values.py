"""What a pickle of weights holds, as plain data: no object of the file is made before it is known to be numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Names of torch's storages; those of CUDA are called the same.
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.qint8, "QUInt8Storage": torch.quint8, "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2, "QUInt2x4Storage": torch.quint2x4,
}  # fmt: skip
#: The types of numbers by the name by which a pickle calls a storage of them.
STORAGE_TYPES = {
    f"{module}.{name}": dtype
    for name, dtype in _STORAGES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
#: The types of numbers by the names by which a pickle calls them: ``torch.float32``.
DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
#: The types of numbers that weights may have; others are quantised, or parts of a byte.
PLAIN = frozenset(
    dtype
    for name, dtype in DTYPES.items()
    if (dtype.is_floating_point or dtype.is_complex or name.endswith(("int8", "int16", "int32", "int64", "bool")))
    and not name.endswith(("qint8", "quint8", "qint32", "_x2"))
)


@dataclass(frozen=True, eq=False)
class Global:
    """A function or class that the file names, as in ``collections.OrderedDict``. It is not looked up."""

    name: str


@dataclass(frozen=True, eq=False)
class StoredNumbers:
    """Numbers in the file: those of the storage ``key``, which has ``count`` of them, from ``start`` on."""

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A dense tensor in the file: a view of ``numbers``; ``conjugate`` and ``negative`` as torch marks such views."""

    numbers: StoredNumbers
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False


@dataclass(frozen=True, eq=False)
class OddTensor:
    """A tensor that is not read; ``kind`` completes a sentence, as in ``a sparse tensor``."""

    kind: str


@dataclass(eq=False)
class Unread:
    """An object of a class that is not known here, of which nothing is kept but the name of the class.

    ``tensors``: whether tensors went into it, so that it may be weights in another form.
    """

    name: str
    tensors: bool = False
