"""Samples of a generator as a data set: its images are drawn, and their labels are made of what was drawn.

Latents travel as images do, as bytes (ndissect.engine.networks.generators.carried), so that samples are batched,
shared by processes and resumed like photographs.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ndissect.engine.data.dataset import ConceptDataset, Labels, Run, Sample
from ndissect.engine.data.made_labels import LabelsMade, MadeLabels, Maker
from ndissect.store.concepts import ConceptTable

#: Of samples by their numbers, the bytes (n, 1, w, 3) that carry their latents.
CarriedLatents = Callable[[Sequence[int]], npt.NDArray[np.uint8]]
#: Of what the generator returned, its pictures: tensors (n, 3, H, W) uint8.
Pictures = Callable[[Any], Any]
#: Of bytes (n, 1, w, 3) that carry the latents of n samples, their pictures (n, H, W, 3) uint8.
Draw = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
# Every so many samples one is of val: a label is chosen on the others, as in Broden.
_VAL_EVERY = 5


class LatentSamples:
    """A ConceptDataset of ``count`` samples without labels, whose images are their latents as bytes.

    ``identity``: what says which latents they are; ``size``: (rows, columns) of the pictures; ``names`` and ``splits``:
    of the photographs that they are latents of, else their numbers, and every fifth is of val.
    """

    mapped = True  # nothing is decoded
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        count: int,
        latents: CarriedLatents,
        identity: str,
        size: tuple[int, int],
        root: Path,
        *,
        names: Sequence[str] = (),
        splits: Sequence[str] = (),
    ) -> None:
        self.root, self.name, self.grid = root, name, size
        self.concepts = ConceptTable(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
        self.names = tuple(names) or tuple(f"sample {number}" for number in range(count))
        every = ("val" if number % _VAL_EVERY == _VAL_EVERY - 1 else "train" for number in range(count))
        self.splits = tuple(splits) or tuple(every)
        self._latents, self._identity = latents, identity
        self._bytes = int(latents([0]).nbytes)

    @property
    def largest(self) -> int:
        """Bytes of a sample's latents."""
        return self._bytes

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Sample:
        """The latents of sample ``index``."""
        run = self.read_run([index])
        return Sample(index, self.names[index], run.pixels[0], run.maps[0], (), run.digests[0])

    def read_run(self, images: Sequence[int]) -> Run:
        """The latents of these samples."""
        pixels = self._latents(images)
        none = np.zeros((0, *self.grid), np.uint16)
        digests = [
            int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=16, key=str(n).encode()).digest())
            for n, row in zip(images, pixels, strict=True)
        ]
        return Run(pixels, [none] * len(images), [()] * len(images), digests)

    def read_labels(self, index: int) -> Labels:
        """A sample has no labels of its own."""
        return Labels(index, np.zeros((0, *self.grid), np.uint16), ())

    def tables_digest(self) -> str:
        """Of what says which latents they are."""
        return hashlib.blake2b(f"{self._identity}:{len(self)}".encode(), digest_size=16).hexdigest()


class Thumbnails:
    """Thumbnails of samples by their numbers, kept while there is ``room`` for so many bytes."""

    def __init__(self, room: int = 64 << 20) -> None:
        self._kept: dict[int, bytes] = {}
        self._left = room

    @property
    def full(self) -> bool:
        """Whether no more are kept."""
        return self._left <= 0

    def keep(self, number: int, jpeg: bytes) -> None:
        """Keep the thumbnail of sample ``number`` if there is room."""
        if not self.full and number not in self._kept:
            self._kept[number] = jpeg
            self._left -= len(jpeg)

    def of(self, number: int) -> bytes | None:
        """The thumbnail of sample ``number``, None where it was not kept."""
        return self._kept.get(number)


class LabelledSamples(MadeLabels):
    """The same with labels that ``maker`` makes of pictures: of those that ``draw`` draws of latents, or of those that
    ``pictures`` finds in what the generator returned.

    ``record``: what a store says of the generator and its latents, as JSON values.
    """

    def __init__(
        self,
        source: ConceptDataset,
        made: LabelsMade,
        maker: Maker | None,
        *,
        draw: Draw,
        pictures: Pictures,
        record: Mapping[str, Any],
    ) -> None:
        super().__init__(source, made, maker)
        self.draw, self.pictures, self.record = draw, pictures, record
        self._drawing = threading.Lock()
        #: From the pass that draws the pictures; samples without one are drawn once more.
        self.thumbnails = Thumbnails()

    def part(self, source: ConceptDataset, numbers: Sequence[int]) -> LabelledSamples:
        """Those samples of this data set that are ``source``, and have ``numbers`` here."""
        part = LabelledSamples(
            source, self.made, self.maker, draw=self.draw, pictures=self.pictures, record=self.record
        )
        part._files, part._number_of = self._files, [self._number_of[n] for n in numbers]
        part.thumbnails = self.thumbnails
        return part

    def keep_thumbnail(self, index: int, jpeg: bytes) -> None:
        """Keep the thumbnail of sample ``index`` if there is room."""
        self.thumbnails.keep(self._number_of[index], jpeg)

    def thumbnail(self, index: int) -> bytes | None:
        """The thumbnail that was kept of sample ``index``, None where there is none."""
        return self.thumbnails.of(self._number_of[index])

    def read(self, index: int) -> Sample:
        """The picture of sample ``index`` with its labels."""
        return self.read_many([index])[0]

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        """The pictures of these samples, drawn in one batch, with their labels."""
        samples = [self.own.read(index) for index in indices]
        with self._drawing:
            pictures = self.draw(np.stack([sample.image for sample in samples]))
        return [
            replace(sample, image=picture, maps=self._labels_of(index, picture))
            for index, sample, picture in zip(indices, samples, pictures, strict=True)
        ]

    def _labels_of(self, index: int, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        maps = self.kept(index)
        if maps is None:
            assert self.maker is not None
            maps = self.maker.label_image(picture)
            self.keep(index, maps)
        return maps

    def _maps(self, index: int, image: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint16]:
        kept = self.kept(index)
        return self.read(index).maps if kept is None else kept
