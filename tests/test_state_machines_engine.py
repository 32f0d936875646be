"""What must hold in any order of operations: candidates kept, streaming quantiles, and what a run has saved."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import oracle
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ndissect.engine.geometry.layer_geometry import LayerGeometry
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.sealed import write_sealed
from ndissect.engine.measures.candidates import CandidateBatch, Candidates, may_fire
from ndissect.engine.measures.cells import Cells, active_cells
from ndissect.engine.measures.quantile import Quantile, merged
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.passes.labels import label_batch
from ndissect.engine.run.layer_gatherer import LayerGatherer, prepare
from ndissect.engine.run.saved_run import SavedRun
from ndissect.store.model import UnitStatistics
from ndissect.store.protocol import make_protocol
from ndissect.store.upsampling import UPSAMPLINGS, Upsampling, make_axis

CPU = torch.device("cpu")
UNITS, SHAPE = 3, (4, 3)
seeds = st.integers(0, 2**32 - 1)


def random_maps(seed: int, images: int = 2) -> torch.Tensor:
    """Small whole numbers, of which many are equal, and now and then what is no number."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(-3, 9, (images, UNITS, *SHAPE)).astype(np.float32)
    odd = rng.random(maps.shape)
    maps[odd < 0.02], maps[odd > 0.99] = np.nan, np.inf
    return torch.from_numpy(maps)


# What may fire


class KeepingCandidates(RuleBasedStateMachine):
    """Batches come, bounds rise, memory runs out: against a list of all maps that came."""

    @initialize(
        upsampling=st.sampled_from(UPSAMPLINGS), room=st.integers(0, 30_000), worth=st.sampled_from([0, 1 << 26])
    )
    def begin(self, upsampling: Upsampling, room: int, worth: int) -> None:
        self.upsampling, self.budget = upsampling, Budget(room, 0)
        self.candidates = Candidates(self.budget, CPU, upsampling)
        self.bounds = [torch.full((UNITS,), -torch.inf)] * 2
        self.maps: dict[int, list[torch.Tensor]] = {}  # by image, of each layer
        # Batches are cut again only where that is worth it: from the first byte on, or never here.
        self.patched = mock.patch("ndissect.engine.measures.candidates._WORTH", worth)
        self.patched.start()

    def teardown(self) -> None:
        if hasattr(self, "patched"):
            self.patched.stop()

    @rule(seed=seeds, images=st.integers(1, 3))
    def add(self, seed: int, images: int) -> None:
        numbers = [len(self.maps) + n for n in range(images)]
        layers = [random_maps(seed + i, images) for i in range(2)]
        self.maps |= {number: [layer[n] for layer in layers] for n, number in enumerate(numbers)}
        labels = label_batch([np.ones((1, 8, 8), np.int64)] * images, [[]] * images, np.array([0], np.int32), 1)
        kept = [may_fire(m, b, self.upsampling) for m, b in zip(layers, self.bounds, strict=True)]
        self.candidates.add(CandidateBatch(numbers, kept), self.bounds, labels)

    @rule(layer=st.integers(0, 1), unit=st.integers(0, UNITS - 1), to=st.integers(-3, 9))
    def raise_a_bound(self, layer: int, unit: int, to: int) -> None:
        bound = self.bounds[layer].clone()
        bound[unit] = max(float(bound[unit]), float(to))
        self.bounds[layer] = bound

    @rule()
    def cut(self) -> None:
        self.candidates.cut(self.bounds)
        for batch in self.candidates.batches:
            for i, layer in enumerate(batch.layers):
                maps = torch.stack([self.maps[image][i] for image in batch.images])
                cells = active_cells(maps, self.bounds[i], self.upsampling)
                if isinstance(layer, Cells):
                    assert torch.equal(layer.index, cells.index)
                    np.testing.assert_array_equal(layer.corners, cells.corners)
                else:
                    np.testing.assert_array_equal(layer, maps)
                    assert cells.nbytes >= maps.nbytes or bool((self.bounds[i] == -torch.inf).all())

    @invariant()
    def all_that_may_fire_is_there(self) -> None:
        for batch in self.candidates.batches:
            for i, layer in enumerate(batch.layers):
                maps = torch.stack([self.maps[image][i] for image in batch.images])
                cells = active_cells(maps, self.bounds[i], self.upsampling)
                if isinstance(layer, Cells):
                    above = layer.above(self.bounds[i])
                    assert torch.equal(above.index, cells.index)
                    np.testing.assert_array_equal(above.corners, cells.corners)
                else:
                    np.testing.assert_array_equal(layer, maps)

    @invariant()
    def memory_is_within_the_budget_and_what_is_left_out_is_said(self) -> None:
        kept, batches = self.candidates, self.candidates.batches
        assert kept.nbytes == sum(batch.nbytes for batch in batches) + kept.labels.nbytes <= self.budget.host
        images = [image for batch in batches for image in batch.images]
        assert len(images) == len(set(images)) == len(kept.images())
        assert kept.images() <= set(self.maps)
        assert kept.full or kept.images() == set(self.maps)
        assert len(kept.labels) == (len(images) if kept.labelled else 0)


# Thresholds


def update_maps(quantile: Quantile, maps: torch.Tensor) -> None:
    """Give the maps to ``quantile`` as the first pass does, where only what lies above the bound is looked at."""
    layer = LayerGatherer(GEOMETRIES[0], make_protocol(), quantile, TopTracker(UNITS, 1, SHAPE))
    for gathered in prepare([layer], [maps], None):
        gathered.take()


def assert_statistics(statistics: UnitStatistics, values: np.ndarray, q: Fraction) -> None:
    """``statistics`` are those of ``values`` (U, n), by numpy."""
    np.testing.assert_array_equal(statistics.threshold, [oracle.hazen(row, q) for row in values])
    np.testing.assert_array_equal(statistics.nan, np.isnan(values).sum(1))
    np.testing.assert_array_equal(statistics.inf, np.isinf(values).sum(1))
    for u, row in enumerate(values):
        finite = row[np.isfinite(row)]
        if len(finite):
            assert (statistics.minimum[u], statistics.maximum[u]) == (finite.min(), finite.max())


class StreamingQuantiles(RuleBasedStateMachine):
    """Parts of one stream, as processes or shards take them, in one pass."""

    TOTAL, PARTS = 200, 3

    @initialize(q=st.sampled_from([Fraction(1, 200), Fraction(1, 7), Fraction(1, 2), Fraction(9, 10)]))
    def begin(self, q: Fraction) -> None:
        self.q = q
        self.parts = [self.quantile() for _ in range(self.PARTS)]
        self.values = [np.zeros((UNITS, 0), np.float32) for _ in range(self.PARTS)]

    def quantile(self) -> Quantile:
        return Quantile(UNITS, self.TOTAL, self.q)

    def take(self, part: int, maps: torch.Tensor, update: Callable[[Quantile], None]) -> None:
        values = maps.transpose(0, 1).reshape(UNITS, -1).numpy()
        if sum(v.shape[1] for v in self.values) + values.shape[1] > self.TOTAL:
            return
        update(self.parts[part])
        self.values[part] = np.concatenate([self.values[part], values], 1)

    @rule(part=st.integers(0, PARTS - 1), seed=seeds, images=st.integers(1, 4))
    def update_with_maps(self, part: int, seed: int, images: int) -> None:
        maps = random_maps(seed, images)
        self.take(part, maps, lambda quantile: update_maps(quantile, maps))

    @rule(part=st.integers(0, PARTS - 1), seed=seeds, count=st.integers(1, 30))
    def update_with_values(self, part: int, seed: int, count: int) -> None:
        maps = random_maps(seed, count)[:, :, :1, :1]
        self.take(part, maps, lambda quantile: quantile.update(maps.transpose(0, 1).reshape(UNITS, -1)))

    @rule(part=st.integers(0, PARTS - 1))
    def save_and_restore(self, part: int) -> None:
        state = {name: t.clone() for name, t in self.parts[part].state().items()}
        self.parts[part] = self.quantile()
        self.parts[part].restore(state)

    @rule(part=st.integers(0, PARTS - 1))
    def look_at_results_so_far(self, part: int) -> None:
        assert_statistics(self.parts[part].so_far(), self.values[part], self.q)

    @rule()
    def merge(self) -> None:
        assert_statistics(merged([p.state() for p in self.parts], self.q), np.concatenate(self.values, 1), self.q)

    @invariant()
    def no_threshold_is_below_the_bound(self) -> None:
        for quantile, values in zip(self.parts, self.values, strict=True):
            threshold = np.array([oracle.hazen(row, self.q) for row in values])
            assert quantile.bound is not None
            assert not (threshold < quantile.bound.numpy()).any()


class SelectingByRadix(RuleBasedStateMachine):
    """The batches of a stream again and again, in another order each time, in little memory."""

    @initialize(q=st.sampled_from([Fraction(1, 200), Fraction(1, 7), Fraction(1, 2)]), seed=seeds)
    def begin(self, q: Fraction, seed: int) -> None:
        self.q = q
        self.batches = [random_maps(seed + n).transpose(0, 1).reshape(UNITS, -1) for n in range(4)]
        self.quantile, self.left = self.fresh(), set(range(len(self.batches)))
        self.again, self.passes = True, 0

    def fresh(self) -> Quantile:
        return Quantile(UNITS, sum(b.shape[1] for b in self.batches), self.q, budget=1)

    @precondition(lambda self: self.again and self.left)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.left)))
        self.left.remove(number)
        self.quantile.update(self.batches[number])

    @rule()
    def save_and_restore(self) -> None:
        state = {name: t.clone() for name, t in self.quantile.state().items()}
        self.quantile = self.fresh()
        self.quantile.restore(state)

    @precondition(lambda self: self.again and not self.left)
    @rule()
    def end_pass(self) -> None:
        self.again, self.passes = self.quantile.end_pass(), self.passes + 1
        assert self.passes <= self.quantile.passes
        if self.again:
            self.left = set(range(len(self.batches)))
        else:
            assert_statistics(self.quantile.result(), torch.cat(self.batches, 1).numpy(), self.q)


# What a run has saved


class Killed(BaseException):
    """The end of a process in the middle of what it was doing."""


AXES = make_axis("half-pixel", SHAPE[0], 8, None, 8), make_axis("half-pixel", SHAPE[1], 8, None, 8)
GEOMETRIES = [LayerGeometry("units", "Conv2d", UNITS, SHAPE, AXES)]


class SavingARun(RuleBasedStateMachine):
    """Processes that save a run, go on from what is saved, and are killed at any time: what loads was saved, whole."""

    #: What a phase holds: a number that stands for all of its state, and the images whose candidates go with it.
    Saved = tuple[int, tuple[int, ...]]

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.saved: dict[int, SavingARun.Saved] = {}
        self.process: SavedRun | None = None
        self.number = 0
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.end()
            shutil.rmtree(self.folder)

    def start(self) -> None:
        """Another process takes the run up, as ndissect.engine.run.restore does."""
        self.process = SavedRun(self.folder / ".x.nd.h5.saved", {"data": "small"})
        self.holding = self.process.held()
        self.holding.__enter__()
        self.candidates = Candidates(Budget(1 << 30, 0), CPU, "half-pixel")
        self.phase = max(self.process.phases(), default=0)
        there = self.process.load(self.phase)
        if there is not None:
            record, _ = there
            batches = list(self.process.candidates(record, GEOMETRIES, range(1000)))
            self.candidates.restore(batches, [torch.full((UNITS,), -torch.inf)])

    def end(self) -> None:
        if self.process is not None:
            self.process = None
            self.holding.__exit__(None, None, None)

    def save(self) -> Saved:
        assert self.process is not None
        self.number += 1
        state = {"a": torch.full((5,), self.number), "b": torch.full((2, 3), float(self.number))}
        images = tuple(sorted(self.candidates.images()))
        self.process.save(self.phase, {"number": self.number}, state, self.candidates)
        return self.number, images

    def loaded(self, phase: int) -> Saved | None:
        """What is on the disk of a phase, looked at by another process; None where nothing is."""
        looking = SavedRun(self.folder / ".x.nd.h5.saved", {"data": "small"})
        there = looking.load(phase)
        if there is None:
            return None
        record, state = there
        assert state["a"].tolist() == [record["number"]] * 5
        assert state["b"].tolist() == [[float(record["number"])] * 3] * 2
        batches = list(looking.candidates(record, GEOMETRIES, range(1000)))
        for batch in batches:
            np.testing.assert_array_equal(torch.as_tensor(batch.layers[0]), random_maps(batch.images[0]))  # type: ignore[arg-type]
        return record["number"], tuple(sorted(image for batch in batches for image in batch.images))

    @rule()
    def keep_candidates(self) -> None:
        first = 2 * len(self.candidates.batches)
        batch = CandidateBatch([first, first + 1], [random_maps(first)])
        self.candidates.add(batch, [torch.full((UNITS,), -torch.inf)])

    @rule()
    def save_a_phase(self) -> None:
        self.saved[self.phase] = self.save()

    @rule()
    def begin_the_next_phase(self) -> None:
        if self.phase in self.saved and self.phase < 3:
            self.phase += 1

    @rule(at=st.integers(1, 2), written=st.booleans())
    def is_killed_while_it_saves(self, at: int, written: bool) -> None:
        calls = 0

        def killed(*given: Any) -> str:
            nonlocal calls
            calls += 1
            if calls == at and not written:
                raise Killed
            digest = write_sealed(*given)
            if calls == at:
                raise Killed
            return digest

        before, images = self.saved.get(self.phase), tuple(sorted(self.candidates.images()))
        with mock.patch("ndissect.engine.run.saved_run.write_sealed", killed), contextlib.suppress(Killed):
            self.save()
        after = self.loaded(self.phase)
        assert after in (before, (self.number, images))
        if after is not None:
            self.saved[self.phase] = after
        self.end()
        self.start()

    @rule(name=st.sampled_from(["0.phase0.safetensors", "0.kept0.safetensors", "run.json"]))
    def is_killed_and_leaves_half_a_file(self, name: str) -> None:
        (self.folder / ".x.nd.h5.saved" / f".{name}.123.part").write_bytes(b"half")
        self.end()
        self.start()

    @rule()
    def goes_on_in_another_process(self) -> None:
        self.end()
        self.start()

    @rule()
    def throws_it_away(self) -> None:
        assert self.process is not None
        self.process.clear()
        self.saved, self.phase = {}, 0
        self.candidates = Candidates(Budget(1 << 30, 0), CPU, "half-pixel")

    @invariant()
    def what_loads_is_what_was_saved_last(self) -> None:
        if self.process is not None:
            assert self.process.phases() == sorted(self.saved)
            assert {phase: self.loaded(phase) for phase in self.saved} == self.saved


def cases_of(machine: type[RuleBasedStateMachine], examples: int) -> Any:
    """The tests of a machine: so many series of operations, at most 20 each."""
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=20, deadline=None)
    return machine.TestCase


TestKeepingCandidates = cases_of(KeepingCandidates, 25)
TestStreamingQuantiles = cases_of(StreamingQuantiles, 20)
TestSelectingByRadix = cases_of(SelectingByRadix, 30)
TestSavingARun = cases_of(SavingARun, 15)
