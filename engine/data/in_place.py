"""What the formats share that are read in place: lists of files, JSON, tables of concepts, images paired with maps.

The folders are not ours: names in their files stay inside them, sizes are looked at before anything is read, and
nothing is written.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

import numpy as np

from ndissect.engine.data.dataset import Figures
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.splits import split_called
from ndissect.engine.data.tables import Report
from ndissect.store.concepts import ConceptTable, report_order

#: Bytes of a text file that lists names or images: a path of 100 bytes for each of a million images.
TEXT_BYTES = 100 << 20

Files = TypeVar("Files", bound=LabelledFiles)

_SHOWN = 5
_CHECK = "`nd data check` lists everything that is wrong with a data set"
_NO_LETTERS = re.compile(r"[^A-Za-z]+")
# What data sets call their scenes that are none.
_NO_SCENE = frozenset(("", "misc"))


@dataclass(frozen=True)
class Contents:
    """What a folder holds: its concepts and images.

    ``held``: the concepts of each image, by the tables; None where tables list no more than labels of whole images;
    ``tables``: the bytes of the files that say so, or digests of them; ``left_out``: what a folder has that is no part
    of the data set, which stops no run: a run tells it, and ``nd data check`` lists it as a fault.
    """

    concepts: ConceptTable
    records: tuple[ImageRecord, ...]
    tables: tuple[bytes, ...] = ()
    left_out: tuple[BadFile, ...] = ()
    held: tuple[frozenset[int], ...] | None = None


def opened(root: Path, contents: Contents, report: Report | None, max_pixels: int | None) -> LabelledFiles:
    """The data set of ``contents``, as :func:`in_data_set` makes it."""
    return in_data_set(LabelledFiles, root, contents, report, max_pixels)


def in_data_set(
    kind: type[Files], root: Path, contents: Contents, report: Report | None, max_pixels: int | None
) -> Files:
    """A data set of ``kind`` of ``contents``, called after its folder; its digest is of the tables and the images.

    What was left out is told to ``report``, and stands in the data set's notes where there is none.
    """
    if report:
        for fault in contents.left_out:
            report(fault)
    digest = hashlib.blake2b(digest_size=16)
    images = "\0".join(f"{record.name}\0{record.split}\0{record.labels}" for record in contents.records)
    for data in (*contents.tables, images.encode("utf-8", "surrogateescape")):
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return kind(
        root,
        root.resolve().name,
        contents.concepts,
        contents.records,
        digest=digest.hexdigest(),
        figures=_figures(contents),
        notes=() if report else [str(fault) for fault in contents.left_out],
        max_pixels=max_pixels,
    )


def _figures(contents: Contents) -> Figures:
    """How many images hold each concept and each category, by the tables; nothing is decoded.

    Where the tables say nothing of a category, its images are those that have label maps.
    """
    concepts, records = contents.concepts, contents.records
    held = contents.held or [frozenset(record.labels) for record in records]
    category_of = dict(zip(concepts.number.tolist(), concepts.category.tolist(), strict=True))
    count = Counter(number for numbers in held for number in numbers)
    by_category = Counter(category for numbers in held for category in {category_of[n] for n in numbers})
    labelled = Counter(number for record in records for number in record.labels)
    known = [contents.held is not None or category in by_category for category in concepts.category.tolist()]
    images = [count[n] if known[row] else -1 for row, n in enumerate(concepts.number.tolist())]
    # A label of a whole image covers it; how much of it a map covers is in no table.
    coverage = [
        float(labelled[n]) if labelled[n] == count[n] and known[row] else np.nan
        for row, n in enumerate(concepts.number.tolist())
    ]
    with_maps = sum(bool(record.sources) for record in records)
    in_category = {
        name: by_category[row] if contents.held is not None or row in by_category else with_maps
        for row, name in enumerate(concepts.categories)
    }
    return Figures(np.array(images, np.int64), np.array(coverage, np.float64), in_category, {})


def refuse(fault: BadFile) -> None:
    """The Report of who wants no faults: raise the first."""
    raise BadFile(fault.file, fault.what, fault.hint or _CHECK)


def inside(path: str) -> bool:
    """Whether the relative path ``path`` of a file stays in its folder, on every system."""
    windows = PureWindowsPath(path)  # understands / and drives as well
    return bool(path) and not (windows.drive or windows.root or ".." in windows.parts or "\\" in path or "\0" in path)


def split_in(text: str) -> str | None:
    """``train`` or ``val`` by the first word of ``text`` that says so, as in ``instances_val2017.json``."""
    return next((split for word in _NO_LETTERS.split(text) if (split := split_called(word))), None)


def read_text(root: Path, file: str, say: Report) -> tuple[str, bytes]:
    """The UTF-8 text of ``file`` below ``root``, and its bytes; empty, once reported, where it cannot be read."""
    try:
        data = read_file(root / file, file, TEXT_BYTES)
        return data.decode("utf-8-sig"), data
    except UnicodeDecodeError as error:
        say(BadFile(file, f"not UTF-8 text ({error.reason})"))
    except BadFile as fault:
        say(fault)
    return "", b""


def named(thing: str, how: str, names: Sequence[str]) -> str:
    """``12 label maps without an image: a, b, c, d, e, ...``, for the word ``label map`` and ``how`` they are."""
    some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} {thing}{'s' * (len(names) != 1)} {how}: {some}"


def paired(
    images: Sequence[str], maps: Sequence[str], at: tuple[str, str], say: Report, left_out: list[BadFile]
) -> list[tuple[str, str]]:
    """(image, map) file names of the same stem, in the order of the images.

    ``at``: the folders of both, as messages call them. Those without a partner go to ``left_out``; ``say`` is told
    where there is no pair at all.
    """
    map_of = {PurePosixPath(name).stem: name for name in maps}
    pairs = [(name, map_of[stem]) for name in images if (stem := PurePosixPath(name).stem) in map_of]
    if not pairs:
        what = f"none of its {len(images):,} images has a label map in {at[1]}, which holds {len(maps):,}"
        say(BadFile(at[0], what if images else "there is no image in it"))
        return []
    used, stems = {name for name, _ in pairs}, {PurePosixPath(name).stem for name in images}
    if alone := [name for name in images if name not in used]:
        left_out.append(BadFile(at[0], named("image", f"without a label map in {at[1]}", alone)))
    if alone := [name for stem, name in map_of.items() if stem not in stems]:
        left_out.append(BadFile(at[1], named("label map", f"without an image in {at[0]}", alone)))
    return pairs


def first_names(names: Mapping[int, str], separator: str) -> dict[int, str]:
    """The first of the synonyms of each number; all of them where two numbers would be called the same."""
    first = {number: text.split(separator)[0].strip() for number, text in names.items()}
    often = Counter(first.values())
    return {n: name if often[name] == 1 else names[n].strip() for n, name in first.items()}


def concept_table(concepts: Mapping[int, tuple[str, str]]) -> ConceptTable:
    """The table of ``concepts``: name and category by number."""
    numbers = sorted(concepts)
    categories = tuple(report_order(tuple({category for _, category in concepts.values()})))
    return ConceptTable(
        np.array(numbers, np.int32),
        tuple(concepts[n][0] for n in numbers),
        np.array([categories.index(concepts[n][1]) for n in numbers], np.int32),
        categories,
    )


def scene_numbers(scenes: Iterable[str], after: int) -> dict[str, int]:
    """A number for each scene, from ``after`` + 1 on in the order of the names; what is no scene has none."""
    return {scene: after + 1 + k for k, scene in enumerate(sorted(set(scenes) - _NO_SCENE))}
