"""Opening and reading HDF5 files that nobody vouches for.

A store may come from anywhere, so nothing in it is believed before it is checked: only plain datasets inside the file
itself are read (no links to other files), of the expected type and shape, and no larger than the file can hold.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store.errors import NDError
from ndissect.store.text import without_controls

_MAX_BYTES_AT_ONCE = 1 << 36
# Deflate never shrinks data by more than 1032 to 1; what claims more was not compressed by it.
_MAX_DEFLATE = 1100
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
# All that h5py and HDF5 raise over a damaged file.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
_LOCKED = {errno.EAGAIN, errno.ENOLCK, 524}  # 524 is the kernel's ENOTSUPP, seen on NFS and Lustre


def open_hdf5(path: Path) -> h5py.File:
    """The file at ``path`` opened for reading; NDError for what is missing, locked, truncated or not HDF5."""
    mode = stat.S_IFREG
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # HDF5 would wait for ever on a pipe
        raise NDError(f"{path} is no regular file", "a store is the *.nd.h5 that nd dissect wrote")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as first:
        if _errno(first) in _LOCKED:
            # A reader of a finished file needs no lock, and some network file systems have none to give.
            with contextlib.suppress(OSError):
                return h5py.File(path, "r", locking=False)
        raise _explain(path, first) from first


def _errno(error: OSError) -> int | None:
    if error.errno is not None:
        return error.errno
    with contextlib.suppress(IndexError, ValueError):
        return int(str(error).split("errno = ")[1].split(",")[0])
    return None


def _explain(path: Path, error: OSError) -> NDError:
    code = _errno(error)
    if code in _LOCKED:
        setting = os.environ.get("HDF5_USE_FILE_LOCKING", "not set")
        return NDError(
            f"{path} is locked by another program, or its file system (NFS, Lustre) has no locks (errno {code})",
            f"HDF5_USE_FILE_LOCKING is {setting}: set it to FALSE and try again",
        )
    if code in (errno.EACCES, errno.EPERM):
        return NDError(f"{path} may not be read: {os.strerror(code)}", "change its permissions, or copy it")
    if code == errno.ENOENT:
        return NDError(f"no store at {path}", "nd dissect writes one; -s FILE or $ND_STORE names one")
    if path.is_file() and path.stat().st_size == 0:
        return NDError(f"{path} is empty: not a store", "the run that wrote it did not end; run it again")
    if "truncated" in str(error):
        return NDError(f"{path} is truncated: a part of the file is missing", "copy it again from its origin")
    return NDError(
        f"{path} is not an ndissect store: {_last_words(error)}", "a store is the *.nd.h5 that nd dissect wrote"
    )


def _last_words(error: Exception) -> str:
    return str(error).rsplit("(", 1)[-1].rstrip(")") or type(error).__name__


def member_name(layer: str) -> str:
    """The name of the group of a layer: its own, with the three characters escaped that HDF5 gives a meaning."""
    return "%2E" if layer == "." else layer.replace("%", "%25").replace("/", "%2F")


class Checked:
    """A group of a store whose members are read only after a check; every error names file and member."""

    def __init__(self, path: Path, group: h5py.Group, size: int) -> None:
        self.path = path
        self._group = group
        self._size = size  # of the file as it was opened: one that was removed since can still be read

    def _where(self, name: str) -> str:
        return f"{self._group.name.rstrip('/')}/{name}"

    def broken(self, name: str, what: str) -> NDError:
        """The error for member ``name`` of this group."""
        return NDError(f"{self.path} is damaged: {self._where(name)} {what}", "copy or make the store again")

    def _unreadable(self, name: str, error: Exception) -> NDError:
        why = "more than fits in memory" if isinstance(error, MemoryError) else _last_words(error)
        return self.broken(name, f"cannot be read ({why})")

    def has(self, name: str) -> bool:
        """Whether there is a member ``name``, of whatever kind."""
        try:
            return bool(self._group.id.links.exists(name.encode()))
        except _DAMAGE as e:
            raise self._unreadable(name, e) from e

    def group(self, name: str, kind: str) -> Checked:
        """The sub-group ``name``, which must be of encoding ``kind``."""
        member = self._member(name)
        if not isinstance(member, h5py.Group):
            raise self.broken(name, "is not a group")
        inner = Checked(self.path, member, self._size)
        if inner.text("encoding-type") != kind:
            raise self.broken(name, f"is not of encoding-type {kind}")
        return inner

    def _attribute(self, name: str, kinds: str) -> npt.NDArray[Any] | None:
        # HDF5's own calls: a store of 50 layers has hundreds of attributes, and h5py's take four times as long.
        try:
            if not h5py.h5a.exists(self._group.id, name.encode()):
                return None
            attribute = h5py.h5a.open(self._group.id, name.encode())
            if attribute.dtype.kind not in kinds:
                raise self.broken(f"@{name}", "is of another type")
            value = np.empty(attribute.shape, attribute.dtype)
            attribute.read(value)
            return value
        except _DAMAGE as e:
            raise self._unreadable(f"@{name}", e) from e

    def text(self, name: str) -> str | None:
        """The attribute ``name`` of this group, a string; None where it is absent."""
        value = self._attribute(name, "S")
        if value is None:
            return None
        if value.shape != () or not isinstance(value[()], bytes):
            raise self.broken(f"@{name}", "is not one string")
        return _decode(value[()])

    def size(self, name: str) -> tuple[int, int] | None:
        """The attribute ``name`` of this group, a height and a width; None where it is absent."""
        value = self._attribute(name, "iu")
        if value is None:
            return None
        if value.shape != (2,):
            raise self.broken(f"@{name}", "is not two integers")
        height, width = (int(v) for v in value)
        if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
            raise self.broken(f"@{name}", f"is no size: {height} x {width}")
        return height, width

    def _member(self, name: str) -> h5py.Group | h5py.Dataset:
        if name in ("", ".") or "/" in name:  # a path could lead through a link that the check below does not see
            raise self.broken(name, "is no name of a member")
        try:
            links = self._group.id.links
            if not links.exists(name.encode()):
                raise self.broken(name, "is missing")
            if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise self.broken(name, "is a link to somewhere else, which a store never holds")
            return self._group[name]
        except _DAMAGE as e:
            raise self._unreadable(name, e) from e

    def dataset(self, name: str, shape: tuple[int | None, ...], kinds: str = "iu") -> h5py.Dataset:
        """The dataset ``name``, checked: its shape (None: any length), its numpy kind of type, and that it is whole."""
        member = self._member(name)
        if not isinstance(member, h5py.Dataset):
            raise self.broken(name, "is not a dataset")
        try:
            if member.is_virtual or member.external:
                raise self.broken(name, "refers to another file, which a store never does")
            self._check(name, member, shape, kinds)
        except _DAMAGE as e:
            raise self._unreadable(name, e) from e
        return member

    def _check(self, name: str, member: h5py.Dataset, shape: tuple[int | None, ...], kinds: str) -> None:
        found = member.shape
        fits = found is not None and len(found) == len(shape)
        if not fits or not all(n in (None, m) for n, m in zip(shape, found, strict=True)):
            want = " x ".join("any" if n is None else str(n) for n in shape) or "a single value"
            raise self.broken(name, f"has the shape {found} where {want} is expected")
        if member.dtype.kind not in kinds:
            raise self.broken(name, f"has the type {member.dtype}")
        filters = member.id.get_create_plist()
        used = {filters.get_filter(i)[0] for i in range(filters.get_nfilters())}
        if not used <= _FILTERS:
            raise self.broken(name, "is packed by a filter that a store does not use")
        room = member.id.get_storage_size() * (_MAX_DEFLATE if used else 1)
        longest = self._size * (_MAX_DEFLATE if used else 1)
        if member.nbytes > room or max(found, default=0) > longest:
            raise self.broken(name, "is larger on paper than in the file")

    def read(self, name: str, shape: tuple[int | None, ...], kinds: str = "iu", at: Any = ()) -> npt.NDArray[Any]:
        """What dataset ``name`` holds, or its part ``at``."""
        data = self.dataset(name, shape, kinds)
        row = data.size // max(len(data), 1) if isinstance(at, int) and data.shape else data.size
        if row * data.dtype.itemsize > _MAX_BYTES_AT_ONCE:
            raise self.broken(name, "is too large to be read")
        try:
            return np.asarray(data[at])
        except _DAMAGE as e:
            raise self._unreadable(name, e) from e

    def counts(
        self, name: str, shape: tuple[int | None, ...], at: Any = (), *, least: int = 0
    ) -> npt.NDArray[np.int64]:
        """The integers of dataset ``name``, or of its part ``at``, none of them below ``least``."""
        found = self.read(name, shape, at=at).astype(np.int64)
        if found.size and found.min() < least:
            raise self.broken(name, f"holds {found.min()}, which cannot be")
        return found

    def rows(self, name: str, shape: tuple[int | None, ...], count: int, *, least: int = -1) -> npt.NDArray[np.int32]:
        """The integers of dataset ``name``: rows of a table of ``count`` rows, or -1 for none if ``least`` is -1."""
        found = self.read(name, shape)
        if found.size and not (least <= int(found.min()) and int(found.max()) < count):
            raise self.broken(name, f"points outside a table of {count} rows")
        return found.astype(np.int32)

    def strings(self, name: str, count: int | None = None) -> tuple[str, ...]:
        """The strings of dataset ``name``."""
        return tuple(_decode(v) for v in self.read(name, (count,), "S"))

    def string(self, name: str, count: int, row: int) -> str:
        """String ``row`` of the ``count`` in dataset ``name``."""
        return _decode(bytes(self.read(name, (count,), "S", at=row)[()]))

    def json(self, name: str) -> Any:
        """The JSON text of the scalar dataset ``name``, parsed."""
        text = self.read(name, (), "S")[()]
        try:
            return json.loads(bytes(text))
        except (ValueError, TypeError, RecursionError) as e:
            raise self.broken(name, f"is not JSON ({e})") from e


def _decode(value: bytes) -> str:
    return without_controls(value.decode("utf-8", "replace"))
