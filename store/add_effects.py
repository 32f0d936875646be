"""Putting effects into a store that is there: atomically, all else in it as it was."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from ndissect.store import limits, parts
from ndissect.store.disk import Disk
from ndissect.store.effects import Classes, Effects, agreed, comparable, merged, without_repeats
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import atomic
from ndissect.store.group_writer import text_attribute, write_group
from ndissect.store.hdf5 import DAMAGE, Checked, member_name, open_hdf5
from ndissect.store.parts import VERSION
from ndissect.store.reader import Store
from ndissect.store.writer import check_size, write_effects

# How often a store that another program writes at the same time is read again.
_ATTEMPTS = 10
# What stands in a store: bytes of a fixed number each. All else could lead out of the file, or into a damaged heap.
_PLAIN = "iufbS"


def add_effects(path: Path, layer: str, classes: Classes, effects: Effects) -> Effects | None:
    """Write ``effects`` of ``layer`` into the store ``path``, in place of those that it holds.

    Where its effects are of the same images, classes, network and ``by``, their ablations that are not among the new
    ones stay (see :func:`ndissect.store.effects.merged`); else those of the store go, and are returned. ``classes`` are
    written where the store has none, or knows them only by numbers. The file is replaced as a whole or not at all:
    what another program put there meanwhile is read again. WrongUse for a store without the layer, or whose classes are
    others; NDError as for ndissect.store.writer.write_store.
    """
    for _ in range(_ATTEMPTS):
        before = _state(path)
        with Store(path) as store:
            agreed_on, joined, gone = _joined(store, layer, classes, effects)
        try:
            with atomic(path) as part:
                with part.open("wb+", buffering=0) as raw:
                    disk = Disk(raw.fileno())
                    _write(path, disk, layer, agreed_on, joined)
                    disk.check()
                    os.fsync(raw.fileno())  # which may take long: only after it is looked for what others wrote
                if _state(path) != before:
                    raise _Replaced
        except _Replaced:
            continue
        return gone
    raise NDError(f"{path} is written by another program all the time", "wait for it, and try again")


class _Replaced(Exception):
    """Another program has put another file in place of the store."""


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        about = os.stat(path)  # noqa: PTH116 - Path.stat is no different
    except OSError:
        return None  # opening it says more
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _joined(store: Store, layer: str, classes: Classes, effects: Effects) -> tuple[Classes, Effects, Effects | None]:
    """The classes and the effects of the layer as they are to be, and those that cannot stay beside them."""
    view = store.layer(layer)
    both = agreed(store.classes, classes)
    if both is None:
        count = len(store.classes.names) if store.classes else 0
        why = "others of that number" if count == len(classes.names) else f"{len(classes.names):,}"
        raise WrongUse(
            f"{store.path} holds effects and heads of {count:,} classes, and these are {why}",
            "use the network and the names that the store was made with, or another store",
        )
    if not limits.fits_classes(classes.names):
        raise WrongUse("the names of the classes are more than a store may hold", "shorten them (--classes FILE)")
    for units in effects.units:
        view.check_unit(max(units))
    known = view.effects
    joined = without_repeats(effects) if known is None else merged(known, effects)
    check_size(joined)
    gone = known if known is not None and not comparable(known, effects) else None
    return both, joined, gone


def _write(path: Path, disk: Disk, layer: str, classes: Classes, effects: Effects) -> None:
    """All that the store at ``path`` holds, with these classes and effects, to ``disk``."""
    with open_hdf5(path) as old, h5py.File(disk, "w") as new:
        version = _version(Checked(path, old, old.id.get_filesize()).text("encoding-version") or "")
        name = f"{parts.LAYERS.name}/{member_name(layer)}"
        without = {f"/{parts.CLASSES.name}", f"/{name}/{parts.EFFECTS.name}"}
        _Copy(path, old.id.get_filesize(), version, without).all(old, new)
        write_group(new, parts.CLASSES, classes, version=version)
        write_effects(new[name], effects, version)


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
