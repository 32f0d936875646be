"""A look at a folder of images and a folder of masks: what they hold, before a data set is made of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndissect.engine.data.image_files import IMAGE_ENDINGS, list_files
from ndissect.engine.data.image_headers import UNKNOWN, read_size
from ndissect.engine.data.images import BadFile, decode_label_pixels
from ndissect.engine.data.label_maps import Colour, read_map_file
from ndissect.engine.data.labelled_files import same_shape
from ndissect.engine.data.mask_folder import list_both
from ndissect.engine.data.mask_pairs import Pairs, common_suffix, pair
from ndissect.store.errors import NDError, WrongUse

# Label maps of more colours are photographs, or were blurred.
_MOST_COLOURS = 4096


@dataclass(frozen=True)
class Survey:
    """What two folders hold.

    ``images`` and ``masks``: the folders, whole paths; ``pairs``: what belongs together, by names to which masks add
    ``suffix``; ``size_of``: (h, w) of each image with masks; ``mask_sizes`` counts those of masks; ``of_part``: in how
    many masks of each part each number is; ``colours``: in how many masks each colour is, (r, g, b); ``bad``: what
    cannot be read; ``other_shape``: masks whose image has another shape.
    """

    images: Path
    masks: Path
    pairs: Pairs
    suffix: str
    size_of: dict[str, tuple[int, int]]
    mask_sizes: Counter[tuple[int, int]]
    of_part: dict[str, Counter[int]]
    colours: Counter[Colour]
    bad: list[BadFile]
    other_shape: list[str]

    @property
    def numbers(self) -> Counter[int]:
        """In how many masks each number is."""
        return self.numbers_without(())

    def numbers_without(self, parts: Collection[str]) -> Counter[int]:
        """In how many masks each number is, those of ``parts`` left out."""
        return sum((numbers for part, numbers in self.of_part.items() if part not in parts), Counter[int]())

    @property
    def black_and_white_parts(self) -> list[str]:
        """The parts whose masks hold 0 and 255 alone; what has no part is none."""
        return sorted(part for part, numbers in self.of_part.items() if part and numbers.keys() - {0} == {255})

    @property
    def black_and_white(self) -> bool:
        """Whether the masks hold but 0 and 255: then 255 is a label, and is none in all other masks."""
        return self.numbers.keys() - {0} == {255} and not self.colours


@dataclass(frozen=True)
class _Mask:
    """What was read of a mask and its image."""

    image_size: tuple[int, int]
    size: tuple[int, int]
    numbers: frozenset[int]
    colours: frozenset[int]


def survey(
    images: Path,
    masks: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    palette_as_colours: bool = False,
) -> Survey:
    """What ``images`` and ``masks`` hold: every mask is decoded, of every image with masks the header is read.

    ``palette_as_colours``: masks with a palette are read as colours. ``progress`` receives (masks done, masks in all).
    WrongUse where a folder is none, or holds no images or no masks; NDError where none belong together.
    """
    for folder in (images, masks):
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            raise WrongUse(f"There is no folder {folder}", "nd data init IMAGES MASKS")
    images, masks = images.resolve(), masks.resolve()
    photographs, maps = list_both(images, masks)
    if not photographs:
        raise WrongUse(f"{images} holds no image", f"Images end in {', '.join(sorted(IMAGE_ENDINGS))}")
    if not maps:
        raise _no_masks(masks)
    suffix = common_suffix(photographs, maps)
    pairs = pair(photographs, maps, suffix)
    if not pairs.maps:
        what = f"No mask in {masks} is called like an image in {images}: {photographs[0]}, but {maps[0]}"
        raise NDError(what, "A mask has its image's name but for the ending, and may have a word behind it: a_mask.png")
    seen = Survey(images, masks, pairs, suffix, {}, Counter(), {}, Counter(), [], [])
    todo = [(image, part, path) for image, of_image in pairs.maps.items() for part, path in of_image]

    def read(names: tuple[str, str, str]) -> _Mask | BadFile:
        return _read(images / names[0], masks, names[2], palette_as_colours=palette_as_colours)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(read, todo), 1):
            _add(seen, *todo[done - 1], result)
            if progress:
                progress(done, len(todo))
    return seen


def _no_masks(masks: Path) -> NDError:
    others = list_files(masks, IMAGE_ENDINGS)
    if others:
        what = f"{masks} holds no label map, but {others[0]} and {len(others) - 1:,} like it"
        return WrongUse(what, "JPEG and WEBP blur numbers into one another: save masks as PNG")
    return WrongUse(f"{masks} holds no mask", "Masks are PNG, BMP, GIF or TIFF files")


def _read(image: Path, masks: Path, path: str, *, palette_as_colours: bool) -> _Mask | BadFile:
    try:
        data = read_map_file(masks, Path(path), UNKNOWN)
        pixels = decode_label_pixels(data, path, palette_as_colours=palette_as_colours)
        size = read_size(image)
        if size == UNKNOWN:
            raise BadFile(str(image), "not a readable image")
    except BadFile as fault:
        return fault
    height, width = pixels.shape[:2]
    if pixels.ndim == 3 and not (pixels[..., :1] == pixels[..., 1:]).all():
        wide = pixels.astype(np.uint32)
        values = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
        if len(values) > _MOST_COLOURS:
            return BadFile(path, f"{len(values):,} colours are no label map: it is a photograph, or was blurred")
        return _Mask(size, (height, width), frozenset(), frozenset(values.tolist()))
    numbers = np.unique(pixels if pixels.ndim == 2 else pixels[..., 0])
    return _Mask(size, (height, width), frozenset(numbers.tolist()), frozenset())


def _add(seen: Survey, image: str, part: str, path: str, result: _Mask | BadFile) -> None:
    if isinstance(result, BadFile):
        seen.bad.append(result)
        return
    seen.size_of[image] = result.image_size
    seen.mask_sizes[result.size] += 1
    seen.of_part.setdefault(part, Counter()).update(result.numbers)
    seen.colours.update((c >> 16, c >> 8 & 255, c & 255) for c in result.colours)
    if not same_shape(result.image_size, result.size):
        seen.other_shape.append(path)


def sizes_in_words(sizes: Counter[tuple[int, int]], most: int = 3) -> str:
    """``375 x 500 (12), 500 x 375 (3) and 2 more``: the most frequent first."""
    shown: Sequence[str] = [f"{h} x {w} ({count:,})" for (h, w), count in sizes.most_common(most)]
    return ", ".join(shown) + (f" and {len(sizes) - most:,} more" if len(sizes) > most else "")
