"""Images that say which class they are of: a folder a class, a table, or a data set's labels of whole images."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndissect.engine.data import image_folder
from ndissect.engine.data.dataset import ConceptDataset, image_labels
from ndissect.engine.data.formats import FORMATS
from ndissect.engine.data.image_files import IMAGE_ENDINGS
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.in_place import TEXT_BYTES, Contents, inside, opened
from ndissect.engine.data.labelled_files import ImageRecord
from ndissect.engine.data.photographs import holds_photographs, open_photographs
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Table, parse_table, quoted
from ndissect.engine.data.without_labels import NO_CONCEPTS, WithoutLabels
from ndissect.store.class_matching import ClassMatching, plain_class
from ndissect.store.errors import NDError, WrongUse

_WRITTEN = "--images takes a folder with a folder of images for each class, or a CSV file image,class[,split]"
# Names of one side that a message shows.
_SHOWN = 5
# Names that are compared with those of classes where none is one, and how alike a misspelt one is (of 1).
_COMPARED, _ALIKE = 200, 0.7


@dataclass(frozen=True)
class ClassImages:
    """N images and what they say of their classes.

    ``dataset``: the images alone. ``names``: what they call classes, none where they say nothing of them; ``labels``:
    rows of ``names``, for each image; ``split``: whether each is of ``train`` or ``val`` is said by whoever sorted
    them. ``said_by``: what says the classes, in words: ``the folders of DIR``. ``given``: a person named these images
    for their classes, so that to find none is a mistake.
    """

    dataset: WithoutLabels
    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    split: bool
    said_by: str
    given: bool = True

    def __len__(self) -> int:
        return len(self.labels)


def open_class_images(path: str | Sequence[str], max_pixels: int | None = None) -> ClassImages:
    """The images at ``path``: a folder, a CSV file, an image file, or several image files.

    WrongUse where there is nothing of the kind; NDError where it cannot be read.
    """
    paths = [Path(one).expanduser() for one in ([path] if isinstance(path, str) else path)]
    missing = next((p for p in paths if not os.path.exists(p)), None)  # noqa: PTH110 - Path.exists raises where a name is too long
    if missing is not None:
        raise WrongUse(f"there is no file or folder {missing}", _WRITTEN)
    first = paths[0]
    if len(paths) == 1 and first.is_dir():
        return _of_folder(first, max_pixels)
    if len(paths) == 1 and first.suffix.lower() in (".csv", ".tsv"):
        return _of_table(first, max_pixels)
    odd = next((p for p in paths if not p.name.lower().endswith(IMAGE_ENDINGS)), None)
    if odd is not None:
        raise WrongUse(
            f"{odd} is no image",
            f"the names of images end in {', '.join(IMAGE_ENDINGS)}" if len(paths) > 1 else _WRITTEN,
        )
    records = tuple(ImageRecord(str(given), p.absolute(), "val") for given, p in zip(_each(path), paths, strict=True))
    dataset = WithoutLabels(opened(first.absolute().parent, Contents(NO_CONCEPTS, records), None, max_pixels))
    return ClassImages(dataset, (), ((),) * len(records), split=False, said_by=str(first))


def _each(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path


def labels_of_data(dataset: ConceptDataset) -> ClassImages:
    """The images of ``dataset``, whose image-level labels may be classes; its label maps are not read."""
    rows = {number: row for row, number in enumerate(dataset.concepts.number.tolist())}
    labels: list[tuple[int, ...]] = []
    for index in range(len(dataset)):
        numbers: tuple[int, ...] = ()
        with contextlib.suppress(NDError):  # an image whose labels are damaged has none; the run tells of its file
            numbers = image_labels(dataset, index)
        labels.append(tuple(rows[n] for n in numbers if n in rows))
    used = sorted({row for some in labels for row in some})
    place = {row: n for n, row in enumerate(used)}
    return ClassImages(
        WithoutLabels(dataset),
        tuple(dataset.concepts.name[row] for row in used),
        tuple(tuple(place[row] for row in some) for some in labels),
        split=True,
        said_by=f"the labels of {dataset.name}",
        given=False,
    )


@dataclass(frozen=True)
class Truth:
    """The class of each image: ``number`` (N,) int64, -1 for none; ``notes``: what a reader should know of it."""

    number: npt.NDArray[np.int64]
    notes: tuple[str, ...]


def match_images(images: ClassImages, matching: ClassMatching, *, must: bool = True) -> Truth | None:
    """Which class each image is of, by what they are called; None where the images say nothing of classes.

    An image with labels of two classes has none. Labels of concept data that name a single class say nothing: there is
    no other class to tell it from. WrongUse where nothing that ``images`` name is a class, though they were given for
    that, if it ``must`` be.
    """
    found = [matching.numbers(name) for name in images.names]
    if not any(found):
        if must and images.given and images.names:
            raise _no_match(images, matching)
        return None
    alike = next((name for name, some in zip(images.names, found, strict=True) if len(some) > 1), None)
    if alike is not None and images.given:
        numbers = ", ".join(map(str, matching.numbers(alike)[:8]))
        raise WrongUse(
            f"{images.said_by} name {alike!r}, and {len(matching.numbers(alike))} classes are called so",
            f"call it by its number, one of {numbers}",
        )
    number_of = [some[0] if len(some) == 1 else -1 for some in found]
    number = np.full(len(images), -1, np.int64)
    for n, rows in enumerate(images.labels):
        classes = {number_of[row] for row in rows} - {-1}
        if len(classes) == 1:
            number[n] = classes.pop()
    if not images.given and len(set(number[number >= 0].tolist())) < 2:
        return None
    unknown = [name for name, k in zip(images.names, number_of, strict=True) if k < 0]
    return Truth(number, _notes(images, matching.names, number, unknown))


def by_order(images: ClassImages) -> Truth:
    """The class of each image where nothing names the network's: the first folder is class 0, and so on."""
    number = np.array([rows[0] if len(rows) == 1 else -1 for rows in images.labels], np.int64)
    note = f"nothing names the network's outputs: {images.said_by} are taken in their order, {images.names[0]} is 0"
    return Truth(number, (note, *_notes(images, images.names, number, [])))


def _notes(
    images: ClassImages, names: Sequence[str], number: npt.NDArray[np.int64], unknown: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    without = int((number < 0).sum())
    if without:
        what = f": {_listed(unknown)} {'is' if len(unknown) == 1 else 'are'} none" if unknown and images.given else ""
        notes.append(f"{without:,} of {len(images):,} images are of no class of the network, and left out{what}")
    there = set(number.tolist())
    missing = [name for k, name in enumerate(names) if k not in there]
    if missing:
        which = f": {_listed(missing)}" if len(missing) <= 3 * _SHOWN else ""
        notes.append(f"{len(missing):,} of {len(names):,} classes have no image{which}")
    return tuple(notes)


def _no_match(images: ClassImages, matching: ClassMatching) -> WrongUse:
    theirs, own = images.names, list(matching.names)
    near = {name: close for name in theirs[:_COMPARED] if (close := _nearest(name, own))}
    hint = "; ".join(f"is {name} {other}?" for name, other in list(near.items())[:3])
    return WrongUse(
        f"{images.said_by} are no classes of the network: they are {_listed(theirs)}; its own are {_listed(own)}",
        f"{hint}{' ' if hint else ''}--classes FILE names its outputs, or call folders by their numbers, from 0",
    )


def _nearest(name: str, classes: Sequence[str]) -> str:
    """The class that is called almost as ``name``, or ""."""
    plain = {plain_class(one): one for one in classes}
    close = difflib.get_close_matches(plain_class(name), list(plain), 1, _ALIKE)
    return plain[close[0]] if close else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _of_folder(root: Path, max_pixels: int | None) -> ClassImages:
    faults: list[BadFile] = []
    contents = image_folder.read_contents(root, faults.append)
    if not contents.records:
        if holds_photographs(root):
            photographs = WithoutLabels(open_photographs(root, max_pixels))
            return ClassImages(photographs, (), ((),) * len(photographs), split=False, said_by=f"the files of {root}")
        known = next((f.name for f in FORMATS if f.key != "image-folder" and f.owns(root)), None)
        if known is not None:
            raise WrongUse(f"{root} is a data set of the format {known}", f"name it with --data; {_WRITTEN}")
        raise WrongUse(f"{root} holds no folder with images", _WRITTEN)
    names = contents.concepts.name
    labels = tuple(tuple(n - 1 for n in record.labels) for record in contents.records)
    split = all(len(record.file.parts) == 3 for record in contents.records)  # below train/ and val/
    plain = replace(contents, concepts=NO_CONCEPTS, records=tuple(replace(r, labels=()) for r in contents.records))
    return ClassImages(
        WithoutLabels(opened(root, plain, None, max_pixels)), names, labels, split, f"the folders of {root}"
    )


def _of_table(path: Path, max_pixels: int | None) -> ClassImages:
    """The images of a table. It is nobody's we know: its paths stay below its own folder, as in data sets."""
    faults: list[BadFile] = []
    try:
        data = read_file(path, path.name, TEXT_BYTES)
    except BadFile as fault:
        raise NDError(fault.message, _WRITTEN) from fault
    table = parse_table(path.name, data, ("image", "class"), faults.append)
    rows = _rows(table, faults.append)
    if faults:
        more = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
        raise WrongUse(f"{faults[0].message}{more}", "a header image,class[,split], then a row an image")
    if not rows:
        raise WrongUse(f"{path} lists no image", "a header image,class[,split], then a row an image")
    names = tuple(sorted({name for _, name in rows if name}))
    number = {name: (row,) for row, name in enumerate(names)}
    contents = Contents(NO_CONCEPTS, tuple(record for record, _ in rows), (data,))
    return ClassImages(
        WithoutLabels(opened(path.parent, contents, None, max_pixels)),
        names,
        tuple(number.get(name, ()) for _, name in rows),
        "split" in table.columns,
        f"the classes of {path.name}",
    )


def _rows(table: Table, report: Callable[[BadFile], None]) -> list[tuple[ImageRecord, str]]:
    """Each image of ``table`` and what its class is called, "" for none."""
    rows: list[tuple[ImageRecord, str]] = []
    seen: dict[str, int] = {}
    for line, row in table.rows:
        file, name, word = (table.cell(row, column) for column in ("image", "class", "split"))
        split = split_called(word) if word else "train"
        if not inside(file):
            what = (
                f"{quoted(file)} leads out of the folder of the table: paths are relative to it" if file else "no image"
            )
            report(table.fault(line, "image", what))
        elif file in seen:
            report(table.fault(line, "image", f"{quoted(file)} is already in row {seen[file]}"))
        elif split is None or ("split" in table.columns and not word):
            report(table.fault(line, "split", f"{quoted(word)} is neither train nor val"))
        else:
            seen[file] = line
            rows.append((ImageRecord(file, Path(file), split), name))
    return rows
