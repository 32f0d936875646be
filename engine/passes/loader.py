"""Reading a labelled data set: batch by batch, decoded by threads while the network works."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.dataset import ConceptDataset, JpegFiles, Sample, at_once, unusable
from ndissect.engine.data.label_arrays import label_arrays, label_kind
from ndissect.engine.machine.in_order import in_order
from ndissect.engine.passes.decoding import decode_together
from ndissect.engine.passes.labels import LabelBatch, from_arrays
from ndissect.store import limits
from ndissect.store.errors import NDError
from ndissect.store.names import quoted
from ndissect.store.protocol import Protocol
from ndissect.store.upsampling import resize_labels

T = TypeVar("T")

# Batches that are put together before the network asks for them.
_AHEAD = 2


def prefetched(items: Iterator[T], ahead: int = _AHEAD) -> Generator[T, None, None]:
    """The same items, made by a thread, up to ``ahead`` of them before they are asked for."""
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    ended = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not ended.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item, None):
                    break
            else:
                put(None, StopIteration())
        except BaseException as e:  # whatever it is, it is the reader's
            put(None, e)

    thread = threading.Thread(target=make, name="nd-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class Batch:
    """Some images, decoded, with their labels.

    ``images``: their numbers in the data set; ``bad``: (number, what is wrong) of the images that are left out;
    ``pixels``: uint8 tensors (n, 3, H, W), one where all images have one size, else one an image; ``labels``: of these
    images, on the host; ``digest``: of all that was read, to be added up mod 2**128.
    """

    images: list[int]
    bad: list[tuple[int, NDError]]
    pixels: list[Tensor]
    labels: LabelBatch
    digest: int

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class _Decoded:
    sample: Sample
    rows: npt.NDArray[np.integer]
    levels: list[int]


class Loader:
    """A data set as batches of images and labels on the protocol's grid."""

    def __init__(
        self,
        dataset: ConceptDataset,
        protocol: Protocol,
        workers: int = 0,
        *,
        pin: bool = False,
        jpeg_on: torch.device | None = None,
    ) -> None:
        self.dataset = dataset
        self.protocol = protocol
        self.workers = workers or min(16, os.cpu_count() or 1)
        self.grid = protocol.grid or dataset.grid
        self._pin = pin
        # Where JPEGs are decoded a batch at a time; elsewhere the threads decode them one by one.
        self._jpeg_on = jpeg_on if isinstance(dataset, JpegFiles) else None
        # Concept number -> concept row + 1; label maps hold 16-bit numbers.
        self._row = np.zeros(1 << 16, label_kind(len(dataset.concepts)))
        self._row[dataset.concepts.number] = np.arange(1, len(dataset.concepts) + 1)

    def read(self, index: int) -> Sample:
        """Image ``index``, decoded."""
        return self.dataset.read(index)

    def first(self, *, skip_bad: bool) -> Tensor:
        """The first image that can be read, uint8 (1, 3, H, W).

        NDError where an image before it cannot be read; with ``skip_bad`` only where none can.
        """
        for index in range(len(self.dataset)):
            try:
                return image_tensor([self.dataset.read(index)])[0]
            except NDError:
                if not skip_bad:
                    self.refuse(range(index, len(self.dataset)))
        raise NDError(f"{self.dataset.root} holds no image that can be used", "nd data check says why")

    def batches(self, images: Sequence[int], size: int, *, skip_bad: bool) -> Generator[Batch, None, None]:
        """These images in order, ``size`` at a time; fewer where they are so large that they would fill the memory.

        NDError at the first image that cannot be read, which names the others of ``images`` that cannot. With
        ``skip_bad`` they are left out.
        """
        return prefetched(self._batches(images, at_once(self.dataset, size), skip_bad))

    def _batches(self, images: Sequence[int], size: int, skip_bad: bool) -> Iterator[Batch]:
        some: list[_Decoded] = []
        bad: list[tuple[int, NDError]] = []
        rest = 0
        for number, result in enumerate(in_order(self._try, images, self.workers, at_once(self.dataset, 2 * size))):
            if not isinstance(result, NDError):
                some.append(result)
            elif skip_bad:
                bad.append((images[number], result))
            else:
                self.refuse(images[number:])
            rest += 1
            if rest == size:
                yield self._batch(some, bad, skip_bad)
                some, bad, rest = [], [], 0
        if rest:
            yield self._batch(some, bad, skip_bad)

    def _try(self, index: int) -> _Decoded | NDError:
        try:
            if self._jpeg_on is not None and isinstance(self.dataset, JpegFiles):
                sample = self.dataset.read_encoded(index)
            else:
                sample = self.dataset.read(index)
        except NDError as e:
            return e
        return _Decoded(sample, self._rows(sample.maps), [int(self._row[n]) for n in sample.labels])

    def _rows(self, maps: npt.NDArray[np.uint16]) -> npt.NDArray[np.integer]:
        most = min(limits.LABEL_MAPS.most, limits.LABEL_BYTES.most // (2 * self.grid[0] * self.grid[1]))
        if len(maps) > most:
            raise NDError(
                f"an image has {len(maps)} label maps of {self.grid[0]} x {self.grid[1]}, a store holds {most}",
                "choose a coarser grid, for example --grid 112",
            )
        return np.asarray(self._row[resize_labels(maps, self.grid)])

    def _batch(self, some: list[_Decoded], bad: list[tuple[int, NDError]], skip_bad: bool) -> Batch:
        if self._jpeg_on is None:
            pixels = image_tensor([d.sample for d in some], pin=self._pin)
        else:
            try:
                pixels = _stacked(decode_together([d.sample.image for d in some], self._jpeg_on))
            except RuntimeError:  # one of them is damaged, or this decoder cannot read it: the threads' can tell
                self._jpeg_on = None
                again = next(self._batches([d.sample.index for d in some], len(some), skip_bad))
                return replace(again, bad=bad + again.bad)
        return Batch(
            [d.sample.index for d in some],
            bad,
            pixels,
            self._labels([d.rows for d in some], [d.levels for d in some]),
            sum(d.sample.digest for d in some),
        )

    def refuse(self, images: Sequence[int]) -> NoReturn:
        """Say what is wrong with the first of these images, and with all the others of them that cannot be read."""
        results = in_order(self._try, images, self.workers, at_once(self.dataset, 64))
        reasons = [e.message for e in results if isinstance(e, NDError)]
        hint = f"nd data check {quoted(self.dataset.root)} lists every fault; --skip-bad goes on without these images"
        raise unusable(reasons, len(self.dataset), hint)

    def read_labels(
        self,
        pieces: Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
        *,
        unreadable_as_none: bool = False,
    ) -> Iterator[LabelBatch]:
        """The labels of the images of each piece, read ahead.

        NDError for labels that cannot be read; ``unreadable_as_none``: such an image counts as one without labels.
        """
        flat = [image for piece in pieces for image in piece]
        read = self._try_rows if unreadable_as_none else self._read_rows
        labels_read = in_order(read, flat, self.workers, at_once(self.dataset, 256))
        for piece in pieces:
            rows = [next(labels_read) for _ in piece]
            yield self._labels([r for r, _ in rows], [levels for _, levels in rows]).to(device)

    def _read_rows(self, index: int) -> tuple[npt.NDArray[np.integer], list[int]]:
        labels = self.dataset.read_labels(index)
        return self._rows(labels.maps), [int(self._row[n]) for n in labels.labels]

    def _try_rows(self, index: int) -> tuple[npt.NDArray[np.integer], list[int]]:
        try:
            return self._read_rows(index)
        except NDError:
            return np.zeros((0, *self.grid), self._row.dtype), []

    def _labels(self, maps: Sequence[npt.NDArray[np.integer]], levels: Sequence[Sequence[int]]) -> LabelBatch:
        concepts, once = self.dataset.concepts, self.protocol.maps == "once"
        return from_arrays(
            label_arrays(maps, levels, concepts.category, len(concepts.categories), self.grid, once=once)
        )


def _stacked(images: Sequence[Tensor]) -> list[Tensor]:
    """(3, H, W) tensors as :func:`image_tensor` gives them."""
    return [torch.stack(list(images))] if len({x.shape for x in images}) == 1 else [x[None] for x in images]


def image_tensor(samples: Sequence[Sample], *, pin: bool = False) -> list[Tensor]:
    """The images as uint8 tensors (n, 3, H, W): one tensor where all have one size, else one an image.

    ``pin``: in page-locked memory, from which a GPU copies while it computes.
    """
    shapes = {s.image.shape for s in samples}
    if len(shapes) != 1:
        return [torch.from_numpy(s.image.copy()).permute(2, 0, 1)[None] for s in samples]
    H, W, _ = next(iter(shapes))
    whole = torch.empty((len(samples), H, W, 3), dtype=torch.uint8, pin_memory=pin)
    np.stack([s.image for s in samples], out=whole.numpy())
    return [whole.permute(0, 3, 1, 2)]
