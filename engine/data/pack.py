"""Packing a data set: every image and label map is decoded once, for all networks.

ndissect.engine.data.packed reads packs. A pack grows in a hidden folder, in the files that it will have. index.bin
names an image only when its data is on the disk. So a kill at any moment costs only the last images, and packing again
goes on after the others.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ndissect.engine.data.alone import alone
from ndissect.engine.data.dataset import FolderDataset, Sample, at_once, unusable
from ndissect.engine.data.packed import (
    ABOUT,
    FILES,
    INDEX,
    KIND,
    ROW,
    VERSION,
    Rows,
    Unusable,
    changed_image,
    ends,
    find_pack,
    other_packs,
    pack_folder,
    part_folder,
    read_about,
)
from ndissect.engine.data.unpack import require_space
from ndissect.engine.machine.in_order import in_order
from ndissect.engine.machine.progress import Progress
from ndissect.store.errors import NDError
from ndissect.store.files import own_file, own_folder, remedy, remove_known, replacing
from ndissect.store.names import quoted
from ndissect.store.regular import open_regular, read_regular

# All that is ever deleted of a pack.
_OURS = frozenset({*FILES, INDEX, ABOUT})
# A kill loses up to so many images; waiting for the disk after each one would take longer than decoding it.
_TOGETHER = 256


@dataclass(frozen=True)
class Plan:
    """What packing takes: ``bytes`` in ``folder``, on a disk that has ``free`` bytes; ``done``: how many of the
    ``images`` an earlier packing that was interrupted has packed.
    """

    folder: Path
    images: int
    done: int
    bytes: int
    free: int


def plan(dataset: FolderDataset) -> Plan:
    """The size of the pack of ``dataset``, from its tables, and how much of it is there already."""
    folder = pack_folder(dataset)
    there = next(p for p in folder.parents if os.path.exists(p))  # noqa: PTH110 - Path.exists raises, as for long names
    return Plan(folder, len(dataset), len(_begun(dataset)), _size(dataset), shutil.disk_usage(there).free)


def pack(
    dataset: FolderDataset,
    progress: Progress | None = None,
    *,
    force: bool = False,
    workers: int = 0,
) -> Path:
    """The folder of the pack of ``dataset``, written unless it is there and of use; ``force`` writes it anew.

    It takes its name when it is whole. After a kill, an error or an interrupt the same call goes on where it was.
    NDError where images cannot be read, the disk is too small or cannot be written, or another process is packing.
    """
    folder, part = pack_folder(dataset), part_folder(dataset)
    try:
        with _alone(dataset):
            if not force and find_pack(dataset):
                return folder
            if os.path.lexists(folder):
                _discard(part)  # begun before the pack that is to be replaced
            begun = _begun(dataset)
            held = _used(folder) + int(ends(begun, dataset.grid)[-1].sum())
            require_space(folder.parent, _size(dataset) - held, f"pack {dataset.name}")
            _discard(folder)
            if not len(begun):
                _discard(part)
                own_folder(part)
                _write_about(part, dataset, {})
            _write(dataset, begun, progress or Progress(), workers or min(16, os.cpu_count() or 1))
            _finish(dataset)
            for old in other_packs(dataset):
                _discard(old)
    except OSError as error:
        what = remedy(error, "move the cache with ND_CACHE")
        hint = f"What was packed is kept: {what}; then run the same command again"
        raise NDError(f"{folder} cannot be written: {error.strerror or error}", hint) from error
    return folder


def remove_pack(dataset: FolderDataset) -> list[tuple[Path, int]]:
    """Delete every pack of ``dataset``, whole or not, old ones as well: the folders that were there, and their bytes.

    NDError where another process is packing, or where one cannot be deleted.
    """
    removed = []
    try:
        with _alone(dataset):
            for folder in (pack_folder(dataset), part_folder(dataset), *other_packs(dataset)):
                if os.path.lexists(folder):
                    removed.append((folder, _used(folder)))
                    _discard(folder)
    except OSError as error:
        raise NDError(
            f"The pack cannot be removed: {error.strerror or error}", f"Delete {pack_folder(dataset)} yourself"
        ) from error
    return removed


@contextlib.contextmanager
def _alone(dataset: FolderDataset) -> Iterator[None]:
    folder = pack_folder(dataset)
    own_folder(folder.parent)
    with alone(folder.with_name(f".{folder.name}.lock"), f"Another process is packing {dataset.name} into {folder}"):
        yield


def _size(dataset: FolderDataset) -> int:
    """Bytes of the whole pack; the few image-level labels are not counted."""
    pixels = int(dataset.image_sizes.astype(np.int64).prod(1).sum())
    maps = sum(len(dataset.maps_of(index)) for index in range(len(dataset)))
    return 3 * pixels + 2 * dataset.grid[0] * dataset.grid[1] * maps + len(dataset) * ROW.itemsize


def _begun(dataset: FolderDataset) -> Rows:
    """The images that an interrupted packing has packed; none where its files do not match the data set."""
    part, none = part_folder(dataset), np.empty(0, ROW)
    if os.path.islink(part):  # noqa: PTH114 - Path.is_symlink raises where a name is too long
        return none
    try:
        if read_about(part).get("tables_digest") != dataset.tables_digest():
            return none
        data = read_regular(part / INDEX, len(dataset) * ROW.itemsize)
        sizes = []
        for file in FILES:
            with open_regular(part / file) as opened:
                sizes.append(os.fstat(opened.fileno()).st_size)
    except (Unusable, OSError, ValueError):
        return none
    rows = np.frombuffer(data, ROW, min(len(dataset), len(data) // ROW.itemsize))
    whole = (ends(rows, dataset.grid)[1:] <= sizes).all(1)
    whole &= (rows["size"] == dataset.image_sizes[: len(rows)]).all(1)
    rows = rows[: int(np.argmin(np.append(whole, False)))]
    return none if changed_image(dataset, rows) else rows


class _Writer:
    """Adds images to the files of a pack, after the ``begun`` ones. What was added before commit() survives a kill."""

    def __init__(self, folder: Path, begun: Rows, grid: tuple[int, int]) -> None:
        self._files = [open(folder / file, "ab", opener=own_file) for file in FILES]  # noqa: SIM115 - see close()
        self._index = open(folder / INDEX, "ab", opener=own_file)  # noqa: SIM115
        self._rows: list[bytes] = []
        for file, end in zip((*self._files, self._index), (*ends(begun, grid)[-1].tolist(), begun.nbytes), strict=True):
            file.truncate(end)

    def add(self, sample: Sample, row: bytes) -> None:
        for file, part in zip(self._files, (*_parts(sample), np.array(sample.labels, "<u2").data), strict=True):
            file.write(part)
        self._rows.append(row)
        if len(self._rows) == _TOGETHER:
            self.commit()

    def commit(self) -> None:
        rows, self._rows = self._rows, []  # first: after an interrupt they must not be written twice
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self._index.write(b"".join(rows))
        self._index.flush()
        os.fsync(self._index.fileno())

    def close(self) -> None:
        for file in (*self._files, self._index):
            with contextlib.suppress(OSError):  # the error that led here says more
                file.close()


def _write(dataset: FolderDataset, begun: Rows, progress: Progress, workers: int) -> None:
    """Pack what is not in ``begun``. After a bad image the rest is only read, to list every bad image."""

    def read(index: int) -> tuple[Sample, bytes] | NDError:
        try:
            sample = dataset.read(index)
        except NDError as error:
            return error
        return sample, _row(sample, dataset.image_path(index).stat().st_size)

    rest = range(len(begun), len(dataset))
    bad: list[str] = []
    progress.start("packing", len(rest))
    writer = _Writer(part_folder(dataset), begun, dataset.grid)
    try:
        # So many ahead that decoding goes on while the disk is waited for.
        for result in in_order(read, rest, workers, at_once(dataset, max(_TOGETHER, 4 * workers))):
            if isinstance(result, NDError):
                bad.append(result.message)
            elif not bad:
                writer.add(*result)
            progress.advance(1)
    finally:
        try:
            writer.commit()
        finally:
            writer.close()
    if bad:
        raise unusable(
            bad, len(dataset), f"nd data check {quoted(dataset.root)} lists every fault; nothing bad is packed"
        )


def _parts(sample: Sample) -> tuple[memoryview, memoryview]:
    """The bytes of the pixels and of the label maps."""
    return np.ascontiguousarray(sample.image).data, np.ascontiguousarray(sample.maps, "<u2").data


def _row(sample: Sample, file_bytes: int) -> bytes:
    row = np.zeros((), ROW)
    row["size"] = sample.image.shape[:2]
    row["maps"], row["labels"] = len(sample.maps), len(sample.labels)
    row["file_bytes"] = file_bytes
    row["crc"] = [zlib.crc32(part) for part in _parts(sample)]
    row["digest"] = np.frombuffer(sample.digest.to_bytes(16, "big"), np.uint8)
    return row.tobytes()


def _finish(dataset: FolderDataset) -> None:
    """Give the pack its description, then its name."""
    part, folder = part_folder(dataset), pack_folder(dataset)
    index = (part / INDEX).read_bytes()
    rows = np.frombuffer(index, ROW)
    digest = sum(int.from_bytes(row.tobytes(), "big") for row in rows["digest"]) % 2**128
    known = {
        "content_digest": f"{digest:032x}",
        "images": len(rows),
        "bytes": sum((part / file).stat().st_size for file in (*FILES, INDEX)),
        "index_crc": zlib.crc32((part / FILES[2]).read_bytes(), zlib.crc32(index)),
        "packed": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_about(part, dataset, known)
    part.rename(folder)
    _sync(folder.parent)


def _write_about(folder: Path, dataset: FolderDataset, known: dict[str, Any]) -> None:
    about = {
        "encoding-type": KIND,
        "encoding-version": VERSION,
        "name": dataset.name,
        "root": str(dataset.root.resolve()),
        "tables_digest": dataset.tables_digest(),
        **known,
    }
    with replacing(folder / ABOUT) as new:
        new.write_text(json.dumps(about, indent=2), encoding="utf-8")


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _used(folder: Path) -> int:
    """Bytes in the files of ``folder``, 0 where it is not there."""
    if folder.is_symlink():
        return 0
    return sum(p.lstat().st_size for p in folder.glob("*") if p.name in _OURS)


def _discard(folder: Path) -> None:
    """Delete a pack, one known file after another. A file that lies in its place is renamed and kept.

    FileExistsError where a link lies in its place, or where the folder holds other files.
    """
    remove_known(folder, lambda name: name in _OURS or (name.startswith(f".{ABOUT}.") and name.endswith(".part")))
    if os.path.lexists(folder) and stat.S_ISREG(folder.lstat().st_mode):  # no pack, so not ours to delete
        folder.rename(folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.aside"))
    if os.path.lexists(folder):
        others = "" if folder.is_symlink() else next((path.name for path in folder.iterdir()), "")
        what = f"holds {others}, which is not nd's" if others else "is a link"
        raise FileExistsError(errno.EEXIST, f"{folder.name} {what}", str(folder))
