"""A data set of the library ``datasets`` (Hugging Face), as its ``save_to_disk`` leaves it.

It is read with pyarrow alone: ``datasets`` itself may run code that comes with a data set. The photograph is the image
column that is called so; every other image column is a label map, whose numbers ``id2label.json`` names; a column of
classes labels whole images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.concept_names import is_no_concept
from ndissect.engine.data.image_bombs import MOST_PIXELS, most_bytes
from ndissect.engine.data.image_headers import size_of
from ndissect.engine.data.images import BadFile, decode_label_pixels, read_file
from ndissect.engine.data.in_place import Contents, concept_table, in_data_set, inside, refuse
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.json_fields import Fields, parse_json
from ndissect.engine.data.label_maps import MapValues, map_values
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Report
from ndissect.store.errors import NDError

_SPLITS, _ABOUT, _STATE, _NAMES = "dataset_dict.json", "dataset_info.json", "state.json", "id2label.json"
_JSON_BYTES = 16 << 20
_PHOTOGRAPHS = ("image", "img", "photo", "picture", "pixel_values", "jpg")
_MAPS = re.compile(r"label|mask|annot|seg|semantic|map", re.IGNORECASE)
_VOID = 255
# The columns of classes that Broden has a category for; other classes are a category of their own.
_CATEGORIES = ("scene", "texture", "material")
_CLASS = "class"
_START = 1 << 17


def owns(folder: Path) -> bool:
    """Whether ``folder`` is a data set that was saved, or one of several splits."""
    return (folder / _SPLITS).is_file() or all((folder / name).is_file() for name in (_ABOUT, _STATE))


def open_hf_dataset(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of its tables, without it the first is raised.

    NDError where pyarrow is not installed.
    """
    try:
        contents, rows, column = read_contents(root, report or refuse)
    except BadFile as fault:
        (report or refuse)(fault)
        contents, rows, column = Contents(concept_table({}), ()), [], ""
    data = in_data_set(SavedDataset, root, contents, report, max_pixels)
    data.rows, data.column = np.array(rows, np.int64), column
    return data


class SavedDataset(LabelledFiles):
    """LabelledFiles whose photographs lie in Arrow files: in the rows ``rows`` (N,) of the files, column ``column``."""

    rows: npt.NDArray[np.int64]
    column: str

    def read_sizes(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read the sizes of all images now; ``progress`` receives (images done, images in all)."""
        if self._sizes is None:
            sizes = np.zeros((len(self), 2), np.int32)
            for index in range(len(self)):
                sizes[index] = self._size(index)
                if progress and (index % 256 == 255 or index + 1 == len(self)):
                    progress(index + 1, len(self))
            self._sizes = sizes

    def image_called(self, index: int) -> str:
        """The file of image ``index`` and its row there."""
        return f"{super().image_called(index)}, row {self.rows[index]}"

    def image_bytes(self, index: int, limit: int) -> bytes:
        """The bytes of image ``index``; BadFile where it has more than ``limit``."""
        cell = Cell(self.records[index].file, self.column, int(self.rows[index]))
        return cell.read(self.root, limit)

    def _size(self, index: int) -> tuple[int, int]:
        cell = Cell(self.records[index].file, self.column, int(self.rows[index]))
        try:
            return size_of(cell.read(self.root, None, _START)) or size_of(cell.read(self.root, None)) or (0, 0)
        except BadFile:
            return 0, 0


@dataclass(frozen=True)
class Cell:
    """The image in one row of an Arrow file, below the data set's folder."""

    file: Path
    column: str
    row: int

    def read(self, root: Path, limit: int | None, first: int | None = None) -> bytes:
        """Its bytes, or the ``first`` of them; BadFile where there is none, or where it has more than ``limit``."""
        name = f"{self.file.as_posix()}, row {self.row}"
        value = _table(str(root / self.file), self.file.as_posix()).column(self.column)[self.row]
        try:
            buffer = value["bytes"].as_buffer() if value.is_valid and value["bytes"].is_valid else None
        except (KeyError, TypeError, AttributeError):  # a column of another type than the table says
            buffer = None
        if buffer is None:
            raise BadFile(name, f"column {self.column} holds no image, or a path alone")
        if limit is not None and buffer.size > limit:
            raise BadFile(name, f"the image has {buffer.size:,} bytes, at most {limit:,} are read")
        data: bytes = buffer[:first].to_pybytes()
        return data


@dataclass(frozen=True)
class MapCell:
    """A label map in an Arrow file: a LabelSource."""

    cell: Cell
    values: MapValues

    @property
    def files(self) -> tuple[Path, ...]:
        """The Arrow file."""
        return (self.cell.file,)

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(1, h, w) uint16 concept numbers, and the bytes of the map; BadFile says what is wrong with it."""
        name = f"{self.cell.file.as_posix()}, row {self.cell.row}, column {self.cell.column}"
        most = max(MOST_PIXELS, size[0] * size[1])
        data = self.cell.read(root, most_bytes(most))
        declared = size_of(data)
        if declared is not None and declared[0] * declared[1] > most:
            raise BadFile(name, f"the label map is {declared[0]} x {declared[1]} pixels, more than {most:,}")
        return self.values.concepts_of(decode_label_pixels(data, name), name)[None], data


@dataclass(frozen=True)
class _Columns:
    """The columns that are of use: the photograph, its label maps, and by name the classes of whole images."""

    image: str
    maps: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]


def read_contents(root: Path, say: Report) -> tuple[Contents, list[int], str]:
    """The concepts and images, the row of each image in its file, and the column of the images."""
    parts, tables = _parts(root, say)
    about = _json(root, f"{parts[0]}/{_ABOUT}".lstrip("/"))
    columns = _columns(about)
    tables.append(repr(columns).encode())
    names, values = _map_names(root, parts, columns, say, tables)
    concepts = {number: (name, "object") for number, name in names.items()}
    numbers = _class_numbers(columns, max(concepts, default=0), concepts)
    records: list[ImageRecord] = []
    rows: list[int] = []
    for part in parts:
        at = 0
        for file in _data_files(root, part):
            table = _table(str(root / file), file.as_posix())
            missing = [c for c in (columns.image, *columns.maps, *columns.classes) if c not in table.column_names]
            if missing:
                say(BadFile(file.as_posix(), f"no column {', '.join(missing)}, which {_ABOUT} lists"))
                continue
            labels = [_labels(table.column(column).to_pylist(), numbers[column]) for column in columns.classes]
            for row in range(table.num_rows):
                name = f"{part}/{at + row:07d}" if part else f"{at + row:07d}"
                sources = tuple(MapCell(Cell(file, column, row), values) for column in columns.maps)
                whole = tuple(sorted({number for column in labels for number in column[row]}))
                split = split_called(part) or split_by_name(name)
                records.append(ImageRecord(name, file, split, sources, whole))
                rows.append(row)
            at += table.num_rows
    if not records:
        say(BadFile(_ABOUT, "the data set has no rows"))
    return Contents(concept_table(concepts), tuple(records), tuple(tables)), rows, columns.image


def _parts(root: Path, say: Report) -> tuple[list[str], list[bytes]]:
    """The folders of the splits, or the folder itself as an empty name; and the bytes of the table that lists them."""
    if not (root / _SPLITS).is_file():
        return [""], []
    fields = _json(root, _SPLITS)
    parts = [part for part in fields.list("splits") if isinstance(part, str) and inside(part)]
    if not parts or len(parts) != len(fields.list("splits")):
        raise BadFile(_SPLITS, "'splits' is no list of folders in this one")
    return parts, [repr(parts).encode()]


def _json(root: Path, file: str) -> Fields:
    return parse_json(read_file(root / file, file, _JSON_BYTES), file)


def _data_files(root: Path, part: str) -> list[Path]:
    """The Arrow files of a split, below ``root``."""
    state = f"{part}/{_STATE}".lstrip("/")
    names = [entry.text("filename") for entry in _json(root, state).objects("_data_files")]
    for name in names:
        if not inside(name):
            raise BadFile(state, f"the file {name!r} leads out of its folder")
    return [Path(part, name) for name in names]


def _columns(about: Fields) -> _Columns:
    """The columns of use, by the kinds that ``dataset_info.json`` gives; BadFile where none is a photograph."""
    features = about.object("features").value
    kinds = {name: kind.get("_type") for name, kind in features.items() if isinstance(kind, dict)}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if not images:
        raise BadFile(about.file, f"no column of images; the columns are {', '.join(features)[:200]}")
    named = [name for known in _PHOTOGRAPHS for name in images if name.lower() == known]
    image = [*named, *(name for name in images if not _MAPS.search(name)), *images][0]
    maps = tuple(name for name in images if name != image and _MAPS.search(name))
    classes = {name: names for name in kinds if (names := _class_names(features[name]))}
    if not maps and not classes:
        raise BadFile(about.file, f"nothing labels the images of {image}: no column of classes, no other of images")
    return _Columns(image, maps, classes)


def _class_names(kind: Any) -> tuple[str, ...]:
    """The names of a column of classes, or of lists of classes; empty for any other column."""
    inner = kind.get("feature", kind)
    names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _class_numbers(columns: _Columns, after: int, concepts: dict[int, tuple[str, str]]) -> dict[str, range]:
    """The concept numbers of each column of classes, added to ``concepts`` with their names and categories."""
    numbers = {}
    for column, names in columns.classes.items():
        category = next((known for known in _CATEGORIES if known in column.lower()), _CLASS)
        numbers[column] = range(after + 1, after + 1 + len(names))
        ending = "-s" if category == "scene" else ""
        concepts |= {number: (name + ending, category) for number, name in zip(numbers[column], names, strict=True)}
        after += len(names)
    return numbers


def _labels(values: Sequence[Any], numbers: range) -> list[list[int]]:
    """The concept numbers of each row of a column of classes, or of lists of them; -1 and nothing are no class."""
    lists = [value if isinstance(value, list) else [value] for value in values]
    return [[numbers[v] for v in row if isinstance(v, int) and 0 <= v < len(numbers)] for row in lists]


def _map_names(
    root: Path, parts: Sequence[str], columns: _Columns, say: Report, tables: list[bytes]
) -> tuple[dict[int, str], MapValues]:
    """The names of the concepts of label maps by their numbers, and what the pixels of the maps mean."""
    if not columns.maps:
        return {}, map_values(_NAMES, {})
    file = next((f for f in (_NAMES, *(f"{part}/{_NAMES}" for part in parts)) if (root / f).is_file()), None)
    if file is None:
        what = f"the file is missing: it names the numbers of the label maps in column {', '.join(columns.maps)}"
        say(BadFile(_NAMES, what, f'Write {root / _NAMES}, as in {{"1": "wall", "2": "building"}}'))
        return {}, map_values(_NAMES, {})
    fields = _json(root, file)
    listed = fields.get("id2label") or fields.value
    pairs = enumerate(listed) if isinstance(listed, list) else listed.items() if isinstance(listed, dict) else ()
    names: dict[int, str] = {}
    for key, name in pairs:
        if not re.fullmatch(r"[0-9]{1,5}", str(key)) or int(key) >= 2**16 - 1 or not isinstance(name, str):
            say(BadFile(file, f"{str(key)[:40]!r} is no number of a label map with a name"))
        elif not is_no_concept(name):
            names[int(key)] = name
    tables.append(repr(names).encode())
    # 0 is no concept here: where the data set has one of that number, all move up by one.
    first = 1 if 0 in names else 0
    numbers = {value: value + first for value in names}
    return {value + first: name for value, name in names.items()}, map_values(file, numbers, (0, _VOID))


@lru_cache(maxsize=256)
def _table(path: str, file: str) -> Any:
    """The pyarrow Table of an Arrow file, mapped into memory; BadFile where it is none."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError as error:
        what = "Data sets that `datasets` has saved need pyarrow, which is not installed"
        raise NDError(what, "pip install 'ndissect[datasets]'") from error
    try:
        table = pa.ipc.open_stream(pa.memory_map(path)).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise BadFile(file, f"not a readable Arrow file: {str(error).splitlines()[0][:200]}") from error
    return table
