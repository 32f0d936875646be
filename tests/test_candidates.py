"""The cells of maps that may fire, kept from the first pass: all of them, nothing else, and no more than fits."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.measures.candidates import CandidateBatch, Candidates, may_fire
from ndissect.engine.measures.cells import Cells, active_cells
from ndissect.engine.passes.labels import LabelBatch, label_batch
from ndissect.engine.run.saved_run import SavedRun
from ndissect.store.errors import NDError
from ndissect.store.upsampling import UPSAMPLINGS, Upsampling, make_axis

CPU = torch.device("cpu")
ENOUGH = Budget(1 << 30, 0)
N, U, SHAPE = 3, 5, (7, 4)

in_every_upsampling = pytest.mark.parametrize("upsampling", UPSAMPLINGS)


def random_maps(seed: int = 0, images: int = N) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(images, U, *SHAPE)).astype(np.float32))


def odd_maps() -> torch.Tensor:
    """NaN at a place, everywhere, beside an infinity; infinities of both signs; a map that is all below zero."""
    maps = random_maps(1)
    maps[0, 0, 3, 2] = torch.nan
    maps[0, 1] = torch.nan
    maps[1, 2, 0, 0] = torch.inf
    maps[1, 2, 0, 1] = torch.nan
    maps[1, 3, 6, 3] = torch.inf
    maps[2, 0] = -torch.inf
    maps[2, 1, 2, 2] = -torch.inf
    maps[2, 4] = -maps[2, 4].abs() - 0.1
    return maps


def by_hand(maps: torch.Tensor, limit: torch.Tensor, upsampling: Upsampling) -> tuple[np.ndarray, np.ndarray]:
    """(index, corners): every cell of the padded maps looked at, one by one."""
    values, limits = maps.float().numpy(), limit.numpy()
    index, corners, place = [], [], 0
    for image in values:
        for u, samples in enumerate(image):
            h, w = samples.shape
            padded = np.zeros((h + 2, w + 2), np.float32)
            for i in range(h + 2):
                for j in range(w + 2):
                    inside = 1 <= i <= h and 1 <= j <= w
                    if inside or upsampling != "half-pixel-zero":
                        padded[i, j] = samples[min(max(i, 1), h) - 1, min(max(j, 1), w) - 1]
            for i in range(h + 1):
                for j in range(w + 1):
                    four = [padded[i, j], padded[i, j + 1], padded[i + 1, j], padded[i + 1, j + 1]]
                    if any(v > limits[u] for v in four):
                        index.append(place)
                        corners.append(four)
                    place += 1
    return np.array(index, int), np.array(corners, np.float32).reshape(-1, 4).T


def same(cells: Cells, index: np.ndarray, corners: np.ndarray) -> None:
    np.testing.assert_array_equal(cells.index.numpy(), index)
    np.testing.assert_array_equal(cells.corners.numpy(), corners)


# Cells

LIMITS = {
    "high": [1.0, 1.5, 0.5, 2.0, 1.0],
    "below zero": [-0.5, -1.0, -2.0, -0.05, -0.2],
    "of all kinds": [0.0, 9.0, -torch.inf, torch.inf, -0.01],
}


@in_every_upsampling
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("maps", [random_maps(), odd_maps(), random_maps(2).half(), random_maps(3).bfloat16()])
def test_cells_that_may_fire_are_those_with_a_corner_above_the_limit(
    maps: torch.Tensor, limits: str, upsampling: Upsampling
) -> None:
    limit = torch.tensor(LIMITS[limits])
    index, corners = by_hand(maps, limit, upsampling)
    cells = active_cells(maps, limit, upsampling)
    assert 0 < len(index) < N * U * (SHAPE[0] + 1) * (SHAPE[1] + 1), "the case is not trivial"
    assert cells.shape == (N, U, SHAPE[0] + 1, SHAPE[1] + 1)
    assert len(cells) == len(index)
    assert (cells.index.dtype, cells.corners.dtype) == (torch.int32, torch.float32)
    same(cells, index, corners)
    same(active_cells(maps, limit, upsampling, maps.amax((2, 3))), index, corners)


@in_every_upsampling
def test_zeros_around_a_map_fire_above_a_limit_below_zero_and_in_one_upsampling_only(upsampling: Upsampling) -> None:
    cells = active_cells(torch.full((1, 1, 2, 3), -3.0), torch.tensor([-1.0]), upsampling)
    around = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]  # of 3 x 4 cells all but the two inside
    assert cells.index.tolist() == (around if upsampling == "half-pixel-zero" else [])


@in_every_upsampling
def test_where_nothing_fires_there_are_no_cells(upsampling: Upsampling) -> None:
    cells = active_cells(random_maps(), torch.full((U,), 100.0), upsampling)
    assert len(cells) == cells.nbytes == 0
    assert cells.corners.shape == (4, 0)
    assert len(cells.above(torch.full((U,), 101.0))) == 0


def test_a_value_at_the_limit_does_not_fire() -> None:
    maps = torch.tensor([[[[1.0, 2.0]]]])
    assert len(active_cells(maps, torch.tensor([2.0]), "half-pixel")) == 0
    below = torch.nextafter(torch.tensor([2.0]), torch.tensor([0.0]))
    assert active_cells(maps, below, "half-pixel").index.tolist() == [1, 2, 4, 5]


@in_every_upsampling
def test_cells_above_a_higher_limit_are_those_found_with_it_at_once(upsampling: Upsampling) -> None:
    low, high = torch.tensor(LIMITS["below zero"]), torch.tensor(LIMITS["high"])
    for maps in (random_maps(), odd_maps()):
        cells = active_cells(maps, low, upsampling)
        index, corners = by_hand(maps, high, upsampling)
        assert 0 < len(index) < len(cells)
        same(cells.above(high), index, corners)
        same(cells.above(low), cells.index.numpy(), cells.corners.numpy())


def test_what_may_fire_is_kept_as_maps_where_cells_would_take_more() -> None:
    maps = random_maps()
    whole = may_fire(maps, torch.full((U,), -torch.inf), "half-pixel")
    dense = may_fire(maps.half(), torch.full((U,), -5.0), "half-pixel")
    sparse = may_fire(maps, torch.full((U,), 2.5), "half-pixel")
    assert isinstance(whole, torch.Tensor)
    assert isinstance(dense, torch.Tensor)
    assert isinstance(sparse, Cells)
    assert dense.dtype == torch.float32
    assert 0 < sparse.nbytes < whole.nbytes
    maps.zero_()
    assert whole.abs().sum() > 0, "kept, while the network writes over its own memory"


# Kept

LAYERS, BATCHES = 2, 6


def labels_of(images: int) -> LabelBatch:
    rng = np.random.default_rng(9)
    maps = [rng.integers(0, 3, (1, 8, 8)) for _ in range(images)]
    return label_batch(maps, [[] for _ in maps], np.array([0, 1], np.int32), 2)


def maps_of(number: int) -> list[torch.Tensor]:
    """Of each layer the maps of batch ``number``."""
    return [random_maps(100 + LAYERS * number + i, images=2) for i in range(LAYERS)]


def batch(number: int, bounds: list[torch.Tensor], upsampling: Upsampling = "half-pixel") -> CandidateBatch:
    layers = [may_fire(m, b, upsampling) for m, b in zip(maps_of(number), bounds, strict=True)]
    return CandidateBatch([2 * number, 2 * number + 1], layers)


def bounds_at(value: float) -> list[torch.Tensor]:
    return [torch.full((U,), value), torch.full((U,), value + 0.25)]


def check(layer: Cells | torch.Tensor, maps: torch.Tensor, bound: torch.Tensor, upsampling: Upsampling) -> None:
    """``layer`` holds exactly the cells above ``bound``, or the maps where those take more."""
    index, corners = by_hand(maps, bound, upsampling)
    if isinstance(layer, Cells):
        same(layer, index, corners)
    else:
        assert torch.equal(layer, maps)
        assert len(index) * 5 >= maps.numel(), "an index and four corners for each cell"


def fill(budget: Budget, value: float = 2.0) -> Candidates:
    kept = Candidates(budget, CPU, "half-pixel")
    for number in range(BATCHES):
        kept.add(batch(number, bounds_at(value)), bounds_at(value), labels_of(2))
        assert kept.nbytes == sum(p.nbytes for p in kept.batches) + kept.labels.nbytes <= budget.host
    return kept


def whole_bytes(*, labels: bool) -> int:
    """What all batches take: of labels 2 bytes a pixel and 1 for their runs, and 4 a concept."""
    of_labels = 2 * BATCHES * (8 * 8 * (2 + 1) + 4 * (2 + 1))
    return sum(batch(n, bounds_at(2.0)).nbytes for n in range(BATCHES)) + of_labels * labels


def test_within_the_budget_everything_is_kept() -> None:
    kept = fill(Budget(whole_bytes(labels=True), 0))
    assert not kept.full
    assert kept.images() == set(range(2 * BATCHES))
    assert kept.labelled
    assert len(kept.labels) == 2 * BATCHES
    for number, there in enumerate(kept.batches):
        assert there.images == [2 * number, 2 * number + 1]
        for layer, maps, bound in zip(there.layers, maps_of(number), bounds_at(2.0), strict=True):
            check(layer, maps, bound, "half-pixel")


def test_over_the_budget_the_labels_go_first() -> None:
    kept = fill(Budget(whole_bytes(labels=True) - 1, 0))
    assert not kept.full
    assert kept.images() == set(range(2 * BATCHES))
    assert not kept.labelled
    assert len(kept.labels) == kept.labels.nbytes == 0
    check(kept.batches[0].layers[0], maps_of(0)[0], bounds_at(2.0)[0], "half-pixel")
    assert not fill(Budget(whole_bytes(labels=False), 0)).full, "labels take nothing of what activations need"


def test_then_images_are_left_out_whole_and_it_is_said() -> None:
    enough = whole_bytes(labels=False)
    kept = fill(Budget(enough - 1, 0))
    assert kept.full
    assert kept.images() == set(range(2 * BATCHES - 2)), "all but the last batch, which found no room"
    some = fill(Budget(enough // 2, 0))
    assert some.full
    assert 0 < len(some.images()) < len(kept.images())
    none = fill(Budget(10, 0))
    assert none.full
    assert none.images() == set()
    assert none.nbytes == 0


@in_every_upsampling
def test_a_raised_bound_lets_go_of_what_is_below_it_and_of_nothing_above(upsampling: Upsampling) -> None:
    kept = Candidates(ENOUGH, CPU, upsampling)
    for number in range(BATCHES):
        low = bounds_at(-torch.inf if number == 0 else 2.0)
        kept.add(batch(number, low, upsampling), low, labels_of(2))
    assert isinstance(kept.batches[0].layers[0], torch.Tensor), "maps as a whole, while nothing is known"
    before = kept.nbytes
    for value in (2.25, 2.75):
        kept.cut(bounds_at(value))
        assert kept.nbytes == sum(p.nbytes for p in kept.batches) + kept.labels.nbytes < before
        before = kept.nbytes
        assert sum(isinstance(layer, Cells) for p in kept.batches for layer in p.layers) > BATCHES
        for number, there in enumerate(kept.batches):
            for layer, maps, bound in zip(there.layers, maps_of(number), bounds_at(value), strict=True):
                check(layer, maps, bound, upsampling)
    assert kept.images() == set(range(2 * BATCHES))
    assert len(kept.labels) == 2 * BATCHES


def test_no_image_is_left_out_while_there_is_something_to_let_go_of() -> None:
    unknown, known = bounds_at(-torch.inf), bounds_at(2.0)
    batches = [batch(0, unknown), batch(1, unknown), batch(2, known)]
    kept = Candidates(Budget(sum(layer.nbytes for p in batches[:2] for layer in p.layers), 0), CPU, "half-pixel")
    for there, bounds in zip(batches, (unknown, unknown, known), strict=True):
        kept.add(there, bounds)
    assert kept.images() == set(range(6))
    assert not kept.full


# Saved

AXES = make_axis("half-pixel", SHAPE[0], 14, None, 14), make_axis("half-pixel", SHAPE[1], 14, None, 14)
IMAGES = range(20)
PLACES = [LayerGeometry(name, "Conv2d", U, SHAPE, AXES) for name in ("first", "second")]


def same_batch(a: CandidateBatch, b: CandidateBatch) -> None:
    assert a.images == b.images
    for x, y in zip(a.layers, b.layers, strict=True):
        assert type(x) is type(y)
        if isinstance(x, Cells) and isinstance(y, Cells):
            assert x.shape == y.shape
            assert x.index.dtype == y.index.dtype
            same(x, y.index.numpy(), y.corners.numpy())
        else:
            assert torch.equal(x, y)


def mixed() -> Candidates:
    """Cells; maps; none at all of a layer."""
    kept = Candidates(ENOUGH, CPU, "half-pixel")
    for number, bounds in enumerate(
        [bounds_at(2.0), bounds_at(-torch.inf), bounds_at(100.0), [bounds_at(100.0)[0], bounds_at(-torch.inf)[0]]]
    ):
        kept.add(batch(number, bounds), bounds)
    return kept


def test_batches_outlive_the_process_that_kept_them(tmp_path: Path) -> None:
    kept = mixed()
    saved = SavedRun(tmp_path / ".x.saved", {"data": "small"})
    with saved.held():
        saved.save(0, {"done": 8}, {"t": torch.arange(3)}, kept)
    assert all(p.saved for p in kept.batches)

    again = SavedRun(tmp_path / ".x.saved", {"data": "small"})
    found = again.load(0)
    assert found is not None
    record, state = found
    assert record["done"] == 8
    assert state["t"].tolist() == [0, 1, 2]
    batches = list(again.candidates(record, PLACES, IMAGES))
    for a, b in zip(batches, kept.batches, strict=True):
        same_batch(a, b)
        assert a.saved
    restored = Candidates(ENOUGH, CPU, "half-pixel")
    restored.restore(batches, bounds_at(-torch.inf))
    assert restored.images() == kept.images()
    assert not len(restored.labels), "they are read again from the data set where they are wanted"
    assert not restored.full


def test_each_batch_is_written_once(tmp_path: Path) -> None:
    kept, saved = mixed(), SavedRun(tmp_path / ".x.saved", {})
    with saved.held():
        saved.save(0, {}, {}, kept)
        [first] = tmp_path.glob("*/*kept*")
        written = first.stat().st_mtime_ns
        saved.save(0, {}, {}, kept)
        assert list(tmp_path.glob("*/*kept*")) == [first]
        later = bounds_at(1.75)
        kept.add(batch(9, later), later)
        saved.save(0, {}, {}, kept)
        parts = sorted(tmp_path.glob("*/*kept*"))
        assert parts[0] == first
        assert len(parts) == 2
        assert first.stat().st_mtime_ns == written
        record, _ = saved.load(0) or pytest.fail("it was saved")
        one, other = saved.candidate_files(record, PLACES, IMAGES)
        assert [p.images for p in other] == [[18, 19]]
        assert len(one) == 4


KILLED = """
import resource, signal, sys
from pathlib import Path
import torch
from ndissect.engine.run.saved_run import SavedRun
saved = SavedRun(Path(sys.argv[1]), {})
with saved.held():
    saved.save(0, {"done": 1}, {"a": torch.ones(3)})
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # a write beyond the limit is the end
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    saved.save(0, {"done": 2}, {"a": torch.ones(1_000_000)})
"""


def test_a_run_that_is_killed_in_the_middle_of_a_file_leaves_what_the_next_one_goes_on_from(tmp_path: Path) -> None:
    folder = tmp_path / ".x.saved"
    done = subprocess.run([sys.executable, "-c", KILLED, folder])
    assert done.returncode == -signal.SIGXFSZ
    left = [path for path in folder.iterdir() if path.suffix == ".part"]
    assert len(left) == 1 and left[0].stat().st_size == 100_000, "it was in the middle of a file"
    again = SavedRun(folder, {})
    with again.held():
        record, state = again.load(0) or pytest.fail("it was saved")
        assert (record["done"], state["a"].tolist()) == (1, [1.0] * 3)
        again.save(0, {"done": 3}, {})
        assert not left[0].exists()


def test_batches_of_a_damaged_file_are_refused_in_words(tmp_path: Path) -> None:
    saved = SavedRun(tmp_path / ".x.saved", {})
    with saved.held():
        saved.save(0, {}, {}, mixed())
    record, _ = saved.load(0) or pytest.fail("it was saved")
    [part] = tmp_path.glob("*/*kept*")
    whole = part.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"\0" * len(whole), whole[8:]):
        part.write_bytes(damage)
        with pytest.raises(NDError, match="cannot be read") as refused:
            list(saved.candidates(record, PLACES, IMAGES))
        assert "--restart" in refused.value.hint
    part.unlink()
    with pytest.raises(NDError):
        list(saved.candidates(record, PLACES, IMAGES))
