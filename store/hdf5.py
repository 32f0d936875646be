"""Opening and reading HDF5 files that nobody vouches for.

A store may come from anywhere, so nothing in it is believed before it is checked: only plain datasets inside the file
itself are read (no links to other files), of the expected type and shape, and no larger than the file that holds them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store.errors import NDError

_MAX_BYTES_AT_ONCE = 1 << 36
_LOCKED = {errno.EAGAIN, errno.ENOLCK, 524}  # 524 is the kernel's ENOTSUPP, seen on NFS and Lustre


def open_hdf5(path: Path) -> h5py.File:
    """The file at ``path`` opened for reading; NDError for what is missing, locked, truncated or not HDF5."""
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


class Checked:
    """A group of a store whose members are read only after a check; every error names file and member."""

    def __init__(self, path: Path, group: h5py.Group) -> None:
        self.path = path
        self._group = group

    def _where(self, name: str) -> str:
        return f"{self._group.name.rstrip('/')}/{name}"

    def broken(self, name: str, what: str) -> NDError:
        """The error for member ``name`` of this group."""
        return NDError(f"{self.path} is damaged: {self._where(name)} {what}", "copy or make the store again")

    def has(self, name: str) -> bool:
        return name in self._group

    def group(self, name: str, kind: str) -> Checked:
        """The sub-group ``name``, which must be of encoding ``kind``."""
        member = self._member(name)
        if not isinstance(member, h5py.Group):
            raise self.broken(name, "is not a group")
        inner = Checked(self.path, member)
        if inner.attribute("encoding-type") != kind:
            raise self.broken(name, f"is not of encoding-type {kind}")
        return inner

    def attribute(self, name: str) -> Any:
        """The attribute ``name`` of this group, None where it is absent."""
        try:
            return self._group.attrs.get(name)
        except (OSError, RuntimeError, ValueError, TypeError) as e:
            raise self.broken(f"@{name}", "cannot be read") from e

    def _member(self, name: str) -> h5py.Group | h5py.Dataset:
        try:
            link = self._group.get(name, getlink=True)
            if link is None:
                raise self.broken(name, "is missing")
            if not isinstance(link, h5py.HardLink):
                raise self.broken(name, "is a link to somewhere else, which a store never holds")
            return self._group[name]
        except (OSError, RuntimeError, KeyError, ValueError) as e:
            raise self.broken(name, f"cannot be read ({_last_words(e)})") from e

    def dataset(self, name: str, shape: tuple[int | None, ...], kinds: str = "iu") -> h5py.Dataset:
        """The dataset ``name``, checked: its shape (None: any length), its numpy type kind, and that it is whole."""
        member = self._member(name)
        if not isinstance(member, h5py.Dataset):
            raise self.broken(name, "is not a dataset")
        if member.is_virtual or member.external:
            raise self.broken(name, "refers to another file, which a store never does")
        fits = len(member.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, member.shape, strict=True))
        if not fits:
            want = " x ".join("any" if n is None else str(n) for n in shape)
            raise self.broken(name, f"has the shape {member.shape} where {want} is expected")
        if member.dtype.kind not in kinds:
            raise self.broken(name, f"has the type {member.dtype}")
        stored = member.id.get_storage_size()
        if member.chunks is None and stored < member.size * member.dtype.itemsize:
            raise self.broken(name, "is larger on paper than in the file")
        return member

    def read(self, name: str, shape: tuple[int | None, ...], kinds: str = "iu", at: Any = ()) -> npt.NDArray[Any]:
        """The numbers of dataset ``name``, or of its part ``at``."""
        data = self.dataset(name, shape, kinds)
        row = data.size // max(len(data), 1) if isinstance(at, int) and data.shape else data.size
        if row * data.dtype.itemsize > _MAX_BYTES_AT_ONCE:
            raise self.broken(name, "is too large to be read")
        try:
            return np.asarray(data[at])
        except (OSError, RuntimeError, ValueError) as e:
            raise self.broken(name, f"cannot be read ({_last_words(e)})") from e

    def strings(self, name: str, count: int | None = None) -> tuple[str, ...]:
        """The strings of dataset ``name``."""
        data = self.dataset(name, (count,), "O")
        try:
            return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in data[()])
        except (OSError, RuntimeError, ValueError) as e:
            raise self.broken(name, f"cannot be read ({_last_words(e)})") from e

    def json(self, name: str) -> Any:
        """The JSON text of the scalar dataset ``name``, parsed."""
        text = self.dataset(name, (), "O")[()]
        try:
            return json.loads(text)
        except (ValueError, TypeError) as e:
            raise self.broken(name, f"is not JSON ({e})") from e
