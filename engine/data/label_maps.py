"""Label maps in image files of their own: what the numbers or colours of their pixels mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.image_bombs import MOST_PIXELS, most_bytes
from ndissect.engine.data.images import BadFile, decode_label_pixels, read_file

Colour = tuple[int, int, int]

_SHOWN = 8
_NUMBERS = 1 << 16


@dataclass(frozen=True, eq=False)
class MapValues:
    """What the pixels of label maps mean; many maps share one such table.

    ``table``: the file that names them, for messages; ``concept`` (65536,) int32: the concept of a pixel's number, 0
    where it is no label, -1 where nothing names it; ``colours`` (K,) uint32: the colours that mean something, as
    65536 R + 256 G + B, rising; ``colour_concept`` (K,) int32: their concepts, or 0.
    """

    table: str
    concept: npt.NDArray[np.int32]
    colours: npt.NDArray[np.uint32]
    colour_concept: npt.NDArray[np.int32]

    @property
    def colours_alone(self) -> bool:
        """Whether colours mean something and numbers do not: then those of a palette count."""
        return bool(len(self.colours)) and bool((self.concept <= 0).all())

    def concepts_of(self, pixels: npt.NDArray[np.uint8 | np.uint16], file: str) -> npt.NDArray[np.uint16]:
        """(h, w) uint16 concept numbers of pixels as decode_label_pixels gives them, 0 is no label.

        Grey that is written as colour is read as numbers, unless all its colours mean something. BadFile under the name
        ``file`` where nothing names a number or a colour.
        """
        if pixels.ndim == 2:
            return self._of_numbers(pixels, file)
        grey = bool((pixels[..., :1] == pixels[..., 1:]).all())
        if not len(self.colours):
            if grey:
                return self._of_numbers(pixels[..., 0], file)
            raise BadFile(file, f"is a map of colours, and {self.table} names no colour (a column color, as #ff0000)")
        wide = pixels.astype(np.uint32)
        colours = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        row = np.searchsorted(self.colours, colours).clip(max=len(self.colours) - 1)
        unknown = np.unique(colours[self.colours[row] != colours])
        if len(unknown) and grey and not self.colours_alone:
            return self._of_numbers(pixels[..., 0], file)
        if len(unknown):
            some = _some([f"#{colour:06x}" for colour in unknown[:_SHOWN].tolist()], len(unknown))
            raise BadFile(file, f"holds {some}, not in {self.table}")
        return np.asarray(self.colour_concept[row], np.uint16)

    def _of_numbers(self, numbers: npt.NDArray[np.uint8 | np.uint16], file: str) -> npt.NDArray[np.uint16]:
        concepts = self.concept[numbers]
        if concepts.min(initial=0) < 0:
            unknown = np.unique(numbers[concepts < 0])
            some = _some([str(number) for number in unknown[:_SHOWN].tolist()], len(unknown))
            raise BadFile(file, f"holds {some}, not in {self.table}")
        return np.asarray(concepts, np.uint16)


def map_values(
    table: str, numbers: Mapping[int, int], void: Iterable[int] = (0, 255), colours: Mapping[Colour, int] | None = None
) -> MapValues:
    """The table of label maps whose pixel n means the concept ``numbers[n]``, and colour c the concept ``colours[c]``.

    Concept 0 is no label, and so is what a pixel of ``void`` means where ``numbers`` does not name it.
    """
    concept = np.full(_NUMBERS, -1, np.int32)
    concept[list(void)] = 0
    concept[list(numbers)] = list(numbers.values())
    named = {(r << 16) + (g << 8) + b: number for (r, g, b), number in (colours or {}).items()}
    rising = sorted(named)
    return MapValues(
        table, concept, np.array(rising, np.uint32), np.array([named[colour] for colour in rising], np.int32)
    )


@dataclass(frozen=True, eq=False)
class MapFile:
    """A label map in an image file, below the data set's folder or with its whole path: a LabelSource."""

    file: Path
    values: MapValues

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file,)

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(1, h, w) uint16 concept numbers, and the bytes of the file; BadFile says what is wrong with it."""
        data = read_map_file(root, self.file, size)
        name = self.file.as_posix()
        by_colour = self.values.colours_alone
        pixels = decode_label_pixels(data, name, palette_as_colours=by_colour, most=most_pixels(size))
        return self.values.concepts_of(pixels, name)[None], data


def read_map_file(root: Path, file: Path, size: tuple[int, int]) -> bytes:
    """The bytes of the label map ``file`` of an image of ``size``; BadFile where it is no regular file of that size."""
    return read_file(root / file, file.as_posix(), most_bytes(most_pixels(size)))


def most_pixels(size: tuple[int, int]) -> int:
    """How many pixels a label map of an image of ``size`` may have."""
    return max(MOST_PIXELS, size[0] * size[1])


def _some(shown: list[str], count: int) -> str:
    return ", ".join(shown) + (", ..." if count > len(shown) else "")
