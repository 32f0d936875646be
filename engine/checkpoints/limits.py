"""What reading a checkpoint may cost in memory. It is checked before and after reading, whatever the file claims."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ndissect.engine.checkpoints.refusals import damaged, refused
from ndissect.engine.machine.zips import UNREADABLE, open_zip
from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes

#: The bytes that the weights of a network may take where nobody says more.
LARGEST = 16 * 10**9
# Weights hardly shrink, so that what inflates to many times its file is no checkpoint; a small one may hold zeros.
_MOST_GROWTH, _GROWTH_ANYWAY = 8, 64 << 20
#: A byte of a pickle can make an object of so many.
OBJECT = 64
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
    Limit(path, LARGEST if given is None else given).check(size, "has")
    return Limit(path, min(LARGEST, _MOST_GROWTH * size + _GROWTH_ANYWAY) if given is None else given)


def members_of(file: BufferedReader, limit: Limit) -> list[zipfile.ZipInfo]:
    """The members of the zip archive ``file``; NDError where they inflate to more than ``limit``, or it is damaged."""
    try:
        _check_ending(file)
        with open_zip(file, _LONGEST_LIST) as archive:
            members = archive.infolist()
    except (*UNREADABLE, OSError) as error:
        raise damaged(limit.path, str(error)) from error
    # The pickle becomes objects, which are larger.
    needed = sum(m.file_size * (OBJECT if m.filename.endswith(".pkl") else 1) for m in members)
    limit.check(needed, "would take in memory")
    return members


def _check_ending(file: BufferedReader) -> None:
    """BadZipFile where programs could find two different lists of members at the end of ``file``."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _ENDING, 0))
    ending = file.read().rjust(_ENDING)
    if ending[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it is cut short, or something follows its list of members")
    if ending[-42:-38] == b"PK\x06\x07" and int.from_bytes(ending[-34:-26], "little") != size - _ENDING:
        raise zipfile.BadZipFile("it has two lists of members")


def check_header(head: bytes, path: Path) -> None:
    """NDError where the header of a safetensors file is longer than that of any network."""
    length = int.from_bytes(head[:8], "little")
    if length > _LONGEST_LIST:
        raise NDError(
            f"{path} is damaged: its header has {human_bytes(length)}, at most {human_bytes(_LONGEST_LIST)} are read",
            "Copy or download the weights again",
        )


def check_keys(keys: Iterable[str], path: Path) -> None:
    """NDError where one of the names of weights is longer than that of any network."""
    longest = max((len(key) for key in keys), default=0)
    if longest > _LONGEST_KEY:
        raise refused(path, f"a key of {longest:,} characters")
