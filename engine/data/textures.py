"""The Describable Textures Dataset (Cimpoi et al., CVPR 2014): images of textures, named as people would name them.

``images/`` holds a folder a texture; ``labels/labels_joint_anno.txt`` lists further textures that people saw in an
image; ``labels/train1.txt`` and so on list the first of the authors' ten ways to split the images.
"""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.data.image_files import IMAGE_ENDINGS, files, folders
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.in_place import Contents, concept_table, named, opened, read_text, refuse
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.tables import Report

_IMAGES, _LABELS = "images", "labels"
_JOINT = "labels_joint_anno.txt"
#: Of the split that the authors test with, the labels are as good as of the others.
_LISTS = {"train1.txt": "train", "val1.txt": "val", "test1.txt": "val"}


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds the textures: images in folders, and a list that the authors give with them."""
    listed = any((folder / _LABELS / name).is_file() for name in (_JOINT, *_LISTS))
    return listed and (folder / _IMAGES).is_dir()


def open_textures(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of its lists, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


def read_contents(root: Path, say: Report) -> Contents:
    """The textures in the order of their names, and the images with all textures that people saw in them."""
    tables: list[bytes] = []

    def lines_of(name: str) -> list[list[str]]:
        if not (root / _LABELS / name).exists():
            return []
        text, data = read_text(root, f"{_LABELS}/{name}", say)
        tables.append(data)
        return [cells for line in text.splitlines() if (cells := line.split())]

    splits = {cells[0]: split for name, split in _LISTS.items() for cells in lines_of(name)}
    joint = {cells[0]: cells[1:] for cells in lines_of(_JOINT)}
    images = [f"{f}/{name}" for f in folders(root / _IMAGES) for name in files(root / _IMAGES / f, IMAGE_ENDINGS)]
    if not images:
        say(BadFile(_IMAGES, "no folder of a texture holds an image"))
    seen = {image: {image.partition("/")[0], *joint.get(image, ())} for image in images}
    number_of = {name: n for n, name in enumerate(sorted(set().union(*seen.values())), 1)}
    records = tuple(
        ImageRecord(
            image,
            Path(_IMAGES, image),
            splits.get(image) or split_by_name(image),
            labels=tuple(sorted(number_of[texture] for texture in textures)),
        )
        for image, textures in seen.items()
    )
    missing = sorted({*splits, *joint} - set(images))
    left_out = (BadFile(_LABELS, named("listed image", f"missing from {_IMAGES}", missing)),) if missing else ()
    concepts = concept_table({n: (name, "texture") for name, n in number_of.items()})
    return Contents(concepts, records, tuple(tables), left_out)
