"""The full ADE20K (Zhou et al., IJCV 2019) in its release of 2021: objects and, on several levels, their parts.

Beside ``NAME.jpg`` lie ``NAME_seg.png``, ``NAME_parts_1.png`` and so on, whose pixels spell the class of an object or
of a part, and ``NAME.json``, which names the classes and the scene. The pickled index of the release is not read: a
pickle can run any program.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.image_files import folders, is_folder
from ndissect.engine.data.images import BadFile, decode_label_pixels, read_file
from ndissect.engine.data.in_place import Contents, concept_table, first_names, named, opened, refuse, scene_numbers
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.json_fields import parse_json
from ndissect.engine.data.label_maps import read_map_file
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Report

#: Bytes of the JSON of one image. The authors' have some tens of thousands.
_JSON_BYTES = 32 << 20
_RELEASE = "ADE20K_"
_AT = Path("images", "ADE")
_MOST_FOLDERS_DEEP = 6
_SEG = "_seg.png"
_PARTS = re.compile(r"(.+)_parts_([1-9])\.png")
#: The last word of a scene's path, where it says only from where the scene is seen.
_VIEWS = frozenset(("indoor", "outdoor", "interior", "exterior"))


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds ADE20K of 2021: ``images/ADE`` with training or validation, or the folder that does."""
    return _base(folder) is not None


def open_ade20k(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of its JSON files, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


@dataclass(frozen=True)
class ClassMaps:
    """The label maps of one image, objects first, then parts level by level: a LabelSource."""

    files: tuple[Path, ...]

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, h, w) uint16 classes: of a pixel (R, G, B) it is 256 (R // 10) + G. B counts instances, unused here."""
        maps: list[npt.NDArray[np.uint16]] = []
        pieces = []
        for file in self.files:
            data, name = read_map_file(root, file, size), file.as_posix()
            pixels = decode_label_pixels(data, name)
            if pixels.ndim != 3:
                raise BadFile(name, "a label map of ADE20K has three colours, this one has numbers")
            if maps and pixels.shape[:2] != maps[0].shape:
                (h, w), (H, W) = pixels.shape[:2], maps[0].shape
                raise BadFile(name, f"the label map is {h} x {w} pixels, that of the objects {H} x {W}")
            classes = pixels[..., 0].astype(np.uint16) // 10 * 256 + pixels[..., 1]
            for other in maps:  # a pixel is of a class once, on whatever levels it is named
                classes[classes == other] = 0
            maps.append(classes)
            pieces.append(data)
        return np.stack(maps), b"".join(pieces)


@dataclass
class _Names:
    """What the JSON files say, image by image."""

    names: dict[int, str] = field(default_factory=dict)
    as_object: Counter[int] = field(default_factory=Counter)
    as_part: Counter[int] = field(default_factory=Counter)

    def add(self, data: bytes, file: str) -> tuple[str, frozenset[int]]:
        """Take the classes that the JSON of an image names; its scene and classes. BadFile where it is no such JSON."""
        numbers = set()
        annotation = parse_json(data, file).object("annotation")
        for entry in annotation.objects("object"):
            number, name = entry.number("name_ndx"), entry.text("name")
            if not 0 < number < 2**16:
                continue  # nobody said what it is
            self.names.setdefault(number, name if name.strip() else f"class {number}")
            level = entry.object("parts").get("part_level")
            numbers.add(number)
            (self.as_part if level else self.as_object)[number] += 1
        return _scene(annotation.get("scene")), frozenset(numbers)

    def category(self, number: int) -> str:
        """``part`` for a class that is more often part of an object than one by itself, else ``object``."""
        return "part" if self.as_part[number] > self.as_object[number] else "object"


def read_contents(root: Path, say: Report) -> Contents:
    """The objects, parts and scenes that the JSON files name, and every image that has label maps and such a file."""
    base, names = _base(root) or Path(), _Names()
    digest = hashlib.blake2b(digest_size=16)
    images: list[tuple[Path, tuple[Path, ...], str]] = []
    without: list[str] = []
    unread: list[str] = []
    left_out: list[BadFile] = []
    held: list[frozenset[int]] = []
    for folder, files in _folders(root, base):
        maps = _maps(files)
        for image in (name for name in files if name.endswith(".jpg")):
            stem = image[: -len(".jpg")]
            if stem not in maps or f"{stem}.json" not in files:
                without.append(image)
                continue
            file = folder / f"{stem}.json"
            try:
                data = read_file(root / file, file.as_posix(), _JSON_BYTES)
                scene, classes = names.add(data, file.as_posix())
            except BadFile as fault:
                unread.append(fault.message)
                continue
            digest.update(hashlib.blake2b(data, digest_size=16).digest())
            images.append((folder / image, tuple(folder / name for name in maps[stem]), scene))
            held.append(classes)
    if without:
        left_out.append(BadFile(base.as_posix(), named("image", "without label maps (_seg.png) or its .json", without)))
    if unread:
        left_out.append(BadFile(base.as_posix(), named("image", "with a .json that cannot be used", unread)))
    if not images:
        say(BadFile(base.as_posix(), "no image in it has label maps (_seg.png) and a .json of the same name to go by"))
    numbers = scene_numbers((scene for _, _, scene in images), max(names.names, default=0))
    concepts = {n: (name, names.category(n)) for n, name in first_names(names.names, ",").items()}
    concepts |= {number: (f"{scene}-s", "scene") for scene, number in numbers.items()}
    records = tuple(_record(base, *image, numbers) for image in images)
    with_scenes = tuple(numbers_of | {*record.labels} for numbers_of, record in zip(held, records, strict=True))
    return Contents(concept_table(concepts), records, (digest.digest(),), tuple(left_out), with_scenes)


def _record(base: Path, file: Path, maps: tuple[Path, ...], scene: str, numbers: dict[str, int]) -> ImageRecord:
    name = file.relative_to(base).as_posix()
    split = split_called(name.partition("/")[0]) or split_by_name(name)
    labels = (numbers[scene],) if scene in numbers else ()
    return ImageRecord(name, file, split, (ClassMaps(maps),), labels)


def _base(root: Path) -> Path | None:
    """The folder below ``root`` that holds training/ and validation/, relative to it; None where there is none."""
    releases = [name for name in folders(root) if name.startswith(_RELEASE)]
    candidates = [_AT, *(Path(release) / _AT for release in releases)]
    parts = ("training", "validation")
    return next((at for at in candidates if any((root / at / part).is_dir() for part in parts)), None)


def _folders(root: Path, folder: Path, depth: int = 0) -> Iterator[tuple[Path, dict[str, None]]]:
    """Each folder below ``folder``, relative to ``root``, with the names of its files, sorted.

    The folders of instance masks, one for each image and called as it is, are not looked into.
    """
    try:
        with os.scandir(root / folder) as listed:
            entries = sorted((entry.name, is_folder(entry)) for entry in listed if not entry.name.startswith("."))
    except OSError:
        return
    files = {name: None for name, deeper in entries if not deeper}
    yield folder, files
    for name, deeper in entries if depth < _MOST_FOLDERS_DEEP else ():
        if deeper and f"{name}.jpg" not in files:
            yield from _folders(root, folder / name, depth + 1)


def _maps(files: Iterable[str]) -> dict[str, list[str]]:
    """The label maps of each image of a folder, by its stem: objects, then parts level by level."""
    maps = {name[: -len(_SEG)]: [name] for name in files if name.endswith(_SEG)}
    for name in files:
        if (match := _PARTS.fullmatch(name)) and match[1] in maps:
            maps[match[1]].append(name)
    return maps


def _scene(path: Any) -> str:
    """The name of the scene ``["outdoor", "urban", "street"]``: its last word, with the one before where need be."""
    path = [path] if isinstance(path, str) else path
    words = [word.strip("/ ") for word in path if isinstance(word, str)] if isinstance(path, list) else []
    words = [word for word in words if word]
    if len(words) > 1 and words[-1] in _VIEWS:
        return f"{words[-2]} {words[-1]}"
    return words[-1] if words else ""
