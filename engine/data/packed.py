"""A packed data set: its decoded images and label maps in flat files, which are mapped into memory instead of decoded.

A pack is a folder of the cache that is named after the data set and the digest of its tables. ``images.bin`` holds
the pixels of all images, one after another, uint8 (ih, iw, 3); ``maps.bin`` their label maps, uint16 (M, sh, sw);
``labels.bin`` their image-level labels, uint16; ``index.bin`` a ROW each, little-endian like all of it. ``pack.json``
says what was packed. ndissect.engine.data.pack writes packs.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import zlib
from collections.abc import Callable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import ConceptDataset, FolderDataset, Labels, Run, Sample
from ndissect.store.files import cache_folder
from ndissect.store.names import quoted, safe_name
from ndissect.store.regular import open_regular, read_regular

#: What index.bin holds of an image: its height and width, the number of its label maps and of its image-level labels,
#: the size of its file, the CRC-32 of its pixels and of its maps, and Sample.digest, most significant byte first.
ROW = np.dtype(
    [
        ("size", "<u2", (2,)),
        ("maps", "<u2"),
        ("labels", "<u2"),
        ("file_bytes", "<u8"),
        ("crc", "<u4", (2,)),
        ("digest", "u1", (16,)),
    ]
)
Rows = npt.NDArray[np.void]

KIND, VERSION = "ndissect-pack", "1.0"
ABOUT, INDEX = "pack.json", "index.bin"
FILES = ("images.bin", "maps.bin", "labels.bin")

# So many image files are looked at to see whether they are still those that were packed.
_LOOKED_AT = 512
_MOST_ABOUT = 1 << 16

Note = Callable[[str], None]


class Unusable(Exception):
    """A pack that must not be used; the message completes a sentence about it."""


def find_pack(dataset: FolderDataset, note: Note | None = None) -> PackedDataset | None:
    """The pack of ``dataset``; None where there is none that can be used, and then ``note`` is told why."""
    folder = pack_folder(dataset)
    try:
        if folder.exists():
            return _open(dataset, folder, note)
        changed = [p for p in other_packs(dataset) if not p.name.startswith(".")]
        if not changed:
            return None
        folder, why = changed[0], "the tables have changed since"
    except Unusable as fault:
        why = f"it {fault}"
    except OSError as fault:
        why = f"it cannot be read ({f'{fault.filename}: {fault.strerror}' if fault.strerror else fault})"
    except ValueError as fault:
        why = f"it is damaged ({fault})"
    if note:
        note(f"the pack {folder} is not used: {why}; pack again with `nd data pack {quoted(dataset.root)}`")
    return None


def pack_folder(dataset: ConceptDataset) -> Path:
    """Where the pack of ``dataset`` lies, or would."""
    return _home() / f"{_stem(dataset)}-{dataset.tables_digest()[:16]}"


def part_folder(dataset: ConceptDataset) -> Path:
    """Where the pack of ``dataset`` lies until it is whole."""
    folder = pack_folder(dataset)
    return folder.with_name(f".{folder.name}.part")


def other_packs(dataset: ConceptDataset) -> list[Path]:
    """The packs, whole or not, that were made of the same folder when its tables were different."""
    name, mine = glob.escape(_stem(dataset)), (pack_folder(dataset), part_folder(dataset))
    packs = []
    for folder in sorted([*_home().glob(f"{name}-*"), *_home().glob(f".{name}-*.part")]):
        with contextlib.suppress(Unusable, OSError, ValueError):
            about = read_about(folder)
            if folder not in mine and about.get("root") == str(dataset.root.resolve()):
                packs.append(folder)
    return packs


def read_about(folder: Path) -> dict[str, Any]:
    """What pack.json says; Unusable, OSError or ValueError where it is not that of a pack."""
    try:
        about = json.loads(read_regular(folder / ABOUT, _MOST_ABOUT))
    except RecursionError:
        about = None
    if not isinstance(about, dict) or about.get("encoding-type") != KIND:
        raise Unusable("is no pack")
    version = about.get("encoding-version")
    if str(version).partition(".")[0] != VERSION.partition(".")[0]:
        raise Unusable(f"is of version {version!s:.20}, which this nd does not read")
    return about


def ends(rows: Rows, grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(n + 1, 3): where each of n images ends in each of FILES, in bytes, after a row of zeros."""
    height, width = rows["size"].astype(np.int64).T
    maps, labels = rows["maps"].astype(np.int64), rows["labels"].astype(np.int64)
    sizes = np.stack([3 * height * width, 2 * grid[0] * grid[1] * maps, 2 * labels], 1)
    return np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(sizes, 0)])


def changed_image(dataset: FolderDataset, rows: Rows) -> str:
    """The path of an image whose file is not of the size that was packed, empty if there is none.

    Up to 512 files, spread over the data set, are looked at. One that is gone has not changed.
    """
    for index in np.linspace(0, len(rows) - 1, min(len(rows), _LOOKED_AT)).astype(int).tolist():
        with contextlib.suppress(OSError):
            if dataset.image_path(index).stat().st_size != rows[index]["file_bytes"]:
                return str(dataset.image_path(index))
    return ""


class PackedDataset:
    """A data set by its pack: equal to the one that was packed, with arrays that are read-only views of mapped files.

    A ConceptDataset with MappedImages.

    ``folder``: of the pack; ``bytes``: its size; ``packed``: when, as ISO 8601. Damage in a mapped file shows when an
    image is first read. The image is then decoded from its own files, and ``note`` is told once.
    """

    def __init__(self, dataset: FolderDataset, folder: Path, rows: Rows, packed: str, note: Note | None = None) -> None:
        self.root, self.name, self.concepts = dataset.root, dataset.name, dataset.concepts
        self.names, self.splits, self.grid = dataset.names, dataset.splits, dataset.grid
        self.notes = dataset.notes
        self.folder, self.packed = folder, packed
        self._source, self._rows, self._note = dataset, rows, note
        self._ends = ends(rows, self.grid)
        self.bytes = int(self._ends[-1].sum()) + rows.nbytes
        mapped = zip(FILES, ("u1", "<u2", "<u2"), self._ends[-1].tolist(), strict=True)
        self._images, self._maps, self._labels = (_map(folder / file, dtype, size) for file, dtype, size in mapped)
        self._sound = np.zeros((len(rows), 2), bool)

    @property
    def largest(self) -> int:
        """Bytes that the largest image takes with its label maps."""
        return self._source.largest

    @property
    def mapped(self) -> bool:
        """True: nothing is decoded."""
        return True

    def __len__(self) -> int:
        return len(self._rows)

    def known_sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2): the height and width of every image."""
        return self._rows["size"].astype(np.int32)

    def tables_digest(self) -> str:
        """Hex digest of the tables of the data set."""
        return self._source.tables_digest()

    def read(self, index: int) -> Sample:
        """Image ``index`` with its labels, as it was decoded when it was packed."""
        row, (start, _, _), (end, _, _) = self._rows[index], self._ends[index], self._ends[index + 1]
        if (end - start) // 3 > self._source.max_pixels:
            return self._source.read(index)  # which refuses it
        image = self._images[start:end].reshape(*row["size"].tolist(), 3)
        labels = self._view_labels(index)
        if not (self._is_sound(index, 0, image) and self._is_sound(index, 1, labels.maps)):
            return self._source.read(index)
        digest = int.from_bytes(row["digest"].tobytes(), "big")
        return Sample(index, self.names[index], image, labels.maps, labels.labels, digest)

    def read_run(self, images: Sequence[int]) -> Run | None:
        """Images that were packed one after another, of one size, as one view of the mapped file.

        None for others, for none, and where one of them is damaged or may not be read: each is then read by itself.
        """
        if not images or not np.array_equal(images, np.arange(images[0], images[0] + len(images))):
            return None
        first, end = images[0], images[0] + len(images)
        height, width = self._rows["size"][first].tolist()
        if height * width > self._source.max_pixels or (self._rows["size"][first:end] != (height, width)).any():
            return None
        if int(self._rows["maps"][first:end].max()) * self.grid[0] * self.grid[1] > self._source.max_pixels:
            return None
        pixels = self._images[self._ends[first, 0] : self._ends[end, 0]].reshape(len(images), height, width, 3)
        labels = [self._view_labels(index) for index in images]
        sound = [
            self._is_sound(index, 0, image) and self._is_sound(index, 1, of.maps)
            for index, image, of in zip(images, pixels, labels, strict=True)
        ]
        if not all(sound):
            return None
        digests = [int.from_bytes(digest.tobytes(), "big") for digest in self._rows["digest"][first:end]]
        return Run(pixels, [of.maps for of in labels], [of.labels for of in labels], digests)

    def read_labels(self, index: int) -> Labels:
        """The labels of image ``index``, as they were decoded when it was packed."""
        labels = self._view_labels(index)
        return labels if self._is_sound(index, 1, labels.maps) else self._source.read_labels(index)

    def image_labels(self, index: int) -> tuple[int, ...]:
        """The image-level labels of image ``index``, as they were when it was packed."""
        start, end = self._ends[index, 2] // 2, self._ends[index + 1, 2] // 2
        return tuple(self._labels[start:end].tolist())

    def _view_labels(self, index: int) -> Labels:
        _, maps, labels = (slice(a // 2, b // 2) for a, b in zip(self._ends[index], self._ends[index + 1], strict=True))
        count = int(self._rows[index]["maps"])
        if count * self.grid[0] * self.grid[1] > self._source.max_pixels:
            return self._source.read_labels(index)  # which refuses them
        return Labels(index, self._maps[maps].reshape(count, *self.grid), tuple(self._labels[labels].tolist()))

    def _is_sound(self, index: int, which: int, array: npt.NDArray[Any]) -> bool:
        """Whether the CRC of ``array`` is that of image ``index``; computed once, as images are read several times."""
        if not self._sound[index, which]:
            self._sound[index, which] = zlib.crc32(array.data) == self._rows[index]["crc"][which]
        if not self._sound[index, which]:
            note, self._note = self._note, None
            if note:
                again = f"pack again with `nd data pack {quoted(self.root)} --force`"
                note(f"the pack {self.folder} is damaged: {self.names[index]} is decoded from its files; {again}")
        return bool(self._sound[index, which])


def _stem(dataset: ConceptDataset) -> str:
    """What packs of ``dataset`` are called by; the digest beside it alone tells data sets apart."""
    return safe_name(dataset.name[:50])


def _home() -> Path:
    return cache_folder() / "packed"


def _open(dataset: FolderDataset, folder: Path, note: Note | None) -> PackedDataset:
    """The pack in ``folder``, after comparing every size; Unusable, OSError or ValueError where it is of no use."""
    about = read_about(folder)
    if about.get("tables_digest") != dataset.tables_digest():
        raise Unusable("is of other tables")
    data = _read(folder / INDEX, len(dataset) * ROW.itemsize)
    rows = np.frombuffer(data, ROW)
    sizes = ends(rows, dataset.grid)[-1].tolist()
    for file, size in zip(FILES, sizes, strict=True):
        _open_sized(folder / file, size).close()
    labels = _read(folder / FILES[2], sizes[2])
    if zlib.crc32(labels, zlib.crc32(data)) != about.get("index_crc"):
        raise Unusable(f"is damaged (the CRC of {INDEX} and {FILES[2]})")
    if (rows["size"] != dataset.image_sizes).any():
        raise Unusable("is damaged or out of date (its images are not of the sizes that the data set has)")
    if image := changed_image(dataset, rows):
        raise Unusable(f"is out of date, {image} has changed since")
    return PackedDataset(dataset, folder, rows, str(about.get("packed", "")), note)


def _open_sized(path: Path, size: int) -> BufferedReader:
    """The file at ``path``, open; Unusable or OSError where it is no file of ``size`` bytes."""
    file = open_regular(path)
    actual = os.fstat(file.fileno()).st_size
    if actual != size:
        file.close()
        raise Unusable(f"is damaged ({path.name} has {actual} bytes instead of {size})")
    return file


def _read(path: Path, size: int) -> bytes:
    with _open_sized(path, size) as file:
        return file.read()


def _map(path: Path, dtype: str, size: int) -> npt.NDArray[Any]:
    """The file as a read-only array; an empty one cannot be mapped."""
    with _open_sized(path, size) as file:
        return np.asarray(np.memmap(file, dtype, "r")) if size else np.empty(0, dtype)
