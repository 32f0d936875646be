"""Opening and reading HDF5 files that nobody vouches for.

A store may come from anywhere, so nothing in it is believed before it is checked: only plain datasets inside the file
itself are read (no links to other files), of the expected type and shape, no larger than the file can hold, and no
larger than ndissect.store.limits says.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ndissect.store import limits
from ndissect.store.errors import NDError
from ndissect.store.limits import Limit
from ndissect.store.text import without_controls

# Deflate never shrinks data by more than 1032 to 1; what claims more was not compressed by it.
_MAX_DEFLATE = 1100
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
#: All that h5py and HDF5 raise over a damaged file.
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
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


#: The length of one axis of a dataset: as it must be, or any within a limit.
Axis = int | Limit


class Unpacked:
    """What the packed datasets of one file unpack to: each is counted once, however often it is read.

    ``sizes``: bytes, by the dataset's name; ``whole``: the number of values, for those that were read as a whole;
    ``checked``: the open datasets themselves, by how they were asked for. They stay open because looking at all chunks
    of a dataset takes its time.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.whole: dict[str, int] = {}
        self.checked: dict[tuple[Any, ...], h5py.Dataset] = {}


class Checked:
    """A group of a store whose members are read only after a check; every error names file and member."""

    def __init__(self, path: Path, group: h5py.Group, size: int, unpacked: Unpacked | None = None) -> None:
        self.path = path
        self._group = group
        self._size = size  # of the file as it was opened: one that was removed since can still be read
        self._unpacked = unpacked or Unpacked()

    def _where(self, name: str) -> str:
        return f"{self._group.name.rstrip('/')}/{name}"

    def broken(self, name: str, what: str) -> NDError:
        """The error for member ``name`` of this group."""
        return NDError(f"{self.path} is damaged: {self._where(name)} {what}", "copy or make the store again")

    def beyond(self, name: str, size: int, limit: Limit) -> NDError:
        """The error that member ``name`` holds more than a store may."""
        return NDError(
            f"{self.path} is too much to take in: {self._where(name)} has {size:,} {limit.things},"
            f" the limit is {limit.most:,}",
            "nd writes no such store: ask whoever sent it",
        )

    def demand(self, name: str, size: int, limit: Limit) -> None:
        """Raise the error where ``size`` is beyond ``limit``."""
        if size > limit.most:
            raise self.beyond(name, size, limit)

    def check_room(self, name: str, size: int) -> None:
        """Raise the error where what was read so far, with member ``name``, takes more bytes than the file has."""
        if size > self._size:
            raise self.broken(name, "is larger on paper than in the file")

    def _unreadable(self, name: str, error: Exception) -> NDError:
        why = "more than fits in memory" if isinstance(error, MemoryError) else _last_words(error)
        return self.broken(name, f"cannot be read ({why})")

    def has(self, name: str) -> bool:
        """Whether there is a member ``name``, of whatever kind."""
        try:
            return bool(self._group.id.links.exists(name.encode()))
        except DAMAGE as e:
            raise self._unreadable(name, e) from e

    def group(self, name: str, *kinds: str) -> Checked:
        """The sub-group ``name``, which must be of one of the encodings ``kinds``."""
        member = self._member(name)
        if not isinstance(member, h5py.Group):
            raise self.broken(name, "is not a group")
        inner = Checked(self.path, member, self._size, self._unpacked)
        if inner.text("encoding-type") not in kinds:
            raise self.broken(name, f"is not of encoding-type {' or '.join(kinds)}")
        return inner

    def _attribute(self, name: str, kinds: str) -> npt.NDArray[Any] | None:
        # HDF5's own calls: a store of 50 layers has hundreds of attributes, and h5py's take four times as long.
        try:
            if not h5py.h5a.exists(self._group.id, name.encode()):
                return None
            attribute = h5py.h5a.open(self._group.id, name.encode())
            shape, dtype = attribute.shape, attribute.dtype  # made anew at every look
            if dtype.kind not in kinds:
                raise self.broken(f"@{name}", "is of another type")
            self.demand(f"@{name}", math.prod(shape) * dtype.itemsize, limits.NAME)
            value = np.empty(shape, dtype)
            attribute.read(value)
            return value
        except DAMAGE as e:
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
        self.demand(f"@{name}", max(height, width), limits.SIDE)
        self.demand(f"@{name}", height * width, limits.PIXELS)
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
        except DAMAGE as e:
            raise self._unreadable(name, e) from e

    def dataset(
        self, name: str, shape: tuple[Axis, ...], kinds: str = "iu", chunk: Limit = limits.CHUNK
    ) -> h5py.Dataset:
        """The dataset ``name``, checked: its shape, its numpy kind of type, that it is whole and within the limits.

        ``chunk``: what one chunk of a packed dataset may unpack to.
        """
        checked = self._unpacked.checked
        if checked and (known := checked.get((self._where(name), shape, kinds))):  # hardly any store has one
            return known
        member = self._member(name)
        if not isinstance(member, h5py.Dataset):
            raise self.broken(name, "is not a dataset")
        try:
            if member.is_virtual or member.external:
                raise self.broken(name, "refers to another file, which a store never does")
            if self._check(name, member, shape, kinds) == h5py.h5d.CHUNKED:
                self._check_chunks(name, member, chunk)
                checked[self._where(name), shape, kinds] = member
        except DAMAGE as e:
            raise self._unreadable(name, e) from e
        return member

    def _check(self, name: str, member: h5py.Dataset, shape: tuple[Axis, ...], kinds: str) -> int:
        """The layout of the dataset in the file. Raise the error where shape, type or size are not as asked for."""
        actual = member.shape
        fits = actual is not None and len(actual) == len(shape)
        if not fits or not all(isinstance(n, Limit) or n == m for n, m in zip(shape, actual, strict=True)):
            want = " x ".join("any" if isinstance(n, Limit) else str(n) for n in shape) or "a single value"
            raise self.broken(name, f"has the shape {actual} where {want} is expected")
        if member.dtype.kind not in kinds:
            raise self.broken(name, f"has the type {member.dtype}")
        filters = member.id.get_create_plist()
        used = {filters.get_filter(i)[0] for i in range(filters.get_nfilters())}
        if not used <= _FILTERS:
            raise self.broken(name, "is packed by a filter that a store does not use")
        room = member.id.get_storage_size() * (_MAX_DEFLATE if used else 1)
        longest = self._size * (_MAX_DEFLATE if used else 1)
        if member.nbytes > room or max(actual, default=0) > longest:
            raise self.broken(name, "is larger on paper than in the file")
        for n, m in zip(shape, actual, strict=True):
            if isinstance(n, Limit):
                self.demand(name, m, n)
        return int(filters.get_layout())

    def _check_chunks(self, name: str, member: h5py.Dataset, most: Limit) -> None:
        """Raise the error for a packed dataset with too many chunks, or with a row that needs too much memory.

        The bytes that it unpacks to are added to those of the other packed datasets.
        """
        shape, itemsize = member.shape, member.dtype.itemsize
        self.demand(name, math.prod(member.chunks) * itemsize, most)
        chunks = [-(-n // c) for n, c in zip(shape, member.chunks, strict=True)]
        if most is not limits.CHUNK:  # read a row at a time, whatever the whole is
            self.demand(name, math.prod(chunks[1:]), limits.IMAGE_CHUNKS)
            return
        self.demand(name, math.prod(chunks), limits.CHUNKS)
        self._unpacked.sizes[self._where(name)] = math.prod(shape) * itemsize
        self.demand(name, sum(self._unpacked.sizes.values()), limits.UNPACKED)

    def read(
        self,
        name: str,
        shape: tuple[Axis, ...],
        kinds: str = "iu",
        at: Any = (),
        chunk: Limit = limits.CHUNK,
        most: Limit = limits.READ,
    ) -> npt.NDArray[Any]:
        """What dataset ``name`` holds, or its part ``at``: an index, a slice, or one of them for each axis."""
        data = self.dataset(name, shape, kinds, chunk)
        wanted = _selected(data.shape, at if isinstance(at, tuple) else (at,))
        self.demand(name, wanted, most)
        if self._unpacked.sizes and (where := self._where(name)) in self._unpacked.sizes:
            whole = self._unpacked.whole
            if wanted == data.size:
                whole[where] = wanted
            self.demand(name, max(wanted, sum(whole.values())), limits.UNPACKED_READ)
        try:
            return np.asarray(data[at])
        except DAMAGE as e:
            raise self._unreadable(name, e) from e

    def counts(
        self, name: str, shape: tuple[Axis, ...], at: Any = (), *, least: int = 0, most: Limit = limits.READ
    ) -> npt.NDArray[np.int64]:
        """The integers of dataset ``name``, or of its part ``at``, none of them below ``least``."""
        counts = self.read(name, shape, at=at, most=most).astype(np.int64)
        if counts.size and counts.min() < least:
            raise self.broken(name, f"holds {counts.min()}, which cannot be")
        return counts

    def rows(self, name: str, shape: tuple[Axis, ...], count: int, *, least: int = -1) -> npt.NDArray[np.int32]:
        """The integers of dataset ``name``: rows of a table of ``count`` rows, or -1 for none if ``least`` is -1."""
        rows = self.read(name, shape)
        if rows.size and not (least <= int(rows.min()) and int(rows.max()) < count):
            raise self.broken(name, f"points outside a table of {count} rows")
        return rows.astype(np.int32)

    def strings(self, name: str, count: Axis) -> tuple[str, ...]:
        """The strings of dataset ``name``, which is small."""
        data = self.dataset(name, (count,), "S")
        self.demand(name, data.dtype.itemsize, limits.NAME)
        self.demand(name, data.nbytes, limits.TEXT)
        return tuple(_decode(v) for v in self.read(name, (count,), "S").tolist())

    def string(self, name: str, count: int, row: int, limit: Limit = limits.NAME) -> str:
        """String ``row`` of the ``count`` in dataset ``name``, each of at most ``limit`` bytes."""
        self.demand(name, self.dataset(name, (count,), "S").dtype.itemsize, limit)
        return _decode(bytes(self.read(name, (count,), "S", at=row)[()]))

    def sentence(self, name: str, limit: Limit) -> str:
        """The string of the scalar dataset ``name``, of at most ``limit`` bytes."""
        return _decode(self._scalar(name, limit))

    def _scalar(self, name: str, limit: Limit) -> bytes:
        self.demand(name, self.dataset(name, (), "S").dtype.itemsize, limit)
        return bytes(self.read(name, (), "S")[()])

    def json(self, name: str, limit: Limit) -> Any:
        """The JSON text of the scalar dataset ``name``, parsed: see :func:`plain_json`."""
        text = self._scalar(name, limit)
        try:
            return plain_json(json.loads(text))
        except (ValueError, TypeError, RecursionError) as e:
            raise self.broken(name, f"is not JSON ({e})") from e


def _selected(shape: tuple[int, ...], at: Sequence[Any]) -> int:
    """How many values ``at`` takes of an array of ``shape``."""
    axes = zip(shape, [*at, *[slice(None)] * (len(shape) - len(at))], strict=False)
    return math.prod(len(range(*i.indices(n))) if isinstance(i, slice) else 1 for n, i in axes)


def plain_json(value: Any) -> Any:
    """``value`` of json.loads in a form that every program can use; ValueError where it is nested too deeply.

    Text becomes what UTF-8 can hold, as JSON may escape half a character. A number that is infinite, NaN or beyond 64
    bits becomes None. The walk does not use recursion: a value that the parser has just managed may be too deep for a
    recursive function.
    """
    whole: list[Any] = [value]
    level: list[Any] = [whole]
    for _ in range(limits.DEPTH.most + 1):
        inner: list[Any] = []
        for box in level:
            if isinstance(box, dict):
                if not all(key.isascii() for key in box):
                    renamed = {_unicode(key): v for key, v in box.items()}
                    box.clear()
                    box.update(renamed)
                entries: Any = box.items()
            else:
                entries = enumerate(box)
            for key, item in entries:
                if isinstance(item, (dict, list)):
                    inner.append(item)
                elif isinstance(item, str):
                    if not item.isascii():
                        box[key] = _unicode(item)
                elif isinstance(item, (int, float)) and not abs(item) < 1 << 63:
                    box[key] = None
        if not inner:
            return whole[0]
        level = inner
    raise ValueError(f"more than {limits.DEPTH.most} {limits.DEPTH.things}")


def _unicode(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _decode(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    return text if text.isascii() and text.isprintable() else without_controls(text)
