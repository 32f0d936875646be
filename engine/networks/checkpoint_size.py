"""What reading a checkpoint may cost in memory. It is checked before and after reading, whatever the file claims."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from ndissect.engine.machine.zips import UNREADABLE, open_zip
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes

# Weights hardly shrink, so that what inflates to many times its file is no checkpoint; a small one may hold zeros.
_LARGEST, _MOST_GROWTH, _GROWTH_ANYWAY = 16 * 10**9, 8, 64 << 20
# A byte of a pickle can make an object of so many.
_OBJECT = 64
# The list of a zip archive's members is read as a whole, as is the header of safetensors.
_LONGEST_LIST = 16 << 20
_LONGEST_KEY = 1_000
# What may stand behind the list of members of a zip archive: a record of 64-bit sizes, where that is, and the last one.
_ENDING = 56 + 20 + 22


@dataclass(frozen=True)
class Limit:
    """How many ``bytes`` a checkpoint may take in memory, and the error for one that takes more."""

    path: Path
    bytes: int

    def check(self, needed: int, what: str) -> None:
        """NDError where ``needed`` bytes are too many; ``what`` completes a sentence about the file."""
        if needed > self.bytes:
            raise NDError(
                f"{self.path} {what} {human_bytes(needed)}, at most {human_bytes(self.bytes)} are read",
                f"--max-weights {-(-needed // 10**9)}GB reads it, where you trust its source",
            )


def limit_of(file: BufferedReader, path: Path, given: int | None) -> Limit:
    """The limit for the weights in ``file``: ``given``, else 16 GB and 8 times the file; NDError where that is more."""
    size = os.fstat(file.fileno()).st_size
    Limit(path, _LARGEST if given is None else given).check(size, "has")
    return Limit(path, min(_LARGEST, _MOST_GROWTH * size + _GROWTH_ANYWAY) if given is None else given)


def check_zip(file: BufferedReader, limit: Limit) -> None:
    """NDError where the members of the zip archive ``file`` inflate to more than ``limit``."""
    try:
        _check_ending(file)
        with open_zip(file, _LONGEST_LIST) as archive:
            members = archive.infolist()
    except (*UNREADABLE, OSError) as error:
        raise NDError(
            f"{limit.path} is damaged or not a checkpoint: {str(error)[:200]}", "Copy or download the weights again"
        ) from error
    # The pickle becomes objects, which are larger.
    needed = sum(m.file_size * (_OBJECT if m.filename.endswith(".pkl") else 1) for m in members)
    limit.check(needed, "would take in memory")


def _check_ending(file: BufferedReader) -> None:
    """BadZipFile where torch and zipfile could find two different lists of members at the end of ``file``."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _ENDING, 0))
    ending = file.read().rjust(_ENDING)
    if ending[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it is cut short, or something follows its list of members")
    if ending[-42:-38] == b"PK\x06\x07" and int.from_bytes(ending[-34:-26], "little") != size - _ENDING:
        raise zipfile.BadZipFile("it has two lists of members")


class CountedPickle:
    """A file for torch.load that ends a pickle of too many parts: Python's are read one by one.

    It stands for ``file``, in which storages follow the pickle, and those are read in large pieces.
    """

    def __init__(self, file: BufferedReader, limit: Limit) -> None:
        self._file, self._limit = file, limit
        self._parts = 0
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        self._count()
        return self._file.read(size)

    def readline(self) -> bytes:
        """The next line."""
        self._count()
        return self._file.readline()

    def _count(self) -> None:
        self._parts += 1
        if self._parts * _OBJECT > self._limit.bytes:
            self._limit.check(self._parts * _OBJECT, "would take in memory more than")


def check_header(head: bytes, path: Path) -> None:
    """NDError where the header of a safetensors file is longer than that of any network."""
    length = int.from_bytes(head[:8], "little")
    if length > _LONGEST_LIST:
        raise NDError(
            f"{path} is damaged: its header has {human_bytes(length)}, at most {human_bytes(_LONGEST_LIST)} are read",
            "Copy or download the weights again",
        )


def plain_tensors(state: Mapping[str, Tensor], limit: Limit) -> dict[str, Tensor]:
    """The same tensors as plain dense ones; NDError for other kinds, and where they take more than ``limit``.

    A tensor may repeat a small storage. It then takes no memory by itself, and takes all that it claims once it is
    copied.
    """
    plain: dict[str, Tensor] = {}
    needed = 0
    for key, value in state.items():
        if len(key) > _LONGEST_KEY:
            raise _refused(limit.path, f"a key of {len(key):,} characters")
        kind = _kind(value)
        if kind:
            raise _refused(limit.path, f"{key}, {kind}")
        # Of the base class: a file may give a tensor attributes that hide its methods.
        plain[key] = Tensor.detach(value).as_subclass(Tensor)
        needed += plain[key].numel() * plain[key].element_size()
    limit.check(needed, f"holds {len(plain)} tensors that would take")
    return plain


def _kind(value: Tensor) -> str:
    """What kind of tensor this is, as in ``a sparse tensor``, where no weight can be copied from it; else ""."""
    if value.layout != torch.strided or value.is_nested:
        return "a sparse tensor"
    if value.device.type == "meta":
        return "a tensor without values (meta)"
    return "a quantised tensor" if value.is_quantized else ""


def _refused(path: Path, what: str) -> NDError:
    return NDError(f"{path} holds {what}", "Give plain dense tensors: torch.save(network.state_dict(), FILE)")
