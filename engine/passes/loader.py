"""Reading a labelled data set: batch by batch, decoded by threads or processes while the network works."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndissect.engine.data.batch_reader import Allocate, BatchArrays, BatchReader, in_memory
from ndissect.engine.data.dataset import ConceptDataset, Sample, at_once, is_mapped, unusable
from ndissect.engine.data.decoding_processes import (
    CannotStart,
    DecodingProcesses,
    default_workers,
    processes_of_use,
    processes_that_fit,
)
from ndissect.engine.data.label_arrays import LabelArrays
from ndissect.engine.data.made_labels import own_labels
from ndissect.engine.machine.in_order import in_order
from ndissect.engine.passes.decoding import decode_together
from ndissect.engine.passes.labels import LabelBatch, from_arrays
from ndissect.engine.passes.page_lock import lock_pages
from ndissect.store.errors import NDError
from ndissect.store.names import quoted
from ndissect.store.protocol import Protocol

T = TypeVar("T")

#: Where images are decoded: in threads of this process or in processes of their own, ``auto``: what is faster.
DecodeIn = Literal["auto", "threads", "processes"]

# Batches that are put together before the network asks for them.
_AHEAD = 2
# Threads that copy whole batches of mapped files: more would be no faster.
_COPYING = 4


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
    images, ``area`` of which is always on the host as well; ``digest``: of all that was read, to be added up mod
    2**128. The other tensors are on the host, or where the forward pass counts.
    """

    images: list[int]
    bad: list[tuple[int, NDError]]
    pixels: list[Tensor]
    labels: LabelBatch
    area: Tensor
    digest: int

    def __len__(self) -> int:
        return len(self.images)

    def each(self, pixels: Callable[[Tensor], Tensor], labels: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch, of which every tensor of the pixels and of the labels is given to a function."""
        changed = LabelBatch(**{name: labels(tensor) for name, tensor in vars(self.labels).items()})
        return replace(self, pixels=[pixels(tensor) for tensor in self.pixels], labels=changed)


@dataclass(frozen=True)
class Loaded:
    """A batch on the host. Its tensors may lie in memory that the next batches need: ``release`` gives that back.

    None: the batch has its own.
    """

    batch: Batch
    release: Callable[[], None] | None = None

    def owned(self) -> Batch:
        """The batch in memory of its own."""
        if self.release is None:
            return self.batch
        batch = self.batch.each(torch.clone, torch.clone)
        self.release()
        return replace(batch, area=batch.labels.area)


class Loader:
    """A data set as batches of images and labels on the protocol's grid.

    Labels that are made of the pixels (ndissect.engine.data.made_labels) are not in its batches: whoever has the pixels
    adds them (ndissect.engine.passes.labeller). ``read_labels`` gives all labels.

    ``workers``: threads or processes that decode, 0 chooses; ``pin``: batches are made in page-locked memory, from
    which a GPU copies while it computes; ``jpeg_on``: JPEGs are decoded there, a batch at a time.
    """

    def __init__(
        self,
        dataset: ConceptDataset,
        protocol: Protocol,
        workers: int = 0,
        *,
        pin: bool = False,
        jpeg_on: torch.device | None = None,
        decode_in: DecodeIn = "auto",
    ) -> None:
        self.dataset = dataset
        self.protocol = protocol
        self.workers = workers or default_workers()
        self._images = own_labels(dataset)
        self._reader = BatchReader(self._images, protocol, encoded=jpeg_on is not None)
        self.grid = self._reader.grid
        self._plain = BatchReader(self._images, protocol)
        self._labels = BatchReader(dataset, protocol)
        self._pin, self._jpeg_on, self._decode_in = pin, jpeg_on, decode_in

    def read(self, index: int) -> Sample:
        """Image ``index``, decoded."""
        return self.dataset.read(index)

    def read_own(self, index: int) -> Sample:
        """Image ``index`` as the network gets it, with the data set's own labels alone."""
        return self._images.read(index)

    def first(self, *, skip_bad: bool) -> Tensor:
        """The first image that can be read, uint8 (1, 3, H, W).

        NDError where an image before it cannot be read; with ``skip_bad`` only where none can.
        """
        for index in range(len(self.dataset)):
            try:
                return image_tensor(self._images.read(index))
            except NDError:
                if not skip_bad:
                    self.refuse(range(index, len(self.dataset)))
        raise NDError(f"{self.dataset.root} holds no image that can be used", "nd data check says why")

    def batches(self, images: Sequence[int], size: int, *, skip_bad: bool) -> Generator[Batch, None, None]:
        """These images in order, ``size`` at a time; fewer where they are so large that they would fill the memory.

        NDError at the first batch with an image that cannot be read, which names the others of ``images`` that cannot.
        With ``skip_bad`` they are left out.
        """
        with contextlib.closing(self.loaded(images, size, skip_bad=skip_bad)) as loaded:
            for one in loaded:
                yield one.owned()

    def loaded(self, images: Sequence[int], size: int, *, skip_bad: bool) -> Generator[Loaded, None, None]:
        """The same batches, for whoever takes each out of the memory in which it was read."""
        size = at_once(self.dataset, size)
        processes = self._processes(images, size)
        if processes is None:
            arrays = self._read_by_threads(images, size)
            made = (self._batch(one, images, n * size, skip_bad) for n, one in enumerate(arrays))
            yield from prefetched(Loaded(_pinned(batch) if self._pin else batch) for batch in made)
            return
        with contextlib.closing(processes.batches()) as delivered:
            for n, one in enumerate(delivered):
                yield Loaded(self._batch(one.arrays, images, n * size, skip_bad), one.release)

    def _processes(self, images: Sequence[int], size: int) -> DecodingProcesses | None:
        """The processes that read these images; None where threads do."""
        forced = self._decode_in == "processes" and len(images) > 0
        count = (processes_that_fit if forced else processes_of_use)(self._images, len(images), size, self.workers)
        if self._decode_in == "threads" or not count:
            return None
        try:
            return DecodingProcesses(self._reader, images, size, count, lock_pages if self._pin else None)
        except CannotStart:
            if forced:
                raise
            return None

    def _read_by_threads(self, images: Sequence[int], size: int) -> Iterator[BatchArrays]:
        pieces = [images[start : start + size] for start in range(0, len(images), size)]
        allocate: Allocate = _page_locked if self._pin and not self._reader.encoded else in_memory
        if is_mapped(self._images):
            ahead = at_once(self.dataset, 2 * size) // size
            read = in_order(
                lambda piece: self._reader.read_batch(piece, allocate), pieces, min(self.workers, _COPYING), ahead
            )
            yield from read
            return
        results = in_order(self._reader.try_read, images, self.workers, at_once(self.dataset, 2 * size))
        for piece in pieces:
            yield self._reader.together(piece, list(itertools.islice(results, len(piece))), allocate)

    def _batch(self, arrays: BatchArrays, images: Sequence[int], start: int, skip_bad: bool) -> Batch:
        """``arrays``, which were read of ``images`` from ``start`` on, as tensors."""
        arrays, pixels = self._decoded(arrays) if self._reader.encoded else (arrays, _tensors(arrays.pixels))
        if arrays.bad and not skip_bad:
            self.refuse(images[start:])
        labels = from_arrays(arrays.labels)
        return Batch(arrays.images, arrays.bad, pixels, labels, labels.area, sum(arrays.digests))

    def _decoded(self, arrays: BatchArrays) -> tuple[BatchArrays, list[Tensor]]:
        """The pixels of all images that can be decoded, and what is left of ``arrays`` then."""
        images = [image if image.ndim == 1 else image[0] for image in arrays.pixels]
        assert self._jpeg_on is not None
        try:
            return arrays, _stacked(decode_together(images, self._jpeg_on)) if images else []
        except RuntimeError:  # one of them is damaged, or this decoder cannot read it: each for itself
            results = [self._decode_alone(n, image) for n, image in zip(arrays.images, images, strict=True)]
        whole = [n for n, result in enumerate(results) if isinstance(result, Tensor)]
        bad = [(n, result) for n, result in zip(arrays.images, results, strict=True) if isinstance(result, NDError)]
        left = BatchArrays(
            [arrays.images[n] for n in whole],
            arrays.bad + bad,
            [],
            LabelArrays(**{name: array[whole] for name, array in vars(arrays.labels).items()}),
            [arrays.digests[n] for n in whole],
        )
        return left, _stacked([result for result in results if isinstance(result, Tensor)])

    def _decode_alone(self, index: int, image: npt.NDArray[np.uint8]) -> Tensor | NDError:
        assert self._jpeg_on is not None
        with contextlib.suppress(RuntimeError):
            return decode_together([image], self._jpeg_on)[0]
        result = self._plain.try_read(index)
        return result if isinstance(result, NDError) else decode_together([result.pixels], self._jpeg_on)[0]

    def refuse(self, images: Sequence[int]) -> NoReturn:
        """Say what is wrong with the first of these images, and with all the others of them that cannot be read."""
        results = in_order(self._plain.try_read, images, self.workers, at_once(self.dataset, 64))
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
        read = self._labels.try_read_labels if unreadable_as_none else self._labels.read_labels
        labels_read = in_order(read, flat, self.workers, at_once(self.dataset, 256))
        for piece in pieces:
            yield from_arrays(self._labels.label_arrays([next(labels_read) for _ in piece])).to(device)


def _stacked(images: Sequence[Tensor]) -> list[Tensor]:
    """(3, H, W) tensors as :func:`image_tensor` gives them."""
    return [torch.stack(list(images))] if len({x.shape for x in images}) == 1 else [x[None] for x in images]


def _tensors(pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Tensor]:
    """Arrays (n, H, W, 3) as tensors (n, 3, H, W) in the same memory."""
    return [torch.from_numpy(array).permute(0, 3, 1, 2) for array in pixels]


def _page_locked(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    locked: npt.NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    return locked


def _pinned(batch: Batch) -> Batch:
    """The batch with its labels in page-locked memory, as its pixels are."""
    return batch.each(lambda tensor: tensor, lambda tensor: tensor.pin_memory())


def image_tensor(sample: Sample) -> Tensor:
    """The image as a uint8 tensor (1, 3, H, W) of its own."""
    return torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None]
