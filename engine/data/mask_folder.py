"""A folder of images and a folder of label maps with the same names: the format of one's own data.

::

    images/a.jpg        any photographs; images/train/a.jpg and images/val/a.jpg, or train/images/a.jpg, give the split
    masks/a.png         numbers (grey, palette, 16 bits) or colours, of any size; several: a.hair.png, a.material.png
    labels.csv          number,name[,category][,color]
    images.csv          image[,split][,scene ...]: splits, and labels of whole images (not needed)

``nd data init`` writes a ``dataset.json`` instead of the folders, which says where they are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndissect.engine.data.image_files import (
    IMAGE_ENDINGS,
    MAP_ENDINGS,
    entries,
    folders,
    is_folder,
    list_files,
    some,
    stem,
)
from ndissect.engine.data.images import BadFile, decode_label_pixels, read_file
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.label_maps import MapFile, MapValues, read_map_file
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.mask_concepts import CATEGORY, MaskConcepts, unnamed
from ndissect.engine.data.mask_pairs import Pairs, pair
from ndissect.engine.data.name_table import MOST_BYTES, NameRow, read_name_table
from ndissect.engine.data.splits import note_of_test, split_called
from ndissect.engine.data.tables import IMAGE_ROWS, Report, parse_table, quoted
from ndissect.store.errors import NDError
from ndissect.store.regular import read_regular

#: The description that `nd data init` writes, and what it says of itself.
DESCRIPTION, KIND, VERSION = "dataset.json", "ndissect-folder", "1.0"

_IMAGES = ("images", "img_dir", "image", "imgs", "img")
_MASKS = ("masks", "labels", "mask", "ann_dir")
#: Other formats have a folder of this name too: it does not tell what a folder is.
_ANNOTATIONS = "annotations"
#: Tables of names, by the names of their files; the first that is there is read.
NAME_TABLES = tuple(
    f"{name}.{ending}" for name in ("labels", "classes", "names") for ending in ("csv", "tsv", "txt", "json")
)
_IMAGE_TABLE = "images.csv"
_LABEL_COLUMNS = ("label", "labels", "class")
_MOST_DESCRIPTION = 1 << 16
_ROW_BYTES = 512
# So many entries tell whether a folder holds label maps, and so many maps whether they hold but 0 and 255.
_LOOKED_AT = 50
_HINT = "`nd data check` lists everything that is wrong with a data set"


@dataclass(frozen=True)
class Place:
    """A folder of images and the folder of their label maps, below the data set's or whole paths.

    ``prefix``: what the names of these images begin with.
    """

    images: Path
    masks: Path
    prefix: str = ""


@dataclass(frozen=True)
class Layout:
    """``places``: where images and label maps lie; ``names``: the table of names, empty where there is none;
    ``suffix``: what the names of label maps have at their end besides.
    """

    places: tuple[Place, ...]
    names: str = ""
    suffix: str = ""


def is_mask_folder(folder: Path) -> bool:
    """Whether ``folder`` has a description of such a data set, or folders of images and of label maps."""
    return _description(folder) is not None or bool(_places(folder, _MASKS))


def open_mask_folder(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``. Images without label maps are left out, unless images.csv has labels of them.

    ``report`` receives every fault of the tables and names, and the reading goes on; without it the first fault of a
    table is raised, and images and maps that do not belong together are told in the data set's notes.
    """
    say = report or _refuse
    layout = _layout(root)
    digest = hashlib.blake2b(digest_size=16)
    notes: list[str] = []
    pairs = [_pairs(root, place, layout.suffix) for place in layout.places]
    for place, of_place in zip(layout.places, pairs, strict=True):
        for fault in pair_faults(place, of_place):
            if report:
                report(fault)
            else:
                notes.append(str(fault.message))
    rows: list[NameRow] = []
    if layout.names:
        data = read_file(root / layout.names, layout.names, MOST_BYTES)
        _update(digest, data)
        rows = read_name_table(data, layout.names, say)
        if not rows and not report:
            raise BadFile(layout.names, "the table names nothing", _HINT)
    parts = sorted({part for of_place in pairs for maps in of_place.maps.values() for part, _ in maps})
    if not rows:
        numbers = _numbers_without_names(root, layout, pairs)
        rows = unnamed(numbers, parts or [""])
        if not layout.names:
            first, last = rows[0].name, rows[-1].name
            notes.append(f"no table names the numbers of the masks: they are called {first} to {last}; see labels.csv")
    concepts = MaskConcepts(rows, layout.names or "labels.csv")
    values = {part: concepts.values(part) for part in parts}
    table = _read_image_table(root, concepts, digest, say)
    records: list[ImageRecord] = []
    images: set[str] = set()
    for place, of_place in zip(layout.places, pairs, strict=True):
        records += _records(place, of_place, values, table)
        images |= {place.prefix + stem(image) for image in (*of_place.maps, *of_place.bare)}
    for name in sorted(table.keys() - images):
        say(BadFile(_IMAGE_TABLE, f"lists {quoted(name)}, and there is no such image"))
    words = {part for record in records for part in record.name.split("/")[:-1]}
    notes += note_of_test(words | {listed.word for listed in table.values()})
    if not records:
        masks = ", ".join(place.masks.as_posix() for place in layout.places)
        say(BadFile(masks, "no label map is called like an image, but for the ending: the data set is empty"))
    for record in records:
        _update(digest, repr((record.name, record.split, record.labels, [str(s.files[0]) for s in record.sources])))
    return LabelledFiles(
        root,
        root.resolve().name,
        concepts.concept_table(),
        records,
        digest=digest.hexdigest(),
        notes=notes,
        max_pixels=max_pixels,
    )


def pair_faults(place: Place, pairs: Pairs) -> Iterator[BadFile]:
    """What is to be said of images without label maps and label maps without images: counted, the first named."""
    images, masks = place.images.as_posix(), place.masks.as_posix()
    if pairs.bare:
        yield BadFile(images, f"{_count(pairs.bare, 'image')} without a mask in {masks}, left out: {some(pairs.bare)}")
    if pairs.stray:
        yield BadFile(masks, f"{_count(pairs.stray, 'mask')} without an image in {images}: {some(pairs.stray)}")
    if pairs.twice:
        what = f"{_count(pairs.twice, 'image')} called like another but for the ending, left out: {some(pairs.twice)}"
        yield BadFile(images, what)


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names):,} {what}{'s' * (len(names) > 1)}"


def _layout(root: Path) -> Layout:
    description = _description(root)
    if description is not None:
        texts = [description.get(key, "") for key in ("images", "masks", "names", "mask_suffix")]
        if not all(isinstance(text, str) and "\0" not in text for text in texts) or not (texts[0] and texts[1]):
            raise BadFile(DESCRIPTION, "does not say where images and masks are", "Make it again with `nd data init`")
        if Path(texts[2]).name != texts[2]:
            raise BadFile(DESCRIPTION, f"the table of names, {quoted(texts[2])}, does not lie beside it")
        images, masks = (Path(text).expanduser() for text in texts[:2])
        for folder in (images, masks):
            if not os.path.isdir(root / folder):  # noqa: PTH112
                raise BadFile(DESCRIPTION, f"there is no folder {folder}", "Change it there, or `nd data init` again")
        return Layout((Place(images, masks),), texts[2], texts[3])
    places = _places(root, (*_MASKS, _ANNOTATIONS))
    if not places:
        held = f"{_IMAGES[0]}/ and {_MASKS[0]}/"
        raise NDError(f"{root} does not hold {held}", "`nd data init IMAGES MASKS` makes a data set of any two folders")
    return Layout(places, next((name for name in NAME_TABLES if (root / name).is_file()), ""))


def _description(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(read_regular(folder / DESCRIPTION, _MOST_DESCRIPTION))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("encoding-type") == KIND else None


def _places(root: Path, masks: Sequence[str]) -> tuple[Place, ...]:
    """The folders of images and label maps in ``root``, or in folders there that are called like splits."""
    if place := _place(root, "", masks):
        return (place,)
    splits = [name for name in folders(root, _LOOKED_AT) if split_called(name)]
    return tuple(place for split in splits if (place := _place(root, f"{split}/", masks)))


def _place(root: Path, prefix: str, masks: Sequence[str]) -> Place | None:
    there = [Path(prefix + name) for name in _IMAGES if (root / prefix / name).is_dir()]
    maps = [
        Path(prefix + name) for name in masks if (root / prefix / name).is_dir() and _holds_maps(root / prefix / name)
    ]
    return Place(there[0], maps[0], prefix) if there and maps else None


def _holds_maps(folder: Path, deeper: int = 2) -> bool:
    """Whether one of the first files in ``folder`` may be a label map; other formats keep texts in such folders."""
    few = entries(folder, _LOOKED_AT)
    if any(entry.name.lower().endswith(MAP_ENDINGS) for entry in few):
        return True
    return deeper > 0 and any(_holds_maps(Path(entry.path), deeper - 1) for entry in few[:5] if is_folder(entry))


def _pairs(root: Path, place: Place, suffix: str) -> Pairs:
    images, masks = list_both(root / place.images, root / place.masks)
    return pair(images, masks, suffix)


def list_both(images: Path, masks: Path) -> tuple[list[str], list[str]]:
    """The images and the label maps; where both lie in one folder, JPEGs are the images and all others the maps."""
    if os.path.realpath(images) == os.path.realpath(masks):
        files = list_files(images, IMAGE_ENDINGS)
        jpegs = [file for file in files if file.lower().endswith((".jpg", ".jpeg"))]
        return jpegs, sorted(set(files) - set(jpegs))
    return list_files(images, IMAGE_ENDINGS), list_files(masks, MAP_ENDINGS)


def _numbers_without_names(root: Path, layout: Layout, pairs: Sequence[Pairs]) -> Sequence[int]:
    """The numbers that maps may hold where no table says: all of 8 bits, or 255 where they are black and white."""
    values: set[int] = set()
    for place, of_place in zip(layout.places, pairs, strict=True):
        for maps in itertools.islice(of_place.maps.values(), _LOOKED_AT):
            for _, path in maps:
                try:
                    values |= numbers_in(root, place.masks / path)
                except BadFile:
                    continue
    return (255,) if values in ({0, 255}, {255}) else range(1, 255)


def numbers_in(root: Path, file: Path) -> set[int]:
    """The numbers of the pixels of a label map, colours left out; BadFile where it cannot be read."""
    pixels = decode_label_pixels(read_map_file(root, file, (0, 0)), file.as_posix())
    return set() if pixels.ndim == 3 else set(map(int, set(pixels.ravel().tolist())))


@dataclass(frozen=True)
class _Listed:
    """What images.csv says of an image: its split, in the ``word`` that stands there, and labels of all of it."""

    split: str = ""
    word: str = ""
    labels: tuple[int, ...] = ()


def _read_image_table(root: Path, concepts: MaskConcepts, digest: hashlib.blake2b, say: Report) -> dict[str, _Listed]:
    """What images.csv says of each image, by its name without the ending; a label that no table names is a concept."""
    if not os.path.lexists(root / _IMAGE_TABLE):
        return {}
    data = read_file(root / _IMAGE_TABLE, _IMAGE_TABLE, IMAGE_ROWS * _ROW_BYTES)
    _update(digest, data)
    table = parse_table(_IMAGE_TABLE, data, ("image",), say)
    columns = [column for column in table.columns if column not in ("image", "split")]
    listed: dict[str, _Listed] = {}
    for line, row in table.rows:
        name, word = table.cell(row, "image"), table.cell(row, "split")
        split = split_called(word) if word else ""
        if split is None:
            say(table.fault(line, "split", f"{quoted(word)} is neither train nor val nor test"))
            continue
        labels: set[int] = set()
        for column in columns:
            category = CATEGORY if column.lower() in _LABEL_COLUMNS else column
            for item in filter(None, map(str.strip, table.cell(row, column).split(";"))):
                known = concepts.of_value(int(item)) if item.isdecimal() else concepts.find(item, category)
                labels.add(concepts.add(item, category) if known is None else known)
        key = stem(name) if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS else name  # noqa: PTH122
        listed[key] = _Listed(split, word, tuple(sorted(labels - {0})))
    return listed


def _records(
    place: Place, pairs: Pairs, values: dict[str, MapValues], table: dict[str, _Listed]
) -> Iterator[ImageRecord]:
    bare = [image for image in pairs.bare if (of := table.get(place.prefix + stem(image))) and of.labels]
    nothing = _Listed()
    for image in sorted([*pairs.maps, *bare]):
        name = (place.prefix + image).encode("utf-8", "replace").decode()
        listed = table.get(stem(name), nothing)
        folders = (split_called(part) for part in name.split("/")[:-1])
        split = listed.split or next(filter(None, folders), None) or split_by_name(name)
        maps = tuple(MapFile(place.masks / path, values[part]) for part, path in pairs.maps.get(image, ()))
        yield ImageRecord(name, place.images / image, split, maps, listed.labels)


def _refuse(fault: BadFile) -> None:
    raise BadFile(fault.file, fault.what, fault.hint or _HINT)


def _update(digest: hashlib.blake2b, data: bytes | str) -> None:
    """Add ``data`` with its length, so that no two sequences of parts run together into the same bytes."""
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")
    digest.update(len(data).to_bytes(8, "big"))
    digest.update(data)
