"""A data set of image files and label files of any size, as a format other than Broden's lists them.

A format says which concepts there are and, of every image, where it is and what labels it (:class:`ImageRecord`);
:class:`LabelledFiles` is the data set that runs, checks and packs work with. It brings the label maps of an image, of
whatever size, to one grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import Figures, Labels, Sample
from ndissect.engine.data.image_bombs import MOST_PIXELS, most_bytes
from ndissect.engine.data.image_headers import UNKNOWN, orientation, read_sizes, size_of
from ndissect.engine.data.images import BadFile, allow_pixels, decode_image, read_file
from ndissect.engine.data.jpeg import bare_jpeg, keep_jpeg
from ndissect.store.concepts import ConceptTable
from ndissect.store.upsampling import resize_labels

#: The grid on which labels are read unless a run asks for another: Broden's, half the size of its images of 224 pixels.
GRID = (112, 112)

Decode = Callable[[bytes, str, tuple[int, int]], npt.NDArray[np.uint8]]

_QUARTER_TURNS = (5, 6, 7, 8)
_NUMBERS = 1 << 16


class LabelSource(Protocol):
    """Where one or several label maps of an image come from: a PNG with numbers, polygons in a JSON file, ..."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read for it, below the data set's folder or with their whole paths."""
        ...

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, h, w) uint16: concept numbers, 0 is none, at the size that they have; and the bytes that were read.

        ``size``: (H, W) of the image as its pixels are stored, (0, 0) where it cannot be read. BadFile (an NDError)
        names the file and what is wrong with it.
        """
        ...


@dataclass(frozen=True)
class ImageRecord:
    """One image: ``name``, as stores call it; ``file``, below the data set's folder or a whole path; ``split``: train
    or val.

    ``sources``: what gives its label maps; ``labels``: numbers of the concepts that cover all of it, never 0.
    """

    name: str
    file: Path
    split: str
    sources: tuple[LabelSource, ...] = ()
    labels: tuple[int, ...] = ()


class LabelledFiles:
    """Images and label maps of any size: a FolderDataset with JpegFiles.

    It is safe to read from several threads and to pickle.

    A run shows the whole of an image to the network, resized as the network wants it, and places activation maps on a
    grid of labels that shows the whole of it too. So an image and its label maps are stretched alike, and the grid is
    square although images are not. A label map has any size of its own, the image's or a smaller or larger one of the
    same shape: each pixel of the grid takes the label under its centre (ndissect.store.upsampling.resize_labels).

    ``records``: the images; ``digest``: hex, of all that decides which concepts and which images there are: the tables,
    and the names and splits of the images; ``figures``: what the tables say of frequencies, where they say something;
    ``notes``: what a user should know of how the data set was understood, a sentence each; ``max_pixels``: an image of
    more is not read, nor are label maps of one image with more in all on the grid.

    Sizes of images are not in the tables: they are read from the files' headers, all at once when the first is asked
    for.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        concepts: ConceptTable,
        records: Sequence[ImageRecord],
        *,
        digest: str,
        figures: Figures | None = None,
        notes: Sequence[str] = (),
        max_pixels: int | None = None,
        grid: tuple[int, int] = GRID,
    ) -> None:
        self.root, self.name, self.concepts, self.grid = root, name, concepts, grid
        self.records, self.notes = tuple(records), tuple(notes)
        self.names = tuple(record.name for record in self.records)
        self.splits = tuple(record.split for record in self.records)
        self.max_pixels = max_pixels or MOST_PIXELS
        allow_pixels(self.max_pixels)
        self._digest, self._figures = digest, figures
        self._sizes: npt.NDArray[np.int32] | None = None
        self._known = np.zeros(_NUMBERS, bool)
        self._known[0] = True
        self._known[concepts.number] = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        allow_pixels(self.max_pixels)  # of this process

    def __len__(self) -> int:
        return len(self.records)

    def tables_digest(self) -> str:
        """Hex digest of what decides which concepts and images there are, as the format has it."""
        return self._digest

    def on_grid(self, grid: tuple[int, int]) -> Self:
        """The same data set with its label maps on ``grid``, read from the maps as they are."""
        other = copy(self)
        other.grid = grid
        other.__dict__.pop("largest", None)
        return other

    def read_sizes(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read the sizes of all images now; ``progress`` receives (images done, images in all)."""
        if self._sizes is None:
            self._sizes = read_sizes([self.root / record.file for record in self.records], progress)

    @property
    def image_sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2): the height and width of every image as its pixels are stored, 0 where it cannot be read."""
        self.read_sizes()
        assert self._sizes is not None
        return self._sizes

    def known_sizes(self) -> npt.NDArray[np.int32] | None:
        """``image_sizes``; None where an image cannot be read: which ones, the run says better."""
        return self.image_sizes if self.image_sizes.all() else None

    @cached_property
    def largest(self) -> int:
        """Bytes that the largest image takes with its label maps, decoded; one of the maps before it is resized."""
        pixels = min(int(self.image_sizes.astype(np.int64).prod(1).max(initial=0)), self.max_pixels)
        maps = max((len(record.sources) for record in self.records), default=0)
        return 3 * pixels + 2 * (pixels * bool(maps) + min(maps * self.grid[0] * self.grid[1], self.max_pixels))

    def read(self, index: int, decode: Decode = decode_image) -> Sample:
        """Decode image ``index`` with its labels; BadFile (an NDError) names the file and what is wrong with it.

        ``decode``: makes the sample's image of the file's bytes, its name and its size.
        """
        record = self.records[index]
        digest = hashlib.blake2b(digest_size=16)
        image, data = self.read_image(index, decode)
        maps, files = self._read_maps(index)
        for part in (record.name.encode(), repr(sorted(record.labels)).encode(), data, *files):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return Sample(index, record.name, image, maps, self.image_labels(index), int.from_bytes(digest.digest(), "big"))

    def read_labels(self, index: int) -> Labels:
        """Decode the labels of image ``index`` alone; BadFile (an NDError) as for ``read``."""
        return Labels(index, self._read_maps(index)[0], self.image_labels(index))

    def read_encoded(self, index: int) -> Sample:
        """As ``read``, but a baseline colour JPEG is not decoded: the sample's image is its bytes, (n,) uint8."""
        return self.read(index, keep_jpeg)

    def bare_jpeg(self, index: int, side: int, most: int) -> bytes | None:
        """The file of image ``index`` without what cameras write into it, where it is a baseline colour JPEG.

        None where it is none, has more than ``side`` pixels on a side or ``most`` bytes, or cannot be read.
        """
        height, width = self.image_sizes[index].tolist()
        if max(height, width) > side:
            return None
        try:
            return bare_jpeg(self.image_bytes(index, most), (height, width))
        except BadFile:
            return None

    def maps_of(self, index: int) -> list[str]:
        """The files that give the label maps of image ``index``."""
        return [file.as_posix() for source in self.records[index].sources for file in source.files]

    def image_path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self.root / self.records[index].file

    def image_called(self, index: int) -> str:
        """The file of image ``index`` as messages call it."""
        return self.records[index].file.as_posix()

    def image_bytes(self, index: int, limit: int) -> bytes:
        """The bytes of the file of image ``index``; BadFile where it cannot be read or has more than ``limit``."""
        return read_file(self.image_path(index), self.image_called(index), limit)

    def figures(self) -> Figures:
        """What the tables say of concepts and categories; all is unknown where they say nothing."""
        count = len(self.concepts)
        return self._figures or Figures(np.full(count, -1, np.int64), np.full(count, np.nan), {}, {})

    def faults(self, index: int) -> Iterator[BadFile]:
        """All that is wrong with the files and labels of image ``index``: each is read to its end."""
        checks: list[Callable[[], object]] = [partial(self.read_image, index), partial(self.image_labels, index)]
        checks += [partial(self._read_source, index, source) for source in self.records[index].sources]
        for check in checks:
            try:
                check()
            except BadFile as fault:
                yield fault

    def read_image(self, index: int, decode: Decode = decode_image) -> tuple[npt.NDArray[np.uint8], bytes]:
        """(H, W, 3) uint8 RGB of image ``index``, and the bytes of its file."""
        file = self.image_called(index)
        height, width = self.image_sizes[index].tolist()
        if height * width > self.max_pixels:
            raise BadFile(file, f"the image is {height} x {width} pixels, {self._more_than_are_read()}")
        data = self.image_bytes(index, most_bytes(height * width))
        try:
            return decode(data, file, (height, width)), data
        except BadFile:
            if size_of(data) not in (None, (height, width)):
                raise BadFile(file, "the file has changed since its size was read", "Run the command again") from None
            raise

    def _read_maps(self, index: int) -> tuple[npt.NDArray[np.uint16], list[bytes]]:
        """(M, *grid) uint16: the label maps of image ``index`` on the grid, and the bytes that were read for them."""
        maps, files = [np.zeros((0, *self.grid), np.uint16)], []
        for source in self.records[index].sources:
            resized, data = self._read_source(index, source)
            maps.append(resized)
            files.append(data)
            if sum(map(len, maps)) * self.grid[0] * self.grid[1] > self.max_pixels:
                what = f"the image has {sum(map(len, maps))} label maps of {self.grid[0]} x {self.grid[1]} pixels"
                raise BadFile(self.records[index].file.as_posix(), f"{what} and more, {self._more_than_are_read()}")
        return (maps[1] if len(maps) == 2 else np.concatenate(maps)), files

    def _read_source(self, index: int, source: LabelSource) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, *grid) uint16: what ``source`` gives of image ``index``, every number of it known, and its bytes."""
        height, width = self.image_sizes[index].tolist()
        maps, data = source.read(self.root, (height, width))
        file = source.files[0].as_posix() if source.files else self.records[index].file.as_posix()
        if (height, width) != UNKNOWN and len(maps):
            self._check_shape(index, maps.shape[1:], file)
        known = self._known[maps]
        if not known.all():
            unknown = ", ".join(map(str, np.unique(maps[~known])[:8].tolist()))
            raise BadFile(file, f"holds {unknown}: no concept of this data set has that number")
        return np.ascontiguousarray(resize_labels(maps, self.grid)), data

    def _check_shape(self, index: int, shape: tuple[int, ...], file: str) -> None:
        """BadFile where a label map of this shape cannot show what image ``index`` shows."""
        size = tuple(self.image_sizes[index].tolist())
        if same_shape(size, shape):
            return
        what = f"the mask is {shape[0]} x {shape[1]} pixels, the image {size[0]} x {size[1]}"
        if same_shape(size[::-1], shape) and orientation(self._start_of(index)) in _QUARTER_TURNS:
            turned = "its camera noted that it is to be turned, and the mask was drawn on it turned"
            raise BadFile(file, f"{what}: {turned}; turn the image files (`magick mogrify -auto-orient`)")
        raise BadFile(file, f"{what}: they must show the same, in the same shape")

    def _start_of(self, index: int) -> bytes:
        return self.image_bytes(index, most_bytes(self.max_pixels))

    def image_labels(self, index: int) -> tuple[int, ...]:
        """The image-level labels of image ``index``, sorted, all of them known."""
        labels = tuple(sorted(set(self.records[index].labels)))
        for number in labels:
            if not 0 < number < _NUMBERS or not self._known[number]:
                file = self.records[index].file.as_posix()
                raise BadFile(file, f"has label {number}: no concept of this data set has that number")
        return labels

    def _more_than_are_read(self) -> str:
        return f"more than {self.max_pixels:,}; --max-pixels reads larger ones"


def same_shape(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures of these sizes (h, w) can show the same: their shapes agree to a pixel's rounding."""
    (h, w), (H, W) = size, other
    return abs(h * W - w * H) < max(h + w, H + W)
