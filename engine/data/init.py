"""Making a data set of one's own images and masks, which stay where they are: ``nd data init``."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ndissect.engine.data.image_files import counted, some
from ndissect.engine.data.images import BadFile, read_file
from ndissect.engine.data.mask_concepts import CATEGORY, VOID, MaskConcepts, by_number, unnamed
from ndissect.engine.data.mask_folder import DESCRIPTION, KIND, NAME_TABLES, VERSION, Place, pair_faults
from ndissect.engine.data.mask_survey import Survey, sizes_in_words
from ndissect.engine.data.name_table import MOST_BYTES, NameRow, read_name_table, written
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, NotReplaced, WrongUse
from ndissect.store.files import own_folder, remedy, replacing
from ndissect.store.names import quoted

NAMES = "labels.csv"


@dataclass(frozen=True)
class Draft:
    """A data set that is to be written: what was seen, the names of ``rows`` as labels.csv will have them, and
    ``explanation``: what a user should know, a line each.
    """

    survey: Survey
    rows: tuple[NameRow, ...]
    explanation: tuple[str, ...]

    @property
    def concepts(self) -> ConceptTable:
        """The concepts that the rows speak of."""
        return MaskConcepts(self.rows, NAMES).concept_table()


@dataclass(frozen=True)
class NameTable:
    """The ``rows`` of a table of names, and its ``path``; None where there is no table."""

    path: Path | None
    rows: tuple[NameRow, ...]

    @property
    def colours_alone(self) -> bool:
        """Whether it names colours and no number."""
        return bool(self.rows) and all(row.number is None for row in self.rows)


def find_names(masks: Path, names: Path | None) -> NameTable:
    """The table in the file ``names``, else one that lies beside ``masks``; NDError says what is wrong with it."""
    beside = (masks.resolve().parent / name for name in NAME_TABLES)
    path = names or next((path for path in beside if path.is_file()), None)
    return NameTable(path, () if path is None else tuple(_read_names(path)))


def draft(seen: Survey, table: NameTable) -> Draft:
    """The data set of what was ``seen``, with the names of ``table``; NDError where no pixel has a label."""
    named = _counted_from_1(table.rows, seen)
    given = by_number(named)
    label = {n for n in seen.numbers if n not in VOID or (n == 255 and seen.black_and_white)}
    new_numbers = sorted(label - given.keys())
    given_colours = {row.colour for row in named}
    new_colours = sorted(colour for colour in seen.colours if any(colour) and colour not in given_colours)
    rows = list(named)
    if named:
        rows += unnamed(new_numbers, [""])
    else:  # the masks of different parts have nothing to do with one another
        for part, numbers in sorted(seen.of_part.items()):
            rows += unnamed(sorted(label.intersection(numbers)), [part])
    alone = _parts_alone(rows, seen)
    first = max([*by_number(rows), *label], default=0) + 1
    rows += [NameRow(number, part) for number, part in enumerate(alone, first)]
    rows += [NameRow(None, f"class {written(colour)}", "", colour) for colour in new_colours]
    if not any(not row.void for row in rows):
        raise NDError(f"The masks in {seen.masks} hold no label: every pixel is 0 or 255", "")
    return Draft(seen, tuple(rows), tuple(_explain(seen, table.path, named, new_numbers, len(new_colours), alone)))


def write(drafted: Draft, folder: Path, *, force: bool = False) -> Path:
    """``folder`` with labels.csv and a description that says where images and masks are, which are not touched.

    NotReplaced where such a data set is there, unless ``force``; WrongUse where the folder holds anything else.
    """
    try:
        there = os.listdir(folder) if os.path.lexists(folder) else []  # noqa: PTH208
        if there and DESCRIPTION not in there:
            raise WrongUse(f"{folder} holds other files: {some(there, 3)}", "Name a new folder: -o FOLDER")
        if there and not force:
            raise NotReplaced(f"{folder} is a data set already", "--force writes it anew; -o FOLDER writes another")
        own_folder(folder)
        with replacing(folder / NAMES) as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["number", "name", "category", "color"])
            for row in drafted.rows:
                colour = "" if row.colour is None else written(row.colour)
                category = "" if row.void else row.category or CATEGORY
                writer.writerow(["" if row.number is None else row.number, row.name, category, colour])
        seen = drafted.survey
        about = {
            "encoding-type": KIND,
            "encoding-version": VERSION,
            "images": str(seen.images),
            "masks": str(seen.masks),
            "names": NAMES,
            "mask_suffix": seen.suffix,
        }
        with replacing(folder / DESCRIPTION) as new:
            new.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        what = remedy(error, "choose another folder with -o")
        raise NDError(f"{folder} cannot be written: {error.strerror or error}", what) from error
    return folder


def default_folder(images: Path) -> Path:
    """Where a data set of ``images`` is written unless the user says: in the current folder, after what holds them."""
    return Path(f"{images.resolve().parent.name or 'my'}-data")


def _read_names(table: Path) -> list[NameRow]:
    if table.is_dir():
        raise WrongUse(f"--names {table} is a folder", "It names a file: CSV, JSON, or names one a line")
    faults: list[BadFile] = []
    rows = read_name_table(read_file(table, str(table), MOST_BYTES), table.name, faults.append)
    if faults:
        more = f" and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise NDError(f"{faults[0].message}{more}", "A table has rows such as: 1,cat")
    if not rows:
        raise NDError(f"{table.name} names nothing", "A table has rows such as: 1,cat")
    return rows


def _counted_from_1(rows: Sequence[NameRow], seen: Survey) -> Sequence[NameRow]:
    """The ``rows`` with numbers that fit what was seen, where they are names alone: from 0, or else from 1."""
    if not rows or not all(row.counted for row in rows) or any(row.void for row in rows[:1]):
        return rows
    used = {n for n in seen.numbers if n not in VOID}
    if max(used, default=0) == len(rows):
        return [replace(row, number=(row.number or 0) + 1) for row in rows]
    return rows


def _parts_alone(rows: Sequence[NameRow], seen: Survey) -> list[str]:
    """The parts whose masks are black and white beside masks of numbers, and that no row names.

    They become concepts of their own: 255, which is none in the other masks, is all that they show.
    """
    known = MaskConcepts(rows, NAMES)
    categories = {row.category for row in known.rows}
    parts = [] if seen.black_and_white else seen.black_and_white_parts
    return [part for part in parts if known.find(part, "") is None and part not in categories]


def _explain(
    seen: Survey,
    table: Path | None,
    named: Sequence[NameRow],
    new_numbers: Sequence[int],
    new_colours: int,
    alone: Sequence[str],
) -> list[str]:
    pairs = seen.pairs
    masks = sum(map(len, pairs.maps.values()))
    what = [
        f"{len(pairs.maps):,} images with {masks:,} masks, by their names"
        + (f" (masks end in {seen.suffix})" if seen.suffix else ""),
        f"images: {sizes_in_words(Counter(seen.size_of.values()))}; masks: {sizes_in_words(seen.mask_sizes)} pixels",
    ]
    what += [fault.message for fault in pair_faults(Place(seen.images, seen.masks), pairs)]
    if table is None:
        what.append("names: no table was given (--names FILE) and none lies beside the masks")
    else:
        void = [f"{row.number} {row.name}" for row in named if row.void]
        without = f"; no label: {', '.join(void)}" if void else ""
        what.append(f"names: {len(named)} in {table}, the first {_row(named[0])}{without}")
        unused = [row.name for row in named if row.number is not None and row.number not in seen.numbers]
        if unused and not seen.colours:
            what.append(f"names that are in no mask: {counted(unused)}")
    if new_numbers:
        counts = [f"{n} (masks: {seen.numbers[n]:,})" for n in new_numbers[:5]]
        more = f" and {len(new_numbers) - 5} more" if len(new_numbers) > 5 else ""
        what.append(f"numbers without a name: {', '.join(counts)}{more}; they are called class N in {NAMES}")
    if new_colours:
        what.append(f"colours without a name: {new_colours:,}; they are called after themselves in {NAMES}")
    if alone:
        what.append(f"masks of 0 and 255 alone: {some(alone)}; what is not 0 there is a concept of that name")
    given = by_number(named)
    numbers = seen.numbers_without(alone)
    void_used = [n for n in VOID if numbers[n] and n not in given and not (n == 255 and seen.black_and_white)]
    if void_used:
        what.append(f"no label: {', '.join(f'{n} (masks: {numbers[n]:,})' for n in void_used)}")
    if seen.other_shape:
        what.append(f"masks of another shape than their image: {counted(seen.other_shape)}")
    if seen.bad:
        what.append(f"files that cannot be read: {counted([fault.message for fault in seen.bad])}")
    return what


def _row(row: NameRow) -> str:
    first = written(row.colour) if row.number is None and row.colour else row.number
    return quoted(f"{first} {row.name}")
