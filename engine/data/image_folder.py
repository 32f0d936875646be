"""Images sorted into a folder a class, as torchvision's ImageFolder reads them: each class labels all of its images.

The folders of the classes lie side by side, or below ``train/``, ``val/`` and the like.
"""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.data.image_files import IMAGE_ENDINGS, entries, files, folders, is_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.in_place import Contents, concept_table, named, opened, refuse
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Report

#: The category of the concepts: what an image shows as a whole, be it a scene, an animal or a tool.
CATEGORY = "class"

_MOST_CLASSES = 60_000
# So many folders are looked into before a folder is taken for one of classes.
_TRIED = 8
#: Folders that other formats have side by side: these are no classes.
_NO_CLASSES = frozenset(
    ("images", "image", "masks", "mask", "annotations", "annotation", "labels", "label", "imgs", "img", "img_dir",
     "ann_dir", "jpegimages", "segmentationclass", "segmentationobject", "leftimg8bit", "gtfine", "gtcoarse",
     "imagesets")
)  # fmt: skip


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds two or more folders of images, or splits that do; a look at the first few of each."""
    below = _subfolders(folder)
    if below is None:
        return False
    # A train among other things is a class.
    if below and all(split_called(name) for name in below):
        return any(_are_classes(folder / name) for name in below)
    return _are_classes(folder)


def open_image_folder(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of it, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


def read_contents(root: Path, say: Report) -> Contents:
    """A concept for each class, in the order of their names, and the images of all classes."""
    below, called = folders(root, None), root.resolve().name
    splits = {name: split for name in below if (split := split_called(name))}
    parts = splits if splits and len(splits) == len(below) else {"": None}
    images = {
        (part, name): files(root / part / name, IMAGE_ENDINGS) for part in parts for name in folders(root / part, None)
    }
    classes = sorted({name for _, name in images})
    if len(classes) > _MOST_CLASSES:
        say(BadFile(called, f"{len(classes):,} folders of classes, at most {_MOST_CLASSES:,} are read"))
        classes = []
    number_of = {name: number for number, name in enumerate(classes, 1)}
    records = tuple(
        ImageRecord(file.as_posix(), file, parts[part] or split_by_name(file.as_posix()), labels=(number_of[name],))
        for (part, name), names in images.items()
        if name in number_of
        for file in (Path(part, name, image) for image in names)
    )
    if not records:
        say(BadFile(called, "no folder of a class holds an image"))
    empty = [f"{part}/{name}".strip("/") for (part, name), names in images.items() if not names]
    left_out = (BadFile(called, named("class folder", "without an image", empty)),) if records and empty else ()
    return Contents(concept_table({n: (name, CATEGORY) for name, n in number_of.items()}), records, (), left_out)


def _are_classes(folder: Path) -> bool:
    """Whether the first few folders of ``folder``, two or more of them, hold images."""
    below = _subfolders(folder)
    if below is None or len(below) < 2:
        return False
    looked_at = [entries(folder / name) for name in below[:_TRIED]]
    with_images = [any(e.name.lower().endswith(IMAGE_ENDINGS) for e in inside) for inside in looked_at if inside]
    return len(with_images) > 1 and all(with_images)


def _subfolders(folder: Path) -> list[str] | None:
    """The names of the folders among the first entries of ``folder``; None where it holds other things than classes."""
    inside = entries(folder)
    names = sorted(entry.name for entry in inside if is_folder(entry))
    loose = any(entry.name.lower().endswith((*IMAGE_ENDINGS, ".csv", ".json", ".arrow")) for entry in inside)
    return None if loose or any(name.lower() in _NO_CLASSES for name in names) else names
