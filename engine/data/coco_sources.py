"""Where the label maps of one image come from in COCO's formats: masks of instances, or a PNG of segments."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.coco_masks import BadMask, layered, mask_of
from ndissect.engine.data.images import BadFile, decode_label_pixels
from ndissect.engine.data.label_maps import read_map_file

_SHOWN = 8


@dataclass(frozen=True)
class Instances:
    """The masks of the instances of one image: a LabelSource without files.

    ``file``: the image; ``size``: (H, W) of it by the table; ``masks``: packed JSON, a list of pairs: concept number,
    and the segmentation as COCO has it.
    """

    file: str
    size: tuple[int, int]
    masks: bytes

    @classmethod
    def packed(cls, file: str, size: tuple[int, int], masks: Sequence[tuple[int, Any]]) -> Instances:
        """Those of the image ``file``."""
        return cls(file, size, zlib.compress(json.dumps(masks).encode(), 1))

    @property
    def files(self) -> tuple[Path, ...]:
        """None: the masks are in the table."""
        return ()

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(M, H, W) uint16 at the size of the table: where instances overlap, a pixel has the concepts of all."""
        data = zlib.decompress(self.masks)
        try:
            masks = [(number, mask_of(mask, self.size)) for number, mask in json.loads(data)]
            return layered(masks, self.size), data
        except BadMask as fault:
            raise BadFile(self.file, str(fault)) from None


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """A PNG of segments, of which the pixel (R, G, B) is of segment R + 256 G + 65536 B: a LabelSource.

    ``segments`` (K,) uint32, rising, with 0, which is none; ``concepts`` (K,) uint16; ``table``: where they are listed.
    """

    file: Path
    segments: npt.NDArray[np.uint32]
    concepts: npt.NDArray[np.uint16]
    table: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file,)

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(1, h, w) uint16 concept numbers; BadFile where the table does not list a segment."""
        pixels, data = _read_colours(root, self.file, size)
        wide = pixels.astype(np.uint32)
        segments = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
        row = np.searchsorted(self.segments, segments).clip(max=len(self.segments) - 1)
        _check(self.file, segments[self.segments[row] != segments], f"segment {{}}, not listed in {self.table}")
        return self.concepts[row][None], data


@dataclass(frozen=True, eq=False)
class TwoChannelMap:
    """A PNG whose red is the category and whose green tells instances apart: a LabelSource.

    ``concepts`` (256,) int32: by category, 0 for none, -1 where ``table`` does not list it.
    """

    file: Path
    concepts: npt.NDArray[np.int32]
    table: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file,)

    def read(self, root: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint16], bytes]:
        """(1, h, w) uint16 concept numbers; BadFile where the table does not list a category."""
        pixels, data = _read_colours(root, self.file, size)
        red = pixels[..., 0]
        concepts = self.concepts[red]
        _check(self.file, red[concepts < 0], f"category {{}}, not listed in {self.table}")
        return concepts.astype(np.uint16)[None], data


def _read_colours(root: Path, file: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8 | np.uint16], bytes]:
    data = read_map_file(root, file, size)
    pixels = decode_label_pixels(data, file.as_posix())
    if pixels.ndim != 3:
        raise BadFile(file.as_posix(), "a panoptic map has three colours, this one has numbers")
    return pixels, data


def _check(file: Path, unknown: npt.NDArray[np.integer], words: str) -> None:
    """BadFile where there are unknown numbers."""
    if unknown.size:
        distinct = np.unique(unknown)
        some = ", ".join(map(str, distinct[:_SHOWN].tolist())) + (", ..." if len(distinct) > _SHOWN else "")
        raise BadFile(file.as_posix(), f"holds {words.format(some)}")
