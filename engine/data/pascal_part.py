"""PASCAL-Part (Chen et al., CVPR 2014): the objects of PASCAL VOC 2010 with masks of their parts.

``Annotations_Part/`` holds a MATLAB file an image. Its parts have short names of their own, ``lfleg`` for the left
front leg of an animal: here the leg is one concept, on whatever side and of whatever animal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.coco_masks import layered
from ndissect.engine.data.image_files import IMAGE_ENDINGS, files
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.in_place import Contents, concept_table, opened, paired, refuse
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.mat_file import BadMat, read_mat
from ndissect.engine.data.tables import Report
from ndissect.engine.data.voc import CLASSES, read_splits

_IMAGES, _ANNOTATIONS = "JPEGImages", "Annotations_Part"
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation")
_FILE_BYTES, _UNPACKED_BYTES = 64 << 20, 1 << 29

#: What the parts are called: the authors' short names by the word for them. Where a name ends with a number, as
#: wheel_2, it is left off before.
PARTS = {
    "arm": "llarm luarm rlarm ruarm",
    "back side": "backside hbackside cbackside",
    "beak": "beak",
    "body": "body",
    "cap": "cap",
    "chain wheel": "chainwheel",
    "coach": "coach",
    "door": "door",
    "ear": "lear rear",
    "engine": "engine",
    "eye": "leye reye",
    "eyebrow": "lebrow rebrow",
    "foot": "lfoot rfoot",
    "front side": "frontside hfrontside cfrontside",
    "hair": "hair",
    "hand": "lhand rhand",
    "handlebar": "handlebar",
    "head": "head",
    "headlight": "headlight",
    "hoof": "lfho rfho lbho rbho",
    "horn": "lhorn rhorn",
    "leg": "lleg rleg luleg llleg ruleg rlleg lfleg rfleg lbleg rbleg lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg "
    "rblleg",
    "license plate": "fliplate bliplate",
    "mirror": "leftmirror rightmirror",
    "mouth": "mouth",
    "muzzle": "muzzle",
    "neck": "neck",
    "nose": "nose",
    "paw": "lfpa rfpa lbpa rbpa",
    "plant": "plant",
    "pot": "pot",
    "roof": "roofside hroofside croofside",
    "saddle": "saddle",
    "screen": "screen",
    "side": "leftside rightside hleftside hrightside cleftside crightside",
    "stern": "stern",
    "tail": "tail",
    "torso": "torso",
    "wheel": "wheel fwheel bwheel",
    "window": "window",
    "wing": "lwing rwing",
}
_PART_OF = {short: part for part, names in PARTS.items() for short in names.split()}
_OBJECTS = {name: number for number, name in enumerate(CLASSES, 1)} | {"table": CLASSES.index("diningtable") + 1}
_NUMBERS = {part: number for number, part in enumerate(PARTS, len(CLASSES) + 1)}
_COUNTED = re.compile(r"_[0-9]+$")


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds PASCAL-Part beside the images of PASCAL VOC."""
    return (folder / _ANNOTATIONS).is_dir() and (folder / _IMAGES).is_dir()


def open_pascal_part(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of it, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


@dataclass(frozen=True)
class PartMasks:
    """The MATLAB file of one image: a LabelSource."""

    file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file,)

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, h, w) uint16: maps of the objects, then of their parts; BadFile where it is no such file."""
        name = self.file.as_posix()
        data = read_file(root / self.file, name, _FILE_BYTES)
        try:
            objects, parts = _masks(read_mat(data, _UNPACKED_BYTES))
            shapes = {mask.shape for _, mask in (*objects, *parts)}
            if len(shapes) > 1:
                raise BadMat(f"its masks have {len(shapes)} sizes")
            shape = next(iter(shapes), size)
            return np.concatenate([layered(objects, shape), layered(parts, shape)]), data
        except BadMat as fault:
            raise BadFile(name, str(fault)) from None


def read_contents(root: Path, say: Report) -> Contents:
    """The 20 objects and their parts, and the images that have annotations: most of JPEGImages has some."""
    left_out: list[BadFile] = []
    images, annotations = files(root / _IMAGES, IMAGE_ENDINGS), files(root / _ANNOTATIONS, (".mat",))
    pairs = paired(images, annotations, (_IMAGES, _ANNOTATIONS), say, left_out)
    at = next((folder for folder in _LISTS if (root / folder).is_dir()), _LISTS[0])
    splits, tables = read_splits(root, at, say)
    records = tuple(
        ImageRecord(
            image,
            Path(_IMAGES, image),
            splits.get(PurePosixPath(image).stem) or split_by_name(image),
            (PartMasks(Path(_ANNOTATIONS, annotation)),),
        )
        for image, annotation in pairs
    )
    concepts = {number: (name, "object") for number, name in enumerate(CLASSES, 1)}
    concepts |= {number: (part, "part") for part, number in _NUMBERS.items()}
    # Images without annotations are of other tasks, as in VOC.
    left_out = [fault for fault in left_out if fault.file != _IMAGES]
    return Contents(concept_table(concepts), records, tuple(tables), tuple(left_out))


Masks = list[tuple[int, npt.NDArray[np.bool_]]]


def _masks(variables: dict[str, Any]) -> tuple[Masks, Masks]:
    """The objects and the parts of one image, with their numbers; BadMat where that is not what the file holds."""
    annotation = variables.get("anno")
    if not isinstance(annotation, dict):
        raise BadMat("it has no structure 'anno'")
    objects: Masks = []
    parts: Masks = []
    for entry in _entries(annotation.get("objects")):
        kind = entry.get("class")
        if kind not in _OBJECTS:
            raise BadMat(f"an object of class {kind!r:.40}, which is none of VOC's")
        objects.append((_OBJECTS[kind], _mask(entry)))
        for part in _entries(entry.get("parts")):
            short = _COUNTED.sub("", part["part_name"]) if isinstance(part.get("part_name"), str) else None
            if short not in _PART_OF:
                raise BadMat(f"a part called {part.get('part_name')!r:.40}, which is none of PASCAL-Part's")
            parts.append((_NUMBERS[_PART_OF[short]], _mask(part)))
    return objects, parts


def _entries(value: Any) -> list[dict[str, Any]]:
    """One structure or several as a list; nothing as an empty one."""
    values = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [entry for entry in values if isinstance(entry, dict)]


def _mask(entry: dict[str, Any]) -> npt.NDArray[np.bool_]:
    mask = entry.get("mask")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or not mask.size:
        raise BadMat("an object or a part without its mask")
    inside: npt.NDArray[np.bool_] = mask != 0
    return inside
