"""The formats in which a labelled data set may lie on disk, and the one way to open a data set of any of them.

A format is a function that opens a folder as a :class:`ndissect.engine.data.dataset.FolderDataset`, mostly as
:class:`ndissect.engine.data.labelled_files.LabelledFiles`, and an entry in FORMATS. Runs, ``nd data info``,
``nd data check`` and ``nd data pack`` then work with it: none of them knows a format by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ndissect.engine.data import (
    ade20k,
    cityscapes,
    coco,
    hf_dataset,
    image_folder,
    pascal_part,
    scene_parsing,
    textures,
    voc,
)
from ndissect.engine.data.broden import Broden
from ndissect.engine.data.dataset import ConceptDataset, FolderDataset
from ndissect.engine.data.image_files import entries, folders, is_folder
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.mask_folder import is_mask_folder, open_mask_folder
from ndissect.engine.data.names import DOWNLOADS
from ndissect.engine.data.packed import Note, find_pack
from ndissect.engine.data.photographs import holds_photographs
from ndissect.engine.data.tables import Report
from ndissect.store.errors import NDError, WrongUse, nearest
from ndissect.store.files import cache_folder


class _Open(Protocol):
    def __call__(self, root: Path, report: Report | None = None, max_pixels: int | None = None) -> FolderDataset: ...


@dataclass(frozen=True)
class DataFormat:
    """One format.

    ``key``: as ``--format`` takes it; ``name``: as messages call it; ``holds``: what a folder of this format holds, in
    words; ``owns``: whether a folder is one, which looks at the names of few files. ``open``: reads and checks the
    tables of a folder; ``report`` receives every fault and the reading goes on, without it the first fault is raised;
    an image of more than ``max_pixels`` is not read.
    """

    key: str
    name: str
    holds: str
    owns: Callable[[Path], bool]
    open: _Open


#: The tables of Broden: a folder with one of them is meant to be such a data set.
BRODEN_SIGNS = ("index.csv", "label.csv")

# So many names of a folder are looked at for what was meant, and so deep.
_LOOKED_AT, _DEEP = 200, 3

_OWN = "`nd data init IMAGES MASKS` makes a data set of your own files"
# What a folder holds, at least, that is laid out as SceneParsing-150 but for its table.
_LIKE_MASKS = {"images/", "annotations/"}


def _holds_one(signs: tuple[str, ...], folder: Path) -> bool:
    return any(os.path.lexists(folder / sign) for sign in signs)


#: Every format that is known.
FORMATS = (
    DataFormat("broden", "Broden", "index.csv, label.csv and images/", partial(_holds_one, BRODEN_SIGNS), Broden),
    DataFormat("folder", "folder", "images/ and masks/ with files of the same names", is_mask_folder, open_mask_folder),
    DataFormat(
        "ade150",
        "ADE20K SceneParsing-150",
        "images/, annotations/ and objectInfo150.txt",
        scene_parsing.owns,
        scene_parsing.open_scene_parsing,
    ),
    DataFormat("ade20k", "full ADE20K", "images/ADE/ with _seg.png and .json files", ade20k.owns, ade20k.open_ade20k),
    DataFormat(
        "coco-instances",
        "COCO instances",
        "images and annotations/instances_*.json",
        coco.owns_instances,
        coco.open_instances,
    ),
    DataFormat(
        "coco-panoptic",
        "COCO panoptic",
        "images, annotations/panoptic_*.json and the PNGs beside it",
        coco.owns_panoptic,
        coco.open_panoptic,
    ),
    DataFormat("voc", "PASCAL VOC", "JPEGImages/ and SegmentationClass/", voc.owns, voc.open_voc),
    DataFormat(
        "pascal-part",
        "PASCAL-Part",
        "JPEGImages/ and Annotations_Part/",
        pascal_part.owns,
        pascal_part.open_pascal_part,
    ),
    DataFormat("cityscapes", "Cityscapes", "leftImg8bit/ and gtFine/", cityscapes.owns, cityscapes.open_cityscapes),
    DataFormat("dtd", "Describable Textures", "images/ and labels/train1.txt", textures.owns, textures.open_textures),
    DataFormat(
        "hf",
        "datasets",
        "dataset_dict.json or state.json, as `datasets` saves them",
        hf_dataset.owns,
        hf_dataset.open_hf_dataset,
    ),
    DataFormat(
        "image-folder", "ImageFolder", "a folder of images a class", image_folder.owns, image_folder.open_image_folder
    ),
)


def open_dataset(
    folder: Path,
    note: Note | None = None,
    max_pixels: int | None = None,
    *,
    key: str | None = None,
    grid: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConceptDataset:
    """The data set in ``folder``, by its pack where there is one.

    ``note`` is told what its files have otherwise than they should, and why a pack is of no use. Its tables are read
    and checked, and no image is opened yet but for its size, of which ``progress`` is told (images done, images in
    all). ``key``: of the format, where the folder fits several; ``grid``: on which label maps are wanted, for data sets
    whose maps are of any size. NDError where the folder is no data set, or names the table, row and column of what is
    wrong; WrongUse as :func:`format_of`.
    """
    dataset = open_folder(folder, max_pixels=max_pixels, key=key, note=note)
    if isinstance(dataset, LabelledFiles):
        dataset.read_sizes(progress)
    pack = find_pack(dataset, note)
    if isinstance(dataset, LabelledFiles) and grid not in (None, dataset.grid):
        if pack is not None and note:
            note(f"the pack {pack.folder} is not used: its labels are on a grid of {_by(dataset.grid)}")
        return dataset.on_grid(grid)
    return dataset if pack is None else pack


def open_folder(
    folder: Path,
    report: Report | None = None,
    max_pixels: int | None = None,
    *,
    key: str | None = None,
    note: Note | None = None,
) -> FolderDataset:
    """The data set in ``folder`` as its own files have it, packed or not; otherwise as :func:`open_dataset`.

    ``report`` receives every fault of the tables and the reading goes on; without it the first fault is raised.
    ``note`` is told what the files have otherwise than they should.
    """
    if not folder.is_dir():
        raise NDError(f"There is no folder {folder}", "Pass the folder of a data set")
    dataset = format_of(folder, key).open(folder, report, max_pixels)
    if note:
        for text in dataset.notes:
            note(text)
    return dataset


def format_of(folder: Path, key: str | None = None) -> DataFormat:
    """The format of the data set in ``folder``: that of ``key``, or else the only one that the folder fits.

    WrongUse where there is no format ``key``, and where several fit; NDError, which says what was looked for, where
    none does.
    """
    if key is not None:
        named = next((data_format for data_format in FORMATS if data_format.key == key), None)
        if named is None:
            keys = [data_format.key for data_format in FORMATS]
            raise WrongUse(f"There is no format {key}", f"Use {' or '.join(nearest(key, keys) or keys)}")
        return named
    fitting = _fitting(folder)
    if not fitting:
        raise _not_a_dataset(folder)
    if len(fitting) > 1:
        what = " and ".join(f"{f.name} ({f.holds})" for f in fitting)
        choices = " or ".join(f"--format {f.key}" for f in fitting)
        raise WrongUse(f"{folder} could be a data set of {len(fitting)} formats: {what}", f"Say which: {choices}")
    return fitting[0]


def key_for(folder: Path, key: str | None) -> str | None:
    """``key``, which is given for several data sets, where it can be meant for ``folder``; None where another fits.

    WrongUse where there is no format ``key``.
    """
    return key if key is None or format_of(folder, key).owns(folder) or not is_dataset(folder) else None


def find_dataset(text: str) -> Path:
    """The folder of a data set: ``text`` itself where it is a folder, else the downloaded data set of that name.

    WrongUse where there is neither.
    """
    path = Path(text).expanduser()
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return path
    if os.path.exists(path):  # noqa: PTH110
        archive = _is_archive(path.name)
        hint = "Unpack it and pass the folder" if archive else f"Pass the folder; it holds {_contents()}"
        raise WrongUse(f"{text} is {'an archive' if archive else 'a file'}, a data set is a folder", hint)
    if len(path.parts) == 1 and ".." not in path.parts:
        downloaded = cache_folder() / path
        if os.path.isdir(downloaded):  # noqa: PTH112
            return downloaded
        if text in DOWNLOADS:
            where = f"There is no folder {text} here or in {cache_folder()}"
            raise WrongUse(where, f"Fetch it with `nd data download {text}`, or pass the folder where you have it")
        near = nearest(text, list(DOWNLOADS))
        if near:
            raise WrongUse(f"There is no data set {text}", f"Did you mean {' or '.join(near)}?")
    hint = f"Pass the folder of a data set, or fetch one with `nd data download {DOWNLOADS[0]}`"
    raise WrongUse(f"There is no folder {text}", hint)


def is_dataset(folder: Path) -> bool:
    """Whether ``folder`` is a labelled data set of a format that is known."""
    return folder.is_dir() and bool(_fitting(folder))


def _fitting(folder: Path) -> list[DataFormat]:
    return [data_format for data_format in FORMATS if data_format.owns(folder)]


def _not_a_dataset(folder: Path) -> NDError:
    """The error for a folder of no known format, with a guess at what was meant."""
    names = sorted(entry.name + "/" * is_folder(entry) for entry in entries(folder, _LOOKED_AT))
    more = ", ..." if len(names) > 6 else ""
    what = f"{folder} is not a data set: it holds {', '.join(names[:6]) + more if names else 'nothing'}"
    inside = next((path for path in _folders_in(folder) if _fitting(path)), None)
    archive = next((name for name in names if _is_archive(name)), None)
    if inside is not None:
        return NDError(what, f"Did you mean {inside}?")
    if archive is not None:
        return NDError(what, f"Unpack {archive} and pass the folder")
    if _LIKE_MASKS <= set(names):
        hint = f"--format folder reads the maps in annotations/ as masks; {_OWN}"
        return NDError(what, hint)
    if any(holds_photographs(path) for path in (folder, *_folders_in(folder))):
        hint = f"`nd dissect` labels them: --labeller NETWORK, or --colors; with masks of yours {_OWN}"
        return WrongUse(f"{folder} is not a data set: it holds images without labels that can be read", hint)
    return NDError(what, f"A data set holds {_contents()}; {_OWN}")


def _folders_in(folder: Path) -> Iterator[Path]:
    """The folders below ``folder``, the nearest first, as far as is looked."""
    level = [folder]
    for _ in range(_DEEP):
        level = [up / name for up in level for name in folders(up, _LOOKED_AT)][:_LOOKED_AT]
        yield from level


def _is_archive(name: str) -> bool:
    return name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar"))


def _contents() -> str:
    """What a data set may hold: of formats that people make themselves in words, of the others the names."""
    own = "; or ".join(f"{f.holds} ({f.name})" for f in FORMATS[:2])
    return f"{own}; or is {', '.join(f.name for f in FORMATS[2:])} as it is unpacked"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
