"""The top images as the store keeps them: a small JPEG each, and their labels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ndissect.engine.data.dataset import JpegFiles, Labels, Sample, at_once
from ndissect.engine.data.made_labels import own_labels
from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.machine.in_order import in_order
from ndissect.engine.passes.loader import Loader
from ndissect.store.model import ImageTable
from ndissect.store.upsampling import resize_labels

#: The longest side of a thumbnail in pixels; Broden's images stay as they are.
SIDE = 227
_QUALITY = 88
# Larger files of that size are not worth keeping as they are.
_MOST_BYTES = 64 << 10
# Samples of a generator in a batch: one by one they take several times as long.
_DRAWN_AT_ONCE = 16


def thumbnail(image: npt.NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> JPEG bytes, at most SIDE pixels long."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def keep_thumbnails(samples: LabelledSamples, indices: Sequence[int], pictures: Tensor) -> None:
    """Keep thumbnails of these samples, whose ``pictures`` uint8 (n, 3, H, W) were drawn, if there is room."""
    if samples.thumbnails.full:
        return
    on_host = pictures.permute(0, 2, 3, 1).cpu().numpy()
    for index, picture in zip(indices, on_host, strict=True):
        samples.keep_thumbnail(index, thumbnail(picture))


@dataclass(frozen=True)
class _Row:
    """What a table holds of an image: its thumbnail, its label maps (M, H, W) on the grid, and its image labels."""

    thumbnail: bytes
    maps: npt.NDArray[np.uint16]
    labels: tuple[int, ...]


class ImageTables:
    """Makes tables of images; an image that is in the last table already is not read again."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._rows: dict[int, _Row] = {}

    def unread(self, indices: Sequence[int]) -> int:
        """How many of these images are to be read."""
        return sum(index not in self._rows for index in indices)

    def table(self, indices: Sequence[int]) -> ImageTable:
        """The table of the images at ``indices``, in that order."""
        loader, dataset = self._loader, self._loader.dataset
        new = [index for index in indices if index not in self._rows]
        known = self._rows | dict(zip(new, self._read_all(new), strict=True))
        rows = [known.pop(index) for index in indices]
        label_maps = np.zeros((len(rows), max((len(row.maps) for row in rows), default=0), *loader.grid), np.uint16)
        image_labels = np.zeros((len(rows), max((len(row.labels) for row in rows), default=0)), np.uint16)
        self._rows = {}
        for n, index in enumerate(indices):
            row = rows[n]
            kept = label_maps[n, : len(row.maps)]
            kept[:] = row.maps
            image_labels[n, : len(row.labels)] = row.labels
            # There may be tens of thousands: what is remembered is a part of the table, never a second one.
            self._rows[index] = rows[n] = replace(row, maps=kept)
        return ImageTable(
            index=np.array(indices, np.int64),
            name=tuple(dataset.names[i] for i in indices),
            split=tuple(dataset.splits[i] for i in indices),
            thumbnail=tuple(row.thumbnail for row in rows),
            label_maps=label_maps,
            image_labels=image_labels,
        )

    def _read_all(self, indices: Sequence[int]) -> Iterator[_Row]:
        """The rows of images that are in no table yet."""
        loader, dataset = self._loader, self._loader.dataset
        if not isinstance(dataset, LabelledSamples):
            return in_order(self._read, indices, loader.workers, at_once(dataset, 4 * loader.workers))
        pieces = [indices[start : start + _DRAWN_AT_ONCE] for start in range(0, len(indices), _DRAWN_AT_ONCE)]
        return chain.from_iterable(in_order(partial(self._draw, dataset), pieces, loader.workers, 1))

    def _read(self, index: int) -> _Row:
        dataset = self._loader.dataset
        images = own_labels(dataset)
        own = images.bare_jpeg(index, SIDE, _MOST_BYTES) if isinstance(images, JpegFiles) else None
        if own is not None:  # as small as a thumbnail: nothing is lost, and nothing computed
            read: Labels | Sample = dataset.read_labels(index)
            return _Row(own, resize_labels(read.maps, self._loader.grid), read.labels)
        sample = self._loader.read(index)
        return _Row(thumbnail(sample.image), resize_labels(sample.maps, self._loader.grid), sample.labels)

    def _draw(self, samples: LabelledSamples, indices: Sequence[int]) -> list[_Row]:
        """The same of samples, of which only those are drawn whose thumbnail was not kept."""
        made = {index: jpeg for index in indices if (jpeg := samples.thumbnail(index)) is not None}
        lacking = [index for index in indices if index not in made]
        if lacking:
            made |= {sample.index: thumbnail(sample.image) for sample in samples.read_many(lacking)}
        return [_Row(made[n], resize_labels(samples.read_labels(n).maps, self._loader.grid), ()) for n in indices]
