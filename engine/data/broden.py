"""Broden, the broadly and densely labelled data set of Bau et al. (CVPR 2017), as it lies on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.concepts import Concepts, category_order, read_concepts, read_coverage
from ndissect.engine.data.dataset import Figures, Labels, Sample
from ndissect.engine.data.image_bombs import MOST_PIXELS, most_bytes
from ndissect.engine.data.images import BadFile, allow_pixels, decode_image, decode_labels, read_file
from ndissect.engine.data.index_table import FIXED_COLUMNS, SIZES, items_of, more_than, read_index
from ndissect.engine.data.jpeg import bare_jpeg, keep_jpeg
from ndissect.engine.data.tables import (
    CATEGORY_ROWS,
    CONCEPT_ROWS,
    IMAGE_ROWS,
    WHOLE,
    Report,
    Table,
    parse_table,
    quoted,
)
from ndissect.store.regular import read_regular

Decode = Callable[[bytes, str, tuple[int, int]], npt.NDArray[np.uint8]]

# A table's bytes are looked at before its rows are counted: 63,305 images of Broden take 230 bytes each.
_ROW_BYTES = 256
_CHECK = "`nd data check` lists everything that is wrong with a data set"


class Broden:
    """A data set in Broden's format: a FolderDataset with JpegFiles, safe to read from several threads and to pickle.

    Beside the fields of FolderDataset: ``columns`` (K,): the category columns of index.csv; ``unused``: its empty
    columns that are no category; ``filled`` (N, K) bool: whether image n has labels in column k; ``rows`` (N,): the row
    in index.csv; ``frequency`` (C,) int64: how many images hold a concept, by label.csv, -1 where it does not say;
    ``coverage`` (C,) float64: how much of them it covers, in whole images, NaN where label.csv does not say;
    ``category_coverage``: the summed coverage of each category that has a c_ file.

    ``report`` receives every fault of the tables and the reading goes on; without it the first is raised.
    ``max_pixels``: an image of more is not read, nor are label maps of one image with more in all.
    """

    def __init__(self, root: Path, report: Report | None = None, max_pixels: int | None = None) -> None:
        say = report or _refuse
        self.root = root
        self.name = root.resolve().name
        self.max_pixels = max_pixels or MOST_PIXELS
        allow_pixels(self.max_pixels)
        digest = hashlib.blake2b(digest_size=16)

        def table(file: str, required: tuple[str, ...], rows: int) -> Table:
            try:
                data = read_file(root / file, file, rows * _ROW_BYTES)
            except BadFile as fault:
                say(fault)
                return Table(file, (), ())
            _update(digest, file.encode())
            _update(digest, data)
            parsed = parse_table(file, data, required, say, rows)
            notes.extend(parsed.notes)
            return parsed

        notes: list[str] = []
        index = table("index.csv", ("image", *SIZES), IMAGE_ROWS)
        labels = table("label.csv", ("number", "name"), CONCEPT_ROWS)
        listed = table("category.csv", ("name",), CATEGORY_ROWS) if os.path.lexists(root / "category.csv") else None
        order = category_order([c for c in index.columns if c not in FIXED_COLUMNS], labels, listed, say)
        covered = [c for c in order if os.path.lexists(root / f"c_{c}.csv")]
        cover = {c: read_coverage(table(f"c_{c}.csv", ("number", "coverage"), CONCEPT_ROWS), say) for c in covered}
        self._keep_concepts(read_concepts(labels, order, cover, say))
        self.category_coverage = {c: sum(by_number.values()) for c, by_number in cover.items()}
        notes += self._read_index(index, order, say, by_category_file=listed is not None and bool(listed.columns))
        self.notes = tuple(notes)
        if report:  # an image that is listed twice stops no run: it is told to whoever asks for all faults
            for fault in self._duplicates():
                report(fault)
        self._tables_digest = digest.hexdigest()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        allow_pixels(self.max_pixels)  # of this process

    def __len__(self) -> int:
        return len(self.names)

    def known_sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2): the height and width of every image, by index.csv."""
        return self.image_sizes

    def tables_digest(self) -> str:
        """Hex digest of the bytes of every table that was read."""
        return self._tables_digest

    def cells(self, index: int) -> dict[str, tuple[str, ...]]:
        """The items of each category cell of image ``index`` that is not empty: numbers and paths of label maps."""
        pairs = zip(self.columns, self._cells[index], strict=True)
        return {column: items for column, cell in pairs if (items := items_of(cell))}

    @cached_property
    def largest(self) -> int:
        """Bytes that the largest image takes with its label maps, both decoded."""
        most = max((sum(cell.count(";") + 1 for cell in cells if cell) for cells in self._cells), default=0)
        pixels = self.image_sizes.astype(np.int64).prod(1).max(initial=0)
        # What would be more is not read.
        maps = min(most * self.grid[0] * self.grid[1], self.max_pixels)
        return 3 * min(int(pixels), self.max_pixels) + 2 * maps

    def labels_of(self, index: int) -> list[tuple[str, int]]:
        """(category column, number) of each image-level label of image ``index``, known or not; 0 is none."""
        cells = self.cells(index).items()
        labels = [(column, int(item)) for column, items in cells for item in items if WHOLE.fullmatch(item)]
        return [(column, number) for column, number in labels if number != 0]

    def maps_of(self, index: int) -> list[str]:
        """The paths of the label maps of image ``index``, relative to ``images/``, category by category."""
        return [item for items in self.cells(index).values() for item in items if not WHOLE.fullmatch(item)]

    def read(self, index: int, decode: Decode = decode_image) -> Sample:
        """Decode image ``index`` with its labels; BadFile (an NDError) names the file and what is wrong with it.

        ``decode``: makes the sample's image of the file's bytes, its name and its size.
        """
        labels = self.image_labels(index)
        digest = hashlib.blake2b(digest_size=16)
        cells = (f"{c}={cell}" for c, cell in zip(self.columns, self._cells[index], strict=True))
        for text in (self.names[index], *cells):
            _update(digest, text.encode())
        image, data = self.read_image(index, decode)
        _update(digest, data)
        maps, files = self._read_maps(index)
        for data in files:
            _update(digest, data)
        return Sample(index, self.names[index], image, maps, labels, int.from_bytes(digest.digest(), "big"))

    def read_labels(self, index: int) -> Labels:
        """Decode the labels of image ``index`` alone; BadFile (an NDError) as for ``read``."""
        labels = self.image_labels(index)
        return Labels(index, self._read_maps(index)[0], labels)

    def read_encoded(self, index: int) -> Sample:
        """As ``read``, but a baseline colour JPEG is not decoded: the sample's image is its bytes, (n,) uint8."""
        return self.read(index, keep_jpeg)

    def bare_jpeg(self, index: int, side: int, most: int) -> bytes | None:
        """The file of image ``index`` without what cameras write into it, where it is a baseline colour JPEG.

        None where it is none, has more than ``side`` pixels on a side or ``most`` bytes, or cannot be read.
        """
        ih, iw = self.image_sizes[index].tolist()
        if max(ih, iw) > side:
            return None
        try:
            data = read_regular(self.image_path(index), most)
        except OSError:
            return None
        return bare_jpeg(data, (ih, iw))

    def figures(self) -> Figures:
        """What the tables say of concepts and categories; a column that is no category counts as an empty one."""
        images = dict(zip(self.columns, self.filled.sum(0).tolist(), strict=True))
        return Figures(self.frequency, self.coverage, images | dict.fromkeys(self.unused, 0), self.category_coverage)

    def faults(self, index: int) -> Iterator[BadFile]:
        """All that is wrong with the files and labels of image ``index``: each is read to its end."""
        checks: list[Callable[[], object]] = [partial(self.read_image, index)]
        checks += [partial(self.check_label, index, *label) for label in self.labels_of(index)]
        checks += [partial(self.read_map, path) for path in self.maps_of(index)]
        checks.append(partial(self.check_maps, index))
        for check in checks:
            try:
                check()
            except BadFile as fault:
                yield fault

    def _duplicates(self) -> Iterator[BadFile]:
        first: dict[str, int] = {}
        for name, row in zip(self.names, self.rows, strict=True):
            if name in first:
                yield BadFile("index.csv", f"row {row}, column image: {name} is already in row {first[name]}")
            first.setdefault(name, row)

    def image_path(self, index: int) -> Path:
        """Where the photograph of image ``index`` lies."""
        return self.root / "images" / self.names[index]

    def read_image(self, index: int, decode: Decode = decode_image) -> tuple[npt.NDArray[np.uint8], bytes]:
        """(ih, iw, 3) uint8 RGB of image ``index``, and the bytes of its file."""
        file = f"images/{self.names[index]}"
        ih, iw = self.image_sizes[index].tolist()
        if ih * iw > self.max_pixels:
            raise BadFile(file, f"the image is {ih} x {iw} pixels, {more_than(self.max_pixels)}")
        data = read_file(self.image_path(index), file, most_bytes(ih * iw))
        return decode(data, file, (ih, iw)), data

    def read_map(self, path: str) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(sh, sw) uint16 concept numbers of the label map ``path``, all of them known, and the bytes of its file."""
        file = f"images/{path}"
        data = read_file(self.root / file, file, most_bytes(self.grid[0] * self.grid[1]))
        numbers = decode_labels(data, file, self.grid)
        known = self._known[numbers]
        if not known.all():
            unknown = np.unique(numbers[~known]).tolist()
            some = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
            raise BadFile(file, f"holds {some}, not in label.csv", _CHECK)
        return numbers, data

    def check_label(self, index: int, column: str, number: int) -> int:
        """``number``; BadFile where label.csv does not list this image-level label of image ``index``."""
        if number >= len(self._known) or not self._known[number]:
            what = f"row {self.rows[index]}, column {column}: {self.names[index]} has label {number}, not in label.csv"
            raise BadFile("index.csv", what, _CHECK)
        return number

    def check_maps(self, index: int) -> list[str]:
        """The paths of the label maps of image ``index``; BadFile where they have more pixels in all than are read."""
        paths = self.maps_of(index)
        count = len(paths)
        if count * self.grid[0] * self.grid[1] > self.max_pixels:
            maps = f"{count} label maps of {self.grid[0]} x {self.grid[1]} pixels, {more_than(self.max_pixels)}"
            raise BadFile("index.csv", f"row {self.rows[index]}: {self.names[index]} has {maps}")
        return paths

    def image_labels(self, index: int) -> tuple[int, ...]:
        """The image-level labels of image ``index``, sorted, all of them known."""
        return tuple(sorted({self.check_label(index, column, number) for column, number in self.labels_of(index)}))

    def _read_maps(self, index: int) -> tuple[npt.NDArray[np.uint16], list[bytes]]:
        """(M, sh, sw) uint16: the label maps of image ``index``, and the bytes of their files."""
        paths = self.check_maps(index)
        maps, files = np.empty((len(paths), *self.grid), np.uint16), []
        for row, path in enumerate(paths):
            maps[row], data = self.read_map(path)
            files.append(data)
        return maps, files

    def _keep_concepts(self, concepts: Concepts) -> None:
        self.concepts, self.frequency, self.coverage = concepts.table, concepts.frequency, concepts.coverage
        # A place for every value that a map can hold, so that checking a map is one look-up.
        self._known = np.zeros(2**16, bool)
        self._known[0] = True
        self._known[list(concepts.listed)] = True

    def _read_index(self, table: Table, order: tuple[str, ...], say: Report, *, by_category_file: bool) -> list[str]:
        """Keep what index.csv says; returns notes."""
        self.columns = tuple(c for c in table.columns if c in order)
        others = [c for c in table.columns if c not in order and c not in FIXED_COLUMNS]
        filled = [c for c in others if any(table.cell(row, c) for _, row in table.rows)]
        self.unused = tuple(c for c in others if c not in filled)
        notes = []
        if filled and by_category_file:
            notes = [f"{table.file} has {', '.join(map(quoted, filled))}, no category of category.csv: not read"]
        elif filled:
            _refuse_labels(table, filled, say)
        index = read_index(table, self.columns, self.max_pixels, say)
        self.names, self.splits, self.rows, self._cells = index.names, index.splits, index.rows, index.cells
        self.image_sizes, self.grid = index.image_sizes, index.grid
        filled_cells = [[c != "" for c in row] for row in self._cells]
        self.filled = np.array(filled_cells, bool).reshape(len(self._cells), len(self.columns))
        return [*notes, *index.notes]


def _refuse(fault: BadFile) -> None:
    raise BadFile(fault.file, fault.what, fault.hint or _CHECK)


def _refuse_labels(table: Table, columns: list[str], say: Report) -> None:
    """Report labels in columns that are no category: without category.csv they would be lost without a word."""
    for column in columns:
        line = next(line for line, row in table.rows if table.cell(row, column))
        say(table.fault(line, column, "the column is no category of label.csv, yet not empty"))


def _update(digest: hashlib.blake2b, data: bytes) -> None:
    """Add ``data`` with its length, so that no two sequences of parts run together into the same bytes."""
    digest.update(len(data).to_bytes(8, "big"))
    digest.update(data)
