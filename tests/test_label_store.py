"""Labels of many images in one place: what comes out is what went in, whatever its width and however it was added."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.candidates import CandidateBatch, Candidates
from ndissect.engine.measures.cells import active_cells
from ndissect.engine.measures.label_store import LabelStore
from ndissect.engine.measures.pieces import first_images, in_pieces, together
from ndissect.engine.passes.labels import LabelBatch, label_batch, run_lengths

CPU = torch.device("cpu")
GRID = (6, 5)
PIXELS = GRID[0] * GRID[1]


def made(images: int, maps: int, *, concepts: int = 9, levels: int = 1, seed: int = 0) -> LabelBatch:
    """Labels of ``images`` images in ``maps`` label maps each, the last of them without any."""
    rng = np.random.default_rng(seed)
    of_pixels = [rng.integers(0, concepts + 1, (maps if n < images - 1 else 0, *GRID)) for n in range(images)]
    of_images = [rng.choice(concepts, levels, replace=False) + 1 for _ in range(images - 1)]
    return label_batch(
        of_pixels,
        [[*map(int, row)] for row in of_images] + [[]],
        np.arange(concepts, dtype=np.int32) % 3,
        3,
        once=False,
    )


def assert_row(store: LabelStore, image: int, labels: LabelBatch, row: int) -> None:
    """Image number ``image`` has the labels of ``row``, ended by zeros where the store is wider."""
    way = store.labelling(np.array([[image]]), np.array([[0]]))
    at = int(way.row)
    for name in ("pixels", "image_level", "area", "present"):
        there, given = getattr(way.labels, name)[at], getattr(labels, name)[row]
        narrow = there[..., : given.shape[-1]]
        assert torch.equal(narrow.to(given.dtype), given), name
        assert not there[..., given.shape[-1] :].any(), name
    assert way.runs is not None
    assert torch.equal(way.runs[at].long(), _runs_alone(labels, row))


def _runs_alone(labels: LabelBatch, row: int) -> torch.Tensor:
    """As they are known of a whole batch: the last may go on into the next image."""
    return run_lengths(labels)[row].long()


@pytest.mark.parametrize("expected", [0, 3, 100], ids=["not known", "fewer than come", "more than come"])
@pytest.mark.parametrize("concepts", [9, 40_000], ids=["int16", "int32"])
def test_labels_are_found_by_image_whatever_came_before_and_after(expected: int, concepts: int) -> None:
    store = LabelStore(expected=expected)
    batches = {
        (7, 2, 9): made(3, 1, concepts=concepts, levels=2),
        (1000, 4): made(2, 6, concepts=concepts, levels=0, seed=1),
        (0,): made(1, 0, concepts=concepts, seed=2),
        tuple(range(20, 90)): made(70, 2, concepts=concepts, levels=3, seed=3),
    }
    for images, labels in batches.items():
        store.add(list(images), labels)
    assert len(store) == 76
    for images, labels in batches.items():
        for row, image in enumerate(images):
            assert_row(store, image, labels, row)
    assert store.lacks(np.array([[7, 8, 1000], [8, 5000, 0]])).tolist() == [8, 5000]

    part = LabelStore()
    part.add_from(store, np.array([1000, 2]))
    part.add_from(store, np.array([], np.int64))
    assert_row(part, 1000, batches[1000, 4], 0)
    assert len(part) == 2
    store.clear()
    assert len(store) == store.nbytes == store.spare == 0
    assert store.lacks(np.array([7])).tolist() == [7]


def test_the_bytes_that_labels_need_are_told_before_they_are_added() -> None:
    narrow, wide = made(4, 1), made(2, 4, seed=1)
    store = LabelStore(expected=10, most=1 << 20)
    row = PIXELS * (2 * 1 + 1) + 4 * 10
    assert store.needs(narrow) == 4 * row
    store.add(range(4), narrow)
    assert store.nbytes == 4 * row
    assert store.spare == 6
    wider = PIXELS * (2 * 4 + 1) + 4 * 10
    assert store.needs(wide) == 4 * row + 6 * wider, "for a moment both are there"
    store.add(range(4, 6), wide)
    assert store.nbytes == 6 * wider
    assert LabelStore(expected=10, most=3 * row).needs(narrow) == 4 * row


def candidates_of(number: int) -> CandidateBatch:
    maps = torch.from_numpy(np.random.default_rng(number).normal(size=(2, 3, 4, 4)).astype(np.float32))
    return CandidateBatch([2 * number, 2 * number + 1], [active_cells(maps, torch.full((3,), 1.5), "half-pixel")])


@pytest.mark.parametrize("width", [1, 4])
def test_where_labels_do_not_fit_all_are_let_go_of_and_no_candidates(width: int) -> None:
    """The last batch's labels, or the room for them to become wider, take a byte more than there is."""
    batches, bounds = [candidates_of(n) for n in range(3)], [torch.full((3,), 1.5)]
    labels = [made(2, 1), made(2, 1), made(2, width)]
    store = LabelStore(most=1 << 20)
    for n in range(2):
        store.add(batches[n].images, labels[n])
    whole = sum(batch.nbytes for batch in batches) + store.needs(labels[2])
    for room in (whole, whole - 1):
        kept = Candidates(Budget(room, 0), CPU, "half-pixel", 6)
        for batch, some in zip(batches, labels, strict=True):
            kept.add(CandidateBatch(batch.images, batch.layers), bounds, some)
        assert kept.labelled == (room == whole)
        assert len(kept.labels) == (6 if kept.labelled else 0)
        assert kept.images() == set(range(6))
        assert not kept.full


def test_small_batches_are_put_together_in_order_and_large_ones_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [candidates_of(n) for n in range(5)]
    sizes = [len(batch.layers[0]) for batch in batches]
    monkeypatch.setattr("ndissect.engine.measures.pieces._CELLS", {"cpu": sum(sizes[:3])})
    maps = CandidateBatch([10], [torch.zeros(1, 3, 4, 4)])
    pieces = list(in_pieces([*batches, maps], CPU))
    assert [[batch.images for batch in piece] for piece in pieces] == [
        [[0, 1], [2, 3], [4, 5]],
        [[6, 7], [8, 9]],
        [[10]],
    ]
    whole = together(pieces[0], CPU)
    assert whole.images == [0, 1, 2, 3, 4, 5]
    all_maps = torch.cat(
        [torch.from_numpy(np.random.default_rng(n).normal(size=(2, 3, 4, 4)).astype(np.float32)) for n in range(3)]
    )
    expected = active_cells(all_maps, torch.full((3,), 1.5), "half-pixel")
    [cells] = whole.layers
    assert not isinstance(cells, torch.Tensor)
    assert cells.shape == expected.shape
    assert torch.equal(cells.index, expected.index)
    assert torch.equal(cells.corners, expected.corners)
    [some] = first_images(whole, 3).layers
    expected = active_cells(all_maps[:3], torch.full((3,), 1.5), "half-pixel")
    assert not isinstance(some, torch.Tensor)
    assert some.shape == expected.shape
    assert torch.equal(some.index, expected.index)
    assert torch.equal(some.corners, expected.corners)
