"""A store that is there written anew with a part of it replaced: atomically, all else in it as it was."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import h5py

from ndissect.store import limits
from ndissect.store.disk import Disk
from ndissect.store.errors import NDError
from ndissect.store.files import atomic
from ndissect.store.group_writer import text_attribute
from ndissect.store.hdf5 import DAMAGE, Checked, open_hdf5
from ndissect.store.parts import VERSION
from ndissect.store.reader import Store

T = TypeVar("T")
# How often a store that another program writes at the same time is read again.
_ATTEMPTS = 10
# What stands in a store: bytes of a fixed number each. All else could lead out of the file, or into a damaged heap.
_PLAIN = "iufbS"


def rewrite(path: Path, plan: Callable[[Store], T], write: Callable[[Disk, T], None]) -> T:
    """``write`` a new file in place of the store ``path`` by what ``plan`` makes of it, which is returned.

    The file is replaced as a whole or not at all: where another program put another there meanwhile, both are called
    again. NDError as for ndissect.store.writer.write_store.
    """
    for _ in range(_ATTEMPTS):
        before = _state(path)
        with Store(path) as store:
            planned = plan(store)
        try:
            with atomic(path) as part:
                with part.open("wb+", buffering=0) as raw:
                    disk = Disk(raw.fileno())
                    write(disk, planned)
                    disk.check()
                    os.fsync(raw.fileno())  # which may take long: only after it is looked for what others wrote
                if _state(path) != before:
                    raise _Replaced
        except _Replaced:
            continue
        return planned
    raise NDError(f"{path} is written by another program all the time", "wait for it, and try again")


class _Replaced(Exception):
    """Another program has put another file in place of the store."""


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        about = os.stat(path)  # noqa: PTH116 - Path.stat is no different
    except OSError:
        return None  # opening it says more
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


@contextmanager
def copied(path: Path, disk: Disk, without: set[str]) -> Iterator[tuple[h5py.File, str]]:
    """A new file on ``disk`` with all that the store ``path`` holds but for the members ``without``, and its format
    version, which is that of the newer of program and file."""
    with open_hdf5(path) as old, h5py.File(disk, "w") as new:
        version = _version(Checked(path, old, old.id.get_filesize()).text("encoding-version") or "")
        _Copy(path, old.id.get_filesize(), version, without).all(old, new)
        yield new, version


def _version(found: str) -> str:
    """The format version of the new file: a newer MINOR than this program's stays, as what came with it does."""
    minor, own = found.partition(".")[2], VERSION.partition(".")[2]
    return found if re.fullmatch("[0-9]{1,9}", minor) and int(minor) > int(own) else VERSION


@dataclass
class _Copy:
    """The store at ``path``, of ``size`` bytes, that is copied object by object, but for the members ``without``.

    NDError for what a store never holds. A file may hold one object under many names, or say that a few bytes are many
    pieces: what is copied is never more than the file has.
    """

    path: Path
    size: int
    version: str
    without: set[str]
    seen: set[int] = field(default_factory=set)
    stored: int = 0

    def all(self, old: h5py.File, new: h5py.File) -> None:
        """All that ``old`` holds, into ``new``."""
        levels: list[tuple[h5py.Group, h5py.Group]] = [(old, new)]
        while levels:
            source, target = levels.pop()
            try:
                self._attributes(source, target)
                for name in source:
                    where = f"{source.name.rstrip('/')}/{name}"
                    if where in self.without:
                        continue
                    if isinstance(member := self._member(source, name, where), h5py.Group):
                        levels.append((member, target.create_group(name)))
                    else:
                        self._dataset(member, source, target, where)
            except DAMAGE as e:
                raise self._broken(source.name, f"cannot be copied ({type(e).__name__})") from e

    def _member(self, source: h5py.Group, name: str, where: str) -> h5py.Group | h5py.Dataset:
        if source.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise self._broken(where, "is a link to somewhere else, which a store never holds")
        member = source[name]
        address = h5py.h5o.get_info(member.id).addr
        if address in self.seen:
            raise self._broken(where, "is in the file under another name, too")
        self.seen.add(address)
        if not isinstance(member, (h5py.Group, h5py.Dataset)):
            raise self._broken(where, "is neither a group nor a dataset")
        return member

    def _dataset(self, member: h5py.Dataset, source: h5py.Group, target: h5py.Group, where: str) -> None:
        if member.is_virtual or member.external:
            raise self._broken(where, "refers to another file, which a store never does")
        if member.dtype.kind not in _PLAIN:
            raise self._broken(where, f"has the type {member.dtype}, which a store never holds")
        self.stored += member.id.get_storage_size()
        if self.stored > self.size:
            raise self._broken(where, "is larger on paper than in the file")
        name = where.rpartition("/")[2].encode()
        options = h5py.h5p.create(h5py.h5p.OBJECT_COPY)
        options.set_copy_object(h5py.h5o.COPY_WITHOUT_ATTR_FLAG)
        h5py.h5o.copy(source.id, name, target.id, name, options)
        self._attributes(member, target[name])

    def _attributes(self, source: h5py.Group | h5py.Dataset, target: h5py.Group | h5py.Dataset) -> None:
        for name in source.attrs:
            attribute = source.attrs.get_id(name)
            if attribute.dtype.kind not in _PLAIN or attribute.get_storage_size() > limits.NAME.most:
                raise self._broken(f"{source.name.rstrip('/')}/@{name}", "is what a store never holds")
            if name == "encoding-version":
                text_attribute(target, name, self.version)
            else:
                target.attrs.create(name, source.attrs[name], dtype=attribute.dtype)

    def _broken(self, where: str, what: str) -> NDError:
        return NDError(f"{self.path} is damaged: {where} {what}", "copy or make the store again")
