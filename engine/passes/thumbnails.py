"""The top images as the store keeps them: a small JPEG each, and their labels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.dataset import JpegFiles, Labels, Sample, at_once
from ndissect.engine.machine.in_order import in_order
from ndissect.engine.passes.loader import Loader
from ndissect.store.model import ImageTable
from ndissect.store.upsampling import resize_labels

#: The longest side of a thumbnail in pixels; Broden's images stay as they are.
SIDE = 227
_QUALITY = 88
# Larger files of that size are not worth keeping as they are.
_MOST_BYTES = 64 << 10


def thumbnail(image: npt.NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> JPEG bytes, at most SIDE pixels long."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def image_table(loader: Loader, indices: Sequence[int]) -> ImageTable:
    """The table of the images at ``indices``, in that order."""
    thumbnails: list[bytes] = []
    maps: list[npt.NDArray[np.uint16] | None] = []
    labels: list[tuple[int, ...]] = []
    M = 0
    jpegs = loader.dataset if isinstance(loader.dataset, JpegFiles) else None

    def make(index: int) -> tuple[Labels | Sample, bytes]:
        own = jpegs.bare_jpeg(index, SIDE, _MOST_BYTES) if jpegs else None
        if own is not None:  # as small as a thumbnail: nothing is lost, and nothing computed
            return loader.dataset.read_labels(index), own
        sample = loader.read(index)
        return sample, thumbnail(sample.image)

    for sample, jpeg in in_order(make, indices, loader.workers, at_once(loader.dataset, 4 * loader.workers)):
        thumbnails.append(jpeg)
        maps.append(resize_labels(sample.maps, loader.grid))
        labels.append(sample.labels)
        M = max(M, len(sample.maps))
    L = max((len(x) for x in labels), default=0)
    label_maps = np.zeros((len(maps), M, *loader.grid), np.uint16)
    image_labels = np.zeros((len(maps), L), np.uint16)
    for row, (m, x) in enumerate(zip(maps, labels, strict=True)):
        assert m is not None
        label_maps[row, : len(m)] = m
        image_labels[row, : len(x)] = x
        maps[row] = None  # there may be tens of thousands: never hold them twice
    return ImageTable(
        index=np.array(indices, np.int64),
        name=tuple(loader.dataset.names[i] for i in indices),
        split=tuple(loader.dataset.splits[i] for i in indices),
        thumbnail=tuple(thumbnails),
        label_maps=label_maps,
        image_labels=image_labels,
    )
