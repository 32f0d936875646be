"""Cityscapes (Cordts et al., CVPR 2016), its fine annotations: ``leftImg8bit/`` and ``gtFine/``.

The label maps hold the ids of the authors' table. Ids 0 to 6 are void: what is no class, such as the car that carries
the camera. The labels of the test cities are not public: their files are void, and these images are left out.
"""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.data.image_files import files, folders
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.in_place import Contents, concept_table, named, opened, refuse
from ndissect.engine.data.label_maps import MapFile, map_values
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.tables import Report

#: The classes by the ids of the label maps, as the authors' scripts list them.
CLASSES = {
    7: "road", 8: "sidewalk", 9: "parking", 10: "rail track", 11: "building", 12: "wall", 13: "fence",
    14: "guard rail", 15: "bridge", 16: "tunnel", 17: "pole", 18: "polegroup", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 29: "caravan", 30: "trailer", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_VOID = range(7)

_IMAGES, _MAPS = "leftImg8bit", "gtFine"
_IMAGE_ENDING, _MAP_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png"
_SPLITS = ("train", "val")


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds Cityscapes: its images and its fine annotations, or one of them."""
    return any((folder / at / split).is_dir() for at in (_IMAGES, _MAPS) for split in _SPLITS)


def open_cityscapes(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of it, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


def read_contents(root: Path, say: Report) -> Contents:
    """The 27 classes, and the images of the training and validation cities that have a label map."""
    values = map_values("the classes of Cityscapes", {n: n for n in CLASSES}, _VOID)
    records: list[ImageRecord] = []
    alone: list[str] = []
    without: list[str] = []
    for split in _SPLITS:
        cities = sorted({*folders(root / _IMAGES / split), *folders(root / _MAPS / split)})
        for at in (Path(split, city) for city in cities):
            maps = {n[: -len(_MAP_ENDING)]: n for n in files(root / _MAPS / at, (_MAP_ENDING.lower(),))}
            for image in files(root / _IMAGES / at, (_IMAGE_ENDING.lower(),)):
                label_map = maps.pop(image[: -len(_IMAGE_ENDING)], None)
                if label_map is None:
                    without.append(image)
                    continue
                source = MapFile(_MAPS / at / label_map, values)
                records.append(ImageRecord((at / image).as_posix(), _IMAGES / at / image, split, (source,)))
            alone += maps.values()
    left_out: list[BadFile] = []
    if not records:
        what = f"none of its {len(without):,} images has a label map in {_MAPS}, which holds {len(alone):,}"
        hint = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpack into one folder"
        say(BadFile(_IMAGES, what, hint))
    elif without:
        left_out.append(BadFile(_IMAGES, named("image", f"without a label map in {_MAPS}", without)))
    if records and alone:
        left_out.append(BadFile(_MAPS, named("label map", f"without an image in {_IMAGES}", alone)))
    concepts = concept_table({n: (name, "object") for n, name in CLASSES.items()})
    return Contents(concepts, tuple(records), (), tuple(left_out))
