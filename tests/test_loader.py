"""Reading ahead, in threads and in processes: the same items in order, errors where they belong, and nothing left."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import Subset, spread
from ndissect.engine.passes import page_lock, transfer
from ndissect.engine.passes.loader import Batch, DecodeIn, Loaded, Loader, prefetched
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol

IMAGES, GRID = 11, 16
CONCEPTS = [Concept(3, "tree"), Concept(4, "car"), Concept(11, "street-s", "scene")]


@pytest.fixture
def data(tmp_path: Path) -> Broden:
    """Image i shows trees in its first i rows, and is a street where i is even."""
    pictures = []
    for i in range(IMAGES):
        trees = np.zeros((GRID, GRID), np.uint16)
        trees[:i] = 3
        pictures.append(Picture({"object": trees}, {"scene": [11] if i % 2 == 0 else []}))
    return open_dataset(write_broden(tmp_path / "small", pictures, CONCEPTS, grid=(GRID, GRID)))


def spoil(data: Broden, *images: int) -> None:
    for i in images:
        data.image_path(i).write_bytes(b"no picture")


@pytest.fixture(params=["threads", "processes"])
def decode_in(request: pytest.FixtureRequest) -> Iterator[DecodeIn]:
    """Who decodes; none of them is left afterwards."""
    yield request.param
    assert makers() == []
    assert decoders() == []


def loader(data: Broden, decode_in: DecodeIn) -> Loader:
    return Loader(data, make_protocol(), workers=2, decode_in=decode_in)


def makers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "nd-batches"]


def decoders() -> list[int]:
    """The processes that decode for this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(c) for c in children if b"decoding_process" in Path(f"/proc/{c}/cmdline").read_bytes()]


# prefetched


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_items_that_are_made_ahead_are_the_same_in_the_same_order(ahead: int) -> None:
    assert list(prefetched(iter(range(20)), ahead)) == list(range(20))
    assert list(prefetched(iter([]), ahead)) == []
    assert makers() == []


def test_items_are_made_by_another_thread_and_only_so_many_ahead() -> None:
    made: list[int] = []
    by: set[threading.Thread] = set()

    def source() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            by.add(threading.current_thread())
            yield i

    items = prefetched(source(), 2)
    assert next(items) == 0
    deadline = time.monotonic() + 60
    while len(made) < 4:  # one was read, two wait, and one waits for room
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    assert made == [0, 1, 2, 3]
    assert list(items) == list(range(1, 20))
    assert threading.current_thread() not in by


class Broken(BaseException):
    """What no handler of Exception sees."""


@pytest.mark.parametrize("kind", [NDError, ValueError, KeyboardInterrupt, Broken])
def test_what_goes_wrong_with_the_maker_reaches_the_reader_after_the_items_before_it(
    kind: type[BaseException],
) -> None:
    error = NDError("no such file", "look for it") if kind is NDError else kind("no such file")

    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    read = []
    with pytest.raises(kind) as raised:
        for item in prefetched(source(), 1):
            read.append(item)
    assert raised.value is error
    assert read == [1, 2]
    assert makers() == []


@pytest.mark.parametrize("read", [1, 3])
def test_a_reader_that_leaves_early_ends_the_thread_and_what_it_read_from(read: int) -> None:
    ended = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            ended.set()

    items = prefetched(source(), 2)
    assert [next(items) for _ in range(read)] == list(range(read))
    assert len(makers()) == 1
    items.close()
    assert makers() == []
    assert ended.is_set()
    assert list(items) == []


# Loader


def test_batches_hold_every_image_in_order_with_its_labels(data: Broden, decode_in: DecodeIn) -> None:
    order = [4, 0, 10, 7, 1]
    batches = list(loader(data, decode_in).batches(order, 2, skip_bad=False))
    assert [b.images for b in batches] == [[4, 0], [10, 7], [1]]
    tree, street = (data.concepts.name.index(n) + 1 for n in ("tree", "street-s"))
    for batch in batches:
        assert batch.bad == []
        for n, i in enumerate(batch.images):
            np.testing.assert_array_equal(batch.pixels[0][n].permute(1, 2, 0).numpy(), data.read(i).image)
            assert (batch.labels.pixels[n] == tree).sum() == i * GRID
            levels = [level for level in batch.labels.image_level[n].tolist() if level]
            assert levels == ([street] if i % 2 == 0 else [])
    assert sum(b.digest for b in batches) == sum(data.read(i).digest for i in order)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_images_that_cannot_be_read_are_skipped_where_that_is_asked_for(
    data: Broden, size: int, decode_in: DecodeIn
) -> None:
    spoil(data, 2, 6, 7, 8)
    batches = list(loader(data, decode_in).batches(range(IMAGES), size, skip_bad=True))
    assert len(batches) == -(-IMAGES // size), "a batch is of so many images, sound or not"
    assert [i for b in batches for i in b.images] == [0, 1, 3, 4, 5, 9, 10]
    assert [i for b in batches for i, _ in b.bad] == [2, 6, 7, 8]
    for number, why in (bad for b in batches for bad in b.bad):
        assert data.names[number] in why.message


def test_images_that_cannot_be_read_are_all_named_else(data: Broden, decode_in: DecodeIn) -> None:
    spoil(data, 3, 6, 9)
    read = []
    with pytest.raises(NDError) as refused:
        for batch in loader(data, decode_in).batches(range(IMAGES), 3, skip_bad=False):
            read.append(batch)
    assert [b.images for b in read] == [[0, 1, 2]]
    said = refused.value.message
    assert f"3 of {IMAGES} images" in said
    assert all((data.names[i] in said) == (i in {3, 6, 9}) for i in range(IMAGES))
    assert "--skip-bad" in refused.value.hint


def test_of_very_large_images_fewer_are_read_at_once(data: Broden, decode_in: DecodeIn) -> None:
    vars(data)["largest"] = 200 << 20
    batches = list(loader(data, decode_in).batches(range(IMAGES), 4, skip_bad=False))
    assert [len(b) for b in batches] == [2, 2, 2, 2, 2, 1]


def test_of_no_images_there_is_no_batch(data: Broden, decode_in: DecodeIn) -> None:
    assert list(loader(data, decode_in).batches([], 4, skip_bad=False)) == []


def test_labels_that_are_read_again_are_those_of_the_batches(data: Broden, decode_in: DecodeIn) -> None:
    reader = loader(data, decode_in)
    first = [b.labels for b in reader.batches(range(IMAGES), 4, skip_bad=False)]
    pieces = [range(4), range(4, 8), range(8, IMAGES)]
    for a, b in zip(first, reader.read_labels(pieces), strict=True):
        assert (a.area == b.area).all()
        assert (a.pixels == b.pixels).all()
        assert (a.image_level == b.image_level).all()
        assert a.area.sum() > 0


# Parts of a data set


@pytest.mark.parametrize("images", range(1, IMAGES))
def test_some_images_are_spread_evenly_over_the_data_set(data: Broden, images: int) -> None:
    some = spread(data, images)
    assert len(some) == images == len(some.names) == len(some.splits)
    places = [data.names.index(name) for name in some.names]
    gaps = np.diff(places)
    assert (gaps > 0).all()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert abs(places[0] - (IMAGES - 1 - places[-1])) <= 1, "as far from the beginning as from the end"


@pytest.mark.parametrize("images", [IMAGES, IMAGES + 1, 10**9])
def test_a_data_set_that_has_no_more_is_taken_as_a_whole(data: Broden, images: int) -> None:
    assert spread(data, images) is data


def test_the_images_of_a_part_are_numbered_anew(data: Broden) -> None:
    chosen = [9, 2, 5]
    part = Subset(data, chosen)
    assert (part.root, part.grid, part.tables_digest()) == (data.root, data.grid, data.tables_digest())
    for i, whole in enumerate(chosen):
        sample, labels, expected = part.read(i), part.read_labels(i), data.read(whole)
        assert (sample.index, labels.index) == (i, i)
        assert sample.name == part.names[i] == data.names[whole]
        assert part.splits[i] == data.splits[whole]
        assert sample.digest == expected.digest
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.maps, expected.maps)
        np.testing.assert_array_equal(labels.maps, expected.maps)
        assert sample.labels == labels.labels == expected.labels
    assert [b.images for b in Loader(part, make_protocol(), 2).batches(range(3), 2, skip_bad=False)] == [[0, 1], [2]]


# On a GPU, which here is played by the CPU


class CopyingStream:
    """A stream that notes what is asked of it, and an event of it."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def record_event(self) -> CopyingStream:
        self.said.append("copying")
        return self

    def synchronize(self) -> None:
        self.said.append("copied")


@pytest.mark.parametrize("out_of_memory", [False, True])
def test_the_next_batch_is_copied_before_one_is_handed_over(
    out_of_memory: bool, data: Broden, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def loaded() -> Generator[Loaded, None, None]:
        for n, batch in enumerate(loader(data, "threads").batches(range(6), 2, skip_bad=False)):
            yield Loaded(batch, partial(said.append, f"{n} released"))

    def full(batch: Batch, pixels: Callable[..., torch.Tensor], labels: Callable[..., torch.Tensor]) -> Batch:
        if labels is torch.clone:  # on the host there is room
            return each(batch, pixels, labels)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transfer, "_copying_stream", lambda device: CopyingStream(said))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    if out_of_memory:
        each = Batch.each
        monkeypatch.setattr(Batch, "each", full)
    given = []
    for batch in transfer._copied_ahead(loaded(), torch.device("cpu"), True):
        said.append(f"{len(given)} handed over")
        given.append(batch)
    expected = list(loader(data, "threads").batches(range(6), 2, skip_bad=False))
    assert [b.images for b in given] == [b.images for b in expected]
    assert all(torch.equal(a.pixels[0], b.pixels[0]) for a, b in zip(given, expected, strict=True))
    assert said == [
        *("copying", "copying", "copied", "0 released", "0 handed over"),
        *("copying", "copied", "1 released", "1 handed over"),
        *("copied", "2 released", "2 handed over", "copied"),
    ]


def test_memory_that_may_not_be_locked_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    class Runtime:
        answer = 0

        def cudaHostRegister(self, *given: int) -> int:  # noqa: N802
            asked.append(given)
            return self.answer

        def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
            asked.append((address,))
            return 0

    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append(("copied",)))
    page_lock.lock_pages(4096, 100)()
    assert asked == [(4096, 100, 1), ("copied",), (4096,)]
    runtime.answer = 2
    monkeypatch.setattr(page_lock, "_forget_error", lambda: asked.append(()))
    page_lock.lock_pages(8192, 100)()
    assert asked[3:] == [(8192, 100, 1), ()], "nothing to unlock"
