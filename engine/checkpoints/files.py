"""Files of torch.save, and bare pickles: what is in them as plain data, and the tensors of it that are asked for.

Since torch 1.6 a file is a zip archive: ``data.pkl`` names the storages, which are members of their own. Before, it was
a row of pickles with the storages behind them.
"""

from __future__ import annotations

import math
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import IO

import torch
from torch import Tensor

from ndissect.engine.checkpoints.arrays import StoredArray
from ndissect.engine.checkpoints.limits import Limit, check_keys, members_of
from ndissect.engine.checkpoints.refusals import damaged, holds_code, refused
from ndissect.engine.checkpoints.unpickler import Broken, CodeInFile, read_pickle
from ndissect.engine.checkpoints.values import StoredNumbers, StoredTensor
from ndissect.engine.machine.zips import UNREADABLE, open_zip
from ndissect.store.errors import NDError

#: What a pointer begins with that Git LFS leaves in the place of a large file that was not fetched.
GIT_LFS = b"version https://git-lfs"
# With one of these members began a file of torch before 0.2, a tar archive.
_TAR_MEMBERS = (b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0")
# With this number, and that version, a file of torch before 1.6 begins.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_LONGEST_LIST = 16 << 20


@dataclass(frozen=True)
class Contents:
    """What ``file`` holds as plain data, and where in it the bytes of its storages are."""

    file: BufferedReader
    limit: Limit
    data: object
    places: Mapping[str, Place]
    swapped: bool = False


@dataclass(frozen=True)
class Place:
    """``size`` bytes from ``start`` of the file on; ``member``: the zip archive's deflated member that they are in."""

    start: int
    size: int
    member: zipfile.ZipInfo | None = None


def read_contents(file: BufferedReader, head: bytes, limit: Limit) -> Contents:
    """What the file holds, of which ``head`` are the first bytes; its tensors stay in it.

    Nothing in it is run. NDError where it is no checkpoint, damaged, or larger than ``limit``.
    """
    path = limit.path
    if head.startswith(GIT_LFS):
        raise NDError(f"{path} is a Git LFS pointer, not the weights themselves", "Fetch them with: git lfs pull")
    if head.startswith(_TAR_MEMBERS):
        raise NDError(
            f"{path} is a tar archive of torch before 0.2, which is not read",
            "If you trust its source, torch.load it with weights_only=False and torch.save its tensors",
        )
    if not head.startswith((b"PK", b"\x80")):
        raise NDError(
            f"{path} is not a checkpoint: it begins with {head[:16]!r}",
            "Give a .safetensors file or a state dict saved by torch.save",
        )
    try:
        return _read_zip(file, limit) if head.startswith(b"PK") else _read_row(file, limit)
    except CodeInFile as error:
        raise holds_code(path, error.name, "No weights need that: get them from their authors") from error
    except (*UNREADABLE, OSError, Broken, LookupError, TypeError) as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def _read_zip(file: BufferedReader, limit: Limit) -> Contents:
    members = {member.filename: member for member in members_of(file, limit)}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise NDError(
            f"{limit.path} is not a checkpoint: it is an archive without one data.pkl",
            "Give a .safetensors file or a state dict saved by torch.save",
        )
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise NDError(
            f"{limit.path} is a TorchScript archive, whose weights are part of its code",
            "Save its weights alone: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    places = {name.removeprefix(folder): _place(file, member) for name, member in members.items()}
    order = places.get("byteorder")
    written = sys.byteorder if order is None else _bytes(file, order, limit).decode("latin-1")
    if written not in ("little", "big"):
        raise Broken("an order of bytes that there is not")
    data, _ = read_pickle(BytesIO(_bytes(file, places["data.pkl"], limit)), limit)
    storages = {name.removeprefix("data/"): place for name, place in places.items() if name.startswith("data/")}
    return Contents(file, limit, data, storages, swapped=written != sys.byteorder)


def _place(file: BufferedReader, member: zipfile.ZipInfo) -> Place:
    """Where the bytes of a member are. Its check sum is not looked at: torch can be told to write none."""
    if member.compress_type != zipfile.ZIP_STORED:
        return Place(0, member.file_size, member)
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04" or member.flag_bits & 1:
        raise zipfile.BadZipFile(f"{member.filename[:60]} is not where its list says")
    name, extra = struct.unpack("<HH", header[26:])
    return Place(member.header_offset + 30 + name + extra, member.file_size)


def _read_row(file: BufferedReader, limit: Limit) -> Contents:
    """A file of torch before 1.6, or a bare pickle."""
    first, _ = read_pickle(file, limit)
    if first != _MAGIC:
        return Contents(file, limit, first, {})
    version, _ = read_pickle(file, limit)
    if version != _VERSION:
        raise Broken(f"a version of torch.save that is not known: {str(version)[:20]}")
    read_pickle(file, limit)  # of which machine it was
    data, storages = read_pickle(file, limit)
    keys, _ = read_pickle(file, limit)
    return Contents(file, limit, data, _row_of_storages(file, keys, storages))


def _row_of_storages(file: BufferedReader, keys: object, storages: Mapping[str, StoredNumbers]) -> dict[str, Place]:
    """Where the storages are that stand behind the pickles: of each its length, then its numbers."""
    if not isinstance(keys, list):
        raise Broken("no list of storages")
    places = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little", signed=True)
        size = storages[key].dtype.itemsize * count
        if count < 0:
            raise Broken("a storage of less than nothing")
        places[key] = Place(file.tell(), size)
        file.seek(size, 1)
    return places


def _bytes(file: BufferedReader, place: Place, limit: Limit) -> bytes:
    return _read(file, place, limit).numpy().tobytes()


def _read(file: BufferedReader, place: Place, limit: Limit) -> Tensor:
    """The bytes at a place, uint8 (size,)."""
    if place.member is not None:
        with open_zip(file, _LONGEST_LIST) as archive, archive.open(place.member) as opened:
            return _filled(opened, place.size)
    if place.start + place.size > file.seek(0, 2):
        raise Broken("it is cut short")
    limit.check(place.size, "would take in memory")
    file.seek(place.start)
    return _filled(file, place.size)


def _filled(file: IO[bytes], size: int) -> Tensor:
    values = torch.empty(size, dtype=torch.uint8)
    left = memoryview(values.numpy().data)
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise Broken("it is cut short")
        left = left[count:]
    return values


def read_tensors(contents: Contents, chosen: Mapping[str, StoredTensor | StoredArray]) -> dict[str, Tensor]:
    """The tensors ``chosen`` of the file, on the CPU; tensors that share numbers in the file do so here.

    NDError where the file does not hold them, or where they take more than its limit. A tensor may repeat a small
    storage. It then takes no memory by itself, and takes all that it claims once it is copied.
    """
    limit = contents.limit
    check_keys(chosen, limit.path)
    limit.check(sum(map(_nbytes, chosen.values())), f"holds {len(chosen)} tensors that would take")
    storages: dict[str, Tensor] = {}
    try:
        return {key: _tensor(contents, key, value, storages) for key, value in chosen.items()}
    except (*UNREADABLE, OSError, Broken, LookupError, TypeError) as error:
        raise damaged(limit.path, str(error) or type(error).__name__) from error


def _nbytes(value: StoredTensor | StoredArray) -> int:
    if isinstance(value, StoredArray):
        return value.nbytes
    return math.prod(value.size) * value.dtype.itemsize


def _tensor(contents: Contents, key: str, value: StoredTensor | StoredArray, storages: dict[str, Tensor]) -> Tensor:
    if isinstance(value, StoredArray):
        array = value.tensor()
        if array is None:
            raise refused(contents.limit.path, f"{key}, a numpy array that is not of numbers")
        return array
    numbers = value.numbers
    if numbers.key not in storages:
        size = numbers.count * numbers.dtype.itemsize
        place = contents.places.get(numbers.key)
        if place is None or place.size != size:
            raise Broken(f"the storage {numbers.key[:20]} is not there as it should be")
        storages[numbers.key] = _read(contents.file, place, contents.limit)
        if contents.swapped:
            storages[numbers.key] = _swapped(storages[numbers.key], numbers.dtype)
    return _view(storages[numbers.key], value)


def _swapped(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of numbers in the other order."""
    width = dtype.itemsize // (2 if dtype.is_complex else 1)
    return values.view(-1, width).flip(1).contiguous().view(-1)


def _view(storage: Tensor, value: StoredTensor) -> Tensor:
    """The tensor in the bytes of its storage; Broken where it reaches beyond them."""
    offset = value.offset + value.numbers.start * value.numbers.dtype.itemsize // value.dtype.itemsize
    reach = sum((n - 1) * step for n, step in zip(value.size, value.stride, strict=True))
    if 0 in value.size:
        return torch.empty(value.size, dtype=value.dtype)
    if (offset + reach + 1) * value.dtype.itemsize > len(storage):
        raise Broken("a tensor beyond its storage")
    usable = len(storage) // value.dtype.itemsize * value.dtype.itemsize
    tensor = storage[:usable].view(value.dtype).as_strided(value.size, value.stride, offset)
    tensor = tensor.conj() if value.conjugate and value.dtype.is_complex else tensor
    return torch.neg(tensor) if value.negative else tensor
