"""What the first pass gathers of maps: equal to a look at every value, taken whole or not at all, at any moment."""

from __future__ import annotations

from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.measures.cell_tail import CellTail
from ndissect.engine.measures.cells import Cells, active_cells
from ndissect.engine.measures.enlarged import EnlargedCells, enlarged_above
from ndissect.engine.measures.label_grid import Placement
from ndissect.engine.measures.quantile import Quantile
from ndissect.engine.measures.samples import UnitValues
from ndissect.engine.measures.tail import Tail
from ndissect.engine.measures.tally import upsample_dense
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.run.layer_gatherer import LayerGatherer, prepare
from ndissect.store.protocol import Protocol, make_protocol
from ndissect.store.upsampling import UPSAMPLINGS, Field, Upsampling, make_axis

UNITS, SHAPE, GRID = 4, (5, 3), (16, 12)
Q = Fraction(1, 20)


def axes_of(upsampling: Upsampling, shape: tuple[int, int] = SHAPE, grid: tuple[int, int] = GRID):  # type: ignore[no-untyped-def]
    fields = [Field(-2, 7, size // n) for n, size in zip(shape, grid, strict=True)]
    pairs = zip(shape, grid, fields, strict=True)
    return tuple(make_axis(upsampling, n, size, field, size) for n, size, field in pairs)


def random_maps(seed: int, images: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """Sixteenths, of which many are equal."""
    maps = np.random.default_rng(seed).integers(-20, 40, (images, UNITS, *shape)) / 16
    return torch.from_numpy(maps.astype(np.float32))


class Gathering:
    """One layer's gatherer, and all that it was given."""

    def __init__(self, total: int, upsampling: Upsampling = "half-pixel", over: str = "raw") -> None:
        axes = axes_of(upsampling)
        self.protocol = Protocol(**vars(make_protocol()) | {"upsampling": upsampling, "quantile_over": over})
        self.geometry = LayerGeometry("units", "Conv2d", UNITS, SHAPE, axes)
        size = SHAPE if over == "raw" else GRID
        self.values = total * size[0] * size[1]
        self.seen: list[torch.Tensor] = []
        self.begin()

    def begin(self) -> None:
        self.layer = LayerGatherer(
            self.geometry, self.protocol, Quantile(UNITS, self.values, Q), TopTracker(UNITS, 3, SHAPE)
        )

    def give(self, maps: torch.Tensor) -> Cells | torch.Tensor | None:
        images = range(len(self.seen), len(self.seen) + len(maps))
        (gathered,) = prepare([self.layer], [maps], images)
        gathered.take()
        assert gathered.rivals is not None
        self.layer.top.take(gathered.rivals, images)
        self.seen += maps
        return gathered.firing

    def save_and_restore(self) -> None:
        states = [{k: t.clone() for k, t in s.state().items()} for s in (self.layer.quantile, self.layer.top)]
        self.begin()
        self.layer.quantile.restore(states[0])
        self.layer.top.restore(states[1])

    def check(self) -> None:
        maps = torch.stack(self.seen)
        values = maps
        if self.protocol.quantile_over == "upsampled":
            values = upsample_dense(maps, *self.geometry.axes, self.protocol.upsampling)
        rows = values.transpose(0, 1).reshape(UNITS, -1).numpy()
        self.layer.quantile.end_pass()
        result, top = self.layer.quantile.result(), self.layer.top.result()
        np.testing.assert_array_equal(result.threshold, [oracle.hazen(row, Q) for row in rows])
        raw = maps.transpose(0, 1).reshape(UNITS, -1).numpy()
        finite = np.isfinite(raw)
        np.testing.assert_array_equal(result.maximum, np.where(finite, raw, -np.inf).max(1))
        np.testing.assert_array_equal(result.minimum, np.where(finite, raw, np.inf).min(1))
        np.testing.assert_array_equal(result.nan, np.isnan(raw).sum(1))
        for u in range(UNITS):
            of_unit = maps[:, u].numpy()
            of_unit = np.where(np.isfinite(of_unit), of_unit, -np.inf)
            peak, mean = of_unit.max((1, 2)), of_unit.clip(np.finfo(np.float32).min).mean((1, 2), dtype=np.float64)
            best = sorted(range(len(maps)), key=lambda n: (-peak[n], -mean[n], n))[:3]
            assert top.image[u].tolist() == best
            np.testing.assert_array_equal(top.maps[u], maps[best, u])


parts = st.lists(st.tuples(st.integers(3, 9), st.booleans(), st.booleans()), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 10**6), parts, st.sampled_from(UPSAMPLINGS), st.sampled_from(["raw", "upsampled"]))
def test_any_batches_saved_at_any_moment_give_the_oracle_s_thresholds_and_top_images(
    seed: int, parts: list[tuple[int, bool, bool]], upsampling: Upsampling, over: str
) -> None:
    gathering = Gathering(sum(n for n, _, _ in parts), upsampling, over)
    for number, (images, odd, saved) in enumerate(parts):
        maps = random_maps(seed + number, images)
        if odd and over == "raw":
            maps[0, 1, 2, 1] = torch.nan
        gathering.give(maps * (number + 1))
        if saved:
            gathering.save_and_restore()
    gathering.check()


@pytest.mark.parametrize("over", ["raw", "upsampled"])
def test_what_may_fire_is_what_has_a_corner_above_the_bound_however_it_was_guessed(over: str) -> None:
    gathering = Gathering(90, "half-pixel", over)
    for number in range(30):
        maps = random_maps(number, 3) * (100 if number == 20 else 1)  # more of them than before
        tail = gathering.layer.quantile.tail
        assert tail is not None
        gathering.layer.settle_if_due()
        bound = tail.bound
        firing = gathering.give(maps)
        if number:
            cells = active_cells(maps, bound, "half-pixel")
            if isinstance(firing, Cells):
                assert torch.equal(firing.index, cells.index)
                assert torch.equal(firing.corners, cells.corners)
            else:
                assert cells.nbytes >= maps.nbytes
    gathering.check()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(7, 20), st.integers(7, 20)),
    st.sampled_from(UPSAMPLINGS),
)
def test_enlarged_cells_hold_every_pixel_above_the_bound_once(
    seed: int, shape: tuple[int, int], grid: tuple[int, int], upsampling: Upsampling
) -> None:
    maps, axes = random_maps(seed, 3, shape), axes_of(upsampling, shape, grid)
    bound = torch.tensor([1.0, -0.5, 2.0, 0.03])
    dense = upsample_dense(maps, *axes, upsampling).transpose(0, 1).reshape(UNITS, -1)
    with mock.patch("ndissect.engine.measures.enlarged._PIXELS_AT_ONCE", (200, 200)):
        found = enlarged_above(active_cells(maps, bound, upsampling), bound, Placement(*axes))
    assert found.count.tolist() == (dense > bound[:, None]).sum(1).tolist()
    for values, row, limit in zip(found.value.split(found.count.tolist()), dense, bound, strict=True):
        np.testing.assert_array_equal(values.sort().values, row[row > limit].sort().values)


def rectified(seed: int, images: int) -> torch.Tensor:
    """Mostly zeros, of the last unit nothing else."""
    maps = (random_maps(seed, images) - 1.5).clamp(min=0)
    maps[:, -1] = 0
    return maps


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(3, 9), min_size=1, max_size=8),
    st.sampled_from(UPSAMPLINGS),
    st.booleans(),
    st.sampled_from(["right", "too high", "too low", "noise"]),
    st.lists(st.sampled_from(["asked", "saved", "restored", "too many"]), max_size=2),
)
def test_cells_kept_instead_of_their_pixels_give_the_oracle_s_thresholds_whatever_a_sample_says(
    seed: int, parts: list[int], upsampling: Upsampling, zeros: bool, sample: str, events: list[str]
) -> None:
    gathering = Gathering(sum(parts), upsampling, "upsampled")
    likely, noise = CellTail._likely, np.random.default_rng(seed)

    def told(self: CellTail, *arguments: Any) -> torch.Tensor:
        value = likely(self, *arguments)
        by = {"right": 0, "too high": 0.7, "too low": -0.7, "noise": noise.normal(size=UNITS)}[sample]
        return value + torch.as_tensor(by, dtype=torch.float32)

    keeps = True
    with (
        mock.patch.object(CellTail, "_likely", told),
        mock.patch("ndissect.engine.measures.cell_tail._MORE", 0),
        mock.patch("ndissect.engine.measures.tail._CELL_BYTES", 10000),
        mock.patch("ndissect.engine.run.layer_gatherer._PIXELS_OF_A_CELL", 1),
    ):
        for number, images in enumerate(parts):
            gathering.give((rectified if zeros else random_maps)(seed + number, images))
            tail = gathering.layer.quantile.tail
            assert tail is not None
            assert tail.keeps_cells is keeps
            event = events[number] if number < len(events) else ""
            if event == "asked":
                gathering.layer.quantile.so_far()
            elif event == "saved":
                tail.state()  # and goes on
            elif event == "restored":
                gathering.save_and_restore()
            elif event == "too many":
                tail.settle()
            keeps = keeps and event not in ("restored", "too many")
        gathering.check()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 300), st.booleans(), st.integers(1, 4))
def test_values_that_come_beside_cells_are_ranked_with_their_pixels(
    seed: int, kept: int, zeros: bool, images: int
) -> None:
    of_cells, others = ((rectified if zeros else random_maps)(seed + n, m) for n, m in enumerate((3, images)))
    axes, tail = axes_of("half-pixel"), Tail(UNITS, kept, torch.device("cpu"))
    dense = upsample_dense(torch.cat([of_cells, others]), *axes, "half-pixel").transpose(0, 1)
    tail.take(EnlargedCells.of(active_cells(of_cells, tail.bound, "half-pixel"), Placement(*axes)))
    tail.take(UnitValues.above(dense[:, 3:].reshape(UNITS, -1), tail.bound))
    with (
        mock.patch("ndissect.engine.measures.cell_tail._MORE", 0),
        mock.patch("ndissect.engine.measures.tail._PIXELS_AT_ONCE", 100),
    ):
        tail.settle_if_due()
    rows = np.sort(dense.reshape(UNITS, -1).numpy(), 1)[:, ::-1]
    for rank in {1, min(2, kept), kept // 2 + 1, kept}:
        tail.start([rows.shape[1] - rank] * UNITS, [rows.shape[1]] * UNITS)
        low, high = tail.order_statistics()
        np.testing.assert_array_equal(low, rows[:, rank - 1])
        np.testing.assert_array_equal(high, rows[:, max(rank - 2, 0)])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(7, 20), st.integers(7, 20)),
    st.sampled_from(UPSAMPLINGS),
)
def test_pixels_are_counted_and_taken_from_their_cells(
    seed: int, shape: tuple[int, int], grid: tuple[int, int], upsampling: Upsampling
) -> None:
    maps, axes = random_maps(seed, 3, shape), axes_of(upsampling, shape, grid)
    all_cells = active_cells(maps, torch.full((UNITS,), -torch.inf), upsampling)
    cells = EnlargedCells.of(all_cells, Placement(*axes))
    low, high = torch.tensor([1.0, -0.5, 2.0, -torch.inf]), torch.tensor([1.5, torch.inf, 2.0, 0.03])
    dense = upsample_dense(maps, *axes, upsampling).transpose(0, 1).reshape(UNITS, -1)
    with mock.patch("ndissect.engine.measures.enlarged._ROWS_AT_ONCE", (100, 100)):
        count, inside = cells.between(low, high)
        reach, holds = cells.reaching(low)
    above = (dense > low[:, None]).sum(1)
    assert count.tolist() == above.tolist()
    for values, row, least, most in zip(inside.value.split(inside.count.tolist()), dense, low, high, strict=True):
        np.testing.assert_array_equal(values.sort().values, row[(row > least) & (row <= most)].sort().values)
    assert (reach >= above).all()
    assert (reach <= (dense >= low[:, None]).sum(1)).all()
    left = cells.chosen(holds).values_above(low)
    assert left.count.tolist() == above.tolist()
    everything, share = cells.sample(torch.full((UNITS,), -torch.inf))
    assert share == 1 / 16
    assert sum(map(len, everything)) > 0


@pytest.mark.parametrize("over", ["raw", "upsampled"])
@pytest.mark.parametrize("at", ["cells.CellSearch.end", "top.RivalSearch.end", "quantile.Quantile.prepared_samples"])
def test_out_of_memory_a_layer_has_taken_nothing_of_a_batch(at: str, over: str) -> None:
    gathering = Gathering(20, "half-pixel", over)
    gathering.give(random_maps(0, 5))
    gathering.give(random_maps(1, 5))
    full = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    with mock.patch(f"ndissect.engine.measures.{at}", full), pytest.raises(torch.OutOfMemoryError):
        gathering.give(random_maps(2, 5))
    gathering.give(random_maps(2, 5)[:2])
    gathering.give(random_maps(2, 5)[2:])
    gathering.give(random_maps(3, 5))
    gathering.check()
