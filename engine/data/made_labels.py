"""Data sets whose labels are made of their pixels: by a segmentation network, or by the names of colours.

The labels of an image are made when it first goes through (ndissect.engine.passes.labeller) and kept in a file, so that
whoever asks for them later is told the same: the null, a second forward pass, a run that goes on, the top images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.colors import COLORS
from ndissect.engine.data.concepts import LARGEST_NUMBER
from ndissect.engine.data.dataset import (
    ConceptDataset,
    JpegFiles,
    Labels,
    MappedImages,
    Run,
    Sample,
    is_mapped,
    known_sizes,
)
from ndissect.engine.data.label_file import LabelFile
from ndissect.store.concepts import ConceptTable
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.upsampling import resize_labels

#: The category of colours' names.
COLOR = "color"


@dataclass(frozen=True)
class LabelsMade:
    """How labels are made: ``classes`` of a network, (name, category) each; ``colors``: and the colours' names.

    ``own``: the data set's own labels are used beside them; ``grid``: (H, W) of the maps; ``network``: what is to be
    said of the labeller, as JSON values, {} where there is none.
    """

    classes: tuple[tuple[str, str], ...]
    colors: bool
    own: bool
    grid: tuple[int, int]
    network: Mapping[str, Any] = field(default_factory=dict)

    @property
    def maps(self) -> int:
        """How many label maps are made of an image."""
        return bool(self.classes) + self.colors

    @property
    def count(self) -> int:
        """How many concepts are made."""
        return len(self.classes) + len(COLORS) * self.colors

    def to_json(self) -> dict[str, Any]:
        """As JSON values, of which :meth:`from_json` makes the same."""
        made: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelsMade:
        """The same of JSON values; ValueError, KeyError or TypeError where they say something else."""
        height, width = (int(n) for n in value["grid"])
        classes = tuple((str(name), str(category)) for name, category in value["classes"])
        return cls(classes, bool(value["colors"]), bool(value["own"]), (height, width), dict(value["network"]))

    def concepts(self, own: ConceptTable) -> ConceptTable:
        """The concepts of a data set with such labels: those of ``own`` where they are used, then those made."""
        named = [*self.classes, *((f"{name}-c", COLOR) for name in COLORS if self.colors)]
        base = own if self.own else ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
        if self.own and COLOR in own.categories:
            raise WrongUse("the data set has labels of colours already", "leave out --colors")
        first = self.first_number(own)
        if first + len(named) > LARGEST_NUMBER:
            raise NDError(f"{first + len(named)} concepts are more than label maps can number", "name fewer classes")
        categories = tuple(dict.fromkeys([*base.categories, *(category for _, category in named)]))
        return ConceptTable(
            np.append(base.number, np.arange(first, first + len(named))).astype(np.int32),
            (*base.name, *(name for name, _ in named)),
            np.array([*base.category, *(categories.index(category) for _, category in named)], np.int32),
            categories,
        )

    def first_number(self, own: ConceptTable) -> int:
        """The number of the first concept that is made."""
        return int(own.number.max(initial=0)) + 1 if self.own else 1


class Maker(Protocol):
    """What makes labels of pixels."""

    def label_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """(M, H, W): the concept numbers of an image (h, w, 3) on the grid, 0 is none."""
        ...


class Own:
    """The images of ``source`` with what is used of its own labels, under the concepts of a data set with more."""

    def __init__(self, source: ConceptDataset, made: LabelsMade) -> None:
        self._source, self.made = source, made
        self.root, self.name, self.grid = source.root, source.name, made.grid
        self.names, self.splits, self.notes = source.names, source.splits, source.notes
        self.concepts = made.concepts(source.concepts)

    @property
    def largest(self) -> int:
        """Of the source, with the maps that are made."""
        return self._source.largest + 2 * self.made.maps * self.grid[0] * self.grid[1]

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """SizedImages.known_sizes of the source."""
        return known_sizes(self._source)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """Decode image ``index`` with its own labels."""
        return self._without(self._source.read(index))

    def read_labels(self, index: int) -> Labels:
        """The own labels of image ``index``."""
        if not self.made.own:
            return Labels(index, np.zeros((0, *self.grid), np.uint16), ())
        labels = self._source.read_labels(index)
        return replace(labels, maps=resize_labels(labels.maps, self.grid))

    @property
    def mapped(self) -> bool:
        """Whether the images lie decoded in mapped files."""
        return is_mapped(self._source)

    def read_run(self, images: Sequence[int]) -> Run | None:
        """Images at once, where they lie one after another (MappedImages)."""
        run = self._source.read_run(images) if isinstance(self._source, MappedImages) else None
        if run is None:
            return None
        if not self.made.own:
            none = np.zeros((0, *self.grid), np.uint16)
            return replace(run, maps=[none] * len(images), labels=[()] * len(images))
        return replace(run, maps=[resize_labels(maps, self.grid) for maps in run.maps])

    def tables_digest(self) -> str:
        """Of the source's tables and of how labels are made."""
        text = json.dumps([self._source.tables_digest(), self.made.to_json()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _without(self, sample: Sample) -> Sample:
        if not self.made.own:
            return replace(sample, maps=np.zeros((0, *self.grid), np.uint16), labels=())
        return replace(sample, maps=resize_labels(sample.maps, self.grid))


class JpegOwn(Own):
    """The same of a data set whose photographs are files."""

    def __init__(self, source: ConceptDataset, files: JpegFiles, made: LabelsMade) -> None:
        super().__init__(source, made)
        self._files = files

    def read_encoded(self, index: int) -> Sample:
        """JpegFiles.read_encoded with the own labels."""
        return self._without(self._files.read_encoded(index))

    def bare_jpeg(self, index: int, side: int, most: int) -> bytes | None:
        """JpegFiles.bare_jpeg."""
        return self._files.bare_jpeg(index, side, most)


class MadeLabels:
    """A ConceptDataset whose labels are made of its pixels.

    ``source``: the data set that it was made of; ``own``: its images with their own labels, as decoding processes read
    them; ``made``: how the others are made, and ``maker``: by what, None where all of them are kept already.
    """

    def __init__(self, source: ConceptDataset, made: LabelsMade, maker: Maker | None = None) -> None:
        self.own: Own = JpegOwn(source, source, made) if isinstance(source, JpegFiles) else Own(source, made)
        self.source, self.made, self.maker = source, made, maker
        self.root, self.name, self.concepts, self.grid = source.root, source.name, self.own.concepts, made.grid
        self.names, self.splits, self.notes = source.names, source.splits, source.notes
        self._files: tuple[LabelFile, ...] = (self._file(None),)
        self._number_of: Sequence[int] = range(len(source))

    def part(self, source: ConceptDataset, numbers: Sequence[int]) -> MadeLabels:
        """Those images of this data set that are ``source``, and have ``numbers`` here: their labels are the same."""
        part = MadeLabels(source, self.made, self.maker)
        part._files, part._number_of = self._files, [self._number_of[n] for n in numbers]
        return part

    def keep_in(self, *paths: Path) -> None:
        """Keep labels in the first of these files from now on, and look for them in all."""
        self._files = tuple(self._file(path) for path in paths)

    def _file(self, path: Path | None) -> LabelFile:
        kind = np.uint8 if int(self.concepts.number.max(initial=0)) < 1 << 8 else np.uint16
        return LabelFile(path, (self.made.maps, *self.grid), kind)

    @property
    def largest(self) -> int:
        """Bytes that the largest image takes with its label maps."""
        return self.own.largest

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """SizedImages.known_sizes of the source."""
        return self.own.known_sizes()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """Decode image ``index`` with all of its labels."""
        sample = self.own.read(index)
        return replace(sample, maps=np.concatenate([sample.maps, self._maps(index, sample.image)]))

    def read_labels(self, index: int) -> Labels:
        """All labels of image ``index``; NDError where they are still to be made and the image cannot be read."""
        labels = self.own.read_labels(index)
        return replace(labels, maps=np.concatenate([labels.maps, self._maps(index)]))

    def tables_digest(self) -> str:
        """Of the source's tables and of how labels are made."""
        return self.own.tables_digest()

    def kept(self, index: int) -> npt.NDArray[np.uint16] | None:
        """(M, H, W): the labels that were made of image ``index``; None where that is still to be done."""
        number = self._number_of[index]
        return next((maps for file in self._files if (maps := file.read(number)) is not None), None)

    def keep(self, index: int, maps: npt.NDArray[np.integer]) -> None:
        """Keep the labels (M, H, W) that were made of image ``index``."""
        self._files[0].write(self._number_of[index], maps)

    def _maps(self, index: int, image: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint16]:
        maps = self.kept(index)
        if maps is None:
            if self.maker is None:
                raise NDError(f"the labels of {self.names[index]} were not kept", "run again with --restart")
            maps = self.maker.label_image(self.own.read(index).image if image is None else image)
            self.keep(index, maps)
        return maps


def own_labels(dataset: ConceptDataset) -> ConceptDataset:
    """``dataset`` with its own labels alone, as its files have them: what can be read before any are made."""
    return dataset.own if isinstance(dataset, MadeLabels) else dataset
