"""PASCAL VOC (Everingham et al., IJCV 2010), its semantic segmentation, and what labelme exports in the same form.

``SegmentationClass/`` holds a PNG with a palette for those images of ``JPEGImages/`` that are labelled: 1 to 20 are
classes, 0 is everything else, which is no concept, and 255 is a border that nobody decided on. ``class_names.txt``, as
labelme writes it, names other classes.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ndissect.engine.data.image_files import IMAGE_ENDINGS, files
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.in_place import Contents, concept_table, opened, paired, read_text, refuse
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.label_maps import Colour, MapFile, map_values
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.tables import Report

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_IMAGES, _LISTS, _NAMES = "JPEGImages", "ImageSets/Segmentation", "class_names.txt"
_MAPS = ("SegmentationClass", "SegmentationClassPNG")
_VOID = 255


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds images and segmentations of PASCAL VOC."""
    return (folder / _IMAGES).is_dir() and any((folder / maps).is_dir() for maps in _MAPS)


def open_voc(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of its tables, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


def read_contents(root: Path, say: Report) -> Contents:
    """The classes, and the images that have a segmentation: most of JPEGImages has none, which is no fault."""
    names, table = _read_names(root, say)
    maps_at = next((at for at in _MAPS if files(root / at, (".png",))), _MAPS[0])
    images, maps = files(root / _IMAGES, IMAGE_ENDINGS), files(root / maps_at, (".png",))
    lists, listed = read_splits(root, _LISTS, say)
    left_out: list[BadFile] = []
    pairs = paired(images, maps, (_IMAGES, maps_at), say, left_out)
    # Most of VOC's images are for other tasks: that they have no label map is as it should be.
    left_out = [fault for fault in left_out if fault.file != _IMAGES]
    source = _NAMES if table else "the 20 classes of PASCAL VOC"
    numbers = {n: n for n in names}
    colours = {palette_colour(n): n for n in numbers} | {palette_colour(n): 0 for n in (0, _VOID)}
    values = map_values(source, numbers, (0, _VOID), colours)
    records = tuple(
        ImageRecord(
            image,
            Path(_IMAGES, image),
            lists.get(PurePosixPath(image).stem) or split_by_name(image),
            (MapFile(Path(maps_at, label_map), values),),
        )
        for image, label_map in pairs
    )
    concepts = concept_table({n: (name, "object") for n, name in names.items()})
    return Contents(concepts, records, (table, *listed), tuple(left_out))


def palette_colour(number: int) -> Colour:
    """The colour of class ``number`` in the palette of PASCAL VOC, by which maps that became colours are read.

    Its bits go in turn to red, green and blue, the first to the highest bits.
    """
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return colour[0], colour[1], colour[2]


def read_splits(root: Path, folder: str, say: Report) -> tuple[dict[str, str], list[bytes]]:
    """The split of each image that ``train.txt`` or ``val.txt`` lists, by its stem, and the bytes of these files."""
    splits: dict[str, str] = {}
    tables = []
    for split in ("train", "val"):
        if (root / folder / f"{split}.txt").exists():
            text, data = read_text(root, f"{folder}/{split}.txt", say)
            splits |= {cells[0]: split for line in text.splitlines() if (cells := line.split())}
            tables.append(data)
    return splits, tables


def _read_names(root: Path, say: Report) -> tuple[dict[int, str], bytes]:
    """The name of each number, and the bytes of the table, empty where the classes are VOC's own."""
    if not (root / _NAMES).exists():
        return dict(enumerate(CLASSES, 1)), b""
    text, data = read_text(root, _NAMES, say)
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip() != "__ignore__"]
    if len(lines) < 2 or len(lines) > _VOID:
        say(BadFile(_NAMES, f"{len(lines)} lines: it names the background and 1 to {_VOID - 1} classes, one a line"))
    return dict(enumerate(lines[1:_VOID], 1)), data
