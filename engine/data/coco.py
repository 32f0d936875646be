"""COCO (Lin et al., ECCV 2014) and what is written in its format: instances, and panoptic maps (Kirillov et al., 2019).

Every JSON file of the kind that is asked for is read: those of ``annotations/``, of the folder itself, and
``_annotations.coco.json`` beside the images of ``train/``, ``valid/`` and ``test/``. All concepts are objects, those
that can be counted and others. A crowd is labelled as what it is a crowd of: its pixels show it, though nobody counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.coco_sources import Instances, PanopticMap, TwoChannelMap
from ndissect.engine.data.image_bombs import MOST_PIXELS
from ndissect.engine.data.image_files import IMAGE_ENDINGS, entries, files, folders
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.in_place import Contents, concept_table, inside, named, opened, refuse, split_in
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.json_fields import Fields, parse_json
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles, LabelSource
from ndissect.engine.data.tables import Report

#: Bytes of one JSON file. Those of COCO's 118,287 training images have 470 million.
_JSON_BYTES = 2 << 30
_LARGEST_NUMBER = 2**16 - 1
_ANNOTATIONS = "annotations"
_EXPORTED = "_annotations.coco.json"
_EXPORTED_FOLDERS = ("train", "valid", "val", "test")
# The converter of panoptic maps writes instances so; its table of categories is no table of images.
_CONVERTED, _NO_TABLE = "_detection_format.json", "_categories.json"
#: Panoptic maps in two channels, category and instance, as the converter takes and makes them.
_TWO_CHANNELS = "_2ch_format"


def owns_instances(folder: Path) -> bool:
    """Whether ``folder`` holds instances in COCO's format: a JSON file that is called so."""
    return bool(_files(folder, panoptic=False))


def owns_panoptic(folder: Path) -> bool:
    """Whether ``folder`` holds panoptic maps of COCO: a JSON file that is called so."""
    return bool(_files(folder, panoptic=True))


def open_instances(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The instances in ``root``; ``report`` receives every fault of the JSON files, else the first is raised."""
    return opened(root, read_contents(root, report or refuse, panoptic=False), report, max_pixels)


def open_panoptic(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The panoptic maps of ``root``; ``report`` receives every fault of the JSON files, else the first is raised."""
    return opened(root, read_contents(root, report or refuse, panoptic=True), report, max_pixels)


@dataclass(frozen=True)
class _Table:
    """One JSON file: ``file`` below the data set's folder, its ``fields``, the names of the categories by id."""

    file: Path
    fields: Fields
    categories: dict[int, str]

    @property
    def part(self) -> str:
        """What the file is called behind its kind: val2017, of instances_val2017.json; else all of its name."""
        return self.file.stem.partition("_")[2] or self.file.stem


@dataclass(frozen=True)
class _Image:
    """An image of a table: its id there, its file_name, its size (H, W) there, and its file."""

    id: int
    name: str
    size: tuple[int, int]
    file: Path


def read_contents(root: Path, say: Report, *, panoptic: bool) -> Contents:
    """The categories of all JSON files of the kind, and the images that are there, whether or not they hold any."""
    tables, digests = [], []
    # Whoever asks for this format by its key may call the files as they like.
    paths = _files(root, panoptic=panoptic) or _all_json(root)
    if not paths:
        say(BadFile(_ANNOTATIONS, "there is no JSON file in it, nor in the folder that holds it"))
    for file in paths:
        try:
            data = read_file(root / file, file.as_posix(), _JSON_BYTES)
            digests.append(hashlib.blake2b(data, digest_size=16).digest())
            fields = parse_json(data, file.as_posix())
            del data
            tables.append(_Table(file, fields, _categories(fields, say)))
        except BadFile as fault:
            say(fault)
    # Some count their categories from 0, which is no concept here.
    first = 1 if any(0 in table.categories for table in tables) else 0
    names = _joined(tables, say)
    concepts = {id_ + first: (name, "object") for id_, name in names.items()}
    records: dict[str, ImageRecord] = {}
    held: dict[str, frozenset[int]] = {}
    left_out: list[BadFile] = []
    twice: list[str] = []
    unlisted: dict[Path, set[str]] = {}
    for table in tables:
        try:
            for record, numbers in _labelled(root, table, first, say, left_out, unlisted, panoptic=panoptic):
                if record.name in records:
                    twice.append(record.name)
                else:
                    records[record.name], held[record.name] = record, numbers
        except BadFile as fault:
            say(fault)
    if twice:
        left_out.append(BadFile(tables[-1].file.as_posix(), named("image", "in two JSON files, read once", twice)))
    left_out += [
        BadFile(at.as_posix(), named("image", "that no JSON file lists", sorted(names)))
        for at, names in unlisted.items()
        if names
    ]
    return Contents(
        concept_table(concepts), tuple(records.values()), tuple(digests), tuple(left_out), tuple(held.values())
    )


def _categories(fields: Fields, say: Report) -> dict[int, str]:
    """The names of the categories of one table by their ids, which must be small enough for label maps."""
    names = {entry.number("id"): entry.text("name") for entry in fields.objects("categories")}
    for id_ in [id_ for id_ in names if not 0 <= id_ < _LARGEST_NUMBER]:
        say(BadFile(fields.file, f"category {names.pop(id_)!r} has the id {id_}, not one from 0 to 65,534"))
    return names


def _joined(tables: Sequence[_Table], say: Report) -> dict[int, str]:
    """The name of each category by its id, which must be the same in all tables."""
    names: dict[int, str] = {}
    for table in tables:
        for id_, name in table.categories.items():
            if names.setdefault(id_, name) != name:
                what = f"category {id_} is {name!r}, in {tables[0].file.name} it is {names[id_]!r}"
                say(BadFile(table.file.as_posix(), what))
    return names


def _labelled(
    root: Path,
    table: _Table,
    first: int,
    say: Report,
    left_out: list[BadFile],
    unlisted: dict[Path, set[str]],
    *,
    panoptic: bool,
) -> Iterator[tuple[ImageRecord, frozenset[int]]]:
    """The images of ``table`` that are there, each with the concepts that it holds.

    ``unlisted`` receives the images of its folder, less those of all tables so far.
    """
    images, folder = _images(root, table, left_out, unlisted)
    sources = (_panoptic_maps if panoptic else _instances)(root, table, images, first, say, left_out)
    for image in images:
        name = f"{folder}/{image.name}" if folder else image.name
        split = split_in(table.part) or split_in(table.file.as_posix()) or split_by_name(name)
        if image.id in sources:
            source, numbers = sources[image.id]
            yield ImageRecord(name, image.file, split, (source,)), numbers
        elif not panoptic:  # it holds no instance, and that is known
            yield ImageRecord(name, image.file, split), frozenset()


def _images(
    root: Path, table: _Table, left_out: list[BadFile], unlisted: dict[Path, set[str]]
) -> tuple[list[_Image], str]:
    """The images of ``table`` that are there, and the name of their folder; those that are missing are told."""
    listed: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for entry in table.fields.objects("images"):
        name = entry.text("file_name").replace("\\", "/")
        if not inside(name):
            raise BadFile(table.file.as_posix(), f"the file_name {name!r} leads out of its folder")
        height, width = entry.number("height"), entry.number("width")
        if min(height, width) < 1 or height * width > MOST_PIXELS:
            raise BadFile(table.file.as_posix(), f"{name} is said to be {height} x {width} pixels")
        listed[entry.number("id")] = name
        sizes[entry.number("id")] = height, width
    at, tried = _image_folder(root, table, list(listed.values()))
    if at is None:
        what = f"its images are in none of {', '.join(tried)}: looked for {next(iter(listed.values()), 'any')}"
        hint = f"Unpack or link the images as {root / (table.part or 'images')}"
        raise BadFile(table.file.as_posix(), what if listed else "the file lists no image", hint if listed else "")
    there = set(files(root / at, IMAGE_ENDINGS))
    unlisted.setdefault(at, set(there)).difference_update(listed.values())
    missing = [n for n in listed.values() if not (n in there if "/" not in n else (root / at / n).is_file())]
    if missing:
        left_out.append(BadFile(table.file.as_posix(), named("image", f"missing from {at.as_posix()}", missing)))
    gone = set(missing)
    folder = at.name if at.is_absolute() else at.as_posix().strip(".")
    return [_Image(id_, name, sizes[id_], at / name) for id_, name in listed.items() if name not in gone], folder


def _image_folder(root: Path, table: _Table, names: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder of the images of ``table``, and the folders that were looked into."""
    beside = table.file.parent
    likely = [table.part, f"images/{table.part}", "images", "."]
    if table.file.name == _EXPORTED:
        likely = [".", "images"]
        candidates = [beside / place for place in likely]
    else:
        candidates = [Path(place) for place in likely if place]
        candidates += [Path(name) for name in folders(root) if name != _ANNOTATIONS]
        if beside == Path():  # the folder of the JSON files alone was given
            candidates += [root.resolve().parent / place for place in likely if place]
    known = set(names)
    distinct = list(dict.fromkeys(candidates))
    for at in distinct:
        if any((root / at / name).is_file() for name in names[:3]) or any(e.name in known for e in entries(root / at)):
            return at, []
    return None, [at.as_posix() for at in distinct]


def _instances(
    root: Path, table: _Table, images: Sequence[_Image], first: int, say: Report, left_out: list[BadFile]
) -> dict[int, tuple[LabelSource, frozenset[int]]]:
    """The masks of each image that has any, by its id."""
    masks: dict[int, list[tuple[int, Any]]] = {image.id: [] for image in images}
    listed = {entry.number("id") for entry in table.fields.objects("images")}
    boxes: list[str] = []
    for entry in _usable(table, listed, say, left_out):
        mask = entry.get("segmentation")
        if not mask:
            boxes.append(str(entry.get("id")))
        elif entry.number("image_id") in masks:
            masks[entry.number("image_id")].append((entry.number("category_id") + first, mask))
    if boxes and not any(masks.values()):
        raise BadFile(table.file.as_posix(), f"none of its {len(boxes):,} annotations has a mask: they are boxes alone")
    if boxes:
        left_out.append(BadFile(table.file.as_posix(), named("annotation", "without a mask", boxes)))
    return {
        image.id: (
            Instances.packed(image.file.as_posix(), image.size, masks[image.id]),
            frozenset(number for number, _ in masks[image.id]),
        )
        for image in images
        if masks[image.id]
    }


def _usable(table: _Table, listed: set[int], say: Report, left_out: list[BadFile]) -> Iterator[Fields]:
    """The annotations of instances whose image and category the table lists; the others are told."""
    faults: list[str] = []
    unlisted: list[str] = []
    for row, entry in enumerate(table.fields.objects("annotations")):
        try:
            image, category = entry.number("image_id"), entry.number("category_id")
        except BadFile as fault:
            faults.append(fault.what)
            continue
        if image not in listed:
            unlisted.append(str(image))
        elif category not in table.categories:
            faults.append(f"entry {row} is of category {category}, which is not listed")
        else:
            yield entry
    if faults:
        say(BadFile(table.file.as_posix(), named("annotation", "without use", faults)))
    if unlisted:  # as where somebody kept a part of the images
        left_out.append(BadFile(table.file.as_posix(), named("annotation", "of images that are not listed", unlisted)))


def _panoptic_maps(
    root: Path, table: _Table, images: Sequence[_Image], first: int, say: Report, left_out: list[BadFile]
) -> dict[int, tuple[LabelSource, frozenset[int]]]:
    """The panoptic map of each image that has one, by its id."""
    file = table.file.as_posix()
    at = table.file.with_suffix("")
    two = at.with_name(at.name + _TWO_CHANNELS)
    two_channels = not (root / at).is_dir() and (root / two).is_dir()
    maps = set(files(root / (two if two_channels else at), (".png",)))
    if not maps:
        hint = f"Unpack {at.name}.zip there: it is in the archive of the JSON file"
        raise BadFile(file, f"the folder {at.as_posix()} beside it, with the panoptic maps, is missing or empty", hint)
    names = {image.id: image.name for image in images}
    concepts = np.full(256, -1, np.int32)
    concepts[0] = 0
    for id_ in table.categories:
        if 0 < id_ < 256:
            concepts[id_] = id_ + first
    sources: dict[int, tuple[LabelSource, frozenset[int]]] = {}
    missing: list[str] = []
    for entry in table.fields.objects("annotations"):
        image, map_name = entry.number("image_id"), entry.text("file_name")
        if image not in names:
            continue  # of an image that is not there, which has been told
        if map_name not in maps:
            missing.append(map_name)
        elif two_channels:
            _, numbers = _segments(entry, table, first)
            sources[image] = TwoChannelMap(two / map_name, concepts, file), frozenset(numbers.tolist()) - {0}
        else:
            segments, numbers = _segments(entry, table, first)
            sources[image] = PanopticMap(at / map_name, segments, numbers, file), frozenset(numbers.tolist()) - {0}
    if not sources:
        raise BadFile(file, f"none of its images has a panoptic map in {at.as_posix()}")
    without = [name for id_, name in names.items() if id_ not in sources]
    if without:
        left_out.append(BadFile(file, named("image", "without a panoptic map", without)))
    if missing:
        left_out.append(BadFile(file, named("panoptic map", f"missing from {at.as_posix()}", missing)))
    return sources


def _segments(entry: Fields, table: _Table, first: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
    """The segments of one image, rising, with 0; and their concepts."""
    concept_of = {0: 0}
    for segment in entry.objects("segments_info"):
        id_, category = segment.number("id"), segment.number("category_id")
        if category not in table.categories:
            raise BadFile(entry.file, f"{entry.where}: segment {id_} is of category {category}, which is not listed")
        if not 0 < id_ < 1 << 24:
            raise BadFile(entry.file, f"{entry.where}: {id_} is no number of a segment, from 1 to {(1 << 24) - 1:,}")
        concept_of[id_] = category + first
    rising = sorted(concept_of)
    return np.array(rising, np.uint32), np.array([concept_of[id_] for id_ in rising], np.uint16)


def _files(root: Path, *, panoptic: bool) -> list[Path]:
    """The JSON files of the kind, relative to ``root``."""
    paths = [file for file in _all_json(root) if _is_panoptic(file.name) == panoptic and _is_table(file.name)]
    if not panoptic:
        paths += [Path(f, _EXPORTED) for f in (".", *_EXPORTED_FOLDERS) if (root / f / _EXPORTED).is_file()]
    return paths


def _all_json(root: Path) -> list[Path]:
    """Every JSON file of ``annotations/`` and of ``root``, relative to it."""
    places = (Path(_ANNOTATIONS), Path())
    names = {folder: sorted(e.name for e in entries(root / folder) if e.name.endswith(".json")) for folder in places}
    return [folder / name for folder in places for name in names[folder]]


def _is_table(name: str) -> bool:
    kind = name.startswith(("instances", "panoptic"))
    return (kind or name.endswith(_CONVERTED)) and not name.endswith(_NO_TABLE)


def _is_panoptic(name: str) -> bool:
    return name.startswith("panoptic") and not name.endswith(_CONVERTED)
