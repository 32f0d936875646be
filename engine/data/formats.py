"""The formats in which a labelled data set may lie on disk, and the one way to open a data set of any of them.

A format is a class with the methods of :class:`ndissect.engine.data.dataset.FolderDataset` and an entry in FORMATS.
Runs, ``nd data info``, ``nd data check`` and ``nd data pack`` then work with it: none of them knows a format by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.dataset import ConceptDataset, FolderDataset
from ndissect.engine.data.names import DOWNLOADS
from ndissect.engine.data.packed import Note, find_pack
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


def _holds_one(signs: tuple[str, ...], folder: Path) -> bool:
    return any((folder / sign).exists() for sign in signs)


#: Every format that is known. A folder is opened by the first that owns it.
FORMATS = (
    DataFormat("broden", "Broden", "index.csv, label.csv and images/", partial(_holds_one, BRODEN_SIGNS), Broden),
)


def open_dataset(folder: Path, note: Note | None = None, max_pixels: int | None = None) -> ConceptDataset:
    """The data set in ``folder``, by its pack where there is one; ``note`` is told why a pack is of no use.

    Its tables are read and checked, and no image is opened yet. NDError where the folder is no data set, or names the
    table, row and column of what is wrong.
    """
    dataset = open_folder(folder, max_pixels=max_pixels)
    pack = find_pack(dataset, note)
    return dataset if pack is None else pack


def open_folder(folder: Path, report: Report | None = None, max_pixels: int | None = None) -> FolderDataset:
    """The data set in ``folder`` as its own files have it, packed or not; otherwise as :func:`open_dataset`.

    ``report`` receives every fault of the tables and the reading goes on; without it the first fault is raised.
    """
    if not folder.is_dir():
        raise NDError(f"There is no folder {folder}", "Pass the folder of a data set")
    data_format = _format_of(folder)
    if data_format is None:
        raise _not_a_dataset(folder)
    return data_format.open(folder, report, max_pixels)


def find_dataset(text: str) -> Path:
    """The folder of a data set: ``text`` itself where it is a folder, else the downloaded data set of that name.

    WrongUse where there is neither.
    """
    path = Path(text).expanduser()
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return path
    if os.path.exists(path):  # noqa: PTH110
        archive = path.suffix.lower() == ".zip"
        tables = ", or ".join(f.holds for f in FORMATS)
        hint = "Unpack it and pass the folder" if archive else f"Pass the folder that holds {tables}"
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
    hint = f"Pass a folder in {_names()} format, or fetch one with `nd data download {DOWNLOADS[0]}`"
    raise WrongUse(f"There is no folder {text}", hint)


def is_dataset(folder: Path) -> bool:
    """Whether ``folder`` is a labelled data set of a format that is known."""
    return folder.is_dir() and _format_of(folder) is not None


def _format_of(folder: Path) -> DataFormat | None:
    return next((data_format for data_format in FORMATS if data_format.owns(folder)), None)


def _not_a_dataset(folder: Path) -> NDError:
    """The error for a folder of no known format, with a guess at what was meant."""
    inside = [path for path in sorted(folder.iterdir()) if os.path.isdir(path) and _format_of(path)]  # noqa: PTH112
    contents = ", or ".join(f.holds for f in FORMATS)
    hint = f"Did you mean {inside[0]}?" if inside else f"Pass the folder that holds {contents}"
    return NDError(
        f"{folder} is not a data set in {_names()} format: it holds neither {' nor '.join(BRODEN_SIGNS)}", hint
    )


def _names() -> str:
    return " or ".join(f"{f.name}'s" for f in FORMATS)
